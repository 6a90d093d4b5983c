//! Files evaluated here, and the same ones by OpenSSH's client.

use super::super::openssh;
use super::*;
use proptest::prelude::*;
use std::fs;

fn account(home: &Path) -> Account {
    Account { name: "anna".to_owned(), uid: 7, home: home.to_path_buf() }
}

fn address(host: &str) -> Address {
    Address { host: host.to_owned(), user: None, port: None, identity: None, jump: None }
}

/// Evaluates this text as the user's configuration.
fn evaluated(text: &str, address: &Address) -> Result<HostOptions, String> {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join(".ssh")).unwrap();
    let file = home.path().join(".ssh/config");
    fs::write(&file, text).unwrap();
    let evaluated = evaluate([file], address, &account(home.path()));
    evaluated.map_err(|error| error.to_string().replace(&home.path().display().to_string(), "HOME"))
}

fn of(text: &str, host: &str) -> HostOptions {
    evaluated(text, &address(host)).unwrap()
}

#[test]
fn options_of_a_match_block_stay_in_it() {
    let text = "Host shelf\n  User anna\n  IdentityFile ~/one\n\
                Match host other.lab\n  User mallory\n  IdentityFile ~/two\n  ProxyJump gate\n\
                Match host shelf user anna\n  Port 2222\n\
                Match all\n  IdentityFile ~/three\n";
    let shelf = of(text, "shelf");
    assert_eq!((shelf.user.as_deref(), shelf.port, shelf.proxy_jump), (Some("anna"), Some(2222), None));
    assert_eq!(shelf.identity_files, ["~/one", "~/three"]);
    let other = of(text, "other.lab");
    assert_eq!((other.user.as_deref(), other.port), (Some("mallory"), None));
    assert_eq!(other.identity_files, ["~/two", "~/three"]);
    assert_eq!(of(text, "elsewhere").identity_files, ["~/three"]);
}

#[test]
fn lines_are_read_as_openssh_reads_them() {
    let user = |text: &str| of(text, "shelf").user;
    for (text, expected) in [
        ("User=anna", Some("anna")),
        ("user \t = \t anna # words", Some("anna")),
        ("USER \"anna b\"", Some("anna b")),
        ("User 'anna b'", Some("anna b")),
        ("User anna\\ b", Some("anna b")),
        ("User \"an\\\"na\"", Some("an\"na")),
        ("# User anna", None),
        ("User anna\r\n", Some("anna")),
        ("Host *.lab shelf\nUser anna", Some("anna")),
        ("Host * !shelf\nUser anna", None),
        ("Host !shelf\nUser anna", None),
        ("Host sh?lf\nUser anna", Some("anna")),
        ("Match originalhost shelf\nUser anna", Some("anna")),
        ("Match !host shelf\nUser anna", None),
        ("Match host a,sh*,!b\nUser anna", Some("anna")),
        ("HostName %h.lab\nMatch host shelf.lab\nUser anna", Some("anna")),
        ("Match localuser anna\nUser anna", Some("anna")),
        ("User first\nUser second", Some("first")),
        ("Match host elsewhere exec \"false\"\nUser anna", None),
        ("Host elsewhere\nCanonicalizeHostname yes\nHost *\nUser anna", Some("anna")),
    ] {
        assert_eq!(user(text).as_deref(), expected, "{text}");
    }
    assert_eq!(of("HostName %h.lab%%", "shelf").host_name.as_deref(), Some("shelf.lab%"));
    assert_eq!(
        of("ProxyCommand nc \"%h\" %p # no comment", "x").proxy_command.as_deref(),
        Some("nc \"%h\" %p # no comment")
    );
    assert_eq!(of("ProxyJump a\nProxyCommand nc", "x").proxy_command, None);
    assert_eq!(of("ProxyCommand none\nProxyJump a", "x").proxy_jump, None);
    let files = of("UserKnownHostsFile ~/a \"/b c\"", "x").user_known_hosts;
    assert_eq!(files.as_deref(), Some(["~/a".to_owned(), "/b c".to_owned()].as_slice()));
}

#[test]
fn what_only_openssh_can_evaluate_is_refused_with_its_line() {
    for (text, expected) in [
        ("\nMatch exec \"true\"\nUser anna", "line 2: only OpenSSH's client can evaluate Match exec"),
        ("Match canonical\nUser anna", "line 1: only OpenSSH's client can evaluate Match canonical"),
        ("Match final all\nUser anna", "line 1: only OpenSSH's client can evaluate Match final"),
        (
            "Match localnetwork 10.0.0.0/8\nUser anna",
            "line 1: only OpenSSH's client can evaluate Match localnetwork",
        ),
        ("Match tagged x\nUser anna", "line 1: only OpenSSH's client can evaluate Match tagged"),
        ("CanonicalizeHostname yes", "line 1: only OpenSSH's client can evaluate CanonicalizeHostname"),
        ("Include con[ab].d/*", "line 1: only OpenSSH's client can evaluate the pattern con[ab].d/*"),
        ("User \"anna", "line 1: a quote is not closed"),
        ("User", "line 1: user has no value"),
        ("Port ssh", "line 1: Port ssh is not a number"),
        ("Port 0", "line 1: Port 0"),
        ("Match", "line 1: Match has no criterion"),
        ("Match host", "line 1: Match host has no value"),
        ("HostName %r", "line 1: HostName supports %h and %%, not %r"),
        ("IdentitiesOnly perhaps", "line 1: identitiesonly is \"perhaps\""),
    ] {
        let error = evaluated(text, &address("shelf")).unwrap_err();
        assert!(error.contains("HOME/.ssh/config") && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn included_files_are_read_where_their_line_stands() {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    fs::create_dir_all(ssh.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(ssh.join(name), text).unwrap();
    write("conf.d/20.conf", "User second\nHost nobody\nPort 1\n");
    write("conf.d/10.conf", "Host shelf\nUser first\n");
    write("conf.d/.hidden", "User hidden\n");
    write("config", "Include conf.d/* missing\nPort 22\nHost other\nInclude other\nHost *\nUser last\n");
    write("other", "User other\nInclude other\n");
    let evaluate = |host: &str| evaluate([ssh.join("config")], &address(host), &account(home.path()));
    let user = |host: &str| evaluate(host).unwrap().user.unwrap();
    // The block of an included file ends with it.
    assert_eq!((user("shelf").as_str(), evaluate("shelf").unwrap().port), ("first", Some(22)));
    assert_eq!(user("board"), "second");
    let endless = evaluate("other").unwrap_err().to_string();
    assert!(endless.contains("nested more than 16 deep"), "{endless}");
}

/// Lines of which configurations are made at random.
fn lines() -> impl Strategy<Value = String> {
    let one_of = |words: &'static [&'static str]| prop::sample::select(words);
    let pattern = one_of(&["shelf", "sh*", "*", "!shelf", "other", "*.lab", "shelf.lab", "?helf"]);
    prop_oneof![
        (one_of(&["Host", "host ="]), prop::collection::vec(pattern.clone(), 1..3))
            .prop_map(|(keyword, patterns)| format!("{keyword} {}", patterns.join(" "))),
        (one_of(&["", "!"]), one_of(&["host", "originalhost", "user"]), pattern.clone(), pattern)
            .prop_map(|(not, criterion, a, b)| format!("Match {not}{criterion} {a},{b}")),
        Just("Match all".to_owned()),
        one_of(&["anna", "\"a b\"", "bob # words"]).prop_map(|user| format!("User {user}")),
        one_of(&["%h.lab", "10.0.0.1", "shelf"]).prop_map(|name| format!("  HostName={name}")),
        (1_u16..4).prop_map(|port| format!("Port {port}")),
        one_of(&["~/a", "\"${HOME}/b c\"", "%d/%h", "none"]).prop_map(|file| format!("IdentityFile {file}")),
        one_of(&["gate", "none", "a,b", "me@gate:23", "[fe80::1]:22"])
            .prop_map(|jump| format!("ProxyJump {jump}")),
        one_of(&["nc %h %p", "none", "ssh -W \"%h\":%p gate"])
            .prop_map(|command| format!("ProxyCommand {command}")),
        one_of(&["/a", "/a \"/b c\"", "none"]).prop_map(|files| format!("UserKnownHostsFile {files}")),
        one_of(&["yes", "no"]).prop_map(|flag| format!("IdentitiesOnly {flag}")),
        one_of(&["alias", "other"]).prop_map(|alias| format!("HostKeyAlias {alias}")),
        one_of(&["# words", "", "\tCompression yes"]).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(host::mutation::cases(150))]

    #[test]
    #[ignore = "needs OpenSSH's client; run by cargo xtask test"]
    fn openssh_evaluates_the_same(lines in prop::collection::vec(lines(), 0..12), user in prop::option::of("anna|bob")) {
        let text = lines.join("\n") + "\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, &text).unwrap();
        let mut address = address("shelf");
        address.user = user;
        // What OpenSSH has without any file.
        let asked = |file: &Path| openssh::ask_with(&address, file).unwrap();
        let defaults = asked(Path::new("/dev/null"));
        let theirs = asked(&file);
        let mut ours = evaluate([file], &address, &Account::current()).unwrap();
        ours.user.get_or_insert_with(|| Account::current().name);
        ours.port.get_or_insert(22);
        ours.identities_only.get_or_insert(false);
        if ours.identity_files.is_empty() {
            ours.identity_files.clone_from(&defaults.identity_files);
        }
        ours.user_known_hosts = ours.user_known_hosts.or_else(|| defaults.user_known_hosts.clone());
        prop_assert_eq!(
            (&ours.user, &ours.host_name, ours.port, &ours.identity_files, ours.identities_only),
            (&theirs.user, &theirs.host_name, theirs.port, &theirs.identity_files, theirs.identities_only),
            "{}", text
        );
        prop_assert_eq!(
            (&ours.proxy_jump, &ours.proxy_command, &ours.user_known_hosts, &ours.host_key_alias),
            (&theirs.proxy_jump, &theirs.proxy_command, &theirs.user_known_hosts, &theirs.host_key_alias),
            "{}", text
        );
    }
}
