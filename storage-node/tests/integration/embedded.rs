//! A node whose cores are turned by the test's own thread.

use crate::requests;
use crate::requests::{Call, Person, view};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storage_node::clock;
use storage_node::{
    LinkId, LinkOutput, LinkPeer, LogConfig, StartError, StorageConfig, StorageCore, StorageNode,
};
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::{Delivery, ShardRequest, ShardResponse, link_hello};
use wire_protocol::v1::Entry;

/// Shards of every test's node.
pub const SHARDS: u32 = 8;
/// Nothing takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn config(folder: &Path) -> StorageConfig {
    StorageConfig {
        data_dir: folder.to_owned(),
        shard_count: SHARDS,
        log: LogConfig { file_bytes: 1 << 20, keep_bytes: 4 << 20, prefill: false },
        ..StorageConfig::default()
    }
}

/// A running node with one link on each core.
pub struct Embedded {
    node: Option<StorageNode>,
    pub cores: Vec<StorageCore>,
    pub links: Vec<LinkId>,
    request_last: u64,
    responses: HashMap<u64, ShardResponse>,
    /// Everything that was pushed, in order.
    pub deliveries: Vec<(LinkId, Delivery)>,
}

impl Embedded {
    pub fn start(folder: &Path, cores: usize) -> Self {
        Self::try_start(config(folder), cores).expect("the node starts")
    }

    pub fn try_start(config: StorageConfig, cores: usize) -> Result<Self, StartError> {
        let (node, mut cores) = StorageNode::start(config, cores)?;
        let thread = std::thread::current();
        let peer = LinkPeer { role: link_hello::Role::Gateway, peer_id: 1, incarnation: 7, core: 0 };
        let links = cores
            .iter_mut()
            .map(|core| {
                let thread = thread.clone();
                core.set_waker(Arc::new(move || thread.unpark()));
                core.open_link(peer)
            })
            .collect();
        Ok(Self {
            node: Some(node),
            cores,
            links,
            request_last: 0,
            responses: HashMap::new(),
            deliveries: Vec::new(),
        })
    }

    /// Sends a request over the link of a core, without waiting.
    pub fn begin(&mut self, core: usize, call: Call) -> u64 {
        self.request_last += 1;
        let id = self.request_last;
        let request = ShardRequest { id, shard: call.shard.0, operation: Some(call.operation) };
        self.cores[core].receive(self.links[core], request);
        id
    }

    /// Turns every core once and takes what comes out.
    pub fn turn(&mut self) {
        for core in &mut self.cores {
            core.turn(clock::now_ms());
            while let Some(output) = core.poll_output() {
                match output {
                    LinkOutput::Response(_, response) => {
                        let id = response.id;
                        assert!(self.responses.insert(id, response).is_none(), "{id} was answered twice");
                    }
                    LinkOutput::Delivery(link, delivery) => self.deliveries.push((link, delivery)),
                    LinkOutput::Fleet(_, fleet) => panic!("the only node is no fleet: {fleet:?}"),
                    LinkOutput::Leader(_, leader) => panic!("the only copy has no elections: {leader:?}"),
                }
            }
        }
    }

    /// Turns until `done`, sleeping while there is nothing to do.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let started = clock::now();
        loop {
            self.turn();
            if done(self) {
                return;
            }
            let failure = self.cores[0].failure();
            assert!(failure.is_none(), "{what}: {failure:?}");
            assert!(started.elapsed() < PATIENCE, "{what} did not happen");
            let due_ms =
                self.cores.iter().filter_map(StorageCore::next_deadline_ms).min().unwrap_or(u64::MAX);
            let wait = Duration::from_millis(due_ms.saturating_sub(clock::now_ms()));
            std::thread::park_timeout(wait.min(PATIENCE));
        }
    }

    pub fn finish(&mut self, id: u64) -> ShardResponse {
        self.run_until("an answer", |node| node.responses.contains_key(&id));
        self.responses.remove(&id).expect("it is there")
    }

    /// As [`Self::finish`]; `None`: the node failed, and answers nothing any more.
    pub fn finish_unless_failed(&mut self, id: u64) -> Option<ShardResponse> {
        let started = clock::now();
        while !self.responses.contains_key(&id) && self.cores[0].failure().is_none() {
            assert!(started.elapsed() < PATIENCE, "neither an answer nor a failure");
            self.turn();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.cores[0].failure().is_none().then(|| self.responses.remove(&id).expect("it is there"))
    }

    /// Sends a request over the link of core 0 and waits for its answer.
    pub fn call(&mut self, call: Call) -> ShardResponse {
        let id = self.begin(0, call);
        self.finish(id)
    }

    /// Two people who know each other: users and their conversation.
    pub fn pair(&mut self, a: Person, b: Person) -> ConversationId {
        for person in [a, b] {
            self.call(requests::create_user(SHARDS, person));
        }
        self.call(requests::create_direct(SHARDS, a, b));
        ConversationId::direct(a.user, b.user)
    }

    /// All entries of a conversation, checked to be 1, 2, 3, …
    pub fn entries(&mut self, who: Person, conversation: ConversationId) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry| entry.seq);
            let page = view(self.call(requests::read_after(SHARDS, who, conversation, after)));
            entries.extend(page.entries);
            if !page.truncated {
                break;
            }
        }
        for (place, entry) in entries.iter().enumerate() {
            assert_eq!(entry.seq, place as u64 + 1, "entries have no gaps");
        }
        entries
    }

    /// Stops properly.
    pub fn shutdown(mut self) {
        self.cores.clear();
        self.node.take().expect("it runs").shutdown();
    }

    pub fn metrics(&self) -> String {
        self.node.as_ref().expect("it runs").metrics().render()
    }
}
