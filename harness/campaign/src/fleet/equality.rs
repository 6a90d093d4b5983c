//! Whether boards are equal, so that their trials may be pooled.

use crate::open::OpenedBoard;
use crate::processors::Processor;
use config::{Board, State};
use protocol::text;
use protocol::{MachineState, Meter, MeterKind};

/// What is compared: aspects by name, each as text.
pub(super) type Aspects = Vec<(&'static str, String)>;

/// The aspects of a board.
pub(super) fn of(opened: &OpenedBoard) -> Aspects {
    aspects(&opened.loaded.board, opened.machine(), opened.processors())
}

/// The differences between two boards for a message; `None` if they are equal.
pub(super) fn differences(first: &OpenedBoard, other: &OpenedBoard) -> Option<String> {
    between(&of(first), &of(other))
}

/// The differences between aspects for a message; `None` if they are equal.
pub(super) fn between(ours: &Aspects, theirs: &Aspects) -> Option<String> {
    let different = ours.iter().zip(theirs).filter(|(ours, theirs)| ours.1 != theirs.1);
    let words: Vec<String> =
        different.map(|((aspect, ours), (_, theirs))| format!("{aspect} ({ours} and {theirs})")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn aspects(board: &Board, machine: &MachineState, processors: &[Processor]) -> Aspects {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let processors: Vec<String> =
        processors.iter().map(|processor| format!("{} = {}", processor.name, processor.describe())).collect();
    let caches = |get: fn(&protocol::Cpu) -> Option<u64>| {
        let kib = |bytes: u64| (bytes >> 10).to_string();
        let sizes: Vec<String> =
            machine.cpus.iter().map(|cpu| get(cpu).map_or_else(|| "?".to_owned(), kib)).collect();
        sizes.join(" ")
    };
    let limits: Vec<String> = machine
        .cpus
        .iter()
        .map(|cpu| cpu.hardware_max_khz.or(cpu.max_khz).map_or_else(|| "?".to_owned(), |khz| khz.to_string()))
        .collect();
    vec![
        ("architecture", machine.arch.clone()),
        ("model", known(&machine.model)),
        ("processor", known(&machine.cpu_model)),
        ("CPUs", machine.cpus.len().to_string()),
        ("highest frequencies in kHz", limits.join(" ")),
        ("L1 caches in KiB", caches(|cpu| cpu.l1d_bytes)),
        ("L2 caches in KiB", caches(|cpu| cpu.l2_bytes)),
        ("L3 caches in KiB", caches(|cpu| cpu.l3_bytes)),
        ("kernel", machine.kernel.clone()),
        ("CPU quota", text::quota(machine).unwrap_or_else(|| "none".to_owned())),
        ("priority", text::priority(machine).unwrap_or_else(|| "default".to_owned())),
        ("processors in use", processors.join("; ")),
        ("ONNX Runtime", board.onnxruntime.clone().unwrap_or_else(|| "edgepipe's".to_owned())),
        ("power meter", board.power.meter().map_or_else(|| "none".to_owned(), meter)),
        ("configured state", state(&board.state)),
    ]
}

fn meter(meter: &Meter) -> String {
    let kind = match &meter.kind {
        MeterKind::Rapl => "rapl".to_owned(),
        MeterKind::Ina3221 { rails } if rails.is_empty() => "ina3221".to_owned(),
        MeterKind::Ina3221 { rails } => {
            let named =
                rails.iter().map(|rail| format!("{} {:#x}/{}", rail.name, rail.address, rail.channel));
            format!("ina3221 with {}", named.collect::<Vec<_>>().join(", "))
        }
    };
    let total =
        if meter.total.is_empty() { "default".to_owned() } else { protocol::total_name(&meter.total) };
    format!("{kind}, total {total}, at {}", meter.root)
}

fn state(state: &State) -> String {
    let State { nvpmodel, jetson_clocks, governor, max_temperature_c, root } = state;
    let words = [
        nvpmodel.map(|mode| format!("nvpmodel {mode}")),
        jetson_clocks.map(|pinned| format!("jetson_clocks {pinned}")),
        governor.as_ref().map(|governor| format!("governor {governor}")),
        max_temperature_c.map(|limit| format!("below {limit} °C")),
        root.as_ref().map(|root| format!("sysfs in {root}")),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::{Connect, Power, Processors};
    use store::fixture;

    fn board() -> Board {
        Board {
            name: "a".to_owned(),
            connect: Connect::Local,
            recover: None,
            target: None,
            onnxruntime: None,
            processors: Processors::Auto,
            power: Power::None,
            operating_points: None,
            state: State::default(),
        }
    }

    #[test]
    fn what_changes_from_minute_to_minute_does_not_matter_and_the_rest_does() {
        let machine = fixture::machine();
        let ours = aspects(&board(), &machine, &[]);
        let mut later = machine.clone();
        (later.load_milli, later.memory_available_bytes) = (9, 9);
        later.cpus[0].current_khz = Some(1);
        assert_eq!(ours, aspects(&Board { name: "b".to_owned(), ..board() }, &later, &[]));
        let changes: [fn(&mut MachineState); 8] = [
            |machine| {
                machine.cpu_quota = Some(protocol::CpuQuota { group: "/x".to_owned(), milli_cpus: 1300 });
            },
            |machine| {
                let policy = protocol::Policy::Idle;
                machine.scheduling = Some(protocol::Scheduling { policy, nice: 0, weight: None });
            },
            |machine| machine.kernel = "4.9.140".to_owned(),
            |machine| machine.model = None,
            |machine| machine.cpu_model = Some("another".to_owned()),
            |machine| drop(machine.cpus.pop()),
            |machine| machine.cpus[0].l2_bytes = Some(1),
            |machine| machine.cpus[0].l3_bytes = Some(1),
        ];
        for change in changes {
            let mut other = machine.clone();
            change(&mut other);
            assert_ne!(ours, aspects(&board(), &other, &[]));
        }
        let hot = State { max_temperature_c: Some(45.0), ..State::default() };
        assert_ne!(ours, aspects(&Board { state: hot, ..board() }, &machine, &[]));
    }
}
