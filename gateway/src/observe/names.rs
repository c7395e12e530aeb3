//! Every metric of the gateway: its name, its meaning, and how it is read.

/// Whether a number only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Since the process started.
    Counter,
    /// Now.
    Gauge,
}

/// One metric of the exposition.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// For people.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal $help:literal;)*) => {
        /// A number that every core keeps.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "each says what it is in METRICS")]
        pub enum Metric { $($variant,)* }

        /// By [`Metric`].
        pub const METRICS: &[Described] = &[
            $(Described { name: $name, help: $help, kind: Kind::$kind },)*
        ];
    };
}

metrics! {
    Connections Gauge "ringline_connections" "Open connections, handshakes included.";
    SessionsNative Gauge "ringline_sessions_native" "Sessions over the native protocol.";
    SessionsWebSocket Gauge "ringline_sessions_websocket" "Sessions over WebSocket.";
    SessionsReady Counter "ringline_sessions_ready_total" "Hellos that were answered with ready.";
    SessionsRefused Counter "ringline_sessions_refused_total" "Hellos that were refused.";
    SessionsPutOff Counter "ringline_sessions_put_off_total" "Hellos told to come again later: too many at once.";
    SessionsSentOn Counter "ringline_sessions_sent_on_total" "Sessions and hellos told to go to another gateway.";
    SessionsClosed Counter "ringline_sessions_closed_total" "Sessions that the gateway ended.";
    HttpConnections Gauge "ringline_http_connections" "Open connections that carry HTTP.";
    Accepted Counter "ringline_accepted_total" "Sockets accepted.";
    AcceptFailures Counter "ringline_accept_failures_total" "Times accepting failed for want of something in the system.";
    ConnectionsTooMany Counter "ringline_connections_refused_too_many_total" "Refused: their address has its share.";
    ConnectionsTooFast Counter "ringline_connections_refused_too_fast_total" "Refused: their address comes too quickly.";
    AcceptsPaused Counter "ringline_accepts_paused_total" "Times no place was left and accepting paused.";
    AcceptsSlowed Counter "ringline_accepts_slowed_total" "Times newcomers came too quickly and accepting paused.";
    HandshakesFull Counter "ringline_tls_handshakes_full_total" "TLS handshakes without a ticket.";
    HandshakesResumed Counter "ringline_tls_handshakes_resumed_total" "TLS handshakes by a ticket.";
    HandshakesFailed Counter "ringline_tls_handshakes_failed_total" "TLS handshakes that failed.";
    HelloTimeouts Counter "ringline_hello_timeouts_total" "Connections whose first frame did not come.";
    FramesReceived Counter "ringline_frames_received_total" "Frames from clients.";
    FramesSent Counter "ringline_frames_sent_total" "Frames to clients.";
    BytesReceived Counter "ringline_bytes_received_total" "Bytes from clients' sockets.";
    BytesSent Counter "ringline_bytes_sent_total" "Bytes to clients' sockets.";
    OutboxBytes Gauge "ringline_outbox_bytes" "Bytes queued to clients.";
    OutboxesFull Counter "ringline_outboxes_full_total" "Sends refused because an outbox was full.";
    ReadsPaused Counter "ringline_reads_paused_total" "Times a client was not read from.";
    ReceiveBuffersExhausted Counter "ringline_receive_buffers_exhausted_total" "Receives without a buffer.";
    Acks Counter "ringline_acks_total" "Messages answered as durable.";
    EventsSent Counter "ringline_events_sent_total" "Live events queued to sessions.";
    EventsDropped Counter "ringline_events_dropped_total" "Live events dropped: the session syncs.";
    SyncsAsked Counter "ringline_sync_needed_total" "Sessions told to sync.";
    AnswersTooLarge Counter "ringline_answers_without_room_total" "Answers an outbox had no room for.";
    CursorsDropped Counter "ringline_cursors_dropped_total" "Cursors without answer that were not carried.";
    ThrottledUsers Counter "ringline_throttled_users_total" "Requests refused by their user's rate.";
    ThrottledConversations Counter "ringline_throttled_conversations_total" "Messages refused by their conversation's rate.";
    ThrottledAddresses Counter "ringline_throttled_addresses_total" "Requests refused by their address' rate.";
    RatesWithoutPlace Counter "ringline_rates_without_place_total" "Requests whose key found no place in a table of rates.";
    PendingRequests Gauge "ringline_pending_requests" "Requests that wait for storage.";
    RequestTimeouts Counter "ringline_request_timeouts_total" "Requests that storage did not answer in time.";
    StorageCalls Counter "ringline_storage_calls_total" "Calls sent to storage.";
    StorageRefused Counter "ringline_storage_refused_total" "Calls that no link took.";
    RequestsFollowed Counter "ringline_storage_calls_followed_total" "Calls sent again to the node that leads, after another one.";
    RequestsWaiting Gauge "ringline_storage_calls_waiting" "Calls that wait to be sent to the node that leads.";
    LateAnswers Counter "ringline_late_answers_total" "Storage answers nobody waited for any more.";
    LinksUp Gauge "ringline_storage_links_up" "Storage nodes this core can reach.";
    LinksLost Counter "ringline_storage_links_lost_total" "Links to storage that were lost.";
    ShardsReached Gauge "ringline_storage_shards_reached" "Shards whose leader is known and behind an open link.";
    LeadersChanged Counter "ringline_storage_leaders_changed_total" "Shards that another node leads than before.";
    MailboxMessages Gauge "ringline_mailbox_messages" "Messages waiting for the core.";
    MailboxTaken Counter "ringline_mailbox_taken_total" "Messages of other threads carried out.";
    HttpOverflows Counter "ringline_http_overflows_total" "HTTP connections ended because a queue was full.";
    Turns Counter "ringline_turns_total" "Turns of the loop.";
}

/// Requests by kind; label `kind`.
pub const REQUESTS: Described =
    Described { name: "ringline_requests_total", help: "Requests taken, by kind.", kind: Kind::Counter };

/// Errors answered by code; label `code`.
pub const ERRORS: Described = Described {
    name: "ringline_errors_total",
    help: "Requests answered with an error, by code.",
    kind: Kind::Counter,
};

/// Latencies; label `of`, by [`Latency`]. A summary.
pub const LATENCIES: &str = "ringline_latency_seconds";
/// What [`LATENCIES`] says.
pub const LATENCIES_HELP: &str =
    "Time inside the gateway, from a request's frame to its answer, or of a turn.";

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Latency {
    /// A message, from its frame to its durable answer.
    Send,
    /// A page of a sync.
    Sync,
    /// Any other request.
    Other,
    /// From hello to ready.
    Hello,
    /// One turn of the loop, without waiting.
    Turn,
}

/// Label values of [`Latency`].
pub const LATENCY_LABELS: [&str; 5] = ["send", "sync", "other", "hello", "turn"];

/// Label values of [`REQUESTS`].
pub const REQUEST_KINDS: [&str; 11] =
    ["send", "delivered", "read", "sync", "history", "list", "create", "log_out", "look_up", "get", "other"];
