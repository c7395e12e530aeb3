//! What must never be in a log: passwords, tokens, what people write.

use super::{half_close, raw, read_to_end};
use crate::chat::{accepted, created, direct, refused, text};
use crate::client::{Client, Way};
use crate::server::{Account, EMBEDDED, Folder, Server};
use serde_json::json;
use std::io::Write;
use wire_protocol::session::Proof;
use wire_protocol::v1::{client_frame, server_frame};

const PASSWORD: &str = "marker-password-5b1e";
const BODY: &str = "marker-body-90cc";
const TITLE: &str = "marker-title-77aa";

/// Right, wrong and broken requests of the REST interface.
fn misuse_accounts(server: &Server) {
    let post = |path: &str, body: serde_json::Value| server.post(path, &body).0;
    assert_eq!(
        post("/v1/login", json!({ "username": "ada", "password": PASSWORD, "device_name": "x" })),
        200
    );
    assert_eq!(
        post(
            "/v1/login",
            json!({ "username": "ada", "password": format!("{PASSWORD}!"), "device_name": "x" })
        ),
        401
    );
    assert_eq!(
        post("/v1/login", json!({ "username": "ada", "password": [PASSWORD], "device_name": "x" })),
        400
    );
    assert_eq!(
        post(
            "/v1/register",
            json!({ "username": "ada", "display_name": "A", "password": PASSWORD, "device_name": "x" })
        ),
        409
    );
    let mut broken = raw(server.plain);
    let head = "POST /v1/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    write!(
        broken,
        "{head}Authorization: {PASSWORD}\r\nContent-Length: 40\r\n\r\n{{\"password\": \"{PASSWORD}\", broken"
    )
    .expect("sent");
    half_close(&broken);
    read_to_end(&mut broken);
}

/// Messages, refused ones, broken frames, wrong proofs; a session, and a token of it.
fn misuse_sessions(server: &Server, ada: &Account, bob: &Account) -> (Client, bytes::Bytes) {
    let mut client = Client::connect(server, Way::NativeTls, ada);
    let mut web = Client::connect(server, Way::WebSocket, bob);
    let resume = client.ready.resume_token.clone();
    let conversation = created(client.ask(direct(bob))).conversation_id;
    accepted(client.ask(text(&conversation, 1, BODY)));
    assert_eq!(crate::chat::live(&mut web).2, BODY);
    refused(client.ask(text(&conversation, 0, BODY)));
    refused(client.ask(text(&bytes::Bytes::from_static(&[9; 16]), 2, BODY)));
    let mut group = crate::chat::group(&[bob], 0);
    if let client_frame::Body::Create(create) = &mut group {
        create.title = TITLE.into();
    }
    refused(client.ask(group));
    web.send(format!("\u{1}{BODY}").as_bytes());
    web.wait_for_end();
    for proof in [
        Proof::AccessToken(format!("{}x", ada.access_token)),
        Proof::ResumeToken([&resume[..], b"x"].concat().into()),
        Proof::ResumeToken(resume.clone()),
    ] {
        drop(Client::hello(server, Way::NativePlain, proof));
    }
    (client, resume)
}

#[test]
fn nothing_secret_is_logged_whatever_happens() {
    let (mut server, log) = Server::logging_everything(Folder::new(), EMBEDDED);
    let register = |name: &str| {
        let body =
            json!({ "username": name, "display_name": name, "password": PASSWORD, "device_name": "first" });
        let (status, answer) = server.post("/v1/register", &body);
        assert_eq!(status, 201, "{answer}");
        Account::new(&answer)
    };
    let (ada, bob) = (register("ada"), register("bob"));
    misuse_accounts(&server);
    let (mut client, resume) = misuse_sessions(&server, &ada, &bob);
    let (status, refreshed) = server.post("/v1/refresh", &json!({ "refresh_token": ada.refresh_token }));
    assert_eq!(status, 200, "{refreshed}");
    assert!(matches!(
        client.ask(client_frame::Body::LogOut(Default::default())),
        server_frame::Body::Done(_)
    ));
    assert!(server.process.terminate().success());

    let logged = std::fs::read(&log).expect("a log");
    let holds = |secret: &[u8]| logged.windows(secret.len()).any(|window| window == secret);
    assert!(holds(b"DEBUG") && holds(b"session failed"), "it logs everything: {} bytes", logged.len());
    let hex = resume.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    for (what, secret) in [
        ("password", PASSWORD.to_owned()),
        ("body", BODY.to_owned()),
        ("body as bytes", format!("{:?}", BODY.as_bytes())),
        ("title", TITLE.to_owned()),
        ("access token", signature(&ada.access_token)),
        ("new access token", signature(refreshed["access_token"].as_str().expect("text"))),
        ("refresh token", ada.refresh_token.clone()),
        ("new refresh token", refreshed["refresh_token"].as_str().expect("text").to_owned()),
        ("resume token", hex),
    ] {
        assert!(!holds(secret.as_bytes()), "the log holds a {what}");
    }
}
