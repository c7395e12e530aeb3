//! The gateway as its clients see it: the real binary on free ports, spoken to over native TLS and WebSocket.

#![expect(clippy::disallowed_methods, reason = "a test bounds how long it waits by the real time")]

mod client;
mod memory_group;
mod server;
mod nodes;
mod chat;
mod receipts;
mod sync;
mod sessions;
mod storage_away;
mod fleet;
mod hostile;
