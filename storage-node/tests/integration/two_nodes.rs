//! Two processes with half of the shards each, over mutual TLS.

use crate::certificates;
use crate::process::{Link, PATIENCE, Process, Setup, free_address};
use crate::requests::{self, Call, Person, applied, body, person};
use std::io;
use std::path::Path;
use std::time::Duration;
use storage_node::{LinkTls, NodeConfig, clock};
use wire_protocol::ids::{ConversationId, ShardId};
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{SessionAddress, ShardResponse, delivery};

const SHARDS: u32 = 8;

struct Fleet<'a> {
    folder: &'a Path,
    tls: LinkTls,
    nodes: Vec<NodeConfig>,
    processes: Vec<Option<Process>>,
    links: Vec<Option<Link>>,
}

impl<'a> Fleet<'a> {
    /// The second node has two cores, so that its feed crosses cores, too.
    fn start(folder: &'a Path) -> Self {
        let nodes = (1..=2)
            .map(|id| NodeConfig {
                id,
                address: free_address(),
                shards: (0..SHARDS).filter(|shard| shard % 2 + 1 == id).collect(),
                zone: String::new(),
            })
            .collect();
        let tls = certificates::make(folder);
        let mut fleet = Self { folder, tls, nodes, processes: vec![None, None], links: vec![None, None] };
        (0..2).for_each(|place| fleet.start_node(place));
        fleet
    }

    fn start_node(&mut self, place: usize) {
        let node = &self.nodes[place];
        let folder = self.folder.join(format!("{}", node.id));
        std::fs::create_dir_all(&folder).expect("it is made");
        let process = Process::start(&Setup {
            folder: &folder,
            node_id: node.id,
            shards: SHARDS,
            cores: place + 1,
            nodes: &self.nodes,
            tls: &self.tls,
            listen: node.address,
        });
        self.links[place] = Some(Link::open(process.address, &self.tls).expect("it is ready"));
        self.processes[place] = Some(process);
    }

    fn place_of(shard: ShardId) -> usize {
        (shard.0 % 2) as usize
    }

    fn link(&mut self, place: usize) -> &mut Link {
        self.links[place].as_mut().expect("the node runs")
    }

    fn call(&mut self, call: Call) -> ShardResponse {
        self.link(Self::place_of(call.shard)).call(call).expect("the node lives")
    }

    /// Bodies pushed over the link of one node since the last call.
    fn pushed(&mut self, place: usize) -> Vec<bytes::Bytes> {
        let deliveries = self.link(place).deliveries.drain(..);
        let bodies = deliveries.filter_map(|pushed| match pushed.event {
            Some(delivery::Event::Entry(entry)) => Some(entry.body),
            _ => None,
        });
        bodies.collect()
    }

    fn wait_for_push(&mut self, place: usize, body: &bytes::Bytes) {
        let started = clock::now();
        while !self.pushed(place).contains(body) {
            assert!(started.elapsed() < PATIENCE, "{body:?} was not pushed");
            self.link(place).pump(Duration::from_millis(100)).expect("the node lives");
        }
    }

    fn wait_for_feed(&mut self, who: Person, conversation: ConversationId, top_seq: u64) {
        let started = clock::now();
        loop {
            let page = requests::feed_page(self.call(requests::read_feed(SHARDS, who, 0)));
            let row = page.rows.into_iter().find(|row| row.conversation_id == conversation.to_bytes());
            if row.as_ref().is_some_and(|row| row.top_seq == top_seq) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{row:?} instead of {top_seq}");
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

/// Two people whose homes are on different nodes, and whose conversation is on the first node.
fn strangers() -> (Person, Person, ConversationId) {
    let home = |person: Person| Fleet::place_of(person.user.slot().shard(SHARDS));
    for number in 0.. {
        let (a, b) = (person(number), person(number + 1_000));
        let conversation = ConversationId::direct(a.user, b.user);
        let place = Fleet::place_of(conversation.slot().shard(SHARDS));
        if (home(a), home(b), place) == (0, 1, 0) {
            return (a, b, conversation);
        }
    }
    unreachable!("one of a few pairs fits")
}

#[test]
fn feed_crosses_nodes_and_a_restart_of_either_is_made_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut fleet = Fleet::start(folder.path());
    let (ada, bob, conversation) = strangers();
    for person in [ada, bob] {
        fleet.call(requests::create_user(SHARDS, person));
    }
    fleet.call(requests::create_direct(SHARDS, ada, bob));
    fleet.attach(ada, 1);
    fleet.attach(bob, 2);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 1)));
    fleet.wait_for_push(1, &body(ada, 1));
    applied(&fleet.call(requests::send(SHARDS, bob, conversation, 1)));
    fleet.wait_for_push(0, &body(bob, 1));

    // Bob's home dies; what is sent meanwhile is in his feed afterwards, and he gets pushes again.
    fleet.processes[1].take().expect("it runs").kill();
    for client_id in 2..=40 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.start_node(1);
    fleet.attach(bob, 2);
    fleet.wait_for_feed(bob, conversation, 42);
    applied(&fleet.call(requests::send(SHARDS, ada, conversation, 41)));
    fleet.wait_for_push(1, &body(ada, 41));

    // The conversation's node dies right after its answers; what it had not handed on yet arrives all the same.
    for client_id in 42..=80 {
        applied(&fleet.call(requests::send(SHARDS, ada, conversation, client_id)));
    }
    fleet.processes[0].take().expect("it runs").kill();
    fleet.start_node(0);
    fleet.wait_for_feed(bob, conversation, 82);
    fleet.wait_for_feed(ada, conversation, 82);
    fleet.processes.iter_mut().for_each(|process| process.take().expect("it runs").terminate());
}

#[test]
fn a_peer_without_a_certificate_of_the_fleet_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let strange = tempfile::tempdir().expect("a folder");
    let of_another_fleet = certificates::make(strange.path());
    let listen = ([127, 0, 0, 1], 0).into();
    let setup =
        Setup { folder: folder.path(), node_id: 1, shards: SHARDS, cores: 1, nodes: &[], tls: &tls, listen };
    let process = Process::start(&setup);
    let untrusted_server = Link::open(process.address, &of_another_fleet).err().expect("refused");
    assert!(untrusted_server.to_string().contains("certificate"), "{untrusted_server}");
    // Trusts the node, but shows a certificate that the node does not trust.
    let half = LinkTls { ca: tls.ca.clone(), ..of_another_fleet };
    let refused: io::Error = Link::open(process.address, &half).err().expect("refused");
    assert!(refused.to_string().to_lowercase().contains("alert"), "{refused}");
    // Trusts the node, and shows no certificate at all.
    let refused = Link::open_without_certificate(process.address, &tls).err().expect("refused");
    assert!(refused.to_string().to_lowercase().contains("alert"), "{refused}");
    Link::open(process.address, &tls).expect("the fleet's own is served");
    process.terminate();
}
