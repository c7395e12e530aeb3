//! Rendezvous hashing: every pair of user and gateway has a score, and a user goes to the gateway of the highest one.
//!
//! Each gateway computes the same order without asking anybody. One that comes takes over only those users whose
//! highest score is now its own, a share from each of the others; one that goes leaves its users to their second
//! choices, which are spread over all that stay. A list of n costs n hashes, some 20 ns each.

use super::Peer;
use std::cmp::Reverse;
use std::sync::Arc;
use wire_protocol::ids::UserId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The first `count` gateways for a user, best first: those of `zone` before others.
pub fn rank<'a>(
    user: UserId,
    zone: &str,
    gateways: impl Iterator<Item = &'a Peer>,
    count: usize,
) -> Vec<Arc<str>> {
    let seed = xxh3_64_with_seed(&user.0, 0);
    let mut scored: Vec<_> = gateways
        .map(|gateway| {
            let is_elsewhere = !zone.is_empty() && *gateway.zone != *zone;
            (is_elsewhere, Reverse(score(seed, &gateway.address)), &gateway.address)
        })
        .collect();
    // Scores are alike once in 2^64; then the addresses decide, so that every gateway says the same.
    scored.sort_unstable();
    scored.truncate(count);
    scored.into_iter().map(|(_, _, address)| address.clone()).collect()
}

fn score(user_seed: u64, address: &str) -> u64 {
    xxh3_64_with_seed(address.as_bytes(), user_seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: u32 = 40_000;

    fn user(number: u32) -> UserId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        UserId(id)
    }

    fn gateways(count: usize) -> Vec<Peer> {
        let peer = |number: usize| Peer {
            address: format!("10.0.0.{number}:8443").into(),
            zone: ["a", "b"][number % 2].into(),
            admits_per_s: None,
        };
        (0..count).map(peer).collect()
    }

    fn first(number: u32, gateways: &[Peer]) -> Arc<str> {
        rank(user(number), "", gateways.iter(), 1).remove(0)
    }

    fn shares(gateways: &[Peer]) -> Vec<usize> {
        let firsts: Vec<_> = (0..USERS).map(|number| first(number, gateways)).collect();
        let of = |gateway: &Peer| firsts.iter().filter(|first| **first == gateway.address).count();
        gateways.iter().map(of).collect()
    }

    #[test]
    fn users_are_spread_evenly() {
        // 4,000 each; the deviation of such a share is 60.
        let shares = shares(&gateways(10));
        assert!(shares.iter().all(|share| (3_700..4_300).contains(share)), "{shares:?}");
    }

    #[test]
    fn one_that_comes_takes_its_share_and_moves_nobody_else() {
        let (before, after) = (gateways(9), gateways(10));
        let newcomer = &after[9].address;
        let mut moved = 0;
        for number in 0..USERS {
            let (old, new) = (first(number, &before), first(number, &after));
            if old != new {
                assert_eq!(new, *newcomer, "a user moves to the newcomer or not at all");
                moved += 1;
            }
        }
        assert!((3_700..4_300).contains(&moved), "a tenth of the users, not {moved}");
    }

    #[test]
    fn who_loses_its_gateway_goes_to_its_second_choice_and_those_are_spread() {
        let all = gateways(10);
        let (gone, left) = (all[4].address.clone(), [&all[..4], &all[5..]].concat());
        let mut taken = vec![0; left.len()];
        for number in 0..USERS {
            let choices = rank(user(number), "", all.iter(), 2);
            let now = first(number, &left);
            let was_there = choices[0] == gone;
            assert_eq!(now, choices[usize::from(was_there)]);
            if was_there {
                taken[left.iter().position(|peer| peer.address == now).expect("it stays")] += 1;
            }
        }
        // 4,000 users over nine: 444 each, deviation 20.
        assert!(taken.iter().all(|share| (340..550).contains(share)), "{taken:?}");
    }

    #[test]
    fn the_own_zone_comes_first_and_the_order_of_the_list_does_not_matter() {
        let mut gateways = gateways(6);
        let ranked = rank(user(7), "b", gateways.iter(), 8);
        assert_eq!(ranked.len(), 6);
        let is_near =
            |address: &Arc<str>| gateways.iter().any(|peer| peer.address == *address && *peer.zone == *"b");
        assert!(ranked[..3].iter().all(is_near) && !ranked[3..].iter().any(is_near), "{ranked:?}");
        gateways.reverse();
        assert_eq!(rank(user(7), "b", gateways.iter(), 8), ranked);
        assert_eq!(rank(user(7), "b", gateways.iter(), 2), ranked[..2]);
    }

    #[test]
    fn the_order_is_the_same_in_every_version() {
        // Gateways of two versions serve side by side: what changes this sends users back and forth.
        let order = rank(user(1), "", gateways(4).iter(), 4);
        assert_eq!(order.iter().map(|address| &address[7..8]).collect::<String>(), "1032");
    }
}
