//! Energy over throughput of all measured schedules, drawn with characters for a terminal.

use crate::scale::{Scale, label};
use std::fmt::Write as _;

/// Size of the drawing between its axes, in characters.
const COLUMNS: usize = 64;
const ROWS: usize = 13;
/// Width of the numbers along the energy axis, in characters.
const MARGIN: usize = 8;

/// What a schedule is. Of two at one place, the later one is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sign {
    Other,
    Front,
    Best,
}

impl Sign {
    const fn character(self) -> char {
        match self {
            Self::Other => '·',
            Self::Front => '*',
            Self::Best => 'B',
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Other => "not on the front",
            Self::Front => "on the front",
            Self::Best => "best",
        }
    }
}

/// A measured schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) throughput_fps: f64,
    pub(super) energy_mj_per_frame: f64,
    pub(super) sign: Sign,
}

/// The drawing with its axes and the meaning of its signs; empty if there are less than two schedules to compare.
pub(super) fn draw(marks: &[Mark]) -> String {
    if marks.len() < 2 {
        return String::new();
    }
    let across = Scale::around(marks.iter().map(|mark| mark.throughput_fps));
    let upwards = Scale::around(marks.iter().map(|mark| mark.energy_mj_per_frame));
    let column = |fps: f64| cell(across.place(fps), COLUMNS);
    let row = |energy: f64| ROWS - 1 - cell(upwards.place(energy), ROWS);

    let mut sorted = marks.to_vec();
    sorted.sort_by_key(|mark| mark.sign);
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    for mark in &sorted {
        cells[row(mark.energy_mj_per_frame)][column(mark.throughput_fps)] = mark.sign.character();
    }
    let mut numbers = vec![String::new(); ROWS];
    for tick in upwards.few_ticks() {
        numbers[row(tick)] = label(tick);
    }
    let mut out = format!("{:>MARGIN$}\n", "mJ/frame");
    for (number, cells) in numbers.iter().zip(&cells) {
        let axis = if number.is_empty() { '│' } else { '┤' };
        let line = format!("{number:>MARGIN$} {axis}{}", cells.iter().collect::<String>());
        out.extend([line.trim_end(), "\n"]);
    }
    let mut axis = vec!['─'; COLUMNS];
    let mut below = String::new();
    for tick in across.few_ticks() {
        let at = column(tick);
        axis[at] = '┬';
        let text = label(tick);
        // The middle of the number is below its tick.
        let begin = (MARGIN + 2 + at).saturating_sub(text.len() / 2);
        let _ = write!(below, "{:width$}{text}", "", width = begin.saturating_sub(below.len()));
    }
    let _ = writeln!(out, "{:MARGIN$} └{}\n{below}  frames/s", "", axis.iter().collect::<String>());
    let mut signs: Vec<Sign> = sorted.iter().map(|mark| mark.sign).rev().collect();
    signs.dedup();
    let meanings: Vec<String> =
        signs.iter().map(|sign| format!("{} {}", sign.character(), sign.meaning())).collect();
    out + &format!("{:MARGIN$} {}\n", "", meanings.join(", "))
}

/// The cell of a place in percent.
fn cell(place: f64, cells: usize) -> usize {
    let last = cells - 1;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place is between 0 and 100, and a drawing has less than 100 cells"
    )]
    let nearest = (place / 100.0 * last as f64).round() as usize;
    nearest.min(last)
}
