//! Numbers that bound nothing, in groups, each with its reason. Every other number of the code is a limit.

use super::Limit;
use std::collections::HashSet;

/// Some numbers that are no limits.
struct Group {
    /// Why they bound nothing.
    reason: &'static str,
    /// Names by file.
    names: &'static [(&'static str, &'static str)],
}

const GROUPS: [Group; 8] = [
    Group {
        reason: "versions and features, which tell one protocol or format from another",
        names: &[
            ("wire-protocol/src/limits.rs", "VERSION_MIN VERSION_MAX LINK_VERSION_MIN LINK_VERSION"),
            ("wire-protocol/src/limits.rs", "FEATURE_HANDLES FEATURES"),
            ("gateway/src/tls/tickets.rs", "LAYOUT"),
            ("storage-node/src/backup/manifest.rs", "BACKUP_FORMAT"),
            ("storage-node/src/domain/row.rs", "VERSION"),
            ("storage-node/src/engine/format.rs", "FORMAT_VERSION"),
            ("storage-node/src/engine/rocks_tables.rs", "FORMAT"),
            ("storage-node/src/replication/damage.rs", "FORMAT_MAX FORMAT_WITH_ALIGNMENT COMPRESSION_MAX"),
            ("storage-node/src/replication/log.rs", "VOTE_VERSION"),
            ("storage-node/src/replication/record.rs", "RECORD_VERSION"),
            ("storage-node/src/worker/data_folder.rs", "FOLDER_FORMAT"),
            ("storage-node/src/worker/founders.rs", "FOUNDERS_FORMAT FOUNDING"),
            ("clients/native/src/store/schema.rs", "FORMAT_VERSION"),
            ("clients/web/src/ringline/indexeddb.ts", "LAYOUT_VERSION"),
            ("clients/web/src/ringline/limits.ts", "VERSION_MIN VERSION_MAX FEATURE_HANDLES"),
            ("tuning/src/check.rs", "VERSION"),
            ("tuning/src/record.rs", "VERSION"),
        ],
    },
    Group {
        reason: "tags, kinds, ids, codes: which one of several, or none of them",
        names: &[
            ("wire-protocol/src/ids.rs", "NAME_KIND"),
            ("wire-protocol/src/session/client.rs", "HELLO_REQUEST_ID PING_REQUEST_ID"),
            ("gateway/src/domain/list.rs", "ROWS_PART"),
            ("gateway/src/domain/sync.rs", "FEED_PART"),
            ("gateway/src/ring/queue.rs", "BUFFER_GROUP"),
            ("gateway/src/session/timers.rs", "NONE"),
            ("gateway/src/tls/session.rs", "CHANGE_CIPHER_SPEC HANDSHAKE"),
            ("gateway/src/worker/pending.rs", "NOBODY"),
            ("storage-node/src/engine/keys.rs", "SLOT_OF_SHARDS SLOT_OF_DATABASE"),
            ("storage-node/src/engine/keys.rs", "CONVERSATION HEAD MESSAGE IDEMPOTENCY CURSORS USER"),
            ("storage-node/src/engine/keys.rs", "FEED FEED_BY_VERSION FEED_BY_ACTIVITY NAME APPLIED"),
            ("storage-node/src/engine/keys.rs", "FEED_POSITION KNOWN_FLEET FORMAT"),
            ("storage-node/src/engine/rocks_tables.rs", "XXH3 MAGIC"),
            ("storage-node/src/replication/files.rs", "UNCUT"),
            ("storage-node/src/replication/message.rs", "CHANGE_OF_REPLICAS"),
            ("clients/native/src/store/reads.rs", "FIRST_SERVER_KIND"),
            ("clients/web/src/ringline/session.ts", "HELLO_ID"),
            ("tuning/src/command/mod.rs", "DONE NOT_DONE NOT_UNDERSTOOD"),
        ],
    },
    Group {
        reason: "lengths that a format, a hash or a cipher fixes: nothing else would fit",
        names: &[
            ("wire-protocol/src/websocket/handshake.rs", "ACCEPT_KEY_BYTES NONCE_BYTES"),
            ("gateway/src/domain/auth/keys.rs", "KID_BYTES"),
            ("gateway/src/domain/auth/refresh.rs", "REFRESH_SECRET_BYTES TOKEN_BYTES"),
            ("gateway/src/domain/auth/resume.rs", "SIGNED_BYTES TAG_BYTES RESUME_TOKEN_BYTES"),
            ("gateway/src/domain/auth/resume.rs", "RESUME_KEY_BYTES"),
            ("gateway/src/domain/list.rs", "PAGE_TOKEN_BYTES"),
            ("gateway/src/http/passwords.rs", "SALT_BYTES"),
            ("gateway/src/tls/tickets.rs", "TICKET_SECRET_BYTES NAME_BYTES SALT_BYTES HEAD_BYTES KEY_BYTES"),
            ("storage-node/src/domain/devices.rs", "REFRESH_HASH_BYTES"),
            ("storage-node/src/engine/rocks_manifest.rs", "BLOCK_BYTES HEAD_BYTES"),
            ("storage-node/src/engine/rocks_tables.rs", "FOOTER_BYTES TRAILER_BYTES"),
            ("storage-node/src/replication/damage.rs", "HEAD_BYTES BATCH_HEADER_BYTES CHECKSUM_BYTES"),
            ("storage-node/src/replication/log.rs", "VOTE_BYTES"),
        ],
    },
    Group {
        reason: "where something stands within a number or a row",
        names: &[
            ("wire-protocol/src/ids.rs", "FEED_VERSION_BITS_OF_ONE_RESTORE"),
            ("gateway/src/ring/operation.rs", "SLOT_BITS"),
            ("gateway/src/worker/pending.rs", "PART_BITS PLACE_BITS GENERATION_BITS"),
            ("storage-node/src/engine/expiry.rs", "TIME_START"),
            ("storage-node/src/engine/keys.rs", "PREFIX_BYTES"),
            ("clients/web/src/ringline/limits.ts", "FEED_VERSION_BITS_OF_ONE_RESTORE"),
        ],
    },
    Group {
        reason: "what something takes, counted against a limit that is listed",
        names: &[
            ("wire-protocol/src/link/queue.rs", "ITEM_OVERHEAD_BYTES"),
            ("gateway/src/domain/sync.rs", "DELTA_FRAMING_BYTES"),
            ("gateway/src/session/outbox.rs", "FRAME_OVERHEAD_BYTES BINDING_BYTES"),
            ("gateway/src/storage_client/following.rs", "REQUEST_BYTES"),
            ("gateway/src/tls/session.rs", "RECORD_OVERHEAD_BYTES"),
            ("storage-node/src/domain/messages.rs", "ENTRY_FRAMING_BYTES"),
            ("storage-node/src/engine/hot.rs", "ROW_BYTES"),
            ("storage-node/src/feed/source.rs", "ITEM_FRAMING_BYTES"),
            ("storage-node/src/shard/propose.rs", "COMMAND_BYTES"),
            ("storage-node/src/snapshots/contents.rs", "ROW_OVERHEAD_BYTES"),
        ],
    },
    Group {
        reason: "units to count in, and shapes of what is measured",
        names: &[
            ("gateway/src/observe/core.rs", "CODES QUANTILES LATENCY_FIGURES"),
            ("gateway/src/worker/pace.rs", "WHOLE"),
            ("storage-node/src/observe/histogram.rs", "BOUNDS SMALLEST_US"),
            ("tuning/src/check.rs", "GIB_KIB"),
            ("tuning/src/setting/limits.rs", "KIB"),
        ],
    },
    Group {
        reason: "the operating system's: a weight, a page, a mode, the highest port",
        names: &[
            ("gateway/src/http/passwords.rs", "HASHING_NICENESS"),
            ("gateway/src/ring/receive_buffers.rs", "PAGE_BYTES"),
            ("storage-node/src/admin/server.rs", "SOCKET_MODE"),
            ("tuning/src/setting/network.rs", "PORT_MAX"),
        ],
    },
    Group {
        reason: "looks: nothing waits, nothing is refused",
        names: &[
            ("clients/terminal/src/view/list.rs", "ROWS_EACH"),
            ("clients/terminal/src/view/mod.rs", "LIST_CELLS_LEAST LIST_CELLS"),
            ("clients/web/src/chat/lines.ts", "RUN_MS"),
            ("clients/web/src/chat/messages.tsx", "NEAR_END LOAD_AHEAD"),
        ],
    },
];

impl Group {
    /// Files and names.
    fn each(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.names.iter().flat_map(|(file, names)| names.split(' ').map(move |name| (*file, name)))
    }
}

/// The limits among a file's numbers.
pub(crate) fn limits(mut numbers: Vec<Limit>) -> Vec<Limit> {
    let exempt: HashSet<(&str, &str)> = GROUPS.iter().flat_map(Group::each).collect();
    numbers.retain(|number| !exempt.contains(&(&number.file[..], &number.name[..])));
    numbers
}

/// What stands in a group and is no number of the code any more.
pub(crate) fn names_nothing(numbers: &[Limit]) -> Vec<String> {
    let there: HashSet<(&str, &str)> =
        numbers.iter().map(|number| (&number.file[..], &number.name[..])).collect();
    let mut gone = Vec::new();
    for group in &GROUPS {
        let names = group.each().filter(|named| !there.contains(named));
        gone.extend(names.map(|(file, name)| format!("{name} of {file}, exempt as: {}", group.reason)));
    }
    gone
}

#[test]
fn a_name_is_exempt_in_its_file_only() {
    let number = |file: &str, name: &str| Limit {
        file: file.to_owned(),
        name: name.to_owned(),
        value: String::new(),
        unit: String::new(),
        comment: String::new(),
    };
    let own = number("storage-node/src/domain/row.rs", "VERSION");
    let others = number("storage-node/src/domain/other.rs", "VERSION");
    let gone = names_nothing(std::slice::from_ref(&own));
    let is_gone = |start: &str| gone.iter().any(|name| name.starts_with(start));
    assert!(!is_gone("VERSION of storage-node/src/domain/row.rs"));
    assert!(is_gone("LAYOUT of gateway/src/tls/tickets.rs"));
    assert_eq!(limits(vec![own, others.clone()]), [others]);
}
