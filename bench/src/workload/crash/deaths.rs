//! Load while servers die at named places on the way of a push, and devices that listen meanwhile: afterwards each of
//! them has everything once and in order, whether it was pushed, half pushed or not at all.
//!
//! The ledger is that of kills at random moments. Each receiver has a device at every gateway, so that a death between two
//! steps leaves a message pushed to one of them and not to the other. A device acknowledges what it has without gaps, and
//! names no place when it syncs: it gets what changed since its version, from behind its cursor at the server. So a
//! server that took a push for a delivery, or forgot a change, would leave a gap.
//!
//! Receivers are at home at storage nodes by turns: one that pushes nothing to anybody would never come by its place.

use super::{Findings, Ledger, balance, come_back, not_started, open_pair, send_until, started_again};
use crate::agent::{AgentError, Route, Target, rest};
use crate::clock;
use crate::coordinator::{Cluster, SHARD_COUNT, Server, Tier, shards_of};
use crate::workload::device::{Device, Log, patiently};
use futures_util::future::join_all;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::sync::watch;
use wire_protocol::ids::{ConversationId, UserId};

/// Longest wait until a server has come by its place often enough, in milliseconds.
const DEATH_MS_MAX: u64 = 60_000;
/// Pause between two looks whether it has, in milliseconds.
const LOOK_MS: u64 = 20;
/// Passes that a server gets more in each further round: it does not always die at the same moment of its life.
const PASSES_MORE: u64 = 7;

/// Who dies where.
pub struct Deaths<'a> {
    /// Pairs of users; each first one sends to the second, who listens at every gateway.
    pub pairs: usize,
    /// Whose servers.
    pub tier: Tier,
    /// Names of places, and how often a server comes by before it dies there.
    pub places: &'a [(&'a str, u64)],
    /// Deaths at each place, of one server after the other.
    pub rounds: u64,
}

/// A sender, and the devices of whom it sends to.
struct Chat {
    ledger: Ledger,
    listeners: Vec<Device>,
}

/// Runs the load and the deaths, then checks. Panics with what was wrong.
pub async fn run(cluster: &mut Cluster, route: Route, deaths: &Deaths<'_>) -> Result<Findings, AgentError> {
    let mut chats = Vec::new();
    let storages = cluster.storages.len();
    for pair in 0..deaths.pairs {
        let is_home = |user: UserId| {
            let shard = user.slot().shard(SHARD_COUNT).0;
            storages == 0 || shards_of(pair % storages, storages).contains(&shard)
        };
        chats.push(Chat::open(&cluster.targets, route, pair, is_home).await?);
    }
    let (stop, stopped) = watch::channel(false);
    let chatting = join_all(chats.into_iter().map(|chat| chat.go_on_until(stopped.clone())));
    let dying = async {
        let died = die_at_each(cluster, deaths).await;
        // After a failure, too: the others would go on for ever.
        let _ = stop.send(true);
        died
    };
    let (died, chats) = tokio::join!(dying, chatting);
    let mut findings = Findings { kills: died?, ..Findings::default() };
    for (pair, chat) in chats.into_iter().enumerate() {
        let target = &cluster.targets[pair % cluster.targets.len()];
        chat?.settle(target, route, &mut findings).await?;
    }
    Ok(findings)
}

/// Lets one server after the other die, each place in turn, and starts each again where it was.
async fn die_at_each(cluster: &mut Cluster, deaths: &Deaths<'_>) -> Result<usize, AgentError> {
    let mut died = 0;
    for round in 0..deaths.rounds {
        for (number, (place, passes)) in (round as usize..).zip(deaths.places) {
            let servers = cluster.servers(deaths.tier);
            let index = number % servers.len();
            let failpoint = format!("{place}:{}", passes + round * PASSES_MORE);
            die_at(&mut servers[index], &failpoint).await?;
            died += 1;
        }
    }
    Ok(died)
}

async fn die_at(server: &mut Server, failpoint: &str) -> Result<(), AgentError> {
    server.kill();
    server.set_failpoint(Some(failpoint.to_owned()));
    // It may come by often enough before it says that it is ready.
    server.restart_soon().map_err(not_started)?;
    let status = end_of(server, failpoint).await?;
    let log = std::fs::read_to_string(server.log()).expect("it has a log");
    assert!(!log.contains("panicked"), "{failpoint}: it panicked; see {}", server.log().display());
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{failpoint}: it ended otherwise: {status}");
    server.set_failpoint(None);
    let stand_in = server.stand_in();
    *server = started_again(std::mem::replace(server, stand_in)).await?;
    Ok(())
}

/// How a server ended by itself.
async fn end_of(server: &mut Server, failpoint: &str) -> Result<ExitStatus, AgentError> {
    let started = clock::now();
    loop {
        if let Some(status) = server.ended().map_err(not_started)? {
            return Ok(status);
        }
        if clock::since_ms(started) >= DEATH_MS_MAX {
            return Err(AgentError::Protocol(format!("{failpoint}: it did not come by so often")));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

impl Chat {
    async fn open(
        targets: &[Target],
        route: Route,
        pair: usize,
        is_home: impl Fn(UserId) -> bool,
    ) -> Result<Self, AgentError> {
        let ledger = open_pair(&targets[pair % targets.len()], route, pair, is_home).await?;
        let mut listeners = Vec::new();
        for target in targets {
            let name = &ledger.receiver.username;
            let identity = patiently(async || rest::log_in(target, name).await).await?;
            let mut device = Device::connect_patiently(target, route, &identity).await?;
            // A device without a cursor would get no more than the newest entries.
            let begun = device.history(ledger.conversation).await?;
            device.store(ledger.conversation, begun.into_values());
            acknowledge(&mut device, ledger.conversation).await?;
            listeners.push(device);
        }
        Ok(Self { ledger, listeners })
    }

    /// Sends and listens until told to stop, and until everything that was sent has its tick.
    async fn go_on_until(self, stopped: watch::Receiver<bool>) -> Result<Self, AgentError> {
        let id = self.ledger.conversation;
        let listeners = self.listeners.into_iter().map(|device| listen_until(device, id, stopped.clone()));
        let listening = join_all(listeners);
        let (ledger, listeners) = tokio::join!(send_until(self.ledger, stopped.clone()), listening);
        Ok(Self { ledger: ledger?, listeners: listeners.into_iter().collect::<Result<_, _>>()? })
    }

    /// Compares what each listener has with history, and history with the ledger.
    async fn settle(self, target: &Target, route: Route, findings: &mut Findings) -> Result<(), AgentError> {
        let Self { mut ledger, listeners } = self;
        let id = ledger.conversation;
        let log = ledger.device.history(id).await?;
        for mut device in listeners {
            come_back(&mut device).await?;
            device.sync_patiently().await?;
            // What its home shard did not know yet is pushed to it.
            let has_all = |device: &Device| device.logs.get(&id).is_some_and(|has| has.len() >= log.len());
            let listened = device.listen_until(has_all).await;
            let has = device.logs.get(&id).cloned().unwrap_or_default();
            let differing = differing(&has, &log);
            assert!(
                differing.is_empty(),
                "{id}: {} has not what history has at {differing:?}, {listened:?}",
                device.identity.device
            );
        }
        balance(ledger, target, route, findings).await
    }
}

/// Stays connected and takes what comes; after each return it syncs first.
async fn listen_until(
    mut device: Device,
    id: ConversationId,
    mut stopped: watch::Receiver<bool>,
) -> Result<Device, AgentError> {
    loop {
        match listen_while_connected(&mut device, id, &mut stopped).await {
            Ok(()) => return Ok(device),
            Err(error) if error.is_retryable() => come_back(&mut device).await?,
            Err(error) => return Err(error),
        }
    }
}

async fn listen_while_connected(
    device: &mut Device,
    id: ConversationId,
    stopped: &mut watch::Receiver<bool>,
) -> Result<(), AgentError> {
    device.sync_patiently().await?;
    acknowledge(device, id).await?;
    tokio::select! {
        listened = device.listen_until(|_| false) => listened,
        _ = stopped.changed() => Ok(()),
    }
}

/// Tells the server up to where the device has everything.
async fn acknowledge(device: &mut Device, id: ConversationId) -> Result<(), AgentError> {
    let log = device.logs.get(&id).into_iter().flatten();
    let complete_to = log.zip(1..).take_while(|((seq, _), place)| *seq == place).count() as u64;
    device.acknowledge(id, complete_to, false).await
}

/// Places at which two logs do not have the same.
fn differing(one: &Log, other: &Log) -> Vec<u64> {
    let places: BTreeSet<u64> = one.keys().chain(other.keys()).copied().collect();
    places.into_iter().filter(|place| one.get(place) != other.get(place)).collect()
}
