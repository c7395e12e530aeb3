//! The gateway: client connections on one side, storage shards on the other, one event loop for each core.
//!
//! Modules stand in the order a message meets them: a socket's bytes become frames ([`ring`], [`listen`],
//! [`tls`], [`transport`], joined by [`front`]), frames become requests of a session ([`session`],
//! [`admission`]), a request becomes storage commands ([`domain`]) for a shard ([`router`]) on a node
//! ([`storage_client`]); what was committed goes to the recipients' sockets ([`delivery`]). [`fleet`] knows the
//! other gateways, [`http`] carries what is not on that way, [`worker`] is the loop that drives the rest,
//! [`observe`] counts.

#![deny(unsafe_code)]

pub mod config;
pub mod clock;
mod failpoint;
pub mod ring;
pub mod listen;
pub mod tls;
pub mod transport;
pub mod front;
pub mod session;
pub mod admission;
pub mod domain;
pub mod router;
pub mod storage_client;
pub mod delivery;
pub mod fleet;
pub mod http;
pub mod worker;
pub mod observe;
