//! When and where a device comes back whose connection has ended, as a client must (docs/protocol.md, "A session").
//! Pure.
//!
//! ```text
//! when:   cut, or refused ──────────── after a pause that grows, drawn from all below it
//!         told when ────────────────── then, and such a pause: many were told the same
//!         told when and where ──────── then: the time is a slot of the device's own
//! where:  spread ───────────────────── the user's own target, the next one after each failure, and the own one again
//!                                      once a session was ready
//!         ranked, or sent on ───────── the first of the list, the next one after a failure, after the last one the
//!                                      user's own target; who was ready stays with what it has
//! ```

use crate::agent::protocol::TargetIndex;
use crate::workload::plan::Plan;
use crate::workload::population::UserIndex;
use crate::workload::random::Random;
use std::collections::HashMap;

/// First pause before a lost device comes back, and the longest, in microseconds. Each is drawn from all below it
/// (full jitter), and doubles with each failed try. People's clients wait longer: these ask more of a server.
const BACKOFF_US_MIN: u64 = 200_000;
const BACKOFF_US_MAX: u64 = 5_000_000;

/// The targets of a run, as the devices of an agent know them.
#[derive(Clone, Debug)]
pub struct Targets {
    /// From 1 on.
    count: u16,
    /// Of each user, best first, as gateways said at log in; empty: users are spread.
    ranked: HashMap<UserIndex, Vec<TargetIndex>>,
}

impl Targets {
    /// So many, at least one. Given out by user, so that one room's users meet through different ones.
    pub fn spread(count: u16) -> Self {
        Self::ranked(count, HashMap::new())
    }

    /// The same with lists.
    pub fn ranked(count: u16, ranked: HashMap<UserIndex, Vec<TargetIndex>>) -> Self {
        assert!(count > 0, "clients connect to something");
        Self { count, ranked }
    }

    /// Where a user's device connects next.
    pub(super) fn next(&self, user: UserIndex, way: &Way) -> TargetIndex {
        let target = |number: u64| TargetIndex((number % u64::from(self.count)) as u16);
        let (list, own) = (self.list(user, way), u64::from(user.0));
        if list.is_empty() {
            return target(own + u64::from(way.turn));
        }
        let place = way.turn as usize % (list.len() + 1);
        list.get(place).copied().unwrap_or_else(|| target(own))
    }

    /// A session became ready.
    pub(super) fn became_ready(&self, user: UserIndex, way: &mut Way) {
        if self.list(user, way).is_empty() {
            way.turn = 0;
        }
    }

    fn list<'a>(&'a self, user: UserIndex, way: &'a Way) -> &'a [TargetIndex] {
        if way.named.is_empty() {
            return self.ranked.get(&user).map(Vec::as_slice).unwrap_or_default();
        }
        &way.named
    }
}

/// Targets that a plan's faults end: gateways of a local run are its targets, in their order.
pub(super) fn hit_by(plan: &Plan) -> Vec<TargetIndex> {
    let names = plan.phases.iter().flat_map(|phase| &phase.faults).map(|fault| fault.kill.as_str());
    let number = |name: &str| name.strip_prefix("gateway-")?.parse::<u16>().ok()?.checked_sub(1);
    names.filter_map(number).map(TargetIndex).collect()
}

/// How far a device is in its list. Nothing is allocated for one that was never sent on.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// By the gateway that sent it on, best first; empty: none did.
    named: Box<[TargetIndex]>,
    /// Failures in the list so far.
    turn: u32,
}

impl Way {
    /// A server named where to go, best first.
    pub(super) fn sent_on(&mut self, named: Vec<TargetIndex>) {
        *self = Self { named: named.into(), turn: 0 };
    }

    /// No session came of it.
    pub(super) fn failed(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }
}

/// What a server's last words were; times in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// That it closes.
    Closed,
    /// Not to come again before this.
    When(u64),
    /// To go elsewhere, at this time.
    Where(u64),
}

impl Told {
    /// Heard at `now_us`.
    pub(super) fn new(now_us: u64, retry_after_ms: u32, go_to: &[TargetIndex]) -> Self {
        let at_us = now_us + u64::from(retry_after_ms) * 1_000;
        match (go_to.is_empty(), retry_after_ms) {
            (false, _) => Self::Where(at_us),
            (true, 0) => Self::Closed,
            (true, _) => Self::When(at_us),
        }
    }
}

/// When a device comes back. `tries`: its connections since it was last ready.
pub(super) fn comeback_us(now_us: u64, told: Option<Told>, tries: u32, random: &mut Random) -> u64 {
    let ceiling_us = (BACKOFF_US_MIN << tries.min(10)).min(BACKOFF_US_MAX);
    match told {
        Some(Told::Where(at_us)) => at_us.max(now_us),
        Some(Told::When(at_us)) => at_us.max(now_us) + random.below(ceiling_us),
        Some(Told::Closed) | None => now_us + random.below(ceiling_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserIndex = UserIndex(5);

    fn targets(list: &[u16]) -> Vec<TargetIndex> {
        list.iter().copied().map(TargetIndex).collect()
    }

    /// Where a user goes that fails so many times.
    fn failing(known: &Targets, way: &mut Way, times: usize) -> Vec<u16> {
        let next = |_| {
            let target = known.next(USER, way);
            way.failed();
            target.0
        };
        (0..times).map(next).collect()
    }

    #[test]
    fn who_is_spread_goes_round_and_home_again_once_ready() {
        let known = Targets::spread(3);
        let mut way = Way::default();
        assert_eq!(failing(&known, &mut way, 5), [2, 0, 1, 2, 0]);
        known.became_ready(USER, &mut way);
        assert_eq!(known.next(USER, &way), TargetIndex(2));
    }

    #[test]
    fn a_ranked_list_is_tried_in_its_order_and_then_where_one_came_in() {
        let known = Targets::ranked(4, HashMap::from([(USER, targets(&[3, 0]))]));
        let mut way = Way::default();
        assert_eq!(failing(&known, &mut way, 4), [3, 0, 1, 3]);
        assert_eq!(known.next(USER, &way), TargetIndex(0));
        known.became_ready(USER, &mut way);
        assert_eq!(known.next(USER, &way), TargetIndex(0), "it stays where it was let in");
        assert_eq!(known.next(UserIndex(6), &Way::default()), TargetIndex(2), "another user has no list");
    }

    #[test]
    fn who_is_sent_on_forgets_the_list_of_its_log_in() {
        for known in [Targets::spread(4), Targets::ranked(4, HashMap::from([(USER, targets(&[3, 0]))]))] {
            let mut way = Way::default();
            way.failed();
            way.sent_on(targets(&[2]));
            assert_eq!(failing(&known, &mut way, 3), [2, 1, 2]);
            way.sent_on(targets(&[0]));
            known.became_ready(USER, &mut way);
            assert_eq!(known.next(USER, &way), TargetIndex(0));
        }
    }

    #[test]
    fn a_plan_s_faults_hit_gateways_by_their_numbers() {
        let text = "name='p'\nabout=''\npopulation={users=2}\n[[phase]]\nname='x'\nseconds=9\nfault=[\
            {at_s=1,kill='gateway-2'},{at_s=2,kill='storage-1'},{at_s=3,kill='gateway-11'},{at_s=4,kill='nats'}]";
        let plan = Plan::parse(text, std::path::Path::new("p")).expect("a plan");
        assert_eq!(hit_by(&plan), targets(&[1, 10]));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_spread_over_all_below() {
        let mut random = Random::new(3);
        for (tries, ceiling_us) in
            [(0, 200_000), (1, 400_000), (4, 3_200_000), (5, 5_000_000), (99, 5_000_000)]
        {
            for told in [None, Some(Told::Closed)] {
                let mut pause = || comeback_us(1_000, told, tries, &mut random) - 1_000;
                let pauses: Vec<u64> = (0..200).map(|_| pause()).collect();
                let (low, high) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
                assert!(*high < ceiling_us && high - low > ceiling_us * 3 / 4, "{tries}: {low} to {high}");
            }
        }
    }

    #[test]
    fn nobody_comes_before_its_time_and_in_a_slot_of_its_own_at_that_time() {
        let mut random = Random::new(4);
        let elsewhere = Told::new(1_000, 700, &targets(&[1]));
        assert_eq!(comeback_us(2_000, Some(elsewhere), 3, &mut random), 701_000);
        assert_eq!(comeback_us(900_000, Some(elsewhere), 3, &mut random), 900_000, "its end came late");
        let later = Told::new(1_000, 700, &[]);
        let times: Vec<u64> = (0..200).map(|_| comeback_us(2_000, Some(later), 0, &mut random)).collect();
        assert!(times.iter().all(|at_us| (701_000..901_000).contains(at_us)), "{times:?}");
        assert!(times.iter().max() > times.iter().min(), "not all at once");
        assert_eq!(Told::new(1_000, 0, &[]), Told::Closed);
        assert_eq!(Told::new(1_000, 0, &targets(&[1])), Told::Where(1_000), "now, and elsewhere");
    }
}
