//! What must never be in a log, nor in anything else that a server tells whoever runs it: passwords, tokens, keys, what
//! people write.

use super::{half_close, raw, read_to_end};
use crate::chat::{accepted, created, direct, refused, text};
use crate::client::{Client, Way};
use crate::nodes::Cluster;
use crate::server::{Account, EMBEDDED, Folder, Server};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
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
    let group = |creation_id| {
        let mut group = crate::chat::group(&[bob], creation_id);
        if let client_frame::Body::Create(create) = &mut group {
            create.title = TITLE.into();
        }
        group
    };
    refused(client.ask(group(0)));
    created(client.ask(group(1)));
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

/// Right, wrong and broken requests of a node's metrics page; gives the page.
fn misuse_metrics(server: &Server, metrics: SocketAddr) -> String {
    let wrong = format!("GET /{TITLE} HTTP/1.1\r\nAuthorization: Bearer {PASSWORD}");
    let broken = format!("GET /metrics HTTP/1.1\r\n{PASSWORD} {BODY}");
    for head in [wrong, broken] {
        let mut stream = raw(metrics);
        write!(stream, "{head}\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
        read_to_end(&mut stream);
    }
    let (status, page) = server.get(metrics, "/metrics");
    assert_eq!(status, 200, "{page}");
    page
}

/// What only its owner may see, each with its name.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// People use a server, and it is misused in every way: all that is secret in that.
    fn of_use_and_misuse(server: &Server) -> Self {
        let register = |name: &str| {
            let body = json!({
                "username": name, "display_name": name, "password": PASSWORD, "device_name": "first",
            });
            let (status, answer) = server.post("/v1/register", &body);
            assert_eq!(status, 201, "{answer}");
            Account::new(&answer)
        };
        let (ada, bob) = (register("ada"), register("bob"));
        misuse_accounts(server);
        let (mut client, resume) = misuse_sessions(server, &ada, &bob);
        let (status, refreshed) = server.post("/v1/refresh", &json!({ "refresh_token": ada.refresh_token }));
        assert_eq!(status, 200, "{refreshed}");
        assert!(matches!(
            client.ask(client_frame::Body::LogOut(Default::default())),
            server_frame::Body::Done(_)
        ));
        let hex = resume.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
        Self(vec![
            ("password", PASSWORD.to_owned()),
            ("password's hash", "$argon2id$".to_owned()),
            ("body", BODY.to_owned()),
            ("body as bytes", format!("{:?}", BODY.as_bytes())),
            ("title", TITLE.to_owned()),
            ("access token", signature(&ada.access_token)),
            ("new access token", signature(refreshed["access_token"].as_str().expect("text"))),
            ("refresh token", ada.refresh_token),
            ("new refresh token", refreshed["refresh_token"].as_str().expect("text").to_owned()),
            ("resume token", hex),
            ("signing key", in_pem(&server.data().join("signing-key.pem"))),
        ])
    }

    /// `place`: where somebody reads this text who runs the servers.
    fn assert_not_in(&self, place: &str, text: &[u8]) {
        for (what, secret) in &self.0 {
            assert!(!holds(text, secret), "{place}: holds a {what}");
        }
    }

    /// A gateway that logs everything ends; none of it is in anything that it told.
    fn assert_not_told_by(&self, server: &mut Server, log: &Path) {
        let (status, page) = server.get(server.metrics, "/metrics");
        assert_eq!(status, 200, "{page}");
        assert!(server.process.terminate().success());
        let logged = fs::read(log).expect("a log");
        let logs_everything = holds(&logged, "DEBUG") && holds(&logged, "session failed");
        assert!(logs_everything, "it logs everything: {} bytes", logged.len());
        self.assert_not_in("the gateway's log", &logged);
        self.assert_not_in("the gateway's output", server.process.printed().as_bytes());
        self.assert_not_in("the gateway's metrics", page.as_bytes());
    }
}

fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// The first line of what a PEM file holds.
fn in_pem(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a key");
    text.lines().nth(1).expect("a line of it").to_owned()
}

#[test]
fn nothing_secret_is_logged_whatever_happens() {
    let (mut server, log) = Server::logging_everything(Folder::new(), EMBEDDED);
    let secrets = Secrets::of_use_and_misuse(&server);
    secrets.assert_not_told_by(&mut server, &log);
}

#[test]
fn storage_nodes_of_their_own_tell_nothing_secret() {
    let mut cluster = Cluster::logging_everything();
    let (mut server, log) = Server::logging_everything(Folder::new(), &cluster.gateway_config());
    let mut secrets = Secrets::of_use_and_misuse(&server);
    secrets.0.push(("key of a link", in_pem(&cluster.link_key())));
    // What they read again when they start anew could be told, too.
    let printed = [0, 1].map(|node| {
        let printed = cluster.kill_node(node);
        cluster.start_node(node);
        printed
    });
    for node in 0..2 {
        let page = misuse_metrics(&server, cluster.metrics(node));
        assert!(page.contains("ringline_storage_"), "{page}");
        secrets.assert_not_in("a node's metrics", page.as_bytes());
        let status = cluster.admin(node, &["status"]);
        assert!(status.contains(&format!("node {}: holds", node + 1)), "{status}");
        secrets.assert_not_in("a node's status", status.as_bytes());
        secrets.assert_not_in("a node's status", cluster.admin(node, &["--json", "status"]).as_bytes());
    }
    secrets.assert_not_told_by(&mut server, &log);
    for (node, before) in printed.into_iter().enumerate() {
        let printed = before + &cluster.end_node(node);
        assert!(printed.contains("ringline-storage ready:"), "{printed}");
        secrets.assert_not_in("a node's output", printed.as_bytes());
        let logged = fs::read(cluster.log(node)).expect("a log");
        let logs_everything = holds(&logged, "DEBUG") && holds(&logged, "metrics page: ");
        assert!(logs_everything, "it logs everything: {} bytes", logged.len());
        secrets.assert_not_in("a node's log", &logged);
    }
}
