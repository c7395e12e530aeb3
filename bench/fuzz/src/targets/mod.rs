//! One file for each thing that reads bytes of others.

pub mod apply;
pub mod books;
pub mod feed;
pub mod frames;
pub mod gateway;
pub mod links;
pub mod node_files;
pub mod pages;
pub mod pair;
pub mod raft;
pub mod rest;
pub mod session_pair;
pub mod sessions;
pub mod snapshots;
pub mod storage;
pub mod texts;
pub mod tls;
pub mod websocket;
