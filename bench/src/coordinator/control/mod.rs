//! How a coordinator steers agents: the messages, their transport, and who may steer.

pub mod messages;
