//! What is said of files that are wrong: one table a file, one snapshot a table.

use super::super::{Overrides, check_cuts, load_several};
use super::{BOARD, EXPERIMENT, Scratch};
use domain::FleetMode;
use host::mutation::timed;
use std::fmt::Write;

/// A case: its title, what to replace in the sound file, and by what.
type Case<'a> = (&'a str, &'a str, &'a str);

/// The faults of every case, as one text.
fn check(file: &str, sound: &str, table: &[Case<'_>]) -> String {
    let mut text = String::new();
    for (title, from, to) in table {
        assert!(sound.contains(from), "{title}: the sound file has no {from:?}");
        let scratch = Scratch::new();
        scratch.write(file, &sound.replacen(from, to, 1));
        let faults = scratch.faults("bench", "sound", &Overrides::default());
        assert_ne!(faults, "no faults", "{title}");
        writeln!(text, "# {title}\n{faults}\n").expect("text can be written");
    }
    text
}

#[test]
fn experiments() {
    let table = [
        ("unknown key", "trials: 3", "trails: 3"),
        ("unknown key in a group", "min_frames: 5", "min_frame: 5"),
        ("a key of another group", "seed: 7", "max_seconds: 7"),
        ("duplicate key", "trials: 3", "trials: 3\ntrials: 4"),
        ("a tab", "  - single", "\t- single"),
        (
            "schedules that differ in a default alone",
            "  - single",
            "  - { peer: onnxruntime }\n  - { peer: onnxruntime, threads: 1 }\n  - single",
        ),
        ("no YAML", "networks: [resnet18]", "networks: [resnet18"),
        ("an anchor and an alias", "trials: 3", "trials: &t 3\nseed: *t"),
        ("a tag", "trials: 3", "trials: !!int 3"),
        ("a list as a key", "trials: 3", "[trials]: 3"),
        ("text for a number", "trials: 3", "trials: three"),
        ("a quoted number", "trials: 3", "trials: \"3\""),
        ("a fraction for a whole number", "trials: 3", "trials: 3.0"),
        ("nothing for a number", "trials: 3", "trials:"),
        ("no trials", "trials: 3", "trials: 0"),
        ("negative trials", "trials: 3", "trials: -3"),
        ("too large for any number", "trials: 3", "trials: 99999999999999999999999999999999999999999999"),
        ("a negative duration", "min_seconds: 0.1", "min_seconds: -0.1"),
        ("an endless duration", "max_seconds: 10", "max_seconds: .inf"),
        ("no duration", "max_seconds: 10", "max_seconds: 0"),
        ("a duration with a unit", "max_seconds: 10", "max_seconds: 10s"),
        ("minimum above maximum", "min_seconds: 1", "min_seconds: 11"),
        ("minimum above the default's maximum", "min_frames: 30", "min_frames: 300000"),
        ("maximum below the default's minimum", "trials: 3", "profile: { max_seconds: 0.1 }"),
        ("a number for a group", "frames: { seed: 7, distinct: 4 }", "frames: 7"),
        ("nothing for a group", "frames: { seed: 7, distinct: 4 }", "frames:"),
        ("no networks", "[resnet18]", "[]"),
        ("networks missing", "networks: [resnet18]\n", ""),
        ("one network, not a list", "[resnet18]", "resnet18"),
        ("unknown network", "resnet18", "resnet-81"),
        ("several unknown networks", "[resnet18]", "\n  - resnet19\n  - squeezenet\n  - whatever"),
        ("a network twice", "[resnet18]", "[resnet18, tiny, resnet18]"),
        ("a network's name with a blank", "[resnet18]", "[\"resnet 18\", \"$(reboot)\", ../../etc/passwd]"),
        ("a number for a network", "[resnet18]", "[18]"),
        ("unknown kind of schedule", "- single: each", "- singel: each"),
        ("two schedules in one entry", "- single: each", "- single: each\n    replicate: all"),
        ("a word for a schedule", "- single: each", "- pipeline"),
        ("an empty schedule", "- single: each", "- {}"),
        ("a schedule twice", "- single: each", "- single: each\n  - single: each"),
        (
            "no schedules",
            "  - single: each\n  - pipeline: [{ processor: big, until: layer3 }, { processor: little }]\n",
            "  []\n",
        ),
        ("a reserved word", "- single: each", "- single: all"),
        ("unknown word for a pipeline", "- single: each", "- pipeline: automatic"),
        ("unknown word for replicas", "- single: each", "- replicate: each"),
        ("a pipeline of one", "- single: each", "- pipeline: [{ processor: big }]"),
        ("unknown key of a stage", "until: layer3", "untill: layer3"),
        ("until on the last stage", "{ processor: little }", "{ processor: little, until: fc }"),
        ("until missing", ", until: layer3", ""),
        ("a processor twice in a pipeline", "processor: little", "processor: big"),
        ("a processor twice in a stage", "processor: little", "processor: [little, little]"),
        ("a processor in two stages", "processor: little", "processor: [little, big]"),
        ("a stage on a list of one", "processor: little", "processor: [little]"),
        ("a stage on a number", "processor: little", "processor: 2"),
        ("unknown processors of a stage", "processor: little", "processor: [litle, gpu]"),
        (
            "merged, and a part of it, as replicas of a stage",
            "processor: little",
            "processor: [little, big+little]",
        ),
        ("a processor twice among some", "- single: each", "- pipeline: { processors: [big, big] }"),
        ("unknown processor", "processor: little", "processor: litle"),
        (
            "unknown processors everywhere",
            "- single: each",
            "- single: gpu\n  - replicate: [big, a57]\n  - pipeline: { processors: [a57, little] }",
        ),
        (
            "unknown parts of merged processors",
            "- single: each",
            "- merged: [big, gpu]\n  - replicate: [big+a57, little]\n  - pipeline: { processors: [gpu+a57, little] }",
        ),
        ("merged in another order", "- single: each", "- merged: [little, big]"),
        ("a part twice", "- single: each", "- pipeline: { processors: [big, little+little] }"),
        ("merged, and a part of it, as replicas", "- single: each", "- replicate: [big, big+little]"),
        ("merged, and a part of it, as stages", "processor: little", "processor: big+little"),
        (
            "merged, and a part of it alone, in a pipeline",
            "- single: each",
            "- pipeline: { processors: [big, big+little] }",
        ),
        ("merged of one", "- single: each", "- merged: [big]"),
        ("a plus too many", "- single: each", "- replicate: [big+, little]"),
        ("unknown objective", "trials: 3", "objective: troughput"),
        ("a rate of zero", "trials: 3", "objective: { energy: { min_fps: 0 } }"),
        ("a limit of the wrong objective", "trials: 3", "objective: { energy: { max_watts: 10 } }"),
        ("two limits", "trials: 3", "objective: { throughput: { max_watts: 10, max_mj_per_frame: 200 } }"),
        ("a budget of zero", "trials: 3", "search: { budget_minutes: 0 }"),
        ("an unknown peer", "- single: each", "- peer: onnxrutime"),
        ("a peer without threads", "- single: each", "- { peer: onnxruntime, threads: 0 }"),
        ("a peer with a word for sessions", "- single: each", "- { peer: onnxruntime, sessions: each }"),
        ("an unknown provider", "- single: each", "- { peer: onnxruntime, provider: rocm }"),
        (
            "a peer's provider that is the default",
            "- single: each",
            "- { peer: onnxruntime, provider: cpu }\n  - { peer: onnxruntime }",
        ),
        ("an unknown key of a peer", "- single: each", "- { peer: onnxruntime, thread: 2 }"),
        ("a peer on an unknown processor", "- single: each", "- { peer: onnxruntime, processors: [bog] }"),
        ("a peer and a single in one entry", "- single: each", "- { peer: onnxruntime, single: each }"),
        ("another name than the file's", "experiment: sound", "experiment: loud"),
        ("name missing", "experiment: sound\n", ""),
        ("an empty file", EXPERIMENT, ""),
        ("a list for a file", EXPERIMENT, "- a\n- b\n"),
        ("two documents", "trials: 3", "trials: 3\n---\ntrials: 4"),
        (
            "several at once",
            "trials: 3\nwarm_up: {",
            "trials: 0\nretries: 3\nsede: 2\ntolerance: 2\nwarm_up: { min_secs: 1,",
        ),
    ];
    insta::assert_snapshot!(check("experiments/sound.yaml", EXPERIMENT, &table));
}

#[test]
fn loads() {
    let table = [
        ("a stream of no frames", "trials: 3", "load: { stream: { fps: 0 } }"),
        ("a stream with a negative rate", "trials: 3", "load: { stream: { fps: -1 } }"),
        ("a stream without a rate", "trials: 3", "load: { stream: { queue: 2 } }"),
        ("a stream without settings", "trials: 3", "load: stream"),
        ("a rate as text", "trials: 3", "load: { stream: { fps: 30fps } }"),
        ("a queue of no frames", "trials: 3", "load: { stream: { fps: 30, queue: 0 } }"),
        ("a word for a queue", "trials: 3", "load: { stream: { fps: 30, queue: long } }"),
        ("queues between stages of a saturating load", "trials: 3", "queue_depth: auto"),
        (
            "a sustained rate with a queue that is chosen",
            "trials: 3",
            "load: { sustained: { max_drops: 0.1%, deadline_ms: 50, queue: auto } }",
        ),
        ("an unknown policy", "trials: 3", "load: { stream: { fps: 30, policy: drop_odlest } }"),
        ("unknown arrival times", "trials: 3", "load: { stream: { fps: 30, arrivals: random } }"),
        ("a deadline of zero", "trials: 3", "load: { stream: { fps: 30, deadline_ms: 0 } }"),
        ("no streams", "trials: 3", "load: { stream: { fps: 30, streams: 0 } }"),
        ("an unknown key of a stream", "trials: 3", "load: { stream: { fsp: 30 } }"),
        ("an unknown load", "trials: 3", "load: { streams: { fps: 30 } }"),
        ("a sustained rate without a deadline", "trials: 3", "load: { sustained: { max_drops: 0.1% } }"),
        ("drops as a number", "trials: 3", "load: { sustained: { max_drops: 0.1, deadline_ms: 50 } }"),
        ("a file of frames that is not there", "distinct: 4", "npy: gone.npy"),
        (
            "a digest without a file",
            "distinct: 4",
            "npy_sha256: abababababababababababababababababababababababababababababababab",
        ),
        ("a folder of pictures that is not there", "distinct: 4", "folder: gone"),
        ("a folder without pictures", "distinct: 4", "folder: configs/boards"),
        ("pictures and a file of frames", "distinct: 4", "folder: configs, npy: gone.npy"),
        ("a pipe as a file of frames", "distinct: 4", "npy: /dev/null"),
        ("the least latency without a stream", "trials: 3", "objective: latency"),
        (
            "a stream for a search",
            "trials: 3",
            "search: { budget_minutes: 1 }\nload: { stream: { fps: 30 } }",
        ),
    ];
    insta::assert_snapshot!(check("experiments/sound.yaml", EXPERIMENT, &table));
}

#[test]
fn boards() {
    const SSH: &str = "{ ssh: { host: tx2.lab, user: nvidia } }";
    let sound = "board: bench
connect: { ssh: { host: tx2.lab, user: nvidia } }
target: { triple: aarch64-unknown-linux-gnu, glibc: \"2.27\" }
processors:
  big: { cpus: [0, 1], threads: 1 }
  little: { cpus: [2] }
  gpu: { cuda: { arch: sm_62 } }
power: { ina3221: { total: VDD_IN } }
state: { nvpmodel: 0, max_temperature_c: 45 }
operating_points: { power_modes: [0, MAXQ], frequencies_mhz: { big: all, little: { every: 3 }, gpu: [114.75] }, governors: [powersave], memory_mhz: all }
";
    let table = [
        ("unknown key", "power:", "powre:"),
        ("frequencies of an unknown processor", "little: { every", "litle: { every"),
        ("a step of zero", "every: 3", "every: 0"),
        ("a frequency in Hz", "114.75", "114750000"),
        ("no frequencies", "[114.75]", "[]"),
        ("a word for frequencies", "big: all", "big: some"),
        ("an unknown setting of points", "power_modes", "modes"),
        ("governors of pinned clocks", "state: {", "state: { jetson_clocks: true,"),
        ("the governor of programs", "[powersave]", "[powersave, userspace]"),
        ("no governors", "[powersave]", "[]"),
        ("a word for governors", "[powersave]", "some"),
        ("a memory clock in Hz", "memory_mhz: all", "memory_mhz: [1600000000]"),
        ("another name than the file's", "board: bench", "board: bank"),
        ("name missing", "board: bench\n", ""),
        ("unknown way to connect", SSH, "telnet"),
        ("unknown way to connect, with settings", "ssh:", "shs:"),
        ("host missing", "host: tx2.lab, ", ""),
        ("an empty host", "host: tx2.lab", "host: \"\""),
        ("a port too large", "user: nvidia", "port: 70000"),
        ("recovery without a farm", "power:", "recover: { power_cycle: 1 }\npower:"),
        ("a farm without a coordinator", SSH, "{ labgrid: { place: a } }"),
        (
            "a coordinator as a URL",
            SSH,
            "{ labgrid: { coordinator: \"http://lab\", place: a } }\nrecover: { power_cycle: 1 }",
        ),
        ("neither place nor tags", SSH, "{ labgrid: { coordinator: lab, wait_minutes: 30min } }"),
        ("place and tags", SSH, "{ labgrid: { coordinator: lab, place: a, match: { board: tx2 } } }"),
        ("a tag that is a number", SSH, "{ labgrid: { coordinator: lab, match: { ram: 8 } } }"),
        (
            "a limit for equal boards without its unit",
            SSH,
            "{ labgrid: { coordinator: lab, place: a, equal_within: 5 } }",
        ),
        (
            "power cycles without end",
            SSH,
            "{ labgrid: { coordinator: lab, place: a } }\nrecover: { power_cycle: 1000 }",
        ),
        ("ONNX Runtime without its version", "power:", "onnxruntime: /usr/lib/libonnxruntime.so\npower:"),
        ("ONNX Runtime with a relative path", "power:", "onnxruntime: libonnxruntime.so.1.20.1\npower:"),
        ("target missing", "target: { triple: aarch64-unknown-linux-gnu, glibc: \"2.27\" }\n", ""),
        ("unknown triple", "aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
        ("glibc without quotes", "\"2.27\"", "2.27"),
        ("glibc with a word", "\"2.27\"", "latest"),
        (
            "no processors",
            "processors:\n  big: { cpus: [0, 1], threads: 1 }\n  little: { cpus: [2] }\n  gpu: { cuda: { arch: sm_62 } }\n",
            "processors: {}\n",
        ),
        (
            "processors as a list",
            "processors:\n  big: { cpus: [0, 1], threads: 1 }\n  little: { cpus: [2] }\n  gpu: { cuda: { arch: sm_62 } }\n",
            "processors: [big, little]\n",
        ),
        ("a processor's name with a blank", "  big:", "  \"big one\":"),
        ("a reserved name", "  gpu:", "  auto:"),
        ("a processor twice", "  little:", "  big:"),
        ("overlapping CPUs", "[2]", "[2, 1]"),
        ("a CPU twice", "[2]", "[2, 2]"),
        ("a negative CPU", "[2]", "[-2]"),
        ("no CPUs", "[2]", "[]"),
        ("a range of CPUs", "[2]", "2-3"),
        ("more threads than CPUs", "threads: 1", "threads: 3"),
        ("no threads", "threads: 1", "threads: 0"),
        ("CPUs and a GPU", "cpus: [2]", "cpus: [2], cuda: { arch: sm_62 }"),
        ("neither CPUs nor a GPU", "{ cpus: [2] }", "{ mcpu: cortex-a57 }"),
        ("nothing", "{ cpus: [2] }", ""),
        ("threads of a GPU", "cuda: { arch: sm_62 }", "cuda: { arch: sm_62 }, threads: 2"),
        ("a CUDA architecture", "sm_62", "6.2"),
        ("an unknown CUDA architecture", "sm_62", "sm_61"),
        ("a GPU fed by no CPU", "sm_62", "sm_62, host_cpus: []"),
        ("a GPU fed by a CPU twice", "sm_62", "sm_62, host_cpus: [1, 1]"),
        ("a GPU twice", "{ cpus: [2] }", "{ cuda: { arch: sm_53 } }"),
        ("a GPU twice, with its number", "{ cpus: [2] }", "{ cuda: { device: 0 } }"),
        ("an unknown key of a GPU", "sm_62", "sm_62, gpus: 1"),
        ("unknown power meter", "ina3221:", "ina3321:"),
        ("a power meter without its rail", "{ ina3221: { total: VDD_IN } }", "ina3221"),
        ("a power meter without its total", "{ ina3221: { total: VDD_IN } }", "{ rapl: {} }"),
        (
            "a channel too many",
            "{ ina3221: { total: VDD_IN } }",
            "{ ina3221: { total: in, rails: { in: { address: 0x41, channel: 3 } } } }",
        ),
        ("a total that is a part", "{ total: VDD_IN }", "{ total: VIN_SYS_5V0 }"),
        ("a part named alone as a sum", "{ total: VDD_IN }", "{ total: { sum: [VIN_SYS_5V0] } }"),
        ("a total that nobody knows", "{ total: VDD_IN }", "{ total: VDD_CPU }"),
        ("a sum with the whole", "{ total: VDD_IN }", "{ total: { sum: [VDD_IN, VDD_CPU] } }"),
        ("a rail twice in a sum", "{ total: VDD_IN }", "{ total: { sum: [A, A] } }"),
        ("an empty sum", "{ total: VDD_IN }", "{ total: { sum: [] } }"),
        (
            "a sum of what is a part",
            "{ ina3221: { total: VDD_IN } }",
            "{ rapl: { total: { sum: [package-0, package-0/core] } } }",
        ),
        ("text for truth", "nvpmodel: 0", "jetson_clocks: yes"),
        ("too hot", "45", "450"),
        ("several at once", "threads: 1", "threads: 3, cores: 2 }\n  third: { cpus: [1, 2], thread: 1"),
    ];
    insta::assert_snapshot!(check("boards/bench.yaml", sound, &table));
}

#[test]
fn this_machine_is_no_other() {
    let foreign = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let scratch = Scratch::new();
    scratch
        .write("boards/bench.yaml", &format!("{BOARD}target: {{ triple: {foreign}-unknown-linux-gnu }}\n"));
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert!(faults.starts_with("failed to read configs/boards/bench.yaml:5:19: "), "{faults}");
    assert!(faults.contains("is not for this machine"), "{faults}");
}

#[test]
fn networks() {
    let sound = "network: mine\nonnx: mine.onnx\n";
    let sum = "a1".repeat(32);
    let wrong = format!("{sound}sha256: {sum}\n");
    let table = [
        ("unknown key", "network: mine\nonnx: mine.onnx\noonx: x\n"),
        ("file missing", "network: mine\nonnx: gone.onnx\n"),
        (
            "file missing, address known",
            "network: mine\nonnx: gone.onnx\nurl: https://example.org/gone.onnx\n",
        ),
        ("a folder", "network: mine\nonnx: .\n"),
        ("key missing", "network: mine\n"),
        ("both keys", "network: mine\nonnx: mine.onnx\nzoo: resnet18\n"),
        ("unknown name in the zoo", "network: mine\nzoo: resnet-18\n"),
        (
            "keys of ONNX files",
            "network: mine\nzoo: resnet18\nshapes: { x: [1] }\nurl: https://example.org/x\n",
        ),
        ("unknown precision", "network: mine\nonnx: mine.onnx\nprecision: fp8\n"),
        ("unknown choice of Winograd's algorithm", "network: mine\nonnx: mine.onnx\nwinograd: false\n"),
        ("a crop of more than all", "network: mine\nonnx: mine.onnx\npictures: { crop: 1.5 }\n"),
        ("a mean as text", "network: mine\nonnx: mine.onnx\npictures: { mean: [a], std: [] }\n"),
        (
            "unknown layout",
            "network: mine\nonnx: mine.onnx\npictures: { layout: chw, channels: grb, fits: all }\n",
        ),
        ("a sum in capitals", "network: mine\nonnx: mine.onnx\nsha256: ABCDEF\n"),
        ("another sum", &wrong),
        ("no address", "network: mine\nonnx: mine.onnx\nurl: example.org/mine.onnx\n"),
        ("another name than the file's", "network: yours\nonnx: mine.onnx\n"),
    ];
    let mut text = String::new();
    let overrides = Overrides { networks: vec!["mine".to_owned()], ..Overrides::default() };
    for (title, file) in table {
        let scratch = Scratch::new();
        scratch.write("networks/mine.yaml", file).write("networks/mine.onnx", "hello");
        let faults = scratch.faults("bench", "sound", &overrides);
        assert_ne!(faults, "no faults", "{title}");
        writeln!(text, "# {title}\n{faults}\n").expect("text can be written");
    }
    let scratch = Scratch::new();
    scratch.write("networks/resnet18.yaml", "network: resnet18\nonnx: x.onnx\n");
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    writeln!(text, "# a name of the zoo\n{faults}\n").expect("text can be written");
    let scratch = Scratch::new();
    scratch.write("networks/mine.yaml", "network: mine\nzoo: resnet18\nprecision: fp16\n");
    let peer = vec!["schedules=[{single: each}, {peer: onnxruntime}]".to_owned()];
    let faults = scratch.faults("bench", "sound", &Overrides { set: peer, ..overrides });
    write!(text, "# half precision and a peer\n{faults}").expect("text can be written");
    insta::assert_snapshot!(text);
}

#[test]
fn command_line() {
    let set = |text: &str| Overrides { set: vec![text.to_owned()], ..Overrides::default() };
    let networks = ["resnet-18".to_owned(), "my net".to_owned()].to_vec();
    let plain = Overrides::default();
    let table = [
        ("unknown board", "bunch", "sound", plain.clone()),
        ("unknown experiment", "bench", "sund", plain.clone()),
        ("both, and nothing near", "tx2-lab", "nightly", plain.clone()),
        ("names that are none", "../bench", "$(reboot)", plain.clone()),
        ("an empty name", "", "sound", plain),
        ("unknown networks", "bench", "sound", Overrides { networks, ..Overrides::default() }),
        ("no trials", "bench", "sound", Overrides { trials: Some("0".to_owned()), ..Overrides::default() }),
        (
            "trials in words",
            "bench",
            "sound",
            Overrides { trials: Some("many".to_owned()), ..Overrides::default() },
        ),
        ("unknown setting", "bench", "sound", set("measure.min_second=1")),
        ("a wrong value", "bench", "sound", set("queue_depth=none")),
        ("a minimum above its maximum", "bench", "sound", set("measure.min_seconds=60")),
        ("no value", "bench", "sound", set("measure.min_seconds")),
        ("no key", "bench", "sound", set("=1")),
        ("the name", "bench", "sound", set("experiment=x")),
        ("no YAML", "bench", "sound", set("networks=[")),
        ("unknown processor", "bench", "sound", set("schedules=[{single: bug}]")),
    ];
    let mut text = String::new();
    for (title, board, experiment, overrides) in table {
        let faults = Scratch::new().faults(board, experiment, &overrides);
        assert_ne!(faults, "no faults", "{title}");
        writeln!(text, "# {title}\n{faults}\n").expect("text can be written");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn all_files_are_reported_at_once() {
    let scratch = Scratch::new();
    scratch.write("boards/bench.yaml", &BOARD.replace("threads: 1", "threads: 9"));
    scratch.write("networks/mine.yaml", "network: mine\nonnx: gone.onnx\n");
    let experiment = EXPERIMENT.replace("[resnet18]", "[resnet81, mine]").replace("trials: 3", "trails: 3");
    scratch.write("experiments/sound.yaml", &experiment.replace("processor: big", "processor: bug"));
    insta::assert_snapshot!(scratch.faults("bench", "sound", &Overrides::default()));
}

#[test]
fn files_that_cannot_be_read() {
    let scratch = Scratch::new();
    let path = scratch.path().join("configs/experiments/sound.yaml");
    std::fs::write(&path, b"experiment: sound\nnetworks: [\xff\xfe]\n").expect("files can be written");
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert_eq!(
        faults,
        "failed to read configs/experiments/sound.yaml: it is not UTF-8 text (line 2); save it as UTF-8"
    );
    std::fs::remove_file(&path).expect("files can be removed");
    std::fs::create_dir(&path).expect("folders can be made");
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert_eq!(faults, "failed to read configs/experiments/sound.yaml: it is a directory; expected a file");
}

#[test]
fn cuts_are_checked_once_the_units_are_known() {
    let units = ["conv1", "layer1.0", "layer1.1", "layer2.0", "fc"];
    let unit =
        |name| serde_json::json!({ "name": name, "operators": ["conv2d"], "macs": 1, "parameters": 1 });
    let tensor = |index: usize| {
        serde_json::json!({
            "value": format!("v{index}"), "shape": [1, 4], "dtype": "float32", "bytes": 16
        })
    };
    let boundaries: Vec<_> =
        (0..=units.len()).map(|index| serde_json::json!({ "tensors": [tensor(index)] })).collect();
    let network = serde_json::json!({ "name": "small", "units": units.map(unit), "boundaries": boundaries });
    let network: domain::Network = serde_json::from_value(network).expect("it is a network");
    let scratch = Scratch::new();
    let faults = |stages: &str| {
        let schedules = format!("- single: each\n  - pipeline: [{stages}]");
        scratch.write(
            "experiments/sound.yaml",
            &EXPERIMENT.replace("- single: each", &schedules).replace("layer3", "layer1"),
        );
        let loaded =
            scratch.load("bench", "sound", &Overrides::default()).unwrap_or_else(|faults| panic!("{faults}"));
        check_cuts(&loaded.experiment, &network).err().map(|faults| faults.to_string()).unwrap_or_default()
    };
    let big_then_little =
        |until: &str| faults(&format!("{{ processor: big, until: {until} }}, {{ processor: little }}"));
    assert_eq!(big_then_little("layer1.0"), "");
    let place = "failed to read configs/experiments/sound.yaml:5:41";
    let unknown = format!("{place}: small has no unit \"layr1\"; did you mean layer1, ");
    assert!(big_then_little("layr1").starts_with(&unknown), "{}", big_then_little("layr1"));
    let end = format!("{place}: \"fc\" is the last unit of small; no unit is left for the next stage");
    assert_eq!(big_then_little("fc"), end);
    let board = format!("{BOARD}  third: {{ cpus: [3] }}\n");
    scratch.write("boards/bench.yaml", &board);
    let three = |first: &str, second: &str| {
        faults(&format!(
            "{{ processor: big, until: {first} }}, {{ processor: little, until: {second} }}, {{ processor: third }}"
        ))
    };
    assert_eq!(three("conv1", "layer1"), "");
    let behind = "\"layer1\" of small must come after the previous cut; its stage is empty";
    assert!(three("layer2", "layer1").ends_with(behind), "{}", three("layer2", "layer1"));
    assert!(three("layer1", "layer1").ends_with(behind), "{}", three("layer1", "layer1"));
}

#[test]
fn groups() {
    let sound = "group: shelf\nboards: [bench, other]\nmode: spread\n";
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let table: [(&str, &str, &str, &[&str]); 14] = [
        ("another name than the file", "group: shelf", "group: shelves", &["shelf"]),
        ("unknown key", "mode:", "modes:", &["shelf"]),
        ("unknown mode", "spread", "shared", &["shelf"]),
        ("no boards", "[bench, other]", "[]", &["shelf"]),
        ("boards missing", "boards: [bench, other]\n", "", &["shelf"]),
        ("one board, not a list", "[bench, other]", "bench", &["shelf"]),
        ("a board twice", "[bench, other]", "[bench, bench]", &["shelf"]),
        ("unknown boards", "[bench, other]", "\n  - bensh\n  - \"b $(reboot)\"", &["shelf"]),
        ("a group in a group", "[bench, other]", "[bench, shelf]", &["shelf"]),
        ("a faulty board", "other]", "broken]", &["shelf"]),
        ("a group, and one of its boards again", "", "", &["shelf", "bench"]),
        ("a board twice on the command line", "", "", &["other", "other"]),
        ("unknown board or group", "", "", &["shelv"]),
        ("groups with conflicting modes", "", "", &["shelf", "rack"]),
    ];
    let mut text = String::new();
    for (title, from, to, asked) in table {
        let scratch = Scratch::new();
        scratch.write("groups/shelf.yaml", &sound.replacen(from, to, 1));
        scratch.write("groups/rack.yaml", "group: rack\nboards: [third]\nmode: repeat\n");
        for name in ["other", "third"] {
            scratch.write(&format!("boards/{name}.yaml"), &BOARD.replace("bench", name));
        }
        scratch.write("boards/broken.yaml", "board: broken\nprocessors: automatic\n");
        let loaded =
            load_several(scratch.path(), &names(asked), None, "sound", &Overrides::default()).unwrap_err();
        writeln!(text, "# {title}\n{loaded}\n").expect("text can be written");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_group_where_one_board_is_wanted() {
    let scratch = Scratch::new();
    scratch.write("groups/shelf.yaml", "group: shelf\nboards: [bench]\n");
    let faults = scratch.faults("shelf", "sound", &Overrides::default());
    assert!(faults.contains("\"shelf\" is a group, but this command takes one board"), "{faults}");
    assert!(faults.contains("configs/groups/shelf.yaml"), "{faults}");
}

#[test]
fn a_group_stands_for_its_boards() {
    let scratch = Scratch::new();
    scratch.write("boards/other.yaml", &BOARD.replace("bench", "other"));
    scratch.write("groups/shelf.yaml", "group: shelf\nboards: [other]\nmode: spread\n");
    let names = ["bench".to_owned(), "shelf".to_owned()];
    let load = |mode| load_several(scratch.path(), &names, mode, "sound", &Overrides::default()).unwrap();
    let (loaded, mode) = load(None);
    let boards: Vec<&str> = loaded.iter().map(|loaded| loaded.board.name.as_str()).collect();
    assert_eq!((boards.as_slice(), mode), (["bench", "other"].as_slice(), Some(FleetMode::Spread)));
    assert_eq!(
        load(Some(FleetMode::Repeat)).1,
        Some(FleetMode::Repeat),
        "the command line stands above the group"
    );
    // A board and a group of one name.
    scratch.write("groups/bench.yaml", "group: bench\nboards: [other]\n");
    let faults = load_several(scratch.path(), &names[..1], None, "sound", &Overrides::default()).unwrap_err();
    assert!(faults.to_string().contains("is both a board and a group"), "{faults}");
}

#[test]
fn very_many_faults_are_a_few_lines() {
    let scratch = Scratch::new();
    let doubled = "trials: 3\n".repeat(100_000);
    let unknown = (0..5000).map(|number| format!("a{number}: 1\n")).collect::<Vec<_>>().concat();
    let tabs = "\ta: b\n".repeat(150_000);
    let huge = format!("experiment: sound\n{}: 1\n", "k".repeat(900_000));
    for text in [&doubled, &unknown, &tabs, &huge, &format!("experiment: [{}]", "&a *a,".repeat(50_000))] {
        scratch.write("experiments/sound.yaml", text);
        let faults = timed(|| scratch.faults("bench", "sound", &Overrides::default()));
        assert!(faults.len() < 20_000 && faults.lines().count() <= 31, "{} bytes", faults.len());
    }
    scratch.write("experiments/sound.yaml", &"trials: 3\n".repeat(4000));
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert!(faults.ends_with("and 3971 more faults; correct these first"), "{faults}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let scratch = Scratch::new();
    let file = scratch.path().join("configs/experiments/sound.yaml");
    std::fs::remove_file(&file).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert!(faults.contains("is a FIFO, socket or device; expected a regular file"), "{faults}");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    let faults = scratch.faults("bench", "sound", &Overrides::default());
    assert!(faults.contains("expected a regular file"), "{faults}");
}
