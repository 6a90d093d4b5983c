//! The files of this repository.

use super::super::values::PATTERNS;
use super::super::{
    Connect, Kind, Overrides, Power, ProcessorSpec, Processors, ScheduleSpec, Triple, boards_of, load,
    load_board, names, zoo,
};
use super::super::{board, defaults, experiment, group, network, stored, thresholds};
use super::root;
use std::fs;

#[test]
fn every_file_is_sound() {
    for board in names(&root(), Kind::Board) {
        load_board(&root(), &board).unwrap_or_else(|faults| panic!("{faults}"));
    }
    for group in names(&root(), Kind::Group) {
        boards_of(&root(), &[group]).unwrap_or_else(|faults| panic!("{faults}"));
    }
    let experiments = names(&root(), Kind::Experiment);
    assert!(["overhead", "quick", "tiny", "zoo"].iter().all(|name| experiments.iter().any(|e| e == name)));
    for experiment in experiments {
        load(&root(), "local", &experiment, &Overrides::default())
            .unwrap_or_else(|faults| panic!("{faults}"));
    }
}

/// The committed schemas: file name below `configs/schema/`, and contents.
fn schemas() -> [(&'static str, &'static serde_json::Value); 6] {
    [
        ("board.json", &board::SCHEMA),
        ("network.json", &network::SCHEMA),
        ("experiment.json", &experiment::SCHEMA),
        ("defaults.json", &defaults::SCHEMA),
        ("thresholds.json", &thresholds::SCHEMA),
        ("group.json", &group::SCHEMA),
    ]
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p config schemas_are_current` writes them anew.
#[test]
fn schemas_are_current() {
    for (name, schema) in schemas() {
        let current = format!("{schema:#}\n");
        let path = root().join("configs/schema").join(name);
        if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
            fs::write(&path, &current).expect("schemas can be written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == current,
            "{} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p config schemas_are_current",
            path.display()
        );
    }
}

/// A pattern that the harness does not know would be checked by editors alone.
#[test]
fn every_pattern_of_the_schemas_is_known() {
    fn visit(schema: &serde_json::Value, found: &mut Vec<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                found.extend(map.get("pattern").and_then(|text| text.as_str()).map(str::to_owned));
                map.values().for_each(|value| visit(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|value| visit(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for (_, schema) in schemas().into_iter().chain([("stored", &*stored::SCHEMA)]) {
        visit(schema, &mut found);
    }
    assert!(!found.is_empty());
    for pattern in found {
        assert!(PATTERNS.iter().any(|known| known.text == pattern), "{pattern} has no test of its own");
    }
}

#[test]
fn every_file_names_its_schema() {
    let kinds = [
        (Kind::Board, "board"),
        (Kind::Experiment, "experiment"),
        (Kind::Network, "network"),
        (Kind::Group, "group"),
    ];
    for (kind, schema) in kinds {
        for name in names(&root(), kind) {
            let path = root().join(kind.folder()).join(format!("{name}.yaml"));
            let text = fs::read_to_string(&path).expect("committed files can be read");
            let line = format!("# yaml-language-server: $schema=../schema/{schema}.json");
            assert_eq!(text.lines().next(), Some(line.as_str()), "{}", path.display());
        }
    }
}

#[test]
fn the_zoo_is_listed_once_each() {
    let mut all: Vec<&str> = zoo().collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), count), (23, 23));
}

#[test]
fn the_jetson_of_the_example_is_understood() {
    let board = load_board(&root(), "tx2-lab").unwrap_or_else(|faults| panic!("{faults}"));
    let Connect::Ssh { host, user, port, identity, jump, .. } = &board.connect else { panic!("{board:?}") };
    assert_eq!((host.as_str(), user.as_deref(), *port), ("tx2.lab", Some("nvidia"), None));
    assert_eq!((identity.as_deref(), jump.as_deref()), (Some("~/.ssh/id_ed25519"), Some("gateway")));
    let target = board.target.expect("it has a target");
    assert_eq!((target.triple, target.glibc.as_deref()), (Triple::Arm, Some("2.27")));
    let Processors::Listed(processors) = &board.processors else { panic!("processors are listed") };
    let names: Vec<&str> = processors.iter().map(|processor| processor.name.as_str()).collect();
    assert_eq!(names, ["gpu", "denver", "a57"], "in the order of the file");
    let arch = "sm_62".parse().ok();
    assert_eq!(processors[0].spec, ProcessorSpec::Cuda { arch, device: 0, host_cpus: None });
    let a57 = ProcessorSpec::Cpu { cpus: vec![0, 3, 4, 5], threads: 4, mcpu: Some("cortex-a57".to_owned()) };
    assert_eq!(processors[2].spec, a57);
    let Power::Meter(meter) = &board.power else { panic!("{:?}", board.power) };
    assert_eq!((meter.root.as_str(), &meter.total[..]), ("/sys", &["VDD_IN".to_owned()][..]));
    assert_eq!(board.state.nvpmodel, Some(0));
}

/// The second `cargo xtask bench` of a day has 90 s; measuring may take 75 of them on two processors at 60 frames/s.
#[test]
fn the_quick_experiment_is_quick() {
    let loaded =
        load(&root(), "local", "quick", &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"));
    let experiment = loaded.experiment;
    let (processors, fps) = (2.0, 60.0);
    let time = |frames: u32, least: std::time::Duration| least.as_secs_f64().max(f64::from(frames) / fps);
    let isolate = Some(&experiment.isolate)
        .filter(|isolate| isolate.enabled)
        .map_or(0.0, |isolate| time(isolate.min_frames, isolate.min));
    let trial = |stages: f64| {
        time(experiment.warm_up.min_frames, experiment.warm_up.min)
            + time(experiment.measure.min_frames, experiment.measure.min)
            + stages * isolate
    };
    let schedules: f64 = experiment
        .schedules
        .iter()
        .map(|schedule| match schedule {
            ScheduleSpec::SingleEach => processors * trial(1.0),
            _ => trial(processors),
        })
        .sum();
    let profile = 2.0 * time(experiment.profile.min_frames, experiment.profile.min);
    let network = f64::from(experiment.trials) * schedules + processors * profile;
    let seconds = 3.0 * network;
    assert_eq!(experiment.networks.len(), 3);
    assert!(seconds < 66.0, "{seconds} s, and starting and comparing come on top");
}
