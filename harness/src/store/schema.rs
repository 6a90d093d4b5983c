//! The schema of the database and how it came about: one file of SQL a version.

use super::error::StoreError;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;

/// `migrations[n]` leads from version n to n + 1. They are never changed once released.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_initial.sql")];

/// Marks a file as ours (`PRAGMA application_id`): `EdgP` in ASCII.
const APPLICATION: i32 = 0x4564_6750;

/// The version this harness writes.
pub(super) fn latest() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The version of a database, 0 for an empty one; refuses what was not made by edgepipe or by a later one.
pub(super) fn version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    let pragma = |name: &str| {
        let read = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        read.map_err(|source| StoreError::new(path, "read the schema", source))
    };
    let tables = pragma("schema_version")?;
    let application = pragma("application_id")?;
    let version = pragma("user_version")?;
    if application != i64::from(APPLICATION) && (application != 0 || version != 0 || tables != 0) {
        return Err(StoreError::Foreign { path: path.to_path_buf() });
    }
    let found = u32::try_from(version).map_err(|_| StoreError::Foreign { path: path.to_path_buf() })?;
    if found > latest() {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known: latest() });
    }
    Ok(found)
}

/// Brings a database to the latest version, in one transaction.
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if version(connection, path)? == latest() {
        return Ok(());
    }
    let error = |source| StoreError::new(path, "update the schema", source);
    let transaction =
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(error)?;
    // Another harness may have done it while this one waited for the lock.
    let found = version(&transaction, path)?;
    for migration in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(migration).map_err(error)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(error)?;
    transaction.pragma_update(None, "user_version", latest()).map_err(error)?;
    transaction.commit().map_err(error)
}
