//! JetStream: one stream holds every message of the run, and answers each with its place in it.
//!
//! ```text
//! send      PUB subject, reply -> {"stream", "seq"}           = Accepted
//! live      SUB to the subjects: they come as core NATS passes them on, before they are stored
//! durable   CONSUMER.CREATE -> pull -> message, its place in the reply subject -> +ACK   (Ready after CREATE)
//! ```
//!
//! [`Listening::Live`] is JetStream's quickest way and misses what is sent while the device is away.
//! [`Listening::Durable`] has a pull consumer for each device, which the server keeps: nothing is missed. At least
//! once: what was not confirmed before a connection ended comes again, after the consumer's wait.
//!
//! A place in the stream is no place in a room, so no `seq` is told. A repeated send is stored twice: without a
//! message id header, which none of the figures known for JetStream were measured with.

use super::core::message;
use super::op::{self, Delivery, OP_BYTES_MAX};
use super::{Heard, Link, Stage, UNANSWERED_MAX, publish};
use crate::agent::protocol::{
    ClientProtocol, DeviceMemory, NotSent, ProtocolEvent, ProtocolFault, Request, Token,
};
use crate::peers::names::Names;
use crate::peers::partial::{Partial, fault};
use bytes::BytesMut;
use serde::Deserialize;
use serde_json::json;

/// Messages that are asked for at a time. Half as many are asked for again when half of them have come.
const PULL_MESSAGES: u64 = 512;
/// How long the server keeps a pull, in nanoseconds: 5 minutes, so that idle devices pull seldom.
const PULL_EXPIRES_NS: u64 = 300_000_000_000;
/// How long the server waits for a confirmation before it sends a message again, in microseconds: a third of the
/// server's default, since a test waits for it after a crash.
const ACK_WAIT_US: u64 = 10_000_000;
/// Unconfirmed messages that the server lets a consumer have: its own default would stop at 1,000.
const ACKS_PENDING_MAX: u64 = 20_000;
/// Subscriptions of the answers, and of pulled messages. Those of subjects count from 1.
const ANSWERS: u32 = 1_000_001;
const PULLED: u32 = 1_000_002;

/// How a device gets its messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listening {
    /// By plain subscriptions.
    Live,
    /// By a durable pull consumer.
    Durable,
}

/// What is known of the device's consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Consumer {
    /// Messages that were asked for and have not come.
    pulled: u64,
    /// Messages that wait on the server, as it said with the last one.
    pending: u64,
    /// Messages that earlier connections got and did not confirm: they come again after [`ACK_WAIT_US`].
    leftover: u64,
    /// When to ask how many are left over, if they do not come.
    ask_us: Option<u64>,
}

/// One device's half of a connection.
#[derive(Debug)]
pub struct JetStream {
    names: Names,
    listening: Listening,
    link: Link,
    partial: Partial,
    now_us: u64,
    /// The consumer, once the server has told of it.
    consumer: Option<Consumer>,
    unanswered: Vec<Token>,
    catching_up: Option<Token>,
}

/// What JetStream's interface answers; other fields are of no use here.
#[derive(Deserialize)]
struct Answer {
    error: Option<AnswerError>,
    seq: Option<u64>,
    num_pending: Option<u64>,
    num_ack_pending: Option<u64>,
}

#[derive(Deserialize)]
struct AnswerError {
    code: u32,
    #[serde(default)]
    err_code: u32,
}

impl JetStream {
    /// For a new connection of a device.
    pub fn new(names: Names, listening: Listening) -> Self {
        let mut subscriptions: Vec<(u32, String)> = match listening {
            Listening::Live => (1..).zip(names.filters('.', '*')).collect(),
            Listening::Durable => vec![(PULLED, format!("{}.pull", inbox(&names)))],
        };
        subscriptions.push((ANSWERS, format!("{}.a.*", inbox(&names))));
        let link = Link::new(&names, subscriptions);
        Self {
            names,
            listening,
            link,
            partial: Partial::default(),
            now_us: 0,
            consumer: None,
            unanswered: Vec::new(),
            catching_up: None,
        }
    }

    fn handle(
        &mut self,
        op: op::Op<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match self.link.handle(op, out)? {
            Heard::Nothing => Ok(()),
            Heard::Ponged(_) => {
                self.check_caught_up(events);
                Ok(())
            }
            Heard::Opened if self.listening == Listening::Live => {
                events.push(ProtocolEvent::Ready);
                Ok(())
            }
            Heard::Opened => {
                self.ask_for_consumer(out);
                Ok(())
            }
            Heard::Event(event) => {
                events.push(event);
                Ok(())
            }
            Heard::Delivery(delivery) => match delivery.subscription {
                ANSWERS => self.answer(&delivery, out, events),
                PULLED if delivery.status().is_some() => self.pull_ended(&delivery, out, events),
                PULLED => self.pulled(&delivery, out, events),
                _ => {
                    events.extend(message(&self.names, &delivery)?);
                    Ok(())
                }
            },
        }
    }

    /// Makes the consumer, or tells of the one that is there: both are the same request.
    fn ask_for_consumer(&mut self, out: &mut BytesMut) {
        let (stream, name) = (stream(&self.names), consumer(&self.names));
        let config = json!({
            "stream_name": stream,
            "config": {
                "name": name,
                "durable_name": name,
                "deliver_policy": "all",
                "ack_policy": "explicit",
                "ack_wait": ACK_WAIT_US * 1000,
                "max_deliver": -1,
                "max_ack_pending": ACKS_PENDING_MAX,
                "replay_policy": "instant",
                "filter_subjects": self.names.filters('.', '*'),
            },
        });
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
        let reply = format!("{}.a.c", inbox(&self.names));
        publish(out, &subject, Some(&reply), config.to_string().as_bytes());
    }

    fn pull(&mut self, messages: u64, out: &mut BytesMut) {
        let Some(consumer_state) = &mut self.consumer else { return };
        consumer_state.pulled += messages;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", stream(&self.names), consumer(&self.names));
        let reply = format!("{}.pull", inbox(&self.names));
        let request = json!({ "batch": messages, "expires": PULL_EXPIRES_NS });
        publish(out, &subject, Some(&reply), request.to_string().as_bytes());
    }

    fn answer(
        &mut self,
        delivery: &Delivery<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let key = delivery.subject.rsplit('.').next().unwrap_or_default();
        if key == "c" {
            return self.consumer_told(delivery, out, events);
        }
        let (kind, number) = key.split_at_checked(1).unwrap_or_default();
        let token = u64::from_str_radix(number, 16).map(Token).ok();
        let place = token.and_then(|token| self.unanswered.iter().position(|other| *other == token));
        let place = place.ok_or_else(|| fault(format!("an answer to {key:?}, never asked")))?;
        let token = self.unanswered.swap_remove(place);
        events.push(match parse(delivery)? {
            Err((code, retryable)) => {
                ProtocolEvent::Refused { token: Some(token), code, retryable, retry_after_ms: 0 }
            }
            Ok(_) if kind == "o" => ProtocolEvent::Done(token),
            Ok(Answer { seq: Some(_), .. }) => ProtocolEvent::Accepted { token, seq: None },
            Ok(_) => return Err(fault("a message was answered without its place")),
        });
        Ok(())
    }

    fn consumer_told(
        &mut self,
        delivery: &Delivery<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let answer = match parse(delivery)? {
            Ok(answer) => answer,
            Err((code, _)) => return Err(fault(format!("the consumer was refused: {code}"))),
        };
        let (pending, leftover) =
            (answer.num_pending.unwrap_or_default(), answer.num_ack_pending.unwrap_or_default());
        let first = self.consumer.is_none();
        let known = self.consumer.get_or_insert_default();
        (known.pending, known.leftover) = (pending, leftover);
        known.ask_us = (leftover > 0).then(|| self.now_us + ACK_WAIT_US + ACK_WAIT_US / 2);
        if first {
            self.pull(PULL_MESSAGES, out);
            events.push(ProtocolEvent::Ready);
        }
        self.check_caught_up(events);
        Ok(())
    }

    fn pulled(
        &mut self,
        delivery: &Delivery<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        let place = delivery.reply.and_then(Place::read);
        let place =
            place.ok_or_else(|| fault(format!("a message without its place: {:?}", delivery.reply)))?;
        let consumer = self.consumer.as_mut().ok_or_else(|| fault("a message nobody pulled"))?;
        consumer.pulled = consumer.pulled.saturating_sub(1);
        consumer.pending = place.pending;
        if place.deliveries > 1 {
            consumer.leftover = consumer.leftover.saturating_sub(1);
        }
        let wanted = PULL_MESSAGES - consumer.pulled.min(PULL_MESSAGES);
        events.extend(message(&self.names, delivery)?);
        publish(out, delivery.reply.unwrap_or_default(), None, b"+ACK");
        if wanted >= PULL_MESSAGES / 2 {
            self.pull(wanted, out);
        }
        self.check_caught_up(events);
        Ok(())
    }

    /// A pull has ended although not all its messages have come: 404 none, 408 too late, 409 the consumer is gone or
    /// the server stops. 100 is a sign of life.
    fn pull_ended(
        &mut self,
        delivery: &Delivery<'_>,
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        match delivery.status() {
            Some(100) => Ok(()),
            Some(404 | 408) => {
                let left = delivery.header("Nats-Pending-Messages").and_then(|left| left.parse().ok());
                let Some(consumer) = &mut self.consumer else { return Ok(()) };
                consumer.pulled = consumer.pulled.saturating_sub(left.unwrap_or(u64::MAX));
                let wanted = PULL_MESSAGES - consumer.pulled.min(PULL_MESSAGES);
                self.pull(wanted, out);
                Ok(())
            }
            status => {
                self.link.stage = Stage::Closed;
                let code = format!("pull_{}", status.unwrap_or_default());
                events.push(ProtocolEvent::Closing { code, retry_after_ms: 0, go_to: Vec::new() });
                Ok(())
            }
        }
    }

    fn check_caught_up(&mut self, events: &mut Vec<ProtocolEvent>) {
        let through = self.consumer.is_some_and(|known| known.pending == 0 && known.leftover == 0);
        if let Some(token) = self.catching_up.take_if(|_| through) {
            events.push(ProtocolEvent::CaughtUp(token));
        }
    }
}

/// What the reply subject of a pulled message tells: `$JS.ACK.stream.consumer.deliveries.stream place.consumer
/// place.time.pending`, or with a domain and an account before the stream and a random word at the end.
struct Place {
    deliveries: u64,
    pending: u64,
}

impl Place {
    fn read(reply: &str) -> Option<Self> {
        let mut words = reply.strip_prefix("$JS.ACK.")?.split('.');
        let words: [&str; 10] = std::array::from_fn(|_| words.next().unwrap_or_default());
        let first = if words[7].is_empty() { 0 } else { 2 };
        let number = |place: usize| words.get(first + place)?.parse::<u64>().ok();
        Some(Self { deliveries: number(2)?, pending: number(6)? })
    }
}

fn inbox(names: &Names) -> String {
    format!("_INBOX.{}.{}", names.run(), names.device.0)
}

fn stream(names: &Names) -> String {
    format!("RUN_{}", names.run())
}

fn consumer(names: &Names) -> String {
    format!("device_{}", names.device.0)
}

/// An answer, or the code of its error and whether a repeat may help.
fn parse(delivery: &Delivery<'_>) -> Result<Result<Answer, (String, bool)>, ProtocolFault> {
    if let Some(status) = delivery.status() {
        let code = if status == 503 { "no_responders".into() } else { format!("status_{status}") };
        return Ok(Err((code, status == 503)));
    }
    let answer: Answer = serde_json::from_slice(delivery.payload)
        .map_err(|error| fault(format!("an answer that cannot be read: {error}")))?;
    match answer.error {
        Some(error) => Ok(Err((format!("jetstream_{}_{}", error.code, error.err_code), error.code == 503))),
        None => Ok(Ok(answer)),
    }
}

impl ClientProtocol for JetStream {
    fn opened(&mut self, now_us: u64, _out: &mut BytesMut) {
        self.now_us = now_us;
        self.link.heartbeat.opened(now_us);
    }

    fn received(
        &mut self,
        now_us: u64,
        bytes: &[u8],
        out: &mut BytesMut,
        events: &mut Vec<ProtocolEvent>,
    ) -> Result<(), ProtocolFault> {
        self.now_us = now_us;
        self.link.heartbeat.received(now_us);
        let mut partial = std::mem::take(&mut self.partial);
        partial.feed(bytes, OP_BYTES_MAX, |bytes| match op::decode(bytes)? {
            None => Ok(0),
            Some((op, taken)) => self.handle(op, out, events).map(|()| taken),
        })?;
        self.partial = partial;
        Ok(())
    }

    fn request(
        &mut self,
        _now_us: u64,
        token: Token,
        request: &Request,
        out: &mut BytesMut,
    ) -> Result<(), NotSent> {
        if self.link.stage != Stage::Open || (self.listening == Listening::Durable && self.consumer.is_none())
        {
            return Err(NotSent::NotReady);
        }
        if self.unanswered.len() >= UNANSWERED_MAX {
            return Err(NotSent::Full);
        }
        match request {
            Request::Send { room, body, .. } => {
                let reply = format!("{}.a.p{:x}", inbox(&self.names), token.0);
                publish(out, &self.names.topic(*room, '.'), Some(&reply), body);
                self.unanswered.push(token);
            }
            // Rooms exist with the run's stream: making it again changes nothing.
            Request::Open(_) => {
                let name = stream(&self.names);
                let reply = format!("{}.a.o{:x}", inbox(&self.names), token.0);
                let config = json!({
                    "name": name,
                    "subjects": [format!("{}.>", self.names.run())],
                    "retention": "limits",
                    "storage": "file",
                    "discard": "old",
                    "max_consumers": -1,
                    "max_msgs": -1,
                    "max_bytes": -1,
                    "max_age": 0,
                    "num_replicas": 1,
                });
                let subject = format!("$JS.API.STREAM.CREATE.{name}");
                publish(out, &subject, Some(&reply), config.to_string().as_bytes());
                self.unanswered.push(token);
            }
            Request::CatchUp { .. } if self.listening == Listening::Durable => {
                if self.catching_up.is_some() {
                    return Err(NotSent::Full);
                }
                self.catching_up = Some(token);
                // Answered by a pong if nothing is missing: requests do not answer themselves.
                self.link.ping(Some(token), out);
            }
            Request::CatchUp { .. }
            | Request::History { .. }
            | Request::Delivered { .. }
            | Request::Read { .. } => return Err(NotSent::Unsupported),
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<u64> {
        let ask_us = self.consumer.and_then(|known| known.ask_us);
        [self.link.heartbeat.poll_timeout(), ask_us].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now_us: u64, out: &mut BytesMut) -> Result<(), ProtocolFault> {
        self.now_us = now_us;
        let due = self.consumer.as_mut().and_then(|known| known.ask_us.take_if(|due| now_us >= *due));
        if due.is_some() {
            self.ask_for_consumer(out);
        }
        self.link.handle_timeout(now_us, out)
    }

    fn into_memory(self: Box<Self>) -> DeviceMemory {
        DeviceMemory::default()
    }
}
