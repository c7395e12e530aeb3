//! Register, log in, refresh.
//!
//! A registration claims the name, creates the user, confirms the name. Whatever interrupts it before the end,
//! nobody owns a half: the claim runs out after `NAME_CLAIM_MS` and the name is free again. A user record that
//! was made by then stays without a name, so nobody can log in to it: some 200 bytes, never more than the
//! password hashes that were paid for.

use super::failure::Failure;
use super::fields::{LogIn, Object, Registration};
use super::ingress::Client;
use super::routes::{Account, REQUEST_MS_MAX};
use crate::admission::attempts::Attempt;
use crate::domain::auth::{REFRESH_SECRET_BYTES, RefreshToken};
use crate::worker::mailbox::ShardKey;
use serde::Serialize;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::{
    AddDevice, ClaimName, ConfirmName, CreateUser, Device, ReadName, ReadUser, RotateRefresh, UserRecord,
};
use wire_protocol::internal::{answer, command, query};
use wire_protocol::limits::NAME_CLAIM_MS;
use wire_protocol::v1::ErrorCode;

const _: () = {
    // A registration is over, one way or the other, before its claim runs out.
    assert!(2 * REQUEST_MS_MAX <= NAME_CLAIM_MS);
};

/// Answer to register and log in. Holds tokens: never printed.
#[derive(Serialize)]
pub(super) struct LoggedIn {
    user_id: String,
    device_id: String,
    username: String,
    display_name: String,
    #[serde(flatten)]
    tokens: Tokens,
}

/// Answer to refresh, and a part of [`LoggedIn`]. Never printed.
#[derive(Serialize)]
pub(super) struct Tokens {
    access_token: String,
    expires_in_s: u64,
    /// Not for a browser, which has it as a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip)]
    refresh: RefreshToken,
}

impl LoggedIn {
    /// Takes the refresh token out of the answer.
    pub(super) fn take_refresh(&mut self) -> &RefreshToken {
        self.tokens.take_refresh()
    }
}

impl Tokens {
    /// Takes the refresh token out of the answer.
    pub(super) fn take_refresh(&mut self) -> &RefreshToken {
        self.refresh_token = None;
        &self.refresh
    }
}

/// `POST /v1/register`.
pub(super) async fn register(account: &Account, client: Client, object: Object) -> Result<LoggedIn, Failure> {
    let registration = Registration::read(object)?;
    let Registration { username, display_name, password, device_name } = registration;
    account.attempts.admit(client, Attempt::Register, (account.now)())?;
    let place = account.passwords.admit()?;
    let user = UserId(random()?);
    let (refresh, device) = new_device(account, user, device_name)?;
    let (name_shard, home_shard) = (ShardKey::Name(username.clone()), ShardKey::User(user));

    let claim = ClaimName { name: username.clone(), user_id: user.to_bytes() };
    account.storage.command(&name_shard, command::Kind::ClaimName(claim)).await.map_err(name_taken)?;

    let create = CreateUser {
        user_id: user.to_bytes(),
        username: username.clone(),
        display_name: display_name.clone(),
        password_hash: place.hash(password).await?,
        device: Some(device),
    };
    account.storage.command(&home_shard, command::Kind::CreateUser(create)).await?;

    let confirm = ConfirmName { name: username.clone(), user_id: user.to_bytes() };
    account.storage.command(&name_shard, command::Kind::ConfirmName(confirm)).await.map_err(claim_lost)?;
    Ok(logged_in(account, refresh, username, display_name)?)
}

/// `POST /v1/login`. An unknown name costs as much time as a wrong password: the same reads, the same hash.
pub(super) async fn log_in(account: &Account, client: Client, object: Object) -> Result<LoggedIn, Failure> {
    let log_in = LogIn::read(object)?;
    account.attempts.admit(client, Attempt::LogIn, (account.now)())?;
    let guess = account.attempts.guess(log_in.username.as_deref(), (account.now)())?;
    let logged_in = try_log_in(account, log_in).await;
    if logged_in.as_ref().is_err_and(Failure::is_unauthenticated) {
        guess.failed();
    }
    logged_in
}

async fn try_log_in(account: &Account, log_in: LogIn) -> Result<LoggedIn, Failure> {
    let LogIn { username, password, device_name } = log_in;
    let place = account.passwords.admit()?;
    let named = match username {
        Some(username) => find_name(account, username).await?,
        None => None,
    };
    // Nobody has this random id: the read finds nothing, after the time that finding something takes.
    let user = named.map_or_else(|| random().map(UserId), Ok)?;
    let record = read_user(account, user).await?;
    let hash = record.as_ref().map(|record| record.password_hash.clone());
    let right = place.verify(password, hash).await?;
    let Some(record) = record.filter(|_| right) else {
        return Err(
            RequestError::new(ErrorCode::ErrorUnauthenticated, "username or password is wrong").into()
        );
    };
    let (refresh, device) = new_device(account, user, device_name)?;
    let add = AddDevice { user_id: user.to_bytes(), device: Some(device) };
    account.storage.command(&ShardKey::User(user), command::Kind::AddDevice(add)).await?;
    Ok(logged_in(account, refresh, record.username, record.display_name)?)
}

/// `POST /v1/refresh`: the old token ends when the new one is used; until then repeating this gives the same one.
pub(super) async fn refresh(account: &Account, client: Client, old: RefreshToken) -> Result<Tokens, Failure> {
    account.attempts.admit(client, Attempt::Refresh, (account.now)())?;
    let new = account.issuer.next_refresh(&old);
    let rotate = RotateRefresh {
        user_id: old.user.to_bytes(),
        device_id: old.device.to_bytes(),
        old_hash: old.hash(),
        new_hash: new.hash(),
    };
    let rotated =
        account.storage.command(&ShardKey::User(old.user), command::Kind::RotateRefresh(rotate)).await;
    rotated.map_err(|error| match error.code {
        // That there is no such user or device is none of a stranger's business.
        ErrorCode::ErrorNotFound | ErrorCode::ErrorUnauthenticated => {
            RequestError::new(ErrorCode::ErrorUnauthenticated, "refresh_token: not valid, or used before")
        }
        _ => error,
    })?;
    Ok(tokens(account, &new)?)
}

fn name_taken(error: RequestError) -> RequestError {
    match error.code {
        ErrorCode::ErrorAlreadyExists => RequestError::new(ErrorCode::ErrorAlreadyExists, "username: taken"),
        _ => error,
    }
}

/// The claim ran out before the user was made, or somebody else has it since.
fn claim_lost(error: RequestError) -> RequestError {
    match error.code {
        ErrorCode::ErrorNotFound => {
            RequestError::new(ErrorCode::ErrorTimedOut, "username: the claim ran out")
        }
        _ => name_taken(error),
    }
}

/// Whose name it is; `None` if nobody's.
async fn find_name(account: &Account, name: String) -> Result<Option<UserId>, RequestError> {
    let key = ShardKey::Name(name.clone());
    match account.storage.query(&key, query::Kind::ReadName(ReadName { name })).await {
        Ok(answer::Kind::Name(record)) => UserId::from_slice(&record.user_id).ok_or_else(misread).map(Some),
        Ok(_) => Err(misread()),
        Err(error) if error.code == ErrorCode::ErrorNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_user(account: &Account, user: UserId) -> Result<Option<UserRecord>, RequestError> {
    let query = query::Kind::ReadUser(ReadUser { user_id: user.to_bytes() });
    match account.storage.query(&ShardKey::User(user), query).await {
        Ok(answer::Kind::User(record)) => Ok(Some(record)),
        Ok(_) => Err(misread()),
        Err(error) if error.code == ErrorCode::ErrorNotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn misread() -> RequestError {
    RequestError::new(ErrorCode::ErrorInternal, "storage answered something else than was asked")
}

/// A device that logs in now, and its first refresh token.
fn new_device(account: &Account, user: UserId, name: String) -> Result<(RefreshToken, Device), RequestError> {
    let device = DeviceId(random()?);
    let refresh = RefreshToken::new(user, device, random::<REFRESH_SECRET_BYTES>()?);
    let record = Device {
        device_id: device.to_bytes(),
        name,
        refresh_hash: refresh.hash(),
        created_ms: (account.now)(),
    };
    Ok((refresh, record))
}

fn logged_in(
    account: &Account,
    refresh: RefreshToken,
    username: String,
    display_name: String,
) -> Result<LoggedIn, RequestError> {
    let tokens = tokens(account, &refresh)?;
    let RefreshToken { user, device, .. } = refresh;
    Ok(LoggedIn { user_id: user.to_string(), device_id: device.to_string(), username, display_name, tokens })
}

fn tokens(account: &Account, refresh: &RefreshToken) -> Result<Tokens, RequestError> {
    let access = account.issuer.issue_access(refresh.user, refresh.device, (account.now)())?;
    Ok(Tokens {
        access_token: access.text,
        expires_in_s: access.expires_in_s,
        refresh_token: Some(refresh.to_text()),
        refresh: refresh.clone(),
    })
}

/// Bytes from the system's random source.
fn random<const N: usize>() -> Result<[u8; N], RequestError> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| RequestError::new(ErrorCode::ErrorInternal, "the system has no randomness"))?;
    Ok(bytes)
}
