//! Storage nodes: shards as deterministic machines over a synced log.
//!
//! Modules stand in the order a message meets them: a request arrives over a link ([`server`]) at a core
//! ([`worker`]), which finds its shard ([`placement`]), packs it into a log entry ([`shard`]), has the entry
//! synced ([`replication`]), applies it ([`domain`]) to the stored rows ([`engine`]), answers, and hands the events
//! to whom they concern ([`feed`]). A replica that was away too long for the log gets the whole shard ([`snapshots`]). What is not on that way is in [`jobs`] and [`observe`].
//! Whoever runs the node speaks to it over a socket in its folder ([`admin`]); what it makes for the worst day is in [`backup`].

#![forbid(unsafe_code)]

pub mod config;
pub mod clock;
mod disk;
mod failpoint;
pub mod plant;
pub mod server;
pub mod worker;
pub mod placement;
pub mod shard;
pub mod replication;
pub mod domain;
pub mod engine;
pub mod feed;
pub mod snapshots;
pub mod jobs;
pub mod backup;
pub mod observe;
pub mod admin;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use config::{BackupConfig, LinkTls, LogConfig, MemoryConfig, NodeConfig, StorageConfig};
pub use worker::{
    AFTER_FAILURE, LinkId, LinkOutput, LinkPeer, PeerMessage, PeerOutput, StartError, StorageCore,
    StorageNode, Waker,
};
