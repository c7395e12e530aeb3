//! The gateway as its clients see it: the real binary on free ports, spoken to over native TLS and WebSocket.

#![expect(clippy::disallowed_methods, reason = "a test bounds how long it waits by the real time")]

#[path = "../../../tuning/tests/rights/right.rs"]
mod right;
mod client;
mod memory_group;
mod server;
mod nodes;
mod chat;
mod receipts;
mod sync;
mod content;
mod sessions;
mod storage_away;
mod bad_disk;
mod fleet;
mod roaming;
mod name_server;
mod fleet_by_name;
mod manifest;
mod hostile;
