//! Several nodes as processes, a link to each, and calls to whichever serves the shard.

use crate::certificates;
use crate::process::{Link, PATIENCE, Patience, Process, Setup, reserved_address, run};
use crate::requests::{self, Call, Person};
use socket2::Socket;
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;
use storage_node::admin::{AdminDone, AdminRequest, call};
use storage_node::{LinkTls, NodeConfig, clock};
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{FleetNode, SessionAddress, ShardLeader, ShardResponse, delivery, shard_error};

/// Id of a link that changes the fleet: no node's.
const OPERATOR: u32 = 1_000;
/// After a change that came to nothing.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Whether a fleet has the nodes of one that was asked for, but for those that have left since.
fn has_nodes_of(fleet: &wire_protocol::internal::Fleet, asked: &wire_protocol::internal::Fleet) -> bool {
    let is_retired = |id: &u32| fleet.retired.contains(id);
    let has = |node: &FleetNode| fleet.nodes.contains(node) || (node.is_leaving && is_retired(&node.id));
    fleet.epoch >= asked.epoch && asked.nodes.iter().all(has) && asked.retired.iter().all(is_retired)
}

/// A session of a home, and with what it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    home: ShardId,
    /// In which the home is led, as far as living nodes know.
    term: Option<u64>,
    /// Of this fleet, when it was attached.
    links_ended: u64,
}

/// Nodes are told apart by their place, counted from 0; their ids are one more.
pub struct Fleet<'a> {
    folder: &'a Path,
    tls: LinkTls,
    shards: u32,
    nodes: Vec<NodeConfig>,
    /// Keep the nodes' ports while they are down.
    reserved: Vec<Socket>,
    /// Where each serves its metrics.
    metrics: Vec<SocketAddr>,
    is_replicated: bool,
    processes: Vec<Option<Process>>,
    links: Vec<Option<Link>>,
    /// Links that were opened again.
    links_ended: u64,
}

impl<'a> Fleet<'a> {
    /// Nodes that own the shards with which `owned` answers for their place; all share all shards if it is empty for
    /// all of them.
    pub fn start(folder: &'a Path, shards: u32, nodes: usize, owned: impl Fn(usize) -> Vec<u32>) -> Self {
        let mut fleet = Self::prepare(folder, shards, nodes, owned);
        fleet.start_all(Process::start_first);
        fleet
    }

    /// As [`Self::start`], with copies of all shards, and a node in each of these zones.
    pub fn start_in_zones(folder: &'a Path, shards: u32, zones: &[&str]) -> Self {
        let mut fleet = Self::prepare(folder, shards, zones.len(), |_| Vec::new());
        for (node, zone) in fleet.nodes.iter_mut().zip(zones) {
            node.zone = (*zone).to_owned();
        }
        fleet.start_all(Process::start_first);
        fleet
    }

    /// As [`Self::start`], of a fleet that was lost: from its backups.
    pub fn restore(
        folder: &'a Path,
        shards: u32,
        nodes: usize,
        owned: impl Fn(usize) -> Vec<u32>,
        backups: &Path,
    ) -> Self {
        let mut fleet = Self::prepare(folder, shards, nodes, owned);
        for place in 0..nodes {
            let config = fleet.with_setup(place, |setup| setup.write_config());
            let arguments = ["backup", "restore", "--from"].map(OsStr::new);
            let end = [backups.as_os_str(), OsStr::new("--config"), config.as_os_str()];
            run(&[&arguments[..], &end[..]].concat()).unwrap_or_else(|error| panic!("node {place}: {error}"));
        }
        fleet.start_all(Process::start_without_waiting);
        fleet
    }

    /// Nodes with copies of all shards that were never started.
    pub fn prepared(folder: &'a Path, shards: u32, nodes: usize) -> Self {
        Self::prepare(folder, shards, nodes, |_| Vec::new())
    }

    /// Starts one of a new fleet without waiting.
    pub fn begin(&self, place: usize) -> Child {
        self.with_setup(place, Process::start_first)
    }

    fn prepare(folder: &'a Path, shards: u32, nodes: usize, owned: impl Fn(usize) -> Vec<u32>) -> Self {
        let mut fleet = Self::empty(folder, shards, (0..nodes).all(|place| owned(place).is_empty()));
        (0..nodes).for_each(|place| fleet.add(owned(place)));
        fleet
    }

    fn empty(folder: &'a Path, shards: u32, is_replicated: bool) -> Self {
        Self {
            folder,
            tls: certificates::make(folder),
            shards,
            nodes: Vec::new(),
            reserved: Vec::new(),
            metrics: Vec::new(),
            is_replicated,
            processes: Vec::new(),
            links: Vec::new(),
            links_ended: 0,
        }
    }

    /// Each is ready when enough others are.
    fn start_all(&mut self, start: impl Fn(&Setup<'_>) -> Child) {
        let children: Vec<_> = (0..self.nodes.len()).map(|place| self.with_setup(place, &start)).collect();
        for (place, child) in children.into_iter().enumerate() {
            self.is_ready(place, Process::ready(child));
        }
    }

    /// Where a node keeps what it has.
    pub fn data(&self, place: usize) -> PathBuf {
        self.folder.join(format!("{}", self.nodes[place].id)).join("data")
    }

    /// One node that has all shards, and is to get company.
    pub fn start_one(folder: &'a Path, shards: u32) -> Self {
        let mut fleet = Self::empty(folder, shards, true);
        fleet.add((0..shards).collect());
        let child = fleet.with_setup(0, Process::start_first);
        fleet.is_ready(0, Process::ready(child));
        fleet.nodes[0].shards.clear();
        fleet
    }

    fn add(&mut self, shards: Vec<u32>) {
        let id = self.nodes.len() as u32 + 1;
        let (socket, address) = reserved_address();
        let (page_socket, page) = reserved_address();
        self.reserved.extend([socket, page_socket]);
        self.metrics.push(page);
        self.nodes.push(NodeConfig { id, address, shards, zone: String::new() });
        self.processes.push(None);
        self.links.push(None);
    }

    /// Starts a further node, which holds nothing and of which the fleet does not know.
    pub fn join(&mut self) {
        self.join_in("");
    }

    /// The same in a zone.
    pub fn join_in(&mut self, zone: &str) {
        self.add(Vec::new());
        let place = self.nodes.len() - 1;
        self.nodes[place].zone = zone.to_owned();
        let process = self.with_setup(place, Process::start_joining);
        self.is_ready(place, process);
    }

    /// A node as the fleet is to know it.
    pub fn as_fleet_node(&self, place: usize) -> FleetNode {
        let NodeConfig { id, address, zone, .. } = &self.nodes[place];
        let (address, zone) = (address.to_string(), zone.clone());
        FleetNode { id: *id, address, zone, ..FleetNode::default() }
    }

    /// The newest fleet that a node told of, once one did.
    pub fn known(&self) -> &wire_protocol::internal::Fleet {
        self.told().expect("it was waited for")
    }

    fn told(&self) -> Option<&wire_protocol::internal::Fleet> {
        let told = self.links.iter().flatten().filter_map(|link| link.fleet.as_ref());
        told.max_by_key(|fleet| fleet.epoch)
    }

    fn epoch(&self) -> u64 {
        self.told().map_or(0, |fleet| fleet.epoch)
    }

    /// Changes the fleet, as an operator does: again, if a report came before.
    pub fn change<E: std::fmt::Debug>(
        &mut self,
        change: impl Fn(&wire_protocol::internal::Fleet) -> Result<wire_protocol::internal::Fleet, E>,
    ) {
        let started = clock::now();
        // A node tells it soon after a link is open.
        while self.told().is_none() {
            assert!(started.elapsed() < PATIENCE, "nobody tells of the fleet");
            self.pump();
        }
        loop {
            assert!(started.elapsed() < PATIENCE, "the fleet did not change: {:?}", self.known());
            let next = change(self.known()).expect("it can be");
            let asked = clock::now();
            if let Some(place) = self.leader(ShardId(0)) {
                let address = self.nodes[place].address;
                let mut link = Link::open_as_node(address, &self.tls, OPERATOR).expect("the node lives");
                link.change_fleet(next.clone());
                while asked.elapsed() < ASK_AGAIN
                    && link.fleet.as_ref().is_none_or(|it| it.epoch < next.epoch)
                {
                    link.pump(Duration::from_millis(10)).expect("the node lives");
                }
                // Whatever it is by now: what is asked for next begins there.
                let epoch = link.fleet.map_or(0, |fleet| fleet.epoch);
                while self.known().epoch < epoch {
                    assert!(started.elapsed() < PATIENCE, "nobody tells: {:?}", self.known());
                    self.pump();
                }
            }
            self.pump();
            if has_nodes_of(self.known(), &next) {
                return;
            }
        }
    }

    fn with_setup<T>(&self, place: usize, act: impl FnOnce(&Setup<'_>) -> T) -> T {
        let node = &self.nodes[place];
        let folder = self.folder.join(format!("{}", node.id));
        std::fs::create_dir_all(&folder).expect("it is made");
        act(&Setup {
            folder: &folder,
            node_id: node.id,
            shards: self.shards,
            // One of them has two cores: feed and messages of replicas cross cores, too.
            cores: if place == 1 { 2 } else { 1 },
            nodes: &self.nodes,
            tls: &self.tls,
            listen: node.address,
            metrics: self.metrics[place],
            is_replicated: self.is_replicated,
        })
    }

    /// Where a node serves its metrics.
    pub fn metrics(&self, place: usize) -> SocketAddr {
        self.metrics[place]
    }

    /// A node that was started has said that it is ready.
    pub fn is_ready(&mut self, place: usize, process: Process) {
        self.links[place] = Some(Link::open(process.address, &self.tls).expect("it is ready"));
        self.processes[place] = Some(process);
    }

    pub fn start_node(&mut self, place: usize) {
        let process = self.with_setup(place, Process::start);
        self.is_ready(place, process);
    }

    /// Starts a node that has lost its disk under the id that it had, as nobody should.
    pub fn start_without_disk(&mut self, place: usize) {
        std::fs::remove_dir_all(self.data(place)).expect("its disk is lost");
        let process = self.with_setup(place, Process::start_joining);
        self.is_ready(place, process);
    }

    /// Starts a node with the word of a new fleet once more. `Err`: it has ended, and complained of this.
    pub fn begin_again(&mut self, place: usize) -> Result<(), String> {
        let (started, complaint) =
            self.with_setup(place, |setup| (Process::try_start_first(setup), setup.complaint()));
        let process = started.map_err(|_| complaint)?;
        self.is_ready(place, process);
        Ok(())
    }

    /// What the node of this place answers to a command, once it is as wanted.
    pub fn asked_until(
        &mut self,
        place: usize,
        request: &AdminRequest,
        is: impl Fn(&AdminDone) -> bool,
    ) -> AdminDone {
        let started = clock::now();
        loop {
            let done = call(&self.data(place), request, |_| {}).expect("the node answers");
            if is(&done) {
                return done;
            }
            assert!(started.elapsed() < PATIENCE, "{done:?}");
            self.pump();
        }
    }

    /// What an operator who asks the node of this place reads.
    pub fn admin(&self, place: usize, words: &[&str]) -> String {
        let data = self.data(place);
        let first = [OsStr::new("admin"), OsStr::new("--data-dir"), data.as_os_str()];
        let words: Vec<&OsStr> = words.iter().map(|word| OsStr::new(*word)).collect();
        run(&[&first[..], &words[..]].concat()).unwrap_or_else(|error| panic!("node {place}: {error}"))
    }

    /// Starts a node that dies at this failpoint, and waits for its end.
    pub fn start_dying_at(&mut self, place: usize, failpoint: &str) {
        let Ok(mut process) = self.with_setup(place, |setup| Process::start_dying_at(setup, failpoint))
        else {
            return;
        };
        let mut patience = Patience::begin(self.epoch());
        while !process.has_ended() {
            assert!(!patience.is_over(self.epoch()), "it never came to {failpoint}");
            self.pump();
        }
    }

    /// kill -9.
    pub fn kill(&mut self, place: usize) {
        self.processes[place].take().expect("it runs").kill();
        self.links[place] = None;
    }

    /// SIGTERM to all that run, and a proper end of each.
    pub fn terminate(mut self) {
        self.processes.iter_mut().filter_map(Option::take).for_each(Process::terminate);
    }

    /// Takes what every node has to say.
    pub fn pump(&mut self) {
        for place in 0..self.links.len() {
            if let Some(link) = &mut self.links[place]
                && let Err(error) = link.pump(Duration::from_millis(10))
            {
                self.open_again(place, &error);
            }
        }
    }

    /// A node gives up a link over which it hears nothing, as when this thread waits for another node: whoever has one
    /// opens it again. What the node told before is kept.
    fn open_again(&mut self, place: usize, error: &io::Error) {
        let process = self.processes[place].as_mut().expect("it runs");
        assert!(!process.has_ended(), "node {} has ended: {error}", place + 1);
        println!("the link to node {} is opened again: {error}", place + 1);
        self.links_ended += 1;
        let opened = Link::open(process.address, &self.tls).expect("the node lives");
        let ended = self.links[place].replace(opened).expect("it was open");
        let link = self.link(place);
        (link.deliveries, link.leaders, link.fleet) = (ended.deliveries, ended.leaders, ended.fleet);
    }

    /// The place of the node that alone has the shard; nothing if all share it.
    fn owner(&self, shard: ShardId) -> Option<usize> {
        self.nodes.iter().position(|node| node.shards.contains(&shard.0))
    }

    fn newest_leader(&self, shard: ShardId) -> Option<&ShardLeader> {
        let told = self.links.iter().flatten().filter_map(|link| link.leaders.get(&shard.0));
        told.max_by_key(|leader| leader.term)
    }

    /// The place of the node that leads a shared shard, as far as living nodes know.
    pub fn leader(&self, shard: ShardId) -> Option<usize> {
        let place = self.newest_leader(shard)?.node_id as usize - 1;
        self.links[place].is_some().then_some(place)
    }

    /// The term of the same.
    pub fn term(&self, shard: ShardId) -> Option<u64> {
        self.newest_leader(shard).map(|leader| leader.term)
    }

    /// Asks the owner of the shard, whose first answer counts. Of a shared shard, asks whoever leads until there is an
    /// answer: an election goes by, a copy that was asked too early names another.
    pub fn call(&mut self, call: Call) -> ShardResponse {
        if let Some(place) = self.owner(call.shard) {
            return self.ask(place, call);
        }
        let started = clock::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "no leader of shard {} answered", call.shard);
            let Some(place) = self.leader(call.shard) else {
                self.pump();
                continue;
            };
            let response = self.ask(place, call.clone());
            match &response.result {
                Some(Reply::Error(error)) => {
                    let may_pass = [shard_error::Kind::NotLeader, shard_error::Kind::Unavailable];
                    assert!(may_pass.contains(&error.kind()), "{error:?}");
                    self.pump();
                }
                _ => return response,
            }
        }
    }

    /// What the node of this place itself answers, whoever leads.
    pub fn ask(&mut self, place: usize, call: Call) -> ShardResponse {
        loop {
            match self.link(place).call(call.clone()) {
                Ok(response) => return response,
                Err(error) => self.open_again(place, &error),
            }
        }
    }

    fn link(&mut self, place: usize) -> &mut Link {
        self.links[place].as_mut().expect("the node runs")
    }

    /// Until the node that serves the shard pushes this body.
    pub fn wait_for_push(&mut self, shard: ShardId, body: &bytes::Bytes) {
        let started = clock::now();
        while !self.is_pushed(shard, body) {
            assert!(started.elapsed() < PATIENCE, "{body:?} was not pushed");
        }
    }

    /// As [`Self::wait_for_push`], to a session of a shared home. `false`: it may have gone with its leader or its link
    /// before.
    pub fn wait_for_push_to(&mut self, session: Attached, body: &bytes::Bytes) -> bool {
        let started = clock::now();
        while !self.is_pushed(session.home, body) {
            if self.session_of(session.home) != session {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "{body:?} was not pushed");
        }
        true
    }

    /// Whether the node that serves the shard has pushed this body since it was asked last.
    fn is_pushed(&mut self, shard: ShardId, body: &bytes::Bytes) -> bool {
        self.pump();
        let Some(place) = self.owner(shard).or_else(|| self.leader(shard)) else { return false };
        let mut bodies = self.link(place).deliveries.drain(..).filter_map(|pushed| match pushed.event {
            Some(delivery::Event::Entry(entry)) => Some(entry.body),
            _ => None,
        });
        bodies.any(|pushed| pushed == *body)
    }

    /// One that was attached now.
    fn session_of(&self, home: ShardId) -> Attached {
        Attached { home, term: self.term(home), links_ended: self.links_ended }
    }

    /// Until the person's feed says that the conversation is as long as this.
    pub fn wait_for_feed(&mut self, who: Person, conversation: ConversationId, top_seq: u64) {
        let started = clock::now();
        loop {
            let page = requests::feed_page(self.call(requests::read_feed(self.shards, who, 0)));
            let row = page.rows.into_iter().find(|row| row.conversation_id == conversation.to_bytes());
            if row.as_ref().is_some_and(|row| row.top_seq == top_seq) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{row:?} instead of {top_seq}");
        }
    }

    /// Two people, and the conversation that they have with each other.
    pub fn two_who_talk(&mut self) -> (Person, Person, ConversationId) {
        let (ada, bob) = (requests::person(1), requests::person(2));
        for person in [ada, bob] {
            self.call(requests::create_user(self.shards, person));
        }
        self.call(requests::create_direct(self.shards, ada, bob));
        (ada, bob, ConversationId::direct(ada.user, bob.user))
    }

    pub fn attach(&mut self, who: Person, slot: u32) -> Attached {
        // As of before: a leader or a link that goes meanwhile may take it along.
        let attached = self.session_of(who.user.slot().shard(self.shards));
        let session = SessionAddress { slot, generation: 1 };
        match self.call(requests::attach(self.shards, who, session)).result {
            Some(Reply::Attached(answer)) if answer.device_known => attached,
            other => panic!("not attached: {other:?}"),
        }
    }
}
