//! Users: the account row in the home shard.
//!
//! Row: `user`, the protobuf [`UserRecord`]: profile, password hash, devices in the order they were added.

use super::devices;
use super::fits_chars;
use super::turn::{Answered, Stop, Turn, invalid, user_id};
use crate::engine::{Reader, StoreError, keys};
use bytes::Bytes;
use prost::Message;
use wire_protocol::ids::{UserId, normal_username};
use wire_protocol::internal::{
    Accepted, CreateUser, Profiles, ReadProfiles, ReadUser, UserRecord, answer, outcome,
};
use wire_protocol::limits::{DISPLAY_NAME_CHARS_MAX, LOOK_UP_USERS_MAX};
use wire_protocol::v1::{ErrorCode, User};

/// Longest password hash, in bytes: a PHC string of argon2id with long parameters takes about 120.
const PASSWORD_HASH_BYTES_MAX: usize = 512;

/// The account, if there is one.
pub(super) fn load(reader: &dyn Reader, id: UserId) -> Result<Option<UserRecord>, StoreError> {
    reader.value(&keys::user(id))?.map(parse).transpose()
}

pub(super) fn parse(row: Bytes) -> Result<UserRecord, StoreError> {
    let damaged = |_| StoreError::Damaged { table: "user", detail: "no user record" };
    UserRecord::decode(row).map_err(damaged)
}

pub(super) fn store(turn: &mut Turn<'_, '_>, id: UserId, user: &UserRecord) {
    turn.overlay.put(keys::user(id), user.encode_to_vec());
}

/// Makes an account with its first device. Repeating it changes nothing; another account under the same id is
/// refused.
pub(super) fn create(turn: &mut Turn<'_, '_>, command: &CreateUser) -> Answered {
    let id = user_id(&command.user_id)?;
    if normal_username(&command.username).as_ref() != Some(&command.username) {
        return Err(invalid("username: not in its normal form"));
    }
    if !fits_chars(&command.display_name, DISPLAY_NAME_CHARS_MAX) {
        return Err(invalid("display_name: too long"));
    }
    if command.password_hash.len() > PASSWORD_HASH_BYTES_MAX {
        return Err(invalid("password_hash: too long"));
    }
    let device = devices::check(command.device.as_ref(), turn.time_ms)?;
    if let Some(user) = load(turn.overlay, id)? {
        let same = user.username == command.username && user.password_hash == command.password_hash;
        return if same {
            Ok(outcome::Kind::Accepted(Accepted {}))
        } else {
            Err(Stop::Refused(ErrorCode::ErrorAlreadyExists, "user_id"))
        };
    }
    let user = UserRecord {
        user_id: command.user_id.clone(),
        username: command.username.clone(),
        display_name: command.display_name.clone(),
        password_hash: command.password_hash.clone(),
        devices: vec![device],
        created_ms: turn.time_ms,
    };
    store(turn, id, &user);
    Ok(outcome::Kind::Accepted(Accepted {}))
}

/// The whole account: for log in, refresh and attaching sessions, never for other users.
pub(super) fn read(reader: &dyn Reader, query: &ReadUser) -> Result<answer::Kind, Stop> {
    let id = user_id(&query.user_id)?;
    let user = load(reader, id)?.ok_or(Stop::Refused(ErrorCode::ErrorNotFound, "user"))?;
    Ok(answer::Kind::User(user))
}

/// What other users may see of those that exist, in the order they were asked for.
pub(super) fn read_profiles(reader: &dyn Reader, query: &ReadProfiles) -> Result<answer::Kind, Stop> {
    if query.user_ids.len() > LOOK_UP_USERS_MAX {
        return Err(invalid("user_ids: too many"));
    }
    let mut users = Vec::with_capacity(query.user_ids.len());
    for id in &query.user_ids {
        if let Some(user) = load(reader, user_id(id)?)? {
            users.push(User {
                user_id: user.user_id,
                username: user.username,
                display_name: user.display_name,
            });
        }
    }
    Ok(answer::Kind::Profiles(Profiles { users }))
}
