//! Every limit of the client, with its unit and its reason. Limits of the protocol are in
//! `wire_protocol::limits`.

use wire_protocol::limits::{
    HISTORY_ENTRIES_MAX, IDEMPOTENCY_MS, REQUEST_TIMEOUT_MS, REQUESTS_IN_FLIGHT_MAX,
};

/// Messages that may wait in the outbox. At 16 KiB each this is what a phone's storage bears; more are refused.
pub const OUTBOX_MESSAGES_MAX: usize = 10_000;
/// Sends in flight: half of what the server allows, so that sync, cursors and the app's requests never wait
/// behind a full outbox.
pub const SENDS_IN_FLIGHT_MAX: usize = 32;
/// Cursor reports in flight. Each is cumulative, so a queue of them would only be older news.
pub const CURSORS_IN_FLIGHT_MAX: usize = 8;
/// Gaps being filled at once, a page each: 4 × 40 KiB is what a slow link takes in a second.
pub const FILLS_IN_FLIGHT_MAX: usize = 4;
/// Entries held in memory of one conversation that arrived before their predecessors. What does not fit is
/// fetched again with the gap.
pub const AHEAD_ENTRIES_MAX: usize = 64;
/// Requests of the app (create, fetch, log out) that wait for their answer.
pub const OPERATIONS_MAX: usize = 64;
/// Conversations kept on the device, some 200 bytes of memory each.
pub const CONVERSATIONS_MAX: usize = 100_000;
/// Users whose names are asked for, but not known yet. More wait until the conversation is seen again.
pub const USERS_WANTED_MAX: usize = 10_000;
/// Sync pages in a row that bring nothing new before the client stops asking for a while.
pub const SYNC_PAGES_IDLE_MAX: u32 = 3;

/// Range of the first wait before a reconnect, in milliseconds; it doubles with each failure.
pub const RECONNECT_MS_BASE: u64 = 500;
/// Longest range of a wait before a reconnect, in milliseconds.
pub const RECONNECT_MS_MAX: u64 = 60_000;
/// The list of gateways is not asked for again before this, in milliseconds: as long as the server says that it may be
/// kept.
pub const GATEWAYS_MS: u64 = 300_000;
/// Range of the first wait before a refused request is repeated, in milliseconds; it doubles with each refusal.
pub const RETRY_MS_BASE: u64 = 200;
/// Longest range of a wait before a refused request is repeated, in milliseconds.
pub const RETRY_MS_MAX: u64 = 10_000;
/// Wait after the server said that we broke the protocol, in milliseconds: only an update will help.
pub const PROTOCOL_ERROR_MS: u64 = 60_000;
/// A request without an answer for this long ends the connection, in milliseconds. The server itself answers
/// after `REQUEST_TIMEOUT_MS` at the latest; the rest is the network's.
pub const ANSWER_MS_MAX: u64 = REQUEST_TIMEOUT_MS + 20_000;
/// A live session syncs after this long, in milliseconds: heals a push that was lost on a quiet conversation.
pub const SYNC_REFRESH_MS: u64 = 900_000;
/// An attempted message older than this is not repeated by itself, in milliseconds: near the end of the
/// server's idempotency window it could be stored twice. A day is left for clocks that disagree.
pub const UNCONFIRMED_MS: u64 = IDEMPOTENCY_MS - 24 * 3_600 * 1_000;

/// Commands of the app that wait for the worker.
pub const COMMANDS_MAX: usize = 256;
/// Events that wait for a reader of the stream; a slower one is told `Event::Lagged`.
pub const EVENTS_MAX: usize = 4_096;
/// Received payloads that wait for the worker; then the socket is not read.
pub const RECEIVED_MAX: usize = 64;
/// Payloads that wait for the socket: one for each request in flight, and pings.
pub const TRANSMIT_MAX: usize = 2 * REQUESTS_IN_FLIGHT_MAX;
/// Jobs that wait for the store's thread.
pub const STORE_JOBS_MAX: usize = 256;
/// TCP, TLS and upgrade together, in milliseconds.
pub const CONNECT_MS_MAX: u64 = 15_000;
/// One REST request, in milliseconds: a password hash takes the server its time.
pub const REST_MS_MAX: u64 = 30_000;
/// Largest REST answer, in bytes.
pub const REST_BYTES_MAX: usize = 64 * 1024;
/// How long the app waits for create, fetch and refresh at most, in milliseconds.
pub const OPERATION_MS_MAX: u64 = 30_000;
/// How long log out waits for the server before it forgets the device locally, in milliseconds.
pub const LOG_OUT_MS_MAX: u64 = 10_000;
/// An access token that ends within this is not used any more, in milliseconds.
pub const TOKEN_RESERVE_MS: u64 = 30_000;
/// Messages in one page of local history.
pub const HISTORY_PAGE_MAX: usize = 500;

const _: () = {
    assert!(SENDS_IN_FLIGHT_MAX + CURSORS_IN_FLIGHT_MAX + FILLS_IN_FLIGHT_MAX < REQUESTS_IN_FLIGHT_MAX);
    assert!(AHEAD_ENTRIES_MAX >= HISTORY_ENTRIES_MAX);
    assert!(UNCONFIRMED_MS < IDEMPOTENCY_MS);
};
