//! What the user sees while waiting: a bar with the time left on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Progress of one part of the work.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: &'static str,
    begun: Instant,
}

impl Progress {
    /// Begins a part of so many steps.
    pub fn begin(name: &'static str, steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::stderr_with_hz(8));
            let style =
                ProgressStyle::with_template("{prefix:>9} [{bar:24}] {pos}/{len}  {eta:>4} left  {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, name, begun: Instant::now() }
    }

    /// Says what is being done. Not printed where there is no terminal: such a log would be noise.
    pub fn doing(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// One step is through; `result` is a line of its own.
    pub fn step(&self, result: &str) {
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => eprintln!("{:>9}  {result}", self.name),
        }
    }

    /// Something the user should read now.
    pub fn warn(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("{:>9}  {text}", "warning")),
            None => eprintln!("{:>9}  {text}", "warning"),
        }
    }

    /// Ends the part with a summary line.
    pub fn end(self, summary: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:>9}  {summary} in {:.1} s", self.name, self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
