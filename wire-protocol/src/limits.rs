//! Every protocol limit, with its unit and its reason. Relations between limits are proved below them.

/// Lowest protocol version this code speaks.
pub const VERSION_MIN: u32 = 1;
/// Highest protocol version this code speaks.
pub const VERSION_MAX: u32 = 1;
/// Lowest version of the links to storage nodes that this code speaks: that of the release before this one, so that a
/// fleet is updated one process after the other.
pub const LINK_VERSION_MIN: u32 = 1;
/// Highest version of those links. 2: the outcome of a message says on how many copies it is.
pub const LINK_VERSION: u32 = 2;

/// Feature bit: the client understands session-local conversation handles.
pub const FEATURE_HANDLES: u64 = 1;
/// Every feature bit this code understands.
pub const FEATURES: u64 = FEATURE_HANDLES;

/// ALPN name of the native protocol.
pub const ALPN_NATIVE: &[u8] = b"ringline/1";
/// ALPN name of HTTP, which carries the WebSocket upgrade and the REST interface.
pub const ALPN_HTTP: &[u8] = b"http/1.1";
/// Subprotocol name of the WebSocket upgrade.
pub const WEBSOCKET_PROTOCOL: &str = "ringline.v1";
/// Path of the WebSocket upgrade.
pub const WEBSOCKET_PATH: &str = "/v1/socket";

/// Largest frame payload either side sends, in bytes: a page of history, or the largest body and its envelope.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest frame payload before the session is ready, in bytes: a hello with a token. Strangers get no more.
pub const HELLO_FRAME_BYTES_MAX: usize = 4 * 1024;
/// Largest body of a message, in bytes. Larger content is media and goes by reference.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest `Hello.client`, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;
/// Longest access or resume token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 2 * 1024;
/// Longest group title, in characters.
pub const TITLE_CHARS_MAX: usize = 100;
/// Longest username, in characters (requirement A4).
pub const USERNAME_CHARS_MAX: usize = 50;
/// Shortest username, in characters.
pub const USERNAME_CHARS_MIN: usize = 3;
/// Longest display name, in characters (requirement A4).
pub const DISPLAY_NAME_CHARS_MAX: usize = 100;

/// Shortest password, in characters: NIST SP 800-63B.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in characters: a passphrase, and little to hash.
pub const PASSWORD_CHARS_MAX: usize = 128;
/// Longest name of a device, in characters.
pub const DEVICE_NAME_CHARS_MAX: usize = 64;
/// Largest body of an HTTP request, in bytes: several times what the fields above need.
pub const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;

/// Gateways that a `SessionClosing` names, at most: if that many in a row are gone, a client comes by the address that
/// it was given.
pub const CLOSING_GATEWAYS_MAX: usize = 8;
/// Longest `host:port` of a gateway, in bytes: a name of the DNS, a colon, a port.
pub const GATEWAY_ADDRESS_BYTES_MAX: usize = 253 + 1 + 5;

/// Requests a client may have unanswered. More are refused with `ERROR_TOO_MANY_IN_FLIGHT`.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// What the refusal of a request too many names as pause, in milliseconds: some synced writes take that long.
pub const IN_FLIGHT_RETRY_AFTER_MS: u32 = 100;
/// Handles a session may hold: 16 bytes each. Later conversations go by their full id.
pub const HANDLES_MAX: usize = 1_024;
/// Members of a group, creator included (requirement D3's default). A group's members stand whole in one page of a
/// sync, 48 bytes each.
pub const GROUP_MEMBERS_MAX: usize = 256;
/// Users in one look-up.
pub const LOOK_UP_USERS_MAX: usize = 100;

/// Entries in one page of history (requirement C8).
pub const HISTORY_ENTRIES_MAX: usize = 50;
/// Entries the server starts with in a conversation that is new to a device.
pub const SYNC_LATEST_ENTRIES: usize = 20;
/// Cursors in one sync request.
pub const SYNC_CURSORS_MAX: usize = 1_000;
/// Conversations in one sync page.
pub const SYNC_CONVERSATIONS_MAX: usize = 100;
/// Bytes of entries in one page of sync or history; leaves room in the frame for the rest of the page.
pub const PAGE_BYTES_MAX: usize = 40 * 1024;
/// Conversations in one page of the list.
pub const LIST_CONVERSATIONS_MAX: usize = 50;
/// Longest `ListConversations.page_token`, in bytes: what the server gave is 24, an activity and a conversation.
pub const PAGE_TOKEN_BYTES_MAX: usize = 64;

/// Heartbeat in seconds when the client does not ask for another (requirement B4).
pub const HEARTBEAT_S_DEFAULT: u32 = 30;
/// Shortest heartbeat a client may ask for, in seconds.
pub const HEARTBEAT_S_MIN: u32 = 5;
/// Longest heartbeat a client may ask for, in seconds.
pub const HEARTBEAT_S_MAX: u32 = 600;
/// A session without a frame for this many heartbeats is dead (90 s at the default, requirement B4).
pub const HEARTBEATS_MISSED_MAX: u32 = 3;
/// A connection that has not said hello after this long is closed, in milliseconds. TLS included.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;
/// An unanswered request is answered with `ERROR_TIMED_OUT` after this long, in milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;

/// A repeated send gets its first answer for at least this long, in milliseconds: seven days.
pub const IDEMPOTENCY_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// A claimed name that was never confirmed is free again after this long, in milliseconds.
pub const NAME_CLAIM_MS: u64 = 60_000;
/// Devices of one user.
pub const DEVICES_MAX: usize = 16;

/// Slots that ids are spread over, for ever.
pub const SLOT_COUNT: u16 = 4_096;
/// Shards of one fleet: every home shard keeps a position for every source shard, and looks at them every turn.
pub const SHARD_COUNT_MAX: u32 = 256;
/// Largest link frame, in bytes: a batch of requests or answers.
pub const LINK_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A link frame is closed and sent when its items reach this many bytes.
pub const LINK_BATCH_BYTES: usize = 256 * 1024;
/// Largest single item of a link frame, in bytes; it travels alone if it is above [`LINK_BATCH_BYTES`].
pub const LINK_ITEM_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Requests one link may have unanswered.
pub const LINK_CREDITS: u32 = 8_192;
/// Bytes queued on one link before new requests are refused as overloaded and deliveries turn into "sync needed".
pub const LINK_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Sessions of one link that are remembered as having lost a delivery; beyond that every session of the link is
/// told to sync. 24 bytes each in memory.
pub const LINK_SYNC_NEEDED_SESSIONS_MAX: usize = 65_536;
/// What the refusal of a request over a full link names as pause, in milliseconds.
pub const LINK_OVERLOADED_RETRY_MS: u32 = 500;
/// A link without a frame for this long is dead, in milliseconds; the caller pings at a third of it.
pub const LINK_DEAD_MS: u64 = 9_000;
/// The caller of a link pings when it sent or heard nothing for this long, in milliseconds.
pub const LINK_PING_MS: u64 = LINK_DEAD_MS / 3;

/// Bytes queued to one client before it is told to sync instead (requirement B8).
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;

const _: () = {
    assert!(VERSION_MIN <= VERSION_MAX);
    assert!(HELLO_FRAME_BYTES_MAX < FRAME_BYTES_MAX);
    // Every field at its longest, each character written as two escapes of six bytes.
    assert!(
        12 * (USERNAME_CHARS_MAX + DISPLAY_NAME_CHARS_MAX + PASSWORD_CHARS_MAX + DEVICE_NAME_CHARS_MAX)
            < HTTP_BODY_BYTES_MAX
    );
    assert!(TOKEN_BYTES_MAX + CLIENT_NAME_BYTES_MAX + 64 < HELLO_FRAME_BYTES_MAX);
    // The largest single entry always fits a page, and a full page fits a frame.
    assert!(BODY_BYTES_MAX + 1_024 < PAGE_BYTES_MAX);
    assert!(PAGE_BYTES_MAX + BODY_BYTES_MAX < FRAME_BYTES_MAX);
    // All cursors of a sync fit a frame: 16 bytes of id, 10 of seq, 6 of tags.
    assert!(SYNC_CURSORS_MAX * 32 < FRAME_BYTES_MAX);
    // Each shard has a slot at least.
    assert!(SHARD_COUNT_MAX <= SLOT_COUNT as u32);
    assert!(LINK_BATCH_BYTES + 2 * FRAME_BYTES_MAX < LINK_FRAME_BYTES_MAX);
    // The largest item fits a frame beside a full batch of positions.
    assert!(LINK_ITEM_BYTES_MAX + LINK_BATCH_BYTES + FRAME_BYTES_MAX < LINK_FRAME_BYTES_MAX);
    assert!(LINK_ITEM_BYTES_MAX < LINK_QUEUE_BYTES_MAX);
    // Each side hears the other twice before it would give the link up.
    assert!(LINK_PING_MS * 2 < LINK_DEAD_MS);
    assert!(OUTBOX_BYTES_MAX >= 2 * FRAME_BYTES_MAX);
    assert!(HEARTBEAT_S_MIN <= HEARTBEAT_S_DEFAULT && HEARTBEAT_S_DEFAULT <= HEARTBEAT_S_MAX);
    assert!(HANDLES_MAX <= u16::MAX as usize);
};
