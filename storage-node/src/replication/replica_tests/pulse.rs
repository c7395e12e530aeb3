//! A leader leads for as long as its heartbeats are answered in time, and not for as long as anything is answered.

use super::*;

/// Longer than anybody waits before standing for election, and than a leader that gave way is reluctant.
const LONG_TICKS: u64 = 200;

/// Three replicas, of which node 1 leads, and whose messages from and to it take their time each way.
struct SlowNet {
    net: Net,
    ticks: u64,
    delay_ticks: u64,
    /// From and to these other nodes.
    slow: Vec<u32>,
    /// With when they arrive.
    on_their_way: VecDeque<(u64, RaftMessage)>,
    /// The disk of node 1 is behind whenever a tick comes, and catches up in between.
    is_disk_behind: bool,
    /// From this tick on what comes from node 1 is lost, as before a link that is full.
    lost_from: u64,
    /// Nodes say nothing of when they sent what.
    is_old: bool,
}

impl SlowNet {
    fn new(slow: &[u32]) -> Self {
        Self::over(slow, &[])
    }

    /// Nothing has ever passed where it is cut.
    fn over(slow: &[u32], cut: &[(u32, u32)]) -> Self {
        let mut net = Net::new();
        net.cut = cut.to_vec();
        net.ticks(12);
        assert_eq!(net.leader(), Some(1));
        let slow = slow.to_vec();
        Self {
            net,
            ticks: 0,
            delay_ticks: 0,
            slow,
            on_their_way: VecDeque::new(),
            is_disk_behind: false,
            lost_from: u64::MAX,
            is_old: false,
        }
    }

    fn tick(&mut self) {
        self.turn(1);
    }

    /// A turn of each, in which so many ticks have passed for node 1.
    fn turn(&mut self, ticks: u64) {
        self.pass(ticks);
        self.settle();
    }

    /// Time passes, and nobody has said anything yet.
    fn pass(&mut self, ticks: u64) {
        self.ticks += 1;
        let group = &mut self.net.replica(1).group;
        if self.is_disk_behind {
            group.hold_breath();
        }
        group.pass(ticks);
        self.net.replicas[1..].iter_mut().for_each(|replica| replica.group.pass(1));
    }

    fn settle(&mut self) {
        loop {
            let mut messages = Vec::new();
            for replica in &mut self.net.replicas {
                messages.extend(replica.poll());
                replica.sync();
                messages.extend(replica.poll());
            }
            let (due, later) =
                std::mem::take(&mut self.on_their_way).into_iter().partition(|(at, _)| *at <= self.ticks);
            self.on_their_way = later;
            let due: VecDeque<(u64, RaftMessage)> = due;
            if messages.is_empty() && due.is_empty() {
                return;
            }
            for (_, message) in due {
                if message.from != 1 || self.ticks < self.lost_from {
                    self.net.step(message);
                }
            }
            for message in messages {
                let beat = if self.is_old { 0 } else { message.beat };
                let message = RaftMessage { beat, ..message };
                let ends = [message.from, message.to];
                if self.net.cut.contains(&(message.from, message.to)) {
                    continue;
                }
                if ends.contains(&1) && ends.iter().any(|end| self.slow.contains(end)) {
                    self.on_their_way.push_back((self.ticks + self.delay_ticks, message));
                } else {
                    self.net.step(message);
                }
            }
        }
    }

    /// What waits before the link grows, up to this much time each way. Whether node 1 leads through all of it.
    fn leads_on(&mut self, delay_ticks: u64) -> bool {
        (0..LONG_TICKS).all(|tick| {
            self.delay_ticks = delay_ticks.min(tick / 5);
            // A group of which nothing is wanted would hibernate.
            if tick % 5 == 0 && self.net.replica(1).leads() {
                self.net.replica(1).group.propose(record(tick)).expect("it leads");
            }
            self.tick();
            self.net.replica(1).leads()
        })
    }
}

#[test]
fn a_leader_whose_word_takes_too_long_there_and_back_gives_way_and_another_one_leads() {
    let mut net = SlowNet::new(&[2, 3]);
    assert!(!net.leads_on(6));
    let gave_way = net.ticks;
    assert_eq!(net.net.replica(1).group.take_late(), [2, 3]);
    assert_eq!(net.net.replica(1).group.take_late(), Vec::<u32>::new());
    for lost_from in gave_way - 5..=gave_way {
        others_lead_after(gave_way, lost_from);
    }
}

/// It gives way at this tick, and its last words before are lost.
fn others_lead_after(gave_way: u64, lost_from: u64) {
    let mut net = SlowNet::new(&[2, 3]);
    net.lost_from = lost_from;
    assert!(!net.leads_on(6));
    assert_eq!(net.ticks, gave_way);
    // Old words would ask the others to wait for longer: its links are made anew, and quick at first.
    net.on_their_way.clear();
    (net.delay_ticks, net.lost_from) = (0, u64::MAX);
    while net.net.leader().is_none() {
        net.tick();
        assert!(net.ticks < gave_way + 20, "nobody stands");
    }
    assert!(
        [2, 3].map(Some).contains(&net.net.leader()),
        "the others first, though it is preferred: lost from {lost_from} on"
    );
    // And it does not come back by itself while they lead.
    (0..LONG_TICKS).for_each(|_| net.tick());
    assert_ne!(net.net.leader(), Some(1));
}

#[test]
fn a_leader_whose_word_takes_its_time_leads_on() {
    assert!(SlowNet::new(&[2, 3]).leads_on(4));
}

#[test]
fn one_slow_follower_of_two_is_no_reason() {
    let mut net = SlowNet::new(&[3]);
    assert!(net.leads_on(9));
    assert_eq!(net.net.replica(1).group.take_late(), Vec::<u32>::new());
}

#[test]
fn a_leader_that_nobody_could_replace_leads_on() {
    let mut net = SlowNet::new(&[2]);
    net.net.cut_off(3);
    (0..30).for_each(|_| net.tick());
    assert!(net.leads_on(6), "node 2 alone elects nobody");
}

#[test]
fn who_is_heard_and_has_answered_nothing_in_this_term_could_replace_nobody() {
    // Node 3 never hears its leader, and asks for votes again and again.
    let mut net = SlowNet::over(&[2], &[(1, 3)]);
    assert!(net.leads_on(6), "whether node 3 takes a leader's word is not known");
}

#[test]
fn a_leader_whose_own_disk_is_behind_leads_on() {
    let mut net = SlowNet::new(&[2, 3]);
    net.is_disk_behind = true;
    assert!(net.leads_on(6), "late answers say nothing of its links");
    net.is_disk_behind = false;
    (0..9).for_each(|_| net.tick());
    assert!(net.net.replica(1).leads(), "what it says now has an election's time to be answered");
    (0..2).for_each(|_| net.tick());
    assert!(!net.net.replica(1).leads(), "and no more");
}

#[test]
fn the_last_words_of_a_leader_that_gives_way_are_never_said() {
    use raft_message::Kind::{Append, Heartbeat, Snapshot};
    let mut net = SlowNet::new(&[2, 3]);
    for tick in 0..LONG_TICKS {
        net.delay_ticks = (tick / 5).min(6);
        // When the tick comes appends wait to be sent.
        net.net.replica(1).group.propose(record(tick)).expect("it leads");
        net.pass(1);
        if !net.net.replica(1).leads() {
            break;
        }
        net.settle();
    }
    let replica = net.net.replica(1);
    assert!(!replica.leads(), "its answers are late");
    let mut said = replica.poll();
    // What one that does not lead says waits for the writes before it.
    assert!(!replica.writes.is_empty(), "what was proposed last is written all the same");
    replica.sync();
    said.extend(replica.poll());
    said.retain(|message| matches!(message.kind(), Append | Heartbeat | Snapshot));
    assert_eq!(said, []);
}

#[test]
fn a_leader_whose_turns_are_slow_leads_on() {
    let mut net = SlowNet::new(&[2, 3]);
    net.delay_ticks = 1;
    for turn in 0..LONG_TICKS {
        net.net.replica(1).group.propose(record(turn)).expect("it leads");
        net.turn(4);
        assert!(net.net.replica(1).leads(), "an answer takes two turns of it: turn {turn}");
    }
}

#[test]
fn pauses_without_a_word_between_them_end_its_time() {
    let mut net = SlowNet::new(&[]);
    (0..5).for_each(|_| net.tick());
    (0..2).for_each(|_| net.net.replica(1).group.pass(10));
    assert!(!net.net.replica(1).leads(), "it may be cut off, and stumble");
    let mut net = SlowNet::new(&[]);
    for pause in 0..10 {
        net.turn(10);
        assert!(net.net.replica(1).leads(), "heard since: pause {pause}");
    }
}

#[test]
fn who_says_nothing_of_time_counts_by_its_answers() {
    let mut net = SlowNet::new(&[2, 3]);
    net.is_old = true;
    assert!(net.leads_on(6), "late answers are answers, as before this was known");
}

#[test]
fn time_in_which_the_leader_did_not_run_says_nothing_of_its_links() {
    // Whenever it was that the library looked last for whom it had heard.
    for before in 0..10 {
        let mut net = SlowNet::new(&[]);
        // It is not the first pause, and the others were heard since.
        net.turn(10);
        (0..before).for_each(|_| net.tick());
        // An hour at once, and what the others said meanwhile has not been taken yet.
        net.net.replica(1).group.pass(10);
        (0..9).for_each(|_| net.net.replica(1).group.pass(1));
        assert!(net.net.replica(1).leads(), "{before}: answers have an election's time");
        (0..2).for_each(|_| net.net.replica(1).group.pass(1));
        assert!(!net.net.replica(1).leads(), "{before}: and no more");
    }
}

#[test]
fn a_group_that_hibernated_has_all_its_time_when_it_wakes() {
    let mut net = Net::new();
    net.ticks(300);
    assert_eq!(net.hibernating(), NODES);
    net.cut_off(1);
    net.replica(1).group.propose(record(1)).expect("it leads");
    for _ in 0..9 {
        net.replica(1).group.pass(1);
        net.settle();
    }
    assert!(net.replica(1).leads());
}
