//! `cargo xtask board`: a virtual Jetson TX2, as a machine of QEMU that is reached over SSH like a real one.
//!
//! Everything lies below `target/edgepipe/virtual-board/`: the image, the keys, a folder a board, and `ssh_config` with
//! the boards that are up, which the harness reads beside the user's own configuration.

mod cpio;
mod curve;
mod emulator;
mod image;
mod machine;
mod modules;
mod monitor;

use crate::failure::{AWAY, Away, BUG, USAGE};
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use curve::Curve;
use emulator::Emulator;
use machine::{Condition, Machine};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The virtual board; others are called so with something behind it.
pub(crate) const BOARD: &str = "virtual-tx2";

const HELP: &str = "\
Usage: cargo xtask board COMMAND [NAME] [...]

  up NAME            boot the board; build its image first if needed
  down NAME          stop the board
  status [NAME]      show whether the board is up and how to log in; exit code 3 if NAME is not up
  power NAME CURVE   repeat a load curve on its power sensors: a file with lines \"MILLISECONDS MILLIWATTS\",
                     or `idle` for the power of an idle board
  power NAME load    make the sensors follow clocks and load of the CPUs, and let lower clocks slow the CPUs down
  reset NAME         cut the power briefly; the board reboots (--no-wait: do not wait for it)
  freeze NAME        pause all CPUs, like a board that hangs; `thaw NAME` resumes them
  ssh NAME [COMMAND] log in, or run a command on the board (--root: as root)

NAME is virtual-tx2 or virtual-tx2-clocks, which have files in configs/boards/. Your own board files can use more boards of
this kind: virtual-tx2-b, virtual-tx2-c and so on.
";

/// OpenSSH's configuration for the boards that are up; `None`: none was ever up here.
pub(crate) fn ssh_config(workspace: &Workspace) -> Option<PathBuf> {
    let path = workspace.virtual_boards().join("ssh_config");
    path.is_file().then_some(path)
}

/// Prints a note if a board is a virtual one that is down.
pub(crate) fn note_if_down(workspace: &Workspace, name: &str) {
    if is_down(workspace, name) {
        eprintln!("note: the virtual board {name} is not up; `cargo xtask board up {name}` boots it");
    }
}

/// Whether there is a QEMU for a board, whatever it does.
pub(crate) fn is_there(workspace: &Workspace, name: &str) -> bool {
    machine(workspace, name).process().is_some()
}

/// Whether a board is a virtual one that is not up, and could be.
pub(crate) fn is_down(workspace: &Workspace, name: &str) -> bool {
    is_virtual(name) && !is_there(workspace, name)
}

fn is_virtual(name: &str) -> bool {
    let rest = name.strip_prefix(BOARD);
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|word| {
                !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            })
    })
}

fn machine(workspace: &Workspace, name: &str) -> Machine {
    Machine::at(workspace.virtual_boards().join("boards").join(name), name)
}

/// Runs a command of `cargo xtask board`.
pub(crate) fn run(workspace: &Workspace, words: &[String]) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (Some(command), rest) = (words.first(), words.get(1..).unwrap_or(&[])) else {
        eprint!("{HELP}");
        return Ok(USAGE);
    };
    if let Some(name) = rest.first()
        && !is_virtual(name)
    {
        bail!(
            "failed to find the virtual board \"{name}\": use {BOARD}, {BOARD}-b, {BOARD}-c and so \
             on; `cargo xtask board` cannot boot other boards"
        );
    }
    match (*command, rest) {
        ("up", [name]) => up(workspace, name),
        ("down", [name]) => down(workspace, name),
        ("status", []) => {
            for machine in all(workspace) {
                show(workspace, &machine);
            }
            Ok(0)
        }
        ("status", [name]) => {
            let up = show(workspace, &machine(workspace, name)) == Condition::Up;
            Ok(if up { 0 } else { AWAY })
        }
        ("power", [name, curve]) => power(workspace, name, curve),
        ("reset", [name]) => reset(workspace, name, true),
        ("reset", [name, "--no-wait"]) => reset(workspace, name, false),
        ("freeze", [name]) => machine(workspace, name).tell("stop").map(|()| 0),
        ("thaw", [name]) => machine(workspace, name).tell("cont").map(|()| 0),
        ("ssh", [name, "--root", command @ ..]) => ssh(workspace, name, "root", command),
        ("ssh", [name, command @ ..]) => ssh(workspace, name, "nvidia", command),
        ("help" | "--help" | "-h", _) => {
            eprint!("{HELP}");
            Ok(0)
        }
        _ => {
            eprintln!(
                "error: failed to read the command line: unknown command `board {}`\n\n{HELP}",
                words.join(" ")
            );
            Ok(USAGE)
        }
    }
}

/// Boots a board, or waits for one that boots already.
pub(crate) fn up(workspace: &Workspace, name: &str) -> Result<u8> {
    let begun = Instant::now();
    let machine = machine(workspace, name);
    let _lock = machine.lock()?;
    match machine.condition() {
        Condition::Up => {
            eprintln!("{name} is already up");
            write_ssh_config(workspace)?;
            show(workspace, &machine);
            return Ok(0);
        }
        Condition::Booting => {
            eprintln!("{name} is already booting; waiting for it");
            machine.wait(None)?;
        }
        Condition::Frozen => bail!(
            "failed to boot the board {name}: it is frozen; `cargo xtask board thaw {name}` resumes it, \
             `cargo xtask board down {name}` stops it"
        ),
        Condition::Hanging => bail!(
            "failed to boot the board {name}: its QEMU is running but does not answer; \
             `cargo xtask board down {name}` stops it"
        ),
        Condition::Down => {
            let emulator = Emulator::unpack(workspace)?;
            let image = image::ensure(workspace, &emulator)?;
            let booting = Instant::now();
            machine.start(&emulator, &image)?;
            eprintln!("booted in {:.0} s", booting.elapsed().as_secs_f64());
        }
    }
    write_ssh_config(workspace)?;
    eprintln!("{name} is up after {:.0} s", begun.elapsed().as_secs_f64());
    show(workspace, &machine);
    Ok(0)
}

/// Boots a virtual board before it is measured.
pub(crate) fn up_for_bench(workspace: &Workspace, name: &str) -> Result<()> {
    eprintln!("booting the virtual board {name}; `cargo xtask board down {name}` stops it afterwards");
    up(workspace, name).map(drop)
}

/// Shuts down a board. It is not an error if the board is down.
pub(crate) fn down(workspace: &Workspace, name: &str) -> Result<u8> {
    let machine = machine(workspace, name);
    let mut was_up = false;
    // One that never was has no folder, and gets none.
    if machine.folder().is_dir() {
        let _lock = machine.lock()?;
        was_up = machine.stop()?;
        write_ssh_config(workspace)?;
    }
    eprintln!("{name} {}", if was_up { "is down" } else { "was not up" });
    Ok(0)
}

/// Cuts a board's power for a moment.
fn reset(workspace: &Workspace, name: &str, waits: bool) -> Result<u8> {
    let machine = machine(workspace, name);
    machine.tell("system_reset")?;
    if waits {
        // Connections that QEMU took before are not answered by the board that boots.
        std::thread::sleep(Duration::from_millis(500));
        machine.wait(None)?;
        eprintln!("{name} is up again");
    }
    Ok(0)
}

/// Boards that were ever started here.
fn all(workspace: &Workspace) -> Vec<Machine> {
    let folder = workspace.virtual_boards().join("boards");
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_virtual(name))
        .collect();
    if names.is_empty() {
        names.push(BOARD.to_owned());
    }
    names.sort();
    names.iter().map(|name| machine(workspace, name)).collect()
}

/// Prints the status of a board, and how to log in.
fn show(workspace: &Workspace, machine: &Machine) -> Condition {
    let condition = machine.condition();
    let text = match condition {
        Condition::Down => "down",
        Condition::Booting => "boots",
        Condition::Up => "up",
        Condition::Frozen => "frozen",
        Condition::Hanging => "does not answer",
    };
    let process = machine.process().map(|pid| format!(", QEMU is process {pid}")).unwrap_or_default();
    let port = machine.port().filter(|_| condition != Condition::Down);
    let port = port.map(|port| format!(", sshd at 127.0.0.1:{port}")).unwrap_or_default();
    eprintln!("{}: {text}{port}{process}", machine.name);
    if condition == Condition::Up {
        let config = workspace.virtual_boards().join("ssh_config");
        eprintln!("  log in:  ssh -F {} {}", toolchain::linker::quoted(&config), machine.name);
        eprintln!("  measure: cargo xtask bench --board {} --experiment smoke", machine.name);
        eprintln!("  console: {}", machine.folder().join("console.log").display());
    }
    condition
}

/// Writes OpenSSH's configuration for the boards that are up.
fn write_ssh_config(workspace: &Workspace) -> Result<()> {
    let home = workspace.virtual_boards();
    let keys = home.join("keys");
    let mut text = String::from("# Virtual boards that are up; written by cargo xtask board.\n");
    for machine in all(workspace) {
        let (Some(port), Some(_)) = (machine.port(), machine.process()) else { continue };
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "Host {}\n    HostName 127.0.0.1\n    Port {port}\n    User nvidia\n    IdentityFile \"{}\"\n    \
             IdentitiesOnly yes\n    HostKeyAlias {}\n    UserKnownHostsFile \"{}\"\n    GlobalKnownHostsFile none\n",
            machine.name,
            keys.join("id_ed25519").display(),
            image::HOST_KEY_ALIAS,
            keys.join("known_hosts").display()
        );
    }
    // Two boards may come up at once; the file is exchanged as a whole.
    let path = home.join("ssh_config");
    let fresh = home.join(format!("ssh_config.{}", std::process::id()));
    fs::create_dir_all(&home)
        .and_then(|()| fs::write(&fresh, text))
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// The command of OpenSSH's client for a board.
fn client(workspace: &Workspace, name: &str, user: &str) -> Result<std::process::Command> {
    if machine(workspace, name).process().is_none() {
        return Err(Away::new(format!(
            "failed to reach the board {name}: it is not up; `cargo xtask board up {name}` boots it"
        ))
        .into());
    }
    let mut command = Emulator::unpack(workspace)?.command("ssh");
    command.arg("-F").arg(workspace.virtual_boards().join("ssh_config")).args(["-l", user, name]);
    Ok(command)
}

fn ssh(workspace: &Workspace, name: &str, user: &str, words: &[&str]) -> Result<u8> {
    let mut command = client(workspace, name, user)?;
    let status = command.args(words).status().context("failed to start ssh")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(BUG))
}

/// What a board's power sensors show.
enum Draw<'a> {
    /// A load curve, whatever the board does.
    Curve(&'a Curve),
    /// What a power model makes of the load of the CPUs, which are as slow as their clocks.
    Load(&'a str),
}

/// Sets what a board's power sensors show.
fn power(workspace: &Workspace, name: &str, place: &str) -> Result<u8> {
    let own = |file: &str| workspace.root.join("xtask/virtual-board/root/etc/power").join(file);
    if place == "load" {
        let path = own("load.model");
        let model =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        draw(workspace, name, &Draw::Load(&model))?;
        eprintln!("{name}: power follows clocks and load of its CPUs, and lower clocks slow them down");
        return Ok(0);
    }
    let path = if place == "idle" { own("idle.curve") } else { PathBuf::from(place) };
    let curve = Curve::read(&path)?;
    let begun = draw(workspace, name, &Draw::Curve(&curve))?;
    eprintln!(
        "{name}: {} started at {begun} ns of the board's monotonic clock; it repeats every {:.3} s, its mean is {:.1} mW",
        path.display(),
        curve.seconds(),
        curve.mean_mw()
    );
    Ok(0)
}

/// Writes it to the board; when it began, in ns of the board's monotonic clock.
fn draw(workspace: &Workspace, name: &str, what: &Draw<'_>) -> Result<u64> {
    let (file, text, slow) = match what {
        Draw::Curve(curve) => ("curve", curve.text(), 0),
        Draw::Load(model) => ("model", (*model).to_owned(), 1),
    };
    // In one piece, as the driver takes it.
    let script = format!(
        "cat > /run/draw && dd if=/run/draw of=/sys/kernel/debug/tx2_power/{file} bs=8192 2> /run/draw.log && echo {slow} > \
         /sys/module/tx2_cpufreq/parameters/slow && cat /sys/kernel/debug/tx2_power/begun_ns || {{ cat /run/draw.log >&2; \
         exit 1; }}"
    );
    let mut command = client(workspace, name, "root")?;
    let mut child = command
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start ssh")?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where that fails ssh has ended and says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().context("failed to wait for ssh")?;
    let told = String::from_utf8_lossy(&output.stdout);
    if let (true, Ok(begun)) = (output.status.success(), told.trim().parse()) {
        return Ok(begun);
    }
    Err(Away::new(format!(
        "failed to set the power sensors of the board {name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
    .into())
}

#[cfg(test)]
mod tests {
    use super::is_virtual;

    #[test]
    fn virtual_boards_are_known_by_their_names() {
        let table = [
            ("virtual-tx2", true),
            ("virtual-tx2-b", true),
            ("virtual-tx2-", false),
            ("virtual-tx2-../x", false),
            ("virtual-tx21", false),
            ("tx2-lab", false),
        ];
        for (name, expected) in table {
            assert_eq!(is_virtual(name), expected, "{name}");
        }
    }
}
