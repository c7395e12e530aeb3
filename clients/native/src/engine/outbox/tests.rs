use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const ROOM: ConversationId = ConversationId([1; 16]);

fn message(id: u64) -> Outgoing {
    Outgoing {
        conversation: ROOM,
        id: ClientMessageId(id),
        kind: 0,
        body: id.to_string().into(),
        queued_ms: 0,
        first_attempt_ms: None,
    }
}

fn refused(id: u64, cause: Cause) -> Refused {
    Refused { conversation: ROOM, id: ClientMessageId(id), cause }
}

fn poll(outbox: &mut Outbox, now_ms: u64) -> Option<(u64, Option<u64>)> {
    let send = outbox.poll_send(now_ms, |_| true)?;
    Some((send.message.id.0, send.predecessor.map(|id| id.0)))
}

#[test]
fn pipelined_sends_name_their_predecessor_until_it_is_answered() {
    let mut outbox = Outbox::default();
    (1..=3).for_each(|id| outbox.push(message(id)));
    assert_eq!(poll(&mut outbox, 0), Some((1, None)));
    assert_eq!(poll(&mut outbox, 0), Some((2, Some(1))));
    outbox.handle_accepted(ROOM, ClientMessageId(1));
    outbox.handle_accepted(ROOM, ClientMessageId(2));
    assert_eq!(poll(&mut outbox, 0), Some((3, None)));
    assert_eq!((outbox.message_count(), outbox.in_flight_count()), (1, 1));
}

#[test]
fn a_broken_order_is_repaired_one_at_a_time() {
    let mut outbox = Outbox::default();
    (1..=3).for_each(|id| outbox.push(message(id)));
    (0..3).for_each(|_| assert!(poll(&mut outbox, 0).is_some()));
    let mut jitter = Jitter::new(1);
    outbox.handle_retryable(refused(2, Cause::PredecessorMissing), 0, &mut jitter);
    assert_eq!(poll(&mut outbox, 0), None, "the first is still in flight");
    outbox.handle_retryable(refused(1, Cause::Other { retry_after_ms: 500 }), 0, &mut jitter);
    outbox.handle_retryable(refused(3, Cause::PredecessorMissing), 0, &mut jitter);
    assert_eq!(poll(&mut outbox, 499), None, "the server's wait is kept");
    assert!(outbox.poll_timeout(0).is_some_and(|at_ms| at_ms >= 500));
    assert_eq!(poll(&mut outbox, 10_000), Some((1, None)));
    assert_eq!(poll(&mut outbox, 10_000), None);
    outbox.handle_accepted(ROOM, ClientMessageId(1));
    assert_eq!(poll(&mut outbox, 10_000), Some((2, None)));
    assert_eq!(poll(&mut outbox, 10_000), Some((3, Some(2))));
}

#[test]
fn a_throttled_message_waits_as_asked_whatever_is_accepted_meanwhile() {
    let mut outbox = Outbox::default();
    (1..=3).for_each(|id| outbox.push(message(id)));
    (0..3).for_each(|_| assert!(poll(&mut outbox, 0).is_some()));
    let mut jitter = Jitter::new(1);
    // The refusal comes at once, the ticks of those before it after a sync.
    outbox.handle_retryable(refused(3, Cause::Other { retry_after_ms: 500 }), 0, &mut jitter);
    outbox.handle_accepted(ROOM, ClientMessageId(1));
    outbox.handle_accepted(ROOM, ClientMessageId(2));
    assert_eq!(poll(&mut outbox, 499), None);
    assert_eq!(outbox.poll_timeout(10), Some(500));
    assert_eq!(poll(&mut outbox, 500), Some((3, None)));
}

#[test]
fn a_refused_message_makes_way() {
    let mut outbox = Outbox::default();
    (1..=2).for_each(|id| outbox.push(message(id)));
    assert_eq!(poll(&mut outbox, 0), Some((1, None)));
    assert!(outbox.remove(ROOM, ClientMessageId(1)).is_some());
    assert_eq!(poll(&mut outbox, 0), Some((2, None)));
}

#[test]
fn attempted_messages_leave_when_a_repeat_is_no_longer_safe() {
    let mut outbox = Outbox::default();
    outbox.push(Outgoing { first_attempt_ms: Some(10), ..message(1) });
    outbox.push(message(2));
    outbox.push(Outgoing { first_attempt_ms: Some(1_000), ..message(3) });
    let old = outbox.remove_unconfirmed(500);
    assert_eq!(old.into_iter().map(|message| message.id.0).collect::<Vec<_>>(), [1]);
    assert_eq!(outbox.message_count(), 2);
}

#[test]
fn a_new_connection_starts_without_waits() {
    let mut outbox = Outbox::default();
    outbox.push(message(1));
    let mut jitter = Jitter::new(1);
    assert_eq!(poll(&mut outbox, 0), Some((1, None)));
    outbox.handle_retryable(refused(1, Cause::Other { retry_after_ms: 60_000 }), 0, &mut jitter);
    assert_eq!(poll(&mut outbox, 59_999), None);
    outbox.handle_disconnected();
    assert_eq!(poll(&mut outbox, 1_000), Some((1, None)));
}

#[test]
fn lanes_take_turns() {
    let mut outbox = Outbox::default();
    for room in [1, 2] {
        for id in 1..=3 {
            outbox.push(Outgoing { conversation: ConversationId([room; 16]), ..message(id) });
        }
    }
    let served =
        std::iter::from_fn(|| outbox.poll_send(0, |_| true)).map(|send| send.message.conversation.0[0]);
    assert_eq!(served.collect::<Vec<_>>(), [1, 2, 1, 2, 1, 2]);
}

/// A naive server: applies in arrival order, checks the predecessor, loses, refuses or answers late.
#[derive(Default)]
struct Model {
    applied: Vec<u64>,
    known: BTreeSet<u64>,
}

impl Model {
    /// True: accepted. False: the predecessor is missing.
    fn apply(&mut self, id: u64, predecessor: Option<u64>) -> bool {
        if self.known.contains(&id) {
            return true;
        }
        if predecessor.is_some_and(|id| !self.known.contains(&id)) {
            return false;
        }
        self.known.insert(id);
        self.applied.push(id);
        true
    }
}

proptest! {
    /// Whatever is refused before or after it was applied, and whenever connections break: the server ends with
    /// every message once, in the order of the queue.
    #[test]
    fn every_message_arrives_once_in_order(faults in prop::collection::vec((0u8..8, 0usize..4), 0..400)) {
        let mut outbox = Outbox::default();
        let mut jitter = Jitter::new(3);
        let mut model = Model::default();
        (1..=20).for_each(|id| outbox.push(message(id)));
        let mut wire: VecDeque<(u64, Option<u64>)> = VecDeque::new();
        let mut faults = faults.into_iter();
        let mut now_ms = 0;
        while outbox.message_count() > 0 {
            now_ms += 5_000;
            prop_assert!(now_ms < 5_000 * 10_000, "it must end");
            wire.extend(std::iter::from_fn(|| poll(&mut outbox, now_ms)));
            let (fault, answers) = faults.next().unwrap_or((7, 20));
            if fault == 0 {
                // Some were applied, none of the answers comes back.
                wire.drain(..).take(answers).for_each(|(id, predecessor)| { model.apply(id, predecessor); });
                outbox.handle_disconnected();
                continue;
            }
            for _ in 0..=answers {
                let Some((id, predecessor)) = wire.pop_front() else { break };
                let busy = Cause::Other { retry_after_ms: 100 };
                match fault {
                    1 => outbox.handle_retryable(refused(id, busy), now_ms, &mut jitter),
                    2 => {
                        model.apply(id, predecessor);
                        outbox.handle_retryable(refused(id, busy), now_ms, &mut jitter);
                    }
                    _ if model.apply(id, predecessor) => { outbox.handle_accepted(ROOM, ClientMessageId(id)); }
                    _ => outbox.handle_retryable(refused(id, Cause::PredecessorMissing), now_ms, &mut jitter),
                }
            }
        }
        prop_assert_eq!(model.applied, (1..=20).collect::<Vec<_>>());
    }
}
