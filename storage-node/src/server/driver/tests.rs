//! What one turn costs, counted: an entry for each group that has something to do, one synced write of the log for all of
//! them, and one frame to each other node. Three whole nodes of one core each, on disks in memory, with the links of the
//! driver between them. And which links are cut off.

use super::{CUT_OFF_AGE_MIN, Connection, cut_off_late, queue_for_peer};
use crate::clock;
use crate::config::{Beginning, LogConfig, NodeConfig, StorageConfig};
use crate::replication::{TICK_MS, decode_record};
use crate::sim::{SimDisk, SimNode, SimStore, real_folder};
use crate::worker::{LinkId, LinkOutput, LinkPeer, PeerMessage};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{
    Command, LinkHello, LinkRequestFrame, LinkResponseFrame, LinkWelcome, RaftEntry, SendMessage,
    ShardRequest, ShardResponse, command, link_hello,
};
use wire_protocol::limits::LINK_VERSION;
use wire_protocol::link::CallerLink;

const NODES: [u32; 3] = [1, 2, 3];
/// So many that each node is to lead eight of them.
const SHARDS: u32 = 24;
/// For each shard that is asked, in one turn.
const COMMANDS: usize = 5;
/// Preferred replicas are elected at the tenth tick.
const TICKS_TO_LEAD: usize = 20;
const ADA: UserId = UserId([1; 16]);

/// A node, and what a driver has beside it.
struct Machine {
    node: SimNode,
    disk: Arc<SimDisk>,
    /// To the other nodes.
    links: BTreeMap<u32, CallerLink>,
    /// Over which commands come.
    gateway: LinkId,
    answers: Vec<ShardResponse>,
    _folder: TempDir,
}

/// What was counted since the start: by the node, and by its disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    entries: u64,
    commands: u64,
    log_syncs: u64,
    disk_syncs: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            entries: self.entries - before.entries,
            commands: self.commands - before.commands,
            log_syncs: self.log_syncs - before.log_syncs,
            disk_syncs: self.disk_syncs - before.disk_syncs,
        }
    }
}

/// A link to this node that is open.
fn open_link(node_id: u32) -> CallerLink {
    let mut link = CallerLink::new(LinkHello::default(), 0);
    link.poll_frame(0).expect("hello");
    let welcome = LinkWelcome {
        version: LINK_VERSION,
        node_id,
        epoch: 1,
        credits: 1,
        shard_count: SHARDS,
        ..LinkWelcome::default()
    };
    let frame = LinkResponseFrame { welcome: Some(welcome), ..LinkResponseFrame::default() };
    link.handle_frame(0, frame, &mut |_| ()).expect("it is open");
    link
}

/// A command for this shard. It goes the whole way, and its outcome says that there is no such conversation: so nothing is
/// told to home shards.
fn command_for(shard: u32, client_message_id: u64) -> Command {
    let mut ids = (0..).map(|number| ConversationId::group(ADA, number));
    let is_there = |id: &ConversationId| id.slot().shard(SHARDS) == ShardId(shard);
    let conversation = ids.find(is_there).expect("ids are all over the shards");
    let send = SendMessage {
        conversation_id: conversation.to_bytes(),
        user_id: ADA.to_bytes(),
        device_id: DeviceId([3; 16]).to_bytes(),
        client_message_id,
        body: Bytes::from_static(b"hello"),
        ..SendMessage::default()
    };
    Command { kind: Some(command::Kind::SendMessage(send)) }
}

/// For each message of a replica in a frame its shard, and how many commands are in each of its entries.
fn packed(frame: &LinkRequestFrame) -> Vec<(u32, Vec<usize>)> {
    let commands = |entry: &RaftEntry| {
        decode_record(&entry.record).expect("a leader's record").map_or(0, |batch| batch.commands.len())
    };
    let messages = frame.raft.iter();
    messages.map(|message| (message.shard, message.entries.iter().map(commands).collect())).collect()
}

impl Machine {
    fn start(node_id: u32) -> Self {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let address: SocketAddr = ([127, 0, 0, 1], 7_000).into();
        let configured = |id| NodeConfig { id, address, shards: Vec::new(), zone: String::new() };
        let config = StorageConfig {
            data_dir: folder.path().join("data"),
            node_id,
            shard_count: SHARDS,
            nodes: NODES.map(configured).to_vec(),
            replicas: 3,
            beginning: Beginning::NewFleet,
            // There is no second file, whose beginning would be synced, too.
            log: LogConfig { file_bytes: 4 << 20, keep_bytes: 8 << 20, prefill: false },
            ..StorageConfig::default()
        };
        let mut node = SimNode::start(&config, 1, &disk, &SimStore::new(&disk)).expect("it starts");
        let peer = LinkPeer { role: link_hello::Role::Gateway, peer_id: 1, incarnation: 1, core: 0 };
        let gateway = node.core(0).open_link(peer);
        let others = NODES.into_iter().filter(|other| *other != node_id);
        let links = others.map(|other| (other, open_link(other))).collect();
        Self { node, disk, links, gateway, answers: Vec::new(), _folder: folder }
    }

    /// Shards that it leads, ascending.
    fn led(&mut self) -> Vec<u32> {
        let leads = |shard: &u32| self.node.standing(*shard).is_some_and(|standing| standing.leads);
        (0..SHARDS).filter(leads).collect()
    }

    /// Commands for all these shards, one after the other.
    fn ask(&mut self, shards: &[u32]) {
        for number in 1..=COMMANDS as u64 {
            for shard in shards {
                let operation = Some(Operation::Command(command_for(*shard, number)));
                let id = number * u64::from(SHARDS) + u64::from(*shard);
                self.node.core(0).receive(self.gateway, ShardRequest { id, shard: *shard, operation });
            }
        }
    }

    /// What the driver does between two looks at its sockets.
    fn turn(&mut self, now_ms: u64) {
        let core = self.node.core(0);
        core.turn(now_ms);
        while let Some(output) = core.poll_output() {
            if let LinkOutput::Response(_, response) = output {
                self.answers.push(response);
            }
        }
        while let Some(output) = core.poll_peer_output() {
            let link = self.links.get_mut(&output.node).expect("there is a link to each");
            queue_for_peer(link, output);
        }
    }

    /// All frames that wait, each with the node that it goes to.
    fn frames(&mut self, now_ms: u64) -> Vec<(u32, LinkRequestFrame)> {
        let mut frames = Vec::new();
        for (to, link) in &mut self.links {
            while let Some(frame) = link.poll_frame(now_ms) {
                frames.push((*to, frame));
            }
        }
        frames
    }

    /// What came from another node.
    fn take(&mut self, now_ms: u64, frame: LinkRequestFrame) {
        let LinkRequestFrame { raft, hibernating, feed, feed_acks, .. } = frame;
        let messages = raft.into_iter().map(PeerMessage::Raft);
        let messages = messages.chain(hibernating.into_iter().map(PeerMessage::Hibernating));
        let messages = messages.chain(feed.into_iter().map(PeerMessage::Batch));
        let messages = messages.chain(feed_acks.into_iter().map(PeerMessage::Ack));
        messages.for_each(|message| self.node.core(0).receive_from_peer(now_ms, message));
    }

    /// One round of the log thread, which leaves nothing for another one.
    fn write_once(&mut self) {
        assert_eq!(
            self.node.log_requests(),
            1,
            "all that is to be written, and no thread can take a part of it"
        );
        self.node.write_log().expect("the disk is well");
        assert!(!self.node.has_writes(), "all of it went in one write");
    }

    /// All that waits for its threads. False: nothing did.
    fn work(&mut self) -> bool {
        let mut has_worked = false;
        while self.node.has_writes() {
            self.node.write_log().expect("the disk is well");
            has_worked = true;
        }
        while self.node.has_entries(0) {
            self.node.apply(0).expect("the disk is well");
            has_worked = true;
        }
        while self.node.has_reads() {
            self.node.read().expect("the disk is well");
            has_worked = true;
        }
        has_worked
    }

    fn counts(&mut self) -> Counts {
        let core = Arc::clone(self.node.core(0).metrics());
        let steps = self.disk.last_steps(usize::MAX);
        let disk_syncs = steps.lines().filter(|step| step.ends_with("sync LogWrite")).count();
        Counts {
            entries: core.entries.value(),
            commands: core.commands.value(),
            log_syncs: self.node.log_syncs(),
            disk_syncs: disk_syncs as u64,
        }
    }
}

struct World {
    machines: Vec<Machine>,
    now_ms: u64,
}

impl World {
    /// Each node leads a third of all shards, and serves.
    fn new() -> Self {
        let machines = NODES.into_iter().map(Machine::start).collect();
        let mut world = Self { machines, now_ms: 1_000_000 };
        for _ in 0..TICKS_TO_LEAD {
            world.now_ms += TICK_MS;
            world.settle();
        }
        world
    }

    fn machine(&mut self, node: u32) -> &mut Machine {
        &mut self.machines[node as usize - 1]
    }

    /// Frames arrive.
    fn bring(&mut self, frames: Vec<(u32, LinkRequestFrame)>) {
        let now_ms = self.now_ms;
        frames.into_iter().for_each(|(to, frame)| self.machine(to).take(now_ms, frame));
    }

    /// Everybody works until there is nothing left to do at this time. What a turn learns may concern the next one.
    fn settle(&mut self) {
        let mut quiet_rounds = 0;
        while quiet_rounds < 2 {
            quiet_rounds = if self.round() { 0 } else { quiet_rounds + 1 };
        }
    }

    /// False: nothing happened.
    fn round(&mut self) -> bool {
        let now_ms = self.now_ms;
        let (mut has_worked, mut frames) = (false, Vec::new());
        for machine in &mut self.machines {
            machine.turn(now_ms);
            has_worked |= machine.work();
            frames.extend(machine.frames(now_ms));
        }
        has_worked |= !frames.is_empty();
        self.bring(frames);
        has_worked
    }
}

#[test]
fn a_turn_of_many_groups_costs_one_entry_each_one_synced_write_and_one_frame_to_each_node() {
    let mut world = World::new();
    let now_ms = world.now_ms;
    let before: Vec<Counts> = world.machines.iter_mut().map(Machine::counts).collect();
    let leader = world.machine(1);
    let led = leader.led();
    assert_eq!(led.len(), 8, "{led:?}");
    leader.ask(&led);
    leader.turn(now_ms);
    let frames = leader.frames(now_ms);
    let one_entry_each: Vec<(u32, Vec<usize>)> = led.iter().map(|shard| (*shard, vec![COMMANDS])).collect();
    let said: Vec<_> = frames.iter().map(|(to, frame)| (*to, packed(frame))).collect();
    assert_eq!(said, [(2, one_entry_each.clone()), (3, one_entry_each)], "one frame to each");
    leader.write_once();
    let asked = (led.len() * COMMANDS) as u64;
    let of_leader = Counts { entries: led.len() as u64, commands: asked, log_syncs: 1, disk_syncs: 1 };
    assert_eq!(leader.counts().since(before[0]), of_leader);

    // The others write what came for all groups at once, too, and say so in one frame.
    world.bring(frames);
    let of_follower = Counts { entries: 0, commands: 0, log_syncs: 1, disk_syncs: 1 };
    let mut answers = Vec::new();
    for node in [2, 3] {
        let follower = world.machine(node);
        follower.turn(now_ms);
        assert_eq!(follower.frames(now_ms), [], "node {node} says nothing before it is on its disk");
        follower.write_once();
        follower.turn(now_ms);
        let frames = follower.frames(now_ms);
        let [(1, frame)] = &frames[..] else { panic!("node {node}: {frames:?}") };
        let said: Vec<(u32, Kind)> = frame.raft.iter().map(|said| (said.shard, said.kind())).collect();
        assert_eq!(said, led.iter().map(|shard| (*shard, Kind::AppendResponse)).collect::<Vec<_>>());
        answers.extend(frames);
    }

    // What follows, to the last answer and the news of what is committed, needs no further write.
    world.bring(answers);
    world.settle();
    let answered: BTreeSet<u64> = world.machine(1).answers.iter().map(|answer| answer.id).collect();
    assert_eq!((answered.len() as u64, world.machine(1).answers.len() as u64), (asked, asked));
    let is_outcome = |answer: &ShardResponse| matches!(answer.result, Some(Reply::Outcome(_)));
    assert!(world.machine(1).answers.iter().all(is_outcome), "none was refused");
    let expected = [of_leader, of_follower, of_follower];
    for ((machine, before), expected) in world.machines.iter_mut().zip(before).zip(expected) {
        assert_eq!(machine.counts().since(before), expected);
    }
}

#[test]
fn a_link_that_is_too_slow_is_cut_off_once_it_may_hold_old_words() {
    let before = clock::now();
    let link = Connection::of_test(None);
    let after = clock::now();
    cut_off_late(2, &link, before + CUT_OFF_AGE_MIN - Duration::from_millis(1));
    assert!(!link.is_closed(), "it was made anew just now");
    cut_off_late(2, &link, after + CUT_OFF_AGE_MIN);
    assert!(link.is_closed());
}
