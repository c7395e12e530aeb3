//! What was acknowledged is there: after a repeat, a clean restart, a dropped node, another number of cores.

use crate::embedded::{Embedded, SHARDS};
use crate::requests::{applied, body, person, send};

#[test]
fn messages_are_applied_in_order_and_a_repeat_gets_its_first_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 1);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let first = applied(&node.call(send(SHARDS, ada, conversation, 1)));
    let second = applied(&node.call(send(SHARDS, bob, conversation, 1)));
    assert_eq!((first.seq, second.seq), (2, 3), "entry 1 says that the conversation was created");
    let again = applied(&node.call(send(SHARDS, ada, conversation, 1)));
    assert_eq!((again.seq, again.time_ms, again.repeated_send), (first.seq, first.time_ms, true));
    let entries = node.entries(bob, conversation);
    let bodies: Vec<_> = entries[1..].iter().map(|entry| entry.body.clone()).collect();
    assert_eq!(bodies, [body(ada, 1), body(bob, 1)]);
    node.shutdown();
}

#[test]
fn pipelined_sends_of_one_link_keep_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 2);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let ids: Vec<u64> =
        (1..=3_000).map(|number| node.begin(1, send(SHARDS, ada, conversation, number))).collect();
    for (place, id) in ids.into_iter().enumerate() {
        assert_eq!(applied(&node.finish(id)).seq, place as u64 + 2);
    }
    node.shutdown();
}

/// Restarts a node in different ways; what every round acknowledged must be there in all later rounds.
#[test]
fn nothing_acknowledged_is_lost_by_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs: Vec<_> = (0..6).map(|pair| (person(2 * pair), person(2 * pair + 1))).collect();
    let mut expected = vec![Vec::new(); pairs.len()];
    // Every number of cores follows and precedes another; shutdowns and drops alternate.
    for (round, cores) in [1, 2, 1, 3, 2].into_iter().enumerate() {
        let mut node = Embedded::start(folder.path(), cores);
        let mut conversations = Vec::new();
        for (place, &(a, b)) in pairs.iter().enumerate() {
            let conversation = node.pair(a, b);
            let found: Vec<_> =
                node.entries(b, conversation)[1..].iter().map(|entry| entry.body.clone()).collect();
            assert_eq!(found, expected[place], "round {round}");
            if let Some(last) = expected[place].len().checked_sub(1) {
                // The last message of the round before, repeated.
                let again = applied(&node.call(send(SHARDS, a, conversation, last as u64 + 1)));
                assert_eq!((again.seq, again.repeated_send), (last as u64 + 2, true), "round {round}");
            }
            conversations.push(conversation);
        }
        let mut begun = Vec::new();
        for (place, (&(a, _), conversation)) in pairs.iter().zip(&conversations).enumerate() {
            for number in expected[place].len() as u64 + 1..=(round as u64 + 1) * 40 {
                begun.push(node.begin(place % cores, send(SHARDS, a, *conversation, number)));
                expected[place].push(body(a, number));
            }
        }
        for id in begun {
            applied(&node.finish(id));
        }
        if round % 2 == 0 {
            drop(node);
        } else {
            node.shutdown();
        }
    }
}

#[test]
fn times_never_fall_even_if_the_clock_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Embedded::start(folder.path(), 1);
    let (ada, bob) = (person(1), person(2));
    let conversation = node.pair(ada, bob);
    let first = applied(&node.call(send(SHARDS, ada, conversation, 1)));
    let id = node.begin(0, send(SHARDS, ada, conversation, 2));
    // The clock is an hour behind when this is proposed.
    node.cores[0].turn(first.time_ms - 3_600_000);
    let second = applied(&node.finish(id));
    assert!(second.time_ms >= first.time_ms, "{second:?} after {first:?}");
    node.shutdown();
}
