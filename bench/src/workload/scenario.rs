//! The scenario every route and every shape of cluster must pass: two users with two devices each, a direct
//! conversation and a group of twenty, both sides sending at once, receipts, a device that was away, and a
//! storage restart.

use super::balance::{Tick, check};
use super::device::{Device, Log, patiently, send_body};
use crate::agent::{AgentError, Identity, Route, Target, rest};
use crate::coordinator::{Cluster, Server};
use futures_util::future::join_all;
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;
use wire_protocol::ids::ConversationId;
use wire_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use wire_protocol::v1::server_frame;

/// Messages each device sends while the others send, too.
const BURST: usize = 100;
/// Messages that the absent device misses.
const MISSED: usize = 500;
/// Members of the group.
const GROUP_MEMBERS: usize = 20;
/// Quiet time after which a device asks for what it lacks instead of waiting, in milliseconds.
const QUIET_MS: u64 = 300;
/// Syncs until the device has what history has.
const SYNCS_MAX: usize = 200;
/// Between two of them, in milliseconds.
const SYNC_MS: u64 = 50;

/// The four devices.
pub struct Cast {
    /// Two devices of the first user, then two of the second.
    pub devices: Vec<Device>,
    /// Every member of the group; the first two are the users above.
    pub members: Vec<Identity>,
}

/// Registers everybody and connects the four devices, spread over the gateways.
pub async fn connect(cluster: &Cluster, route: Route) -> Result<Cast, AgentError> {
    let target = |index: usize| &cluster.targets[index % cluster.targets.len()];
    let mut members = Vec::new();
    for index in 0..GROUP_MEMBERS {
        members.push(register(target(index), &format!("user-{index:02}")).await?);
    }
    let mut devices = Vec::new();
    for user in &members[..2] {
        let second = patiently(async || rest::log_in(target(1), &user.username).await).await?;
        assert_eq!(second.user, user.user, "a log in is a device of the same user");
        devices.push(Device::connect_patiently(target(devices.len()), route, user).await?);
        devices.push(Device::connect_patiently(target(devices.len()), route, &second).await?);
    }
    Ok(Cast { devices, members })
}

/// Registers, again while the refusal says that a retry helps: a gateway that has just started looks for the leaders
/// of shards.
pub(super) async fn register(target: &Target, name: &str) -> Result<Identity, AgentError> {
    let tried = Cell::new(false);
    patiently(async || {
        let is_again = tried.replace(true);
        match rest::register(target, name).await {
            // An earlier try came through, and its answer did not.
            Err(AgentError::HttpRefused { status: 409, .. }) if is_again => rest::log_in(target, name).await,
            registered => registered,
        }
    })
    .await
}

/// Runs all of it. Panics with what was wrong.
pub async fn run(cluster: &mut Cluster, route: Route) -> Result<(), AgentError> {
    let mut cast = connect(cluster, route).await?;
    let direct = cast.devices[0].create_direct(&cast.members[1]).await?;
    let again = cast.devices[2].create_direct(&cast.members[0]).await?;
    assert_eq!(direct, again, "both sides open the same conversation");
    let others: Vec<&Identity> = cast.members[1..].iter().collect();
    let group = cast.devices[0].create_group("twenty", 7, &others).await?;
    let again = cast.devices[0].create_group("twenty", 7, &others).await?;
    assert_eq!(group, again, "creating twice gives the same group");

    for conversation in [direct, group] {
        let ticks = all_send_at_once(&mut cast.devices, conversation).await?;
        assert_eq!(ticks.len(), 4 * BURST, "a send without its tick");
        same_order_everywhere(&mut cast.devices, conversation, &ticks).await?;
    }
    receipts_come_back(&mut cast.devices, direct).await?;
    a_repeat_changes_nothing(&mut cast.devices[0], direct).await?;
    an_absent_device_catches_up(&mut cast.devices, direct).await?;
    storage_restarts(cluster, &mut cast.devices, direct).await
}

/// Every device sends [`BURST`] messages, pipelined, at the same time as all others. What they were told.
async fn all_send_at_once(
    devices: &mut [Device],
    conversation: ConversationId,
) -> Result<Vec<Tick>, AgentError> {
    let sends = devices.iter_mut().map(|device| send_burst(device, conversation, BURST));
    let mut ticks = Vec::new();
    for sent in join_all(sends).await {
        ticks.extend(sent?);
    }
    Ok(ticks)
}

/// Sends `count` messages with many in flight; the answers must come in the order of the sends. What was refused for the
/// time being is repeated when all else is answered, and so stands behind it.
async fn send_burst(device: &mut Device, id: ConversationId, count: usize) -> Result<Vec<Tick>, AgentError> {
    let mut in_flight = VecDeque::new();
    let (mut ticks, mut refused): (Vec<Tick>, Vec<(u64, String)>) = (Vec::new(), Vec::new());
    let mut sent = 0;
    while sent < count || !in_flight.is_empty() {
        while sent < count && in_flight.len() < REQUESTS_IN_FLIGHT_MAX {
            let text = format!("{} says {sent}", device.identity.device);
            let message = device.next_message_id();
            let body = send_body(id, message, &text);
            in_flight.push_back((device.connection()?.begin(body)?, message, text));
            sent += 1;
        }
        device.connection()?.flush().await?;
        if let Some((request, message, text)) = in_flight.pop_front() {
            match device.connection()?.answer(request).await {
                Ok(server_frame::Body::Accepted(accepted)) => {
                    let last_seq = ticks.last().map_or(0, |tick| tick.seq);
                    assert!(accepted.seq > last_seq, "a later send of one device got an earlier place");
                    ticks.push(Tick { seq: accepted.seq, text });
                }
                Ok(other) => return Err(AgentError::Protocol(format!("no tick: {other:?}"))),
                Err(AgentError::Refused(error)) if error.retryable => refused.push((message, text)),
                Err(error) => return Err(error),
            }
        }
    }
    for (message, text) in refused {
        let accepted = device.send_as(id, message, &text).await?;
        ticks.push(Tick { seq: accepted.seq, text });
    }
    Ok(ticks)
}

/// What every device has heard, completed by sync where pushes were lost, is one gap-free order in which every
/// message stands where its tick said.
async fn same_order_everywhere(
    devices: &mut [Device],
    id: ConversationId,
    ticks: &[Tick],
) -> Result<(), AgentError> {
    let mut first: Option<Log> = None;
    for device in devices {
        device.listen(QUIET_MS).await?;
        device.sync().await?;
        let heard = device.logs.get(&id).cloned().unwrap_or_default();
        let log = device.history(id).await?;
        check(&log, ticks).unwrap_or_else(|imbalance| panic!("{id}: {imbalance}"));
        assert!(heard.iter().all(|(seq, entry)| log.get(seq) == Some(entry)), "heard what history denies");
        assert!(log.values().is_sorted_by_key(|entry| entry.time_ms), "time falls");
        let first = first.get_or_insert_with(|| log.clone());
        assert_eq!(*first, log, "two devices see two orders");
        device.store(id, log.into_values());
    }
    Ok(())
}

/// The second user's second device stores and reads; the first user's devices are told, and so is the sibling.
async fn receipts_come_back(devices: &mut [Device], id: ConversationId) -> Result<(), AgentError> {
    let head = devices[3].logs[&id].len() as u64;
    devices[3].acknowledge(id, head - 1, false).await?;
    devices[3].acknowledge(id, head, true).await?;
    for index in [0, 1, 2] {
        devices[index]
            .listen_until(|device| {
                device.receipts.get(&(id, 1)).is_some_and(|cursors| *cursors == (head, head))
            })
            .await?;
    }
    Ok(())
}

async fn a_repeat_changes_nothing(device: &mut Device, id: ConversationId) -> Result<(), AgentError> {
    let message = device.next_message_id();
    let first = device.send_as(id, message, "once").await?;
    let second = device.send_as(id, message, "once, says the repeat").await?;
    assert_eq!((first.seq, first.time_delta_ms), (second.seq, second.time_delta_ms));
    let log = device.history(id).await?;
    assert_eq!(log.len() as u64, first.seq, "the repeat was stored");
    assert_eq!(log[&first.seq].body.as_ref(), b"once");
    Ok(())
}

/// Syncs until the device has what history has: its home shard may hear of the newest a moment later. How many entries
/// were new.
async fn catch_up(device: &mut Device, id: ConversationId) -> Result<usize, AgentError> {
    let head = device.history(id).await?.len();
    let (mut new, _) = device.sync().await?;
    for _ in 0..SYNCS_MAX {
        if device.logs.get(&id).is_some_and(|log| log.len() >= head) {
            return Ok(new);
        }
        tokio::time::sleep(Duration::from_millis(SYNC_MS)).await;
        new += device.sync().await?.0;
    }
    Err(AgentError::Protocol(format!("{id}: {SYNCS_MAX} syncs do not bring what history has")))
}

/// A device that missed [`MISSED`] messages has them all after a sync of as many pages as they fill.
async fn an_absent_device_catches_up(devices: &mut [Device], id: ConversationId) -> Result<(), AgentError> {
    devices[3].listen(QUIET_MS).await?;
    catch_up(&mut devices[3], id).await?;
    let head = devices[3].logs[&id].len() as u64;
    devices[3].acknowledge(id, head, false).await?;
    devices[3].leave();
    send_burst(&mut devices[0], id, MISSED).await?;
    patiently(async || devices[3].come_back().await).await?;
    let new = catch_up(&mut devices[3], id).await?;
    assert_eq!(new, MISSED, "the sync brought something else than what was missed");
    let log = &devices[3].logs[&id];
    assert!(log.keys().copied().eq(1..=head + MISSED as u64), "a gap after the sync");
    let (new, pages) = devices[3].sync().await?;
    assert_eq!((new, pages), (0, 1), "a second sync has nothing to bring");
    Ok(())
}

/// Storage is killed and started again. Split: no client reconnects, and live delivery heals. Embedded: clients
/// come back by their resume tokens.
async fn storage_restarts(
    cluster: &mut Cluster,
    devices: &mut [Device],
    id: ConversationId,
) -> Result<(), AgentError> {
    let embedded = cluster.storages.is_empty();
    let servers = if embedded { &mut cluster.gateways } else { &mut cluster.storages };
    servers.iter_mut().for_each(Server::kill);
    if !embedded {
        let body = send_body(id, devices[0].next_message_id(), "nobody stores this");
        let refused = devices[0].connection()?.request(body).await;
        assert!(refused.as_ref().is_err_and(AgentError::is_retryable), "{refused:?}");
    }
    Server::restart_all(servers).map_err(|error| AgentError::Protocol(error.to_string()))?;
    if embedded {
        for device in &mut *devices {
            device.leave();
            // Ready to listen is not yet ready to serve: the log is applied first.
            while let Err(error) = device.come_back().await {
                if !error.is_retryable() {
                    return Err(error);
                }
            }
        }
    }
    // The first one may be pushed before sessions are announced again: then they are told to sync. The second one
    // has nothing but the push.
    for text in ["healed", "live again"] {
        let seq = devices[0].send(id, text).await?;
        for device in &mut devices[1..] {
            device.listen_until(|device| device.logs[&id].contains_key(&seq)).await?;
        }
    }
    Ok(())
}
