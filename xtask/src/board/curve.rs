//! A load curve: how much a virtual board draws, over time.

use anyhow::{Context, Result, bail};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Most segments, longest segment in ms and highest power in mW, as xtask/virtual-board/kernel/tx2_power.c has them.
const MOST_SEGMENTS: usize = 512;
const MOST_MS: u32 = 3_600_000;
const MOST_MW: u32 = 60_000;

/// Segments of even power, played in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Curve(Vec<(u32, u32)>);

impl Curve {
    /// Reads lines of `MILLISECONDS MILLIWATTS`; `#` begins a comment.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read the curve {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("failed to read the curve {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut segments = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
            let segment = match words.as_slice() {
                [] => continue,
                [ms, mw] => ms.parse().ok().zip(mw.parse().ok()),
                _ => None,
            };
            let in_range = |(ms, mw): &(u32, u32)| (1..=MOST_MS).contains(ms) && *mw <= MOST_MW;
            let Some(segment) = segment.filter(in_range) else {
                bail!(
                    "line {number} is {line:?}; expected whole MILLISECONDS (1 to {MOST_MS}) and MILLIWATTS (0 to \
                     {MOST_MW})"
                );
            };
            segments.push(segment);
        }
        if segments.is_empty() || segments.len() > MOST_SEGMENTS {
            bail!("it has {} segments; expected 1 to {MOST_SEGMENTS}", segments.len());
        }
        Ok(Self(segments))
    }

    /// As the board takes it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (ms, mw) in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{ms} {mw}");
        }
        text
    }

    /// Length of a turn.
    pub(super) fn seconds(&self) -> f64 {
        self.0.iter().map(|(ms, _)| f64::from(*ms)).sum::<f64>() / 1e3
    }

    /// Mean power of a turn.
    pub(super) fn mean_mw(&self) -> f64 {
        self.0.iter().map(|(ms, mw)| f64::from(*ms) * f64::from(*mw)).sum::<f64>() / self.seconds() / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::Curve;

    #[test]
    fn curves_are_read_and_faults_told_with_their_line() {
        let curve = Curve::parse("# load\n1000 2000\n\n 3000\t6000 # busy\n").unwrap();
        assert_eq!((curve.text().as_str(), curve.seconds()), ("1000 2000\n3000 6000\n", 4.0));
        assert!((curve.mean_mw() - 5000.0).abs() < 1e-9);
        let table = [
            ("", "0 segments"),
            ("5 5\n0 5", "line 2"),
            ("5 5 5", "line 1"),
            ("5 60001", "line 1"),
            ("x 5", "line 1"),
            ("1.5 5", "whole MILLISECONDS"),
        ];
        for (text, expected) in table {
            let message = Curve::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text:?}: {message}");
        }
    }
}
