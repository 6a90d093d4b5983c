//! The commands about the board's lock and state. `runner hold` keeps both for a session: it has the lock and lives as long as
//! the session does. Whatever ends it, it restores the state before it releases the lock; after SIGKILL, the next session
//! restores.

use crate::board_lock::{self, TakeError};
use crate::board_state::{self, StateKeeper};
use crate::input::{End, Input, log, read_lines};
use protocol::{HoldReply, SavedState};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Another session has the lock.
const BUSY: u8 = 3;
/// The system refused something.
const EX_OSERR: u8 = 71;

/// A command that restores now does not wait long for a session to end.
const NO_WAIT: Duration = Duration::from_secs(1);
/// A holder that received a signal may need this long to restore the state.
const RESTORING: Duration = Duration::from_secs(150);

/// Limit on a line. A request for a state takes a few hundred bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Holds the board's lock and keeps its state until standard input or the lease ends, or a signal arrives.
pub(crate) fn hold(holder: &str, lease: Option<Duration>) -> ExitCode {
    // Without a lease, the harness is the parent of this process.
    let harness = lease.is_none().then(rustix::process::getppid).flatten();
    let harness = harness.map(|harness| harness.as_raw_nonzero().get());
    let _held = match board_lock::take(holder, harness) {
        Ok(held) => held,
        Err(TakeError::Busy(name)) => {
            print_json(&HoldReply::Busy { name });
            return ExitCode::from(BUSY);
        }
        Err(TakeError::Unusable(message)) => {
            print_json(&HoldReply::Failed { message });
            return ExitCode::from(EX_OSERR);
        }
    };
    print_json(&HoldReply::Acquired {});
    let (sender, inputs) = channel();
    send_signals_to(&sender);
    read_lines(MAX_LINE_BYTES, lease, move |input| drop(sender.send(input)));
    let mut keeper = StateKeeper::new(holder.to_owned());
    let End { reason, code } = loop {
        match inputs.recv() {
            Ok(Input::Line(line)) => print_json(&keeper.answer(&line)),
            Ok(Input::Heartbeat) => {}
            Ok(Input::End(end)) => break end,
            Err(_) => break End::of("the end of its threads"),
        }
    };
    match keeper.restore() {
        Err(error) => log(&format!("failed to restore the board's state after {reason}: {error}")),
        Ok(differences) if !differences.is_empty() => {
            log(&format!("restored the board's state except for: {}", differences.join("; ")));
        }
        Ok(_) => {}
    }
    ExitCode::from(code)
}

fn send_signals_to(sender: &Sender<Input>) {
    let sender = sender.clone();
    let spawned = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT]).and_then(|mut signals| {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if signals.forever().next().is_some() {
                drop(sender.send(Input::End(End::of("a signal"))));
            }
        })
    });
    if let Err(error) = spawned {
        log(&format!("failed to wait for signals: {error}"));
    }
}

/// Ends the process that holds the board, and restores the state that it could not restore.
pub(crate) fn break_lock() -> ExitCode {
    let broken = board_lock::break_lock(|| match board_state::pending() {
        // The holder restores before it ends.
        Ok(Some(_)) => RESTORING,
        _ => NO_WAIT,
    });
    match broken {
        Ok(holder) => {
            print_json(&holder);
            match board_state::restore_leftover(NO_WAIT) {
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Err(error) => fail(&error),
    }
}

/// Prints who holds the board.
pub(crate) fn print_holder() -> ExitCode {
    match board_lock::holder() {
        Ok(holder) => {
            print_json(&holder);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// Prints the state that is to be restored, as JSON; nothing if there is none.
pub(crate) fn print_pending() -> ExitCode {
    print_saved(board_state::pending())
}

/// Restores the state that a session left behind, and prints it as JSON; nothing if there is none.
pub(crate) fn restore() -> ExitCode {
    print_saved(board_state::restore_leftover(NO_WAIT))
}

fn print_saved(saved: Result<Option<SavedState>, String>) -> ExitCode {
    match saved {
        Ok(saved) => {
            if let Some(saved) = saved {
                print_json(&saved);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    log(error);
    ExitCode::from(EX_OSERR)
}

/// Writes a line of JSON to standard output and ignores failures: a holder must not end because the harness has stopped
/// reading.
fn print_json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => {
            let mut out = std::io::stdout().lock();
            drop(out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()));
        }
        Err(error) => log(&format!("failed to serialize an answer: {error}")),
    }
}
