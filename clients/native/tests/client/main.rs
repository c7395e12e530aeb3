//! The client library against a model of the server: the engine alone in a simulation with faults, the store
//! under kill -9, and the whole client over real sockets.

#![forbid(unsafe_code)]

mod fake_server;
mod folder;
mod loopback;
mod random;
mod simulation;
