//! A machine's state in two parts: constant values, stored once, and values that are read each time.

use protocol::{MachineState, SilentZone};
use serde::{Deserialize, Serialize};

/// What changes from minute to minute, of a [`MachineState`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Readings {
    memory_available_bytes: u64,
    load_milli: u64,
    /// One per CPU; empty if no CPU reports it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    current_khz: Vec<Option<u64>>,
    /// One a zone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    milli_celsius: Vec<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu_hz: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    emc_hz: Option<u64>,
    /// They come and go with what is switched on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    silent_zones: Vec<SilentZone>,
}

/// Takes the readings out of a state; zeros and `None` stay in their places.
pub(super) fn split(state: &MachineState) -> (MachineState, Readings) {
    let mut fixed = state.clone();
    let mut readings = Readings {
        memory_available_bytes: std::mem::take(&mut fixed.memory_available_bytes),
        load_milli: std::mem::take(&mut fixed.load_milli),
        current_khz: fixed.cpus.iter_mut().map(|cpu| cpu.current_khz.take()).collect(),
        milli_celsius: fixed
            .temperatures
            .iter_mut()
            .map(|zone| std::mem::take(&mut zone.milli_celsius))
            .collect(),
        gpu_hz: fixed.gpu.as_mut().and_then(|gpu| gpu.current_hz.take()),
        emc_hz: fixed.emc.as_mut().and_then(|emc| emc.current_hz.take()),
        silent_zones: std::mem::take(&mut fixed.silent_zones),
    };
    if readings.current_khz.iter().all(Option::is_none) {
        readings.current_khz.clear();
    }
    (fixed, readings)
}

/// Puts them back. `None` if they are of another machine.
pub(super) fn join(mut state: MachineState, readings: Readings) -> Option<MachineState> {
    let no_khz = readings.current_khz.is_empty();
    if (!no_khz && readings.current_khz.len() != state.cpus.len())
        || readings.milli_celsius.len() != state.temperatures.len()
    {
        return None;
    }
    state.memory_available_bytes = readings.memory_available_bytes;
    state.load_milli = readings.load_milli;
    state.silent_zones = readings.silent_zones;
    for (cpu, khz) in state.cpus.iter_mut().zip(readings.current_khz) {
        cpu.current_khz = khz;
    }
    for (zone, milli_celsius) in state.temperatures.iter_mut().zip(readings.milli_celsius) {
        zone.milli_celsius = milli_celsius;
    }
    for (clock, hz) in [(&mut state.gpu, readings.gpu_hz), (&mut state.emc, readings.emc_hz)] {
        if let Some(clock) = clock {
            clock.current_hz = hz;
        }
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_state_comes_back_from_its_parts() {
        let clock = |current_hz| protocol::Clock { min_hz: 1, max_hz: 9, current_hz, governor: None };
        let (gpu, emc) = (Some(clock(Some(5))), Some(clock(None)));
        let silent_zones = vec![SilentZone { zone: "CV-therm".to_owned(), reason: "is off".to_owned() }];
        let jetson = MachineState { gpu, emc, silent_zones, ..fixture::machine() };
        for state in [fixture::machine(), fixture::machine_without_frequencies(), jetson] {
            let (fixed, readings) = split(&state);
            assert_eq!(join(fixed, readings).unwrap(), state);
        }
    }

    #[test]
    fn states_that_differ_in_readings_have_one_fixed_part() {
        let (mut one, mut other) = (fixture::machine(), fixture::machine());
        (one.load_milli, other.load_milli) = (10, 900);
        (one.cpus[0].current_khz, other.cpus[0].current_khz) = (Some(800_000), None);
        one.temperatures[0].milli_celsius = 71_000;
        assert_eq!(split(&one).0, split(&other).0);
        one.cpus[0].governor = Some("powersave".to_owned());
        assert_ne!(split(&one).0, split(&other).0);
    }

    #[test]
    fn readings_of_another_machine_do_not_fit() {
        let (fixed, _) = split(&fixture::machine());
        let mut hotter = fixture::machine();
        hotter.temperatures.clear();
        assert_eq!(join(fixed, split(&hotter).1), None);
    }
}
