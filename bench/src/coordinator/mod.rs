//! Starts server processes of one machine, kills and restarts them, and tells agents where they are.
//!
//! Only processes that were started here are ever ended, by their own handle.

mod certificates;
mod server;
mod cluster;
pub mod control;
pub mod void;

pub use cluster::{Cluster, ClusterError, Shape};
pub use server::{Server, binary};
