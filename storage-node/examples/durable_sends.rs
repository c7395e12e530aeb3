//! Durable 1:1 sends through the cores of an embedded node: how many a second, and how long each takes.
//!
//! `cargo run -p storage-node --example durable_sends -- outstanding=512 seconds=10 cores=1 folder=/tmp/sends`
//!
//! A send counts when its answer comes out of the core: synced to the log, applied, its rows readable. Each core has
//! a thread of its own that keeps its share of the outstanding sends; latency runs from handing a send to the core.

use bytes::Bytes;
use hdrhistogram::Histogram;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use storage_node::{LinkId, LinkOutput, LinkPeer, StorageConfig, StorageCore, StorageNode, clock};
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Command, CreateConversation, SendMessage, ShardRequest, ShardResponse, command, link_hello, outcome,
};
use wire_protocol::v1::ConversationKind;

/// What is left out at the start, so that files exist and caches are warm.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Plan {
    outstanding: usize,
    seconds: u64,
    cores: usize,
    shards: u32,
    conversations: u64,
    body_bytes: usize,
    folder: PathBuf,
}

impl Plan {
    fn from_arguments() -> Self {
        let given: HashMap<String, String> = std::env::args()
            .skip(1)
            .map(|argument| match argument.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => panic!("{argument}: expected key=value"),
            })
            .collect();
        let number = |key: &str, default: u64| {
            given.get(key).map_or(default, |value| value.parse().expect("a number"))
        };
        Self {
            outstanding: number("outstanding", 512) as usize,
            seconds: number("seconds", 10),
            cores: number("cores", 1) as usize,
            shards: number("shards", 8) as u32,
            conversations: number("conversations", 10_000),
            body_bytes: number("body_bytes", 200) as usize,
            folder: given.get("folder").map_or_else(|| PathBuf::from("/tmp/durable-sends"), PathBuf::from),
        }
    }
}

fn main() {
    let plan = Plan::from_arguments();
    if plan.folder.exists() {
        std::fs::remove_dir_all(&plan.folder).expect("an old run's folder");
    }
    let config =
        StorageConfig { data_dir: plan.folder.clone(), shard_count: plan.shards, ..StorageConfig::default() };
    let (node, cores) = StorageNode::start(config, plan.cores).expect("the node starts");
    let threads: Vec<_> = cores
        .into_iter()
        .enumerate()
        .map(|(number, core)| {
            let plan = plan.clone();
            thread::spawn(move || Sender::new(core, number as u64, plan).run())
        })
        .collect();
    let mut latencies = Histogram::<u64>::new(3).expect("three digits");
    for thread in threads {
        latencies.add(thread.join().expect("a sender")).expect("same bounds");
    }
    let metrics = node.metrics();
    let syncs = metrics.log_syncs.value();
    let entries: u64 = metrics.cores.iter().map(|core| core.entries.value()).sum();
    let commands: u64 = metrics.cores.iter().map(|core| core.commands.value()).sum();
    let store_writes = metrics.store_writes.value();
    let quantile = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{} outstanding, {} cores, {} shards, {} B: {:.0} sends/s  p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  \
         max {:.1} ms",
        plan.outstanding,
        plan.cores,
        plan.shards,
        plan.body_bytes,
        latencies.len() as f64 / plan.seconds as f64,
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        latencies.max() as f64 / 1e3,
    );
    println!(
        "whole run: {commands} commands, {:.1} an entry, {:.1} a sync, {:.1} a store write, {} MB of log",
        commands as f64 / entries as f64,
        commands as f64 / syncs as f64,
        commands as f64 / store_writes as f64,
        metrics.log_bytes.value() / 1_000_000,
    );
    for (what, durations) in [
        ("log sync", &metrics.log_sync_us),
        ("store write", &metrics.store_write_us),
        ("entry", &metrics.cores[0].entry_us),
    ] {
        let (bounds, _, count) = durations.cumulative();
        let at_most = |share: f64| {
            let bound = bounds.iter().find(|(_, below)| *below as f64 >= share * count as f64);
            bound.map_or_else(|| "more".to_owned(), |(us, _)| format!("{:.2}", *us as f64 / 1e3))
        };
        println!("{what}: p50 <= {}, p99 <= {}, all <= {} ms", at_most(0.5), at_most(0.99), at_most(1.0));
    }
    node.shutdown();
}

/// One core, and who sends through it.
struct Sender {
    core: StorageCore,
    link: LinkId,
    number: u64,
    plan: Plan,
    body: Bytes,
    request_last: u64,
    in_flight: HashMap<u64, Instant>,
}

impl Sender {
    fn new(mut core: StorageCore, number: u64, plan: Plan) -> Self {
        let me = thread::current();
        core.set_waker(Arc::new(move || me.unpark()));
        let peer =
            LinkPeer { role: link_hello::Role::Gateway, peer_id: 1, incarnation: 1, core: number as u32 };
        let link = core.open_link(peer);
        let body = Bytes::from(vec![7; plan.body_bytes]);
        Self { core, link, number, plan, body, request_last: 0, in_flight: HashMap::new() }
    }

    fn run(mut self) -> Histogram<u64> {
        let share = self.plan.outstanding / self.plan.cores;
        for conversation in 0..self.plan.conversations {
            self.begin(conversation, Self::create);
            while self.in_flight.len() >= share {
                self.turn(&mut |_| {});
            }
        }
        while !self.in_flight.is_empty() {
            self.turn(&mut |_| {});
        }
        let mut latencies = Histogram::<u64>::new(3).expect("three digits");
        let started = clock::now();
        let ends = WARM_UP + Duration::from_secs(self.plan.seconds);
        let mut next = 0u64;
        while started.elapsed() < ends {
            while self.in_flight.len() < share {
                // A prime step: neighbours in time are not neighbours in the store.
                next += 7_919;
                self.begin(next % self.plan.conversations, Self::send);
            }
            let counts = started.elapsed() >= WARM_UP;
            self.turn(&mut |latency| {
                if counts {
                    latencies.record(latency.as_micros() as u64).expect("it fits");
                }
            });
        }
        while !self.in_flight.is_empty() {
            self.turn(&mut |_| {});
        }
        latencies
    }

    fn people(&self, conversation: u64) -> (UserId, UserId) {
        let id = |side: u8| {
            let mut id = [side; 16];
            id[..8].copy_from_slice(&(conversation * 64 + self.number).to_be_bytes());
            UserId(id)
        };
        (id(1), id(2))
    }

    fn begin(&mut self, conversation: u64, operation: fn(&Self, u64) -> (ConversationId, command::Kind)) {
        self.request_last += 1;
        let (id, kind) = operation(self, conversation);
        let request = ShardRequest {
            id: self.request_last,
            shard: id.slot().shard(self.plan.shards).0,
            operation: Some(Operation::Command(Command { kind: Some(kind) })),
        };
        self.in_flight.insert(self.request_last, clock::now());
        self.core.receive(self.link, request);
    }

    fn create(&self, conversation: u64) -> (ConversationId, command::Kind) {
        let (a, b) = self.people(conversation);
        let id = ConversationId::direct(a, b);
        let create = CreateConversation {
            conversation_id: id.to_bytes(),
            kind: ConversationKind::Direct as i32 as u32,
            member_ids: vec![a.to_bytes(), b.to_bytes()],
            title: String::new(),
        };
        (id, command::Kind::CreateConversation(create))
    }

    fn send(&self, conversation: u64) -> (ConversationId, command::Kind) {
        let (a, b) = self.people(conversation);
        let id = ConversationId::direct(a, b);
        let send = SendMessage {
            conversation_id: id.to_bytes(),
            user_id: a.to_bytes(),
            device_id: DeviceId(a.0).to_bytes(),
            client_message_id: self.request_last,
            predecessor: 0,
            kind: 0,
            body: self.body.clone(),
        };
        (id, command::Kind::SendMessage(send))
    }

    /// Takes answers; sleeps if there were none.
    fn turn(&mut self, answered: &mut dyn FnMut(Duration)) {
        self.core.turn(clock::now_ms());
        let mut any = false;
        while let Some(output) = self.core.poll_output() {
            if let LinkOutput::Response(_, response) = output {
                check(&response);
                let begun = self.in_flight.remove(&response.id).expect("it was asked");
                answered(begun.elapsed());
                any = true;
            }
        }
        if !any {
            let due_ms = self.core.next_deadline_ms().unwrap_or(u64::MAX);
            let wait = due_ms.saturating_sub(clock::now_ms()).clamp(1, 1_000);
            thread::park_timeout(Duration::from_millis(wait));
        }
    }
}

fn check(response: &ShardResponse) {
    let is_done = match &response.result {
        Some(Reply::Outcome(outcome)) => !matches!(outcome.kind, None | Some(outcome::Kind::Refused(_))),
        _ => false,
    };
    assert!(is_done, "{response:?}");
}
