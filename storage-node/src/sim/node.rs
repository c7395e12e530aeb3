//! One life of a node on the simulated disk: the real start, cores, log, store, reads and maintenance, each taken
//! forward one step at a time by one thread, in an order that comes from the seed.

use super::ledger::{Ledger, USERS};
use super::{Doing, Random, SimDisk, SimStore};
use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::engine::HotRows;
use crate::jobs;
use crate::replication::{LogRequest, QueuedWrites};
use crate::worker::{
    Applier, LinkId, LinkOutput, LinkPeer, NodeShared, OpenedShards, ReadRequest, StorageCore, StoreRequest,
    Threads, open_node, read_and_report, report_synced,
};
use crossbeam_channel::{Receiver, unbounded};
use std::sync::Arc;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{ShardRequest, link_hello};

/// Requests without an answer at any time.
const IN_FLIGHT_MAX: usize = 12;
/// Bytes of hot rows: next to none, so that first answers, heads and members come from the store.
const HOT_BYTES: usize = 300;
/// Steps after which a node that gets nowhere is called stuck.
const STEPS_MAX: u32 = 400_000;

/// How a life ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Everything was asked, answered, and is as it should be.
    Finished,
    /// The disk stopped it.
    Stopped,
    /// It did not start.
    Refused(String),
    /// It started, and stopped by itself.
    Failed(String),
    /// A promise is broken.
    Broken(String),
}

/// What a life needs.
pub struct Life<'a> {
    pub config: &'a StorageConfig,
    pub disk: &'a Arc<SimDisk>,
    pub store: &'a SimStore,
    pub ledger: &'a mut Ledger,
    pub random: &'a mut Random,
    pub now_ms: &'a mut u64,
    pub cores: usize,
    /// Whether it is told to stop when everything is done.
    pub ends_cleanly: bool,
}

impl Life<'_> {
    /// From the start to the end.
    pub fn live(mut self) -> Ended {
        self.disk.set_doing(Doing::Starting);
        let shards = self.config.shard_count;
        let store = self.store.clone();
        let disk = Disk::Simulated(Arc::clone(self.disk));
        let opened = open_node(self.config, self.cores, &disk, |folder| store.open(folder, shards));
        if self.disk.is_stopped() {
            return Ended::Stopped;
        }
        let (shared, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ended::Refused(error.to_string()),
        };
        let mut node = Node::new(&shared, opened);
        let ended = node.work(&mut self);
        match ended {
            _ if self.disk.is_stopped() => Ended::Stopped,
            Ok(()) => Ended::Finished,
            Err(ended) => ended,
        }
    }
}

/// A running node.
struct Node<'a> {
    shared: &'a Arc<NodeShared>,
    cores: Vec<StorageCore>,
    links: Vec<LinkId>,
    log_requests: Receiver<LogRequest>,
    queued: QueuedWrites,
    appliers: Vec<(Applier<'a>, Receiver<StoreRequest>)>,
    read_requests: Receiver<ReadRequest>,
}

impl<'a> Node<'a> {
    fn new(shared: &'a Arc<NodeShared>, opened: Vec<OpenedShards>) -> Self {
        let (log, log_requests) = unbounded();
        let (reads, read_requests) = unbounded();
        // The only snapshot of a shard is copied nowhere.
        let (snapshots, _) = unbounded();
        let (mut cores, mut appliers) = (Vec::new(), Vec::new());
        for (core, OpenedShards { shards, times }) in opened.into_iter().enumerate() {
            let (store, store_requests) = unbounded();
            let hot = HotRows::with_generations_of(&*shared.store, HOT_BYTES);
            appliers.push((Applier::new(shared, core, hot, times), store_requests));
            let threads =
                Threads { log: log.clone(), store, reads: reads.clone(), snapshots: snapshots.clone() };
            cores.push(StorageCore::new(Arc::clone(shared), core, threads, shards));
        }
        let peer = LinkPeer { role: link_hello::Role::Gateway, peer_id: 1, incarnation: 1, core: 0 };
        let links = cores.iter_mut().map(|core| core.open_link(peer)).collect();
        let queued = QueuedWrites::default();
        Self { shared, cores, links, log_requests, queued, appliers, read_requests }
    }

    /// Steps in an order from the seed, until everything was asked and answered; then the check of everything.
    fn work(&mut self, life: &mut Life<'_>) -> Result<(), Ended> {
        for _ in 0..STEPS_MAX {
            if life.ledger.is_done() && life.ledger.waiting() == 0 {
                return self.finish(life);
            }
            self.step(life)?;
            let is_serving = self.cores.iter().all(StorageCore::is_serving);
            if is_serving && life.ledger.waiting() < IN_FLIGHT_MAX && life.random.one_in(3) {
                self.ask_next(life);
            }
        }
        Err(Ended::Broken("it gets nowhere".to_owned()))
    }

    fn step(&mut self, life: &mut Life<'_>) -> Result<(), Ended> {
        let core = life.random.below(self.cores.len());
        let result = match life.random.below(40) {
            0..16 => self.turn(core, life)?,
            16..24 => self.log_step(life),
            24..32 => self.apply_step(core, life),
            32..38 => self.read_step(),
            38 if life.random.one_in(2) => self.persist(life),
            _ => {
                // Long enough, now and then, for checkpoints and for feed to be sent again.
                *life.now_ms += if life.random.one_in(6) { 1_500 } else { 5 };
                Ok(())
            }
        };
        if life.disk.is_stopped() {
            return Err(Ended::Stopped);
        }
        result.map_err(Ended::Failed)?;
        match self.shared.failure() {
            Some(failure) => Err(Ended::Failed(failure.to_owned())),
            None => Ok(()),
        }
    }

    /// Broken promises come out here.
    fn turn(&mut self, core: usize, life: &mut Life<'_>) -> Result<Result<(), String>, Ended> {
        self.cores[core].turn(*life.now_ms);
        while let Some(output) = self.cores[core].poll_output() {
            let checked = match output {
                LinkOutput::Response(_, response) => match response.result {
                    Some(reply) => self.answered(life, response.id, reply),
                    None => Err("an empty answer".to_owned()),
                },
                LinkOutput::Delivery(_, delivery) => life.ledger.delivered(delivery),
                LinkOutput::Fleet(_, fleet) => Err(format!("the only node is no fleet: {fleet:?}")),
                LinkOutput::Leader(_, leader) => Err(format!("the only copy has no elections: {leader:?}")),
            };
            checked.map_err(Ended::Broken)?;
        }
        Ok(Ok(()))
    }

    fn answered(&mut self, life: &mut Life<'_>, id: u64, reply: Reply) -> Result<(), String> {
        life.ledger.answered(id, reply)
    }

    fn log_step(&mut self, life: &Life<'_>) -> Result<(), String> {
        let Ok(first) = self.log_requests.try_recv() else { return Ok(()) };
        life.disk.set_doing(Doing::LogThread);
        self.queued.take(first, &self.log_requests);
        let (shared, disk) = (self.shared, life.disk);
        let mut report = |done: crate::replication::SyncedWrite<'_>| {
            // A process that is gone tells nobody.
            if !disk.is_stopped() {
                report_synced(shared, &done);
            }
        };
        self.queued.write(&shared.log, &mut report).map_err(|error| error.to_string())
    }

    fn apply_step(&mut self, core: usize, life: &Life<'_>) -> Result<(), String> {
        let (applier, requests) = &mut self.appliers[core];
        let Ok(first) = requests.try_recv() else { return Ok(()) };
        life.disk.set_doing(Doing::StoreThread);
        applier.carry_out(first, requests).map(drop)
    }

    fn read_step(&mut self) -> Result<(), String> {
        match self.read_requests.try_recv() {
            Ok(ReadRequest::Read(job)) => read_and_report(self.shared, job),
            _ => Ok(()),
        }
    }

    fn persist(&mut self, life: &Life<'_>) -> Result<(), String> {
        life.disk.set_doing(Doing::Maintenance);
        jobs::persist(self.shared)
    }

    fn ask_next(&mut self, life: &mut Life<'_>) {
        if let Some(call) = life.ledger.next_call(life.random) {
            self.ask(life, call);
        }
    }

    fn ask(&mut self, life: &mut Life<'_>, call: super::ledger::Call) {
        let id = life.ledger.begin(call.asked);
        let core = life.random.below(self.cores.len());
        let request = ShardRequest { id, shard: call.shard.0, operation: Some(call.operation) };
        self.cores[core].receive(self.links[core], request);
    }

    /// Nobody asks for anything new: everything is repeated and read, feeds arrive, and all is checked.
    fn finish(&mut self, life: &mut Life<'_>) -> Result<(), Ended> {
        for number in 0.. {
            let Some(call) = life.ledger.repeat(number) else { break };
            self.ask(life, call);
        }
        for call in life.ledger.remaining_reads() {
            self.ask(life, call);
        }
        for step in 0..STEPS_MAX {
            if life.ledger.waiting() == 0 && life.ledger.feeds_are_complete() {
                life.ledger.check().map_err(Ended::Broken)?;
                return if life.ends_cleanly { self.persist(life).map_err(Ended::Failed) } else { Ok(()) };
            }
            if step % 500 == 499 && life.ledger.waiting() == 0 {
                for number in 0..USERS {
                    let call = life.ledger.read_feed(number);
                    self.ask(life, call);
                }
            }
            if step > STEPS_MAX / 4 {
                break;
            }
            self.step(life)?;
        }
        life.ledger.check().map_err(Ended::Broken)?;
        Err(Ended::Broken(format!("{} requests are not answered", life.ledger.waiting())))
    }
}
