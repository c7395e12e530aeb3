//! A storage node through its public interface: embedded cores, restarts, the change feed, processes over mutual
//! TLS, and kill -9.

#[path = "../../../tuning/tests/rights/right.rs"]
mod right;
mod requests;
mod embedded;
mod certificates;
mod process;
mod durable;
mod feed;
mod refusals;
mod moves;
mod new_fleet;
mod catch_up;
mod three_nodes;
mod hibernation;
mod two_nodes;
mod links;
mod slow_disk;
mod failing_sync;
mod small_disk;
mod fleet;
mod full_disk;
mod admin;
mod backup;
mod lost_fleet;
mod bad_disks;
mod crash;
mod failpoints;
