//! What survives: entries, cursors, outbox, feed version, identity, tokens, in one SQLite file.
//!
//! One thread of its own owns the file ([`thread`]), since a sync blocks. Everything that one turn of the
//! engine wrote is one transaction; when [`Store::commit`] returns, it is on disk. After a failed commit the
//! store takes no more writes until it is opened again. Knows nothing of connections.

mod schema;
mod rows;
mod facts;
mod apply;
mod snapshot;
mod reads;
pub(crate) mod thread;

pub use facts::Credentials;

use crate::engine::Write;
use rusqlite::{Connection, ErrorCode};
use std::path::Path;

/// Name of the database inside the store's folder.
const FILE_NAME: &str = "client.sqlite3";

/// What went wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("store folder: {0}")]
    Folder(#[from] std::io::Error),
    /// Another process has it open.
    #[error("the store is in use by another process")]
    InUse,
    /// Written by another version of this library.
    #[error("the store has format {found}, this library knows {known}")]
    Version {
        /// In the file.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database engine said no.
    #[error("store: {0}")]
    Database(rusqlite::Error),
    /// A row that this library did not write like that.
    #[error("damaged store: {0}")]
    Damaged(&'static str),
    /// An earlier write failed: open the store again.
    #[error("the store failed earlier and must be opened again")]
    Failed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse,
            _ => StoreError::Database(error),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    failed: bool,
}

impl Store {
    /// Opens or makes the store in `folder`.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_private_folder(folder)?;
        let file = folder.join(FILE_NAME);
        make_private_file(&file)?;
        let mut connection = Connection::open(&file)?;
        connection.busy_timeout(std::time::Duration::ZERO)?;
        schema::prepare(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, failed: false })
    }

    /// Writes all or nothing; durable on return. After an error nothing more is taken.
    pub fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.write(|transaction| writes.iter().try_for_each(|write| apply::apply(transaction, write)))
    }

    fn write(
        &mut self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        let outcome = (|| {
            let transaction = self.connection.transaction()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        })();
        self.failed = outcome.is_err();
        outcome
    }

    /// Forgets the user and everything of theirs.
    pub fn wipe(&mut self) -> Result<(), StoreError> {
        self.write(|transaction| Ok(transaction.execute_batch(schema::WIPE)?))
    }
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// The file holds a refresh token: nobody else on the machine reads it. SQLite gives its side files the same
/// mode.
#[cfg(unix)]
fn make_private_file(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file).map(drop)
}

#[cfg(not(unix))]
fn make_private_file(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
