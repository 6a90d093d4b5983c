//! The schema of the database, as migrations: one SQL file per version.
//!
//! # Rules of a migration
//! - Once it is released, only its comments are changed. `tests/databases/` keeps a small database of each version, made
//!   by the code of that version, and the tests migrate each of them to the latest version.
//! - Rows that belong to a run refer to their owner with `ON DELETE CASCADE`, all other references are to rows that
//!   runs share: merging of databases follows these (see [`merge`](super::merge)).
//! - A table whose checks must change is created under another name, filled, and renamed. Foreign keys are not
//!   enforced while migrations run, or dropping the old table would delete what refers to it; they are checked before
//!   anything is kept.

use super::error::StoreError;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;

/// `migrations[n]` leads from version n to n + 1.
pub const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_power.sql"),
    include_str!("migrations/0003_peers.sql"),
    include_str!("migrations/0004_campaigns.sql"),
    include_str!("migrations/0005_state.sql"),
    include_str!("migrations/0006_processors.sql"),
    include_str!("migrations/0007_operating_points.sql"),
    include_str!("migrations/0008_merged_processors.sql"),
    include_str!("migrations/0009_streams.sql"),
    include_str!("migrations/0010_power_cycles.sql"),
    include_str!("migrations/0011_queues.sql"),
    include_str!("migrations/0012_replicas.sql"),
    include_str!("migrations/0013_trial_predictions.sql"),
];

/// Marks a file as ours (`PRAGMA application_id`): `EdgP` in ASCII.
const APPLICATION: i32 = 0x4564_6750;

/// The version this harness writes.
pub fn latest() -> u32 {
    version_after(MIGRATIONS)
}

fn version_after(migrations: &[&str]) -> u32 {
    u32::try_from(migrations.len()).unwrap_or(u32::MAX)
}

/// The version of a database, 0 for an empty one; refuses a file that edgepipe did not create, or that a later version did.
pub fn version(connection: &Connection, path: &Path) -> Result<u32, StoreError> {
    version_up_to(latest(), connection, path)
}

fn version_up_to(known: u32, connection: &Connection, path: &Path) -> Result<u32, StoreError> {
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
    if found > known {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known });
    }
    Ok(found)
}

/// Brings a database to the latest version, in one transaction: if that fails, the file is unchanged.
pub fn migrate(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    migrate_by(MIGRATIONS, connection, path)
}

/// The same by other migrations than those of this version.
pub fn migrate_by(migrations: &[&str], connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if version_up_to(version_after(migrations), connection, path)? == version_after(migrations) {
        return Ok(());
    }
    let error = |source| StoreError::new(path, "update the schema", source);
    // Has no effect within a transaction.
    connection.pragma_update(None, "foreign_keys", false).map_err(error)?;
    let migrated = migrate_unenforced(migrations, connection, path);
    connection.pragma_update(None, "foreign_keys", true).map_err(error)?;
    migrated
}

fn migrate_unenforced(migrations: &[&str], connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let error = |source| StoreError::new(path, "update the schema", source);
    let transaction =
        Transaction::new_unchecked(connection, TransactionBehavior::Immediate).map_err(error)?;
    // Another harness may have done it while this one waited for the lock.
    let found = version_up_to(version_after(migrations), &transaction, path)?;
    for migration in migrations.iter().skip(found as usize) {
        transaction.execute_batch(migration).map_err(error)?;
    }
    if let Some(table) = dangling(&transaction).map_err(error)? {
        return Err(StoreError::Migration { path: path.to_path_buf(), found, table });
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(error)?;
    transaction.pragma_update(None, "user_version", version_after(migrations)).map_err(error)?;
    transaction.commit().map_err(error)
}

/// A table with a row that refers to nothing.
pub fn dangling(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = statement.query([])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}
