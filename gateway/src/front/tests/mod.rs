//! The front against real clients on loopback: TLS, protocols, backpressure, limits, closing.

mod closing;
mod limits;
mod native;
mod rig;
mod web;
