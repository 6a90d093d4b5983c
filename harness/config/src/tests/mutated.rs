//! No input makes the reader panic, take long, or say much; and none is refused without a word.

use super::super::{Faults, Loaded, Overrides, Thresholds, load_several};
use super::{BOARD, EXPERIMENT, Scratch, root};
use host::mutation::{cases, mutated, timed};
use proptest::prelude::*;
use std::fs;

/// Files of these folders, and what is added here.
fn corpus(folders: &[&str], more: &[&str]) -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = more.iter().map(|text| text.as_bytes().to_vec()).collect();
    for folder in folders {
        let mut files: Vec<_> =
            fs::read_dir(root().join(folder)).unwrap().flatten().map(|entry| entry.path()).collect();
        files.sort();
        let is_yaml = |file: &&std::path::PathBuf| file.extension().is_some_and(|ending| ending == "yaml");
        corpus.extend(files.iter().filter(is_yaml).map(|file| fs::read(file).unwrap()));
    }
    assert!(!corpus.is_empty());
    corpus
}

const GROUP: &str = "group: farm\nboards: [bench, other]\nmode: spread\n";
const NETWORK: &str = "network: mine\nonnx: mine.onnx\nsha256: \
                       e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nurl: https://example.com/mine.onnx\n";

/// What is read is sound, and what is refused says why in a few lines.
fn check(result: Result<Vec<Loaded>, Faults>) {
    match result {
        Ok(loaded) => {
            for loaded in loaded {
                let text = loaded.to_yaml().expect("what was read can be written");
                if let Err(faults) = Loaded::from_yaml(&text) {
                    panic!("{faults}\n{text}");
                }
            }
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| !fault.message.is_empty()));
            let told = faults.to_string();
            assert!(told.lines().count() <= 100 && told.len() < 100_000, "{} bytes", told.len());
        }
    }
}

/// A root with two boards, a group and a network.
fn seeds() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("boards/other.yaml", &BOARD.replace("board: bench", "board: other"));
    scratch.write("groups/farm.yaml", GROUP).write("networks/mine.yaml", NETWORK);
    scratch.write("networks/mine.onnx", "");
    scratch.write("experiments/sound.yaml", &EXPERIMENT.replace("[resnet18]", "[resnet18, mine]"));
    scratch
}

/// Loads with one file of `scratch` replaced.
fn with(scratch: &Scratch, file: &str, text: &[u8]) {
    fs::write(scratch.path().join("configs").join(file), text).unwrap();
    let names = ["farm".to_owned()];
    timed(|| {
        check(load_several(scratch.path(), &names, None, "sound", &Overrides::default()).map(|(all, _)| all));
    });
}

#[test]
fn the_seeds_are_valid() {
    let loaded = load_several(seeds().path(), &["farm".to_owned()], None, "sound", &Overrides::default());
    assert_eq!(loaded.unwrap_or_else(|faults| panic!("{faults}")).0.len(), 2);
}

/// Runs `act` for each of many texts, with files that are written once: writing them takes longer than reading them.
fn for_mutations_of(corpus: Vec<Vec<u8>>, act: impl Fn(&Scratch, &[u8])) {
    let scratch = seeds();
    proptest!(cases(150), |(text in mutated(corpus))| act(&scratch, &text));
}

#[test]
fn mutated_boards() {
    for_mutations_of(corpus(&["configs/boards"], &[BOARD]), |scratch, text| {
        with(scratch, "boards/bench.yaml", text);
    });
}

#[test]
fn mutated_experiments() {
    for_mutations_of(corpus(&["configs/experiments", "configs"], &[EXPERIMENT]), |scratch, text| {
        with(scratch, "experiments/sound.yaml", text);
    });
}

#[test]
fn mutated_networks() {
    for_mutations_of(corpus(&[], &[NETWORK, "network: mine\nonnx: mine.onnx\n"]), |scratch, text| {
        with(scratch, "networks/mine.yaml", text);
    });
}

#[test]
fn mutated_groups() {
    for_mutations_of(corpus(&[], &[GROUP, "group: farm\nboards: [bench]\n"]), |scratch, text| {
        with(scratch, "groups/farm.yaml", text);
    });
}

#[test]
fn mutated_thresholds() {
    for_mutations_of(corpus(&["ci"], &[]), |scratch, text| {
        let path = scratch.path().join("thresholds.yaml");
        fs::write(&path, text).unwrap();
        timed(|| check(Thresholds::read(&path).map(|_| Vec::new())));
    });
}

#[test]
fn mutated_overrides() {
    let settings = [
        "measure.min_seconds=2",
        "schedules=[{single: each}]",
        "inject={slow_down: {processor: big, percent: 5}}",
    ];
    for_mutations_of(corpus(&[], &settings), |scratch, text| {
        let text = String::from_utf8_lossy(text).into_owned();
        let all = Overrides { networks: vec![text.clone()], trials: Some(text.clone()), set: vec![text] };
        let set = Overrides { set: all.set.clone(), ..Overrides::default() };
        timed(|| {
            for overrides in [&all, &set] {
                check(scratch.load("bench", "sound", overrides).map(|loaded| vec![loaded]));
            }
        });
    });
}

#[test]
fn mutated_stored_configurations() {
    for_mutations_of(stored(), |_, text| {
        timed(|| check(Loaded::from_yaml(&String::from_utf8_lossy(text)).map(|loaded| vec![loaded])));
    });
}

/// Configurations as the database keeps them.
fn stored() -> Vec<Vec<u8>> {
    let load = |experiment: &str| super::load(&root(), "local", experiment, &Overrides::default());
    let names = ["quick", "zoo", "peers"];
    names.iter().map(|name| load(name).unwrap().to_yaml().unwrap().into_bytes()).collect()
}

#[test]
fn deep_and_long_files_end() {
    let scratch = Scratch::new();
    for text in [
        "[".repeat(200_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "a\n".repeat(300_000),
        "? ".repeat(50_000),
        "&a [*a, *a]".repeat(50_000),
        format!("a: {}", "x".repeat(1_000_000)),
        format!("experiment: \"{}\"", "\\n".repeat(500_000)),
        (0..100_000).map(|number| format!("k{number}: ")).collect::<Vec<_>>().join("\n"),
        "--- a\n".repeat(100_000),
    ] {
        scratch.write("experiments/sound.yaml", &text);
        let faults = timed(|| scratch.load("bench", "sound", &Overrides::default()));
        assert!(faults.unwrap_err().to_string().len() < 100_000);
    }
}
