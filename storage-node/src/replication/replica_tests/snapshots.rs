//! Replicas that the log does not reach any more.

use super::*;

#[test]
fn a_replica_that_the_log_does_not_reach_takes_a_snapshot_and_can_lead() {
    let mut net = Net::without_third();
    net.replica(1).cut();
    assert_eq!(net.replica(1).log.cut_index(SHARD), 21);
    assert_eq!(net.replica(1).group.matched(KeptFor::All), 1, "the one that is away has the first entry");
    assert_eq!(net.replica(1).group.matched(KeptFor::Heard), 1, "it was heard of lately");
    net.ticks(120);
    assert_eq!(net.replica(1).group.matched(KeptFor::Heard), 21, "now it was not");
    assert_eq!(net.replica(1).group.matched(KeptFor::Own), u64::MAX);
    net.cut.clear();
    net.ticks(10);
    assert_eq!((net.replica(3).installed, net.replica(3).applied), (1, 21));
    // What it was given is in its files, and it goes on from there.
    net.replica(3).restart(21);
    net.replica(1).group.propose(record(100)).expect("it leads");
    net.settle();
    assert_eq!(net.replica(3).committed[&22], record(100));
    net.replica(1).group.transfer_to(3);
    net.settle();
    assert_eq!(net.leader(), Some(3));
    net.replica(3).group.propose(record(200)).expect("it leads");
    net.settle();
    for node in NODES {
        assert_eq!(
            net.replica(node).committed.values().next_back(),
            Some(&record(200).into()),
            "node {node}"
        );
    }
}

#[test]
fn what_was_offered_before_an_election_is_not_sent_after_it() {
    let mut net = Net::without_third();
    net.replicas.iter().for_each(Replica::cut);
    // It was made for the one that is away, which then was not asked for.
    let term = net.replica(1).group.term();
    assert!(net.replica(1).group.offer_snapshot(3, 21, term, first_replicas(&NODES)));
    net.cut_off(1);
    net.cut.push((2, 3));
    net.cut.push((3, 2));
    net.ticks(25);
    assert!(!net.replica(1).leads());
    net.cut.retain(|(from, to)| (*from, *to) == (2, 3) || (*from, *to) == (3, 2));
    net.cut.extend([(1, 3), (3, 1)]);
    net.ticks(25);
    net.replica(2).group.transfer_to(1);
    net.settle();
    assert_eq!(net.leader(), Some(1), "it leads again");
    net.replica(1).group.propose(record(100)).expect("it leads");
    net.settle();
    net.replicas.iter().for_each(Replica::cut);
    net.cut.clear();
    net.ticks(20);
    let applied = net.replica(1).applied;
    assert_eq!((net.replica(3).installed, net.replica(3).applied), (1, applied), "one of this term");
}

#[test]
fn a_replica_promises_nothing_of_a_snapshot_before_it_is_installed() {
    let mut net = Net::without_third();
    net.replica(1).cut();
    net.cut.clear();
    let snapshot = (0..20).find_map(|_| {
        net.replica(1).group.pass(1);
        let messages = net.replica(1).poll();
        messages.into_iter().filter(|message| message.to == 3).for_each(|message| {
            net.replica(3).group.step(message).expect("a leader's");
        });
        net.replica(3).sync();
        let answers = net.replica(3).poll();
        answers.into_iter().for_each(|answer| net.replica(1).group.step(answer).expect("well formed"));
        net.replica(1).poll();
        net.replica(1).snapshots.pop()
    });
    let Taken { message, entries, .. } = snapshot.expect("the log does not reach it");
    let replica = net.replica(3);
    replica.group.step(message).expect("a leader's");
    let output = replica.group.poll().expect("it has to be installed");
    assert_eq!(
        (output.restore, output.messages),
        (Some(21), Vec::new()),
        "log and rows are still the old ones"
    );
    replica.writes.extend(output.write);
    replica.sync();
    assert!(replica.group.poll().is_none(), "nor does it say anything when what came with it is written");
    replica.log.begin_anew(SHARD, entries).expect("it writes");
    replica.group.restored();
    let answer = replica.group.poll().expect("now it does").messages.remove(0);
    assert_eq!((answer.kind(), answer.index), (raft_message::Kind::AppendResponse, 21));
}

#[test]
fn a_snapshot_of_what_is_there_changes_nothing() {
    let mut net = Net::new();
    net.ticks(12);
    for number in 0..5 {
        net.replica(1).group.propose(record(number)).expect("it leads");
    }
    net.settle();
    let term = net.replica(1).group.term();
    let point = SnapshotPoint { index: 3, term, voters: NODES.to_vec(), ..SnapshotPoint::default() };
    let message = RaftMessage {
        shard: SHARD.0,
        kind: raft_message::Kind::Snapshot as i32,
        from: 1,
        to: 2,
        term,
        snapshot: Some(point),
        ..RaftMessage::default()
    };
    net.replica(2).group.step(message).expect("a leader's");
    net.settle();
    assert_eq!((net.replica(2).installed, net.replica(2).applied), (0, 6));
}

#[test]
fn entries_behind_a_snapshot_wait_until_it_is_installed() {
    let mut net = Net::without_third();
    net.replica(1).cut();
    net.cut.clear();
    // The leader hears of the replica, and makes a snapshot for it.
    let (mut snapshot, mut messages) = (None, VecDeque::new());
    for _ in 0..10 {
        net.replica(1).group.pass(1);
        let said = net.replica(1).poll();
        messages.extend(said.into_iter().filter(|message| message.to == 3));
        while let Some(message) = messages.pop_front() {
            net.step(message);
            net.replica(3).sync();
            let answers = net.replica(3).poll();
            answers.into_iter().filter(|answer| answer.to == 1).for_each(|answer| net.step(answer));
            net.replica(3).sync();
        }
        snapshot = snapshot.or(net.replica(1).snapshots.pop());
    }
    let snapshot = snapshot.expect("it was made");
    let term = net.replica(1).group.term();
    net.replica(3).received = Some(snapshot.clone());
    net.step(snapshot.message);
    // In the same turn, as when both arrive in one frame.
    net.step(RaftMessage {
        shard: SHARD.0,
        kind: raft_message::Kind::Append as i32,
        from: 1,
        to: 3,
        term,
        log_term: term,
        index: 21,
        entries: vec![RaftEntry { kind: 0, term, index: 22, record: record(100).into() }],
        ..RaftMessage::default()
    });
    let answers = net.replica(3).poll();
    assert_eq!((net.replica(3).installed, net.replica(3).applied), (1, 21));
    net.replica(3).sync();
    let promised = answers.into_iter().chain(net.replica(3).poll()).map(|answer| answer.index).max();
    let (_, last) = net.replica(3).log.span(SHARD).expect("the snapshot's");
    assert_eq!((promised, last), (Some(21), 21), "what it says that it has is in its files");
}
