//! A board for tests: OpenSSH's own server on loopback, in a mount namespace of its own with users, home folders and
//! host keys of our making; and a workspace whose board files lead there.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod bench;
pub(crate) mod cable;
pub(crate) mod emulated;
pub(crate) mod lab;
#[path = "../outcome/mod.rs"]
pub(crate) mod outcome;

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Says why these tests are left out, where the environment asks for it; otherwise they fail without what they need.
pub(crate) fn skipped() -> bool {
    let skipped = std::env::var("EDGEPIPE_SKIP").is_ok_and(|list| list.split(',').any(|word| word == "ssh"));
    if skipped {
        eprintln!("left out, because EDGEPIPE_SKIP names ssh");
    }
    skipped
}

/// What the tests need of OpenSSH and of shells, installed or unpacked below target/.
pub(crate) struct Tools {
    pub(crate) sshd: PathBuf,
    /// Folder of unpacked packages, if there is one.
    unpacked: Option<PathBuf>,
}

impl Tools {
    pub(crate) fn find() -> Self {
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("edgepipe/openssh");
        let unpacked = unpacked.is_dir().then_some(unpacked);
        let places =
            [Some(PathBuf::from("/usr/sbin/sshd")), unpacked.as_ref().map(|root| root.join("usr/sbin/sshd"))];
        let sshd = places.into_iter().flatten().find(|path| path.is_file());
        let sshd = sshd.expect(
            "tests of SSH need OpenSSH's server: install openssh-server, or run `cargo xtask test`, which unpacks it \
             below target/ on Debian; EDGEPIPE_SKIP=ssh leaves them out",
        );
        assert!(
            rustix::process::geteuid().is_root(),
            "tests of SSH start an sshd with users of their own, which takes root; EDGEPIPE_SKIP=ssh leaves them out"
        );
        Self { sshd, unpacked }
    }

    /// A shell, installed or unpacked.
    pub(crate) fn shell(&self, path: &str) -> Option<PathBuf> {
        let mut places = vec![PathBuf::from("/").join(path)];
        places.extend(self.unpacked.as_ref().map(|root| root.join(path)));
        places.into_iter().find(|path| path.is_file())
    }

    /// A library, installed or unpacked.
    pub(crate) fn library(&self, path: &str) -> Option<PathBuf> {
        let roots = [Some(Path::new("/")), self.unpacked.as_deref()];
        let folder = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let mut places = roots.into_iter().flatten().map(|root| root.join(&folder).join(path));
        places.find(|path| path.is_file())
    }

    /// Folders of the unpacked libraries, as `LD_LIBRARY_PATH` wants them.
    pub(crate) fn libraries(&self) -> String {
        let folders = self.unpacked.iter().flat_map(|root| {
            [
                "usr/lib/x86_64-linux-gnu",
                "lib/x86_64-linux-gnu",
                "usr/lib/aarch64-linux-gnu",
                "lib/aarch64-linux-gnu",
            ]
            .map(|folder| root.join(folder).display().to_string())
        });
        folders.collect::<Vec<_>>().join(":")
    }
}

/// A user of the board.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

/// A board with its sshd, and a harness that knows it.
pub(crate) struct Farm {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) sshd: Option<Child>,
    pub(crate) tools: Tools,
    pub(crate) users: Vec<User>,
    /// Shell commands run as root in the board's mount namespace before sshd starts.
    pub(crate) prelude: String,
    /// The harness.
    pub(crate) program: PathBuf,
    /// The runner that the harness is told to bring there.
    pub(crate) runner: PathBuf,
    /// What each program on the board finds in its environment, as sshd's `SetEnv` takes it.
    pub(crate) environment: String,
    /// Which start of the board this is: what the kernel says of it.
    starts: u32,
    /// What makes it a board of another processor.
    emulated: Option<emulated::System>,
    /// The mount namespace of what runs on it.
    namespace: Option<PathBuf>,
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn keygen(file: &Path, kind: &str, passphrase: &str) {
    run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"]).arg(file));
}

impl Farm {
    /// A board with a user of bash, and a harness whose key it takes and that knows its host key.
    pub(crate) fn new() -> Self {
        let mut farm = Self::unstarted();
        farm.start();
        farm.know();
        farm
    }

    /// The same before its sshd is started.
    pub(crate) fn unstarted() -> Self {
        let tools = Tools::find();
        let folder = tempfile::Builder::new().prefix("edgepipe-farm").tempdir().unwrap();
        let root = folder.path().to_path_buf();
        for name in
            ["home/.ssh", "board/tmp", "board/home", "workspace/configs/boards", "workspace/configs/groups"]
        {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        // The workspace is the real one but for its boards and groups.
        let real = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        for name in ["compiler", "ci"] {
            std::os::unix::fs::symlink(real.join(name), root.join("workspace").join(name)).unwrap();
        }
        for entry in fs::read_dir(real.join("configs")).unwrap().flatten() {
            if entry.file_name() != "boards" && entry.file_name() != "groups" {
                let link = root.join("workspace/configs").join(entry.file_name());
                std::os::unix::fs::symlink(entry.path(), link).unwrap();
            }
        }
        keygen(&root.join("home/.ssh/id_ed25519"), "ed25519", "");
        keygen(&root.join("host_ed25519"), "ed25519", "");
        keygen(&root.join("host_rsa"), "rsa", "");
        fs::copy(root.join("home/.ssh/id_ed25519.pub"), root.join("authorized_keys")).unwrap();
        let passwd = format!("root:x:0:0::{}:/bin/sh\n", root.join("home").display());
        fs::write(root.join("harness-passwd"), passwd).unwrap();
        let users = vec![User {
            name: "tester".to_owned(),
            home: root.join("board/home"),
            shell: "/bin/bash".into(),
        }];
        let port = free_port();
        let (program, runner) = (env!("CARGO_BIN_EXE_edgepipe").into(), variable("EDGEPIPE_RUNNER").into());
        let farm = Self {
            folder,
            port,
            sshd: None,
            tools,
            users,
            prelude: String::new(),
            environment: String::new(),
            starts: 0,
            program,
            runner,
            emulated: None,
            namespace: None,
        };
        farm.board("loopback", "host: 127.0.0.1, user: tester");
        farm
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(name: &str, connect: &str, port: u16) -> String {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        format!(
            "board: {name}\nconnect: {{ ssh: {{ {connect}, port: {port} }} }}\ntarget: {{ triple: {triple} }}\n\
             processors: auto\n"
        )
    }

    /// Writes the file of a board at our sshd.
    pub(crate) fn board(&self, name: &str, connect: &str) {
        self.board_at(name, connect, self.port);
    }

    /// The same at another port, such as that of a cable.
    pub(crate) fn board_at(&self, name: &str, connect: &str, port: u16) {
        let text = Self::file(name, connect, port);
        fs::write(self.path(&format!("workspace/configs/boards/{name}.yaml")), text).unwrap();
    }

    /// A farm of its own whose board the harness of this one knows by `name` and reaches.
    pub(crate) fn another(&self, name: &str) -> Self {
        self.another_of(name, None)
    }

    /// The same, of another processor where there is a `system` of it.
    pub(crate) fn another_of(&self, name: &str, system: Option<emulated::System>) -> Self {
        let mut other = Self::unstarted();
        other.emulated = system;
        fs::copy(self.path("authorized_keys"), other.path("authorized_keys")).unwrap();
        other.start();
        self.know_other(name, &other);
        other
    }

    /// Writes the file of another farm's board, and its host key.
    pub(crate) fn know_other(&self, name: &str, other: &Self) {
        let known = self.path("home/.ssh/known_hosts");
        let mut text = fs::read_to_string(&known).unwrap_or_default();
        let key = fs::read_to_string(other.path("host_ed25519.pub")).unwrap();
        writeln!(text, "[127.0.0.1]:{} {}", other.port, key.trim_end()).unwrap();
        fs::write(known, text).unwrap();
        let connect = "host: 127.0.0.1, user: tester, reconnect_seconds: 2";
        let board = match &other.emulated {
            None => Self::file(name, connect, other.port),
            Some(_) => emulated::file(name, connect, other.port),
        };
        fs::write(self.path(&format!("workspace/configs/boards/{name}.yaml")), board).unwrap();
    }

    /// Starts sshd and waits until it answers.
    pub(crate) fn start(&mut self) {
        let mut passwd = fs::read_to_string("/etc/passwd").unwrap();
        if !passwd.contains("\nsshd:") {
            passwd.push_str("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n");
        }
        for User { name, home, shell } in &self.users {
            fs::create_dir_all(home).unwrap();
            writeln!(passwd, "{name}:x:0:0::{}:{}", home.display(), shell.display()).unwrap();
        }
        fs::write(self.path("passwd"), passwd).unwrap();
        self.starts += 1;
        let boot_id = format!("{:08x}-0000-4000-8000-{:012x}\n", std::process::id(), self.starts);
        fs::write(self.path("boot_id"), boot_id).unwrap();
        // Times of CPUs that nobody else uses, so that other load voids no trial.
        fs::copy("/proc/stat", self.path("stat")).unwrap();
        let root = self.folder.path().display();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {root}/host_ed25519\nHostKey {root}/host_rsa\n\
             AuthorizedKeysFile {root}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n\
             MaxStartups 100\nMaxAuthTries 20\nLogLevel ERROR\nPrintMotd no\nSubsystem sftp internal-sftp\n\
             SetEnv TMPDIR={root}/board/tmp EDGEPIPE_LOCK={root}/board/tmp/edgepipe.lock EDGEPIPE_PROC_STAT={root}/stat {}\n",
            self.port, self.environment
        );
        if let Some(system) = self.emulated.clone() {
            self.sshd = Some(emulated::start(self, &system, &config));
        } else {
            fs::write(self.path("sshd_config"), config).unwrap();
            self.sshd = Some(self.start_native());
        }
        self.wait_for_sshd();
    }

    fn start_native(&self) -> Child {
        let root = self.folder.path().display();
        let script = format!(
            "mount --bind {root}/passwd /etc/passwd && mount --bind {root}/boot_id /proc/sys/kernel/random/boot_id && \
             mount -t tmpfs tmpfs /run && mkdir /run/sshd && {} exec {} -D -e -f {root}/sshd_config",
            self.prelude,
            self.tools.sshd.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
        command.stdin(Stdio::null());
        self.spawn(&mut command)
    }

    /// Starts what becomes sshd, with the libraries it needs and a log.
    fn spawn(&self, command: &mut Command) -> Child {
        let log = fs::File::create(self.path("sshd.log")).unwrap();
        command.env("LD_LIBRARY_PATH", self.tools.libraries()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }

    fn wait_for_sshd(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = fs::read_to_string(self.path("sshd.log")).unwrap_or_default();
            let ended = self.sshd.as_mut().unwrap().try_wait().unwrap();
            assert!(Instant::now() < deadline && ended.is_none(), "sshd does not answer ({ended:?}): {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.namespace = namespace(self.sshd.as_ref().unwrap().id());
    }

    /// Writes the board's key of this kind to the harness' known hosts.
    pub(crate) fn know(&self) {
        self.know_as("ed25519", "");
    }

    pub(crate) fn know_as(&self, kind: &str, marker: &str) {
        let key = fs::read_to_string(self.path(&format!("host_{kind}.pub"))).unwrap();
        let line = format!("{marker}[127.0.0.1]:{} {key}", self.port);
        fs::write(self.path("home/.ssh/known_hosts"), line).unwrap();
    }

    /// Has the harness know the board's key at another port as well.
    pub(crate) fn know_at(&self, port: u16) {
        let key = fs::read_to_string(self.path("host_ed25519.pub")).unwrap();
        let known = self.path("home/.ssh/known_hosts");
        let before = fs::read_to_string(&known).unwrap_or_default();
        fs::write(known, format!("{before}[127.0.0.1]:{port} {key}")).unwrap();
    }

    /// A cable to the board, by which the board "loopback" is reached from now on.
    pub(crate) fn cable(&self, more: &str) -> cable::Cable {
        let cable = cable::Cable::to(self.port);
        self.know_at(cable.port);
        self.board_at("loopback", &format!("host: 127.0.0.1, user: tester{more}"), cable.port);
        cable
    }

    /// The harness with the home folder of ours, before it is started.
    pub(crate) fn harness(&self, arguments: &[&str]) -> Command {
        let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("edgepipe");
        fs::create_dir_all(&state).expect("a folder for the harness");
        // OpenSSH's client finds the user's files by the password database, whatever HOME says.
        let home = self.path("home");
        let passwd = self.path("harness-passwd");
        let script = format!("mount --bind {} /etc/passwd && exec \"$@\"", passwd.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", &script, "harness"]);
        command.arg(&self.program).arg("--root").arg(self.path("workspace")).arg("--state").arg(&state);
        command.arg("--python").arg(std::env::var_os("EDGEPIPE_PYTHON").unwrap_or_default());
        command.arg("--runner").arg(&self.runner);
        command.arg("--database").arg(self.path("results.db")).args(arguments);
        command
            .env("HOME", &home)
            .env("USER", "anna")
            .env("EDGEPIPE_LOCK", self.path("board.lock"))
            .env("EDGEPIPE_PROC_STAT", self.path("stat"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("SSH_AUTH_SOCK")
            .env_remove("SSH_ASKPASS");
        command.stdin(Stdio::null());
        command
    }

    /// Runs the harness to its end: (standard output, standard error).
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        self.finish(&mut self.harness(arguments), code)
    }

    #[track_caller]
    pub(crate) fn finish(&self, command: &mut Command, code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
        let log = fs::read_to_string(self.path("sshd.log")).unwrap_or_default();
        assert_eq!(status.code(), Some(code), "{command:?}\n{stdout}\n{stderr}\nsshd: {log}");
        (stdout, stderr)
    }

    /// The processes that serve a connection.
    pub(crate) fn connections(&self) -> Vec<i32> {
        let sshd = self.sshd.as_ref().map_or(0, Child::id);
        children(i32::try_from(sshd).unwrap())
    }

    /// Ends all connections, as a cut cable would for the programs on the board.
    pub(crate) fn cut(&self) {
        for pid in self.connections() {
            kill(pid, rustix::process::Signal::KILL);
        }
    }

    /// Ends everything on the board at once, as a loss of power would, with what lay in its temporary folder.
    pub(crate) fn power_off(&mut self) {
        let Some(mut sshd) = self.sshd.take() else { return };
        let mut all = descendants(i32::try_from(sshd.id()).unwrap());
        sshd.kill().unwrap();
        sshd.wait().unwrap();
        // What lost its parent meanwhile is a program of ours.
        all.extend(self.programs(&["runner"]));
        for pid in all {
            kill(pid, rustix::process::Signal::KILL);
        }
        fs::remove_dir_all(self.path("board/tmp")).unwrap();
        fs::create_dir_all(self.path("board/tmp")).unwrap();
    }

    /// Processes of the board whose command line has all these words.
    pub(crate) fn programs(&self, words: &[&str]) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let is_ours = self.namespace.is_some() && namespace(pid.cast_unsigned()) == self.namespace;
            let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            let here = self.folder.path().display().to_string();
            // A shell that is about to become the program has the same words in its script.
            let is_host = command.contains("harness ") || command.contains("edgepipe --root");
            let is_program = !command.starts_with("/bin/sh") && !is_host;
            if (is_ours || command.contains(&here))
                && is_program
                && words.iter().all(|word| command.contains(word))
            {
                found.push(pid);
            }
        }
        found
    }

    /// Waits until there are none of them.
    #[track_caller]
    pub(crate) fn wait_for_none(&self, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(300);
        while !self.programs(words).is_empty() {
            assert!(Instant::now() < deadline, "{words:?} is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.cut();
        if let Some(sshd) = &mut self.sshd {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
    }
}

/// A port at which nobody listens, of those that the kernel gives to no connection (`ip_local_port_range`): so nobody takes it
/// until a server of these tests listens there, or while it is off.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    // Tests of another checkout may run beside these.
    let first = u16::try_from(std::process::id() * 41 % 20_000).unwrap();
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + first.wrapping_add(tried) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
        assert!(tried < 20_000, "no port is free");
    }
}

/// The mount namespace of a process: that of its board.
fn namespace(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

pub(crate) fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // One that has just ended needs no signal.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn wait_for_end(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while state(pid).is_some_and(|state| state != 'Z') {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The state letter of a process.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Processes below this one.
pub(crate) fn descendants(parent: i32) -> Vec<i32> {
    let mut found = children(parent);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// Processes whose parent is this one.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        if after.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this with `cargo xtask test`"))
}

/// A script that is a program.
pub(crate) fn program(path: &Path, script: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    // By a process of its own: a program that this one has open for writing cannot be started, and a process that another test starts
    // at that moment has it open as well.
    run(Command::new("cp").arg(&draft).arg(path));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
