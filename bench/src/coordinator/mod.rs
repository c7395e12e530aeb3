//! Starts server processes of one machine, kills and restarts them, and tells agents where they are.
//!
//! [`agents`] are this machine's or others'; a [`relay`] stands between a coordinator and more agents than it can
//! reach; [`control`] is how they speak. Only processes that were started here are ever ended, by their own handle.

mod certificates;
mod server;
pub mod enclosure;
pub mod network;
pub mod hosts;
mod cluster;
pub mod control;
pub mod void;
pub mod agents;
pub mod relay;
pub mod tested;
mod pending;
pub mod run;

pub use cluster::{Cluster, ClusterError, Launch, Rates, SHARD_COUNT, Shape, Tier, shards_of};
pub use server::{Server, binary};
