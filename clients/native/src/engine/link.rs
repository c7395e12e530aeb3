//! The connection as the engine sees it: when to make one, with which proof, and when to give it up.
//!
//! ```text
//!   waiting ──due──▶ wanted ──taken──▶ connecting ──made──▶ opening ──ready──▶ open
//!      ▲                                   │                   │                │
//!      └────────── failed, refused, closed, lost ──────────────┴────────────────┘
//!   stopped: the proof is void, or the app leaves
//! ```
//! A refused proof is answered by the next stronger one at once: resume token, access token, a fresh access
//! token; when that is refused too, the device is logged out.

use super::jitter::{Jitter, Range};
use super::places::Places;
use crate::limits::{PROTOCOL_ERROR_MS, RECONNECT_MS_BASE, RECONNECT_MS_MAX};
use bytes::Bytes;
use wire_protocol::session::ClientSession;
use wire_protocol::v1::SessionClosing;
use wire_protocol::v1::session_closing::Reason;

const RECONNECT: Range = Range { base_ms: RECONNECT_MS_BASE, max_ms: RECONNECT_MS_MAX };

/// What the driver is to do about the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Make a connection, then `handle_connected` or `handle_connect_failed`.
    Connect(ProofWanted),
    /// Drop the connection; nothing it still brings may be handed in.
    Disconnect,
    /// The device is logged out: forget the tokens.
    LoggedOut,
}

/// Which proof a new connection is to bring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProofWanted {
    /// This resume token.
    Resume(Bytes),
    /// An access token; a stored one will do while it lasts.
    Access,
    /// An access token refreshed now: the last one was refused.
    FreshAccess,
}

/// Why there is no connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectFailure {
    /// Not reached, or not trusted.
    Network,
    /// Reached, but told to come later.
    Busy {
        /// At least this much later.
        retry_after_ms: u32,
    },
    /// The refresh token was refused: the user must log in.
    LoginNeeded,
}

/// State of the connection.
#[derive(Debug)]
pub(super) enum State {
    Stopped,
    /// Never before `least_ms`: the server asked for it.
    Waiting {
        until_ms: u64,
        least_ms: u64,
    },
    Wanted,
    Connecting,
    Opening(Box<ClientSession>),
    Open(Box<ClientSession>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Proof {
    Resume,
    Access,
    FreshAccess,
}

/// The connection, the proof, the waits.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: State,
    resume_token: Option<Bytes>,
    proof: Proof,
    failures: u32,
    places: Places,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Lost,
    Faulty,
    Busy {
        retry_after_ms: u32,
    },
    /// Another gateway was named, and when to go there: in a slot of our own, so there is nothing to spread.
    SentOn {
        retry_after_ms: u32,
    },
    ProofRefused,
    LoggedOut,
}

impl Ending {
    fn retry_after_ms(self) -> u64 {
        match self {
            Ending::Busy { retry_after_ms } | Ending::SentOn { retry_after_ms } => u64::from(retry_after_ms),
            Ending::Faulty => PROTOCOL_ERROR_MS,
            Ending::Lost | Ending::ProofRefused | Ending::LoggedOut => 0,
        }
    }

    pub(super) fn of_closing(closing: &SessionClosing) -> Self {
        let retry_after_ms = closing.retry_after_ms;
        match closing.reason() {
            Reason::Unauthenticated => Ending::ProofRefused,
            Reason::LoggedOut => Ending::LoggedOut,
            Reason::ProtocolError => Ending::Faulty,
            Reason::Draining if !closing.gateways.is_empty() => Ending::SentOn { retry_after_ms },
            Reason::Unspecified | Reason::Draining | Reason::Idle | Reason::TooSlow | Reason::Overloaded => {
                Ending::Busy { retry_after_ms }
            }
        }
    }
}

impl Link {
    pub(super) fn new(resume_token: Option<Bytes>) -> Self {
        Self {
            state: State::Waiting { until_ms: 0, least_ms: 0 },
            resume_token,
            proof: Proof::Resume,
            failures: 0,
            places: Places::default(),
        }
    }

    /// Where the next connection goes; `None`: to the configured server.
    pub(super) fn place(&self) -> Option<&str> {
        self.places.next()
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub(super) fn session(&mut self) -> Option<&mut ClientSession> {
        match &mut self.state {
            State::Open(session) | State::Opening(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        match &self.state {
            State::Waiting { until_ms, .. } => Some(*until_ms),
            State::Opening(session) | State::Open(session) => session.poll_timeout(),
            State::Stopped | State::Wanted | State::Connecting => None,
        }
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        if let State::Waiting { until_ms, .. } = self.state
            && now_ms >= until_ms
        {
            self.state = State::Wanted;
        }
    }

    /// Takes the wish for a connection.
    pub(super) fn poll_connect(&mut self) -> Option<ProofWanted> {
        if !matches!(self.state, State::Wanted) {
            return None;
        }
        self.state = State::Connecting;
        Some(match (self.proof, &self.resume_token) {
            (Proof::Resume, Some(token)) => ProofWanted::Resume(token.clone()),
            (Proof::Resume | Proof::Access, _) => ProofWanted::Access,
            (Proof::FreshAccess, _) => ProofWanted::FreshAccess,
        })
    }

    /// The session is open: the next drop begins with this token.
    pub(super) fn handle_ready(&mut self, resume_token: Bytes) {
        self.failures = 0;
        self.proof = Proof::Resume;
        self.resume_token = (!resume_token.is_empty()).then_some(resume_token);
    }

    /// The user's gateways, best first.
    pub(super) fn handle_gateways(&mut self, gateways: &[String]) {
        self.places.handle_named(gateways);
    }

    /// The server closes and may have named where to go.
    pub(super) fn handle_closing(&mut self, closing: &SessionClosing) {
        if closing.reason() == Reason::Draining {
            self.places.handle_named(&closing.gateways);
        }
    }

    /// No connection any more. True: the proof is void for good.
    pub(super) fn handle_ending(&mut self, ending: Ending, now_ms: u64, jitter: &mut Jitter) -> bool {
        let used_resume = self.proof == Proof::Resume && self.resume_token.is_some();
        if ending == Ending::Lost && !self.is_open() {
            self.places.handle_failed();
        }
        let until_ms = match ending {
            Ending::LoggedOut => None,
            Ending::ProofRefused if self.proof == Proof::FreshAccess => None,
            Ending::ProofRefused => {
                self.proof = if used_resume { Proof::Access } else { Proof::FreshAccess };
                self.resume_token = None;
                Some(now_ms)
            }
            Ending::SentOn { .. } => Some(now_ms + ending.retry_after_ms()),
            Ending::Lost | Ending::Busy { .. } | Ending::Faulty => {
                self.failures = self.failures.saturating_add(1);
                let spread_ms = jitter.backoff(self.failures, RECONNECT, 0);
                Some(now_ms + ending.retry_after_ms() + spread_ms)
            }
        };
        match until_ms {
            Some(until_ms) => {
                self.state = State::Waiting { until_ms, least_ms: now_ms + ending.retry_after_ms() }
            }
            None => self.stop(),
        }
        until_ms.is_none()
    }

    /// No more connections; the proofs are forgotten.
    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
        self.resume_token = None;
    }

    /// A network came up: do not wait any longer.
    pub(super) fn handle_network_changed(&mut self, now_ms: u64) {
        if let State::Waiting { until_ms, least_ms } = &mut self.state {
            *until_ms = now_ms.max(*least_ms);
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(link: &mut Link, now_ms: u64) -> Option<ProofWanted> {
        link.handle_timeout(now_ms);
        link.poll_connect()
    }

    #[test]
    fn a_refused_proof_is_answered_by_a_stronger_one_at_once() {
        let mut link = Link::new(Some(Bytes::from_static(b"token")));
        let mut jitter = Jitter::new(1);
        assert_eq!(connect(&mut link, 0), Some(ProofWanted::Resume(Bytes::from_static(b"token"))));
        assert!(!link.handle_ending(Ending::ProofRefused, 0, &mut jitter));
        assert_eq!(connect(&mut link, 0), Some(ProofWanted::Access));
        assert!(!link.handle_ending(Ending::ProofRefused, 0, &mut jitter));
        assert_eq!(connect(&mut link, 0), Some(ProofWanted::FreshAccess));
        assert!(link.handle_ending(Ending::ProofRefused, 0, &mut jitter));
        assert_eq!(connect(&mut link, u64::MAX), None);
    }

    #[test]
    fn a_lost_connection_waits_longer_each_time_until_one_is_ready() {
        let mut link = Link::new(None);
        let mut jitter = Jitter::new(1);
        let mut longest = 0;
        for _ in 0..12 {
            assert_eq!(connect(&mut link, 0), Some(ProofWanted::Access));
            link.handle_ending(Ending::Lost, 0, &mut jitter);
            let State::Waiting { until_ms, .. } = link.state else { panic!("it waits") };
            longest = longest.max(until_ms);
            link.handle_timeout(until_ms);
        }
        assert!((RECONNECT_MS_BASE * 4..=RECONNECT_MS_MAX).contains(&longest), "{longest}");
        link.poll_connect();
        link.handle_ready(Bytes::new());
        link.handle_ending(Ending::Lost, 0, &mut jitter);
        let State::Waiting { until_ms, .. } = link.state else { panic!("it waits") };
        assert!(until_ms <= RECONNECT_MS_BASE);
    }

    #[test]
    fn a_gateway_that_leaves_says_where_to_go_and_when_and_one_that_does_not_answer_is_passed_over() {
        let mut link = Link::new(None);
        let mut jitter = Jitter::new(3);
        let leaving = |gateways: &[&str], retry_after_ms| SessionClosing {
            reason: Reason::Draining as i32,
            retry_after_ms,
            gateways: gateways.iter().map(|address| (*address).to_owned()).collect(),
            ..SessionClosing::default()
        };
        assert!(connect(&mut link, 0).is_some());
        let closing = leaving(&["b:1", "c:1"], 700);
        link.handle_closing(&closing);
        link.handle_ending(Ending::of_closing(&closing), 1_000, &mut jitter);
        assert_eq!(connect(&mut link, 1_699), None);
        assert!(connect(&mut link, 1_700).is_some(), "in its slot, not some time after it");
        assert_eq!(link.place(), Some("b:1"));
        link.handle_ending(Ending::Lost, 1_700, &mut jitter);
        assert!(connect(&mut link, 1_700 + RECONNECT_MS_BASE).is_some());
        assert_eq!(link.place(), Some("c:1"));
        // One that is full says when; it stays our place. So does one that is lost while the session was open.
        link.handle_ending(Ending::Busy { retry_after_ms: 3_000 }, 3_000, &mut jitter);
        assert_eq!(link.place(), Some("c:1"));
        assert_eq!(connect(&mut link, 5_999), None);
        assert!(connect(&mut link, 6_000 + 2 * RECONNECT_MS_BASE).is_some());
        link.state = State::Open(Box::new(ClientSession::new(0)));
        link.handle_ending(Ending::Lost, 8_000, &mut jitter);
        assert_eq!(link.place(), Some("c:1"));
        link.state = State::Connecting;
        link.handle_ending(Ending::Lost, 9_000, &mut jitter);
        assert_eq!(link.place(), None, "then the server that the app knows");
        let closing = leaving(&[], 700);
        link.handle_closing(&closing);
        assert_eq!(Ending::of_closing(&closing), Ending::Busy { retry_after_ms: 700 });
    }

    #[test]
    fn a_changed_network_ends_the_wait_but_not_the_server_s() {
        let mut link = Link::new(None);
        let mut jitter = Jitter::new(5);
        assert!(connect(&mut link, 0).is_some());
        link.handle_ending(Ending::Busy { retry_after_ms: 9_000 }, 0, &mut jitter);
        link.handle_network_changed(1_000);
        assert_eq!(connect(&mut link, 8_999), None);
        assert!(connect(&mut link, 9_000).is_some());
        link.handle_ending(Ending::Lost, 9_000, &mut jitter);
        link.handle_network_changed(9_000);
        assert!(connect(&mut link, 9_000).is_some());
    }
}
