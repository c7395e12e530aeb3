//! Brings leaders back to where they should be: a node that leads a shard in place of the replica that is preferred
//! hands it over, one shard at a time, once the fleet was calm for a while. A state machine of one node: it is told
//! who leads and what happens, and says which shard goes next. How a hand-over is done is not its matter (`shard/`).
//!
//! A preferred replica that lost leadership, or did not take it, is left alone for a while, and each time for twice as
//! long: whatever ails it may go on.
//!
//! Time in which nobody looked is no time: a machine's clock that was set ahead, or a machine that slept, makes no calm.

use std::collections::BTreeMap;
use wire_protocol::ids::ShardId;

/// No leader was lost and no link was made for so long, in milliseconds: whoever came back has caught up, or is known
/// not to have; and nobody restarts one node after another with longer pauses that are not meant as such.
pub const CALM_MS: u64 = 10_000;
/// Between two hand-overs of a node, in milliseconds: each costs its shard some hundredths of a second.
pub const HAND_OVERS_APART_MS: u64 = 1_000;
/// A hand-over that did not happen within so long, in milliseconds, was refused: twice a shard's patience.
pub const HANDED_OVER_MS_MAX: u64 = 1_000;
/// A replica that lost or refused leadership is left alone for so long, in milliseconds,
pub const LEFT_ALONE_MS: u64 = 30_000;
/// and twice as long each further time, up to so many times: half an hour.
pub const LEFT_ALONE_DOUBLINGS_MAX: u32 = 6;

/// Two looks that are further apart, in milliseconds, have nothing between them that counts: a node looks twice in this time.
const LOOKS_APART_MS_MAX: u64 = 1_000;

const _: () = {
    assert!(HAND_OVERS_APART_MS >= HANDED_OVER_MS_MAX);
    assert!(LEFT_ALONE_MS > CALM_MS);
    assert!(LOOKS_APART_MS_MAX < CALM_MS);
};

/// The times of a balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// See [`CALM_MS`].
    pub calm_ms: u64,
    /// See [`HAND_OVERS_APART_MS`].
    pub apart_ms: u64,
    /// See [`LEFT_ALONE_MS`].
    pub left_alone_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { calm_ms: CALM_MS, apart_ms: HAND_OVERS_APART_MS, left_alone_ms: LEFT_ALONE_MS }
    }
}

/// A shard that this node leads although another replica should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Astray {
    /// Which.
    pub shard: ShardId,
    /// Who should lead it.
    pub preferred: u32,
    /// Whether that one could lead at once.
    pub could_lead: bool,
}

/// What is known of a shard. Times are the balance's own.
#[derive(Debug, Default)]
struct Known {
    leader: Option<u32>,
    /// Since when the preferred replica leads.
    home_since_ms: u64,
    /// How often it lost or refused leadership in a row, and until when it is left alone for that.
    losses: u32,
    left_alone_until_ms: u64,
}

/// A hand-over under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    shard: ShardId,
    begun_ms: u64,
}

/// One node's. What it is told in the node's time it counts in its own (see [`Self::time_at`]).
#[derive(Debug)]
pub struct Balance {
    pace: Pace,
    /// The node's time at the last look; `None` before the first.
    looked_ms: Option<u64>,
    /// What has counted until then, in milliseconds.
    time_ms: u64,
    /// The last disturbance; `None` before the first event.
    disturbed_ms: Option<u64>,
    /// When the last hand-over began.
    begun_ms: u64,
    under_way: Option<UnderWay>,
    /// Of shards that were ever heard of: as many as the fleet has.
    shards: BTreeMap<ShardId, Known>,
}

impl Balance {
    /// Knows nothing yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            looked_ms: None,
            time_ms: 0,
            disturbed_ms: None,
            begun_ms: 0,
            under_way: None,
            shards: BTreeMap::new(),
        }
    }

    /// The balance's own time.
    fn time_at(&mut self, now_ms: u64) -> u64 {
        let looked_ms = *self.looked_ms.get_or_insert(now_ms);
        self.looked_ms = Some(looked_ms.max(now_ms));
        let passed_ms = now_ms.saturating_sub(looked_ms);
        self.time_ms += if passed_ms <= LOOKS_APART_MS_MAX { passed_ms } else { 0 };
        self.time_ms
    }

    /// Something that a fleet in peace does not do.
    pub fn handle_disturbance(&mut self, now_ms: u64) {
        self.disturbed_ms = Some(self.time_at(now_ms));
    }

    /// `leader` leads the shard now, and `preferred` should. What is known already may be told again.
    pub fn handle_leader(&mut self, now_ms: u64, shard: ShardId, leader: u32, preferred: u32) {
        let time_ms = self.time_at(now_ms);
        let known = self.shards.entry(shard).or_default();
        let before = known.leader.replace(leader);
        if before == Some(leader) {
            return;
        }
        if leader == preferred {
            known.home_since_ms = time_ms;
            self.under_way = self.under_way.filter(|under_way| under_way.shard != shard);
            return;
        }
        if before == Some(preferred) {
            if time_ms.saturating_sub(known.home_since_ms) > self.pace.left_alone_ms {
                known.losses = 0;
            }
            known.leave_alone(time_ms, self.pace);
        }
        self.disturbed_ms = Some(time_ms);
    }

    /// Looks at shards that this node leads astray, of which any part may be given, and names the one to be handed over
    /// now, to its preferred replica.
    pub fn poll(&mut self, now_ms: u64, astray: impl IntoIterator<Item = Astray>) -> Option<ShardId> {
        let time_ms = self.time_at(now_ms);
        let disturbed_ms = *self.disturbed_ms.get_or_insert(time_ms);
        if let Some(UnderWay { shard, begun_ms }) = self.under_way {
            if time_ms.saturating_sub(begun_ms) < HANDED_OVER_MS_MAX {
                return None;
            }
            self.under_way = None;
            self.shards.entry(shard).or_default().leave_alone(time_ms, self.pace);
        }
        let is_calm = time_ms.saturating_sub(disturbed_ms) >= self.pace.calm_ms;
        if !is_calm || time_ms.saturating_sub(self.begun_ms) < self.pace.apart_ms {
            return None;
        }
        let is_next = |astray: &Astray| {
            let known = self.shards.get(&astray.shard);
            astray.could_lead && known.is_none_or(|known| known.left_alone_until_ms <= time_ms)
        };
        let shard = astray.into_iter().filter(is_next).map(|astray| astray.shard).next()?;
        self.begun_ms = time_ms;
        self.under_way = Some(UnderWay { shard, begun_ms: time_ms });
        Some(shard)
    }
}

impl Known {
    fn leave_alone(&mut self, time_ms: u64, pace: Pace) {
        self.left_alone_until_ms = time_ms + (pace.left_alone_ms << self.losses);
        self.losses = (self.losses + 1).min(LEFT_ALONE_DOUBLINGS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFERRED: u32 = 1;
    const OWN: u32 = 2;

    fn astray(shard: u32) -> Astray {
        Astray { shard: ShardId(shard), preferred: PREFERRED, could_lead: true }
    }

    /// This node has led these shards from 0 on, where nobody led before.
    fn leading(shards: u32) -> Balance {
        let mut balance = Balance::new(Pace::default());
        (0..shards).for_each(|shard| balance.handle_leader(0, ShardId(shard), OWN, PREFERRED));
        balance
    }

    /// Polls every 100 ms up to `until_ms`; who goes, and when.
    fn polled(balance: &mut Balance, from_ms: u64, until_ms: u64, shards: &[Astray]) -> Vec<(u64, u32)> {
        let times = (from_ms..until_ms).step_by(100);
        times.filter_map(|now_ms| Some((now_ms, balance.poll(now_ms, shards.to_vec())?.0))).collect()
    }

    #[test]
    fn one_shard_after_another_goes_home_once_all_is_calm() {
        let mut balance = leading(3);
        assert_eq!(polled(&mut balance, 0, CALM_MS, &[astray(0), astray(1)]), []);
        assert_eq!(balance.poll(CALM_MS, [astray(0), astray(1)]), Some(ShardId(0)));
        balance.handle_leader(CALM_MS + 20, ShardId(0), PREFERRED, PREFERRED);
        let rest = [astray(1), astray(2)];
        let next_ms = CALM_MS + HAND_OVERS_APART_MS;
        assert_eq!(polled(&mut balance, CALM_MS + 100, next_ms + 100, &rest), [(next_ms, 1)]);
        balance.handle_leader(next_ms + 20, ShardId(1), PREFERRED, PREFERRED);
        let last_ms = next_ms + HAND_OVERS_APART_MS;
        assert_eq!(polled(&mut balance, next_ms + 100, last_ms + 500, &rest[1..]), [(last_ms, 2)]);
    }

    #[test]
    fn a_disturbance_begins_the_wait_anew_and_what_is_known_does_not() {
        let mut balance = leading(1);
        balance.handle_leader(5_000, ShardId(0), OWN, PREFERRED);
        balance.handle_disturbance(7_000);
        balance.handle_leader(8_000, ShardId(5), 3, 4);
        assert_eq!(polled(&mut balance, 8_000, 8_000 + CALM_MS, &[astray(0)]), []);
        balance.handle_leader(8_000 + CALM_MS, ShardId(5), 4, 4);
        assert_eq!(balance.poll(8_000 + CALM_MS, [astray(0)]), Some(ShardId(0)), "that was no disturbance");
    }

    #[test]
    fn who_could_not_lead_is_passed_over() {
        let mut balance = leading(2);
        let away = Astray { could_lead: false, ..astray(0) };
        assert_eq!(polled(&mut balance, 0, CALM_MS + 100, &[away]), []);
        assert_eq!(balance.poll(CALM_MS, [away, astray(1)]), Some(ShardId(1)));
    }

    #[test]
    fn who_refuses_is_left_alone_and_each_time_for_longer_while_others_go_on() {
        let mut balance = leading(2);
        let until_ms = CALM_MS + 8 * LEFT_ALONE_MS;
        let tries = polled(&mut balance, 0, until_ms, &[astray(0)]);
        let refused_ms = |begun_ms: u64| begun_ms + HANDED_OVER_MS_MAX;
        let second_ms = refused_ms(CALM_MS) + LEFT_ALONE_MS;
        let third_ms = refused_ms(second_ms) + 2 * LEFT_ALONE_MS;
        let fourth_ms = refused_ms(third_ms) + 4 * LEFT_ALONE_MS;
        assert_eq!(tries, [(CALM_MS, 0), (second_ms, 0), (third_ms, 0), (fourth_ms, 0)]);
        let after_ms = refused_ms(fourth_ms);
        assert_eq!(balance.poll(after_ms, [astray(0), astray(1)]), Some(ShardId(1)));
    }

    #[test]
    fn who_lost_leadership_is_left_alone_beyond_the_calm_and_never_goes_back_and_forth() {
        let mut balance = Balance::new(Pace::default());
        let mut handed_over = Vec::new();
        balance.handle_leader(0, ShardId(0), PREFERRED, PREFERRED);
        balance.handle_leader(100, ShardId(0), OWN, PREFERRED);
        // A replica that takes leadership, and loses it five seconds later, for two hours.
        let mut back_ms = None;
        for now_ms in (100..7_200_000).step_by(100) {
            if balance.poll(now_ms, back_ms.is_none().then_some(astray(0))).is_some() {
                handed_over.push(now_ms);
                balance.handle_leader(now_ms + 20, ShardId(0), PREFERRED, PREFERRED);
                back_ms = Some(now_ms + 5_000);
            }
            if back_ms == Some(now_ms) {
                balance.handle_leader(now_ms, ShardId(0), OWN, PREFERRED);
                back_ms = None;
            }
        }
        assert_eq!(handed_over[0], 100 + LEFT_ALONE_MS);
        let apart: Vec<u64> =
            handed_over.windows(2).map(|pair| (pair[1] - pair[0]) / LEFT_ALONE_MS).collect();
        assert_eq!(apart, [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn a_loss_after_long_service_counts_as_the_first() {
        let mut balance = leading(1);
        balance.handle_leader(100, ShardId(0), PREFERRED, PREFERRED);
        let mut now_ms = 100;
        for _ in 0..3 {
            assert_eq!(polled(&mut balance, now_ms, now_ms + 2 * LEFT_ALONE_MS, &[]), []);
            now_ms += 2 * LEFT_ALONE_MS;
            balance.handle_leader(now_ms, ShardId(0), OWN, PREFERRED);
            let back_ms = now_ms + LEFT_ALONE_MS;
            assert_eq!(polled(&mut balance, now_ms, back_ms + 100, &[astray(0)]), [(back_ms, 0)]);
            now_ms = back_ms;
            balance.handle_leader(now_ms, ShardId(0), PREFERRED, PREFERRED);
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_no_calm_and_ends_no_leaving_alone() {
        const HOUR_MS: u64 = 3_600_000;
        let mut balance = leading(1);
        assert_eq!(polled(&mut balance, 0, 2_000, &[astray(0)]), []);
        let calm_ms = HOUR_MS + CALM_MS;
        let begun = polled(&mut balance, HOUR_MS + 1_900, calm_ms + 100, &[astray(0)]);
        assert_eq!(begun, [(calm_ms, 0)]);
        // It refuses, and is left alone, whatever the clock says.
        let refused_ms = calm_ms + HANDED_OVER_MS_MAX;
        assert_eq!(polled(&mut balance, calm_ms + 100, refused_ms + 1_000, &[astray(0)]), []);
        let later_ms = refused_ms + HOUR_MS;
        assert_eq!(polled(&mut balance, later_ms, later_ms + LEFT_ALONE_MS / 2, &[astray(0)]), []);
        // A clock that falls, which a node's does not, adds nothing.
        assert_eq!(polled(&mut balance, 0, LEFT_ALONE_MS, &[astray(0)]), []);
    }
}
