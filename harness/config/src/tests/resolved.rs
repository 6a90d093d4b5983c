//! What comes out of sound files.

use std::time::Duration;

use super::super::{
    Connect, Experiment, Isolate, Kind, Loaded, ManualStage, Measure, NetworkSource, Overrides, Power,
    ProcessorSpec, Processors, ScheduleSpec, StageProcessors, check_processors, load, names,
};
use super::{BOARD, EXPERIMENT, Scratch, root};
use domain::{
    ArrivalTimes, FloatFormat, Limit, Load, Objective, QueueLength, QueuePolicy, StreamLoad, Winograd,
};

fn sound(scratch: &Scratch, overrides: &Overrides) -> Loaded {
    scratch.load("bench", "sound", overrides).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn objectives_are_read_and_stored() {
    let scratch = Scratch::new();
    let check = |written: &str, wanted: Objective| {
        let overrides = Overrides { set: vec![format!("objective={written}")], ..Overrides::default() };
        let loaded = sound(&scratch, &overrides);
        assert_eq!(loaded.experiment.objective, wanted, "{written}");
        let again = Loaded::from_yaml(&loaded.to_yaml().unwrap()).unwrap();
        assert_eq!(again.experiment.objective, wanted, "{written}, stored");
    };
    check("throughput", Objective::Throughput);
    check("energy", Objective::Energy);
    check("pareto", Objective::Pareto);
    let overrides = Overrides {
        set: vec!["objective=latency".to_owned(), "load={stream: {fps: 30}}".to_owned()],
        ..Overrides::default()
    };
    assert_eq!(sound(&scratch, &overrides).experiment.objective, Objective::Latency);
    check("{ energy: { min_fps: 30 } }", Objective::EnergyAtLeast { min_fps: 30.0 });
    check("{ throughput: { max_watts: 7.5 } }", Objective::ThroughputWithin(Limit::Watts(7.5)));
    let millijoules = Objective::ThroughputWithin(Limit::MillijoulesPerFrame(200.0));
    check("{ throughput: { max_mj_per_frame: 200 } }", millijoules);
}

#[test]
fn a_file_of_frames_is_found_and_has_a_digest() {
    let scratch = Scratch::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("street.npy");
    std::fs::write(&file, "frames").unwrap();
    let load = |digest: Option<&str>| {
        let mut set = vec![format!("frames.npy={}", file.display())];
        set.extend(digest.map(|digest| format!("frames.npy_sha256={digest}")));
        scratch.load("bench", "sound", &Overrides { set, ..Overrides::default() })
    };
    let loaded = load(None).unwrap();
    let digest = "b1a6fc1dd19b9dcb0cb6ae8b5b0a2c5dd6f3bbd9a6a4d39b4a5ee30e12c3f2b4";
    let found = loaded.experiment.frames.npy_sha256.clone().unwrap();
    assert_eq!(found.len(), digest.len());
    assert_eq!(loaded.experiment.frames.npy, Some(file.display().to_string()));
    let again = Loaded::from_yaml(&loaded.to_yaml().unwrap()).unwrap();
    assert_eq!(again.experiment.frames, loaded.experiment.frames);
    assert_eq!(load(Some(&found)).unwrap().experiment.frames, loaded.experiment.frames);
    let faults = load(Some(digest)).unwrap_err().to_string();
    assert!(faults.contains("frames.npy_sha256") && faults.contains(&found), "{faults}");
}

#[test]
fn a_folder_of_pictures_is_found_and_has_a_digest() {
    let scratch = Scratch::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.png"), "a picture").unwrap();
    let load = |digest: Option<&str>| {
        let mut set = vec![format!("frames.folder={}", folder.path().display())];
        set.extend(digest.map(|digest| format!("frames.folder_sha256={digest}")));
        scratch.load("bench", "sound", &Overrides { set, ..Overrides::default() })
    };
    let frames = load(None).unwrap().experiment.frames;
    let digest = frames.folder_sha256.clone().unwrap();
    assert_eq!(load(Some(&digest)).unwrap().experiment.frames, frames);
    std::fs::write(folder.path().join("a.png"), "another picture").unwrap();
    let faults = load(Some(&digest)).unwrap_err().to_string();
    assert!(faults.contains("frames.folder_sha256"), "{faults}");
    assert_ne!(load(None).unwrap().experiment.frames.folder_sha256, Some(digest));
}

#[test]
fn loads_are_read_and_stored() {
    let scratch = Scratch::new();
    let check = |written: &str, wanted: Load| {
        let overrides = Overrides { set: vec![format!("load={written}")], ..Overrides::default() };
        let loaded = sound(&scratch, &overrides);
        assert_eq!(loaded.experiment.load, wanted, "{written}");
        let again = Loaded::from_yaml(&loaded.to_yaml().unwrap()).unwrap();
        assert_eq!(again.experiment.load, wanted, "{written}, stored");
    };
    let camera = StreamLoad {
        fps: 29.97,
        streams: 1,
        queue: QueueLength::Places(2),
        policy: QueuePolicy::DropOldest,
        deadline_ms: None,
        arrivals: ArrivalTimes::Constant,
    };
    check("saturating", Load::Saturating);
    check("{stream: {fps: 29.97}}", Load::Stream(camera));
    check(
        "{ stream: { fps: 30, queue: 2, policy: drop_oldest } }",
        Load::Stream(StreamLoad { fps: 30.0, ..camera }),
    );
    let server = StreamLoad {
        fps: 0.5,
        streams: 4,
        queue: QueueLength::Places(1024),
        policy: QueuePolicy::Block,
        deadline_ms: Some(33.3),
        arrivals: ArrivalTimes::Poisson,
    };
    let written = "{ stream: { fps: 0.5, streams: 4, queue: 1024, policy: block, deadline_ms: 33.3, arrivals: poisson } }";
    check(written, Load::Stream(server));
    let chosen = StreamLoad { queue: QueueLength::Auto, ..camera };
    check("{stream: {fps: 29.97, queue: auto}}", Load::Stream(chosen));
    assert_eq!(sound(&scratch, &Overrides::default()).experiment.load, Load::Saturating);
}

#[test]
fn what_is_left_out_comes_from_the_defaults() {
    let loaded = sound(&Scratch::new(), &Overrides::default());
    assert_eq!(loaded.board.connect, Connect::Local);
    assert_eq!(loaded.board.power, Power::None);
    let Experiment { trials, objective, measure, isolate, queue_depth, tolerance, cooldown, seed, .. } =
        loaded.experiment;
    assert_eq!((trials, objective, seed), (3, Objective::Throughput, 1));
    let measure_expected = Measure {
        min_frames: 30,
        min: Duration::from_secs(1),
        max: Duration::from_secs(10),
        max_frames: 200_000,
    };
    assert_eq!(measure, measure_expected);
    let isolate_expected = Isolate {
        enabled: true,
        min_frames: 5,
        min: Duration::from_millis(100),
        max: Duration::from_secs(2),
    };
    assert_eq!(isolate, isolate_expected);
    assert_eq!((queue_depth, cooldown), (QueueLength::Places(2), Duration::ZERO));
    assert!((tolerance - 1e-4).abs() < f64::EPSILON);
}

#[test]
fn schedules_of_every_kind() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let stage = |processor: &str, until: Option<&str>| ManualStage {
        processor: StageProcessors::One(processor.to_owned()),
        until: until.map(str::to_owned),
    };
    let table = [
        ("single: each", ScheduleSpec::SingleEach),
        ("single: big", ScheduleSpec::Single("big".to_owned())),
        ("pipeline: auto", ScheduleSpec::PipelineAuto { processors: None }),
        (
            "pipeline: { processors: [little, big] }",
            ScheduleSpec::PipelineAuto { processors: Some(names(&["little", "big"])) },
        ),
        (
            "pipeline: [{ processor: little, until: layer2.0.relu }, { processor: big }]",
            ScheduleSpec::PipelineManual(vec![stage("little", Some("layer2.0.relu")), stage("big", None)]),
        ),
        (
            "pipeline: [{ processor: [little, big], until: layer2.0.relu }, { processor: third }]",
            ScheduleSpec::PipelineManual(vec![
                ManualStage {
                    processor: StageProcessors::Replicas(names(&["little", "big"])),
                    until: Some("layer2.0.relu".to_owned()),
                },
                stage("third", None),
            ]),
        ),
        ("merged: all", ScheduleSpec::MergedAll),
        ("merged: [big, little]", ScheduleSpec::Merged(names(&["big", "little"]))),
        (
            "pipeline: { processors: [big, little, big+little] }",
            ScheduleSpec::PipelineAuto { processors: Some(names(&["big", "little", "big+little"])) },
        ),
        ("replicate: all", ScheduleSpec::ReplicateAll),
        ("replicate: [big, little]", ScheduleSpec::Replicate(names(&["big", "little"]))),
    ];
    let scratch = Scratch::new();
    scratch.write("boards/bench.yaml", &format!("{BOARD}  third: {{ cpus: [3] }}\n"));
    for (text, expected) in table {
        let overrides = Overrides { set: vec![format!("schedules=[{{{text}}}]")], ..Overrides::default() };
        assert_eq!(sound(&scratch, &overrides).experiment.schedules, [expected], "{text}");
    }
}

#[test]
fn the_command_line_goes_over_the_file() {
    let overrides = Overrides {
        networks: vec!["alexnet".to_owned(), "tiny".to_owned()],
        trials: Some("9".to_owned()),
        set: vec![
            "measure.min_seconds = 2.5".to_owned(),
            "isolate.enabled=false".to_owned(),
            "seed=0x10".to_owned(),
        ],
    };
    let experiment = sound(&Scratch::new(), &overrides).experiment;
    let networks: Vec<&str> = experiment.networks.iter().map(NetworkSource::name).collect();
    assert_eq!(networks, ["alexnet", "tiny"]);
    assert_eq!((experiment.trials, experiment.seed, experiment.isolate.enabled), (9, 16, false));
    assert_eq!(experiment.measure.min, Duration::from_millis(2500));
    assert_eq!(experiment.measure.min_frames, 30, "what is beside it stays");
}

#[test]
fn a_gpu_is_a_processor_like_others() {
    let scratch = Scratch::new();
    for (gpu, spec) in [
        ("{ device: 0 }", ProcessorSpec::Cuda { arch: None, device: 0, host_cpus: None }),
        (
            "{ arch: sm_62, device: 1, host_cpus: [2, 0] }",
            ProcessorSpec::Cuda { arch: "sm_62".parse().ok(), device: 1, host_cpus: Some(vec![2, 0]) },
        ),
    ] {
        scratch.write("boards/bench.yaml", &format!("{BOARD}  gpu: {{ cuda: {gpu} }}\n"));
        let overrides =
            Overrides { set: vec!["schedules=[{single: gpu}]".to_owned()], ..Overrides::default() };
        let loaded = sound(&scratch, &overrides);
        let Processors::Listed(listed) = &loaded.board.processors else { panic!("{:?}", loaded.board) };
        assert_eq!(listed.last().map(|processor| &processor.spec), Some(&spec), "{gpu}");
        let stored = Loaded::from_yaml(&loaded.to_yaml().unwrap()).unwrap();
        assert_eq!(stored.board, loaded.board);
    }
}

#[test]
fn an_own_network_is_found_beside_its_file() {
    let scratch = Scratch::new();
    // printf hello | sha256sum
    let sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let text = format!(
        "network: mine\nonnx: models/mine.onnx\nshapes: {{ x: [1, 3, 8, 8], \"y:0\": [] }}\nsha256: {sum}\n"
    );
    scratch.write("networks/mine.yaml", &text).write("networks/models/mine.onnx", "hello");
    let overrides = Overrides { networks: vec!["mine".to_owned()], ..Overrides::default() };
    let loaded = sound(&scratch, &overrides);
    let NetworkSource::Onnx { name, path, shapes, sha256, url, precision, winograd, pictures } =
        &loaded.experiment.networks[0]
    else {
        panic!("{:?}", loaded.experiment.networks)
    };
    assert_eq!((name.as_str(), sha256.as_deref(), url), ("mine", Some(sum), &None));
    assert!(precision.is_single() && winograd.is_auto() && pictures.is_default());
    assert_eq!(shapes["x"], [1, 3, 8, 8]);
    assert!(shapes["y:0"].is_empty() && shapes.len() == 2);
    assert_eq!(*path, scratch.path().join("configs/networks/models/mine.onnx"));
    round_trip(loaded);
}

#[test]
fn a_network_of_the_zoo_with_settings_has_a_file() {
    let scratch = Scratch::new();
    scratch.write("networks/half.yaml", "network: half\nzoo: resnet18\nprecision: fp16\nwinograd: off\npictures: { crop: 0.5, channels: bgr }\n");
    let overrides = Overrides { networks: vec!["half".to_owned()], ..Overrides::default() };
    let loaded = sound(&scratch, &overrides);
    let zoo = "resnet18".to_owned();
    let (precision, winograd) = (FloatFormat::Fp16, Winograd::Off);
    let channels = domain::ChannelOrder::Bgr;
    let pictures = domain::PictureRule { crop: Some(0.5), channels, ..domain::PictureRule::default() };
    let half = NetworkSource::Zoo { name: "half".to_owned(), zoo, precision, winograd, pictures };
    assert_eq!(loaded.experiment.networks, [half]);
    round_trip(loaded);
}

#[test]
fn this_machine_needs_no_file() {
    let scratch = Scratch::new();
    scratch.write("experiments/e.yaml", "experiment: e\nnetworks: [tiny]\n");
    let loaded =
        scratch.load("local", "e", &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(loaded.board.processors, Processors::Auto);
    assert_eq!(loaded.experiment.schedules.len(), 2);
}

#[test]
fn processors_that_are_found_later_are_checked_later() {
    let loaded = Scratch::new().load("local", "sound", &Overrides::default());
    let experiment = loaded.unwrap_or_else(|faults| panic!("{faults}")).experiment;
    assert_eq!(check_processors(&experiment, &["big", "little"]), Ok(()));
    let faults = check_processors(&experiment, &["big", "litle"]).expect_err("little is not there");
    let expected = "failed to read configs/experiments/sound.yaml:5:64: unknown processor \"little\"; the board \
                    has big and litle; did you mean \"litle\"?";
    assert_eq!(faults.to_string(), expected);
}

/// Stored text reads back to an equal configuration, and writing that again gives the same text.
fn round_trip(mut loaded: Loaded) {
    let text = loaded.to_yaml().expect("it can be written");
    let mut back = Loaded::from_yaml(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    assert_eq!(back.to_yaml().expect("it can be written"), text);
    // Places are those of the stored text now.
    let names = |loaded: &Loaded| -> Vec<String> {
        loaded.experiment.mentions.iter().map(|mention| mention.processor.clone()).collect()
    };
    assert_eq!(names(&back), names(&loaded));
    for experiment in [&mut loaded.experiment, &mut back.experiment] {
        experiment.mentions.clear();
        experiment.cuts.clear();
    }
    assert_eq!(back, loaded, "{text}");
}

#[test]
fn every_committed_configuration_survives_the_database() {
    for board in names(&root(), Kind::Board) {
        for experiment in names(&root(), Kind::Experiment) {
            let loaded = load(&root(), &board, &experiment, &Overrides::default());
            round_trip(loaded.unwrap_or_else(|faults| panic!("{faults}")));
        }
    }
}

#[test]
fn odd_values_survive_the_database() {
    let scratch = Scratch::new();
    scratch.write(
        "boards/bench.yaml",
        "board: bench
connect: { ssh: { host: \"2001:db8::1\", user: \"o'neil $(id) \\\"x\\\" # y\", port: 2222 } }
target: { triple: x86_64-unknown-linux-gnu, glibc: \"2.30\" }
processors: { \"1\": { cpus: [7] }, \"true\": { cpus: [8] }, \"null\": { cuda: { arch: sm_87 } } }
state: { jetson_clocks: false, max_temperature_c: 45.5 }
",
    );
    scratch.write(
        "experiments/sound.yaml",
        "experiment: sound
networks: [tiny]
schedules:
  - pipeline: [{ processor: \"true\", until: \"0x1f\" }, { processor: \"1\" }]
  - merged: all
  - replicate: all
  - pipeline: { processors: [\"1\", \"true\", \"1+true\"] }
seed: 18446744073709551615
isolate: { enabled: false }
cooldown_seconds: 0.000000001
measure: { min_seconds: 0.1, max_seconds: 86399.999999999 }
tolerance: 1e-7
",
    );
    round_trip(sound(&scratch, &Overrides::default()));
}

#[test]
fn stored_text_that_was_tampered_with_is_refused() {
    let scratch = Scratch::new();
    let text = sound(&scratch, &Overrides::default()).to_yaml().expect("it can be written");
    let broken = text.replace("trials: 3", "trials: none").replace("- resnet18", "- resnet19");
    let faults = Loaded::from_yaml(&broken).expect_err("trials are no number").to_string();
    assert!(faults.contains("failed to read the stored configuration:"), "{faults}");
    assert!(faults.contains("expected a whole number from 1 to 10000, found \"none\""), "{faults}");
    assert!(Loaded::from_yaml("").is_err());
}

#[test]
fn a_mark_at_the_beginning_and_carriage_returns_do_no_harm() {
    let scratch = Scratch::new();
    scratch.write("experiments/sound.yaml", &format!("\u{feff}{}", EXPERIMENT.replace('\n', "\r\n")));
    assert_eq!(sound(&scratch, &Overrides::default()).experiment.trials, 3);
}

#[test]
fn totals_may_be_sums_and_come_back_from_the_stored_configuration() {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (power, total) in [
        ("ina3221: { total: VDD_IN }", &["VDD_IN"][..]),
        ("ina3221: { total: POM_5V_IN }", &["POM_5V_IN"]),
        ("ina3221: {}", &[]),
        (
            "ina3221: { total: { sum: [GPU, CPU, SOC, CV, VDDRQ, SYS5V] } }",
            &["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"],
        ),
        ("ina3221: { total: { sum: [VDD_5V] } }", &["VDD_5V"]),
        ("ina3221: { total: all, rails: { all: { address: 0x44, channel: 0 } } }", &["all"]),
        ("rapl: { total: package-0 }", &["package-0"]),
        (
            "rapl: { total: { sum: [package-0, package-0/dram, package-1] } }",
            &["package-0", "package-0/dram", "package-1"],
        ),
    ] {
        let scratch = Scratch::new();
        scratch.write("boards/bench.yaml", &format!("{BOARD}power: {{ {power} }}\n"));
        let loaded =
            scratch.load("bench", "sound", &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"));
        let found = loaded.board.power.meter().unwrap().total.clone();
        assert_eq!(found, strings(total), "{power}");
        let stored = Loaded::from_yaml(&loaded.to_yaml().unwrap()).unwrap();
        assert_eq!(stored.board.power, loaded.board.power, "{power}");
    }
}
