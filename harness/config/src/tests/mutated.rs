//! No input makes the reader panic, take long, or say much; and none is refused without a word.

use super::super::{Faults, Loaded, Overrides, Thresholds, load_several};
use super::{BOARD, EXPERIMENT, Scratch, root};
use host::mutation::{cases, mutated, timed};
use proptest::prelude::*;
use std::fs;
use std::path::Path;

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

/// Loads with one file exchanged.
fn with(file: &str, text: &[u8]) {
    let scratch = Scratch::new();
    scratch.write("boards/other.yaml", &BOARD.replace("board: bench", "board: other"));
    scratch.write("groups/farm.yaml", GROUP).write("networks/mine.yaml", NETWORK);
    scratch.write("networks/mine.onnx", "");
    scratch.write("experiments/sound.yaml", &EXPERIMENT.replace("[resnet18]", "[resnet18, mine]"));
    fs::write(scratch.path().join("configs").join(file), text).unwrap();
    let names = ["farm".to_owned()];
    timed(|| {
        check(load_several(scratch.path(), &names, None, "sound", &Overrides::default()).map(|(all, _)| all));
    });
}

#[test]
fn the_seeds_are_sound() {
    let scratch = Scratch::new();
    scratch.write("boards/other.yaml", &BOARD.replace("board: bench", "board: other"));
    scratch.write("groups/farm.yaml", GROUP).write("networks/mine.yaml", NETWORK);
    scratch.write("networks/mine.onnx", "");
    scratch.write("experiments/sound.yaml", &EXPERIMENT.replace("[resnet18]", "[resnet18, mine]"));
    let loaded = load_several(scratch.path(), &["farm".to_owned()], None, "sound", &Overrides::default());
    assert_eq!(loaded.unwrap_or_else(|faults| panic!("{faults}")).0.len(), 2);
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn mutated_boards(text in mutated(corpus(&["configs/boards"], &[BOARD]))) {
        with("boards/bench.yaml", &text);
    }

    #[test]
    fn mutated_experiments(text in mutated(corpus(&["configs/experiments", "configs"], &[EXPERIMENT]))) {
        with("experiments/sound.yaml", &text);
    }

    #[test]
    fn mutated_networks(text in mutated(corpus(&[], &[NETWORK, "network: mine\nonnx: mine.onnx\n"]))) {
        with("networks/mine.yaml", &text);
    }

    #[test]
    fn mutated_groups(text in mutated(corpus(&[], &[GROUP, "group: farm\nboards: [bench]\n"]))) {
        with("groups/farm.yaml", &text);
    }

    #[test]
    fn mutated_thresholds(text in mutated(corpus(&["ci"], &[]))) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &text).unwrap();
        let path: &Path = file.path();
        timed(|| check(Thresholds::read(path).map(|_| Vec::new())));
    }

    #[test]
    fn mutated_overrides(
        text in mutated(corpus(&[], &["measure.min_seconds=2", "schedules=[{single: each}]", "inject={slow_down: {processor: big, percent: 5}}"]))
    ) {
        let text = String::from_utf8_lossy(&text).into_owned();
        let overrides = Overrides { networks: vec![text.clone()], trials: Some(text.clone()), set: vec![text] };
        let scratch = Scratch::new();
        timed(|| {
            check(scratch.load("bench", "sound", &overrides).map(|loaded| vec![loaded]));
            let set = Overrides { set: overrides.set.clone(), ..Overrides::default() };
            check(scratch.load("bench", "sound", &set).map(|loaded| vec![loaded]));
        });
    }

    #[test]
    fn mutated_stored_configurations(text in mutated(stored())) {
        timed(|| check(Loaded::from_yaml(&String::from_utf8_lossy(&text)).map(|loaded| vec![loaded])));
    }
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
