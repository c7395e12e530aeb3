//! A chat client for terminals, on [`ringline_client`].
//!
//! [`arguments`] says whom to talk to, [`account`] logs in; then either [`screen`] drives the pure [`app`] state
//! and draws it with [`view`], or [`plain`] reads lines and prints events for scripts.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod account;
pub mod app;
pub mod view;
pub mod screen;
pub mod plain;
mod text;
