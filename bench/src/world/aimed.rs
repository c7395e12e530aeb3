//! Faults that are aimed at whoever leads, and what is watched of elections.

use super::agenda::Due;
use super::device::Mood;
use super::faults::Aim;
use super::{HOSTS, START_MS, Stage, World, around, both_ways};
use std::ops::Range;
use storage_node::sim::{Crash, Standing, TICK_MS};

/// While nobody leads, it is looked again after so long, in milliseconds.
const AIM_AGAIN_MS: u64 = 50;
/// A voter is away no longer than this, in milliseconds: it is back before others stand for election, or soon enough to
/// be asked by the next one.
const VOTER_AWAY_MS: u64 = 60;
/// Until what was written before it is on all copies, in milliseconds.
const SETTLE_MS: u64 = 400;
/// The third one forgets its leader so long before whoever does not hear that one stands for election, in milliseconds.
const PART_MS: Range<u64> = 20..320;
/// A node that has no room for its log is tried again after so long, at most; in milliseconds.
const FULL_AWAY_MS: u64 = 500;
/// From a vote until its voter goes, at most, in milliseconds: before it is on disk, before it is sent, or after.
const STRIKE_MS: u64 = 15;

/// A voter that goes when it has voted.
pub struct Watch {
    fault: usize,
    host: usize,
    crash: Crash,
    /// By shard: the term in which it is known to have voted, or not.
    terms: Vec<u64>,
    has_voted: bool,
}

impl World {
    /// Who leads a shard; of two that think so, the one of the newer term.
    fn leader(&mut self, shard: u32) -> Option<usize> {
        let standings = self.nodes.iter_mut().map(|node| (node.host, node.standing(shard)));
        let leading =
            standings.filter_map(|(host, standing)| Some((standing.filter(|it| it.leads)?.term, host)));
        leading.max().map(|(_, host)| host)
    }

    fn is_over(&self, fault: usize) -> bool {
        let planned = &self.faults[fault];
        self.outside.now_ms >= START_MS + planned.at_ms + planned.lasts_ms
    }

    /// The numbered fault begins, if somebody leads.
    pub(super) fn aim(&mut self, number: usize, shard: u32, aim: &Aim) {
        let planned = &self.faults[number];
        let ends_ms = START_MS + planned.at_ms + planned.lasts_ms;
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
            Aim::Voter(crash) => self.watch_voter(number, leader, *crash),
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

    fn watch_voter(&mut self, fault: usize, host: usize, crash: Crash) {
        let others = move |other: usize| HOSTS.node_place(other).is_some() && other != host;
        self.cut(fault, both_ways(&|from, to| others(from) && others(to)));
        let shards = 0..self.applied.len() as u32;
        let node = self.node_mut(host);
        let terms = shards.map(|shard| node.standing(shard).map_or(0, |standing| standing.term)).collect();
        self.watch = Some(Watch { fault, host, crash, terms, has_voted: false });
        let away_ms = 1 + self.outside.up_to(VOTER_AWAY_MS);
        self.crash(host, crash, away_ms);
    }

    /// The voter has voted, and goes; whom it voted for does not hear of it again.
    pub(super) fn strike(&mut self, fault: usize, voted_for: usize) {
        let Some(Watch { host, crash, .. }) = self.watch.take_if(|watch| watch.fault == fault) else {
            return;
        };
        self.cut(fault, between(host, voted_for));
        if self.node_mut(host).is_up() {
            let away_ms = 1 + self.outside.up_to(VOTER_AWAY_MS);
            self.crash(host, crash, away_ms);
        }
    }

    /// A node did something: who leads is noted, and a voter that is watched may have voted.
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
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.host == host && !watch.has_voted) else {
            return;
        };
        let voted_for =
            standing.voted_for.map(|node| HOSTS.host_of_node(node)).filter(|other| *other != host);
        if let Some(voted_for) = voted_for.filter(|_| standing.term > watch.terms[shard as usize]) {
            watch.has_voted = true;
            let strike = Due::Strike { fault: watch.fault, voted_for };
            let at_ms = self.outside.now_ms + self.outside.up_to(STRIKE_MS);
            self.outside.agenda.plan(at_ms, strike);
        }
    }
}

fn between(one: usize, other: usize) -> Vec<(usize, usize)> {
    vec![(one, other), (other, one)]
}
