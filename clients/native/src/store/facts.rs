//! Single values: who is logged in here, with what, and up to which feed version everything is stored.

use super::{Store, StoreError, schema};
use crate::model::Identity;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use wire_protocol::ids::{DeviceId, UserId};

pub(super) const FEED_VERSION: &str = "feed version";
pub(super) const RESTORES: &str = "restores";
pub(super) const RESUME_TOKEN: &str = "resume token";
const REFRESH_TOKEN: &str = "refresh token";
const ACCESS_TOKEN: &str = "access token";
const ACCESS_ENDS: &str = "access token ends";
const USER: &str = "user";
const DEVICE: &str = "device";
const USERNAME: &str = "username";
const DISPLAY_NAME: &str = "display name";

/// What proves the identity to the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Rotates with each use.
    pub refresh_token: String,
    /// The newest access token.
    pub access_token: String,
    /// When it ends by the device's clock, milliseconds since 1970.
    pub access_ends_ms: u64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("access_ends_ms", &self.access_ends_ms).finish_non_exhaustive()
    }
}

impl Store {
    /// Who is logged in here.
    pub fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let text = |name| Ok::<_, StoreError>(read_text(&self.connection, name)?.unwrap_or_default());
        let (Some(user), Some(device)) = (self.id(USER)?, self.id(DEVICE)?) else { return Ok(None) };
        let (username, display_name) = (text(USERNAME)?, text(DISPLAY_NAME)?);
        Ok(Some(Identity { user: UserId(user), device: DeviceId(device), username, display_name }))
    }

    fn id(&self, name: &str) -> Result<Option<[u8; 16]>, StoreError> {
        let Some(bytes) = read_fact(&self.connection, name)? else { return Ok(None) };
        bytes.try_into().map(Some).map_err(|_| StoreError::Damaged("an id"))
    }

    /// What the identity proves itself with; `None` after a log out.
    pub fn credentials(&self) -> Result<Option<Credentials>, StoreError> {
        let Some(refresh_token) = read_text(&self.connection, REFRESH_TOKEN)? else { return Ok(None) };
        let access_token = read_text(&self.connection, ACCESS_TOKEN)?.unwrap_or_default();
        let access_ends_ms = read_count(&self.connection, ACCESS_ENDS)?;
        Ok(Some(Credentials { refresh_token, access_token, access_ends_ms }))
    }

    /// A new log in. Another user than before finds nothing of the earlier one. The same user has a new device
    /// id, and with it the server would take repeats of the old device's messages for new ones: those that
    /// were attempted wait for the user's decision.
    pub fn set_identity(&mut self, identity: &Identity, credentials: &Credentials) -> Result<(), StoreError> {
        let before = self.identity()?;
        self.write(|transaction| {
            if before.as_ref().is_some_and(|before| before.user != identity.user) {
                transaction.execute_batch(schema::WIPE)?;
            }
            if before.as_ref().is_some_and(|before| before.device != identity.device) {
                transaction.execute(
                    "UPDATE outbox SET refusal = 0 WHERE refusal IS NULL AND first_attempt_ms IS NOT NULL",
                    [],
                )?;
                transaction
                    .execute("UPDATE conversations SET delivered_confirmed = 0, read_confirmed = 0", [])?;
            }
            write_fact(transaction, USER, &identity.user.0)?;
            write_fact(transaction, DEVICE, &identity.device.0)?;
            write_fact(transaction, USERNAME, identity.username.as_bytes())?;
            write_fact(transaction, DISPLAY_NAME, identity.display_name.as_bytes())?;
            remove_fact(transaction, RESUME_TOKEN)?;
            write_credentials(transaction, credentials)
        })
    }

    /// New tokens of the same identity.
    pub fn set_credentials(&mut self, credentials: &Credentials) -> Result<(), StoreError> {
        self.write(|transaction| write_credentials(transaction, credentials))
    }

    /// The tokens are void. Messages and outbox stay for the next log in of the same user.
    pub fn forget_credentials(&mut self) -> Result<(), StoreError> {
        self.write(|transaction| {
            [REFRESH_TOKEN, ACCESS_TOKEN, ACCESS_ENDS, RESUME_TOKEN]
                .iter()
                .try_for_each(|name| remove_fact(transaction, name))
        })
    }
}

fn write_credentials(transaction: &Transaction<'_>, credentials: &Credentials) -> Result<(), StoreError> {
    write_fact(transaction, REFRESH_TOKEN, credentials.refresh_token.as_bytes())?;
    write_fact(transaction, ACCESS_TOKEN, credentials.access_token.as_bytes())?;
    write_fact(transaction, ACCESS_ENDS, &credentials.access_ends_ms.to_be_bytes())
}

/// One value.
pub(super) fn read_fact(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM facts WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0)).optional()?)
}

fn read_text(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let text = read_fact(connection, name)?.map(String::from_utf8).transpose();
    text.map_err(|_| StoreError::Damaged("a text"))
}

/// One number; 0 if it is not there.
pub(super) fn read_count(connection: &Connection, name: &str) -> Result<u64, StoreError> {
    Ok(read_number(connection, name)?.unwrap_or(0))
}

/// One number.
pub(super) fn read_number(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let Some(bytes) = read_fact(connection, name)? else { return Ok(None) };
    bytes.try_into().map(|bytes| Some(u64::from_be_bytes(bytes))).map_err(|_| StoreError::Damaged("a number"))
}

/// Sets one value.
pub(super) fn write_fact(transaction: &Transaction<'_>, name: &str, value: &[u8]) -> Result<(), StoreError> {
    let mut statement =
        transaction.prepare_cached("INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)")?;
    statement.execute(params![name, value])?;
    Ok(())
}

/// Removes one value.
pub(super) fn remove_fact(transaction: &Transaction<'_>, name: &str) -> Result<(), StoreError> {
    transaction.prepare_cached("DELETE FROM facts WHERE name = ?1")?.execute([name])?;
    Ok(())
}
