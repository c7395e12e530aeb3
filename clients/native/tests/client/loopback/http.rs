//! REST and the upgrade, as far as the client needs them.

use super::gateway::{Shared, State, Stream};
use crate::fake_server::Caller;
use bytes::{Bytes, BytesMut};
use ringline_client::UserId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire_protocol::websocket::{check_upgrade, upgrade_response};

const HEADERS_MAX: usize = 32;

/// Serves one request. For an upgrade: what came behind its head.
pub async fn serve(shared: &Shared, stream: &mut Box<dyn Stream>) -> Option<Bytes> {
    let mut bytes = BytesMut::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head_bytes)) = request.parse(&bytes) else { continue };
        let path = request.path?.to_owned();
        if path == wire_protocol::limits::WEBSOCKET_PATH {
            let headers = request.headers.iter().map(|header| (header.name, header.value));
            let upgrade = check_upgrade(request.method?, request.version?, headers).ok()?;
            let answer = upgrade_response(&upgrade.accept_key);
            let rest = Bytes::copy_from_slice(&bytes[head_bytes..]);
            stream.write_all(&answer).await.ok()?;
            return Some(rest);
        }
        let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length: usize = match length {
            Some(length) => std::str::from_utf8(length.value).ok()?.parse().ok()?,
            None => 0,
        };
        if bytes.len() < head_bytes + length {
            continue;
        }
        let body = &bytes[head_bytes..head_bytes + length];
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).ok()? };
        let (status, answer) = answer(&mut shared.lock(), &path, &body);
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).await.ok()?;
        return None;
    }
}

fn answer(state: &mut State, path: &str, body: &Value) -> (u16, Value) {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let refused =
        |status: u16, code: &str| (status, json!({ "code": code, "detail": code, "retry_after_ms": 0 }));
    match path {
        "/v1/register" => {
            let name = text("username");
            if state.accounts.contains_key(&name) {
                return refused(409, "ERROR_ALREADY_EXISTS");
            }
            let number = state.accounts.len() as u8 + 1;
            let user = state.server.add_user(number, &name);
            state.accounts.insert(name.clone(), (user, text("password")));
            (201, logged_in(state, user, &name))
        }
        "/v1/login" => {
            let name = text("username");
            match state.accounts.get(&name).cloned() {
                Some((user, password)) if password == text("password") => {
                    (200, logged_in(state, user, &name))
                }
                _ => refused(401, "ERROR_UNAUTHENTICATED"),
            }
        }
        "/v1/refresh" => match state.refresh.remove(&text("refresh_token")) {
            Some(caller) => {
                state.refresh_count += 1;
                (200, state.issue(caller))
            }
            None => refused(401, "ERROR_UNAUTHENTICATED"),
        },
        "/v1/gateways" if !state.gateways.is_empty() => {
            (200, json!({ "gateways": state.gateways, "ttl_s": 300 }))
        }
        _ => refused(404, "ERROR_NOT_FOUND"),
    }
}

fn logged_in(state: &mut State, user: UserId, name: &str) -> Value {
    let device = state.new_device();
    let mut answer = state.issue(Caller { user, device });
    answer["user_id"] = user.to_string().into();
    answer["device_id"] = device.to_string().into();
    answer["username"] = name.into();
    answer["display_name"] = name.to_uppercase().into();
    answer
}
