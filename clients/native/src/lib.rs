//! Ringline's client library: everything an app needs to chat, and nothing of how it looks.
//!
//! ```no_run
//! # async fn example() -> Result<(), ringline_client::Error> {
//! use ringline_client::{Client, Config, Event, Trust};
//!
//! let mut config = Config::new("chat.example.org:8443", "/var/lib/app/ringline");
//! config.trust = Trust::System;
//! let client = Client::open(config).await?;
//! client.log_in("ada", "correct horse battery staple").await?;
//! let mut events = client.events();
//! let conversation = client.create_direct("bob").await?;
//! client.send_text(conversation, "hello").await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{}", message.text());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! What [`Client::send`] has returned is on this device's disk and will reach the server once, in order, whatever
//! crashes or breaks. Everything an event tells is on disk as well.
//!
//! Modules stand in the order a message meets them: [`Client`] hands it to the worker, that to the pure
//! [`engine`], whose writes go to the [`store`] and whose payloads go through a transport. Absent on purpose:
//! push notifications, media, encryption between people.

#![forbid(unsafe_code)]

pub mod limits;
mod model;
mod config;
mod client;
mod worker;
pub mod engine;
pub mod store;
mod rest;
mod transport;
mod clock;

pub use client::{Client, Error, EventStream};
pub use config::{Config, TransportKind, Trust};
pub use model::{
    ConnectionState, Conversation, Event, Identity, Member, Message, PendingMessage, PendingState, Progress,
    Refusal,
};
pub use rest::RestError;
pub use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq, UserId};
pub use wire_protocol::v1::{ConversationKind, EntryKind, ErrorCode};
