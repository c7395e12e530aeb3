//! A disk that fails under a gateway with storage of its own: what is not on it is not acknowledged, and the process ends
//! with an error that says which file it was and what is to be done. The next one over the same folder has everything.

use crate::chat::{accepted, created, direct, live, refused, text};
use crate::client::{Client, Way};
use crate::server::{Account, EMBEDDED, Folder, Server};
use crate::sync::catch_up;
use bytes::Bytes;
use std::fs;
use std::path::Path;
use wire_protocol::v1::{self, ErrorCode, client_frame};

/// Messages that are acknowledged before the fault.
const ACKNOWLEDGED: u64 = 20;
/// Messages that are sent into it.
const DOUBTFUL: u64 = 20;

fn body(number: u64) -> String {
    format!("message {number}")
}

fn message(conversation: &Bytes, number: u64) -> client_frame::Body {
    text(conversation, number, body(number))
}

/// Where and when a message was stored, as its sender is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stored {
    seq: u64,
    time_ms: u64,
}

impl Stored {
    fn told(client: &Client, answer: &v1::MessageAccepted) -> Self {
        let time_ms = client.ready.server_time_ms.wrapping_add_signed(answer.time_delta_ms);
        Self { seq: answer.seq, time_ms }
    }
}

#[test]
fn nothing_is_acknowledged_from_a_failed_sync_on_and_nothing_acknowledged_is_lost() {
    let folder = Folder::new();
    let switch = folder.path().join("fails");
    let failpoint = format!("log-syncing:fail={}", switch.display());
    let (mut server, log) = Server::failing_at(&failpoint, folder, EMBEDDED);
    let (ada, bob) = (server.register("ada"), server.register("bob"));
    let mut adas = Client::connect(&server, Way::NativeTls, &ada);
    let mut bobs = Client::connect(&server, Way::WebSocket, &bob);
    let conversation = created(adas.ask(direct(&bob))).conversation_id;
    let mut first = Vec::new();
    for number in 1..=ACKNOWLEDGED {
        let answer = accepted(adas.ask(message(&conversation, number)));
        first.push(Stored::told(&adas, &answer));
    }
    while live(&mut bobs).1 != ACKNOWLEDGED + 1 {}

    // All syncs of these are over, and whatever comes from here on rests on one that fails or follows it.
    fs::write(&switch, "").expect("written");
    let doubtful = ACKNOWLEDGED + 1..=ACKNOWLEDGED + DOUBTFUL;
    let requests: Vec<u32> = doubtful.map(|number| adas.request(message(&conversation, number))).collect();
    adas.wait_for_end();
    bobs.wait_for_end();
    for answer in requests.into_iter().filter_map(|request_id| adas.take_answer(request_id)) {
        // Others hear nothing at all: the process has ended.
        let error = refused(answer);
        assert!(error.code() == ErrorCode::ErrorUnavailable && error.retryable, "{error:?}");
    }
    assert_eq!(bobs.events_so_far(), 0, "nobody is shown what may be lost");
    assert_eq!(server.process.wait().code(), Some(1), "it ends with an error");
    assert!(!switch.exists(), "it ended without a sync");
    check_complaint(&String::from_utf8_lossy(&fs::read(log).expect("a log")), &server.data());

    // The cause is gone.
    let server = Server::start(server.into_folder(), EMBEDDED);
    check_everything(&server, [&ada, &bob], &conversation, &first);
}

/// The last that the process says is for whoever runs it: what happened, where, what it means for messages, what to do.
fn check_complaint(log: &str, data: &Path) {
    let said = log.lines().rfind(|line| line.starts_with("ringline-gateway: ")).expect("why it ended");
    let before = format!("sync {}/", data.join("storage/log").display());
    let (_, file) = said.split_once(&before).unwrap_or_else(|| panic!("no file: {said}"));
    assert!(file.split(':').next().is_some_and(|name| name.ends_with(".raftlog")), "{said}");
    for part in ["Input/output error", "Nothing more is acknowledged", "Start the process again"] {
        assert!(said.contains(part), "{said}");
    }
}

/// What was acknowledged is there once, in order, and gets its first answer again. What was not is there once at most, and
/// once when it has been sent again.
fn check_everything(server: &Server, [ada, bob]: [&Account; 2], conversation: &Bytes, first: &[Stored]) {
    let mut adas = Client::connect(server, Way::WebSocket, ada);
    let mut bobs = Client::connect(server, Way::NativeTls, bob);
    let (entries, _) = catch_up(&mut bobs, conversation, 0, 1);
    for (number, entry) in (1..=ACKNOWLEDGED).zip(&entries) {
        assert_eq!((entry.seq, &entry.body), (number + 1, &Bytes::from(body(number))));
    }
    assert!(entries.len() as u64 >= ACKNOWLEDGED, "{} of {ACKNOWLEDGED}", entries.len());

    let mut stored = Vec::new();
    for number in 1..=ACKNOWLEDGED + DOUBTFUL {
        let answer = accepted(adas.ask(message(conversation, number)));
        stored.push(Stored::told(&adas, &answer));
    }
    assert!(stored.starts_with(first), "{stored:?} after {first:?}");
    // As many entries as messages, each message where its sender was told: none is there twice.
    let (entries, _) = catch_up(&mut bobs, conversation, 0, 1);
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (2..=ACKNOWLEDGED + DOUBTFUL + 1).collect::<Vec<u64>>());
    for (number, stored) in (1..).zip(stored) {
        let entry = &entries[stored.seq as usize - 2];
        assert_eq!((entry.time_ms, &entry.body), (stored.time_ms, &Bytes::from(body(number))));
    }
}
