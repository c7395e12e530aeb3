//! Streams of messages that tell when there was no service: one for each shard through each gateway, the next message
//! 50 ms after the last one's answer. A stream does what a client does: it repeats under the same id what was refused or
//! not answered, and goes to another gateway when its own is gone.

use super::FaultsError;
use crate::agent::identity::Minter;
use crate::agent::protocol::names::BENCH_PREFIX;
use crate::agent::{AgentError, Identity, Route, Target};
use crate::clock;
use crate::coordinator::SHARD_COUNT;
use crate::workload::device::{Device, send_body};
use futures_util::future::join_all;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wire_protocol::ids::{ConversationId, DeviceId, Slot, UserId};
use wire_protocol::v1::server_frame;

/// Pause between an answer and the next message: what gaps are known to.
pub const PACE_MS: u64 = 50;
/// Longest pause before what was refused is sent again.
const REPEAT_MS_MAX: u64 = 50;
/// An answer that does not come for so long will not come: the stream then connects anew. Longer than another copy takes
/// to lead, shorter than a heartbeat.
const ANSWER_MS: u64 = 5_000;
/// Longest time to connect, and the pause before the next try.
const CONNECT_MS: u64 = 2_000;
const CONNECT_PAUSE_MS: u64 = 100;
/// Longest setting up of all streams.
const SET_UP_MS: u64 = 30_000;
/// How often the streams' thread looks whether it ran.
const TICK_US: u64 = 20_000;

/// What a stream has seen.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Where its conversation is.
    pub shard: u32,
    /// The gateway that it is at, by index, or was at last.
    pub gateway: usize,
    /// When each of its messages was acknowledged first, in microseconds of [`clock::now_us`].
    pub acks_us: Vec<u64>,
    /// Messages that had no answer within [`ANSWER_MS`] although the connection stood.
    pub unanswered: u64,
    /// Connections that it lost or gave up.
    pub reconnects: u64,
    /// Answers that cannot be: a place that was another message's.
    pub wrong: Vec<String>,
}

impl Stream {
    /// Of a stream that has not begun.
    pub fn new(shard: u32, gateway: usize) -> Self {
        Self { shard, gateway, acks_us: Vec::new(), unanswered: 0, reconnects: 0, wrong: Vec::new() }
    }
}

/// Times without an acknowledgement between two moments, in microseconds, each as its begin and length, counted from the
/// first of the moments at the earliest; a stream that had none from some moment on was without until `to_us`.
pub fn gaps_us(acks_us: &[u64], from_us: u64, to_us: u64) -> impl Iterator<Item = (u64, u64)> {
    let within = acks_us.iter().copied().filter(move |at_us| (from_us..to_us).contains(at_us));
    within.chain([to_us]).scan(from_us, |last_us, at_us| {
        let begun_us = std::mem::replace(last_us, at_us);
        Some((begun_us, at_us.saturating_sub(begun_us)))
    })
}

/// The longest of them, in microseconds.
pub fn longest_gap_us(acks_us: &[u64], from_us: u64, to_us: u64) -> u64 {
    gaps_us(acks_us, from_us, to_us).map(|(_, lasted_us)| lasted_us).max().unwrap_or(0)
}

/// When the streams' thread did not run: what a stream waited then says nothing of the servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pauses {
    /// When each began, and how long it lasted, in microseconds, one behind the other.
    begun_lasted_us: Vec<(u64, u64)>,
}

impl Pauses {
    /// The thread ran at `last_us`, slept for a tick, and ran again. Less than a tick too late is no pause.
    fn ran(&mut self, last_us: u64, now_us: u64) {
        let due_us = last_us + TICK_US;
        let late_us = now_us.saturating_sub(due_us);
        if late_us > TICK_US {
            self.begun_lasted_us.push((due_us, late_us));
        }
    }

    /// A moment by a clock that stands still in pauses.
    pub fn awake_us(&self, at_us: u64) -> u64 {
        let before = self.begun_lasted_us.iter();
        let lost_us: u64 = before.map(|(begun_us, us)| at_us.saturating_sub(*begun_us).min(*us)).sum();
        at_us - lost_us
    }
}

/// All streams, running in a thread of their own until this is dropped.
pub struct Probes {
    streams: Arc<Mutex<Vec<Stream>>>,
    pauses: Arc<Mutex<Pauses>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probes {
    /// Begins them; returns when each has a conversation.
    pub fn start(targets: &[Target], bench_key_pem: &str) -> Result<Self, FaultsError> {
        let minter = Minter::from_pem(bench_key_pem)?;
        let run = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        let gateways = 0..targets.len();
        let streams: Vec<Stream> = gateways
            .flat_map(|gateway| (0..SHARD_COUNT).map(move |shard| Stream::new(shard, gateway)))
            .collect();
        let mut clients = Vec::new();
        for (index, stream) in streams.iter().enumerate() {
            clients.push(Client::new(run, index, stream, targets, &minter)?);
        }
        let shared = Arc::new(Mutex::new(streams));
        let pauses = Arc::new(Mutex::new(Pauses::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (streams, slept, stopped) = (Arc::clone(&shared), Arc::clone(&pauses), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("probes".into()).spawn(move || {
            let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = made else { return };
            runtime.block_on(async {
                let within = Duration::from_millis(SET_UP_MS);
                let opened =
                    tokio::time::timeout(within, join_all(clients.iter_mut().map(Client::open))).await;
                let opened = opened.unwrap_or_else(|_| vec![Err(AgentError::TimedOut(SET_UP_MS))]);
                let failed = opened.into_iter().find_map(Result::err);
                let goes_on = failed.is_none();
                let _ = ready.send(failed);
                if goes_on {
                    let running = join_all(clients.into_iter().map(|client| client.run(&streams, &stopped)));
                    tokio::join!(running, tick(&slept, &stopped));
                }
            });
        })?;
        let probes = Self { streams: shared, pauses, stop, thread: Some(thread) };
        match is_ready.recv() {
            Ok(None) => Ok(probes),
            Ok(Some(error)) => Err(error.into()),
            Err(_) => Err(std::io::Error::other("no runtime for probes").into()),
        }
    }

    /// What they have seen so far.
    pub fn look(&self) -> Vec<Stream> {
        lock(&self.streams).clone()
    }

    /// When they did not run so far.
    pub fn pauses(&self) -> Pauses {
        lock(&self.pauses).clone()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a message's time.
            let _ = thread.join();
        }
    }
}

/// What a panicking thread left is whole: rows are only ever added to.
fn lock<T>(rows: &Mutex<T>) -> MutexGuard<'_, T> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at the clock again and again: it and the streams share a thread, and stand still together.
async fn tick(pauses: &Mutex<Pauses>, stop: &AtomicBool) {
    let mut last_us = clock::now_us();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_micros(TICK_US)).await;
        let now_us = clock::now_us();
        lock(pauses).ran(last_us, now_us);
        last_us = now_us;
    }
}

/// One stream's client.
struct Client {
    index: usize,
    gateway: usize,
    targets: Vec<Target>,
    identity: Identity,
    other: Identity,
    conversation: ConversationId,
    device: Option<Device>,
    message_id: u64,
    last_seq: u64,
}

impl Client {
    fn new(
        run: u64,
        index: usize,
        stream: &Stream,
        targets: &[Target],
        minter: &Minter,
    ) -> Result<Self, FaultsError> {
        let is_there = |slot: Slot| slot.shard(SHARD_COUNT).0 == stream.shard;
        // Its sessions are of the same shard: who connects anew waits for no other one.
        let identity = fitting(run, 2 * index as u32, minter, |user| is_there(user.slot()))?;
        // Their conversation's shard follows from both ids.
        let in_room = |user| ConversationId::direct(identity.user, user);
        let other = fitting(run, 2 * index as u32 + 1, minter, |user| is_there(in_room(user).slot()))?;
        Ok(Self {
            index,
            gateway: stream.gateway,
            targets: targets.to_vec(),
            conversation: in_room(other.user),
            identity,
            other,
            device: None,
            message_id: 1,
            last_seq: 0,
        })
    }

    /// Both users exist from now on, and their conversation. Gateways that have no link to storage yet refuse at first.
    async fn open(&mut self) -> Result<(), AgentError> {
        loop {
            match self.try_open().await {
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(Duration::from_millis(CONNECT_PAUSE_MS)).await;
                }
                opened => return opened,
            }
        }
    }

    async fn try_open(&mut self) -> Result<(), AgentError> {
        drop(Device::connect(&self.targets[self.gateway], Route::Native, self.other.clone()).await?);
        let mut device =
            Device::connect(&self.targets[self.gateway], Route::Native, self.identity.clone()).await?;
        device.create_direct(&self.other).await?;
        self.device = Some(device);
        Ok(())
    }

    async fn run(mut self, streams: &Mutex<Vec<Stream>>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let Some(device) = &mut self.device else {
                self.connect(streams).await;
                continue;
            };
            let Ok(connection) = device.connection() else {
                self.device = None;
                continue;
            };
            let body = send_body(self.conversation, self.message_id, "is anybody there?");
            match tokio::time::timeout(Duration::from_millis(ANSWER_MS), connection.request(body)).await {
                Ok(Ok(server_frame::Body::Accepted(accepted))) => {
                    self.acknowledged(accepted.seq, streams);
                    tokio::time::sleep(Duration::from_millis(PACE_MS)).await;
                }
                Ok(Err(AgentError::Refused(error))) if error.retryable => {
                    let wait_ms = u64::from(error.retry_after_ms).clamp(5, REPEAT_MS_MAX);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Ok(Ok(other)) => self.wrong(format!("no answer to a message: {other:?}"), streams),
                Ok(Err(AgentError::Refused(error))) => {
                    self.wrong(format!("refused for good: {error:?}"), streams)
                }
                Ok(Err(_)) => self.lost(streams, 0),
                Err(_) => self.lost(streams, 1),
            }
        }
    }

    async fn connect(&mut self, streams: &Mutex<Vec<Stream>>) {
        let target = &self.targets[self.gateway];
        let opening = Device::connect(target, Route::Native, self.identity.clone());
        match tokio::time::timeout(Duration::from_millis(CONNECT_MS), opening).await {
            Ok(Ok(device)) => {
                lock(streams)[self.index].gateway = self.gateway;
                self.device = Some(device);
            }
            Ok(Err(_)) | Err(_) => {
                self.gateway = (self.gateway + 1) % self.targets.len();
                tokio::time::sleep(Duration::from_millis(CONNECT_PAUSE_MS)).await;
            }
        }
    }

    fn acknowledged(&mut self, seq: u64, streams: &Mutex<Vec<Stream>>) {
        if seq <= self.last_seq {
            let wrong =
                format!("message {} has place {seq}, the one before {}", self.message_id, self.last_seq);
            self.wrong(wrong, streams);
        }
        self.last_seq = seq;
        self.message_id += 1;
        lock(streams)[self.index].acks_us.push(clock::now_us());
    }

    fn wrong(&mut self, what: String, streams: &Mutex<Vec<Stream>>) {
        lock(streams)[self.index].wrong.push(what);
        self.device = None;
    }

    fn lost(&mut self, streams: &Mutex<Vec<Stream>>, unanswered: u64) {
        let stream = &mut lock(streams)[self.index];
        stream.unanswered += unanswered;
        stream.reconnects += 1;
        self.device = None;
    }
}

/// The id of a user of this run alone.
fn identity_of(run: u64, number: u32, try_number: u32) -> UserId {
    let mixed = run ^ (u64::from(number) << 40 | u64::from(try_number));
    let mut id = [0; 16];
    let (prefix, rest) = id.split_at_mut(BENCH_PREFIX.len());
    prefix.copy_from_slice(&BENCH_PREFIX);
    rest.copy_from_slice(&mixed.to_be_bytes());
    UserId(id)
}

/// The first user of this number that fits: one in as many as there are shards does.
fn fitting(
    run: u64,
    number: u32,
    minter: &Minter,
    fits: impl Fn(UserId) -> bool,
) -> Result<Identity, FaultsError> {
    let mut users = (0..).map(|try_number| identity_of(run, number, try_number));
    let user = users.find(|user| fits(*user)).expect("ids do not end");
    let device = DeviceId(user.0);
    let access_token = minter.mint(user, device, clock::wall_ms())?;
    Ok(Identity { user, device, username: user.to_string(), access_token, refresh_token: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_from_the_fault_and_never_beyond_the_end() {
        let acks = [10, 60, 110, 900, 950];
        assert_eq!(longest_gap_us(&acks, 100, 1_000), 790, "from the answer after the fault to the next one");
        assert_eq!(longest_gap_us(&acks, 200, 1_000), 700, "what was before the fault is not its doing");
        assert_eq!(longest_gap_us(&acks, 905, 1_000), 50);
        assert_eq!(longest_gap_us(&acks, 951, 2_000), 1_049, "never again");
        assert_eq!(longest_gap_us(&[], 5, 25), 20);
        let all: Vec<(u64, u64)> = gaps_us(&acks, 100, 1_000).collect();
        assert_eq!(all, [(100, 10), (110, 790), (900, 50), (950, 50)], "each with its begin");
    }

    #[test]
    fn what_the_own_thread_slept_is_no_gap() {
        let mut pauses = Pauses::default();
        // In time, late by a tick, and twice by more: 480 ms and 80 ms.
        for (last_us, now_us) in [(0, 20_100), (100_000, 140_000), (200_000, 700_000), (900_000, 1_000_000)] {
            pauses.ran(last_us, now_us);
        }
        assert_eq!(pauses.begun_lasted_us, [(220_000, 480_000), (920_000, 80_000)]);
        for (at_us, awake_us) in [(0, 0), (220_000, 220_000), (700_000, 220_000), (1_100_000, 540_000)] {
            assert_eq!(pauses.awake_us(at_us), awake_us);
        }
        let acks_us = [200_000, 710_000, 1_010_000].map(|at_us| pauses.awake_us(at_us));
        assert_eq!(longest_gap_us(&acks_us, 0, acks_us[2]), 220_000, "a wait of its own stays");
    }

    #[test]
    fn each_stream_writes_to_its_shard() {
        let minter =
            Minter::from_pem(&crate::agent::identity::generate_key_pem().expect("a key")).expect("ours");
        for shard in 0..SHARD_COUNT {
            let client =
                Client::new(7, shard as usize, &Stream::new(shard, 0), &[], &minter).expect("it mints");
            assert_eq!(client.conversation.slot().shard(SHARD_COUNT).0, shard);
            assert_eq!(client.identity.user.slot().shard(SHARD_COUNT).0, shard);
        }
    }
}
