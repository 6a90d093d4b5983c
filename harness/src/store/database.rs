//! The database file.

use super::error::StoreError;
use super::schema;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for another harness that is writing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Also to write; the file and its folder are made where they are missing.
    ReadWrite,
    /// To read only; the file must be there.
    ReadOnly,
}

/// An open database of the latest schema.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
}

impl Store {
    /// Opens a database.
    ///
    /// # Errors
    /// Where it cannot be opened, is none of ours, is damaged or locked, or was written by a later version.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        Self::open_with(path, access, PATIENCE)
    }

    /// Opens a database and waits so long for others.
    pub(super) fn open_with(path: &Path, access: Access, patience: Duration) -> Result<Self, StoreError> {
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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = connect(path, flags, patience)?;
        // Before anything is changed.
        schema::version(&connection, path)?;
        write_ahead(&connection, patience).map_err(|source| StoreError::new(path, "open results", source))?;
        schema::migrate(&connection, path)?;
        Ok(Self { connection, path: path.to_path_buf() })
    }

    fn open_to_read(path: &Path, patience: Duration) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_path_buf() });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let opened = connect(path, flags, patience)
            .and_then(|connection| Ok((schema::version(&connection, path)?, connection)));
        let (found, connection) = match opened {
            // On read-only media there is no place for the files in which readers of a write-ahead log meet; but
            // nobody writes there either.
            Err(StoreError::CannotOpen { .. } | StoreError::ReadOnly { .. }) => {
                let connection =
                    connect(Path::new(&immutable(path)), flags | OpenFlags::SQLITE_OPEN_URI, patience)?;
                (schema::version(&connection, path)?, connection)
            }
            other => other?,
        };
        if found != schema::latest() {
            let (path, known) = (path.to_path_buf(), schema::latest());
            return Err(StoreError::OlderSchema { path, found, known });
        }
        Ok(Self { connection, path: path.to_path_buf() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn connect(path: &Path, flags: OpenFlags, patience: Duration) -> Result<Connection, StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(patience)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| StoreError::new(path, "open results", source))
}

/// Switches to the write-ahead log, so that reports read while a harness writes. `SQLite` does not wait by itself
/// where two do this at the same time.
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
    // The journal of the run is what must survive a power cut; the database is brought up to it again.
    connection.pragma_update(None, "synchronous", "normal")
}

/// The path as a URI that says that nobody changes the file.
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
