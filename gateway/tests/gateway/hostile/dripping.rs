//! Sessions whose clients say a byte at a time.

use super::assert_alive;
use crate::client::{Client, Way};
use crate::server::{Account, PATIENCE_S, Server};
use std::time::{Duration, Instant};
use wire_protocol::limits::{HEARTBEAT_S_MIN, HEARTBEATS_MISSED_MAX};
use wire_protocol::v1::ErrorCode;
use wire_protocol::v1::session_closing::Reason;
use wire_protocol::websocket::CloseCode;

/// A session that brought no whole frame for this long is dead: three of the shortest heartbeats, 15 s. Nothing that is
/// configured makes it less.
const SILENCE: Duration = Duration::from_secs((HEARTBEAT_S_MIN * HEARTBEATS_MISSED_MAX) as u64);
/// How far from it the end may be seen: the server counts from the beginning of the turn that answers hello; its timers
/// have slots of a second, and a busy machine does everything later.
const EARLY_MAX: Duration = Duration::from_secs(1);
const LATE_MAX: Duration = Duration::from_secs(10);
/// Payload of a frame that does not end, in bytes. A byte goes out in each round, which takes a moment for each client:
/// in [`SILENCE`] those are a thousand at most.
const ENDLESS_BYTES: usize = 40_000;
/// A ping that wants no answer.
const PING: [u8; 2] = [0x32, 0x00];
const WAYS: [Way; 3] = [Way::NativeTls, Way::NativePlain, Way::WebSocket];

/// A session whose client says the same frame again and again, a byte at a time.
struct Dripping {
    way: Way,
    client: Client,
    frame: Vec<u8>,
    /// Bytes, of all its frames.
    sent: usize,
    began: Instant,
    /// From before its hello to its end.
    lasted: Option<Duration>,
}

impl Dripping {
    /// Wishes for a heartbeat shorter than there is, and says the first half of the frame at once.
    fn new(server: &Server, way: Way, account: &Account, payload: &[u8]) -> Self {
        let began = Instant::now();
        let mut client = Client::connect_with_heartbeat(server, way, account, 1);
        assert_eq!(client.ready.heartbeat_s, HEARTBEAT_S_MIN);
        let frame = client.framed(payload).to_vec();
        let sent = frame.len() / 2;
        client.send_raw(&frame[..sent]);
        Self { way, client, frame, sent, began, lasted: None }
    }

    /// Says the next byte, and waits for a moment for what the server says.
    fn drip(&mut self) {
        if self.client.is_over {
            return;
        }
        let byte = self.frame[self.sent % self.frame.len()];
        self.client.send_raw(&[byte]);
        self.sent += 1;
        self.client.events_so_far();
        self.lasted = self.client.is_over.then(|| self.began.elapsed());
    }

    /// Whether the last byte was a frame's last.
    fn is_between_frames(&self) -> bool {
        self.sent.is_multiple_of(self.frame.len())
    }

    /// The server gave it up for want of a frame, when it had to.
    fn assert_given_up(&self) {
        let Self { way, client, frame, sent, .. } = self;
        assert!(*sent < frame.len(), "{way:?}: the frame ended");
        let closing = client.closing.as_ref().unwrap_or_else(|| panic!("{way:?}: no reason"));
        let told = (closing.reason(), closing.code());
        assert_eq!(told, (Reason::Idle, ErrorCode::ErrorTimedOut), "{way:?}: {}", closing.detail);
        let is_web_socket = *way == Way::WebSocket;
        assert_eq!(client.close_code, is_web_socket.then_some(CloseCode::NORMAL), "{way:?}");
        let lasted = self.lasted.expect("it is over");
        assert!(lasted + EARLY_MAX > SILENCE && lasted < SILENCE + LATE_MAX, "{way:?}: {lasted:?}");
    }
}

#[test]
fn bytes_without_a_whole_frame_are_no_sign_of_life() {
    let server = Server::embedded();
    let (mallory, ada) = (server.register("mallory"), server.register("ada"));
    let sessions_of = |account: &Account, payload: &[u8]| -> Vec<Dripping> {
        WAYS.iter().map(|way| Dripping::new(&server, *way, account, payload)).collect()
    };
    let mut endless = sessions_of(&mallory, &[0; ENDLESS_BYTES]);
    // As slow, with the same heartbeat; but each of its frames ends.
    let mut slow = sessions_of(&ada, &PING);
    let began = Instant::now();
    while endless.iter().any(|session| !session.client.is_over) {
        assert!(began.elapsed() < Duration::from_secs(PATIENCE_S), "some are never given up");
        endless.iter_mut().chain(&mut slow).for_each(Dripping::drip);
    }
    endless.iter().for_each(Dripping::assert_given_up);
    for session in &mut slow {
        while !session.is_between_frames() {
            assert!(!session.client.is_over, "{:?}: {:?}", session.way, session.client.closing);
            session.drip();
        }
        assert!(session.began.elapsed() + EARLY_MAX > SILENCE);
        assert_alive(&mut session.client);
    }
}
