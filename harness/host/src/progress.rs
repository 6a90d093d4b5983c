//! Progress: a bar with the remaining time on a terminal, plain lines elsewhere.
//!
//! If one command uses several boards, each has its own thread, and every line of that thread names its board. The
//! [`Voice`] is thread-local, so that it need not be passed through a campaign.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

thread_local! {
    static VOICE: RefCell<Option<Voice>> = const { RefCell::new(None) };
}

/// The output of the thread of a board.
#[derive(Debug, Clone)]
struct Voice {
    /// The name of the board, padded to the longest.
    board: String,
    /// Its bar on a terminal.
    bar: Option<ProgressBar>,
}

/// The bars of several boards.
#[derive(Debug)]
pub struct Lines {
    all: Option<MultiProgress>,
    width: usize,
}

impl Lines {
    /// For boards with these names.
    pub fn new<'a>(boards: impl Iterator<Item = &'a str>) -> Self {
        let all = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self { all, width: boards.map(|name| name.chars().count()).max().unwrap_or(0) }
    }

    /// Runs `act`; lines of this thread name the board meanwhile.
    pub fn speaking_for<T>(&self, board: &str, act: impl FnOnce() -> T) -> T {
        let bar = self.all.as_ref().map(|all| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style("{prefix} [{bar:24}] {pos}/{len}  {eta:>4} left  {wide_msg}"));
            bar.set_prefix(format!("{board:<width$}", width = self.width));
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let voice = Voice { board: format!("{board:<width$}", width = self.width), bar: bar.clone() };
        VOICE.set(Some(voice));
        let done = act();
        VOICE.set(None);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        done
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

/// Maximum number of items listed in a warning.
const MOST_NAMED: usize = 3;

/// Lists the first items and counts the others: `a, b, c and 130 more`.
pub fn several(items: &[String]) -> String {
    let named = items.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Prints a line. `kind` is a word such as `warning`.
pub fn say(kind: &str, text: &str) {
    VOICE.with_borrow(|voice| match voice {
        None => eprintln!("{kind:>9}  {text}"),
        Some(Voice { board, bar: None }) => eprintln!("{board}  {kind:>9}  {text}"),
        Some(Voice { board, bar: Some(bar) }) => bar.suspend(|| eprintln!("{board}  {kind:>9}  {text}")),
    });
}

/// Progress of one step of a command.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Whether the bar belongs to the board and stays.
    shared: bool,
    /// The board and two spaces, if there are several boards.
    board: String,
    name: &'static str,
    begun: Instant,
}

impl Progress {
    /// Starts a part with this number of steps.
    pub fn begin(name: &'static str, steps: usize) -> Self {
        let begun = Instant::now();
        if let Some(Voice { board, bar }) = VOICE.with_borrow(Clone::clone) {
            if let Some(bar) = &bar {
                bar.reset();
                bar.set_length(steps as u64);
                bar.set_message(name);
            }
            return Self { bar, shared: true, board: board + "  ", name, begun };
        }
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(style("{prefix:>9} [{bar:24}] {pos}/{len}  {eta:>4} left  {wide_msg}"));
            bar.set_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, shared: false, board: String::new(), name, begun }
    }

    /// Adds steps.
    pub fn more(&self, steps: usize) {
        if let Some(bar) = &self.bar {
            bar.inc_length(steps as u64);
        }
    }

    /// Shows the current action. Not printed without a terminal, because it would clutter a log.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(if self.shared { format!("{}: {what}", self.name) } else { what.to_owned() });
        }
    }

    /// Completes a step; prints `result` as a line if there is no terminal.
    pub fn step(&self, result: &str) {
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => eprintln!("{}{:>9}  {result}", self.board, self.name),
        }
    }

    /// Completes a step that was done earlier.
    pub fn known(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Prints a warning.
    pub fn warn(&self, text: &str) {
        self.line("warning", text);
    }

    /// Finishes with a summary line.
    pub fn end(self, summary: &str) {
        if let Some(bar) = self.bar.as_ref().filter(|_| !self.shared) {
            bar.finish_and_clear();
        }
        let text = format!("{summary} in {:.1} s", self.begun.elapsed().as_secs_f64());
        self.line(self.name, &text);
    }

    fn line(&self, kind: &str, text: &str) {
        let line = || eprintln!("{}{kind:>9}  {text}", self.board);
        match &self.bar {
            Some(bar) => bar.suspend(line),
            None => line(),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| !self.shared) {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_items_a_few_are_named() {
        let items: Vec<String> = (0..133).map(|number| format!("s{number}")).collect();
        assert_eq!(several(&items), "s0, s1, s2 and 130 more");
        assert_eq!(several(&items[..3]), "s0, s1, s2");
        assert_eq!(several(&items[..4]), "s0, s1, s2 and 1 more");
    }
}
