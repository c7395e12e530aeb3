//! 1:1 messages, synced before the tick: closed loop for the highest rate, open loop for latency.

use super::device::{Device, send_body};
use crate::agent::{AgentError, Route, Target, rest};
use crate::clock;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::Duration;
use wire_protocol::ids::ConversationId;
use wire_protocol::v1::server_frame;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Pairs of users; in each, one sends and the other receives live.
    pub pairs: usize,
    /// Messages each sender has in flight at the most.
    pub in_flight: usize,
    /// Bytes of each body.
    pub body_bytes: usize,
    /// Messages due each second, over all senders; 0: as many as get their tick.
    pub rate: u64,
    /// How long, in milliseconds; the first fifth is warm-up and not counted.
    pub run_ms: u64,
}

/// What was measured after the warm-up.
pub struct Measured {
    /// Messages with a tick.
    pub acknowledged: u64,
    /// Messages that reached the receiver live.
    pub delivered: u64,
    /// Counted time, in seconds.
    pub seconds: f64,
    /// Due to tick, in microseconds.
    pub ack_us: Histogram<u64>,
    /// Due to live delivery, in microseconds.
    pub delivery_us: Histogram<u64>,
}

/// Three digits, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// Registers the pairs and runs the load.
pub async fn run(target: &Target, route: Route, load: Load, prefix: &str) -> Result<Measured, AgentError> {
    let mut pairs = Vec::new();
    for pair in 0..load.pairs {
        let sender = rest::register(target, &format!("{prefix}-s-{pair}")).await?;
        let receiver = rest::register(target, &format!("{prefix}-r-{pair}")).await?;
        let mut sender = Device::connect(target, route, sender).await?;
        let receiver = Device::connect(target, route, receiver).await?;
        let conversation = sender.create_direct(&receiver.identity).await?;
        pairs.push((sender, receiver, conversation));
    }
    let start = clock::now();
    let runs = pairs.into_iter().map(|(sender, receiver, id)| async move {
        tokio::join!(send(sender, id, load, start), receive(receiver, load, start))
    });
    let counted_ms = load.run_ms - load.run_ms / 5;
    let mut measured = Measured {
        acknowledged: 0,
        delivered: 0,
        seconds: counted_ms as f64 / 1_000.0,
        ack_us: histogram(),
        delivery_us: histogram(),
    };
    for (sent, received) in join_all(runs).await {
        measured.ack_us.add(sent?).expect("the same bounds");
        measured.delivery_us.add(received?).expect("the same bounds");
    }
    measured.acknowledged = measured.ack_us.len();
    measured.delivered = measured.delivery_us.len();
    Ok(measured)
}

/// Each body begins with the microsecond after `start` at which the message was due.
async fn send(
    mut device: Device,
    id: ConversationId,
    load: Load,
    start: std::time::Instant,
) -> Result<Histogram<u64>, AgentError> {
    let mut latencies = histogram();
    let gap_us = (load.pairs as u64 * 1_000_000).checked_div(load.rate).unwrap_or(0);
    let (end_us, warm_us) = (load.run_ms * 1_000, load.run_ms * 200);
    // Senders start evenly spread over one gap.
    let mut due_us = gap_us * (u64::from(device.identity.user.0[0]) % 256) / 256;
    let mut in_flight: VecDeque<(u32, u64)> = VecDeque::new();
    loop {
        let now_us = micros(start);
        while due_us <= now_us.min(end_us) && in_flight.len() < load.in_flight {
            let due = if gap_us == 0 { now_us } else { due_us };
            let text = format!("{due:>width$}", width = load.body_bytes.max(10));
            let body = send_body(id, device.next_message_id(), &text);
            in_flight.push_back((device.connection()?.begin(body)?, due));
            due_us = if gap_us == 0 { now_us } else { due_us + gap_us };
        }
        device.connection()?.flush().await?;
        if in_flight.is_empty() && now_us >= end_us {
            return Ok(latencies);
        }
        let wait_us = due_us.saturating_sub(now_us);
        let full = in_flight.len() >= load.in_flight || due_us > end_us;
        match in_flight.front().copied() {
            Some((request, due)) => {
                let connection = device.connection()?;
                let answer = async { connection.answer(request).await };
                let answer = if full {
                    answer.await?
                } else {
                    match tokio::time::timeout(Duration::from_micros(wait_us), answer).await {
                        Ok(answer) => answer?,
                        Err(_) => continue,
                    }
                };
                in_flight.pop_front();
                if !matches!(answer, server_frame::Body::Accepted(_)) {
                    return Err(AgentError::Protocol(format!("no tick: {answer:?}")));
                }
                if due >= warm_us && due < end_us {
                    latencies.saturating_record(micros(start).saturating_sub(due));
                }
            }
            None => tokio::time::sleep(Duration::from_micros(wait_us)).await,
        }
    }
}

async fn receive(
    mut device: Device,
    load: Load,
    start: std::time::Instant,
) -> Result<Histogram<u64>, AgentError> {
    let mut latencies = histogram();
    let (end_us, warm_us) = (load.run_ms * 1_000, load.run_ms * 200);
    // Half a second more: what was sent last is still on its way.
    while let Some(left_us) = (end_us + 500_000).checked_sub(micros(start)).filter(|left| *left > 0) {
        let Some(event) = device.connection()?.event_within(left_us.div_ceil(1_000)).await? else { break };
        if let server_frame::Body::Message(message) = event
            && let Some(due) = message.entry.and_then(|entry| due_of(&entry.body))
            && due >= warm_us
            && due < end_us
        {
            latencies.saturating_record(micros(start).saturating_sub(due));
        }
    }
    Ok(latencies)
}

fn due_of(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.trim().parse().ok()
}

fn micros(start: std::time::Instant) -> u64 {
    u64::try_from(clock::now().duration_since(start).as_micros()).unwrap_or(u64::MAX)
}
