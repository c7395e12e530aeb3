//! kill -9 at random moments: whatever `send` had returned is in the outbox afterwards, or on the server.

use super::config;
use super::gateway::Gateway;
use crate::folder::Folder;
use crate::random::Random;
use ringline_client::{Client, TransportKind, Trust};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const ROUNDS: usize = 12;
const STORE: &str = "RINGLINE_TEST_STORE";
const SERVER: &str = "RINGLINE_TEST_SERVER";
const CERTIFICATE: &str = "RINGLINE_TEST_CERTIFICATE";

/// The child: sends for as long as it lives, and says what was taken over. Does nothing in an ordinary run.
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(store) = std::env::var(STORE) else { return };
    let mut config = ringline_client::Config::new(std::env::var(SERVER).expect("set with the store"), store);
    config.trust = Trust::CertFile(std::env::var(CERTIFICATE).expect("set with the store").into());
    let client = Client::open(config).await.expect("the store opens after every kill");
    let room = client.conversations(1).await.expect("stored")[0].id;
    let mut random = Random(u64::from(std::process::id()));
    loop {
        let text = format!("{:016x}", random.next());
        client.send_text(room, &text).await.expect("taken over");
        let mut output = std::io::stdout().lock();
        writeln!(output, "promised {text}").and_then(|()| output.flush()).expect("the parent listens");
    }
}

/// Runs the child until it has promised `count` messages, then kills it.
fn promised_until_killed(store: &Path, gateway: &Gateway, count: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "loopback::kill::child_that_is_killed", "--nocapture"])
        .env(STORE, store)
        .env(SERVER, gateway.address(TransportKind::Native))
        .env(CERTIFICATE, &gateway.certificate)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut promised = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        // The test harness begins the first line with its own words.
        promised.extend(line.split_once("promised ").map(|(_, text)| text.to_owned()));
        if promised.len() == count {
            child.kill().expect("SIGKILL");
        }
    }
    child.wait().expect("it has ended");
    promised
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_promised_is_lost_or_doubled_by_kill_9() {
    let gateway = Gateway::start().await;
    let folder = Folder::new("kill");
    let open = async || Client::open(config(&gateway, &folder, TransportKind::Native)).await.expect("opened");
    let ada = open().await;
    ada.register("ada", "Ada", "password").await.expect("registered");
    let other = Folder::new("kill");
    let bob = Client::open(config(&gateway, &other, TransportKind::Native)).await.expect("opened");
    bob.register("bob", "Bob", "password").await.expect("registered");
    let room = ada.create_direct("bob").await.expect("created");
    ada.shutdown().await;

    let mut random = Random(7);
    let mut promised = Vec::new();
    for round in 0..ROUNDS {
        if round % 3 == 2 {
            gateway.cut_all();
        }
        let count = 1 + random.below(40);
        let of_round = tokio::task::block_in_place(|| promised_until_killed(folder.path(), &gateway, count));
        assert!(of_round.len() >= count);
        promised.extend(of_round);
    }
    let ada = open().await;
    let drained = async {
        while !ada.pending(room).await.expect("stored").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, drained).await.expect("the outbox drains");
    let texts = gateway.texts(room);
    let mut positions = promised.iter().map(|text| texts.iter().position(|known| known == text));
    let mut last = None;
    assert!(
        positions.all(|position| position.is_some() && std::mem::replace(&mut last, position) < position)
    );
    let mut once = texts.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), texts.len(), "nothing is there twice");
}
