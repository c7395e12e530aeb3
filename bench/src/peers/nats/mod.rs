//! The NATS client protocol, and the two things that are spoken over it: core NATS ([`core`]) and JetStream
//! ([`jetstream`]).
//!
//! ```text
//! (TLS) -> INFO -> CONNECT, SUB …, PING -> PONG -> open
//! ```
//!
//! Servers send INFO in plain text and only then expect TLS, unless they are told `handshake_first: true` (2.10.4
//! and later). Only that is spoken here: this half never sees a byte that is not under TLS.

mod op;
pub mod core;
pub mod jetstream;

use super::heartbeat::{Beat, Heartbeat};
use super::names::Names;
use super::partial::fault;
use crate::agent::protocol::{ProtocolEvent, ProtocolFault, Token};
use bytes::BytesMut;
use op::{Delivery, Op};
use std::collections::VecDeque;
use std::fmt::Write;

/// Unanswered requests of one device: far above what a device of a plan has.
const UNANSWERED_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    Subscribing,
    Open,
    Closed,
}

/// What an operation meant for what is spoken over the link.
#[derive(PartialEq, Debug)]
enum Heard<'a> {
    Nothing,
    /// The server has our subscriptions.
    Opened,
    /// Everything sent before a ping was taken.
    Ponged(Token),
    Delivery(Delivery<'a>),
    /// An event as it is.
    Event(ProtocolEvent),
}

/// One connection below its use.
#[derive(Debug)]
struct Link {
    stage: Stage,
    heartbeat: Heartbeat,
    /// Pings without an answer, and who waits for it.
    pings: VecDeque<Option<Token>>,
    subscriptions: Vec<(u32, String)>,
}

impl Link {
    /// A link that asks for these subscriptions.
    fn new(names: &Names, subscriptions: Vec<(u32, String)>) -> Self {
        let heartbeat = Heartbeat::new(names.heartbeat_s);
        Self { stage: Stage::Greeting, heartbeat, pings: VecDeque::new(), subscriptions }
    }

    fn handle<'a>(&mut self, op: Op<'a>, out: &mut BytesMut) -> Result<Heard<'a>, ProtocolFault> {
        match (op, self.stage) {
            (_, Stage::Closed) => Ok(Heard::Nothing),
            (Op::Info(_), Stage::Greeting) => {
                self.greet(out);
                Ok(Heard::Nothing)
            }
            (Op::Err(text), _) => Ok(Heard::Event(self.complaint(text))),
            (_, Stage::Greeting) => Err(fault("the server did not say who it is")),
            // Told again when the cluster changes.
            (Op::Info(_) | Op::Ok, _) => Ok(Heard::Nothing),
            (Op::Ping, _) => {
                out.extend_from_slice(b"PONG\r\n");
                Ok(Heard::Nothing)
            }
            (Op::Pong, stage) => {
                let waiting = self.pings.pop_front().ok_or_else(|| fault("a ping was answered twice"))?;
                if stage == Stage::Subscribing {
                    self.stage = Stage::Open;
                    return Ok(Heard::Opened);
                }
                Ok(waiting.map_or(Heard::Nothing, Heard::Ponged))
            }
            (Op::Message(delivery), _) => Ok(Heard::Delivery(delivery)),
        }
    }

    fn greet(&mut self, out: &mut BytesMut) {
        self.stage = Stage::Subscribing;
        // No echo: what a device sends into a group does not come back to it.
        out.extend_from_slice(
            concat!(
                r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":true,"echo":false,"lang":"rust","#,
                r#""version":"1","name":"ringline-bench","protocol":1,"headers":true,"no_responders":true}"#,
                "\r\n"
            )
            .as_bytes(),
        );
        for (id, subject) in std::mem::take(&mut self.subscriptions) {
            write!(out, "SUB {subject} {id}\r\n").expect("memory takes it");
        }
        self.ping(None, out);
    }

    /// All errors but refused permissions are followed by the connection's end.
    fn complaint(&mut self, text: &str) -> ProtocolEvent {
        let code: String = text.to_ascii_lowercase().replace(' ', "_").chars().take(40).collect();
        if code.starts_with("permissions_violation") || code == "invalid_subject" {
            return ProtocolEvent::Refused { token: None, code, retryable: false, retry_after_ms: 0 };
        }
        self.stage = Stage::Closed;
        ProtocolEvent::Closing { code, retry_after_ms: 0, go_to: Vec::new() }
    }

    fn ping(&mut self, waiting: Option<Token>, out: &mut BytesMut) {
        self.pings.push_back(waiting);
        out.extend_from_slice(b"PING\r\n");
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        if self.heartbeat.check(now_us)? == Beat::Ping && self.stage == Stage::Open {
            self.ping(None, out);
        }
        Ok(())
    }
}

fn publish(out: &mut BytesMut, subject: &str, reply: Option<&str>, payload: &[u8]) {
    let (reply, space) = reply.map_or(("", ""), |reply| (reply, " "));
    write!(out, "PUB {subject} {reply}{space}{}\r\n", payload.len()).expect("memory takes it");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
