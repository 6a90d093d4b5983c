//! Reaching boards over SSH and bringing files there, against OpenSSH's own server.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod farm;

use farm::{Farm, User, keygen, program};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn only_missing_or_damaged_files_are_sent() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let (text, _) = farm.run(&["boards", "loopback"], 0);
    assert!(text.contains("loopback: over SSH at 127.0.0.1") && text.contains("free"), "{text}");
    let cache = farm.path("board/home/.cache/edgepipe");
    let runner = || {
        let bundle = fs::read_dir(cache.join("runner")).unwrap().flatten().next().unwrap().path();
        let file = bundle.join("runner");
        (fs::metadata(&file).unwrap().ino(), file)
    };
    let (first, file) = runner();
    farm.run(&["boards", "loopback"], 0);
    assert_eq!(runner().0, first, "what is there is not sent again");

    // As after a power cut: the same size, another content, and a start of the board since it was checked.
    let length = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
    fs::write(&file, vec![0; length]).unwrap();
    for entry in fs::read_dir(&cache).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("checked-") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    farm.run(&["boards", "loopback"], 0);
    assert_ne!(runner().0, first, "what is damaged is sent again");
    let left = fs::read_dir(&cache).unwrap().flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("incoming")));
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn host_keys_are_checked() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let known = farm.path("home/.ssh/known_hosts");
    let key = |kind: &str| fs::read_to_string(farm.path(&format!("host_{kind}.pub"))).unwrap();
    let other = {
        keygen(&farm.path("other"), "ed25519", "");
        fs::read_to_string(farm.path("other.pub")).unwrap()
    };
    let (ours, rsa) = (key("ed25519"), key("rsa"));
    let name = format!("[127.0.0.1]:{}", farm.port);
    let port = farm.port;
    let refused = [
        (String::new(), "is unknown"),
        (format!("127.0.0.1 {ours}"), "is unknown"),
        (format!("{name} {other}"), "has another key. If the board was reinstalled"),
        (format!("{name} {ours}@revoked {name} {ours}"), "is revoked in"),
        (format!("@revoked * {ours}{name} {ours}"), "is revoked in"),
        (format!("[127.0.0.*]:{port},!{name} {ours}"), "is unknown"),
        (format!("@cert-authority * {ours}"), "is unknown"),
    ];
    for (text, expected) in refused {
        fs::write(&known, &text).unwrap();
        let (said, _) = farm.run(&["boards", "loopback"], 3);
        assert!(said.contains(expected), "{text}: {said}");
        assert!(
            said.contains("ssh-keygen") || said.contains("remove that line"),
            "it says what to do: {said}"
        );
        assert!(!said.contains("free"), "{said}");
    }
    let accepted = [
        format!("{name} {ours}"),
        // The server's other key is not known, and must not be taken for a changed one.
        format!("{name} {rsa}"),
        format!("# words\n\nelsewhere,[127.0.0.*]:{port} {ours}"),
        format!("{name} {other}{name} {ours}"),
    ];
    for text in accepted {
        fs::write(&known, &text).unwrap();
        farm.run(&["boards", "loopback"], 0);
    }
    fs::write(&known, format!("{name} {ours}elsewhere {other}")).unwrap();
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known).output().unwrap();
    assert!(hashed.status.success() && fs::read_to_string(&known).unwrap().starts_with("|1|"));
    farm.run(&["boards", "loopback"], 0);
    fs::write(&known, format!("{name} {other}")).unwrap();
    Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known).output().unwrap();
    let (said, _) = farm.run(&["boards", "loopback"], 3);
    assert!(said.contains("has another key"), "{said}");
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_login_needs_an_accepted_key_or_the_message_names_one() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let key = farm.path("home/.ssh/id_ed25519");
    let good = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let (said, _) = farm.run(&["boards", "loopback"], 3);
    assert!(said.contains("no key was found") && said.contains("publickey"), "{said}");

    keygen(&key, "ed25519", "");
    let (said, _) = farm.run(&["boards", "loopback"], 3);
    assert!(said.contains("not accepted") && said.contains("ssh-copy-id"), "{said}");

    farm.board("named", "host: 127.0.0.1, user: tester, identity: ~/.ssh/missing");
    let (said, _) = farm.run(&["boards", "named"], 3);
    assert!(said.contains("missing: cannot be read"), "{said}");

    fs::write(&key, &good).unwrap();
    let protect = |passphrase: &str| {
        let output = Command::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", passphrase, "-f"])
            .arg(&key)
            .output();
        assert!(output.unwrap().status.success());
    };
    protect("open sesame");
    // Without a terminal to ask at.
    let silent = |arguments: &[&str]| {
        let mut command = Command::new("setsid");
        let harness = farm.harness(arguments);
        command.arg("--wait").arg(harness.get_program()).args(harness.get_args());
        for (name, value) in harness.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    };
    let (said, _) = farm.finish(&mut silent(&["boards", "loopback"]), 3);
    assert!(said.contains("protected by a passphrase") && said.contains("ssh-add"), "{said}");
    let ask = farm.path("ask");
    for (answer, code, expected) in [("open sesame", 0, "free"), ("wrong", 3, "the passphrase is wrong")] {
        program(&ask, &format!("echo '{answer}'"));
        let (said, _) = farm.finish(silent(&["boards", "loopback"]).env("SSH_ASKPASS", &ask), code);
        assert!(said.contains(expected), "{said}");
    }

    let socket = farm.path("agent");
    let mut agent =
        Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    program(&ask, "echo 'open sesame'");
    let added = Command::new("setsid")
        .args(["--wait", "ssh-add"])
        .arg(&key)
        .env("SSH_AUTH_SOCK", &socket)
        .env("SSH_ASKPASS", &ask)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .output()
        .unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    fs::remove_file(&key).unwrap();
    farm.finish(silent(&["boards", "loopback"]).env("SSH_AUTH_SOCK", &socket), 0);
    let _ = agent.kill();
    let _ = agent.wait();
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn openssh_s_configuration_and_jump_hosts_are_heeded() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    fs::rename(farm.path("home/.ssh/id_ed25519"), farm.path("home/key of mine")).unwrap();
    fs::rename(farm.path("home/.ssh/known_hosts"), farm.path("home/known")).unwrap();
    let config = format!(
        "Host bench-*\n  User tester\n  Port {}\n  IdentityFile \"~/key of mine\"\n  UserKnownHostsFile ~/known\n\
         Host bench-board bench-gate\n  HostName 127.0.0.1\n\
         Host bench-far\n  HostName 127.0.0.1\n  ProxyJump bench-gate\n",
        farm.port
    );
    fs::write(farm.path("home/.ssh/config"), config).unwrap();
    let boards = [
        ("alias", "bench-board", ""),
        ("far", "bench-far", ""),
        ("gated", "bench-board", ", jump: bench-gate"),
    ];
    for (name, host, jump) in boards {
        farm.board(name, &format!("host: {host}{jump}"));
        farm.run(&["boards", name], 0);
    }
    farm.board("astray", "host: bench-board, jump: nobody.invalid");
    let (said, _) = farm.run(&["boards", "astray"], 3);
    assert!(said.contains("nobody.invalid"), "{said}");
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn openssh_s_configuration_is_evaluated_as_a_whole() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let config = farm.path("home/.ssh/config");
    let port = farm.port;
    farm.board("alias", "host: bench-board");
    // Settings of a Match block once went to the block before it: another user, another key.
    let block =
        "Match host elsewhere\n  User nobody\n  IdentityFile /dev/null\n  ProxyJump nowhere.invalid\n";
    let good = format!("Host bench-*\n  HostName 127.0.0.1\n  User tester\n  Port {port}\n{block}");
    fs::write(&config, &good).unwrap();
    farm.run(&["boards", "alias"], 0);
    fs::write(&config, format!("Match exec \"test %h = bench-board\"\n  User tester\n{good}")).unwrap();
    farm.run(&["boards", "alias"], 0);
    let wrong = [
        (format!("Match final\n  HostKeyAlias another\n{good}"), 3, "is unknown"),
        (format!("No such option\n{good}"), 2, "line 1: Bad configuration option: no"),
        (
            format!("IdentityFile ${{EDGEPIPE_NO_SUCH}}/key\n{good}"),
            2,
            "the environment variable EDGEPIPE_NO_SUCH",
        ),
        (
            format!("RevokedHostKeys /no/such/file\n{good}"),
            3,
            "the RevokedHostKeys file /no/such/file cannot be used",
        ),
        (
            format!("UserKnownHostsFile /dev/null\n{good}"),
            3,
            "UserKnownHostsFile /dev/null: name a file there",
        ),
        (format!("ProxyCommand echo out of order >&2; false\n{good}"), 3, "it printed: out of order"),
        (
            format!("StrictHostKeyChecking yes\nUserKnownHostsFile ~/other\n{good}"),
            3,
            "log in once with `ssh -o StrictHostKeyChecking=ask",
        ),
    ];
    for (text, code, expected) in wrong {
        fs::write(&config, &text).unwrap();
        let (said, _) = farm.run(&["boards", "alias"], code);
        assert!(said.contains(expected), "{text}: {said}");
    }
    // Revoked by a file of keys.
    fs::write(&config, format!("RevokedHostKeys {}\n{good}", farm.path("host_ed25519.pub").display()))
        .unwrap();
    let (said, _) = farm.run(&["boards", "alias"], 3);
    assert!(said.contains("is revoked in"), "{said}");
    // A command instead of a socket, and the lock goes with it.
    let through = format!(
        "ProxyCommand ssh -W %h:%p -i {0} -o UserKnownHostsFile={1} -p {port} tester@127.0.0.1\n",
        farm.path("home/.ssh/id_ed25519").display(),
        farm.path("home/.ssh/known_hosts").display()
    );
    fs::write(&config, format!("Host bench-*\n  {through}{good}")).unwrap();
    farm.run(&["boards", "alias"], 0);
    farm.wait_for_none(&["ssh", "-W"]);
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_host_without_openssh_s_client_reads_the_files_itself() {
    if farm::skipped() {
        return;
    }
    let farm = Farm::new();
    let config = farm.path("home/.ssh/config");
    farm.board("alias", "host: bench-board");
    let good = format!(
        "Host bench-*\n  HostName 127.0.0.1\n  User tester\n  Port {}\nMatch host elsewhere\n  User nobody\n",
        farm.port
    );
    let run = |text: &str, code: i32| {
        fs::write(&config, text).unwrap();
        farm.finish(farm.harness(&["boards", "alias"]).env("PATH", farm.path("no-programs")), code).0
    };
    // The shell that prepares the harness finds its own programs.
    fs::create_dir(farm.path("no-programs")).unwrap();
    for name in ["unshare", "mount"] {
        let output = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        std::os::unix::fs::symlink(found.trim(), farm.path("no-programs").join(name)).unwrap();
    }
    run(&good, 0);
    let said = run(&format!("Match exec true\n  User nobody\n{good}"), 2);
    assert!(said.contains(".ssh/config: line 1: only OpenSSH's client can evaluate Match exec"), "{said}");
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_server_that_does_not_answer_ends_the_attempt() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    let (said, _) = farm.run(&["boards", "loopback"], 3);
    assert!(said.contains("check that sshd is running"), "{said}");
    // It accepts, and then nothing.
    let silent = TcpListener::bind(("127.0.0.1", farm.port)).unwrap();
    fs::write(farm.path("home/.ssh/config"), "Host *\n  ConnectTimeout 2\n").unwrap();
    let (said, _) = farm.run(&["boards", "loopback"], 3);
    assert!(said.contains("gave no answer within 2 s"), "{said}");
    drop(silent);
    // On a machine in use, sshd may need longer than that.
    fs::remove_file(farm.path("home/.ssh/config")).unwrap();
    farm.start();
    farm.know();
    farm.run(&["boards", "loopback"], 0);
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn unusual_shells_and_names_do_no_harm() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    let shell = |farm: &Farm, name: &str, path: &str| {
        let real = farm.tools.shell(path);
        let real =
            real.unwrap_or_else(|| panic!("{path} is missing: install {name}, or run `cargo xtask test`"));
        let wrapper = farm.path(name);
        let folders = farm.tools.libraries();
        program(&wrapper, &format!("LD_LIBRARY_PATH='{folders}' exec '{}' \"$@\"", real.display()));
        wrapper
    };
    let (fish, csh) = (shell(&farm, "fish", "usr/bin/fish"), shell(&farm, "tcsh", "bin/tcsh"));
    let weird = "we ird 'q' \"d\" $(touch harm) !x";
    let home = |name: &str| farm.path("board").join(name);
    let users = [
        ("fishy", home("fishy"), fish.clone()),
        ("cshell", home("cshell"), csh.clone()),
        ("strict", home("strict"), "/bin/bash".into()),
        ("noisy", home("noisy"), "/bin/bash".into()),
        ("dash", home("dash"), "/bin/sh".into()),
        ("o'dd $(touch harm)", home(weird), "/bin/bash".into()),
        ("oddfish", home(&format!("{weird} fish")), fish),
        ("oddcsh", home(&format!("{weird} csh")), csh),
    ];
    for (name, home, shell) in users {
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join(".config.fish"), "").unwrap();
        fs::create_dir_all(home.join(".config/fish")).unwrap();
        fs::write(home.join(".config/fish/config.fish"), "echo a banner of fish\n").unwrap();
        fs::write(home.join(".cshrc"), "echo 'a banner of csh'\nset noclobber\n").unwrap();
        let bashrc = match name {
            "strict" => "set -eu; IFS=/; echo banner without end of line; printf partial\n",
            // More than a channel's window, on both streams.
            "noisy" => {
                "head -c 5000000 /dev/zero | tr '\\0' x >&2; head -c 300000 /dev/zero | tr '\\0' '\\n'\n"
            }
            _ => "",
        };
        fs::write(home.join(".bashrc"), bashrc).unwrap();
        farm.users.push(User { name: name.to_owned(), home, shell });
    }
    farm.start();
    farm.know();
    let users: Vec<String> = farm.users.iter().map(|user| user.name.clone()).collect();
    for (number, name) in users.iter().enumerate() {
        let board = format!("board{number}");
        farm.board(&board, &format!("host: 127.0.0.1, user: {}", serde_json::to_string(name).unwrap()));
        let (said, _) = farm.run(&["boards", &board], 0);
        assert!(said.contains("free"), "{name}: {said}");
    }
    let (_, said) = farm.run(&["boards", "a board's \"name\" $(touch harm)"], 2);
    assert!(said.contains("invalid board name"), "{said}");
    for folder in walk(farm.folder.path()) {
        assert_ne!(folder.file_name().unwrap(), "harm", "{}", folder.display());
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_full_disk_and_a_damaged_upload_are_told() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    let (small, broken) = (farm.path("board/small"), farm.path("board/broken"));
    farm.users.push(User { name: "small".to_owned(), home: small.clone(), shell: "/bin/bash".into() });
    farm.users.push(User { name: "broken".to_owned(), home: broken.clone(), shell: "/bin/bash".into() });
    fs::create_dir_all(&small).unwrap();
    fs::create_dir_all(&broken).unwrap();
    farm.prelude = format!("mount -t tmpfs -o size=2m tmpfs {} &&", small.display());
    // A board on which something else arrives than was sent.
    fs::write(broken.join(".bashrc"), format!("PATH={}:$PATH\n", broken.display())).unwrap();
    program(&broken.join("cat"), "PATH=/usr/bin:/bin; cat \"$@\" | tr '\\000' '\\001'");
    farm.start();
    farm.know();
    for (name, expected) in [
        ("small", "No space left on device; free disk space"),
        ("broken", "the file arrived with the SHA-256"),
    ] {
        farm.board(name, &format!("host: 127.0.0.1, user: {name}"));
        let (said, _) = farm.run(&["boards", name], 3);
        assert!(said.contains(expected) && said.contains("failed to store"), "{said}");
    }
    let kept = walk(&broken.join(".cache"));
    assert!(kept.iter().all(|path| path.is_dir() || path.to_string_lossy().contains("checked-")), "{kept:?}");
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_home_folder_that_allows_no_programs_is_named_with_what_to_set_instead() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    let (home, other) = (farm.path("board/noexec"), farm.path("board/tmp"));
    farm.users.push(User { name: "noexec".to_owned(), home: home.clone(), shell: "/bin/bash".into() });
    fs::create_dir_all(&home).unwrap();
    farm.prelude = format!("mount -t tmpfs -o noexec tmpfs {} &&", home.display());
    farm.start();
    farm.know();
    farm.board("noexec", "host: 127.0.0.1, user: noexec");
    let (said, _) = farm.run(&["boards", "noexec"], 3);
    let expected = format!("is on {}, which is mounted noexec: set XDG_CACHE_HOME", home.display());
    assert!(said.contains(&expected) && said.contains("Permission denied"), "{said}");
    let (_, said) = farm.run(&["plan", "--board", "noexec", "--experiment", "tiny"], 3);
    assert!(said.contains(&expected) && said.contains("Permission denied"), "{said}");
    // As it says.
    farm.power_off();
    farm.environment = format!("XDG_CACHE_HOME={}", other.display());
    farm.start();
    let (said, _) = farm.run(&["boards", "noexec"], 0);
    assert!(said.contains("free"), "{said}");
}

#[test]
#[ignore = "needs the runner and OpenSSH's server; run by cargo xtask test"]
fn a_board_that_allows_few_sessions_gets_its_files_one_after_another() {
    if farm::skipped() {
        return;
    }
    let mut farm = Farm::unstarted();
    farm.environment = "\nMaxSessions 2".to_owned();
    farm.start();
    farm.know();
    let (said, _) = farm.run(&["boards", "loopback"], 0);
    assert!(said.contains("free"), "{said}");
}
