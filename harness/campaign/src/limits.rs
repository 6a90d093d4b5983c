//! Limits that a board puts on the runner, held against what a campaign asks for before anything is measured.

use crate::processors::Processor;
use host::exit::{Exit, Failure, Outcome};
use protocol::text;
use protocol::{MachineState, MeterKind};
use std::collections::BTreeSet;

/// Packages whose energy counters are no part of the total, though processors in use are on them.
fn check_packages(board: &config::Board, machine: &MachineState, processors: &[Processor]) -> Outcome<()> {
    let Some(meter) = board.power.meter().filter(|meter| meter.kind == MeterKind::Rapl) else {
        return Ok(());
    };
    // Zones such as `package-0` or `package-0-die-1`; `psys` covers everything.
    let package =
        |zone: &String| zone.strip_prefix("package-")?.split(['-', '/']).next()?.parse::<i64>().ok();
    let covered: Option<BTreeSet<i64>> = meter.total.iter().map(package).collect();
    let Some(covered) = covered else { return Ok(()) };
    let used = processors.iter().flat_map(|processor| &processor.cpus);
    let packages: BTreeSet<i64> =
        used.filter_map(|id| machine.cpus.iter().find(|cpu| cpu.id == *id)?.package).collect();
    if packages.is_subset(&covered) {
        return Ok(());
    }
    let all: Vec<String> = packages.union(&covered).map(|package| format!("package-{package}")).collect();
    Err(Failure::new(
        Exit::Usage,
        format!(
            "failed to measure the energy of the board {}: its processors are on more packages than the total {} counts; \
             write `total: {{ sum: [{}] }}` in its file",
            board.name,
            protocol::total_name(&meter.total),
            all.join(", ")
        ),
    ))
}

/// What is to be said of the limits before measuring, a sentence each.
///
/// # Errors
/// If the power meter does not count all processors; if the CPU quota is too small for a single processor, so that every trial would be held up by it; or if the board
/// gives no temperature, and its file limits it.
pub(super) fn check(
    board: &config::Board,
    machine: &MachineState,
    processors: &[Processor],
) -> Outcome<Vec<String>> {
    check_packages(board, machine, processors)?;
    let mut notes = Vec::new();
    if let Some(quota) = &machine.cpu_quota {
        let milli = |threads: u32| u64::from(threads) * 1000;
        let all = processors.iter().map(|processor| milli(processor.threads)).sum::<u64>();
        let remedy = "run edgepipe outside of the container or service that has this limit, or raise it";
        let largest = processors.iter().max_by_key(|processor| processor.threads);
        if let Some(largest) = largest.filter(|largest| milli(largest.threads) > quota.milli_cpus) {
            return Err(Failure::new(
                Exit::Board,
                format!(
                    "failed to use the processor {} of the board {}: it has {} threads, and the runner may use {} (the \
                     CPU quota of its cgroup {}), so that every trial would be throttled; {remedy}",
                    largest.name,
                    board.name,
                    largest.threads,
                    text::cpus_of_quota(quota.milli_cpus),
                    quota.group
                ),
            ));
        }
        if all > quota.milli_cpus {
            notes.push(format!(
                "the processors have {} threads, and the runner may use {} (the CPU quota of its cgroup {}): schedules on \
                 several processors will be throttled, and their trials void; {remedy}",
                all / 1000,
                text::cpus_of_quota(quota.milli_cpus),
                quota.group
            ));
        }
    }
    if let Some(scheduling) = &machine.scheduling
        && let Some(text) = text::low_priority(scheduling)
    {
        notes.push(format!(
            "the runner has {text}: other programs on this board get the CPUs before it; start edgepipe without that"
        ));
    }
    if let Some(limit) = board.state.max_temperature_c {
        let silent = text::silent_zones(machine);
        if super::state::hottest(machine).is_none() {
            let why = if silent.is_empty() { "it has no thermal zones".to_owned() } else { silent };
            return Err(Failure::new(
                Exit::Board,
                format!(
                    "failed to find a temperature of the board {}, which its file wants below {limit} °C before each \
                     trial: {why}; leave `max_temperature_c` out",
                    board.name
                ),
            ));
        }
        if !silent.is_empty() {
            notes.push(format!("`max_temperature_c` leaves out zones that give no temperature: {silent}"));
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use compiler::Target;
    use config::{Connect, Power, Processors, State};
    use protocol::{CpuQuota, GroupWeight, Policy, Scheduling, SilentZone, Temperature};
    use store::fixture;

    fn board(max_temperature_c: Option<f64>) -> config::Board {
        config::Board {
            name: "shelf".to_owned(),
            connect: Connect::Local,
            target: None,
            processors: Processors::Auto,
            power: Power::None,
            state: State { max_temperature_c, ..State::default() },
        }
    }

    fn processors(machine: &MachineState, threads: &[u32]) -> Vec<Processor> {
        let make = |(number, threads): (u32, &u32)| Processor {
            name: domain::ProcessorName::new(format!("cpu{number}")),
            cpus: vec![number],
            threads: *threads,
            target: Target::detect(machine, &[number], *threads, None),
        };
        (0..).zip(threads).map(make).collect()
    }

    #[test]
    fn a_quota_below_the_processors_is_told_and_one_below_a_single_processor_is_refused() {
        for (milli_cpus, threads, expected) in [
            (1300, &[1, 1][..], Ok("may use 1.3 CPUs (the CPU quota of its cgroup /x)")),
            (2000, &[1, 1], Ok("")),
            (4000, &[1, 1], Ok("")),
            (1000, &[1], Ok("")),
            (400, &[1, 1], Err("it has 1 threads, and the runner may use 0.4 CPUs")),
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
    fn a_counter_of_one_package_does_not_count_another() {
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
    fn a_runner_that_comes_after_others_is_told() {
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
    fn a_limit_of_the_temperature_needs_a_zone_that_gives_one() {
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
}
