//! What strangers write into requests of the REST interface: JSON objects, and cookies.

use crate::Target;
use crate::input::Input;
use gateway::domain::auth::{REFRESH_SECRET_BYTES, RefreshToken};
use gateway::http::reading::{self, Read};
use wire_protocol::ids::{DeviceId, UserId, normal_username};
use wire_protocol::limits::{
    DEVICE_NAME_CHARS_MAX, DISPLAY_NAME_CHARS_MAX, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN,
};

/// See `holds`.
pub const REST: Target = Target {
    name: "rest",
    holds: "a body is read into fields within their limits or refused with a field's name; only a cookie that was set is found",
    run: rest,
};

fn rest(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => cookies(&mut input),
        1 => token(input.rest()),
        kind => body([reading::register, reading::log_in, reading::refresh][kind - 2], input.rest()),
    }
}

fn is_line(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.chars().count())
        && text.trim() == text
        && !text.chars().any(char::is_control)
}

fn body(read: fn(&[u8]) -> Result<Read, String>, bytes: &[u8]) {
    match read(bytes) {
        Ok(Read::Registration { username, display_name, password, device_name }) => {
            assert_eq!(normal_username(&username), Some(username));
            assert!(is_line(&display_name, DISPLAY_NAME_CHARS_MAX));
            assert!(is_line(&device_name, DEVICE_NAME_CHARS_MAX));
            assert!((PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX).contains(&password.chars().count()));
        }
        Ok(Read::LogIn { username, device_name }) => {
            assert!(username.is_none_or(|name| normal_username(&name) == Some(name)));
            assert!(is_line(&device_name, DEVICE_NAME_CHARS_MAX));
        }
        Ok(Read::Token(token)) => assert_eq!(RefreshToken::parse(&token.to_text()).ok(), Some(token)),
        Ok(Read::CookieOf(_)) => {}
        Err(detail) => {
            let fields = [
                "body",
                "username",
                "display_name",
                "password",
                "device_name",
                "refresh_token",
                "user_id",
                "token",
            ];
            let (field, problem) = detail.split_once(": ").expect("a field and what is wrong with it");
            assert!(fields.contains(&field) && !problem.is_empty(), "{detail}");
        }
    }
}

/// One text for one token: another text would be another way to say the same.
fn token(bytes: &[u8]) {
    if let Ok(token) = RefreshToken::parse(&String::from_utf8_lossy(bytes)) {
        assert_eq!(token.to_text().as_bytes(), bytes);
    }
}

fn cookies(input: &mut Input<'_>) {
    let user = UserId([input.byte(); 16]);
    let token = RefreshToken::new(user, DeviceId([7; 16]), [input.byte(); REFRESH_SECRET_BYTES]);
    let set = reading::cookie_set(&token);
    let pair = set.split(';').next().expect("a cookie begins with its pair").to_owned();
    let place = input.below(4);
    let mut lines: Vec<Vec<u8>> = (0..input.below(4)).map(|_| input.slice().to_vec()).collect();
    let strangers = reading::cookie_found(&lines, user);
    let place = place.min(lines.len());
    lines.insert(place, pair.into_bytes());
    let found = reading::cookie_found(&lines, user);
    // Somebody else's line may stand before it and name the same cookie; otherwise it is what was set.
    assert!(found.is_some());
    if strangers.is_none() {
        assert_eq!(found, Some(token.to_text()));
    }
    assert!(found.is_none_or(|value| !value.contains(';')));
}
