//! The program that holds a board for a session: it has the board's lock, keeps its state, and lives as long as the
//! session does. Whatever ends it but SIGKILL, it restores the state before it lets go of the lock; after SIGKILL the
//! next session does.

use crate::keeping::{self, Keeper};
use crate::lease::Lease;
use crate::lock;
use protocol::Pending;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Who asks for a restoration now does not wait for a session to end.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A holder that was ended by a signal may need so long to restore.
const ENDING: Duration = Duration::from_secs(150);

/// Longest line that is read. What a board's file asks for takes a few hundred bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What ends the holder, or what it is to do.
enum Heard {
    Line(Vec<u8>),
    End(&'static str),
}

/// Holds the board's lock and keeps its state until standard input ends or, with `patience`, falls silent.
pub(crate) fn hold(holder: &str, patience: Option<Duration>) -> ExitCode {
    // Without a lease, the harness is the parent of this process.
    let harness = patience.is_none().then(rustix::process::getppid).flatten();
    let harness = harness.map(|harness| harness.as_raw_nonzero().get());
    let _held = match lock::take(holder, harness) {
        Ok(held) => held,
        Err(Ok(busy)) => {
            say(&describe(&busy));
            return ExitCode::from(crate::BUSY);
        }
        Err(Err(error)) => {
            say(&error);
            return ExitCode::from(crate::SYSTEM);
        }
    };
    say("held");
    let mut keeper = Keeper::new(holder.to_owned());
    let why = listen(patience, |line| {
        let kept = keeper.answer(line);
        match serde_json::to_string(&kept) {
            Ok(text) => say(&text),
            Err(error) => eprintln!("failed to write an answer: {error}"),
        }
    });
    match keeper.restore() {
        Err(error) => complain(&format!("failed to restore the board's state after {why}: {error}")),
        Ok(differences) if !differences.is_empty() => {
            complain(&format!("the board's state is restored but for: {}", differences.join("; ")));
        }
        Ok(_) => {}
    }
    ExitCode::SUCCESS
}

/// Hands over line by line until the end, and says what it was.
fn listen(patience: Option<Duration>, mut take: impl FnMut(&[u8])) -> &'static str {
    let (sender, heard) = channel();
    let lease = Lease::default();
    if let Some(patience) = patience {
        let sender = sender.clone();
        lease.watch(patience, move || drop(sender.send(Heard::End("a silence of the harness"))));
    }
    watch_signals(&sender);
    let reader = move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(_) if line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n") => {
                    complain("failed to read a request: its line is longer than 1 MiB; ending");
                    drop(sender.send(Heard::End("a line that is too long")));
                    return;
                }
                Ok(count) if count > 0 => {
                    lease.renew();
                    if !line.trim_ascii().is_empty() && sender.send(Heard::Line(line)).is_err() {
                        return;
                    }
                }
                _ => {
                    drop(sender.send(Heard::End("the end of the link")));
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("requests".to_owned()).spawn(reader) {
        eprintln!("failed to start the thread that reads requests: {error}");
    }
    wait(&heard, &mut take)
}

fn wait(heard: &Receiver<Heard>, take: &mut impl FnMut(&[u8])) -> &'static str {
    loop {
        match heard.recv() {
            Ok(Heard::Line(line)) => take(&line),
            Ok(Heard::End(why)) => return why,
            Err(_) => return "the end of its threads",
        }
    }
}

fn watch_signals(sender: &Sender<Heard>) {
    let sender = sender.clone();
    let watcher = move |mut signals: signal_hook::iterator::Signals| {
        if signals.forever().next().is_some() {
            drop(sender.send(Heard::End("a signal")));
        }
    };
    let spawned = signal_hook::iterator::Signals::new([SIGTERM, SIGHUP, SIGINT]).and_then(|signals| {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || watcher(signals))
    });
    if let Err(error) = spawned {
        eprintln!("failed to watch for signals: {error}");
    }
}

/// Ends whoever holds the board, and restores what that one could not.
pub(crate) fn break_open() -> ExitCode {
    let broken = lock::break_open(|| match keeping::pending() {
        // It restores before it ends.
        Ok(Some(_)) => ENDING,
        _ => AT_ONCE,
    });
    match broken {
        Ok(holder) => {
            say(&describe(&holder));
            match keeping::restore_leftover(AT_ONCE) {
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => failed(&error),
            }
        }
        Err(error) => failed(&error),
    }
}

/// Tells who holds the board.
pub(crate) fn tell_holder() -> ExitCode {
    match lock::holder() {
        Ok(holder) => {
            say(&describe(&holder));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// Tells what is to be restored, as JSON; nothing where there is nothing.
pub(crate) fn tell_pending() -> ExitCode {
    told(keeping::pending())
}

/// Restores what a session left behind, and tells what it was, as JSON; nothing where there was nothing.
pub(crate) fn restore() -> ExitCode {
    told(keeping::restore_leftover(AT_ONCE))
}

fn told(pending: Result<Option<Pending>, String>) -> ExitCode {
    match pending.map(|pending| pending.map(|pending| serde_json::to_string(&pending))) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(Ok(text))) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Ok(Some(Err(error))) => failed(&error.to_string()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(crate::SYSTEM)
}

fn describe(holder: &lock::Holder) -> String {
    match holder {
        lock::Holder::Nobody => "free".to_owned(),
        lock::Holder::Somebody { text, .. } => format!("by {text}"),
    }
}

/// A line for the log, where somebody still reads it.
fn complain(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// A line for the harness, where it still listens: a holder must not end because it does not.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()));
}
