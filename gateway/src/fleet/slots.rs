//! When each client of a gateway that leaves is to go. Pure.
//!
//! Clients go one after the other, as many a second as the other gateways take beside those who come to them anyway.
//! While the gateway can stay it serves each of them until its turn, and then says: go now. When it must end before all
//! have had their turns, it tells the others how long they are to wait.

use super::FleetView;

/// What a gateway that names no number takes a second.
const ADMITS_PER_S_DEFAULT: u32 = 1_000;
/// A gateway that leaves uses one in this many of the places of the others: so two that leave at once, or one that
/// leaves and one that is lost, do not overrun those who stay.
const SHARE: u32 = 2;
/// Wait of a client that is to come back here, in milliseconds: a process that is replaced needs about that.
const COME_BACK_MS: u64 = 500;

/// How one core of a gateway that leaves sends its clients away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeavePlan {
    /// Between two clients, in microseconds.
    interval_us: u64,
    /// Of the first client.
    first_ms: u64,
    /// For so long the core serves those whose turn has not come.
    window_ms: u64,
}

impl LeavePlan {
    /// For one of `cores` cores. Without other gateways there is no window: clients come back to this one's successor,
    /// which admits `own_per_s`.
    pub fn new(fleet: &FleetView, own_per_s: Option<u32>, window_ms: u64, cores: usize) -> Self {
        let admits = |per_s: Option<u32>| u64::from(per_s.unwrap_or(ADMITS_PER_S_DEFAULT));
        let others: u64 = fleet.others.iter().map(|peer| admits(peer.admits_per_s)).sum();
        let (per_s, first_ms, window_ms) = match fleet.others.is_empty() {
            false => (others / u64::from(SHARE), 0, window_ms),
            true => (admits(own_per_s) / u64::from(SHARE), COME_BACK_MS, 0),
        };
        Self { interval_us: (cores.max(1) as u64 * 1_000_000).div_ceil(per_s.max(1)), first_ms, window_ms }
    }

    /// How long the core serves on.
    pub fn window_ms(self) -> u64 {
        self.window_ms
    }

    /// When the client that is the `number`th to go is to connect elsewhere, in milliseconds after the beginning.
    pub fn slot_ms(self, number: usize) -> u64 {
        self.first_ms + number as u64 * self.interval_us / 1_000
    }

    /// What a client is told that goes as the `number`th, `elapsed_ms` after the beginning.
    pub fn wait_ms(self, number: usize, elapsed_ms: u64) -> u32 {
        u32::try_from(self.slot_ms(number).saturating_sub(elapsed_ms)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Peer;
    use super::*;

    fn fleet(admits: &[Option<u32>]) -> FleetView {
        let peer = |(number, per_s): (usize, &Option<u32>)| Peer {
            address: format!("g{number}:1").into(),
            zone: "".into(),
            admits_per_s: *per_s,
        };
        FleetView { own: None, others: admits.iter().enumerate().map(peer).collect() }
    }

    /// Clients that all cores together send away in each second.
    fn arrivals(plan: LeavePlan, cores: usize, clients_per_core: usize) -> Vec<u64> {
        let mut seconds = vec![0; 1_000];
        for number in 0..clients_per_core {
            seconds[(plan.slot_ms(number) / 1_000) as usize] += cores as u64;
        }
        seconds.truncate(seconds.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1));
        seconds
    }

    #[test]
    fn no_second_brings_more_than_half_of_what_the_others_take() {
        let plan = LeavePlan::new(&fleet(&[Some(2_000), Some(500), None]), None, 20_000, 4);
        let seconds = arrivals(plan, 4, 15_000);
        assert!(seconds.iter().all(|&count| count <= 1_752), "{seconds:?}");
        assert_eq!(seconds.len(), 35, "60,000 clients at 1,750 a second");
    }

    #[test]
    fn whose_turn_does_not_come_in_time_is_told_how_long_to_wait() {
        let plan = LeavePlan::new(&fleet(&[Some(200)]), None, 10_000, 1);
        assert_eq!(plan.window_ms(), 10_000);
        assert_eq!((plan.slot_ms(0), plan.slot_ms(100), plan.slot_ms(1_000)), (0, 1_000, 10_000));
        assert_eq!(plan.wait_ms(1_500, 10_000), 5_000);
        assert_eq!(plan.wait_ms(100, 1_007), 0, "who is served until its turn goes at once");
    }

    #[test]
    fn without_others_everybody_comes_back_here_after_a_while() {
        let plan = LeavePlan::new(&fleet(&[]), Some(1_000), 20_000, 2);
        assert_eq!((plan.window_ms(), plan.slot_ms(0), plan.slot_ms(250)), (0, 500, 1_500));
        let seconds = arrivals(plan, 2, 10_000);
        assert!(seconds.iter().all(|&count| count <= 502), "{seconds:?}");
    }
}
