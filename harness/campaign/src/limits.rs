//! Checks before measuring: whether the limits of a board permit what the configuration asks for.

use crate::processors::Processor;
use host::exit::{Exit, Failure, Outcome};
use protocol::text;
use protocol::{MachineState, MeterKind, Temperature};
use std::collections::BTreeSet;

/// Reports a constant (a TX2's power management chip).
const CONSTANT: &str = "PMIC-Die";

/// The hottest zone that reports a real temperature.
pub(crate) fn hottest(state: &MachineState) -> Option<&Temperature> {
    let zones = state.temperatures.iter().filter(|zone| zone.zone != CONSTANT);
    zones.max_by_key(|zone| zone.milli_celsius)
}

/// Refuses a power meter whose total does not include the packages of all processors in use.
fn check_packages(board: &config::Board, machine: &MachineState, processors: &[Processor]) -> Outcome<()> {
    let Some(meter) = board.power.meter().filter(|meter| meter.kind == MeterKind::Rapl) else {
        return Ok(());
    };
    // Zones such as `package-0` or `package-0-die-1`; `psys` covers everything.
    let package =
        |zone: &String| zone.strip_prefix("package-")?.split(['-', '/']).next()?.parse::<i64>().ok();
    let covered: Option<BTreeSet<i64>> = meter.total.iter().map(package).collect();
    let Some(covered) = covered else { return Ok(()) };
    let used = processors.iter().flat_map(|processor| processor.kind.thread_cpus());
    let packages: BTreeSet<i64> =
        used.filter_map(|id| machine.cpus.iter().find(|cpu| cpu.id == *id)?.package).collect();
    if packages.is_subset(&covered) {
        return Ok(());
    }
    let all: Vec<String> = packages.union(&covered).map(|package| format!("package-{package}")).collect();
    Err(Failure::new(
        Exit::Usage,
        format!(
            "failed to measure the energy of the board {}: its processors are on more packages than its total ({}) \
             includes; write `total: {{ sum: [{}] }}` in its file",
            board.name,
            protocol::total_name(&meter.total),
            all.join(", ")
        ),
    ))
}

/// Returns warnings.
///
/// # Errors
/// If the power meter does not cover all processors, if the CPU quota is too small for a single processor, or if the
/// board's file limits the temperature and the board reports none.
pub(crate) fn check(
    board: &config::Board,
    machine: &MachineState,
    processors: &[Processor],
) -> Outcome<Vec<String>> {
    check_packages(board, machine, processors)?;
    let mut notes = Vec::new();
    if let Some(quota) = &machine.cpu_quota {
        let milli = |threads: u32| u64::from(threads) * 1000;
        let all = processors.iter().map(|processor| milli(processor.kind.threads())).sum::<u64>();
        let remedy = "run edgepipe outside the container or service that has this quota, or raise it";
        let largest = processors.iter().max_by_key(|processor| processor.kind.threads());
        if let Some(largest) = largest.filter(|largest| milli(largest.kind.threads()) > quota.milli_cpus) {
            return Err(Failure::new(
                Exit::Board,
                format!(
                    "failed to use the processor {} of the board {}: it has {} threads, and the CPU quota \
                     of the runner's cgroup {} is {}, so every trial would be throttled; {remedy}",
                    largest.name,
                    board.name,
                    largest.kind.threads(),
                    quota.group,
                    text::cpus_of_quota(quota.milli_cpus)
                ),
            ));
        }
        if all > quota.milli_cpus {
            notes.push(format!(
                "the processors have {} threads, and the CPU quota of the runner's cgroup {} is {}: schedules on several \
                 processors will be throttled, and their trials void; {remedy}",
                all / 1000,
                quota.group,
                text::cpus_of_quota(quota.milli_cpus)
            ));
        }
    }
    if let Some(scheduling) = &machine.scheduling
        && let Some(text) = text::low_priority(scheduling)
    {
        notes.push(format!(
            "the runner has {text}, so other programs on this board take precedence; start edgepipe with the default \
             priority"
        ));
    }
    if let Some(limit) = board.state.max_temperature_c {
        let silent = text::silent_zones(machine);
        if hottest(machine).is_none() {
            let why = if silent.is_empty() { "it has no thermal zones".to_owned() } else { silent };
            return Err(Failure::new(
                Exit::Board,
                format!(
                    "failed to read a temperature of the board {}: {why}; remove `max_temperature_c` ({limit} °C) from its \
                     file",
                    board.name
                ),
            ));
        }
        if !silent.is_empty() {
            notes.push(format!("`max_temperature_c` ignores zones that report no temperature: {silent}"));
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Connect, Power, Processors, State};
    use protocol::{CpuQuota, GroupWeight, Policy, Scheduling, SilentZone};
    use store::fixture;

    fn board(max_temperature_c: Option<f64>) -> config::Board {
        config::Board {
            name: "shelf".to_owned(),
            connect: Connect::Local,
            recover: None,
            target: None,
            onnxruntime: None,
            processors: Processors::Auto,
            power: Power::None,
            operating_points: None,
            state: State { max_temperature_c, ..State::default() },
        }
    }

    fn processors(machine: &MachineState, threads: &[u32]) -> Vec<Processor> {
        let make = |(number, threads): (u32, &u32)| {
            Processor::cpus(machine, &format!("cpu{number}"), vec![number], *threads, None)
        };
        (0..).zip(threads).map(make).collect()
    }

    #[test]
    fn a_quota_below_all_processors_is_a_warning_and_one_below_a_single_processor_an_error() {
        for (milli_cpus, threads, expected) in [
            (1300, &[1, 1][..], Ok("the CPU quota of the runner's cgroup /x is 1.3 CPUs")),
            (2000, &[1, 1], Ok("")),
            (4000, &[1, 1], Ok("")),
            (1000, &[1], Ok("")),
            (400, &[1, 1], Err("it has 1 threads, and the CPU quota of the runner's cgroup /x is 0.4 CPUs")),
            (1999, &[2, 1], Err("processor cpu0 of the board shelf: it has 2 threads")),
            (3000, &[4, 2], Err("it has 4 threads")),
        ] {
            let mut machine = fixture::machine();
            machine.cpu_quota = Some(CpuQuota { group: "/x".to_owned(), milli_cpus });
            let found = check(&board(None), &machine, &processors(&machine, threads));
            match (found, expected) {
                (Ok(notes), Ok("")) => assert!(notes.is_empty(), "{notes:?}"),
                (Ok(notes), Ok(said)) => assert!(notes.len() == 1 && notes[0].contains(said), "{notes:?}"),
                (Err(failure), Err(said)) => {
                    assert!(failure.exit == Exit::Board && failure.to_string().contains(said), "{failure}");
                }
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_meter_that_does_not_cover_all_packages_is_refused() {
        let mut machine = fixture::machine();
        (machine.cpus[0].package, machine.cpus[1].package) = (Some(0), Some(1));
        for (total, expected) in [
            (&["package-0"][..], Err("write `total: { sum: [package-0, package-1] }`")),
            (&["package-0", "package-1"], Ok(())),
            (&["package-0-die-0", "package-0-die-1"], Err("sum: [package-0, package-1]")),
            (&["psys"], Ok(())),
        ] {
            let total = total.iter().map(|zone| (*zone).to_owned()).collect();
            let meter = protocol::Meter { kind: MeterKind::Rapl, root: "/sys".to_owned(), total };
            let board = config::Board { power: Power::Meter(meter), ..board(None) };
            match (check(&board, &machine, &processors(&machine, &[1, 1])), expected) {
                (Ok(notes), Ok(())) => assert_eq!(notes, Vec::<String>::new()),
                (Err(failure), Err(said)) => assert!(failure.to_string().contains(said), "{failure}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
            check(&board, &machine, &processors(&machine, &[1])).unwrap();
        }
    }

    #[test]
    fn a_runner_with_low_priority_is_a_warning() {
        let check = |scheduling| {
            let mut machine = fixture::machine();
            machine.scheduling = Some(scheduling);
            check(&board(None), &machine, &processors(&machine, &[1])).unwrap().join("\n")
        };
        let usual = Scheduling { policy: Policy::Other, nice: 0, weight: None };
        assert_eq!(check(usual.clone()), "");
        assert_eq!(check(Scheduling { nice: -5, ..usual.clone() }), "");
        assert!(check(Scheduling { nice: 19, ..usual.clone() }).contains("the runner has nice 19"));
        assert!(
            check(Scheduling { policy: Policy::Idle, ..usual.clone() }).contains("has the policy SCHED_IDLE")
        );
        let weight = Some(GroupWeight { group: "/x".to_owned(), percent: 1 });
        assert!(check(Scheduling { weight, ..usual }).contains("1 % of the default weight (cgroup /x)"));
    }

    #[test]
    fn a_temperature_limit_needs_a_zone_that_reports_a_temperature() {
        let zone = |zone: &str| SilentZone {
            zone: zone.to_owned(),
            reason: "does not answer within 1 s".to_owned(),
        };
        let check = |temperatures: Vec<Temperature>, silent_zones: Vec<SilentZone>| {
            let machine = MachineState { temperatures, silent_zones, ..fixture::machine() };
            check(&board(Some(40.0)), &machine, &processors(&machine, &[1]))
        };
        let warm = || vec![Temperature { zone: "CPU-therm".to_owned(), milli_celsius: 41_000 }];
        assert_eq!(check(warm(), vec![]).unwrap(), Vec::<String>::new());
        let notes = check(warm(), vec![zone("GPU-therm")]).unwrap();
        assert!(notes[0].ends_with("GPU-therm does not answer within 1 s"), "{notes:?}");
        let failure = check(vec![], vec![zone("GPU-therm"), zone("CV-therm")]).unwrap_err().to_string();
        assert!(
            failure.contains("GPU-therm does not answer within 1 s, CV-therm does not answer"),
            "{failure}"
        );
        assert!(check(vec![], vec![]).unwrap_err().to_string().contains("it has no thermal zones"));
    }

    #[test]
    fn the_constant_zone_is_ignored() {
        let zone = |zone: &str, milli_celsius| Temperature { zone: zone.to_owned(), milli_celsius };
        let mut machine = fixture::machine();
        machine.temperatures =
            vec![zone("BCPU-therm", 41_500), zone(CONSTANT, 100_000), zone("GPU-therm", 44_000)];
        assert_eq!(hottest(&machine), Some(&zone("GPU-therm", 44_000)));
        machine.temperatures = vec![zone(CONSTANT, 100_000)];
        assert_eq!(hottest(&machine), None);
    }
}
