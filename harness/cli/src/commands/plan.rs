//! `plan`: profiles and plans, without trials.

use crate::output::{after_closing, print};
use crate::selection::Selection;
use campaign::{Paths, open};
use clap::Args;
use host::exit::{Ending as _, Exit, Outcome};
use host::interrupt::Interrupt;
use std::fmt::Write as _;

/// Options of `plan`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What and where.
    #[command(flatten)]
    selection: Selection,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let loaded = arguments.selection.load(&paths)?;
    let mut board = open::open(loaded, paths, interrupt)?;
    let networks = campaign::plan(&mut board);
    let (networks, closed) = board.close(networks)?;
    let mut text = String::new();
    for network in &networks {
        let units = network.unit_names();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} ({} units)", network.name(), units.len());
        for planned in &network.schedules {
            let label = planned.schedule.label();
            let Some(prediction) = &planned.prediction else {
                let _ = writeln!(text, "  {label:<44} measured only");
                continue;
            };
            let fps = prediction.throughput.0;
            let _ = writeln!(text, "  {label:<44} {fps:>9.2} frames/s expected");
            if planned.schedule.kind() != domain::ScheduleKind::Pipeline {
                continue;
            }
            for (stage, ns) in planned.schedule.stages().iter().zip(&prediction.stage_ns) {
                let (first, last) = (units.get(stage.first), units.get(stage.end - 1));
                let _ = writeln!(
                    text,
                    "    {:<12} {:>8.2} ms  {} … {}",
                    stage.processor.as_str(),
                    ns / 1e6,
                    first.unwrap_or(&"?"),
                    last.unwrap_or(&"?")
                );
            }
        }
    }
    after_closing(closed, print(&text).map(|()| Exit::Fine))
}
