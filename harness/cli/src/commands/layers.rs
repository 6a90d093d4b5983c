//! `layers`: shows the layers that are furthest from what a processor can do.

use crate::output::{after_closing, print};
use crate::selection::Selection;
use campaign::{Paths, open};
use clap::Args;
use host::exit::{Ending as _, Exit, Outcome};
use host::interrupt::Interrupt;

/// Options of `layers`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Number of layers to show of each network.
    #[arg(long, value_name = "N", default_value_t = 3)]
    top: usize,
    /// Processor to examine. Default: the board's first processor.
    #[arg(long, value_name = "NAME")]
    processor: Option<String>,
}

/// # Errors
/// With the exit code of the failure.
pub(crate) fn run(paths: Paths, arguments: &Arguments) -> Outcome<Exit> {
    let interrupt = Interrupt::listen().ending(Exit::Bug)?;
    let loaded = arguments.selection.load(&paths)?;
    let mut board = open::open(loaded, paths, interrupt)?;
    let layers = campaign::layers(&mut board, arguments.top, arguments.processor.as_deref());
    let (text, closed) = board.close(layers)?;
    after_closing(closed, print(&text).map(|()| Exit::Fine))
}
