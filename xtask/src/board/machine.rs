//! A running virtual board: QEMU in its own folder, which contains its monitor, console and port.

use super::emulator::Emulator;
use super::image::Image;
use super::monitor::{Monitor, SOCKET};
use crate::failure::Away;
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A board that does not answer by then hangs. On an idle machine of two CPUs it takes ten seconds.
const BOOT: Duration = Duration::from_secs(240);
/// Ports that are tried: another program may take one between our choice and QEMU's.
const TRIES: u32 = 5;
/// Lines of the console that a failure shows.
const LAST_LINES: usize = 12;
/// Printed by the board's start script if a part of it is missing.
const COMPLAINT: &str = "rc: failed";

/// The folder of a board.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its name.
    pub(super) name: String,
    folder: PathBuf,
}

/// The status of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// There is no QEMU.
    Down,
    /// QEMU is there and sshd does not answer yet.
    Booting,
    /// sshd answers.
    Up,
    /// QEMU is there and holds its CPUs.
    Frozen,
    /// QEMU is there and does not answer.
    Hanging,
}

impl Machine {
    pub(super) fn at(folder: PathBuf, name: &str) -> Self {
        Self { name: name.to_owned(), folder }
    }

    /// Keeps other processes from starting or stopping this board meanwhile.
    pub(super) fn lock(&self) -> Result<fs::File> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("failed to create {}", self.folder.display()))?;
        let path = self.folder.join("lock");
        let file = fs::File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("another cargo xtask is starting or stopping the board {}; waiting for it", self.name);
            file.lock().with_context(|| format!("failed to wait for the lock {}", path.display()))?;
        }
        Ok(file)
    }

    /// The port on this machine that leads to the board's sshd.
    pub(super) fn port(&self) -> Option<u16> {
        fs::read_to_string(self.folder.join("port")).ok()?.trim().parse().ok()
    }

    /// The process id of QEMU, if it runs for this board: another process may have the number by now.
    pub(super) fn process(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        let runs_here = fs::read_link(format!("/proc/{pid}/cwd")).ok()? == self.folder.canonicalize().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        (runs_here && String::from_utf8_lossy(&command).contains("qemu-system-aarch64")).then_some(pid)
    }

    /// The present status of the board.
    pub(super) fn condition(&self) -> Condition {
        if self.process().is_none() {
            return Condition::Down;
        }
        let answer = Monitor::connect(&self.folder)
            .and_then(|monitor| monitor.map(|mut monitor| monitor.run("query-status")).transpose());
        match answer {
            Err(_) => Condition::Hanging,
            Ok(Some(status)) if status.contains("\"paused\"") => Condition::Frozen,
            Ok(Some(_)) if self.port().is_some_and(greets) => Condition::Up,
            Ok(_) => Condition::Booting,
        }
    }

    /// Sends a command to the monitor.
    pub(super) fn tell(&self, command: &str) -> Result<()> {
        match Monitor::connect(&self.folder)? {
            Some(mut monitor) => monitor.run(command).map(drop),
            None => Err(Away::new(format!(
                "failed to reach the board {0}: it is not up; `cargo xtask board up {0}` boots it",
                self.name
            ))
            .into()),
        }
    }

    /// Starts QEMU. Returns once the board's sshd answers.
    pub(super) fn start(&self, emulator: &Emulator, image: &Image) -> Result<()> {
        for file in ["port", "pid", SOCKET, "console.log"] {
            let _ = fs::remove_file(self.folder.join(file));
        }
        for _ in 0..TRIES {
            // The kernel's choice, free a moment ago.
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .context("failed to find a free port")?
                .port();
            let mut child = self.spawn(emulator, image, port)?;
            let written = fs::write(self.folder.join("port"), port.to_string());
            written.with_context(|| format!("failed to write to {}", self.folder.display()))?;
            match self.wait(Some(&mut child)) {
                Err(error) if error.is::<PortTaken>() => {}
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
        }
        bail!("failed to start the board {}: other programs took {TRIES} ports in turn", self.name)
    }

    fn spawn(&self, emulator: &Emulator, image: &Image, port: u16) -> Result<Child> {
        let log = self.folder.join("qemu.log");
        let open = || fs::File::create(&log).with_context(|| format!("failed to create {}", log.display()));
        let mut command = emulator.command("qemu-system-aarch64");
        command.args(["-name", &self.name, "-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-L").arg(emulator.data());
        command.args(["-M", "virt", "-cpu", "cortex-a57", "-smp", "6", "-m", "2048"]);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.root);
        // Two CPUs are isolated as JetPack isolates the Denver cores: threads get there by their affinity alone.
        command.args(["-append", "console=ttyAMA0 rdinit=/sbin/init isolcpus=1-2 panic=5 loglevel=5"]);
        command.args(["-netdev", &format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22")]);
        command.args(["-device", "virtio-net-device,netdev=net", "-serial", "file:console.log"]);
        command.args(["-qmp", &format!("unix:{SOCKET},server=on,wait=off"), "-pidfile", "pid"]);
        // A group of its own: Ctrl-C is for us. Nothing of ours stays open in it.
        command.current_dir(&self.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        command.spawn().context("failed to start QEMU")
    }

    /// Waits until sshd answers. `child` is QEMU where we started it.
    pub(super) fn wait(&self, mut child: Option<&mut Child>) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        loop {
            let ended = match &mut child {
                Some(child) => child.try_wait().context("failed to check whether QEMU has ended")?.is_some(),
                None => self.process().is_none(),
            };
            if ended {
                let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
                if said.contains("host forwarding rule") {
                    return Err(PortTaken.into());
                }
                bail!(
                    "failed to boot the board {}: QEMU ended: {}{}",
                    self.name,
                    said.trim(),
                    self.last_words()
                );
            }
            if self.port().is_some_and(greets) {
                break;
            }
            if Instant::now() >= deadline {
                bail!(
                    "failed to boot the board {}: its sshd did not answer within {} s; is this machine overloaded?{}",
                    self.name,
                    BOOT.as_secs(),
                    self.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let console = self.console();
        let complaints: Vec<&str> = console.lines().filter(|line| line.contains(COMPLAINT)).collect();
        if complaints.is_empty() {
            return Ok(());
        }
        bail!("failed to boot the board {} completely: {}", self.name, complaints.join("; "))
    }

    /// Ends QEMU; whether there was one.
    pub(super) fn stop(&self) -> Result<bool> {
        let Some(pid) = self.process() else { return Ok(false) };
        // One that hangs does not listen, and is killed.
        let told = Monitor::connect(&self.folder)
            .and_then(|monitor| monitor.map(|mut monitor| monitor.run("quit")).transpose());
        let patience = if told.is_ok() { Duration::from_secs(10) } else { Duration::ZERO };
        if !self.is_gone_within(patience) {
            let number = pid.to_string();
            Command::new("kill").args(["-KILL", &number]).status().context("failed to start kill")?;
            if !self.is_gone_within(Duration::from_secs(10)) {
                bail!("failed to end the board {}: QEMU, process {pid}, still runs after SIGKILL", self.name);
            }
        }
        for file in ["port", "pid", SOCKET] {
            let _ = fs::remove_file(self.folder.join(file));
        }
        Ok(true)
    }

    fn is_gone_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if self.process().is_none() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.folder.join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The end of the console, for messages.
    fn last_words(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        let place = self.folder.join("console.log");
        if last.is_empty() {
            return format!("; its console is empty ({})", place.display());
        }
        format!("; the end of its console ({}):\n  {}", place.display(), last.join("\n  "))
    }

    /// The folder, for messages and for programs that use the monitor themselves.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Another program took the port.
#[derive(Debug)]
struct PortTaken;

impl std::fmt::Display for PortTaken {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("failed to listen: the port was taken by another program")
    }
}

impl std::error::Error for PortTaken {}

/// Whether an SSH server answers behind a port. QEMU takes connections long before the board does.
fn greets(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    if stream.set_read_timeout(Some(Duration::from_secs(5))).is_err() {
        return false;
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("SSH-")
}

#[cfg(test)]
mod tests {
    use super::{Condition, Machine, greets};
    use std::fs;
    use std::io::Write as _;
    use std::net::TcpListener;

    #[test]
    fn a_stale_process_number_is_no_board() {
        let folder = std::env::temp_dir().join(format!("edgepipe-machine-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let machine = Machine::at(folder.clone(), "test");
        assert_eq!(machine.condition(), Condition::Down);
        // This very process has the number, and is no QEMU in that folder.
        fs::write(folder.join("pid"), std::process::id().to_string()).unwrap();
        assert_eq!((machine.process(), machine.condition()), (None, Condition::Down));
        assert!(!machine.stop().unwrap());
        let error = machine.tell("quit").unwrap_err().to_string();
        assert!(error.contains("cargo xtask board up test"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_an_ssh_server_counts_as_an_answer() {
        for (greeting, expected) in [("SSH-2.0-OpenSSH_9.2\r\n", true), ("220 mail\r\n", false), ("", false)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = std::thread::spawn(move || {
                listener.accept().unwrap().0.write_all(greeting.as_bytes()).unwrap();
            });
            assert_eq!(greets(port), expected, "{greeting:?}");
            server.join().unwrap();
        }
    }
}
