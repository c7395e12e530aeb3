//! Tables and their version.

use super::StoreError;
use rusqlite::Connection;

/// Version of the tables below, kept in the database file itself.
const FORMAT_VERSION: i64 = 1;

const TABLES: &str = "
-- Identity, tokens, feed version: see names in facts.rs.
CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- low, high: the window of entries without a gap, 0 if nothing is here; head: newest known.
-- unread counts by the server's word while the window begins above the read cursor.
CREATE TABLE conversations (
    id BLOB PRIMARY KEY,
    kind INTEGER NOT NULL,
    title TEXT NOT NULL,
    own_ordinal INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    unread INTEGER NOT NULL,
    unread_at INTEGER NOT NULL,
    low INTEGER NOT NULL DEFAULT 0,
    high INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL DEFAULT 0,
    read_up_to INTEGER NOT NULL DEFAULT 0,
    delivered_confirmed INTEGER NOT NULL DEFAULT 0,
    read_confirmed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE members (
    conversation BLOB NOT NULL,
    ordinal INTEGER NOT NULL,
    user BLOB NOT NULL,
    delivered INTEGER NOT NULL,
    read INTEGER NOT NULL,
    PRIMARY KEY (conversation, ordinal)
) WITHOUT ROWID;

-- Also own accepted messages above the window, until the gap before them is filled.
CREATE TABLE entries (
    conversation BLOB NOT NULL,
    seq INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    body BLOB NOT NULL,
    client_message_id INTEGER,
    PRIMARY KEY (conversation, seq)
) WITHOUT ROWID;

-- refusal: NULL on its way, 0 unconfirmed, else the server's error code.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation BLOB NOT NULL,
    client_message_id INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    body BLOB NOT NULL,
    queued_ms INTEGER NOT NULL,
    first_attempt_ms INTEGER,
    refusal INTEGER,
    refusal_detail TEXT NOT NULL DEFAULT '',
    UNIQUE (conversation, client_message_id)
);

CREATE TABLE users (
    id BLOB PRIMARY KEY,
    username TEXT NOT NULL,
    display_name TEXT NOT NULL
) WITHOUT ROWID;
";

/// Makes the tables in a new file, checks the version of an old one. Each commit is synced (`FULL`), and the
/// file belongs to one process at a time (`EXCLUSIVE`).
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
        }
        FORMAT_VERSION => {}
        found => return Err(StoreError::Version { found, known: FORMAT_VERSION }),
    }
    transaction.commit()?;
    Ok(())
}

/// Everything of one user leaves.
pub(super) const WIPE: &str = "
DELETE FROM facts; DELETE FROM conversations; DELETE FROM members; DELETE FROM entries; DELETE FROM outbox;
DELETE FROM users;
";

/// Everything that a server told goes, but for names.
pub(super) const FORGET: &str = "DELETE FROM conversations; DELETE FROM members; DELETE FROM entries;";
