//! The gateway as its clients see it: the real binary on free ports, spoken to over native TLS and WebSocket.

mod client;
mod server;
mod nodes;
mod chat;
mod receipts;
mod sync;
mod sessions;
mod storage_away;
