//! A labgrid coordinator and exporter on loopback, whose places are boards of these tests.

use super::{Farm, variable};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest time for anything of labgrid's.
const PATIENCE: Duration = Duration::from_secs(600);

/// A place of the coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Port of its power switch.
    pub(crate) power: Option<u16>,
}

/// A lab: places `p1`, `p2`, … with the tag `board=tester`.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    coordinator: Option<Child>,
    exporter: Option<Child>,
}

impl Lab {
    /// Starts both programs, and waits until each place has its resources.
    pub(crate) fn new(places: &[Place]) -> Self {
        let (mut known, mut exported) = (String::new(), String::new());
        for Place { name, port, power } in places {
            // The coordinator reads its places from this file when it starts.
            writeln!(
                known,
                "{name}:\n  aliases: []\n  comment: ''\n  tags: {{board: tester}}\n  created: 0.0\n  changed: 0.0\n  \
                 matches: [{{exporter: exp, group: {name}, cls: '*', name: null, rename: null}}]"
            )
            .unwrap();
            writeln!(
                exported,
                "{name}:\n  NetworkService: {{address: 127.0.0.1, username: tester, port: {port}}}"
            )
            .unwrap();
            if let Some(power) = power {
                writeln!(
                    exported,
                    "  NetworkPowerPort: {{model: simplerest, host: 'http://127.0.0.1:{power}/{{index}}/{{value}}', \
                     index: 0}}"
                )
                .unwrap();
            }
        }
        Self::of(&known, &exported)
    }

    /// The same with the coordinator's and the exporter's files.
    pub(crate) fn of(places: &str, exported: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("edgepipe-lab").tempdir().unwrap();
        fs::write(folder.path().join("places.yaml"), places).unwrap();
        fs::write(folder.path().join("exported.yaml"), exported).unwrap();
        let mut lab = Self { folder, port: super::free_port(), coordinator: None, exporter: None };
        lab.start_coordinator();
        lab.start_exporter();
        lab
    }

    fn python(&self, module: &str) -> Command {
        let mut command = Command::new(variable("EDGEPIPE_PYTHON"));
        command.args(["-I", "-X", "utf8", "-u", "-m", module]).current_dir(self.folder.path());
        command.env_remove("http_proxy").env_remove("https_proxy").stdin(Stdio::null());
        command
    }

    /// Starts a program and waits for a line of its output.
    fn start(command: &mut Command, wanted: &str) -> (Child, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = loop {
            let line = lines.next().unwrap_or_else(|| panic!("{command:?} ended before it said {wanted:?}"));
            let line = line.unwrap();
            if line.contains(wanted) {
                break line;
            }
        };
        // A full pipe would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        (child, line)
    }

    /// Starts the coordinator, each time at the same port.
    pub(crate) fn start_coordinator(&mut self) {
        let mut command = self.python("labgrid.remote.coordinator");
        command.args(["-l", &format!("127.0.0.1:{}", self.port)]);
        let (child, _) = Self::start(&mut command, "listening on ");
        self.coordinator = Some(child);
    }

    pub(crate) fn kill_coordinator(&mut self) {
        end(&mut self.coordinator);
    }

    /// Starts the exporter and waits for its resources.
    pub(crate) fn start_exporter(&mut self) {
        let mut command = self.python("labgrid.remote.exporter");
        command.args(["-c", &self.address(), "-n", "exp", "exported.yaml"]);
        self.exporter = Some(Self::start(&mut command, "Exporter ready").0);
        self.wait_for(|lab| lab.client("", "anna", &["resources"]).1.contains("exp/"));
    }

    pub(crate) fn kill_exporter(&mut self) {
        end(&mut self.exporter);
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs labgrid's own client as a user of another host: whether it succeeded, and what it printed.
    pub(crate) fn client(&self, place: &str, user: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = self.python("labgrid.remote.client");
        command.args(["-x", &self.address()]);
        if !place.is_empty() {
            command.args(["-p", place]);
        }
        command.env("LG_HOSTNAME", "elsewhere").env("LG_USERNAME", user);
        let output = command.args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    #[track_caller]
    pub(crate) fn must(&self, place: &str, user: &str, arguments: &[&str]) -> String {
        let (succeeded, text) = self.client(place, user, arguments);
        assert!(succeeded, "{arguments:?}: {text}");
        text
    }

    /// Who holds a place.
    pub(crate) fn holder(&self, place: &str) -> Option<String> {
        let text = self.must(place, "anna", &["show"]);
        let holder = text.lines().find_map(|line| line.trim().strip_prefix("acquired: ")).unwrap();
        (holder != "None").then(|| holder.to_owned())
    }

    /// How many reservations there are.
    pub(crate) fn reservations(&self) -> usize {
        self.must("", "anna", &["reservations"]).matches("Reservation '").count()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it does not come about");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    #[track_caller]
    pub(crate) fn wait_until_free(&self, place: &str) {
        self.wait_for(|lab| lab.holder(place).is_none());
        self.wait_for(|lab| lab.reservations() == 0);
    }

    /// Writes the file of a board of this lab. `more` are settings of the connection, `whole` of the board.
    pub(crate) fn board(&self, farm: &Farm, name: &str, more: &str, whole: &str) {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let text = format!(
            "board: {name}\nconnect: {{ labgrid: {{ coordinator: \"{}\", {more} }} }}\n\
             target: {{ triple: {triple} }}\nprocessors: auto\n{whole}\n",
            self.address()
        );
        fs::write(farm.path(&format!("workspace/configs/boards/{name}.yaml")), text).unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_exporter();
        self.kill_coordinator();
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Files that note what processes of this host hold.
pub(crate) fn records(farm: &Farm) -> Vec<PathBuf> {
    let entries = fs::read_dir(farm.path("home/.local/state/edgepipe/farm"));
    entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The clients of labgrid that a harness has started.
pub(crate) fn clients(harness: u32) -> Vec<i32> {
    let is_client = |pid: &i32| {
        let command = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains("A client of a labgrid coordinator")
    };
    super::descendants(i32::try_from(harness).unwrap()).into_iter().filter(is_client).collect()
}

/// A power switch with one outlet, as `simplerest` talks to it: `GET /0/1` is on.
pub(crate) struct PowerSwitch {
    pub(crate) port: u16,
    is_broken: Arc<AtomicBool>,
    cycles: Arc<Mutex<u32>>,
}

impl PowerSwitch {
    /// Calls `set` with the new state of the outlet.
    pub(crate) fn new(set: impl Fn(bool) + Send + 'static) -> Self {
        let (is_broken, cycles) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (broken, counted) = (Arc::clone(&is_broken), Arc::clone(&cycles));
        let port = serve(move |request| {
            if broken.load(Ordering::SeqCst) {
                return "500 Internal Server Error";
            }
            let is_on = request.lines().next().is_some_and(|line| line.contains("/1 HTTP"));
            set(is_on);
            *counted.lock().unwrap() += u32::from(is_on);
            "200 OK"
        });
        Self { port, is_broken, cycles }
    }

    pub(crate) fn break_it(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
    }

    /// How often the power was restored.
    pub(crate) fn cycles(&self) -> u32 {
        *self.cycles.lock().unwrap()
    }
}

/// Answers each HTTP request with the status that `answer` gives for its head and body. Returns the port.
pub(crate) fn serve(answer: impl Fn(&str) -> &'static str + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let status = answer(&request(&mut stream));
            // A client that does not wait for the answer is none of ours.
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    port
}

/// A request: its head and its body.
fn request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut text, mut body) = (String::new(), 0);
    loop {
        let begun = text.len();
        let count = reader.read_line(&mut text).unwrap_or(0);
        let line = &text[begun..];
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            body = value.trim().parse().unwrap();
        }
        if count == 0 || line == "\r\n" {
            break;
        }
    }
    let _ = reader.take(body).read_to_string(&mut text);
    text
}
