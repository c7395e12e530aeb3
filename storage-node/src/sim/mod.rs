//! A whole storage node on a disk that loses what was not synced, driven step by step from one seed.
//!
//! ```text
//! World: SimDisk and SimStore (what survives), Ledger (what users were told)
//!   live -> open_node, cores, log, store, reads, maintenance as steps of one thread   (node.rs)
//!   crash -> what was not synced is lost, kept, or torn
//!   live -> recovers, finishes, and the ledger checks every promise
//! ```
//!
//! [`SimNode`] is the same node for a simulation of a cluster, which says what happens next by itself. [`SimFounding`] is
//! what it is before its fleet begins. [`SnapshotReceiver`] is what a node does with the snapshot of one shard, and nothing
//! else: `snapshots/trial.rs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::should_implement_trait, missing_docs)]

mod random;
mod syncs;
mod names;
mod disk;
mod store;
pub(crate) mod blocks;
mod founding;
mod host;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod node;
#[cfg(test)]
mod world;
#[cfg(test)]
mod tests;

pub use crate::replication::{Standing, TICK_MS};
pub use crate::snapshots::{PartTaken, SnapshotReceiver, sign_parts, snapshot_parts};
pub use crate::worker::NextRound;
pub use disk::{Crash, FULL_ERROR, SYNC_ERROR, SimCursor, SimDisk, SimFile};
pub use founding::SimFounding;
pub use host::SimNode;
#[cfg(test)]
pub use node::Ended;
pub use random::Random;
pub use store::SimStore;
pub use syncs::{Doing, SyncKind};
#[cfg(test)]
pub use world::{World, real_folder};
