//! Every message of this crate's errors and imports, to be reviewed as prose.

use crate::{DamagedJournal, ImportedJournal, JournalError, JournalImport, RunId, StoreError};
use std::io;
use std::path::PathBuf;

fn refused() -> io::Error {
    io::Error::other("permission denied")
}

#[test]
fn errors() {
    let path = || PathBuf::from("/no/such/results.db");
    let journal = || PathBuf::from("/no/such/runs/a1/journal.jsonl");
    let run = || "20250131-094500-1f2e3d4c".to_owned();
    let detail = || "disk I/O error".to_owned();
    let holder = || "edgepipe (process 4711)".to_owned();
    let errors = [
        StoreError::Missing { path: path() },
        StoreError::Folder { path: PathBuf::from("/no/such"), source: refused() },
        StoreError::TemporaryFolder { path: PathBuf::from("/tmp/odd") },
        StoreError::CannotOpen { path: path(), detail: "unable to open database file".to_owned() },
        StoreError::NewerSchema { path: path(), found: 9, known: 5 },
        StoreError::Migration { path: path(), found: 4, table: "trials".to_owned() },
        StoreError::Empty { path: path() },
        StoreError::Itself { path: path() },
        StoreError::Unreadable { path: path(), detail: "no such file".to_owned() },
        StoreError::Diverged { path: path(), run: run() },
        StoreError::Elsewhere { run: run(), journal: journal() },
        StoreError::Foreign { path: path() },
        StoreError::Corrupt { path: path(), detail: "file is not a database".to_owned() },
        StoreError::Locked { path: path(), holder: holder() },
        StoreError::Locked { path: path(), holder: String::new() },
        StoreError::NotAFile { path: path(), what: "a directory" },
        StoreError::FileSystem { path: path(), detail: detail() },
        StoreError::ReadOnly { path: path() },
        StoreError::Full { path: path() },
        StoreError::Sqlite {
            path: path(),
            doing: "read results",
            source: rusqlite::Error::QueryReturnedNoRows,
        },
        StoreError::NoSuchRun {
            path: path(),
            asked: "1f2e".to_owned(),
            known: format!("the latest runs: {}", run()),
        },
        StoreError::Dangling { run: run(), missing: "network \"resnet18\"".to_owned() },
        StoreError::InJournal {
            run: run(),
            journal: journal(),
            reason: Box::new(StoreError::Full { path: path() }),
        },
        JournalError::Create { path: journal(), source: refused() }.into(),
        JournalError::Write { path: journal(), source: refused() }.into(),
        JournalError::Read { path: journal(), source: refused() }.into(),
        JournalError::InUse { path: journal(), holder: holder() }.into(),
        JournalError::Lock { path: journal(), source: refused() }.into(),
        JournalError::Damaged {
            path: journal(),
            line: 7,
            reason: "it contains NUL bytes".to_owned(),
            newer: false,
        }
        .into(),
    ];
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

#[test]
fn imports_of_journals() {
    let run = || RunId::try_from("20250131-094500-1f2e3d4c".to_owned()).unwrap();
    let journal = || PathBuf::from("runs/a1/journal.jsonl");
    let imported = |imported| ImportedJournal { journal: journal(), run: run(), imported };
    let damaged = DamagedJournal {
        journal: journal(),
        run: Some(run()),
        line: 7,
        reason: "it is identical to line 3".to_owned(),
        newer: false,
        resumable: true,
        moved: Ok(PathBuf::from("runs/a1/journal.damaged.jsonl")),
    };
    let imports = [
        JournalImport { runs: vec![imported(1)], ..JournalImport::default() },
        JournalImport { runs: vec![imported(2), imported(3)], ..JournalImport::default() },
        JournalImport {
            damaged: vec![
                damaged.clone(),
                DamagedJournal { resumable: false, ..damaged.clone() },
                DamagedJournal { run: None, newer: true, ..damaged.clone() },
                DamagedJournal { moved: Err("permission denied".to_owned()), ..damaged.clone() },
            ],
            ..JournalImport::default()
        },
        JournalImport { damaged: vec![damaged; 7], ..JournalImport::default() },
    ];
    let text: Vec<String> = imports.iter().map(|import| import.messages().join("\n")).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}
