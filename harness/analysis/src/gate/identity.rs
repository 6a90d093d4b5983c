//! The aspects of machine and configuration that must be equal for figures to be comparable.

use crate::stored_settings::{StoredSettings, picture_rules};
use domain::{ProcessorKind, cuda_release};
use protocol::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use store::StoredRun;

/// The aspect that may have several values in a baseline: the places that its runs were measured on.
const PLACE: &str = "place";
/// Separator between them.
const PLACES: &str = ", ";

/// Aspects by name, as text; unknown ones are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Identity {
    aspects: BTreeMap<String, String>,
}

/// An aspect in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Difference {
    /// Its name, as `--allow-different` takes it.
    pub aspect: String,
    /// Of the baseline; absent if unknown.
    pub baseline: Option<String>,
    /// Of the run.
    pub run: Option<String>,
}

impl Identity {
    /// Of a run. The revision and the versions of harness and runner are not part of it: they are what a check compares.
    pub fn of(run: &StoredRun) -> Self {
        let (start, machine) = (&run.start, &run.start.machine);
        let mut aspects = BTreeMap::new();
        let mut set = |aspect: &str, value: Option<String>| {
            if let Some(value) = value {
                aspects.insert(aspect.to_owned(), value);
            }
        };
        set("board", Some(start.board.clone()));
        // Boards with the same tags are as equal as their owner says, which a gate must not rely on.
        set(PLACE, StoredSettings::of(&start.configuration).place);
        set("model", machine.model.clone());
        set("cpu", machine.cpu_model.clone());
        set("arch", Some(machine.arch.clone()));
        set("kernel", Some(machine.kernel.clone()));
        set("tvm", start.versions.tvm.clone());
        set("llvm", start.versions.llvm.clone());
        let processors: Vec<String> = start
            .processors
            .iter()
            .filter(|processor| !processor.is_merged())
            .map(|processor| match &processor.kind {
                // As in baselines of all versions, so `mcpu` is not part of it.
                ProcessorKind::Cpu { cpus, threads, .. } => {
                    format!("{} = CPU {} with {threads} threads", processor.name, list(cpus))
                }
                ProcessorKind::Cuda { arch, device, host_cpus } => format!(
                    "{} = GPU {device} with code for {arch}, fed by CPU {}",
                    processor.name,
                    list(host_cpus)
                ),
            })
            .collect();
        set("processors", Some(processors.join("; ")));
        let gpus = start.processors.iter().filter_map(|processor| processor.gpu.as_ref());
        let gpus = gpus.map(|gpu| {
            let emulated = if gpu.emulated { ", emulated" } else { "" };
            let (device, cuda) = (&gpu.device, cuda_release(gpu.driver_version));
            format!("{} ({}), driver for CUDA {cuda}{emulated}", device.name, device.arch)
        });
        set("gpu", joined(gpus));
        let limits =
            machine.gpu.as_ref().filter(|_| start.processors.iter().any(|known| known.kind.is_gpu()));
        set("gpu_frequencies", limits.map(|clock| mhz(clock.min_hz, clock.max_hz)));
        let used: BTreeSet<u32> = start
            .processors
            .iter()
            .flat_map(|processor| processor.kind.thread_cpus().iter().copied())
            .collect();
        let cpus = || machine.cpus.iter().filter(|cpu| used.contains(&cpu.id));
        let governors: BTreeSet<&str> = cpus().filter_map(|cpu| cpu.governor.as_deref()).collect();
        set("governor", joined(governors.into_iter().map(str::to_owned)));
        // Power modes of boards show in the frequencies they allow.
        let limits: BTreeSet<String> = cpus()
            .filter_map(|cpu| Some(format!("{} to {} MHz", cpu.min_khz? / 1000, cpu.max_khz? / 1000)))
            .collect();
        set("frequencies", joined(limits.into_iter()));
        let configuration = serde_yaml::from_str::<serde_yaml::Value>(&start.configuration).ok();
        let setting = |group: &str, key: &str| -> Option<serde_yaml::Value> {
            configuration.as_ref()?.get(group)?.get(key).cloned()
        };
        let written = |value: serde_yaml::Value| serde_json::to_string(&value).ok();
        set("power_mode", machine.power_mode.as_ref().map(text::mode));
        set("cpu_quota", text::quota(machine));
        set("priority", text::priority(machine));
        set("frames", setting("experiment", "frames").map(without_paths).and_then(written));
        set("queue_depth", setting("experiment", "queue_depth").and_then(written));
        let rules = configuration.as_ref().map(picture_rules).filter(|rules| !rules.is_empty());
        set("pictures", rules.map(serde_yaml::Value::Mapping).and_then(written));
        // Absent for a saturating load, so that runs from before there were streams stay comparable.
        set(
            "load",
            Some(crate::load_of(run)).filter(|load| !load.is_saturating()).map(|load| load.to_string()),
        );
        Self { aspects }
    }

    /// Names of all aspects there are.
    pub fn known() -> &'static [&'static str] {
        &[
            "arch",
            "board",
            "cpu",
            "cpu_quota",
            "frames",
            "frequencies",
            "governor",
            "gpu",
            "gpu_frequencies",
            "kernel",
            "llvm",
            "load",
            "model",
            "pictures",
            PLACE,
            "power_mode",
            "priority",
            "processors",
            "queue_depth",
            "tvm",
        ]
    }

    /// Adds the place of another run of the same baseline. The spread between its runs then includes that between boards.
    pub fn add_place(&mut self, other: &Self) {
        if let (Some(all), Some(one)) = (self.aspects.get_mut(PLACE), other.aspects.get(PLACE))
            && !has_place(all, one)
        {
            all.push_str(PLACES);
            all.push_str(one);
        }
    }

    /// The differences of a run from this identity of a baseline.
    pub fn differences(&self, run: &Self) -> Vec<Difference> {
        let names: BTreeSet<&String> = self.aspects.keys().chain(run.aspects.keys()).collect();
        let difference = |name: &String| {
            let (baseline, run) = (self.aspects.get(name).cloned(), run.aspects.get(name).cloned());
            let is_one_of_them = name == PLACE
                && baseline.as_deref().zip(run.as_deref()).is_some_and(|(all, one)| has_place(all, one));
            (baseline != run && !is_one_of_them).then(|| Difference { aspect: name.clone(), baseline, run })
        };
        names.into_iter().filter_map(difference).collect()
    }
}

/// What is fed is the same wherever it is: files and folders have a digest.
fn without_paths(mut frames: serde_yaml::Value) -> serde_yaml::Value {
    if let Some(map) = frames.as_mapping_mut() {
        for key in ["npy", "folder"] {
            map.remove(key);
        }
    }
    frames
}

fn has_place(all: &str, one: &str) -> bool {
    all.split(PLACES).any(|known| known == one)
}

fn list(cpus: &[u32]) -> String {
    let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    cpus.join(",")
}

fn mhz(least_hz: u64, most_hz: u64) -> String {
    format!("{} to {} MHz", least_hz / 1_000_000, most_hz / 1_000_000)
}

fn joined(values: impl Iterator<Item = String>) -> Option<String> {
    let values: Vec<String> = values.collect();
    (!values.is_empty()).then(|| values.join(", "))
}

impl std::fmt::Display for Difference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
        write!(out, "{}: {} in the baseline, {} now", self.aspect, shown(&self.baseline), shown(&self.run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn on(place: &str) -> Identity {
        let mut identity = Identity { aspects: BTreeMap::from([("model".to_owned(), "m".to_owned())]) };
        identity.aspects.extend((!place.is_empty()).then(|| (PLACE.to_owned(), place.to_owned())));
        identity
    }

    #[test]
    fn what_is_fed_is_the_same_wherever_it_is_and_another_rule_feeds_other_frames() {
        let of = |folder: &str, digest: &str, rule: &str| {
            let mut run = Scenario::small();
            run.start.configuration = format!(
                "networks: [{{ network: mine, pictures: {{ crop: {rule} }} }}]\nexperiment: {{ frames: {{ seed: 1, folder: \
                 {folder}, folder_sha256: {digest} }} }}"
            );
            let (_, store, _place) = run.stored();
            Identity::of(&store.run(run.start.id.as_str()).unwrap())
        };
        let one = of("/a", "ab", "0.5");
        assert_eq!(one.differences(&of("/b", "ab", "0.5")), []);
        assert_eq!(one.differences(&of("/a", "cd", "0.5"))[0].aspect, "frames");
        assert_eq!(one.differences(&of("/a", "ab", "1.0"))[0].aspect, "pictures");
        assert!(Identity::known().contains(&"pictures"));
    }

    #[test]
    fn a_baseline_of_several_places_fits_each_of_them_and_no_other() {
        let mut baseline = on("p1 of lab:1");
        assert_eq!(baseline.differences(&on("p2 of lab:1")).len(), 1);
        for place in ["p2 of lab:1", "p1 of lab:1", "p2 of lab:1"] {
            baseline.add_place(&on(place));
        }
        assert_eq!(baseline.aspects[PLACE], "p1 of lab:1, p2 of lab:1");
        assert_eq!(baseline.differences(&on("p1 of lab:1")), []);
        assert_eq!(baseline.differences(&on("p2 of lab:1")), []);
        for other in ["p1 of lab:2", "p3 of lab:1", ""] {
            assert_eq!(baseline.differences(&on(other))[0].aspect, PLACE, "{other}");
        }
        assert!(Identity::known().contains(&PLACE));
    }
}
