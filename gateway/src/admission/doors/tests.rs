use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const START_MS: u64 = 1_000_000;

/// What became of a crowd.
struct Crowd {
    /// Sessions let in, by second.
    entered: Vec<u64>,
    /// Attempts of the client that had to come most often.
    attempts_max: u32,
}

/// Clients that first come at these times, and then when they are told.
fn comes(doorway: &mut Doorway, arrivals: impl Iterator<Item = u64>) -> Crowd {
    let mut due: BinaryHeap<_> = arrivals.map(|at_ms| Reverse((at_ms, 1u32))).collect();
    let mut crowd = Crowd { entered: Vec::new(), attempts_max: 0 };
    while let Some(Reverse((now_ms, attempt))) = due.pop() {
        crowd.attempts_max = crowd.attempts_max.max(attempt);
        match doorway.enter(now_ms) {
            Ok(()) => {
                let second = ((now_ms - START_MS) / 1_000) as usize;
                crowd.entered.resize(crowd.entered.len().max(second + 1), 0);
                crowd.entered[second] += 1;
            }
            Err(wait_ms) => {
                assert!((SLOT_MS_MIN..=SLOT_MS_MAX).contains(&u64::from(wait_ms)), "{wait_ms}");
                due.push(Reverse((now_ms + u64::from(wait_ms), attempt + 1)));
            }
        }
    }
    crowd
}

#[test]
fn a_crowd_that_comes_at_once_comes_back_as_a_queue() {
    let mut doorway = Doorway::new(Some(Rate::per_second(1_000, 2_000)));
    let crowd = comes(&mut doorway, (0..20_000).map(|_| START_MS));
    assert_eq!(crowd.entered.iter().sum::<u64>(), 20_000, "nobody is forgotten");
    assert_eq!((crowd.entered[0], crowd.attempts_max), (2_000, 2), "whoever comes in its slot is let in");
    assert!(crowd.entered[1..].iter().all(|&count| count <= 500), "{:?}", crowd.entered);
    assert_eq!(crowd.entered.len(), 37, "18,000 at 500 a second, from the second on");
}

#[test]
fn while_a_queue_comes_back_others_are_let_in_beside_it() {
    let mut doorway = Doorway::new(Some(Rate::per_second(1_000, 2_000)));
    let crowd = (0..10_000).map(|_| START_MS);
    // 400 a second, evenly.
    let others = (0..8_000u64).map(|number| START_MS + 2_000 + number * 5 / 2);
    let crowd = comes(&mut doorway, crowd.chain(others));
    assert_eq!(crowd.entered.iter().sum::<u64>(), 18_000);
    assert_eq!(crowd.attempts_max, 2);
}

#[test]
fn a_crowd_beyond_all_slots_still_gets_in_at_the_rate() {
    let rate = Rate::per_second(1_000, 1_000);
    let mut doorway = Doorway::new(Some(rate));
    let crowd = comes(&mut doorway, (0..90_000).map(|_| START_MS));
    assert_eq!(crowd.entered.iter().sum::<u64>(), 90_000);
    let worst = crowd.entered[1..].iter().max().expect("it took longer");
    assert!(*worst <= 2_000, "a burst and a second's rate: {worst}");
    assert!(
        crowd.entered.len() <= 125 && crowd.attempts_max <= 10,
        "{} {}",
        crowd.entered.len(),
        crowd.attempts_max
    );
}

/// Requirement X5. One of 40 gateways is lost with its 60,000 clients; each finds out within three seconds and goes to
/// its next gateway.
#[test]
fn the_clients_of_a_lost_gateway_come_back_to_the_others_without_a_stampede() {
    for gateway in 0..39u64 {
        let mut doorway = Doorway::new(Some(Rate::per_second(200, 400)));
        let clients = 60_000 / 39 + gateway % 2;
        let crowd = comes(&mut doorway, (0..clients).map(|number| START_MS + number * 7_919 % 3_000));
        assert_eq!(crowd.entered.iter().sum::<u64>(), clients);
        assert!(crowd.entered.iter().all(|&count| count <= 600) && crowd.entered.len() <= 15);
        assert!(crowd.attempts_max <= 3, "{}", crowd.attempts_max);
    }
}

#[test]
fn without_a_rate_everybody_comes_in() {
    let mut doorway = Doorway::new(None);
    assert!((0..100_000).all(|_| doorway.enter(START_MS).is_ok()));
    let mut pace = AcceptPace::new(None);
    pace.handle_accepted(100_000, START_MS);
    assert_eq!(pace.closed_until_ms(START_MS), None);
}

#[test]
fn accepting_stops_when_the_rate_is_spent_and_pays_for_what_came_all_the_same() {
    let mut pace = AcceptPace::new(Some(Rate::per_second(100, 200)));
    pace.handle_accepted(200, START_MS);
    assert_eq!(pace.closed_until_ms(START_MS), None);
    pace.handle_accepted(50, START_MS);
    assert_eq!(pace.closed_until_ms(START_MS), Some(START_MS + 500));
    assert_eq!(pace.closed_until_ms(START_MS + 500), None);
    pace.handle_accepted(0, START_MS + 500);
    assert_eq!(pace.closed_until_ms(START_MS + 500), None);
    pace.handle_accepted(1, START_MS + 500);
    assert_eq!(pace.closed_until_ms(START_MS + 500), Some(START_MS + 510), "one at a time is what is left");
    assert_eq!(pace.closed_until_ms(START_MS + 10_000), None);
}
