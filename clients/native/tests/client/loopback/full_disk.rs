//! A disk without room: the client says so, promises nothing more, and what it had promised is there afterwards.

use super::gateway::Gateway;
use super::{PATIENCE, config};
use crate::folder::Folder;
use ringline_client::store::StoreError;
use ringline_client::{Client, ConnectionState, Error, Event, TransportKind, Trust};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const STORE: &str = "RINGLINE_TEST_FULL_STORE";
const SERVER: &str = "RINGLINE_TEST_FULL_SERVER";
const CERTIFICATE: &str = "RINGLINE_TEST_FULL_CERTIFICATE";
/// Largest file that the child may write, in the shell's blocks of 512 or 1,024 bytes: room for a new store and some
/// hundred messages.
const FILE_BLOCKS_MAX: u32 = 1_024;
/// Messages that no file of that size can hold.
const MESSAGES_MAX: usize = 100_000;

/// The child: sends until the disk is full. Does nothing in an ordinary run.
#[tokio::test]
async fn child_whose_disk_is_full() {
    let Ok(store) = std::env::var(STORE) else { return };
    let mut config = ringline_client::Config::new(std::env::var(SERVER).expect("set with the store"), store);
    config.trust = Trust::CertFile(std::env::var(CERTIFICATE).expect("set with the store").into());
    let client = Client::open(config).await.expect("there is room for a start");
    let mut events = client.events();
    let room = client.conversations(1).await.expect("stored")[0].id;
    let mut failed = None;
    for number in 0..MESSAGES_MAX {
        match client.send_text(room, &format!("text {number}")).await {
            Ok(_) => println!("promised text {number}"),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    assert!(matches!(failed, Some(Error::Store(_))), "{failed:?}");
    while events.next().await.expect("the client is there") != Event::Connection(ConnectionState::StoreFailed)
    {
    }
    let again = client.send_text(room, "too late").await;
    assert!(matches!(again, Err(Error::Store(StoreError::Failed))), "{again:?}");
    println!("stopped");
}

/// What the child promised before its disk was full.
fn promised_until_full(store: &Path, gateway: &Gateway) -> Vec<String> {
    // The signal of a file grown too large is ignored: the write fails, as on a full disk.
    let script = format!("trap '' XFSZ; ulimit -f {FILE_BLOCKS_MAX}; exec \"$0\" \"$@\"");
    let child = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "loopback::full_disk::child_whose_disk_is_full", "--nocapture"])
        .env(STORE, store)
        .env(SERVER, gateway.address(TransportKind::Native))
        .env(CERTIFICATE, &gateway.certificate)
        .stderr(Stdio::inherit())
        .output()
        .expect("the child runs");
    let output = String::from_utf8(child.stdout).expect("text");
    assert!(output.lines().any(|line| line == "stopped"), "{output}");
    let promised = output.lines().filter_map(|line| line.split_once("promised "));
    promised.map(|(_, text)| text.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_client_and_loses_nothing_promised() {
    let gateway = Gateway::start().await;
    let (folder, other) = (Folder::new("full"), Folder::new("full"));
    let open =
        async |folder| Client::open(config(&gateway, folder, TransportKind::Native)).await.expect("opened");
    let (ada, bob) = (open(&folder).await, open(&other).await);
    ada.register("ada", "Ada", "password").await.expect("registered");
    bob.register("bob", "Bob", "password").await.expect("registered");
    let room = ada.create_direct("bob").await.expect("created");
    ada.shutdown().await;
    let promised = tokio::task::block_in_place(|| promised_until_full(folder.path(), &gateway));
    assert!(!promised.is_empty());
    // There is room again.
    let ada = open(&folder).await;
    let drained = async {
        while !ada.pending(room).await.expect("stored").is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.expect("the outbox drains");
    assert_eq!(
        gateway.texts(room),
        promised,
        "all of it, once, in order, and nothing that was not stored first"
    );
}
