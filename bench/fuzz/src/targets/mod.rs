//! One file for each thing that reads bytes of others.

pub mod apply;
pub mod frames;
pub mod gateway;
pub mod links;
pub mod sessions;
pub mod storage;
pub mod websocket;
