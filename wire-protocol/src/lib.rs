//! The contract of Ringline, and both halves of every conversation, without any I/O.
//!
//! Modules stand in the order a message meets them: bytes become frames ([`frame`], [`websocket`]), frames
//! become requests of a session ([`session`]), requests travel to storage and back ([`link`]). This crate owns
//! no socket, no clock and no randomness, and knows nothing of gateways or storage nodes.

#![forbid(unsafe_code)]

pub mod limits;
pub mod ids;
pub mod error;
pub mod websocket;
pub mod frame;
pub mod session;
pub mod link;

#[cfg(test)]
mod seed;

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod generated {
    pub mod ringline {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/ringline.v1.rs"));
        }
        pub mod internal {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/ringline.internal.v1.rs"));
            }
        }
    }
}

/// Messages between gateways and storage nodes, generated from `proto/internal/`.
pub use generated::ringline::internal::v1 as internal;
/// Messages of the client protocol, generated from `proto/`.
pub use generated::ringline::v1;
