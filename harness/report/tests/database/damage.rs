//! Damaged journals: the records before the damage are kept, the journal is moved aside and reported once, and the others are
//! taken over all the same.

use std::fs;
use std::path::PathBuf;
use store::fixture::{self, Place};
use store::{
    Access, DamagedJournal, JournalImport, Record, Resumed, RunId, RunRecorder, Status, Store, journal_path,
};

/// A place with the journals of two whole runs and no database; the first one is to be damaged.
struct Shelf {
    place: Place,
    id: RunId,
    other: RunId,
    /// Lines of the first run's journal.
    lines: Vec<Vec<u8>>,
}

impl Shelf {
    fn new() -> Self {
        let place = Place::new();
        let other = fixture::run_start_at(fixture::BEGUN + 1_000_000_000);
        let ids = (fixture::run_start().id, other.id.clone());
        {
            let store = place.open();
            for start in [fixture::run_start(), other] {
                let mut recorder = RunRecorder::create(&store, &place.runs(), start).unwrap();
                for record in fixture::records("resnet18", 1) {
                    recorder.record(record).unwrap();
                }
                recorder.finish(Status::Complete, fixture::BEGUN + 60).unwrap();
            }
        }
        let text = fs::read(journal_path(&place.runs(), &ids.0)).unwrap();
        let lines = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let shelf = Self { place, id: ids.0, other: ids.1, lines };
        shelf.forget();
        shelf
    }

    /// Loses the database.
    fn forget(&self) {
        fs::remove_dir_all(self.place.database().parent().unwrap()).unwrap();
    }

    fn journal(&self) -> PathBuf {
        journal_path(&self.place.runs(), &self.id)
    }

    fn aside(&self) -> PathBuf {
        self.journal().with_file_name("journal.damaged.jsonl")
    }

    fn write(&self, lines: &[Vec<u8>]) -> Vec<u8> {
        let text = lines.concat();
        fs::write(self.journal(), &text).unwrap();
        text
    }

    fn resume(&self, store: &Store) {
        let resumed = Resumed { unix_ns: fixture::BEGUN + 90, command: vec![], state: None };
        let (recorder, _) = RunRecorder::resume(store, &self.place.runs(), &self.id, resumed).unwrap();
        recorder.finish(Status::Complete, fixture::BEGUN + 99).unwrap();
        assert_eq!(store.run(self.id.as_str()).unwrap().status, Status::Complete);
    }
}

fn trials(store: &Store, id: &RunId) -> usize {
    let run = store.run(id.as_str()).unwrap();
    store.trials(&run).unwrap().len()
}

/// Index of the trial before the last, of four; after the last comes the end of the run.
fn third_trial(lines: &[Vec<u8>]) -> usize {
    lines.len() - 3
}

#[test]
fn what_comes_before_the_damage_is_kept_and_told_once() {
    type Damage = fn(&mut Vec<Vec<u8>>, usize);
    let table: [(&str, Damage, &str); 14] = [
        ("no JSON", |lines, at| lines[at] = b"nonsense\n".to_vec(), "expected"),
        (
            "a record without its fields",
            |lines, at| lines[at] = b"{\"trial\":{}}\n".to_vec(),
            "missing field",
        ),
        ("an empty line", |lines, at| lines[at] = b"\n".to_vec(), "EOF"),
        ("NUL bytes", |lines, at| lines[at] = vec![0; 4096], "NUL bytes"),
        ("NUL bytes in a line", |lines, at| lines[at][5] = 0, "NUL bytes"),
        ("no UTF-8", |lines, at| lines[at] = b"{\"trial\":\"\xff\"}\n".to_vec(), "not UTF-8"),
        ("a line cut short", |lines, at| _ = lines[at].drain(20..30), "column"),
        ("two lines in one", |lines, at| _ = lines[at].pop(), "column"),
        ("a doubled line", |lines, at| lines[at] = lines[at - 1].clone(), "identical to line"),
        (
            "another run",
            |lines, at| {
                let text = String::from_utf8(lines[0].clone()).unwrap();
                lines[at] = text.replace("0badcafe", "1badcafe").into_bytes();
            },
            "starts a second run",
        ),
        (
            "a schedule that is missing",
            |lines, at| {
                let text = String::from_utf8(lines[at].clone()).unwrap();
                lines[at] = text.replacen("\"schedule\":", "\"schedule\":7", 1).into_bytes();
            },
            "which no earlier line defines",
        ),
        (
            "a network that is missing",
            |lines, at| {
                let schedule = lines.iter().find(|line| line.starts_with(b"{\"schedule\"")).unwrap();
                let text = String::from_utf8(schedule.clone()).unwrap();
                lines[at] = text.replace("resnet18", "resnet19").into_bytes();
            },
            "\"resnet19\", which no earlier line defines",
        ),
        (
            "a number that no database takes",
            |lines, at| {
                let text = String::from_utf8(lines[at].clone()).unwrap();
                let (before, after) = text.split_once("\"begun_unix_ns\":").unwrap();
                let digits = after.find(|letter: char| !letter.is_ascii_digit()).unwrap();
                lines[at] = format!("{before}\"begun_unix_ns\":18446744073709551615{}", &after[digits..])
                    .into_bytes();
            },
            "the database rejects it",
        ),
        (
            "a record of a later version",
            |lines, at| lines[at] = b"{\"sunspots\":{}}\n".to_vec(),
            "unknown variant",
        ),
    ];
    for (what, damage, expected) in table {
        let shelf = Shelf::new();
        let mut lines = shelf.lines.clone();
        let at = third_trial(&lines);
        damage(&mut lines, at);
        let text = shelf.write(&lines);

        let store = shelf.place.open();
        let found = store.catch_up(&shelf.place.runs()).unwrap();
        assert_eq!(found.runs.len(), 1, "{what}: the other run is taken over");
        assert_eq!(trials(&store, &shelf.other), 4, "{what}");
        let [damaged] = found.damaged.as_slice() else { panic!("{what}: {found:?}") };
        let message = damaged.to_string();
        assert_eq!((damaged.line, damaged.run.as_ref()), (at + 1, Some(&shelf.id)), "{what}: {message}");
        assert!(message.contains(expected), "{what}: {message}");
        assert!(message.contains(&shelf.aside().display().to_string()), "{what}: {message}");
        assert_eq!(fs::read(shelf.aside()).unwrap(), text, "{what}: nothing is lost");
        assert_eq!(trials(&store, &shelf.id), 2, "{what}");
        let run = store.run(shelf.id.as_str()).unwrap();
        if damaged.newer {
            assert_eq!(run.status, Status::Running, "{what}");
            assert!(message.contains("update edgepipe and rename it"), "{what}: {message}");
        } else {
            assert_eq!(run.status, Status::Failed, "{what}");
            assert!(run.ended_because.unwrap().contains(expected), "{what}");
            let report = analysis::Report::build(&store, &shelf.id).unwrap();
            let text = report::render(&report, report::Format::Markdown, true);
            assert!(text.contains("this run is failed: its journal is damaged at line"), "{text}");
            assert!(message.contains(&format!("--resume {}", shelf.id)), "{what}: {message}");
        }

        // Neither told again, nor in the way of the run.
        assert_eq!(store.catch_up(&shelf.place.runs()).unwrap(), JournalImport::default(), "{what}");
        shelf.resume(&store);
        drop(store);
        // And a lost database is the same again.
        shelf.forget();
        let store = shelf.place.open();
        assert_eq!(store.catch_up(&shelf.place.runs()).unwrap().damaged, [], "{what}");
        assert_eq!(trials(&store, &shelf.id), 2, "{what}");
    }
}

#[test]
fn a_later_version_reads_on_where_this_one_stopped() {
    let shelf = Shelf::new();
    let mut lines = shelf.lines.clone();
    let at = third_trial(&lines);
    lines.insert(at, b"{\"sunspots\":{}}\n".to_vec());
    shelf.write(&lines);
    let store = shelf.place.open();
    assert!(store.catch_up(&shelf.place.runs()).unwrap().damaged[0].newer);
    // What the later version has in the place of that line, this one knows as well.
    lines.remove(at);
    shelf.write(&lines);
    assert_eq!(store.catch_up(&shelf.place.runs()).unwrap().runs.len(), 1);
    assert_eq!(trials(&store, &shelf.id), 4);
}

#[test]
fn missing_swapped_and_doubled_lines_are_found() {
    type Damage = fn(&mut Vec<Vec<u8>>);
    let table: [(&str, Damage); 5] = [
        ("the first line is missing", |lines| _ = lines.remove(0)),
        ("the network is missing", |lines| lines.retain(|line| !line.starts_with(b"{\"network\""))),
        ("the schedules are missing", |lines| lines.retain(|line| !line.starts_with(b"{\"schedule\""))),
        ("backwards", |lines| lines.reverse()),
        ("the whole journal twice", |lines| lines.extend(lines.clone())),
    ];
    for (what, damage) in table {
        let shelf = Shelf::new();
        let mut lines = shelf.lines.clone();
        damage(&mut lines);
        shelf.write(&lines);
        let store = shelf.place.open();
        let found = store.catch_up(&shelf.place.runs()).unwrap();
        assert_eq!((found.runs.len(), found.damaged.len()), (1, 1), "{what}");
        assert!(shelf.aside().is_file(), "{what}");
        assert_eq!(store.catch_up(&shelf.place.runs()).unwrap(), JournalImport::default(), "{what}");
        if let Some(run) = &found.damaged[0].run {
            assert!(trials(&store, run) <= 4, "{what}: no trial counts twice");
        }
    }
}

#[test]
fn damage_in_what_the_database_has_already_does_no_harm() {
    let shelf = Shelf::new();
    let store = shelf.place.open();
    store.catch_up(&shelf.place.runs()).unwrap();
    let check = |what: &str, text: &[u8], is_resumable: bool| {
        fs::write(shelf.journal(), text).unwrap();
        let found = store.catch_up(&shelf.place.runs()).unwrap();
        let [damaged] = found.damaged.as_slice() else { panic!("{what}: {found:?}") };
        assert_eq!(damaged.resumable, is_resumable, "{what}: {damaged}");
        assert_eq!(trials(&store, &shelf.id), 4, "{what}");
        assert_eq!(store.catch_up(&shelf.place.runs()).unwrap(), JournalImport::default(), "{what}");
    };
    let whole = shelf.lines.concat();
    // As an editor on Windows saves it: all places have moved.
    let moved = String::from_utf8(whole.clone()).unwrap().replace('\n', "\r\n");
    check("other ends of lines", moved.as_bytes(), false);
    let mut longer = whole;
    longer.extend(b"nonsense\n");
    check("more was added", &longer, true);
    // The end of the run was added to the journal, and is in the database.
    longer.extend(vec![b' '; 4096]);
    let mut early = longer.clone();
    early[..4].fill(0);
    check("its first line is damaged", &early, false);
}

#[test]
fn byte_order_marks_and_ends_of_lines_of_windows_are_taken() {
    let shelf = Shelf::new();
    let text = String::from_utf8(shelf.lines.concat()).unwrap();
    shelf.write(&[format!("\u{feff}{}", text.replace('\n', "\r\n")).into_bytes()]);
    let store = shelf.place.open();
    let found = store.catch_up(&shelf.place.runs()).unwrap();
    assert_eq!((found.runs.len(), found.damaged.len()), (2, 0), "{found:?}");
    assert_eq!(trials(&store, &shelf.id), 4);
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let shelf = Shelf::new();
    // A hole in the file: it takes no disk either.
    let file = fs::OpenOptions::new().write(true).open(shelf.journal()).unwrap();
    file.set_len(1 << 30).unwrap();
    let store = shelf.place.open();
    let found = store.catch_up(&shelf.place.runs()).unwrap();
    assert_eq!(found.damaged.len(), 1);
    assert!(found.damaged[0].reason.contains("longer than 272 MiB"), "{}", found.damaged[0]);
    assert_eq!(trials(&store, &shelf.id), 4);
    assert!(fs::metadata(shelf.journal()).unwrap().len() < 1 << 20);
}

#[test]
fn what_is_no_file_is_left_alone() {
    let shelf = Shelf::new();
    let fifo = shelf.place.runs().join("20250131-094500-0000000f");
    let folder = shelf.place.runs().join("20250131-094500-0000000e/journal.jsonl");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir(&fifo).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let journal = fifo.join("journal.jsonl");
    rustix::fs::mknodat(rustix::fs::CWD, &journal, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let store = shelf.place.open();
    let found = store.catch_up(&shelf.place.runs()).unwrap();
    assert_eq!((found.runs.len(), found.damaged.len(), found.unreadable.len()), (2, 0, 0));
    assert!(folder.is_dir() && journal.exists());
}

#[test]
fn two_at_once_take_over_and_move_aside_once() {
    let shelf = Shelf::new();
    let mut lines = shelf.lines.clone();
    let at = third_trial(&lines);
    lines[at] = b"nonsense\n".to_vec();
    let text = shelf.write(&lines);
    drop(shelf.place.open());
    let found: Vec<JournalImport> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(&shelf.place.database(), Access::ReadWrite).unwrap();
                    store.catch_up(&shelf.place.runs()).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let damaged: Vec<&DamagedJournal> = found.iter().flat_map(|found| &found.damaged).collect();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    let store = shelf.place.open();
    assert_eq!((trials(&store, &shelf.id), trials(&store, &shelf.other)), (2, 4));
    assert_eq!(fs::read(shelf.aside()).unwrap(), text);
    assert_eq!(store.catch_up(&shelf.place.runs()).unwrap(), JournalImport::default());
}

#[test]
fn many_damaged_journals_are_told_in_a_few_lines() {
    let place = Place::new();
    let store = place.open();
    for number in 0..60_u64 {
        let start = fixture::run_start_at(fixture::BEGUN + number * 1_000_000_000);
        let id = start.id.clone();
        RunRecorder::create(&store, &place.runs(), start).unwrap();
        let journal = journal_path(&place.runs(), &id);
        let text = fs::read(&journal).unwrap();
        fs::write(&journal, [text.as_slice(), b"nonsense\n"].concat()).unwrap();
    }
    let messages = store.catch_up(&place.runs()).unwrap().messages();
    assert_eq!(messages.len(), 6, "{messages:?}");
    assert!(messages[5].contains("55 more journals"), "{}", messages[5]);
    assert!(messages.iter().all(|message| message.starts_with("warning: ")));
    assert_eq!(store.catch_up(&place.runs()).unwrap().messages(), Vec::<String>::new());
}

#[test]
fn records_of_all_kinds_are_whole_again() {
    // None of what a sound run writes is taken for damage.
    let shelf = Shelf::new();
    let store = shelf.place.open();
    let found = store.catch_up(&shelf.place.runs()).unwrap();
    assert_eq!((found.runs.len(), found.damaged.len()), (2, 0), "{found:?}");
    let records: Vec<Record> = shelf.lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert!(records.len() > 8 && matches!(records[0], Record::Run(_)));
    assert_eq!(found.runs[0].imported, records.len());
}
