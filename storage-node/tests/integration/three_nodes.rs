//! Three processes with a copy of every shard each, over mutual TLS: any one of them may die, and nothing that was
//! acknowledged is lost, doubled or out of order.

use crate::certificates;
use crate::process::{Link, PATIENCE, Process, Setup, free_address};
use crate::requests::{self, Call, Person, applied, body, person};
use std::path::Path;
use std::time::Duration;
use storage_node::{LinkTls, NodeConfig, clock};
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{SessionAddress, ShardResponse, delivery, shard_error};

const SHARDS: u32 = 6;
const NODES: u32 = 3;

struct Fleet<'a> {
    folder: &'a Path,
    tls: LinkTls,
    nodes: Vec<NodeConfig>,
    processes: Vec<Option<Process>>,
    links: Vec<Option<Link>>,
}

impl<'a> Fleet<'a> {
    fn start(folder: &'a Path) -> Self {
        let node = |id| NodeConfig { id, address: free_address(), shards: Vec::new(), zone: String::new() };
        let nodes = (1..=NODES).map(node).collect();
        let tls = certificates::make(folder);
        let mut fleet = Self {
            folder,
            tls,
            nodes,
            processes: (0..NODES).map(|_| None).collect(),
            links: (0..NODES).map(|_| None).collect(),
        };
        let children: Vec<_> =
            (0..NODES as usize).map(|place| fleet.with_setup(place, Process::start_soon)).collect();
        for (place, child) in children.into_iter().enumerate() {
            fleet.is_ready(place, Process::ready(child));
        }
        fleet
    }

    fn with_setup<T>(&self, place: usize, act: impl FnOnce(&Setup<'_>) -> T) -> T {
        let node = &self.nodes[place];
        let folder = self.folder.join(format!("{}", node.id));
        std::fs::create_dir_all(&folder).expect("it is made");
        act(&Setup {
            folder: &folder,
            node_id: node.id,
            shards: SHARDS,
            // One of them has two cores: messages of replicas cross cores, too.
            cores: if place == 1 { 2 } else { 1 },
            nodes: &self.nodes,
            tls: &self.tls,
            listen: node.address,
        })
    }

    fn is_ready(&mut self, place: usize, process: Process) {
        self.links[place] = Some(Link::open(process.address, &self.tls).expect("it is ready"));
        self.processes[place] = Some(process);
    }

    fn start_node(&mut self, place: usize) {
        let process = self.with_setup(place, Process::start);
        self.is_ready(place, process);
    }

    fn kill(&mut self, place: usize) {
        self.processes[place].take().expect("it runs").kill();
        self.links[place] = None;
    }

    /// Takes what every node has to say.
    fn pump(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.pump(Duration::from_millis(10)).expect("the node lives");
        }
    }

    /// The place of the node that leads the shard, as far as living nodes know.
    fn leader(&mut self, shard: ShardId) -> Option<usize> {
        let told = self.links.iter().flatten().filter_map(|link| link.leaders.get(&shard.0));
        let newest = told.max_by_key(|leader| leader.term)?;
        let place = newest.node_id as usize - 1;
        self.links[place].is_some().then_some(place)
    }

    /// Asks whoever leads until there is an answer: an election goes by, a copy that was asked too early names another.
    fn call(&mut self, call: Call) -> ShardResponse {
        let started = clock::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "no leader of shard {} answered", call.shard);
            let Some(place) = self.leader(call.shard) else {
                self.pump();
                continue;
            };
            let link = self.links[place].as_mut().expect("it was just looked at");
            let response = link.call(call.clone()).expect("the node lives");
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

    fn wait_for_push(&mut self, shard: ShardId, body: &bytes::Bytes) {
        let started = clock::now();
        loop {
            self.pump();
            let place = self.leader(shard).expect("somebody leads");
            let pushed = self.links[place].as_mut().expect("it lives").deliveries.drain(..);
            let mut bodies = pushed.filter_map(|pushed| match pushed.event {
                Some(delivery::Event::Entry(entry)) => Some(entry.body),
                _ => None,
            });
            if bodies.any(|pushed| pushed == *body) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{body:?} was not pushed");
        }
    }

    fn attach(&mut self, who: Person, slot: u32) {
        let session = SessionAddress { slot, generation: 1 };
        match self.call(requests::attach(SHARDS, who, session)).result {
            Some(Reply::Attached(attached)) if attached.device_known => {}
            other => panic!("not attached: {other:?}"),
        }
    }
}

#[test]
fn whoever_dies_nothing_acknowledged_is_lost_doubled_or_reordered() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let (ada, bob) = (person(1), person(2));
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let shard = conversation.slot().shard(SHARDS);
    let mut seqs = Vec::new();
    let mut client_id = 0;
    // Each node dies once, whoever leads; in between enough is sent for the log to be cut and files to be used again.
    for round in 0..3 {
        for _ in 0..40 {
            client_id += 1;
            seqs.push(applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id))).seq);
        }
        let leader = fleet.leader(shard).expect("it answered");
        fleet.kill(leader);
        for _ in 0..40 {
            client_id += 1;
            seqs.push(applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id))).seq);
        }
        assert_ne!(fleet.leader(shard), Some(leader), "round {round}");
        fleet.start_node(leader);
    }
    // The creation is the first entry.
    assert!(seqs.iter().copied().eq(2..=client_id + 1), "{seqs:?}");
    // Every repeat is answered as the first time, by whoever leads now.
    for (client_id, seq) in (1..).zip(&seqs) {
        let repeated = applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
        assert_eq!((repeated.seq, repeated.repeated_send), (*seq, true));
    }
}

#[test]
fn sessions_and_feed_follow_the_leader_of_their_home() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let (ada, bob) = (person(1), person(2));
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    let conversation = ConversationId::direct(ada.user, bob.user);
    let home = bob.user.slot().shard(SHARDS);
    fleet.attach(bob, 2);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.wait_for_push(home, &body(ada, 1));
    let leader = fleet.leader(home).expect("it answered");
    fleet.kill(leader);
    for client_id in 2..=20 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.attach(bob, 2);
    // What was sent meanwhile is in his feed, and he hears of what is sent from now on.
    let started = clock::now();
    loop {
        let page = requests::feed_page(fleet.call(requests::read_feed(SHARDS, bob, 0)));
        let row = page.rows.into_iter().find(|row| row.conversation_id == conversation.to_bytes());
        if row.as_ref().is_some_and(|row| row.top_seq == 21) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{row:?} instead of 21");
    }
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 21)));
    fleet.wait_for_push(home, &body(ada, 21));
}
