//! No input makes the reader panic, and none is refused without a word.

use super::super::{Loaded, Overrides};
use super::{BOARD, EXPERIMENT, Scratch};

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }
}

const PIECES: [&str; 40] = [
    "\t",
    "\n",
    "\n\n",
    " ",
    "  ",
    ":",
    ": ",
    "- ",
    "-",
    "?",
    "? ",
    "[",
    "]",
    "{",
    "}",
    "{}",
    "[]",
    ",",
    "#",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "<<: ",
    "null",
    "~",
    "-1",
    "1e999",
    ".nan",
    "99999999999999999999999999999999999999999999",
    "true",
    "é\u{0}",
    "\u{feff}",
    "0x",
];

fn mutate(text: &str, random: &mut Random) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(2) {
        let at = random.below(letters.len() + 1);
        let end = (at + random.below(8)).min(letters.len());
        match random.below(4) {
            0 => drop(letters.drain(at..end)),
            1 => {
                let copy: Vec<char> = letters[at..end].to_vec();
                let to = random.below(letters.len() + 1);
                letters.splice(to..to, copy);
            }
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                letters.splice(at..end, piece.chars());
            }
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                letters.splice(at..at, piece.chars());
            }
        }
    }
    letters.into_iter().collect()
}

#[test]
fn mutated_files_are_read_or_refused() {
    let scratch = Scratch::new();
    let stored =
        scratch.load("bench", "sound", &Overrides::default()).expect("sound").to_yaml().expect("written");
    let mut random = Random(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..1000 {
        scratch.write("experiments/sound.yaml", EXPERIMENT).write("boards/bench.yaml", BOARD);
        let mut overrides = Overrides::default();
        match random.below(3) {
            0 => {
                scratch.write("experiments/sound.yaml", &mutate(EXPERIMENT, &mut random));
            }
            1 => {
                scratch.write("boards/bench.yaml", &mutate(BOARD, &mut random));
            }
            _ => overrides.set.push(mutate("measure.min_seconds=2", &mut random)),
        }
        let (a, b) =
            (scratch.load("bench", "sound", &overrides), Loaded::from_yaml(&mutate(&stored, &mut random)));
        for result in [a, b] {
            match result {
                Ok(loaded) => {
                    let text = loaded.to_yaml().expect("what was read can be written");
                    Loaded::from_yaml(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
                    read += 1;
                }
                Err(faults) => {
                    assert!(!faults.is_empty());
                    assert!(faults.iter().all(|fault| !fault.message.is_empty()));
                    refused += 1;
                }
            }
        }
    }
    // Both happen, or the test shows nothing.
    assert!(read > 50 && refused > 500, "{read} read, {refused} refused");
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
    ] {
        scratch.write("experiments/sound.yaml", &text);
        assert!(scratch.load("bench", "sound", &Overrides::default()).is_err());
    }
}
