//! Random changes of the texts of a corpus, for fuzz tests.
//!
//! `EDGEPIPE_FUZZ_CASES=100000` sets the number of inputs for each of these tests.

use proptest::prelude::*;
use proptest::sample::Index;
use std::time::Duration;

/// The number of inputs to try: `few`, or the number in the environment.
pub fn cases(few: u32) -> ProptestConfig {
    let asked = std::env::var("EDGEPIPE_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(few), failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs `act`, and panics if it uses more than two seconds of CPU time of this thread (in an optimized build).
///
/// # Panics
/// If it uses more.
#[track_caller]
pub fn timed<T>(act: impl FnOnce() -> T) -> T {
    // The CPU time of a thread is never negative.
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    };
    let begun = now();
    let result = act();
    let limit = if cfg!(debug_assertions) { 20 } else { 2 };
    let taken = now().saturating_sub(begun);
    assert!(taken < Duration::from_secs(limit), "it took {taken:?}");
    result
}

/// Texts that are special in YAML, JSON or a shell, and invalid ones.
const PIECES: [&[u8]; 56] = [
    b"\t",
    b"\n",
    b"\n\n",
    b"\r\n",
    b" ",
    b"  ",
    b":",
    b": ",
    b"- ",
    b"-",
    b"?",
    b"? ",
    b"[",
    b"]",
    b"{",
    b"}",
    b"{}",
    b"[]",
    b",",
    b"#",
    b"&a ",
    b"*a",
    b"!!str ",
    b"|\n",
    b">-\n",
    b"\"",
    b"'",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"<<: ",
    b"null",
    b"~",
    b"-1",
    b"0",
    b"1e999",
    b"-0.0",
    b".nan",
    b"NaN",
    b"true",
    b"\xc3\xa9\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"0x",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\0\0\0\0",
    b"4294967296",
    b"18446744073709551615",
    b"-9223372036854775808",
    b"9223372036854775807",
    b"99999999999999999999999999999999999999",
    b"1e308",
    b"5e-324",
    b"../../x",
];

/// A change of a text.
#[derive(Debug, Clone)]
enum Change {
    Delete(Index, usize),
    Copy(Index, usize, Index),
    Insert(Index, Index),
    Replace(Index, usize, Index),
    Flip(Index, u8),
    Cut(Index),
    /// Continues with another text of the corpus.
    Graft(Index, Index, Index),
    CopyLine(Index, usize),
    DropLine(Index),
    SwapLines(Index, Index),
    /// Replaces a number.
    Number(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 1_usize..20).prop_map(|(at, length)| Change::Delete(at, length)),
        (at(), 1_usize..40, at()).prop_map(|(at, length, to)| Change::Copy(at, length, to)),
        (at(), at()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at(), 1_usize..8, at()).prop_map(|(at, length, piece)| Change::Replace(at, length, piece)),
        (at(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        at().prop_map(Change::Cut),
        (at(), at(), at()).prop_map(|(at, other, from)| Change::Graft(at, other, from)),
        (at(), 1_usize..4).prop_map(|(at, times)| Change::CopyLine(at, times)),
        at().prop_map(Change::DropLine),
        (at(), at()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        (at(), at()).prop_map(|(at, piece)| Change::Number(at, piece)),
    ]
}

/// A text of the corpus after one to four changes.
pub fn mutated(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), prop::collection::vec(change(), 1..5)).prop_map(move |(seed, changes)| {
        let mut text = seed.get(&corpus).clone();
        for change in changes {
            apply(&change, &mut text, &corpus);
        }
        text
    })
}

fn apply(change: &Change, text: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let length = text.len();
    let place = |at: &Index| at.index(length + 1);
    let range = |at: &Index, count: usize| place(at)..(place(at) + count).min(length);
    match change {
        Change::Delete(at, count) => drop(text.drain(range(at, *count))),
        Change::Copy(at, count, to) => {
            let copy = text[range(at, *count)].to_vec();
            text.splice(place(to)..place(to), copy);
        }
        Change::Insert(at, piece) => drop(text.splice(range(at, 0), piece.get(&PIECES).iter().copied())),
        Change::Replace(at, count, piece) => {
            text.splice(range(at, *count), piece.get(&PIECES).iter().copied());
        }
        Change::Flip(at, bit) => {
            if let Some(byte) = text.get_mut(place(at)) {
                *byte ^= 1 << bit;
            }
        }
        Change::Cut(at) => text.truncate(place(at)),
        Change::Graft(at, other, from) => {
            let other = other.get(corpus);
            text.truncate(place(at));
            text.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        Change::CopyLine(at, times) => with_lines(text, |lines| {
            let at = at.index(lines.len());
            let copies = vec![lines[at].clone(); *times];
            lines.splice(at..at, copies);
        }),
        Change::DropLine(at) => with_lines(text, |lines| drop(lines.remove(at.index(lines.len())))),
        Change::SwapLines(a, b) => with_lines(text, |lines| {
            let count = lines.len();
            lines.swap(a.index(count), b.index(count));
        }),
        Change::Number(at, piece) => {
            let starts: Vec<usize> = (0..length)
                .filter(|at| text[*at].is_ascii_digit() && (*at == 0 || !text[*at - 1].is_ascii_digit()))
                .collect();
            if !starts.is_empty() {
                let begin = *at.get(&starts);
                let end = begin + text[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                text.splice(begin..end, piece.get(&PIECES).iter().copied());
            }
        }
    }
}

fn with_lines(text: &mut Vec<u8>, act: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if !lines.is_empty() {
        act(&mut lines);
        *text = lines.concat();
    }
}
