//! Unique names: directory entries in the slot of the name's hash.
//!
//! ```text
//! free --claim--> claimed --confirm--> confirmed (for ever)
//!   ^                |
//!   +-- NAME_CLAIM_MS without confirmation
//! ```
//! An expired claim is as good as none, whether or not its row is still there.

use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Stop, Turn, invalid, user_id};
use crate::engine::{Reader, StoreError, keys};
use bytes::Bytes;
use wire_protocol::ids::UserId;
use wire_protocol::internal::{Accepted, ClaimName, ConfirmName, NameRecord, ReadName, answer, outcome};
use wire_protocol::limits::NAME_CLAIM_MS;
use wire_protocol::v1::ErrorCode;

/// Longest name, in bytes: an e-mail address.
const NAME_BYTES_MAX: usize = 254;

/// Who has a name.
struct NameRow {
    user: UserId,
    claimed_ms: u64,
    confirmed: bool,
}

impl NameRow {
    fn load(reader: &dyn Reader, name: &str) -> Result<Option<NameRow>, StoreError> {
        let Some(row) = reader.value(&keys::name(name))? else { return Ok(None) };
        let mut row = RowReader::new("name", row)?;
        let claimed_ms = row.fixed()?;
        let confirmed = row.byte()? == 1;
        let user = UserId::from_slice(&row.bytes(16)?).ok_or_else(|| row.damaged("user id"))?;
        if row.rest() != name.as_bytes() {
            return Err(StoreError::Damaged { table: "name", detail: "another name under this hash" });
        }
        Ok(Some(NameRow { user, claimed_ms, confirmed }))
    }

    /// As of a logged time: expired claims are none.
    fn load_at(reader: &dyn Reader, name: &str, now_ms: u64) -> Result<Option<NameRow>, StoreError> {
        let row = Self::load(reader, name)?;
        Ok(row.filter(|row| row.confirmed || now_ms <= row.claimed_ms.saturating_add(NAME_CLAIM_MS)))
    }

    fn to_row(&self, name: &str) -> Bytes {
        RowWriter::new(25 + name.len())
            .fixed(self.claimed_ms)
            .byte(u8::from(self.confirmed))
            .bytes(&self.user.0)
            .bytes(name.as_bytes())
            .finish()
    }
}

fn check(name: &str) -> Result<(), Stop> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX { Err(invalid("name")) } else { Ok(()) }
}

fn taken() -> Stop {
    Stop::Refused(ErrorCode::ErrorAlreadyExists, "name")
}

/// Takes a free name for a while. The same user may repeat it, which prolongs the claim.
pub(super) fn claim(turn: &mut Turn<'_, '_>, command: &ClaimName) -> Answered {
    let user = user_id(&command.user_id)?;
    check(&command.name)?;
    match NameRow::load_at(turn.overlay, &command.name, turn.time_ms)? {
        Some(row) if row.user != user => Err(taken()),
        Some(row) if row.confirmed => Ok(outcome::Kind::Accepted(Accepted {})),
        _ => {
            let row = NameRow { user, claimed_ms: turn.time_ms, confirmed: false };
            turn.overlay.put(keys::name(&command.name), row.to_row(&command.name));
            Ok(outcome::Kind::Accepted(Accepted {}))
        }
    }
}

/// Makes a claim lasting. Refused with NOT_FOUND when the claim has expired: claim again first.
pub(super) fn confirm(turn: &mut Turn<'_, '_>, command: &ConfirmName) -> Answered {
    let user = user_id(&command.user_id)?;
    check(&command.name)?;
    match NameRow::load_at(turn.overlay, &command.name, turn.time_ms)? {
        None => Err(Stop::Refused(ErrorCode::ErrorNotFound, "name: not claimed")),
        Some(row) if row.user != user => Err(taken()),
        Some(row) if row.confirmed => Ok(outcome::Kind::Accepted(Accepted {})),
        Some(row) => {
            let row = NameRow { confirmed: true, ..row };
            turn.overlay.put(keys::name(&command.name), row.to_row(&command.name));
            Ok(outcome::Kind::Accepted(Accepted {}))
        }
    }
}

/// Who has a confirmed name.
pub(super) fn owner(reader: &dyn Reader, name: &str) -> Result<Option<UserId>, StoreError> {
    Ok(NameRow::load(reader, name)?.filter(|row| row.confirmed).map(|row| row.user))
}

/// The row of a name that is this user's for ever.
pub(super) fn confirmed_row(user: UserId, name: &str, claimed_ms: u64) -> Bytes {
    NameRow { user, claimed_ms, confirmed: true }.to_row(name)
}

/// Whose a confirmed name is.
pub(super) fn read(reader: &dyn Reader, query: &ReadName) -> Result<answer::Kind, Stop> {
    check(&query.name)?;
    match NameRow::load(reader, &query.name)? {
        Some(row) if row.confirmed => Ok(answer::Kind::Name(NameRecord { user_id: row.user.to_bytes() })),
        _ => Err(Stop::Refused(ErrorCode::ErrorNotFound, "name")),
    }
}
