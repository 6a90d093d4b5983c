//! The database file.

use super::error::StoreError;
use super::file_system::beside;
use super::schema;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long to wait for another harness that is writing.
const PATIENCE: Duration = Duration::from_secs(5);

/// How to open a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading and writing; the file and its directory are created if missing.
    ReadWrite,
    /// For reading; the file must exist.
    ReadOnly,
}

/// An open database with the latest schema.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// The directory of the copy that is read instead.
    #[expect(dead_code, reason = "deletes the copy when dropped")]
    folder: Option<TempDir>,
}

impl Store {
    /// Opens a database.
    ///
    /// # Errors
    /// If it cannot be opened, is damaged or locked, or belongs to another program or a later version.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        Self::open_with(path, access, PATIENCE)
    }

    /// Opens a database; waits up to `patience` for other processes.
    #[doc(hidden)]
    pub fn open_with(path: &Path, access: Access, patience: Duration) -> Result<Self, StoreError> {
        match access {
            Access::ReadWrite => Self::open_to_write(path, patience),
            Access::ReadOnly => Self::open_to_read(path, patience),
        }
    }

    fn open_to_write(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: folder.to_path_buf(), source })?;
        }
        check_kind(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = connect(path, flags, patience)?;
        // Before any change.
        schema::version(&connection, path)?;
        write_ahead(&connection, patience).map_err(|source| StoreError::new(path, "open results", source))?;
        schema::migrate(&connection, path)?;
        Ok(Self { connection, path: path.to_path_buf(), folder: None })
    }

    /// A database of an earlier version is read from a migrated copy.
    fn open_to_read(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        let (found, connection, folder) = connect_to_read(path, patience)?;
        if found == schema::latest() {
            return Ok(Self { connection, path: path.to_path_buf(), folder });
        }
        drop(connection);
        let folder =
            TempDir::new().map_err(|source| StoreError::Folder { path: std::env::temp_dir(), source })?;
        let copy = Self::copy(path, &folder.path().join("earlier.db"))?;
        Ok(Self { folder: Some(folder), ..copy })
    }

    /// A migrated copy of a database of any known version. The original is not changed. Errors name the original.
    pub(super) fn copy(original: &Path, copy: &Path) -> Result<Self, StoreError> {
        let error = |source| StoreError::new(original, "read results", source);
        // Keeps a temporary copy until the new one is complete.
        let (found, connection, _folder) = connect_to_read(original, PATIENCE)?;
        if found == 0 {
            return Err(StoreError::Empty { path: original.to_path_buf() });
        }
        // SQL is UTF-8.
        let Some(name) = copy.to_str() else {
            return Err(StoreError::TemporaryFolder { path: std::env::temp_dir() });
        };
        // Includes a consistent state of the write-ahead log.
        connection.execute("VACUUM INTO ?1", [name]).map_err(error)?;
        drop(connection);
        let connection = connect(copy, OpenFlags::SQLITE_OPEN_READ_WRITE, PATIENCE)?;
        let verdict: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(error)?;
        let dangling = schema::dangling(&connection).map_err(error)?;
        let detail = match (verdict.as_str(), dangling) {
            ("ok", None) => None,
            ("ok", Some(table)) => Some(format!("rows of the table {table} have invalid references")),
            (found, _) => Some(found.to_owned()),
        };
        if let Some(detail) = detail {
            return Err(StoreError::Corrupt { path: original.to_path_buf(), detail });
        }
        schema::migrate(&connection, original)?;
        Ok(Self { connection, path: original.to_path_buf(), folder: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A connection that only reads, the version of what is there, and the folder of the copy that is read in its stead, if
/// one was needed.
fn connect_to_read(
    path: &Path,
    patience: Duration,
) -> Result<(u32, Connection, Option<TempDir>), StoreError> {
    if !path.exists() {
        return Err(StoreError::Missing { path: path.to_path_buf() });
    }
    check_kind(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let opened = connect(path, flags, patience)
        .and_then(|connection| Ok((schema::version(&connection, path)?, connection)));
    match opened {
        Ok((version, connection)) => Ok((version, connection, None)),
        // On read-only media there is no place for the files in which readers of a write-ahead log meet; but nobody
        // writes there either.
        Err(StoreError::CannotOpen { .. } | StoreError::ReadOnly { .. }) => {
            let log = beside(path, "-wal");
            if std::fs::metadata(&log).is_ok_and(|log| log.is_file() && log.len() > 0) {
                return connect_to_copy(path, &log, patience);
            }
            let uri = immutable(path);
            let connection = connect(Path::new(&uri), flags | OpenFlags::SQLITE_OPEN_URI, patience)
                .map_err(|error| error.about(path))?;
            Ok((schema::version(&connection, path)?, connection, None))
        }
        Err(error) => Err(error),
    }
}

/// A connection to a copy of a database with the write-ahead log that a crash left. Without the log, the last results
/// would be missing.
fn connect_to_copy(
    path: &Path,
    log: &Path,
    patience: Duration,
) -> Result<(u32, Connection, Option<TempDir>), StoreError> {
    let failed = |source| StoreError::Folder { path: std::env::temp_dir(), source };
    let folder = TempDir::new().map_err(failed)?;
    let copy = folder.path().join("copy.db");
    std::fs::copy(path, &copy).map_err(failed)?;
    std::fs::copy(log, beside(&copy, "-wal")).map_err(failed)?;
    let connection =
        connect(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE, patience).map_err(|error| error.about(path))?;
    Ok((schema::version(&connection, path)?, connection, Some(folder)))
}

/// Refuses paths that are not regular files. `SQLite` would report only that it cannot open them, or block on a FIFO.
fn check_kind(path: &Path) -> Result<(), StoreError> {
    let Ok(found) = std::fs::metadata(path) else { return Ok(()) };
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        _ => "a FIFO, socket or device",
    };
    Err(StoreError::NotAFile { path: path.to_path_buf(), what })
}

fn connect(path: &Path, flags: OpenFlags, patience: Duration) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(patience)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Without this, `SQLite` prepares a statement again for each new value to find a better plan, which took a third of
        // the time of a report of many trials.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| StoreError::new(path, "open results", source))
}

/// Switches to the write-ahead log, so that reports can read while a run is written. `SQLite` itself does not wait if two
/// processes do this at the same time.
fn write_ahead(connection: &Connection, patience: Duration) -> rusqlite::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => break other?,
        }
    }
    // The journal survives a power failure; missing records are imported from it.
    connection.pragma_update(None, "synchronous", "normal")
}

/// The path as a URI with `immutable=1`: no process changes the file.
fn immutable(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            // Writing to a String does not fail.
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri + "?immutable=1"
}
