//! What is thrown at everything that reads bytes of others, and at the state machine of a shard.
//!
//! A target is a function of bytes that panics if something is wrong. `cargo test` replays the kept corpus and changes
//! it at random from fixed seeds; `bench/fuzz/run.sh` lets libFuzzer look for inputs that reach new code. Nothing here
//! has a clock, or keeps anything between two inputs.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod input;
pub mod mutate;
pub mod targets;

/// Something to throw bytes at.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As on command lines, and the name of its corpus.
    pub name: &'static str,
    /// What must hold, in a line.
    pub holds: &'static str,
    /// Panics if it does not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    targets::frames::FRAMES,
    targets::frames::CLIENT_MESSAGES,
    targets::frames::LINK_MESSAGES,
    targets::websocket::WEBSOCKET,
    targets::websocket::UPGRADE,
    targets::sessions::SERVER_SESSION,
    targets::sessions::CLIENT_SESSION,
    targets::session_pair::SESSION_PAIR,
    targets::links::LINK_SERVING,
    targets::links::LINK_CALLER,
    targets::pair::LINK_PAIR,
    targets::tls::TLS,
    targets::gateway::TRANSPORT,
    targets::gateway::TOKENS,
    targets::rest::REST,
    targets::texts::TEXTS,
    targets::storage::LOG_RECORDS,
    targets::storage::LOG_FILES,
    targets::storage::RAFT_MESSAGES,
    targets::raft::RAFT_GROUP,
    targets::snapshots::SNAPSHOTS,
    targets::feed::FEED,
    targets::apply::APPLY,
    targets::apply::QUERIES,
    targets::apply::ROTTEN_ROWS,
    targets::node_files::NODE_FILE,
    targets::node_files::VOTES,
    targets::node_files::FORMAT_ROW,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
