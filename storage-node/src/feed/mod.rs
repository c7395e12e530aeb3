//! Committed events on their way from conversation shards to home shards: at least once, in log order for each
//! source shard, from a cursor that survives crashes.
//!
//! ```text
//! apply -> SourceFeed (one a conversation shard) --FeedBatch--> HomeFeed (one a home shard) -> deliveries
//!              ^                                 <--FeedAck---        | every second or so
//!              +--- reread of the log, when a home shard lost its memory   +-> FeedCheckpoint, a command of its own
//! ```
//!
//! Both halves are pure state machines: they own no socket, clock or thread, and the log is read by their owner
//! (`shard/`). A home shard keeps what it merged in memory only, until a checkpoint makes it durable; a source may
//! cut its log below the least position that all home shards have made durable. So a crash on either side costs a
//! replay, never a change. [`pages`] answers `ReadFeed` and `ReadConversationList` from stored rows and memory
//! together.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod source;
pub mod home;
pub mod pages;
pub mod registry;
#[cfg(test)]
mod tests;

pub use home::{FeedView, HomeFeed, Taken};
pub use pages::query_with_view;
pub use source::{HomeStart, Reread, SourceFeed};
