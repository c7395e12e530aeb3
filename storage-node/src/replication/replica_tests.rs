//! Three replicas over real log files, joined by a made-up network: messages are lost, doubled, late and out of order,
//! replicas are cut off and die. What must hold: no two of them ever commit different entries at one place, and what a
//! leader has seen committed stays.

mod changes;
mod coming_back;
mod hibernation;
mod promises;
mod pulse;
mod snapshots;

use super::*;
use crate::config::LogConfig;
use crate::sim::Random;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use wire_protocol::internal::{RaftEntry, RaftMessage, SnapshotPoint, raft_message};

const SHARD: ShardId = ShardId(3);
const NODES: [u32; 3] = [1, 2, 3];

fn open_log(folder: &Path) -> Arc<Log> {
    let config = LogConfig { file_bytes: 1 << 20, keep_bytes: 2 << 20, prefill: false };
    Arc::new(Log::open(folder, &config).expect("it opens"))
}

fn replicas(own: u32) -> Replicas {
    Replicas::of(own, &NODES)
}

struct Replica {
    own: u32,
    /// Its first replicas, then each other set by the entry that made it.
    sets: BTreeMap<u64, ReplicaSet>,
    folder: tempfile::TempDir,
    log: Arc<Log>,
    group: Group,
    /// Written but not synced: a death forgets them.
    writes: VecDeque<LogWrite>,
    applied: u64,
    committed: BTreeMap<u64, Bytes>,
    readable: Vec<(u64, u64)>,
    /// Made for other replicas, and not yet sent.
    snapshots: Vec<Taken>,
    /// The last one that came here.
    received: Option<Taken>,
    installed: usize,
}

/// What a leader's replica is at one moment.
#[derive(Clone)]
struct Taken {
    message: RaftMessage,
    entries: Vec<RaftEntry>,
    committed: BTreeMap<u64, Bytes>,
    set: ReplicaSet,
}

impl Replica {
    fn new(own: u32) -> Self {
        Self::with(replicas(own))
    }

    fn with(replicas: Replicas) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open_log(folder.path());
        let group = Group::open(Arc::clone(&log), SHARD, 0, &replicas).expect("it opens");
        Self {
            own: replicas.own,
            sets: BTreeMap::from([(0, replicas.set)]),
            folder,
            log,
            group,
            writes: VecDeque::new(),
            applied: 0,
            committed: BTreeMap::new(),
            readable: Vec::new(),
            snapshots: Vec::new(),
            received: None,
            installed: 0,
        }
    }

    /// It dies and starts again; `applied` of its stored state is what it had applied, or less.
    fn restart(&mut self, applied: u64) {
        let own = self.own;
        self.writes.clear();
        // A placeholder, so that the log is closed before it is opened again.
        let other = tempfile::tempdir().expect("a folder");
        let log = open_log(other.path());
        self.group = Group::open(Arc::clone(&log), SHARD, 0, &Replicas::alone(own)).expect("it opens");
        self.log = log;
        self.log = open_log(self.folder.path());
        self.applied = applied.min(self.applied).max(self.log.cut_index(SHARD));
        let replicas = Replicas { set: self.set_at(self.applied), ..replicas(own) };
        self.group = Group::open(Arc::clone(&self.log), SHARD, self.applied, &replicas).expect("it opens");
    }

    /// The replicas as of an entry, as its rows would have them.
    fn set_at(&self, index: u64) -> ReplicaSet {
        self.sets.range(..=index).next_back().map(|(_, set)| set.clone()).expect("there is a first one")
    }

    /// Takes what the group has to say and what it wants written; applies what is committed.
    fn poll(&mut self) -> Vec<RaftMessage> {
        let mut messages = Vec::new();
        while let Some(output) = self.group.poll() {
            messages.extend(output.messages);
            self.writes.extend(output.write);
            self.readable.extend(output.readable);
            for entry in output.committed {
                assert_eq!(entry.index, self.applied + 1, "committed entries come in order");
                self.applied = entry.index;
                self.sets.extend(entry.replicas.map(|set| (entry.index, set)));
                let known = self.committed.insert(entry.index, entry.record.clone());
                assert!(known.is_none_or(|known| known == entry.record), "what was committed changed");
            }
            self.group.applied(self.applied);
            if let Some(node) = output.snapshot_wanted {
                let term = self.log.term(SHARD, self.applied).expect("it reads").expect("it is there");
                self.group.offer_snapshot(node, self.applied, term, self.set_at(self.applied));
            }
            if let Some(message) = output.snapshot_message {
                self.make_snapshot(message);
            }
            if let Some(index) = output.restore {
                self.restore(index);
            }
        }
        messages
    }

    fn make_snapshot(&mut self, message: RaftMessage) {
        let index = message.snapshot.as_ref().expect("it has a point").index;
        let range = LogRange { above: index - 1, up_to: index };
        let entries = self.log.snapshot_entries(SHARD, range, usize::MAX).expect("it reads");
        if entries.is_empty() {
            // They were cut since it was offered.
            return self.group.snapshot_sent(message.to, false);
        }
        let committed = self.committed.range(..=index).map(|(index, record)| (*index, record.clone()));
        let committed = committed.collect();
        let set = self.set_at(index);
        self.snapshots.push(Taken { message, entries, committed, set });
    }

    fn restore(&mut self, index: u64) {
        assert!(self.group.poll().is_none(), "it takes no part meanwhile");
        self.sync();
        let Taken { message, entries, committed, set } = self.received.take().expect("it came with one");
        let point = message.snapshot.expect("it has a point");
        assert_eq!((point.index, point.replicas.as_deref()), (index, Some(&set)));
        self.sets = BTreeMap::from([(0, set)]);
        for (index, record) in &self.committed {
            assert_eq!(committed.get(index), Some(record), "what was committed here is in the snapshot");
        }
        self.log.begin_anew(SHARD, entries).expect("it writes");
        (self.applied, self.committed) = (index, committed);
        self.installed += 1;
        self.group.restored();
    }

    /// Everything that is applied is stored, and the log before it goes.
    fn cut(&self) {
        self.log.cut(&[(SHARD, self.applied)]).expect("it cuts");
    }

    fn sync(&mut self) {
        let writes: Vec<LogWrite> = self.writes.drain(..).collect();
        if let Some(last) = writes.last().map(LogWrite::number) {
            self.log.write(&writes).expect("it writes");
            self.group.persisted(last);
        }
    }

    fn leads(&self) -> bool {
        matches!(self.group.role(), Role::Leader { .. })
    }
}

struct Net {
    replicas: Vec<Replica>,
    messages: VecDeque<RaftMessage>,
    /// (from, to) that nothing passes.
    cut: Vec<(u32, u32)>,
}

impl Net {
    fn new() -> Self {
        Self {
            replicas: NODES.into_iter().map(Replica::new).collect(),
            messages: VecDeque::new(),
            cut: Vec::new(),
        }
    }

    /// Node 3 is cut off, and 20 entries later the others have what it has not.
    fn without_third() -> Self {
        let mut net = Self::new();
        net.ticks(12);
        net.cut_off(3);
        net.propose(0..20);
        net
    }

    /// By node 1, one after the other.
    fn propose(&mut self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.replica(1).group.propose(record(number)).expect("it leads");
            self.settle();
        }
    }

    fn replica(&mut self, node: u32) -> &mut Replica {
        &mut self.replicas[node as usize - 1]
    }

    fn cut_off(&mut self, node: u32) {
        self.cut = NODES.into_iter().flat_map(|other| [(node, other), (other, node)]).collect();
    }

    /// Everything that waits: polled, synced, delivered, until nothing is left.
    fn settle(&mut self) {
        loop {
            for replica in &mut self.replicas {
                self.messages.extend(replica.poll());
                replica.sync();
                self.messages.extend(replica.poll());
            }
            let snapshots: Vec<Taken> =
                self.replicas.iter_mut().flat_map(|replica| replica.snapshots.drain(..)).collect();
            if self.messages.is_empty() && snapshots.is_empty() {
                return;
            }
            snapshots.into_iter().for_each(|snapshot| self.bring(snapshot));
            for message in std::mem::take(&mut self.messages) {
                if !self.cut.contains(&(message.from, message.to)) {
                    self.step(message);
                }
            }
        }
    }

    /// It arrives. Of those that come and go some say what nobody asked for any more.
    fn step(&mut self, message: RaftMessage) {
        let may_err = self.replicas.len() > NODES.len();
        let taken = self.replica(message.to).group.step(message);
        assert!(may_err || taken.is_ok(), "replicas send what they should: {taken:?}");
    }

    /// A snapshot arrives, or not.
    fn bring(&mut self, snapshot: Taken) {
        let (from, to) = (snapshot.message.from, snapshot.message.to);
        let arrives = !self.cut.contains(&(from, to));
        self.replica(from).group.snapshot_sent(to, arrives);
        if arrives {
            let message = snapshot.message.clone();
            self.replica(to).received = Some(snapshot);
            self.step(message);
        }
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
            self.tell_hibernating();
            self.settle();
        }
    }

    /// What nodes say in place of the heartbeats of groups that hibernate.
    fn tell_hibernating(&mut self) {
        for from in 1..=self.replicas.len() as u32 {
            let told: Vec<u32> = self.replica(from).group.hibernates_with().collect();
            for to in told {
                let is_heard =
                    !self.cut.contains(&(from, to)) && self.replica(to).group.hear_leaders_node(from);
                if is_heard && !self.cut.contains(&(to, from)) {
                    self.replica(from).group.hear_followers_node(to);
                }
            }
        }
    }

    /// Nodes whose replicas hibernate.
    fn hibernating(&self) -> Vec<u32> {
        let hibernate = self.replicas.iter().filter(|replica| replica.group.is_hibernating());
        hibernate.map(|replica| replica.own).collect()
    }

    fn leader(&self) -> Option<u32> {
        let leaders = self.replicas.iter().filter(|replica| replica.leads());
        leaders.max_by_key(|replica| replica.group.term()).map(|replica| replica.own)
    }
}

fn record(number: u64) -> Vec<u8> {
    let mut record = vec![RECORD_VERSION];
    record.extend(number.to_be_bytes());
    record
}

#[test]
fn the_preferred_replica_leads_and_all_commit_the_same() {
    let mut net = Net::new();
    net.ticks(12);
    assert_eq!(net.leader(), Some(1));
    let term = net.replica(1).group.term();
    for node in [2, 3] {
        assert_eq!(net.replica(node).group.role(), Role::Follower { leader: Some(1) });
    }
    assert_eq!(net.replica(1).group.role(), Role::Leader { term, recovered_at: 1 });
    assert_eq!(net.replica(1).group.propose(record(7)).expect("it leads"), 2);
    net.settle();
    net.ticks(3);
    for node in NODES {
        assert_eq!(net.replica(node).committed[&2], record(7), "node {node}");
    }
    assert_eq!(net.replica(1).group.matched(KeptFor::All), 2);
}

#[test]
fn who_could_lead_is_who_is_heard_and_has_the_log() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    net.settle();
    assert!(net.replica(1).group.could_lead(2) && net.replica(1).group.could_lead(3));
    assert!(!net.replica(1).group.could_lead(1) && !net.replica(1).group.could_lead(4));
    assert_eq!(net.replica(1).group.successor(&[]), Some(2));
    assert_eq!(net.replica(1).group.successor(&[2]), Some(3));
    assert_eq!(net.replica(1).group.successor(&[2, 3]), None);
    assert_eq!(net.replica(2).group.successor(&[]), None, "it does not lead");
    net.cut = vec![(2, 1), (1, 2)];
    net.replica(1).group.propose(record(8)).expect("it leads");
    net.settle();
    assert_eq!(net.replica(1).group.successor(&[]), Some(3), "it has more of the log");
    net.ticks(6);
    assert!(!net.replica(1).group.could_lead(2), "it was not heard of for half a second");
    net.cut.clear();
    net.ticks(3);
    net.replica(1).group.transfer_to(2);
    net.settle();
    assert_eq!(net.leader(), Some(2));
    assert!(net.replica(2).group.could_lead(1), "it has answered the new leader");
}

#[test]
fn a_leader_whose_disk_is_slow_knows_it_and_no_other_does() {
    let mut net = Net::new();
    net.ticks(12);
    // The others write, the leader does not.
    let tick = |net: &mut Net| {
        for _ in 0..3 {
            for node in NODES {
                let messages = net.replica(node).poll();
                net.messages.extend(messages);
                if node != 1 {
                    net.replica(node).sync();
                    let messages = net.replica(node).poll();
                    net.messages.extend(messages);
                }
            }
            for message in std::mem::take(&mut net.messages) {
                net.replica(message.to).group.step(message).expect("replicas send what they should");
            }
        }
        net.replicas.iter_mut().for_each(|replica| replica.group.pass(1));
    };
    net.replica(1).group.propose(record(7)).expect("it leads");
    // The first tick sees it. A pause is no slow disk; ten ticks more make a second.
    tick(&mut net);
    net.replica(1).group.pass(10);
    for ticks in 0..10 {
        assert!(!net.replica(1).group.is_outrun(), "after {ticks} ticks");
        tick(&mut net);
    }
    assert!(net.replica(1).group.is_outrun());
    assert!(!net.replica(2).group.is_outrun());
    net.settle();
    net.ticks(1);
    assert!(!net.replica(1).group.is_outrun(), "it has written");
}

#[test]
fn nothing_is_committed_or_promised_before_a_quorum_has_it_on_disk() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    // The leader sends before it has written: followers write meanwhile.
    let appends = net.replica(1).poll();
    assert_eq!(appends.len(), 2, "{appends:?}");
    for append in appends {
        let to = append.to;
        net.replica(to).group.step(append).expect("well formed");
        assert_eq!(net.replica(to).poll(), [], "node {to} has written nothing");
    }
    // The leader alone is no quorum.
    net.replica(1).sync();
    assert_eq!(net.replica(1).poll(), []);
    assert!(!net.replica(1).committed.contains_key(&2));
    net.replica(2).sync();
    let answers = net.replica(2).poll();
    assert_eq!(answers.len(), 1);
    for answer in answers {
        net.replica(1).group.step(answer).expect("well formed");
    }
    net.replica(1).poll();
    assert_eq!(net.replica(1).committed[&2], record(7), "two of three have it");
}

#[test]
fn a_repeated_message_promises_nothing_that_is_not_on_disk() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    let append = net.replica(1).poll().into_iter().find(|message| message.to == 2).expect("an append");
    for _ in 0..2 {
        net.replica(2).group.step(append.clone()).expect("well formed");
        assert_eq!(net.replica(2).poll(), [], "the second one finds the entry in memory, and not on disk");
    }
    net.replica(2).sync();
    assert!(!net.replica(2).poll().is_empty());
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_its_entries_give_way() {
    let mut net = Net::new();
    net.ticks(12);
    net.cut_off(1);
    // Nobody hears of this one.
    net.replica(1).group.propose(record(100)).expect("it does not know yet");
    net.replica(1).group.read_barrier(5);
    net.ticks(25);
    assert_eq!(net.leader(), Some(2), "the next in line");
    assert_eq!(net.replica(1).group.role(), Role::Follower { leader: None }, "it heard of no quorum");
    assert_eq!(net.replica(1).readable, [], "it does not know whether it led");
    net.replica(2).group.propose(record(200)).expect("it leads");
    net.settle();
    assert_eq!(net.replica(2).committed[&3], record(200));
    net.cut.clear();
    net.ticks(5);
    for node in NODES {
        assert_eq!(net.replica(node).committed[&3], record(200), "node {node}");
    }
    assert_eq!(net.leader(), Some(2), "one that comes back does not disturb");
    // What the files hold is what was agreed on.
    let folder = net.replicas.remove(0).folder;
    net.replicas.clear();
    let log = open_log(folder.path());
    let entries = log.read(SHARD, LogRange { above: 0, up_to: 3 }, usize::MAX).expect("it reads");
    assert_eq!(entries.last().expect("three").record, record(200));
}

/// Nobody waits for the turn of the one that is lost, and the first to stand does so when the other one's promise is over.
#[test]
fn a_lost_leader_is_replaced_at_the_first_attempt_whenever_the_others_tick() {
    for (first, second) in [(2, 3), (3, 2)] {
        let mut net = Net::new();
        net.ticks(12);
        assert_eq!(net.leader(), Some(1), "the preferred one");
        // Both hear it at the same moment, before their next ticks.
        net.replica(1).group.read_barrier(1);
        net.settle();
        net.cut_off(1);
        // The first of these ticks begins what is counted.
        for _ in 0..ELECTION_TICKS + 2 {
            for node in [first, second] {
                net.replica(node).group.pass(1);
                net.settle();
            }
        }
        assert_eq!([2, 3].map(|node| net.replica(node).leads()), [true, false], "node {first} ticks first");
    }
}

#[test]
fn a_leader_learns_whether_it_may_read() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    net.settle();
    net.replica(1).group.read_barrier(9);
    assert_eq!(net.replica(1).readable, []);
    net.settle();
    assert_eq!(net.replica(1).readable, [(9, 2)]);
}

#[test]
fn leadership_is_handed_over_when_asked() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    assert!(net.replica(1).group.can_propose());
    net.replica(1).group.transfer_to(3);
    assert!(!net.replica(1).group.can_propose(), "what is proposed now would be dropped");
    net.settle();
    assert_eq!(net.leader(), Some(3));
    assert!(net.replica(3).committed.contains_key(&2), "with everything");
}

#[test]
fn messages_for_others_and_of_no_replica_are_refused() {
    let mut net = Net::new();
    net.ticks(12);
    net.replica(1).group.propose(record(7)).expect("it leads");
    let append = net.replica(1).poll().remove(0);
    let wrong = if append.to == 2 { 3 } else { 2 };
    assert!(net.replica(wrong).group.step(append.clone()).is_err());
    assert!(net.replica(append.to).group.step(RaftMessage { kind: 2, ..append.clone() }).is_err());
    let point = SnapshotPoint { index: 9, term: 1, voters: vec![1, 4, 5], ..SnapshotPoint::default() };
    let kind = raft_message::Kind::Snapshot as i32;
    let snapshot = RaftMessage { kind, snapshot: Some(point), entries: Vec::new(), ..append.clone() };
    assert!(net.replica(append.to).group.step(snapshot).is_err());
}

/// Each would make the consensus library panic, or an election end in an assertion.
#[test]
fn messages_that_contradict_the_log_are_refused() {
    use raft_message::Kind;
    let mut net = Net::new();
    net.ticks(12);
    let term = net.replica(1).group.term();
    let message = |kind: Kind, from, to| RaftMessage {
        shard: SHARD.0,
        kind: kind as i32,
        from,
        to,
        term,
        ..RaftMessage::default()
    };
    let refused = [
        // Node 2 would have lost its disk.
        RaftMessage { commit: 99, ..message(Kind::Heartbeat, 1, 2) },
        RaftMessage { index: 99, ..message(Kind::AppendResponse, 2, 1) },
        RaftMessage { reject: true, reject_hint: u64::MAX, ..message(Kind::AppendResponse, 2, 1) },
        // It came too late: node 2 leads no more.
        message(Kind::TransferLeader, 3, 2),
        message(Kind::Heartbeat, 4, 2),
        message(Kind::Heartbeat, 2, 2),
        RaftMessage { term: 1 << 24, ..message(Kind::TimeoutNow, 1, 2) },
    ];
    for message in refused {
        let error = net.replica(message.to).group.step(message.clone()).expect_err("refused");
        assert!(error.to_string().starts_with("shard 3: a Raft message of "), "{message:?}: {error}");
    }
    net.ticks(3);
    assert_eq!(net.leader(), Some(1), "nothing has happened");
    let log_end = RaftMessage { commit: 1, ..message(Kind::Heartbeat, 1, 2) };
    net.replica(2).group.step(log_end).expect("it has this entry");
}

/// One seed: many steps of a bad network, then all is well for a while.
fn storm(seed: u64) -> (usize, usize, usize) {
    let mut random = Random::new(seed);
    let mut net = Net::new();
    // By index: what a leader saw committed.
    let mut agreed: BTreeMap<u64, Bytes> = BTreeMap::new();
    let (mut number, mut restarts) = (0, 0);
    for _ in 0..1_500 {
        match random.below(80) {
            0 => net.cut_off(NODES[random.below(3)]),
            1 => net.cut = vec![(NODES[random.below(3)], NODES[random.below(3)])],
            2..=5 => net.cut.clear(),
            // Rarely enough that promises end between two restarts.
            6 => {
                let node = NODES[random.below(3)];
                let applied = net.replica(node).applied.saturating_sub(random.below(3) as u64);
                net.replica(node).restart(applied);
                restarts += 1;
            }
            7..=20 => {
                let node = NODES[random.below(3)];
                let replica = net.replica(node);
                if replica.leads() {
                    number += 1;
                    replica.group.propose(record(number)).expect("it leads");
                }
            }
            21..=32 => net.replicas.iter_mut().for_each(|replica| replica.group.pass(1)),
            33..=43 => net.replica(NODES[random.below(3)]).sync(),
            44 => net.replicas.iter().for_each(Replica::cut),
            _ => deliver_one(&mut net, &mut random),
        }
        turn_and_agree(&mut net, &mut agreed, seed);
    }
    calm(&mut net, &mut agreed, seed, 60);
    (agreed.len(), restarts, net.replicas.iter().map(|replica| replica.installed).sum())
}

/// What replicas have to say goes out, and nothing that was agreed on changes.
fn turn_and_agree(net: &mut Net, agreed: &mut BTreeMap<u64, Bytes>, seed: u64) {
    for replica in &mut net.replicas {
        net.messages.extend(replica.poll());
    }
    let snapshots: Vec<Taken> =
        net.replicas.iter_mut().flat_map(|replica| replica.snapshots.drain(..)).collect();
    snapshots.into_iter().for_each(|snapshot| net.bring(snapshot));
    agree(net, agreed, seed);
    net.messages.truncate(400);
}

/// All is well from now on: everybody arrives at what was agreed on.
fn calm(net: &mut Net, agreed: &mut BTreeMap<u64, Bytes>, seed: u64, ticks: usize) {
    net.cut.clear();
    net.settle();
    net.ticks(ticks);
    agree(net, agreed, seed);
    let last = agreed.keys().max().copied().unwrap_or(0);
    for (replica, node) in net.replicas.iter().zip(NODES) {
        assert_eq!(replica.applied, last, "seed {seed}: node {node} did not catch up");
    }
}

fn deliver_one(net: &mut Net, random: &mut Random) {
    if net.messages.is_empty() {
        return;
    }
    let place = random.below(net.messages.len().min(8));
    let Some(message) = net.messages.remove(place) else { return };
    if net.cut.contains(&(message.from, message.to)) || random.below(20) == 0 {
        return;
    }
    if random.below(20) == 0 {
        net.messages.push_back(message.clone());
    }
    net.step(message);
}

fn agree(net: &Net, agreed: &mut BTreeMap<u64, Bytes>, seed: u64) {
    for replica in &net.replicas {
        for (index, record) in &replica.committed {
            let known = agreed.entry(*index).or_insert_with(|| record.clone());
            assert_eq!(known, record, "seed {seed}: two entries are committed at {index}");
        }
    }
}

#[test]
fn replicas_agree_whatever_the_network_does() {
    let (mut entries, mut restarts, mut snapshots) = (0, 0, 0);
    for seed in 0..24 {
        let (agreed, died, installed) = storm(seed);
        entries += agreed;
        restarts += died;
        snapshots += installed;
    }
    assert!(
        entries > 500 && restarts > 300 && snapshots > 20,
        "{entries} entries, {restarts} restarts, {snapshots} snapshots"
    );
}
