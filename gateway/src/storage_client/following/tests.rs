use super::*;
use bytes::Bytes;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::{Command, Query, SendMessage, command};
use wire_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX};
use wire_protocol::v1::ErrorCode;

const SHARD: ShardId = ShardId(1);
const A: LinkIndex = LinkIndex(0);
const B: LinkIndex = LinkIndex(1);
const C: LinkIndex = LinkIndex(2);
/// Ids from here on are as long as each other, and so are requests that differ in them alone.
const LONG_ID: u64 = 1_000;

/// The requests of a core for one shard, and nodes that do what the test says.
struct Rig {
    following: Following,
    now_ms: u64,
    /// As the router knows it.
    leader: LinkIndex,
    /// What each node has, in the order in which it came.
    nodes: BTreeMap<LinkIndex, Vec<u64>>,
    /// What clients were told, and in which order.
    told: Vec<(u64, ErrorCode)>,
    /// Leaders that refusals named, each with its term.
    named: Vec<(LinkIndex, u64)>,
}

impl Rig {
    /// Everything goes to A, of which nobody has said yet that it leads.
    fn new() -> Self {
        Self {
            following: Following::new(4),
            now_ms: 1_000_000,
            leader: A,
            nodes: BTreeMap::new(),
            told: Vec::new(),
            named: Vec::new(),
        }
    }

    fn submit(&mut self, request: ShardRequest) -> Result<(), RequestError> {
        if self.following.must_wait(SHARD, self.leader) {
            return self.following.wait(&request);
        }
        self.following.sent(request.id, SHARD, self.leader);
        self.send(self.leader, request);
        Ok(())
    }

    /// Small ones with these ids.
    fn ask(&mut self, ids: impl IntoIterator<Item = u64>) {
        ids.into_iter().for_each(|id| self.submit(small(id)).expect("there is room"));
    }

    fn send(&mut self, link: LinkIndex, request: ShardRequest) {
        self.nodes.entry(link).or_default().push(request.id);
        self.following.keep(&request);
    }

    /// Large ones from [`LONG_ID`] on, until one has no room: its id.
    fn fill(&mut self) -> u64 {
        let bytes = REQUEST_BYTES + large(LONG_ID).encoded_len();
        let unkept = LONG_ID + (FOLLOW_BYTES_MAX / bytes) as u64;
        (LONG_ID..=unkept).for_each(|id| self.submit(large(id)).expect("a link takes it"));
        assert_eq!(self.following.kept_bytes, FOLLOW_BYTES_MAX / bytes * bytes);
        unkept
    }

    fn oldest(&mut self, node: LinkIndex) -> u64 {
        self.nodes.get_mut(&node).expect("it was asked").remove(0)
    }

    /// A node refuses what it has had for longest, and says who leads.
    fn refuse(&mut self, node: LinkIndex, leader: Option<LinkIndex>, term: u64) {
        let refused = Refused { leader, ..refused(self.oldest(node), term) };
        let mut events = Vec::new();
        self.following.refused(self.now_ms, refused, &mut events);
        self.following.end_waits(self.now_ms, &mut events);
        self.hear(events);
    }

    /// A node does, or loses, what it has had for longest.
    fn answer(&mut self, node: LinkIndex) {
        let id = self.oldest(node);
        let result = Err(refusal::away("whether it was done is unknown"));
        self.following.answered(&[StorageEvent::Answered { id, result }]);
        self.following.check_invariants();
    }

    fn lead(&mut self, link: LinkIndex, term: u64) {
        self.leader = link;
        self.following.lead(self.now_ms, Leads { link, shard: SHARD, term });
        self.send_waiting();
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        let mut events = Vec::new();
        self.following.end_waits(self.now_ms, &mut events);
        self.hear(events);
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        for (shard, leader) in self.following.ready() {
            while let Some(request) = self.following.poll(shard, leader) {
                self.send(leader, request);
            }
        }
        self.following.check_invariants();
    }

    fn hear(&mut self, events: Vec<StorageEvent>) {
        for event in events {
            match event {
                StorageEvent::Answered { id, result: Err(error) } => self.told.push((id, error.code)),
                StorageEvent::Leader { link, shard: SHARD, term } => self.named.push((link, term)),
                other => panic!("{other:?}"),
            }
        }
        self.following.check_invariants();
    }

    fn has(&self, node: LinkIndex) -> Vec<u64> {
        self.nodes.get(&node).cloned().unwrap_or_default()
    }
}

fn small(id: u64) -> ShardRequest {
    ShardRequest { id, shard: SHARD.0, operation: Some(Operation::Query(Query::default())) }
}

/// A message as large as one may be.
fn large(id: u64) -> ShardRequest {
    let send = SendMessage { body: vec![7; BODY_BYTES_MAX].into(), ..SendMessage::default() };
    let operation = Operation::Command(Command { kind: Some(command::Kind::SendMessage(send)) });
    ShardRequest { id, shard: SHARD.0, operation: Some(operation) }
}

/// By a node that does not know who leads.
fn refused(id: u64, term: u64) -> Refused {
    Refused { id, leader: None, term, error: refusal::away("not the leader") }
}

fn unavailable(ids: impl IntoIterator<Item = u64>) -> Vec<(u64, ErrorCode)> {
    ids.into_iter().map(|id| (id, ErrorCode::ErrorUnavailable)).collect()
}

#[test]
fn what_was_refused_goes_to_the_leader_in_its_order_and_nothing_overtakes() {
    let mut rig = Rig::new();
    rig.ask([1, 2]);
    rig.refuse(A, Some(B), 5);
    assert_eq!(rig.named, [(B, 5)]);
    rig.ask([3]);
    assert_eq!(rig.has(A), [2], "what comes now waits behind what was refused");
    rig.lead(B, 5);
    rig.ask([4]);
    assert!(rig.has(B).is_empty(), "A has one yet that comes before the others");
    rig.refuse(A, Some(B), 5);
    rig.send_waiting();
    rig.ask([5]);
    assert_eq!(rig.has(B), [1, 2, 3, 4, 5]);
    assert_eq!((rig.following.followed(), rig.following.waiting_count()), (2, 0));
    (1..=5).for_each(|_| rig.answer(B));
    assert_eq!((rig.following.kept_bytes, rig.told.len()), (0, 0));
    assert_eq!(rig.following.next_deadline_ms(), None);
}

#[test]
fn without_a_leader_whose_link_is_known_requests_wait_until_one_is_told() {
    let mut rig = Rig::new();
    rig.lead(A, 4);
    rig.ask([1]);
    rig.refuse(A, None, 5);
    rig.ask([2]);
    rig.pass_ms(FOLLOW_WAIT_MS_MAX / 2);
    assert_eq!((rig.named.len(), rig.following.waiting_count()), (0, 2));
    rig.lead(C, 6);
    assert_eq!(rig.has(C), [1, 2]);
    assert_eq!(rig.following.followed(), 1, "the second one was sent once");
}

#[test]
fn a_node_that_refuses_what_it_says_it_leads_is_asked_some_times() {
    let mut rig = Rig::new();
    rig.lead(A, 5);
    rig.ask([1]);
    for _ in 0..FOLLOWS_MAX {
        rig.refuse(A, Some(A), 5);
        rig.send_waiting();
        assert_eq!(rig.has(A), [1]);
    }
    rig.refuse(A, Some(A), 5);
    assert_eq!(rig.told, unavailable([1]));
    assert_eq!(rig.following.followed(), u64::from(FOLLOWS_MAX));
}

#[test]
fn two_nodes_that_name_each_other_are_asked_some_times_and_nothing_overtakes() {
    let mut rig = Rig::new();
    rig.ask([1]);
    let mut nodes = [A, B];
    for term in 1..=u64::from(FOLLOWS_MAX) {
        let [from, to] = nodes;
        rig.refuse(from, Some(to), term);
        assert_eq!(rig.told, []);
        rig.lead(to, term);
        nodes = [to, from];
    }
    let [from, to] = nodes;
    rig.ask([2]);
    assert_eq!(rig.has(from), [1, 2]);
    rig.refuse(from, Some(to), 9);
    rig.ask([3]);
    assert_eq!(rig.told, unavailable([1]));
    // It was not refused often. But it would come before the repeat of the first one.
    rig.refuse(from, Some(to), 9);
    rig.refuse(from, Some(to), 9);
    assert_eq!(rig.told, unavailable([1, 2, 3]));
    rig.lead(to, 9);
    rig.ask([4]);
    assert_eq!(rig.has(to), [4]);
}

#[test]
fn whoever_waits_too_long_is_told_and_so_is_what_waits_behind() {
    let mut rig = Rig::new();
    rig.ask([1, 2]);
    rig.refuse(A, None, 5);
    rig.ask([3, 4]);
    rig.pass_ms(FOLLOW_WAIT_MS_MAX - 1);
    assert_eq!(rig.told, []);
    assert_eq!(rig.following.next_deadline_ms(), Some(rig.now_ms + 1));
    rig.pass_ms(1);
    assert_eq!(rig.told, unavailable([1, 3, 4]));
    assert_eq!(rig.following.next_deadline_ms(), None);
    rig.refuse(A, Some(B), 6);
    assert_eq!(rig.told, unavailable([1, 3, 4, 2]), "it would come before their repeats");
    rig.lead(B, 6);
    assert!(rig.has(B).is_empty());
}

#[test]
fn what_waited_behind_others_does_not_wait_as_long_again_once_it_is_refused() {
    let mut rig = Rig::new();
    rig.ask([1]);
    rig.refuse(A, None, 5);
    rig.ask([2]);
    rig.pass_ms(10);
    rig.pass_ms(FOLLOW_WAIT_MS_MAX - 20);
    rig.lead(B, 6);
    assert_eq!(rig.has(B), [1, 2]);
    rig.answer(B);
    rig.refuse(B, None, 7);
    rig.pass_ms(20);
    assert_eq!(rig.told, unavailable([2]));
}

#[test]
fn the_time_of_what_never_was_sent_begins_with_the_next_turn() {
    let mut rig = Rig::new();
    rig.ask([1]);
    rig.lead(B, 5);
    rig.ask([2]);
    assert_eq!(rig.following.next_deadline_ms(), Some(0), "a turn is due");
    rig.pass_ms(10);
    rig.pass_ms(FOLLOW_WAIT_MS_MAX - 1);
    assert_eq!(rig.told, []);
    rig.pass_ms(1);
    assert_eq!(rig.told, unavailable([2]));
}

#[test]
fn what_has_no_room_is_not_kept_and_takes_along_what_comes_behind() {
    let mut rig = Rig::new();
    let unkept = rig.fill();
    rig.ask([unkept + 1]);
    rig.refuse(A, Some(B), 5);
    rig.ask([unkept + 2]);
    let full = rig.submit(large(unkept + 3)).expect_err("no room").code;
    assert_eq!(full, ErrorCode::ErrorOverloaded);
    (LONG_ID + 1..unkept).for_each(|_| rig.refuse(A, Some(B), 5));
    assert_eq!(rig.told, [], "they are kept");
    rig.refuse(A, Some(B), 5);
    assert_eq!(rig.told, unavailable([unkept, unkept + 2]), "the second would come before its repeat");
    rig.refuse(A, Some(B), 5);
    assert_eq!(rig.told, unavailable([unkept, unkept + 2, unkept + 1]), "and so would the last");
    rig.lead(B, 5);
    let sent: Vec<u64> = (LONG_ID..unkept).collect();
    assert_eq!(rig.has(B), sent, "what was before it comes first in any case");
    sent.iter().for_each(|_| rig.answer(B));
    assert_eq!(rig.following.kept_bytes, 0);
}

#[test]
fn a_shard_that_had_no_room_once_is_followed_again_though_its_requests_overlap() {
    let mut rig = Rig::new();
    let unkept = rig.fill();
    (LONG_ID..unkept).for_each(|_| rig.answer(A));
    // There is room, and the one that had none is not answered yet.
    rig.ask([unkept + 1]);
    rig.answer(A);
    rig.refuse(A, Some(B), 5);
    rig.ask([unkept + 2]);
    assert_eq!(rig.told, []);
    rig.lead(B, 5);
    assert_eq!(rig.has(B), [unkept + 1, unkept + 2]);
}

#[test]
fn what_is_kept_holds_nothing_of_a_clients_frame_and_is_counted() {
    let frame = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    let message = |id| {
        let (conversation_id, body) = (frame.slice(..16), frame.slice(16..17));
        let send = SendMessage { conversation_id, body, ..SendMessage::default() };
        let operation = Operation::Command(Command { kind: Some(command::Kind::SendMessage(send)) });
        ShardRequest { id, shard: SHARD.0, operation: Some(operation) }
    };
    let bytes = [1, 2].map(|id| REQUEST_BYTES + message(id).encoded_len());
    let mut rig = Rig::new();
    assert!(frame.is_unique());
    // One that a link has, and one that waits.
    rig.submit(message(1)).expect("a link takes it");
    rig.lead(B, 5);
    rig.submit(message(2)).expect("there is room");
    assert_eq!(rig.following.waiting_count(), 1);
    assert!(frame.is_unique(), "64 KiB are held for 17 bytes");
    assert_eq!(rig.following.kept_bytes, bytes.iter().sum::<usize>());
    rig.refuse(A, Some(B), 5);
    let again: Vec<_> = (0..2).map_while(|_| rig.following.poll(SHARD, B)).collect();
    assert_eq!(again, [message(1), message(2)], "nothing is lost of them");
    assert_eq!(rig.following.kept_bytes, bytes.iter().sum::<usize>(), "they may be refused again");
}

#[test]
fn what_links_have_of_shards_that_end_in_one_turn_is_let_go_of_and_nothing_else() {
    let mut following = Following::new(4);
    for (shard, id) in [(1, 11), (1, 12), (2, 21), (2, 22), (3, 31), (3, 32)] {
        following.sent(id, ShardId(shard), A);
        following.keep(&ShardRequest { shard, ..small(id) });
    }
    let kept_bytes = following.kept_bytes;
    let mut events = Vec::new();
    for (now_ms, id) in [(0, 11), (0, 21), (1, 31)] {
        following.refused(now_ms, refused(id, 5), &mut events);
    }
    following.end_waits(FOLLOW_WAIT_MS_MAX, &mut events);
    following.check_invariants();
    assert_eq!(following.kept_bytes, kept_bytes / 3, "of both requests of one shard");
    for id in [12, 22, 32] {
        following.refused(FOLLOW_WAIT_MS_MAX, refused(id, 5), &mut events);
    }
    let told = |event: StorageEvent| match event {
        StorageEvent::Answered { id, result: Err(_) } => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(events.into_iter().map(told).collect::<Vec<_>>(), [11, 21, 12, 22]);
    assert_eq!(following.waiting_count(), 2, "of the shard whose time is not over");
}

#[test]
fn what_may_have_been_done_is_not_sent_again() {
    let mut rig = Rig::new();
    rig.ask([1, 2]);
    rig.answer(A);
    rig.refuse(A, Some(B), 5);
    rig.lead(B, 5);
    assert_eq!(rig.has(B), [2]);
}

#[test]
fn a_node_that_leads_no_more_has_a_moment_for_what_it_has() {
    let mut rig = Rig::new();
    rig.ask([1, 2]);
    rig.lead(B, 5);
    rig.ask([3]);
    rig.answer(A);
    let due_ms = rig.now_ms + LAST_WORD_MS_MAX;
    assert_eq!(rig.following.poll_last_word(due_ms - 1), None);
    // Another change does not make it longer.
    rig.pass_ms(LAST_WORD_MS_MAX - 1);
    rig.lead(C, 6);
    assert_eq!(rig.following.next_deadline_ms(), Some(due_ms));
    assert!(rig.has(C).is_empty());
    assert_eq!(rig.following.poll_last_word(due_ms), Some((SHARD, C)));
    // Its link gives it back.
    rig.answer(A);
    rig.send_waiting();
    assert_eq!(rig.has(C), [3]);
}

#[test]
fn once_others_have_nothing_more_no_word_is_waited_for() {
    let mut rig = Rig::new();
    rig.ask([1]);
    rig.lead(B, 5);
    rig.refuse(A, None, 4);
    rig.send_waiting();
    assert_eq!(rig.has(B), [1], "B is known to lead, whatever A knows");
    assert_eq!(rig.following.poll_last_word(u64::MAX), None);
}

#[test]
fn a_refusal_of_before_the_node_led_does_not_tell_of_another_leader() {
    let mut rig = Rig::new();
    rig.lead(A, 7);
    rig.ask([1]);
    rig.refuse(A, None, 6);
    rig.send_waiting();
    assert_eq!(rig.has(A), [1]);
    // One of the same term or a later one does, and so does one that names no term.
    for (node, term) in [(A, 7), (B, 9), (C, 0)] {
        rig.refuse(node, None, term);
        rig.send_waiting();
        assert_eq!((rig.has(node).len(), rig.following.waiting_count()), (0, 1), "{term}");
        let next = if node == A { B } else { C };
        rig.lead(next, term + 1);
    }
    assert_eq!(rig.told, []);
}

#[test]
fn what_a_node_refused_before_it_led_in_that_term_is_no_news_and_what_it_refuses_after_is() {
    // Releases before name no term.
    for term in [7, 0] {
        let mut rig = Rig::new();
        rig.ask([1]);
        // It stands for election when it refuses; that it has won is heard before the refusal.
        rig.lead(A, 7);
        rig.refuse(A, None, term);
        rig.send_waiting();
        assert_eq!(rig.has(A), [1], "{term}: it leads");
        // It has stepped down.
        rig.refuse(A, None, term);
        rig.send_waiting();
        assert_eq!((rig.has(A).len(), rig.following.waiting_count()), (0, 1), "{term}: it leads no more");
        rig.lead(B, 8);
        assert_eq!((rig.has(B), rig.told), (vec![1], Vec::new()), "{term}");
    }
}

#[test]
fn requests_of_other_shards_do_not_wait() {
    let mut rig = Rig::new();
    rig.ask([1]);
    rig.refuse(A, None, 5);
    assert!(rig.following.must_wait(SHARD, A));
    assert!(!rig.following.must_wait(ShardId(2), A));
}
