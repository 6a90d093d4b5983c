//! `results/SCHEMA.md`, generated from the comments of the migrations and the tables of a new database.

use crate::fixture::Place;
use crate::schema::{MIGRATIONS, latest};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Comments of the migrations, by table and column; a table's own is that of the column "".
type Comments = BTreeMap<(String, String), String>;

const INTRODUCTION: &str = "\
# Schema of the results database

Generated from `harness/store/src/migrations` by `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p store \
schema_of_the_database_is_documented`. A test checks that this page is up to date.

One SQLite file contains any number of runs of any number of boards. Raw observations are written once and never changed.
Reports compute everything else from them. A value that was not observed is NULL or has no row; it is never 0.
Times are in nanoseconds; `unix_ns` counts from 1970 (UTC). JSON columns have the type TEXT.

Columns of samples are BLOBs. A *series* of n integers is stored as n, followed by the difference of each integer to the
previous one (of the first to 0). Differences are zigzag-encoded (0, -1, 1, -2 … become 0, 1, 2, 3 …). Every number is
stored as LEB128. The code is in `domain/src/packed.rs`.

";

fn comments() -> Comments {
    let mut comments = Comments::new();
    let mut tables: Vec<(String, String)> = Vec::new();
    for migration in MIGRATIONS {
        let (mut pending, mut table) = (Vec::new(), None::<String>);
        for line in migration.lines().map(str::trim) {
            let words: Vec<&str> = line.split([' ', '(', ';']).filter(|word| !word.is_empty()).collect();
            if let Some(comment) = line.strip_prefix("--") {
                pending.push(comment.trim().to_owned());
                continue;
            }
            let comment = std::mem::take(&mut pending).join(" ");
            match (table.clone(), words.as_slice()) {
                (None, ["CREATE", "TABLE", name, ..]) => {
                    comments.insert(((*name).to_owned(), String::new()), comment);
                    table = Some((*name).to_owned());
                }
                (None, ["ALTER", "TABLE", name, "ADD", "COLUMN", column, ..]) => {
                    comments.insert(((*name).to_owned(), (*column).to_owned()), comment);
                }
                (None, ["ALTER", "TABLE", old, "RENAME", "TO", new]) => {
                    tables.push(((*old).to_owned(), (*new).to_owned()));
                }
                (Some(_), _) if line.starts_with(')') => table = None,
                (Some(name), [column, ..]) => {
                    comments.insert((name, (*column).to_owned()), comment);
                }
                _ => {}
            }
        }
        for (old, new) in tables.drain(..) {
            let (moved, kept): (Comments, Comments) =
                std::mem::take(&mut comments).into_iter().partition(|((table, _), _)| *table == old);
            comments = kept;
            for ((_, column), comment) in moved {
                let key = (new.clone(), column);
                // A table made anew needs no comments where it had them before.
                if !comment.is_empty() || !comments.contains_key(&key) {
                    comments.insert(key, comment);
                }
            }
        }
    }
    comments
}

fn document(connection: &Connection) -> String {
    let comments = comments();
    let comment = |table: &str, column: &str| {
        comments.get(&(table.to_owned(), column.to_owned())).cloned().unwrap_or_default()
    };
    let mut text = format!("{INTRODUCTION}This is version {} (`PRAGMA user_version`).\n", latest());
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid";
    let mut tables = connection.prepare(sql).unwrap();
    let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for table in names.map(Result::unwrap) {
        let _ = write!(text, "\n## {table}\n\n");
        let about = comment(&table, "");
        if !about.is_empty() {
            let _ = write!(text, "{about}\n\n");
        }
        text += "| column | type | meaning |\n|---|---|---|\n";
        let sql = r#"SELECT columns.name, columns.type, columns."notnull", columns.pk,
                        (SELECT "table" FROM pragma_foreign_key_list(?1) WHERE "from" = columns.name)
                     FROM pragma_table_info(?1) AS columns"#;
        let mut columns = connection.prepare(sql).unwrap();
        let mut rows = columns.query([&table]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (column, kind): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
            let (required, key): (bool, bool) = (row.get(2).unwrap(), row.get::<_, u32>(3).unwrap() > 0);
            let parent: Option<String> = row.get(4).unwrap();
            let kind = match (key, required) {
                (true, _) => format!("{kind}, key"),
                (false, true) => kind,
                (false, false) => format!("{kind} or NULL"),
            };
            let mut meaning = comment(&table, &column).replace('|', "\\|");
            if let Some(parent) = parent {
                let space = if meaning.is_empty() { "" } else { " " };
                let _ = write!(meaning, "{space}→ [{parent}](#{parent})");
            }
            let _ = writeln!(text, "| `{column}` | {kind} | {meaning} |");
        }
    }
    text
}

/// `EDGEPIPE_WRITE_SCHEMAS=1 cargo test -p store schema_of_the_database_is_documented` writes it anew.
#[test]
fn schema_of_the_database_is_documented() {
    let store = Place::new().open();
    let current = document(&store.connection);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/SCHEMA.md");
    if std::env::var_os("EDGEPIPE_WRITE_SCHEMAS").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == current,
        "{} is not current; run\nEDGEPIPE_WRITE_SCHEMAS=1 cargo test -p store schema_of_the_database_is_documented",
        file.display()
    );
}
