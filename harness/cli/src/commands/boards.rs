//! `boards`: shows the configured boards, breaks locks, and restores states.

use crate::output::print;
use ::boards::{Board, farm};
use campaign::processors;
use campaign::{Paths, RunnerClient};
use clap::Args;
use config::{self, Connect, Kind};
use host::date::Date;
use host::exit::{Coded as _, Ending as _, Exit, Failure, Outcome};
use host::interrupt::Interrupt;
use protocol::text;
use protocol::{Event, LockHolder, Meter, PowerReadings, Request};
use std::fmt::Write as _;
use std::time::Duration;

/// How long the power meter is read: a few conversions of the slowest one.
const READING: Duration = Duration::from_millis(1500);

/// Options of `boards`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only these boards or groups; fails if one cannot be reached.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// End the session that holds the lock of this board, and print its owner.
    #[arg(long, value_name = "NAME", conflicts_with = "names")]
    break_lock: Option<String>,
    /// Restore the state of this board if a killed session did not.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["names", "break_lock"])]
    restore: Option<String>,
    /// Release the labgrid places that are still held by killed commands of this host and user. Places of other users and
    /// hosts are not touched.
    #[arg(long, conflicts_with_all = ["names", "break_lock", "restore"])]
    reap: bool,
}

/// Shows the boards, or breaks a lock.
///
/// # Errors
/// If a board that was named cannot be shown, or a lock cannot be broken.
pub(crate) fn run(paths: &Paths, options: &Arguments) -> Outcome<Exit> {
    if options.reap {
        return reap(paths);
    }
    if let Some(name) = &options.break_lock {
        return break_lock(paths, name);
    }
    if let Some(name) = &options.restore {
        return restore(paths, name);
    }
    let mut names = config::boards_of(&paths.settings, &options.names).ending(Exit::Usage)?;
    if names.is_empty() {
        names = config::names(&paths.settings, Kind::Board);
        if !names.iter().any(|name| name == "local") {
            names.insert(0, "local".to_owned());
        }
    }
    let mut exit = Exit::Fine;
    for name in names {
        let text = match (config::load_board(&paths.settings, &name), options.names.is_empty()) {
            (Err(faults), true) => format!("{name}: {faults}\n"),
            (Err(faults), false) => return Err(faults).ending(Exit::Usage),
            (Ok(board), _) => match show(paths, &board) {
                Ok(text) => text,
                Err(failure) => {
                    if exit != Exit::Board {
                        exit = failure.exit;
                    }
                    format!("{name}: {failure}\n")
                }
            },
        };
        print(&text)?;
    }
    // An unreachable board is an error only if it was named.
    Ok(if options.names.is_empty() { Exit::Fine } else { exit })
}

fn show(paths: &Paths, board: &config::Board) -> Outcome<String> {
    let mut reached = Board::look_at(board, paths.programs_for(board)?)?;
    let place = match &board.connect {
        Connect::Local => "this machine".to_owned(),
        Connect::Ssh { host, .. } => format!("over SSH at {host}"),
        Connect::Labgrid(farm) => {
            let place = reached.place().unwrap_or("?");
            format!("place {place} of the labgrid coordinator {}", farm.coordinator())
        }
    };
    let holder = reached.holder()?;
    let mut runner = RunnerClient::new(reached, Interrupt::default());
    let machine = runner.whole_state()?;
    let pending = runner.pending()?;
    let power = match board.power.meter() {
        // A second reader on the bus would slow down the first.
        Some(_) if holder != LockHolder::Nobody {} => Err("not read while the board is in use".to_owned()),
        Some(meter) => power(&mut runner, meter).map(Some),
        None => Ok(None),
    };
    let mut text = format!("{}: {place}\n", board.name);
    let described = processors::describe(board, &machine);
    let power = power.as_ref().map(Option::as_ref).map_err(String::as_str);
    // While the board is in use, its holder restores the state.
    let pending = pending.as_ref().filter(|_| holder == LockHolder::Nobody {});
    let mut told = text::state(&machine, power, pending);
    let asked = board.state.asked();
    if !asked.is_nothing() {
        // Writing to a String cannot fail.
        let _ = writeln!(told, "  state during a bench: {}", text::request(&asked));
    }
    let lock = match holder {
        LockHolder::Nobody {} => "free".to_owned(),
        LockHolder::Session { name: by } => format!("in use by {by}"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{described}{told}  {lock}");
    Ok(text)
}

/// A short reading of the board's power meter.
fn power(runner: &mut RunnerClient, meter: &Meter) -> Result<PowerReadings, String> {
    let duration_ns = u64::try_from(READING.as_nanos()).unwrap_or(u64::MAX);
    let request = |id| Request::Idle(protocol::Idle { id, meter: meter.clone(), duration_ns });
    match runner.request("read the power meter", READING * 10, request) {
        Ok(Event::Idled(idled)) => Ok(idled.readings),
        Ok(other) => Err(runner.unexpected("read the power meter", &other).to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Frees what killed commands of this host hold on farms.
fn reap(paths: &Paths) -> Outcome<Exit> {
    paths.prepare_farm()?;
    let (freed, errors) = farm::reap(&paths.python)?;
    for freed in &freed {
        let since = Date::from_unix_ns(freed.since_unix_ns).to_minutes();
        print(&format!(
            "{} of {}: freed; process {}, started at {since}, held it when it was killed\n",
            freed.place, freed.coordinator, freed.process
        ))?;
    }
    if freed.is_empty() && errors.is_empty() {
        print("nothing to free\n")?;
    }
    let Some((first, others)) = errors.split_first() else { return Ok(Exit::Fine) };
    for error in others {
        eprintln!("error: {error}");
    }
    Err(Failure::new(first.exit(), first))
}

fn restore(paths: &Paths, name: &str) -> Outcome<Exit> {
    let board = config::load_board(&paths.settings, name).ending(Exit::Usage)?;
    let mut reached = Board::look_at(&board, paths.programs_for(&board)?)?;
    let text = match reached.restore_leftover()? {
        Some(pending) => {
            format!(
                "{name}: restored to {}; it had been changed by {}\n",
                text::settings(&pending.found),
                pending.by
            )
        }
        None => format!("{name}: nothing to restore\n"),
    };
    print(&text)?;
    Ok(Exit::Fine)
}

fn break_lock(paths: &Paths, name: &str) -> Outcome<Exit> {
    let board = config::load_board(&paths.settings, name).ending(Exit::Usage)?;
    let mut reached = Board::look_at(&board, paths.programs_for(&board)?)?;
    let text = match reached.break_lock()? {
        LockHolder::Nobody {} => format!("{name}: the board was free\n"),
        LockHolder::Session { name: by } => format!("{name}: broke the lock of {by}\n"),
    };
    print(&text)?;
    Ok(Exit::Fine)
}
