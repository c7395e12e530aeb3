// Every limit the library keeps, with its unit and reason. Those of the protocol repeat wire-protocol/src/limits.rs.

/** Protocol versions this library speaks. */
export const VERSION_MIN = 1;
export const VERSION_MAX = 1;
/** Feature bit: session-local conversation handles. */
export const FEATURE_HANDLES = 1n;
/** Path and subprotocol of the WebSocket. */
export const WEBSOCKET_PATH = '/v1/socket';
export const WEBSOCKET_PROTOCOL = 'ringline.v1';

/** Largest frame payload, in bytes, unless Ready names another. */
export const FRAME_BYTES_MAX = 64 * 1024;
/** Largest body of a message, in bytes. */
export const BODY_BYTES_MAX = 16 * 1024;
/** Longest group title and display name, in characters. */
export const TITLE_CHARS_MAX = 100;
export const DISPLAY_NAME_CHARS_MAX = 100;
/** Username length, in characters. */
export const USERNAME_CHARS_MIN = 3;
export const USERNAME_CHARS_MAX = 50;
/** A feed version begins with how often the server was restored from a backup; then come so many bits. */
export const FEED_VERSION_BITS_OF_ONE_RESTORE = 57n;
/** Members of a group, the creator included. */
export const GROUP_MEMBERS_MAX = 256;
/** Users in one look-up. */
export const LOOK_UP_USERS_MAX = 100;
/** Entries in one page of history. */
export const HISTORY_ENTRIES_MAX = 50;
/** Cursors in one sync. */
export const SYNC_CURSORS_MAX = 1_000;
/** Unanswered requests, unless Ready names another. */
export const REQUESTS_IN_FLIGHT_MAX = 64;
/** Handles of one session that are remembered; the gateway gives no more. */
export const HANDLES_MAX = 1_024;
/** Heartbeat when Ready names none, in seconds; after three without a frame the connection is dead. */
export const HEARTBEAT_S_DEFAULT = 30;
export const HEARTBEATS_MISSED_MAX = 3;
/** A repeated send gets its first answer for this long, in milliseconds: seven days at the server. */
export const IDEMPOTENCY_MS = 7 * 24 * 3_600_000;

/** Ready must follow hello within this time, in milliseconds; connecting included, as phones are slow to wake. */
export const HELLO_TIMEOUT_MS = 15_000;
/** An unanswered request fails after this time, in milliseconds: the server gives up at 10 s, and the way back. */
export const REQUEST_TIMEOUT_MS = 15_000;
/** After waking up, a ping must be answered within this time, in milliseconds, else the connection is dead. */
export const PROBE_TIMEOUT_MS = 5_000;

/** First and longest step of the reconnect back-off, in milliseconds. Full jitter: each wait is 0 to the step. */
export const RECONNECT_BASE_MS = 500;
export const RECONNECT_CAP_MS = 30_000;
/** A session that lasted this long resets the reconnect back-off, in milliseconds. */
export const RECONNECT_RESET_MS = 10_000;
/** Back-off of a refused request, in milliseconds. */
export const RETRY_BASE_MS = 400;
export const RETRY_CAP_MS = 20_000;

/** Sends of one conversation in flight: enough for any typist, few enough to keep order cheap. */
export const SENDS_IN_FLIGHT_MAX = 8;
/** Unacknowledged messages kept; more are refused to the user, visibly. */
export const OUTBOX_ITEMS_MAX = 500;
/** An item this old is no longer sent again by itself, in milliseconds: a day less than the server remembers. */
export const OUTBOX_RETRY_MS = IDEMPOTENCY_MS - 24 * 3_600_000;

/** Live entries that wait for those before them, in one conversation; beyond, they are fetched again. */
export const AHEAD_ENTRIES_MAX = 256;
/** A gap is given this long to close by itself, in milliseconds: acknowledgements may overtake events. */
export const GAP_WAIT_MS = 300;
/** Entries fetched to close a gap; a longer one is left to scrolling back. */
export const GAP_FILL_ENTRIES_MAX = 500;
/** Gaps being closed at the same time. */
export const FILLS_IN_FLIGHT_MAX = 4;
/** Entries of the open conversation held in memory; the others are in the store. */
export const VIEW_ENTRIES_MAX = 600;
/** Entries read from the store at once. */
export const VIEW_PAGE_ENTRIES = 50;
/** Cached user names are asked again after this time, in milliseconds. */
export const USER_FRESH_MS = 24 * 3_600_000;
/** The access token is refreshed this long before its end, in milliseconds, or at a fifth of its life if that is shorter. */
export const TOKEN_MARGIN_MS = 60_000;

const relations: [boolean, string][] = [
  [GAP_FILL_ENTRIES_MAX >= AHEAD_ENTRIES_MAX, 'what waits can be fetched'],
  [VIEW_ENTRIES_MAX >= 4 * VIEW_PAGE_ENTRIES, 'a page taken in does not push out what is on the screen'],
  [SENDS_IN_FLIGHT_MAX < REQUESTS_IN_FLIGHT_MAX, 'sends leave room for other requests'],
  [RECONNECT_BASE_MS <= RECONNECT_CAP_MS && RETRY_BASE_MS <= RETRY_CAP_MS, 'back-offs grow'],
];
for (const [holds, reason] of relations) if (!holds) throw new Error(`limits: ${reason}`);
