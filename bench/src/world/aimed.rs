//! Faults that are aimed at whoever leads, and what is watched of elections.

use super::agenda::Due;
use super::device::Mood;
use super::faults::Aim;
use super::{HOSTS, START_MS, Stage, World, around, both_ways};
use std::ops::Range;
use storage_node::sim::{Crash, Standing, TICK_MS};

/// While nobody leads, it is looked again after so long, in milliseconds.
const AIM_AGAIN_MS: u64 = 50;
/// Whoever is to forget something is away no longer than this, in milliseconds: it is back before others stand for election.
const VOTER_AWAY_MS: u64 = 60;
/// A voter that came back helps nobody for an election's time, and then stands for election itself: after 1.3 s or 1.6, unless
/// it should lead. The leader of before, which mostly should, stands an election's time after it is back. So it comes back
/// later than the voter by this, in milliseconds, and asks in between.
const LEADER_LATER_MS: u64 = 150;
/// Until what was written before it is on all copies, in milliseconds.
const SETTLE_MS: u64 = 400;
/// The third one forgets its leader so long before whoever does not hear that one stands for election, in milliseconds.
const PART_MS: Range<u64> = 20..320;
/// A node that has no room for its log is tried again after so long, at most; in milliseconds.
const FULL_AWAY_MS: u64 = 500;
/// From an election until its voter goes, at most, in milliseconds.
const STRIKE_MS: u64 = 15;

/// A vote that is waited for. When somebody leads by it, its voter goes.
pub struct Watch {
    fault: usize,
    shard: u32,
    /// Whoever led when it began.
    leader: usize,
    crash: Crash,
    /// The newest of the shard when it began.
    term: u64,
    vote: Option<Vote>,
}

/// A host's vote for another.
#[derive(Clone, Copy)]
struct Vote {
    voter: usize,
    candidate: usize,
    term: u64,
}

impl World {
    /// Who leads a shard; of two that think so, the one of the newer term.
    pub(super) fn leader(&mut self, shard: u32) -> Option<usize> {
        let standings = self.nodes.iter_mut().map(|node| (node.host, node.standing(shard)));
        let leading =
            standings.filter_map(|(host, standing)| Some((standing.filter(|it| it.leads)?.term, host)));
        leading.max().map(|(_, host)| host)
    }

    /// When the numbered fault ends.
    pub(super) fn ends_ms(&self, fault: usize) -> u64 {
        let planned = &self.faults[fault];
        START_MS + planned.at_ms + planned.lasts_ms
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self, fault: usize) -> bool {
        self.outside.now_ms >= self.ends_ms(fault)
    }

    /// The numbered fault begins, if somebody leads.
    pub(super) fn aim(&mut self, number: usize, shard: u32, aim: &Aim) {
        let ends_ms = self.ends_ms(number);
        let shard = shard % self.applied.len() as u32;
        let Some(leader) = self.leader(shard) else {
            let again_ms = self.outside.now_ms + AIM_AGAIN_MS;
            if again_ms < ends_ms {
                self.outside.agenda.plan(again_ms, Due::Fault(number));
            }
            return;
        };
        match aim {
            Aim::Apart(gateway) => {
                self.cut_off_with(number, leader, *gateway);
                self.turn_devices_to(Mood::Hasty);
            }
            Aim::Forgotten(gateway) => {
                self.turn_devices_to(Mood::Reading);
                let at_ms = self.outside.now_ms + SETTLE_MS;
                let forget = Due::Forget { fault: number, shard, leader, gateway: *gateway, deaf: None };
                self.outside.agenda.plan(at_ms, forget);
            }
            Aim::Alone => {
                let is_peer = |host: usize| HOSTS.node_place(host).is_some();
                let from_peers =
                    |a: usize, b: usize| (a == leader && is_peer(b)) || (b == leader && is_peer(a));
                self.cut(number, both_ways(&from_peers));
                self.turn_devices_to(Mood::Hasty);
            }
            Aim::Full(room_bytes) => {
                self.fill(number, leader, *room_bytes);
                self.turn_devices_to(Mood::Hasty);
            }
            Aim::Unreached(gateway) => self.cut(number, between(leader, *gateway)),
            Aim::Paused { gateway, for_ms } => {
                self.cut_off_with(number, leader, *gateway);
                self.turn_devices_to(Mood::Hasty);
                let left_ms = ends_ms.saturating_sub(self.outside.now_ms);
                self.pause(leader, left_ms.min(*for_ms));
            }
            Aim::Voter(crash) => self.watch_voter(number, shard, leader, *crash),
        }
    }

    /// Only one gateway and the devices there hear the leader.
    fn cut_off_with(&mut self, number: usize, leader: usize, gateway: usize) {
        let devices = self.devices.iter().filter(|device| device.gateway() == Some(gateway));
        let mut part: Vec<usize> = devices.map(|device| device.host).collect();
        part.extend([leader, gateway]);
        self.cut(number, around(&part));
    }

    /// What was written is on all copies: from here on one of the others does not hear the leader.
    pub(super) fn deafen(&mut self, fault: usize, shard: u32, leader: usize, gateway: usize) {
        if self.is_over(fault) {
            return;
        }
        let mut others: Vec<usize> = (0..HOSTS.nodes).filter(|host| *host != leader).collect();
        let deaf = others.swap_remove(self.outside.up_to(others.len() as u64 - 1) as usize);
        self.cut(fault, between(leader, deaf));
        let stands_in = self.node_mut(deaf).standing(shard).map_or(0, |standing| standing.stands_in_ticks);
        let before_ms = PART_MS.start + self.outside.up_to(PART_MS.end - PART_MS.start);
        let at_ms = self.outside.now_ms + (stands_in * TICK_MS).saturating_sub(before_ms);
        let forget = Due::Forget { fault, shard, leader, gateway, deaf: Some(deaf) };
        self.outside.agenda.plan(at_ms, forget);
    }

    /// Who heard the leader a moment ago forgets what is not on its disk, and hears it no more.
    pub(super) fn let_forget(&mut self, fault: usize, leader: usize, gateway: usize, deaf: usize) {
        if self.is_over(fault) {
            return;
        }
        self.cut_off_with(fault, leader, gateway);
        self.turn_devices_to(Mood::Hasty);
        let follower = (0..HOSTS.nodes).find(|host| *host != leader && *host != deaf);
        if let Some(follower) = follower.filter(|host| self.node_mut(*host).is_up()) {
            let away_ms = 1 + self.outside.up_to(VOTER_AWAY_MS);
            self.crash(follower, Crash::Process, away_ms);
            self.tried.patience_tried += 1;
        }
    }

    /// The numbered fault fills the disk of a node.
    pub(super) fn fill(&mut self, number: usize, host: usize, room_bytes: usize) {
        let away_ms = 1 + self.outside.up_to(FULL_AWAY_MS);
        self.torn[host] = (Crash::Process, away_ms);
        self.node_mut(host).fill(Some(room_bytes));
        self.filled[number] = Some(host);
    }

    /// There is room again on the disk that the numbered fault has filled.
    pub(super) fn empty(&mut self, number: usize) {
        if let Some(host) = self.filled[number].take() {
            self.node_mut(host).fill(None);
        }
    }

    /// The numbered fault ends.
    pub(super) fn end_aim(&mut self, number: usize) {
        if matches!(self.stage, Stage::Busy { .. }) {
            self.turn_devices_to(Mood::Busy);
        }
        self.watch.take_if(|watch| watch.fault == number);
        self.empty(number);
    }

    /// The leader goes for as long as the fault lasts, or until somebody has voted for another.
    fn watch_voter(&mut self, fault: usize, shard: u32, leader: usize, crash: Crash) {
        let standings = self.nodes.iter_mut().filter_map(|node| node.standing(shard));
        let term = standings.map(|standing| standing.term).max().unwrap_or(0);
        self.watch = Some(Watch { fault, shard, leader, crash, term, vote: None });
        let away_ms = self.ends_ms(fault).saturating_sub(self.outside.now_ms);
        self.crash(leader, crash, away_ms);
    }

    /// The voter has elected somebody, and goes. It comes back to the leader of before, which comes back, too: neither hears
    /// of the one that was elected, so that the vote of the same term is asked for again.
    pub(super) fn strike(&mut self, fault: usize, voted_for: usize) {
        let watch = self.watch.take_if(|watch| watch.fault == fault);
        let Some(Watch { leader, crash, vote: Some(Vote { voter, .. }), .. }) = watch else { return };
        self.cut(fault, between(voter, voted_for));
        if self.node_mut(voter).is_up() {
            let away_ms = 1 + self.outside.up_to(VOTER_AWAY_MS);
            self.crash(voter, crash, away_ms);
            let back_ms = self.outside.now_ms + away_ms + LEADER_LATER_MS;
            self.outside.agenda.plan(back_ms, Due::Start(leader));
            self.tried.voters_struck += 1;
        }
    }

    /// A node did something: who leads is noted, and a vote that is waited for may have been given, or have won.
    pub(super) fn watch_elections(&mut self, host: usize) {
        for shard in 0..self.applied.len() as u32 {
            let Some(standing) = self.node_mut(host).standing(shard) else { return };
            if standing.leads {
                self.story.history.leaders.entry((shard, standing.term)).or_default().insert(host);
            }
            self.watch_vote(host, shard, standing);
        }
    }

    fn watch_vote(&mut self, host: usize, shard: u32, standing: Standing) {
        let watch = self.watch.as_mut().filter(|watch| watch.shard == shard && watch.leader != host);
        let Some(watch) = watch else { return };
        let Standing { term, leads, voted_for, .. } = standing;
        let (fault, leader) = (watch.fault, watch.leader);
        match watch.vote {
            None if term > watch.term => {
                let voted_for = voted_for.map(|node| HOSTS.host_of_node(node));
                let candidate = voted_for.filter(|other| ![host, leader].contains(other));
                if let Some(candidate) = candidate {
                    watch.vote = Some(Vote { voter: host, candidate, term });
                    // The vote may arrive, but nothing that the candidate writes once it leads: who has that elects
                    // nobody who lacks it.
                    self.cut(fault, vec![(candidate, host)]);
                    self.cut(fault, between(candidate, leader));
                }
            }
            Some(vote) if leads && (vote.candidate, vote.term) == (host, term) => {
                let strike = Due::Strike { fault, voted_for: host };
                let at_ms = self.outside.now_ms + self.outside.up_to(STRIKE_MS);
                self.outside.agenda.plan(at_ms, strike);
            }
            _ => {}
        }
    }
}

fn between(one: usize, other: usize) -> Vec<(usize, usize)> {
    vec![(one, other), (other, one)]
}
