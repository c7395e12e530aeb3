//! How fast one store thread applies messages: the domain and an engine, without log, links or clients.
//!
//! `cargo run -p storage-node --example apply_rate -- [engine=rocks|memory] [conversations=10000] [batch=500]
//! [seconds=10] [body=200] [sync_s=10] [folder=PATH]`
//!
//! Prints messages a second and where the time of the applying thread went. Conversations are direct ones, client ids
//! never repeat.

use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use storage_node::clock;
use storage_node::domain::{Overlay, apply, set_applied_index};
use storage_node::engine::{MemoryStore, Reader, RocksOptions, RocksStore, Store};
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::{Command, CommandBatch, CreateConversation, SendMessage, command};

const SHARD: ShardId = ShardId(0);

struct Plan {
    engine: String,
    conversations: u64,
    batch: u64,
    seconds: u64,
    body: usize,
    sync_s: u64,
    folder: PathBuf,
}

fn plan() -> Plan {
    let given: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.split_once('=').map(|(key, value)| (key.into(), value.into())))
        .collect();
    let number = |key: &str, default: u64| given.get(key).map_or(default, |value| value.parse().expect(key));
    let scratch = std::env::temp_dir().join(format!("ringline-apply-rate-{}", std::process::id()));
    Plan {
        engine: given.get("engine").cloned().unwrap_or_else(|| "rocks".into()),
        conversations: number("conversations", 10_000),
        batch: number("batch", 500),
        seconds: number("seconds", 10),
        body: number("body", 200) as usize,
        sync_s: number("sync_s", 10),
        folder: given.get("folder").map_or(scratch, PathBuf::from),
    }
}

/// xorshift64*: reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self) -> [u8; 16] {
        let (high, low) = (self.next(), self.next());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        bytes
    }
}

struct Pair {
    conversation: Bytes,
    users: [Bytes; 2],
    devices: [Bytes; 2],
}

#[derive(Default)]
struct Spent {
    apply: Duration,
    batch: Duration,
    write: Duration,
}

fn main() {
    let plan = plan();
    let store: Arc<dyn Store> = match plan.engine.as_str() {
        "memory" => Arc::new(MemoryStore::new()),
        _ => Arc::new(RocksStore::open(&plan.folder, &RocksOptions::new(8)).expect("the folder opens")),
    };
    let mut random = Random(42);
    let mut index = 0;
    let pairs = make_conversations(&*store, &plan, &mut random, &mut index);

    let stop = Arc::new(AtomicBool::new(false));
    let syncer = std::thread::spawn({
        let (store, stop, every) = (store.clone(), stop.clone(), Duration::from_secs(plan.sync_s));
        move || {
            let mut slowest = Duration::ZERO;
            let mut last = clock::now();
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                if last.elapsed() >= every {
                    last = clock::now();
                    store.sync().expect("sync");
                    slowest = slowest.max(last.elapsed());
                }
            }
            slowest
        }
    });
    let (messages, wall, spent, slowest) = run(&*store, &plan, &pairs, &mut random, &mut index);
    stop.store(true, Ordering::Relaxed);
    let sync = syncer.join().expect("the syncer ends");

    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / messages as f64;
    println!(
        "{} {} conversations, batches of {}, bodies of {}",
        plan.engine, plan.conversations, plan.batch, plan.body
    );
    println!(
        "{:.0} messages/s, {messages} in {:.1} s",
        messages as f64 / wall.as_secs_f64(),
        wall.as_secs_f64()
    );
    println!(
        "us a message: apply (with reads) {:.2}, into_batch {:.2}, engine write {:.2}; slowest batch {:.1} ms, slowest sync {:.0} ms",
        each(spent.apply),
        each(spent.batch),
        each(spent.write),
        slowest.as_secs_f64() * 1e3,
        sync.as_secs_f64() * 1e3,
    );
    drop(store);
    if plan.engine != "memory" {
        let _ = std::fs::remove_dir_all(&plan.folder);
    }
}

fn make_conversations(store: &dyn Store, plan: &Plan, random: &mut Random, index: &mut u64) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for _ in 0..plan.conversations.div_ceil(1_000) {
        let mut commands = Vec::new();
        for _ in 0..1_000.min(plan.conversations - pairs.len() as u64) {
            let users = [UserId(random.bytes()), UserId(random.bytes())];
            let conversation = ConversationId::direct(users[0], users[1]).to_bytes();
            let member_ids = users.map(UserId::to_bytes).to_vec();
            let create = CreateConversation {
                conversation_id: conversation.clone(),
                kind: 1,
                member_ids,
                title: String::new(),
            };
            commands.push(Command { kind: Some(command::Kind::CreateConversation(create)) });
            let devices = [DeviceId(random.bytes()).to_bytes(), DeviceId(random.bytes()).to_bytes()];
            pairs.push(Pair { conversation, users: users.map(UserId::to_bytes), devices });
        }
        *index += 1;
        let mut overlay = Overlay::new(reader(store));
        apply(&mut overlay, SHARD, &CommandBatch { time_ms: 1, commands, feed_cut: 0, log_cut: 0 })
            .expect("apply");
        set_applied_index(&mut overlay, SHARD, *index, 1);
        store.write(overlay.into_batch()).expect("write");
    }
    store.sync().expect("sync");
    pairs
}

fn run(
    store: &dyn Store,
    plan: &Plan,
    pairs: &[Pair],
    random: &mut Random,
    index: &mut u64,
) -> (u64, Duration, Spent, Duration) {
    let mut spent = Spent::default();
    let mut slowest = Duration::ZERO;
    let (mut messages, mut wall) = (0, Duration::ZERO);
    while wall < Duration::from_secs(plan.seconds) {
        let commands = (0..plan.batch).map(|_| message(plan, pairs, random)).collect();
        *index += 1;
        let batch = CommandBatch { time_ms: 1_000 + *index, commands, feed_cut: 0, log_cut: 0 };
        let start = clock::now();
        let mut overlay = Overlay::new(reader(store));
        let applied = apply(&mut overlay, SHARD, &batch).expect("apply");
        set_applied_index(&mut overlay, SHARD, *index, batch.time_ms);
        let applied_at = clock::now();
        let rows = overlay.into_batch();
        let batched_at = clock::now();
        store.write(rows).expect("write");
        let end = clock::now();
        assert!(applied.iter().all(|applied| applied.events.len() == 1));
        spent.apply += applied_at - start;
        spent.batch += batched_at - applied_at;
        spent.write += end - batched_at;
        slowest = slowest.max(end - start);
        wall += end - start;
        messages += plan.batch;
    }
    (messages, wall, spent, slowest)
}

fn message(plan: &Plan, pairs: &[Pair], random: &mut Random) -> Command {
    let pair = &pairs[(random.next() % pairs.len() as u64) as usize];
    let side = (random.next() % 2) as usize;
    let send = SendMessage {
        conversation_id: pair.conversation.clone(),
        user_id: pair.users[side].clone(),
        device_id: pair.devices[side].clone(),
        client_message_id: random.next() | 1,
        predecessor: 0,
        kind: 0,
        body: Bytes::from(vec![b'x'; plan.body]),
    };
    Command { kind: Some(command::Kind::SendMessage(send)) }
}

fn reader(store: &dyn Store) -> &dyn Reader {
    store
}
