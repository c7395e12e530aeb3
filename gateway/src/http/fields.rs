//! What a client wrote into its requests: read field by field, so that a refusal names the field.

use super::failure::Failure;
use crate::domain::auth::RefreshToken;
use serde_json::{Map, Value};
use std::fmt;
use std::ops::RangeInclusive;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{UserId, normal_username};
use wire_protocol::limits::{
    DEVICE_NAME_CHARS_MAX, DISPLAY_NAME_CHARS_MAX, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN,
    USERNAME_CHARS_MAX, USERNAME_CHARS_MIN,
};

/// The JSON object of a request.
pub(super) type Object = Map<String, Value>;

/// Reads the body of a request.
pub(super) fn parse_object(body: &[u8]) -> Result<Object, Failure> {
    // The library's message would repeat what was sent.
    serde_json::from_slice(body).map_err(|_| Failure::field("body", "a JSON object is expected"))
}

/// A password as it was typed. Never printed.
pub(super) struct Password(String);

impl Password {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// `POST /v1/register`.
#[derive(Debug)]
pub(super) struct Registration {
    /// In its one form.
    pub(super) username: String,
    pub(super) display_name: String,
    pub(super) password: Password,
    pub(super) device_name: String,
}

/// `POST /v1/login`.
#[derive(Debug)]
pub(super) struct LogIn {
    /// In its one form; `None` if nobody can have this name.
    pub(super) username: Option<String>,
    pub(super) password: Password,
    pub(super) device_name: String,
}

impl Registration {
    pub(super) fn read(mut object: Object) -> Result<Self, Failure> {
        let username = take_text(&mut object, "username")?;
        let username = normal_username(&username).ok_or_else(|| {
            let range = format!("{USERNAME_CHARS_MIN} to {USERNAME_CHARS_MAX} characters of a-z 0-9 . _ -");
            Failure::field("username", &range)
        })?;
        let display_name = take_line(&mut object, "display_name", DISPLAY_NAME_CHARS_MAX)?;
        let password = take_text(&mut object, "password")?;
        check_length("password", &password, PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX)?;
        let device_name = take_line(&mut object, "device_name", DEVICE_NAME_CHARS_MAX)?;
        Ok(Self { username, display_name, password: Password(password), device_name })
    }
}

impl LogIn {
    /// A name or password that cannot exist is no error here: it is answered like any other wrong one.
    pub(super) fn read(mut object: Object) -> Result<Self, Failure> {
        let username = normal_username(&take_text(&mut object, "username")?);
        let password = Password(take_text(&mut object, "password")?);
        let device_name = take_line(&mut object, "device_name", DEVICE_NAME_CHARS_MAX)?;
        Ok(Self { username, password, device_name })
    }
}

/// Where a client keeps its refresh token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keeping {
    /// It is in the answer.
    Itself,
    /// In a cookie: a browser.
    Cookie,
}

impl Keeping {
    pub(super) fn read(object: &mut Object) -> Result<Self, Failure> {
        match object.remove("refresh_cookie") {
            None | Some(Value::Bool(false)) => Ok(Self::Itself),
            Some(Value::Bool(true)) => Ok(Self::Cookie),
            Some(_) => Err(Failure::field("refresh_cookie", "true or false is expected")),
        }
    }
}

/// `POST /v1/refresh`: the token itself, or whose cookie holds it.
pub(super) enum Refresh {
    Token(RefreshToken),
    CookieOf(UserId),
}

impl Refresh {
    pub(super) fn read(mut object: Object) -> Result<Self, Failure> {
        if !object.contains_key("user_id") {
            let text = take_text(&mut object, "refresh_token")?;
            return parse_refresh(&text).map(Self::Token);
        }
        read_user(object).map(Self::CookieOf)
    }
}

/// The text of a refresh token.
pub(super) fn parse_refresh(text: &str) -> Result<RefreshToken, Failure> {
    RefreshToken::parse(text).map_err(|refused| RequestError::from(refused).into())
}

/// Whose cookie is meant.
pub(super) fn read_user(mut object: Object) -> Result<UserId, Failure> {
    let text = take_text(&mut object, "user_id")?;
    UserId::from_hex(&text).ok_or_else(|| Failure::field("user_id", "32 hexadecimal characters are expected"))
}

fn take_text(object: &mut Object, name: &str) -> Result<String, Failure> {
    match object.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Failure::field(name, "text is expected")),
        None => Err(Failure::field(name, "missing")),
    }
}

/// One line that people read: trimmed, not empty, without control characters.
fn take_line(object: &mut Object, name: &str, chars_max: usize) -> Result<String, Failure> {
    let line = take_text(object, name)?.trim().to_owned();
    if line.chars().any(char::is_control) {
        return Err(Failure::field(name, "control characters are not allowed"));
    }
    check_length(name, &line, 1..=chars_max)?;
    Ok(line)
}

fn check_length(name: &str, text: &str, chars: RangeInclusive<usize>) -> Result<(), Failure> {
    if chars.contains(&text.chars().count()) {
        return Ok(());
    }
    Err(Failure::field(name, &format!("{} to {} characters", chars.start(), chars.end())))
}
