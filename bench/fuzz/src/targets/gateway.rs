//! What a gateway reads before it knows who speaks: the first bytes of a connection, and proofs. And what else it has given
//! to clients and is shown again: tickets of TLS sessions, and where a page of the list ended.

use crate::Target;
use crate::input::Input;
use bytes::Bytes;
use gateway::config::AuthConfig;
use gateway::domain::auth::{self, Identity, Verifier};
use gateway::domain::{Asker, Call, Calls, Progress, Work};
use gateway::router::Router;
use gateway::tls::tickets::{
    SharedTicketer, TICKET_PERIOD_MS, TICKET_SECRET_BYTES, TicketSecrets, TicketSource,
};
use gateway::transport::{Connection, TransportEvent};
use rustls::server::ProducesTickets;
use std::sync::{Arc, OnceLock};
use wire_protocol::error::RequestError;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::{
    Answer, ConversationListPage, FeedRow, Query, answer, query, shard_request, shard_response,
};
use wire_protocol::limits::HELLO_FRAME_BYTES_MAX;
use wire_protocol::v1::{self, ErrorCode, client_frame, server_frame};

/// Some moment, in milliseconds since 1970.
const NOW_MS: u64 = 1_790_000_000_000;
/// What is in each ticket.
const SESSION: &[u8] = b"session";
/// Bytes of a page token: a time and a conversation.
const PAGE_TOKEN_BYTES: usize = 8 + 16;

/// See `holds`.
pub const TRANSPORT: Target = Target {
    name: "transport",
    holds: "a connection's plaintext is native, WebSocket or HTTP however its bytes are cut and its frames asked for, and frames are within bounds",
    run: transport,
};
/// See `holds`.
pub const TOKENS: Target = Target {
    name: "tokens",
    holds: "no bytes but those that were issued are a proof or a ticket, a page token comes back as it was read, and each refusal names its reason",
    run: tokens,
};

/// What comes out, as text: HTTP's bytes joined, since they come in pieces.
fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>, frames_max: u32) -> String {
    let origins = ["https://chat.example".to_owned()];
    let (mut connection, mut scratch) = (Connection::new(None), Vec::new());
    let (mut told, mut http) = (String::new(), Vec::new());
    'read: for piece in pieces {
        let mut bytes = piece.to_vec();
        loop {
            let mut sink = |event| match event {
                TransportEvent::Http(bytes) | TransportEvent::HttpBytes(bytes) => {
                    http.extend_from_slice(&bytes)
                }
                TransportEvent::Frame(frame) => {
                    // Nobody is let in here, and strangers may send no more.
                    assert!(frame.len() <= HELLO_FRAME_BYTES_MAX);
                    told.push_str(&format!("frame {frame:?}\n"));
                }
                event => told.push_str(&format!("{event:?}\n")),
            };
            let received = connection.receive(&mut bytes, &mut scratch, &origins, frames_max, &mut sink);
            if let Err(ending) = received {
                told.push_str(&format!("{ending:?}\n"));
                break 'read;
            }
            if !connection.is_unfinished() {
                break;
            }
            bytes.clear();
        }
    }
    format!("{told}{http:?}")
}

fn transport(data: &[u8]) {
    let mut input = Input::new(data);
    let step = 1 + input.below(64);
    let bytes = input.rest();
    assert_eq!(told(std::iter::once(bytes), u32::MAX), told(bytes.chunks(step), 1 + step as u32 % 5));
}

struct Proofs {
    verifier: Verifier,
    resume: Vec<u8>,
    ticketer: SharedTicketer<Secrets>,
    /// Tickets, and whether it is to open them.
    tickets: Vec<(Vec<u8>, bool)>,
}

/// Secrets of a fleet at some moment.
struct Secrets {
    secrets: Arc<TicketSecrets>,
    now_ms: u64,
}

impl TicketSource for Secrets {
    fn secrets(&self) -> Arc<TicketSecrets> {
        Arc::clone(&self.secrets)
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

/// By secrets of one digit each, of which the first one makes tickets.
fn ticketer(digits: &[&str], now_ms: u64) -> SharedTicketer<Secrets> {
    let lines: Vec<String> = digits.iter().map(|digit| digit.repeat(2 * TICKET_SECRET_BYTES)).collect();
    let secrets = TicketSecrets::parse(&lines.join("\n")).expect("secrets");
    SharedTicketer(Secrets { secrets: Arc::new(secrets), now_ms })
}

/// Keys that are made once: what a proof must not be made without.
fn proofs() -> &'static Proofs {
    static PROOFS: OnceLock<Proofs> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for keys");
        let (_, verifier) = auth::open(&AuthConfig::default(), folder.path()).expect("keys are made");
        let identity = Identity { user: UserId([1; 16]), device: DeviceId([2; 16]), expires_ms: NOW_MS };
        let resume = verifier.issue_resume(identity, NOW_MS).to_vec();
        let made = |digit: &str, now_ms| ticketer(&[digit], now_ms).encrypt(SESSION).expect("it seals");
        let tickets = vec![
            (made("a", NOW_MS), true),
            // By a gateway that has taken over the next secret, or whose clock is behind.
            (made("b", NOW_MS), true),
            (made("a", NOW_MS - TICKET_PERIOD_MS), true),
            // By ours long ago, and by another fleet.
            (made("a", NOW_MS - 2 * TICKET_PERIOD_MS), false),
            (made("c", NOW_MS), false),
        ];
        Proofs { verifier, resume, ticketer: ticketer(&["a", "b"], NOW_MS), tickets }
    })
}

fn tokens(data: &[u8]) {
    let mut input = Input::new(data);
    let is_issued = input.below(3) == 0;
    let bytes = input.rest();
    let proofs = proofs();
    if is_issued {
        proof(proofs, &changed(&proofs.resume, bytes));
        proofs.tickets.iter().for_each(|(issued, _)| ticket(proofs, &changed(issued, bytes)));
        page_token(&changed(&[7; PAGE_TOKEN_BYTES], bytes));
    } else {
        proof(proofs, bytes);
        ticket(proofs, bytes);
        // Who has seen a ticket knows how others begin.
        let known = bytes.first().map_or(0, |byte| usize::from(*byte));
        for (issued, _) in &proofs.tickets {
            ticket(proofs, &[&issued[..known % issued.len()], bytes].concat());
        }
        page_token(bytes);
    }
}

/// An issued one, changed: wherever the input says.
fn changed(issued: &[u8], changes: &[u8]) -> Vec<u8> {
    let (mut token, mut input) = (issued.to_vec(), Input::new(changes));
    while !input.is_empty() {
        let (place, bits) = (input.byte(), input.byte());
        let place = usize::from(place) % token.len();
        token[place] ^= bits;
    }
    token
}

fn proof(proofs: &Proofs, token: &[u8]) {
    match proofs.verifier.verify_resume(token, NOW_MS) {
        Ok(_) => assert_eq!(token, &proofs.resume[..], "nobody issued this one"),
        Err(error) => assert!(!error.detail.is_empty()),
    }
    let text = String::from_utf8_lossy(token);
    let error = proofs.verifier.verify_access(&text, NOW_MS).expect_err("nobody signed one here");
    assert!(!error.detail.is_empty());
}

/// What opens was made by one of the secrets, not long ago, and holds what was put into it.
fn ticket(proofs: &Proofs, ticket: &[u8]) {
    let is_good = proofs.tickets.iter().any(|(issued, is_good)| *is_good && issued[..] == *ticket);
    let opened = proofs.ticketer.decrypt(ticket);
    assert_eq!(opened.as_deref(), is_good.then_some(SESSION), "nobody may change one");
}

/// A page token is none, or says after which row a page begins; and a page that ends with that row gives it again.
fn page_token(token: &[u8]) {
    let router = Router::embedded(4);
    let (user, device) = (UserId([1; 16]), DeviceId([2; 16]));
    let asker = Asker { user, device, server_time_ms: NOW_MS, router: &router };
    let list = v1::ListConversations { limit: 1, page_token: Bytes::copy_from_slice(token) };
    let mut calls = Calls::default();
    let (mut work, _) = match Work::start(&asker, client_frame::Body::List(list), &mut calls) {
        Ok(started) => started,
        Err(error) => {
            assert_eq!(error.code, ErrorCode::ErrorInvalidArgument);
            assert!(!error.detail.is_empty() && calls.is_empty());
            assert!(![0, PAGE_TOKEN_BYTES].contains(&token.len()), "there are no others");
            return;
        }
    };
    assert!([0, PAGE_TOKEN_BYTES].contains(&token.len()), "nobody gave this one");
    let Call { part, operation, .. } = calls.drain().next().expect("it asks for rows");
    let shard_request::Operation::Query(Query { kind: Some(query::Kind::ReadConversationList(after)) }) =
        operation
    else {
        panic!("it asks for something else")
    };
    if token.is_empty() {
        assert_eq!((after.before_activity_ms, after.before_conversation_id.len()), (0, 0));
        return;
    }
    let row = FeedRow {
        conversation_id: after.before_conversation_id,
        activity_ms: after.before_activity_ms,
        ..FeedRow::default()
    };
    let rows = answer::Kind::ConversationList(ConversationListPage { rows: vec![row], more: true });
    let rows = shard_response::Result::Answer(Answer { kind: Some(rows) });
    assert!(matches!(work.handle_result(&asker, part, Ok(rows), &mut calls), Progress::Waiting));
    let Call { part, .. } = calls.drain().next().expect("it reads the row's conversation");
    let gone = RequestError::new(ErrorCode::ErrorNotFound, "gone");
    match work.handle_result(&asker, part, Err(gone), &mut calls) {
        Progress::Answered(server_frame::Body::ConversationPage(page)) => assert_eq!(page.next, token),
        other => panic!("{other:?}"),
    }
}
