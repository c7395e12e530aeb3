//! Backups of a running node, and a fleet from the backups of another one that is lost.
//!
//! ```text
//! TO/node-1/tables/3fa9…-9b1c….sst     a table of the store, by what it is and by its SHA-256; shared by backups
//!           backup-7/CURRENT, MANIFEST-000012     how the tables of this backup make a store
//!                    backup.json        the manifest: whose it is, how far each shard is, every file's SHA-256
//!           backup-8.unfinished/        being made, or given up; nobody reads it
//! TO/node-2/…
//! ```
//!
//! A backup is what one RocksDB checkpoint holds: whole write batches, each with the applied index of its shard, so each
//! shard is as it was at one moment ([`make`]). Tables never change, so the next backup copies the new ones alone. A folder
//! gets its name when all in it is synced: what has the name is whole, or somebody damaged it ([`verify`]).
//!
//! [`restore`] takes of each shard the copy that went furthest, whatever node made it, and begins the shards' logs anew.
//! Decisions and reasons: `docs/decisions/0009-backup.md`.

mod manifest;
mod folder;
mod files;
mod make;
#[cfg(test)]
mod make_tests;
mod open;
mod verify;
mod plan;
mod restore;
#[cfg(test)]
mod restore_tests;
mod schedule;

pub use make::BackupReport;
pub(crate) use make::{BackupOrder, make};
pub use manifest::{BackupFile, Manifest, ShardPoint};
pub use restore::{RestoreReport, restore};
pub(crate) use schedule::run_backups;
pub use verify::{VerifyReport, verify};

/// Bytes that a backup reads of the store's disk and writes to its own in a second, so that both keep time for messages:
/// as much as snapshots of shards may take.
pub const BACKUP_BYTES_PER_S: u64 = 64 * 1024 * 1024;
/// Backups of a node that are kept when nobody says how many.
pub const BACKUPS_KEPT_DEFAULT: u32 = 7;
/// Backups of a node that can be kept.
pub const BACKUPS_KEPT_MAX: u32 = 1_000;
/// Shortest time between two backups that the configuration may ask for, in seconds.
pub const BACKUP_EVERY_S_MIN: u64 = 60;
/// Bytes of a manifest: 200 for each file, of which a store of 64 TiB has a million.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Tells how far it is. An error: whoever asked has gone, or the process ends; what is at work gives up with it.
pub type Progress<'a> = &'a mut dyn FnMut(String) -> Result<(), String>;
