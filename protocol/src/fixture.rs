//! A fictitious machine, for tests.

use crate::{Cpu, MachineState, Temperature};

fn cpu(id: u32) -> Cpu {
    Cpu {
        id,
        online: true,
        isolated: false,
        capacity: None,
        midr: None,
        core: Some(i64::from(id)),
        package: Some(0),
        current_khz: Some(2_000_000 + u64::from(id)),
        min_khz: Some(800_000),
        max_khz: Some(3_000_000),
        hardware_max_khz: Some(3_500_000),
        governor: Some("performance".to_owned()),
        l1d_bytes: Some(32 << 10),
        l2_bytes: Some(1 << 20),
        l3_bytes: None,
    }
}

/// Two CPUs of an x86-64 machine.
pub fn machine() -> MachineState {
    // As many as real processors have.
    let flags = (0..100).map(|flag| format!("feature_{flag}"));
    MachineState {
        arch: "x86_64".to_owned(),
        kernel: "6.1.0-test".to_owned(),
        os: Some("Debian GNU/Linux 13".to_owned()),
        model: Some("Test Board Mk 2".to_owned()),
        cpu_model: Some("Example CPU @ 2.00GHz".to_owned()),
        cpu_flags: flags.collect(),
        cpus: vec![cpu(0), cpu(1)],
        allowed_cpus: vec![0, 1],
        memory_bytes: 8 << 30,
        memory_available_bytes: 6 << 30,
        load_milli: 120,
        temperatures: vec![Temperature { zone: "x86_pkg_temp".to_owned(), milli_celsius: 45_000 }],
        power_mode: None,
        gpu: None,
        emc: None,
        cpu_quota: None,
        memory_limit: None,
        scheduling: None,
        silent_zones: Vec::new(),
        cuda: None,
    }
}

/// A virtual machine, which shows neither frequencies nor temperatures.
pub fn machine_without_frequencies() -> MachineState {
    let mut machine = machine();
    for cpu in &mut machine.cpus {
        (cpu.current_khz, cpu.min_khz, cpu.max_khz, cpu.hardware_max_khz) = (None, None, None, None);
        cpu.governor = None;
    }
    machine.model = None;
    machine.temperatures.clear();
    machine
}
