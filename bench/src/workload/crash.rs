//! Load while servers are killed without warning, and the ledger that must balance afterwards: every
//! acknowledged message is there once and where its tick said, each sender's in the order of sending, and
//! every other one at most once.

pub mod deaths;

use super::balance::{Tick, check};
use super::device::{Device, send_body_behind};
use super::scenario::register;
use crate::agent::{AgentError, Identity, Route, Target};
use crate::clock;
use crate::coordinator::{Cluster, ClusterError, Server};
use futures_util::future::join_all;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::watch;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1::server_frame;

/// Messages each sender has in flight.
const IN_FLIGHT: usize = 16;
/// Pause between two tries to come back, in milliseconds.
const COME_BACK_MS: u64 = 20;
/// Longest time a sender tries to come back, in milliseconds.
const COME_BACK_MS_MAX: u64 = 60_000;

/// Syncs until the receiver has the newest.
const SYNCS_MAX: usize = 200;
/// Between two of them, in milliseconds.
const SYNC_MS: u64 = 50;

/// What to break, and for how long.
pub struct Plan {
    /// Pairs of users; each first one sends to the second.
    pub pairs: usize,
    /// Kills.
    pub kills: usize,
    /// A kill comes this long after the last restart, in milliseconds, drawn evenly.
    pub after_ms: std::ops::Range<u64>,
    /// Makes the moments and victims.
    pub seed: u64,
    /// Ticks of all senders together, at the least: after the last kill they go on until they have them.
    pub acknowledged_min: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Messages with a tick, all of them found once, in their place.
    pub acknowledged: usize,
    /// Messages that were in flight at a kill and were sent again.
    pub repeated: usize,
    /// Servers killed.
    pub kills: usize,
}

/// One sender's ledger.
struct Ledger {
    device: Device,
    /// Who is sent to; connects when all is over.
    receiver: Identity,
    conversation: ConversationId,
    /// By client message id: what the first tick said.
    acknowledged: BTreeMap<u64, Tick>,
    /// So many of them at the least before it stops.
    acknowledged_min: usize,
    /// Sent and without a tick, oldest first.
    unanswered: VecDeque<(u64, String)>,
    repeated: usize,
}

/// Runs the load and the kills, then checks. Panics with what was wrong.
pub async fn run(cluster: &mut Cluster, route: Route, plan: &Plan) -> Result<Findings, AgentError> {
    let mut ledgers = Vec::new();
    for pair in 0..plan.pairs {
        let target = &cluster.targets[pair % cluster.targets.len()];
        let acknowledged_min = plan.acknowledged_min.div_ceil(plan.pairs);
        ledgers.push(Ledger { acknowledged_min, ..open_pair(target, route, pair, |_| true).await? });
    }
    let (stop, stopped) = watch::channel(false);
    let senders = join_all(ledgers.into_iter().map(|ledger| send_until(ledger, stopped.clone())));
    let (kills, ledgers) = tokio::join!(kill_at_random(cluster, plan, stop), senders);
    let mut findings = Findings { kills: kills?, ..Findings::default() };
    for (pair, ledger) in ledgers.into_iter().enumerate() {
        let target = &cluster.targets[pair % cluster.targets.len()];
        balance(ledger?, target, route, &mut findings).await?;
    }
    Ok(findings)
}

/// Two users and their conversation; who receives is the first new user that fits.
async fn open_pair(
    target: &Target,
    route: Route,
    pair: usize,
    fits: impl Fn(UserId) -> bool,
) -> Result<Ledger, AgentError> {
    let sender = register(target, &format!("sender-{pair}")).await?;
    let mut passed_over = 0;
    let receiver = loop {
        let registered = register(target, &format!("receiver-{pair}-{passed_over}")).await?;
        if fits(registered.user) {
            break registered;
        }
        passed_over += 1;
    };
    let mut device = Device::connect_patiently(target, route, &sender).await?;
    let conversation = device.create_direct(&receiver).await?;
    Ok(Ledger {
        device,
        receiver,
        conversation,
        acknowledged: BTreeMap::new(),
        acknowledged_min: 0,
        unanswered: VecDeque::new(),
        repeated: 0,
    })
}

/// Kills one server after the other at random moments, then stops the senders.
async fn kill_at_random(
    cluster: &mut Cluster,
    plan: &Plan,
    stop: watch::Sender<bool>,
) -> Result<usize, AgentError> {
    let mut random = plan.seed;
    let mut draw = |below: u64| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    for _ in 0..plan.kills {
        let wait_ms = plan.after_ms.start + draw(plan.after_ms.end - plan.after_ms.start);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let victim = draw((cluster.gateways.len() + cluster.storages.len()) as u64) as usize;
        let gateways = cluster.gateways.len();
        let (servers, index) = if victim < gateways {
            (&mut cluster.gateways, victim)
        } else {
            (&mut cluster.storages, victim - gateways)
        };
        let mut server = servers.remove(index);
        assert!(server.is_running(), "a server ended by itself");
        server.kill();
        servers.insert(index, started_again(server).await?);
    }
    tokio::time::sleep(Duration::from_millis(plan.after_ms.end)).await;
    let _ = stop.send(true);
    Ok(plan.kills)
}

/// Starts a server that was killed, and waits for its ready line: off this thread, so that senders go on against the
/// others.
async fn started_again(mut server: Server) -> Result<Server, AgentError> {
    let restarted = tokio::task::spawn_blocking(move || server.restart().map(|_| server)).await;
    restarted.expect("starting does not panic").map_err(not_started)
}

fn not_started(error: ClusterError) -> AgentError {
    AgentError::Protocol(error.to_string())
}

/// Sends with [`IN_FLIGHT`] outstanding until told to stop, it was enough, and everything has its tick.
async fn send_until(mut ledger: Ledger, stopped: watch::Receiver<bool>) -> Result<Ledger, AgentError> {
    let mut count = 0u64;
    loop {
        match send_while_connected(&mut ledger, &stopped, &mut count).await {
            Ok(()) => return Ok(ledger),
            Err(error) if error.is_retryable() => come_back(&mut ledger.device).await?,
            Err(error) => return Err(error),
        }
    }
}

async fn send_while_connected(
    ledger: &mut Ledger,
    stopped: &watch::Receiver<bool>,
    count: &mut u64,
) -> Result<(), AgentError> {
    let id = ledger.conversation;
    // What was in flight when the last connection broke goes first, in its old order, under its old ids.
    let mut again: VecDeque<_> = ledger.unanswered.iter().cloned().collect();
    ledger.repeated += again.len();
    let mut requests: VecDeque<(u32, u64)> = VecDeque::new();
    loop {
        while requests.len() < IN_FLIGHT {
            let (message, text) = match again.pop_front() {
                Some(unanswered) => unanswered,
                None if *stopped.borrow() && ledger.acknowledged.len() >= ledger.acknowledged_min => break,
                None => {
                    *count += 1;
                    let new = (ledger.device.next_message_id(), format!("message {count}"));
                    ledger.unanswered.push_back(new.clone());
                    new
                }
            };
            let predecessor = requests.back().map(|(_, before)| *before);
            let body = send_body_behind(predecessor, id, message, &text);
            let request = ledger.device.connection()?.begin(body)?;
            requests.push_back((request, message));
        }
        ledger.device.connection()?.flush().await?;
        let Some((request, message)) = requests.pop_front() else { return Ok(()) };
        match ledger.device.connection()?.answer(request).await? {
            server_frame::Body::Accepted(accepted) => {
                let (oldest, text) = ledger.unanswered.pop_front().expect("what is answered was sent");
                assert_eq!(oldest, message, "answers come in the order of the sends");
                ledger.acknowledged.insert(message, Tick { seq: accepted.seq, text });
            }
            other => return Err(AgentError::Protocol(format!("no tick: {other:?}"))),
        }
    }
}

async fn come_back(device: &mut Device) -> Result<(), AgentError> {
    let started = clock::now();
    device.leave();
    loop {
        match device.come_back().await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_retryable() && clock::since_ms(started) < COME_BACK_MS_MAX => {
                tokio::time::sleep(Duration::from_millis(COME_BACK_MS)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Compares the ledger with history as both sides see it, and repeats old sends, which must get their first answers.
async fn balance(
    mut ledger: Ledger,
    target: &Target,
    route: Route,
    findings: &mut Findings,
) -> Result<(), AgentError> {
    let id = ledger.conversation;
    assert!(ledger.unanswered.is_empty(), "a sender stopped without its ticks");
    let log = ledger.device.history(id).await?;
    check(&log, ledger.acknowledged.values()).unwrap_or_else(|imbalance| panic!("{id}: {imbalance}"));
    // A device's client message ids grow as it sends.
    let in_order = ledger.acknowledged.values().is_sorted_by(|earlier, later| earlier.seq < later.seq);
    assert!(in_order, "{id}: messages of one sender stand in another order than it sent them");
    let old: Vec<(u64, u64)> = ledger.acknowledged.iter().map(|(id, tick)| (*id, tick.seq)).collect();
    for (message, seq) in old.iter().step_by(1 + old.len() / 20) {
        let answer = ledger.device.send_as(id, *message, "a late repeat").await?;
        assert_eq!(answer.seq, *seq, "a repeat got another answer");
    }
    assert_eq!(ledger.device.history(id).await?, log, "a repeat changed what is stored");
    let mut receiver = Device::connect_patiently(target, route, &ledger.receiver).await?;
    let newest = log.last_key_value().map(|(seq, _)| *seq);
    let mut heard = None;
    // The receiver's home hears of the newest a moment later.
    for _ in 0..SYNCS_MAX {
        receiver.sync().await?;
        heard = receiver.logs.get(&id).and_then(|heard| heard.last_key_value()).map(|(seq, _)| *seq);
        if heard == newest {
            break;
        }
        tokio::time::sleep(Duration::from_millis(SYNC_MS)).await;
    }
    assert_eq!(heard, newest, "the receiver's sync ends elsewhere");
    assert_eq!(receiver.history(id).await?, log, "the receiver sees another order");
    findings.acknowledged += ledger.acknowledged.len();
    findings.repeated += ledger.repeated;
    Ok(())
}
