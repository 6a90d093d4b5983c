//! Control groups of the runner: their limits on CPU time and memory.
//!
//! A process is limited by its own group and all ancestors, so the smallest limit counts. Version 1 has a hierarchy for each
//! controller, version 2 has one for all; a system may use both. Files: `cpu.max`, `cpu.weight`, `cpu.stat` and
//! `memory.max` (Documentation/admin-guide/cgroup-v2.rst), `cpu.cfs_quota_us`, `cpu.cfs_period_us`, `cpu.shares` and
//! `memory.limit_in_bytes` (Documentation/scheduler/sched-bwc.rst and admin-guide/cgroup-v1).

use protocol::{CpuQuota, GroupWeight, MemoryLimit, Throttled};
use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 expresses "no limit" as a number above this one.
const UNLIMITED: u64 = 1 << 60;

/// The groups of a process that limit CPU time and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Each group comes before its parent.
    cpu: Vec<Group>,
    memory: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    /// As in /proc/self/cgroup.
    name: String,
    folder: PathBuf,
}

/// The kernel's counters of CPU time that quotas have denied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Throttling {
    groups: Vec<(Group, Denied)>,
    /// Of the process' own group, by the limits of any group, including groups that this system hides (Linux 6.6).
    own_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Denied {
    periods: u64,
    ns: u64,
}

impl Groups {
    /// The current groups of this process.
    pub(crate) fn of_process() -> Self {
        Self::below(Path::new("/"))
    }

    /// As [`Self::of_process`], with `top` as the root folder.
    fn below(top: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(top.join(path)).unwrap_or_default();
        let (groups, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
        let of = |controller: &str| {
            let mut found = Vec::new();
            for line in groups.lines() {
                let mut fields = line.splitn(3, ':').skip(1);
                let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
                let is_second_version = controllers.is_empty();
                if is_second_version || controllers.split(',').any(|known| known == controller) {
                    let tree = if is_second_version { None } else { Some(controller) };
                    found.extend(chain(top, &mounts, tree, path));
                }
            }
            found
        };
        Self { cpu: of("cpu"), memory: of("memory") }
    }

    /// The smallest quota.
    pub(crate) fn cpu_quota(&self) -> Option<CpuQuota> {
        let quota =
            |group: &Group| Some(CpuQuota { group: group.name.clone(), milli_cpus: group.milli_cpus()? });
        self.cpu.iter().filter_map(quota).min_by_key(|quota| quota.milli_cpus)
    }

    /// The smallest memory limit.
    pub(crate) fn memory_limit(&self) -> Option<MemoryLimit> {
        let limit =
            |group: &Group| Some(MemoryLimit { group: group.name.clone(), bytes: group.memory_bytes()? });
        self.memory.iter().filter_map(limit).min_by_key(|limit| limit.bytes)
    }

    /// Memory that is available within the limits, in bytes; `None` without a limit.
    pub(crate) fn memory_available_bytes(&self) -> Option<u64> {
        self.memory.iter().filter_map(Group::memory_available_bytes).min()
    }

    /// The smallest CPU weight, if it is below the default.
    pub(crate) fn weight(&self) -> Option<GroupWeight> {
        let weight =
            |group: &Group| Some(GroupWeight { group: group.name.clone(), percent: group.weight_percent()? });
        let least = self.cpu.iter().filter_map(weight).min_by_key(|weight| weight.percent)?;
        (least.percent < 100).then_some(least)
    }

    pub(crate) fn throttling(&self) -> Throttling {
        let denied = |group: &Group| Some((group.clone(), group.denied("cpu.stat")?));
        Throttling {
            groups: self.cpu.iter().filter_map(denied).collect(),
            own_ns: self.cpu.iter().find_map(|group| group.denied("cpu.stat.local")).map(|denied| denied.ns),
        }
    }
}

impl Throttling {
    /// Groups that were throttled since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<Throttled> {
        let mut found = Vec::new();
        for (group, now) in &self.groups {
            let Some((_, before)) = earlier.groups.iter().find(|(known, _)| known == group) else { continue };
            let (periods, ns) =
                (now.periods.saturating_sub(before.periods), now.ns.saturating_sub(before.ns));
            if periods > 0 || ns > 0 {
                let (name, milli_cpus) = (group.name.clone(), group.milli_cpus());
                found.push(Throttled { group: name, milli_cpus, periods, throttled_ns: ns });
            }
        }
        let own = self.own_ns.zip(earlier.own_ns).map_or(0, |(now, before)| now.saturating_sub(before));
        if let (true, true, Some((group, _))) = (found.is_empty(), own > 0, self.groups.last()) {
            let group = format!("an ancestor of {}", group.name);
            found.push(Throttled { group, milli_cpus: None, periods: 0, throttled_ns: own });
        }
        found
    }
}

impl Group {
    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join(name)).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// The number after a word at the start of a line.
    fn field(&self, name: &str, word: &str) -> Option<u64> {
        let text = self.text(name)?;
        let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// Quota over period, in thousandths; `None` without a quota.
    fn milli_cpus(&self) -> Option<u64> {
        let (quota, period): (u64, u64) = match self.text("cpu.max") {
            Some(text) => {
                let mut words = text.split_whitespace();
                (
                    words.next()?.parse().ok()?,
                    words.next().and_then(|word| word.parse().ok()).unwrap_or(100_000),
                )
            }
            // -1 means no quota.
            None => (self.number("cpu.cfs_quota_us")?, self.number("cpu.cfs_period_us")?),
        };
        (quota > 0 && period > 0).then(|| (quota.saturating_mul(1000).saturating_add(period / 2)) / period)
    }

    fn denied(&self, name: &str) -> Option<Denied> {
        let ns = self
            .field(name, "throttled_usec")
            .map(|micros| micros.saturating_mul(1000))
            .or_else(|| self.field(name, "throttled_time"))?;
        Some(Denied { periods: self.field(name, "nr_throttled").unwrap_or(0), ns })
    }

    fn weight_percent(&self) -> Option<u64> {
        if self.number("cpu.idle") == Some(1) {
            return Some(0);
        }
        let share = |name, default: u64| Some(self.number(name)?.saturating_mul(100) / default);
        share("cpu.weight", 100).or_else(|| share("cpu.shares", 1024))
    }

    /// `memory.high` counts as a limit too, because the kernel slows down a group above it.
    fn memory_bytes(&self) -> Option<u64> {
        ["memory.max", "memory.high", "memory.limit_in_bytes"]
            .iter()
            .filter_map(|name| self.number(name))
            .filter(|bytes| *bytes < UNLIMITED)
            .min()
    }

    fn memory_available_bytes(&self) -> Option<u64> {
        let limit = self.memory_bytes()?;
        let used = self.number("memory.current").or_else(|| self.number("memory.usage_in_bytes"))?;
        // Cached files can be evicted. Version 1 has separate counters that include child groups.
        let file = |name: &str| {
            let below = self.field("memory.stat", &format!("total_{name}"));
            below.or_else(|| self.field("memory.stat", name)).unwrap_or(0)
        };
        let files = file("inactive_file").saturating_add(file("active_file"));
        Some(limit.saturating_sub(used.saturating_sub(files)))
    }
}

/// The groups from a process' own one up to the root of the mount. `tree` is the controller of a version 1 hierarchy.
fn chain(top: &Path, mounts: &str, tree: Option<&str>, path: &str) -> Vec<Group> {
    for line in mounts.lines() {
        let Some((mount, system)) = line.split_once(" - ") else { continue };
        let (mount, system): (Vec<&str>, Vec<&str>) =
            (mount.split(' ').collect(), system.split(' ').collect());
        let ([_, _, _, root, point, ..], [kind, _, options, ..]) = (&mount[..], &system[..]) else {
            continue;
        };
        let is_tree = match tree {
            None => *kind == "cgroup2",
            Some(controller) => *kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        if !is_tree {
            continue;
        }
        let (root, point) = (unescaped(root), unescaped(point));
        let point = top.join(point.trim_start_matches('/'));
        // A container may see the host's path of its group, which is then the root of its mount.
        let inside = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let mut inside = if is_plain { inside.to_path_buf() } else { PathBuf::new() };
        while !inside.as_os_str().is_empty() && !point.join(&inside).is_dir() {
            inside.pop();
        }
        // Joining an empty path would append a slash.
        let within = |top: &Path, inside: &Path| {
            if inside.as_os_str().is_empty() { top.to_path_buf() } else { top.join(inside) }
        };
        let group = |inside: &Path| Group {
            name: within(Path::new(&root), inside).display().to_string(),
            folder: within(&point, inside),
        };
        return inside.ancestors().map(group).collect();
    }
    Vec::new()
}

/// mountinfo escapes white space and backslashes as octal numbers.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        top
    }

    const SECOND: (&str, &str) = (
        "proc/self/mountinfo",
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
         29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
    );

    fn quota(groups: &Groups) -> Option<(String, u64)> {
        groups.cpu_quota().map(|quota| (quota.group, quota.milli_cpus))
    }

    #[test]
    fn the_smallest_quota_of_all_ancestors_counts() {
        let own = "sys/fs/cgroup/machine.slice/box.scope";
        for (outer, inner, expected) in [
            ("130000 100000", "max 100000", Some(("/machine.slice", 1300))),
            ("200000 100000", "20000 50000", Some(("/machine.slice/box.scope", 400))),
            ("40000 100000", "200000 100000", Some(("/machine.slice", 400))),
            ("max 100000", "max 100000", None),
            ("max", "50000", Some(("/machine.slice/box.scope", 500))),
        ] {
            let system = system(&[
                SECOND,
                ("proc/self/cgroup", "0::/machine.slice/box.scope\n"),
                ("sys/fs/cgroup/machine.slice/cpu.max", outer),
                (&format!("{own}/cpu.max"), inner),
            ]);
            let found = quota(&Groups::below(system.path()));
            assert_eq!(
                found.as_ref().map(|(name, milli)| (name.as_str(), *milli)),
                expected,
                "{outer}, {inner}"
            );
        }
    }

    #[test]
    fn quotas_of_version_1_are_found_next_to_version_2() {
        let files = |path: &str, root: &str| {
            let mounts = format!(
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                 32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                 33 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            );
            let groups = format!("4:memory:{path}\n3:cpuset:/\n1:cpu,cpuacct:{path}\n0::/\n");
            let (cpu, memory) = ("sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/memory");
            let own = if root == "/" { path.trim_start_matches('/') } else { "" };
            system(&[
                ("proc/self/mountinfo", &mounts),
                ("proc/self/cgroup", &groups),
                (&format!("{cpu}/{own}/cpu.cfs_quota_us"), "40000\n"),
                (&format!("{cpu}/{own}/cpu.cfs_period_us"), "100000\n"),
                (&format!("{cpu}/{own}/cpu.shares"), "102\n"),
                (&format!("{memory}/{own}/memory.limit_in_bytes"), "1000000\n"),
                (&format!("{memory}/{own}/memory.usage_in_bytes"), "900000\n"),
                (
                    &format!("{memory}/{own}/memory.stat"),
                    "cache 5\ninactive_file 7\ntotal_inactive_file 300000\n",
                ),
                ("sys/fs/cgroup/unified/cgroup.procs", ""),
            ])
        };
        // On the host; in a container that sees its own group at the top; and in one with names of its own.
        for (path, root) in
            [("/docker/abc", "/"), ("/docker/abc", "/docker/abc"), ("/", "/"), ("/x", "/docker/abc")]
        {
            let system = files(path, root);
            let groups = Groups::below(system.path());
            let group = if root == "/" { path } else { root };
            assert_eq!(quota(&groups), Some((group.to_owned(), 400)), "{path} in {root}");
            assert_eq!(groups.memory_limit().map(|limit| limit.bytes), Some(1_000_000));
            assert_eq!(groups.memory_available_bytes(), Some(400_000));
            assert_eq!(groups.weight().map(|weight| weight.percent), Some(9));
        }
    }

    #[test]
    fn a_system_without_limits_has_no_quota() {
        for files in [
            vec![],
            vec![SECOND, ("proc/self/cgroup", "0::/\n")],
            vec![
                SECOND,
                ("proc/self/cgroup", "0::/a\n"),
                ("sys/fs/cgroup/a/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/a/cpu.cfs_period_us", "100000\n"),
                ("sys/fs/cgroup/a/cpu.weight", "100\n"),
                ("sys/fs/cgroup/a/memory.max", "max\n"),
                ("sys/fs/cgroup/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        ] {
            let system = system(&files);
            let groups = Groups::below(system.path());
            assert_eq!((groups.cpu_quota(), groups.memory_limit(), groups.weight()), (None, None, None));
            assert_eq!(groups.memory_available_bytes(), None);
            assert_eq!(groups.throttling().since(&Throttling::default()), []);
        }
    }

    #[test]
    fn throttling_is_reported_for_each_group() {
        let write = |system: &tempfile::TempDir, path: &str, text: &str| {
            fs::write(system.path().join("sys/fs/cgroup").join(path), text).unwrap();
        };
        let system = system(&[
            SECOND,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "130000 100000"),
            ("sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nnr_periods 10\nnr_throttled 3\nthrottled_usec 500\n"),
            ("sys/fs/cgroup/a/b/cpu.stat", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
            ("sys/fs/cgroup/a/b/cpu.stat.local", "throttled_usec 100\n"),
        ]);
        let groups = Groups::below(system.path());
        let before = groups.throttling();
        assert_eq!(groups.throttling().since(&before), []);
        write(&system, "a/cpu.stat", "nr_periods 12\nnr_throttled 5\nthrottled_usec 70500\n");
        write(&system, "a/b/cpu.stat.local", "throttled_usec 70100\n");
        let throttled = Throttled {
            group: "/a".to_owned(),
            milli_cpus: Some(1300),
            periods: 2,
            throttled_ns: 70_000_000,
        };
        let between = groups.throttling();
        assert_eq!(between.since(&before), [throttled]);
        // By a group that only the host can see.
        write(&system, "a/b/cpu.stat.local", "throttled_usec 70300\n");
        let hidden = groups.throttling().since(&between);
        assert_eq!(
            hidden
                .iter()
                .map(|one| (one.group.as_str(), one.milli_cpus, one.throttled_ns))
                .collect::<Vec<_>>(),
            [("an ancestor of /a", None, 200_000)]
        );
    }

    #[test]
    fn this_process_has_its_groups() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let groups = Groups::of_process();
        assert_eq!(groups.cpu.is_empty(), !mounts.contains(" - cgroup"), "{groups:?}\n{mounts}");
    }
}
