//! Columns and our types. SQLite has signed 64-bit integers: ids are kept by their bits, counts by their value.

use super::StoreError;
use rusqlite::Row;
use wire_protocol::ids::{ClientMessageId, ConversationId, UserId};

/// A count, a sequence number or a time as a column.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A client message id as a column: the same bits.
pub(super) fn id_bits(id: ClientMessageId) -> i64 {
    id.0.cast_signed()
}

/// A count, a sequence number or a time from a column.
pub(super) fn read_number(row: &Row<'_>, column: &str) -> Result<u64, StoreError> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Damaged("a negative number"))
}

/// A small number from a column.
pub(super) fn read_small(row: &Row<'_>, column: &str) -> Result<u32, StoreError> {
    let value: i64 = row.get(column)?;
    u32::try_from(value).map_err(|_| StoreError::Damaged("a number out of range"))
}

/// A client message id from a column.
pub(super) fn read_id_bits(row: &Row<'_>, column: &str) -> Result<Option<ClientMessageId>, StoreError> {
    let bits: Option<i64> = row.get(column)?;
    Ok(bits.map(|bits| ClientMessageId(bits.cast_unsigned())))
}

/// A conversation id from a column.
pub(super) fn read_conversation(row: &Row<'_>, column: &str) -> Result<ConversationId, StoreError> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(ConversationId(bytes))
}

/// A user id from a column.
pub(super) fn read_user(row: &Row<'_>, column: &str) -> Result<UserId, StoreError> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(UserId(bytes))
}
