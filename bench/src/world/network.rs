//! Connections as TCP has them, between hosts that are numbers.
//!
//! Within one connection bytes keep their order and are neither lost nor doubled: nothing else can be, since links and
//! clients speak TLS over TCP. What can happen:
//! - **delay**: of each parcel its own; a parcel waits for those before it.
//! - **cut** (both ways, or one alone): parcels wait until it ends, as TCP sends them again; nobody is told. A
//!   connection is made only while neither way is cut.
//! - **reset**: what is on its way is lost, or still arrives, for each direction by itself, and each end learns of the
//!   end at its own time. Its owner connects again and says again what was not answered: so over two connections
//!   messages are **lost, doubled, and overtake each other**.
//! - **cut off** by one end: what it has said and has not arrived is lost, and the other one learns of the end.
//! - **a process that pauses**: what comes to it waits at its machine, and arrives when it goes on, whatever is cut by then,
//!   each connection by itself: what a newer one has brought may come before what waits in an older one.
//!   A link holds only so much in one direction: beyond, its sender waits.
//! - **a host that goes**: its process dies and its peers hear so; or its power fails, and they hear nothing.

use super::agenda::{Agenda, Due};
use crate::workload::random::Random;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A parcel takes at least this long, in milliseconds, and mostly not much longer.
const DELAY_MS_MIN: u64 = 0;
const DELAY_MS_USUAL: u64 = 3;
/// One parcel in so many takes up to this long.
const DELAY_RARE: u64 = 50;
const DELAY_MS_MAX: u64 = 120;
/// What is cut is tried again after up to this long, in milliseconds.
const RESEND_MS: u64 = 300;
/// A connection that is not made by then fails, in milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;
/// A process that goes on has read what waits for it after less than this, in milliseconds.
const READ_MS: u64 = 3;
/// Bytes under way in one direction of a link, in both machines and between them, at which its sender has to wait.
const UNDER_WAY_BYTES_MAX: usize = 256 << 10;

/// Connections of one host to another that take each other's place: there is one at a time, for the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Line {
    /// Who connects.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// Which of several lines between the two.
    pub number: usize,
}

/// One connection. Never used twice; later ones have higher numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId(u64);

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// Who connected.
    Caller,
    /// Whom it connected to.
    Accepter,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Caller => Self::Accepter,
            Self::Accepter => Self::Caller,
        }
    }
}

/// What arrives at an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parcel {
    /// To the accepter: somebody connected.
    Accepted,
    /// To the caller: the connection is made.
    Connected,
    /// Bytes.
    Bytes(Bytes),
    /// The connection is gone, or did not come about.
    Closed,
}

impl Parcel {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Accepted | Self::Connected | Self::Closed => 0,
        }
    }
}

/// How a host goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Going {
    /// Its machine ends its connections.
    Process,
    /// Nobody is told.
    Power,
}

/// What is for one side of a connection.
struct Way {
    /// On their way to it.
    parcels: VecDeque<Parcel>,
    /// Its machine has them; its process pauses.
    taken: VecDeque<Parcel>,
    /// In all of these.
    bytes: usize,
    /// When the last of them arrives.
    last_ms: u64,
}

impl Way {
    fn new(now_ms: u64) -> Self {
        Self { parcels: VecDeque::new(), taken: VecDeque::new(), bytes: 0, last_ms: now_ms }
    }

    fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.bytes();
        self.parcels.push_back(parcel);
    }

    /// Nobody is there any more whom it is for.
    fn clear(&mut self) {
        self.taken.clear();
        self.lose(|_| false);
    }

    /// What is on its way is lost, but for some.
    fn lose(&mut self, is_kept: impl FnMut(&Parcel) -> bool) {
        self.parcels.retain(is_kept);
        self.bytes = self.parcels.iter().chain(&self.taken).map(Parcel::bytes).sum();
    }
}

struct Connection {
    line: Line,
    /// By the side that each is for.
    ways: [Way; 2],
    /// Whether the end still has an owner.
    is_owned: [bool; 2],
    is_reset: bool,
    asked_ms: u64,
}

impl Connection {
    /// By side.
    fn hosts(&self) -> [usize; 2] {
        [self.line.from, self.line.to]
    }
}

/// All connections.
pub struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    /// The newest connection of each line over which bytes have come to its accepter.
    newest: BTreeMap<Line, ConnectionId>,
    /// Parcels of bytes that came to an accepter after some of a later connection of the same line.
    pub overtaken: u64,
    number_last: u64,
    cuts: BTreeSet<(usize, usize)>,
    is_up: Vec<bool>,
    /// Hosts whose processes pause, and until when.
    paused: BTreeMap<usize, u64>,
    /// Milliseconds that each parcel from or to a host takes longer.
    slowness: BTreeMap<usize, u64>,
}

impl Network {
    /// Nobody is connected, and every host is down.
    pub fn new(hosts: usize) -> Self {
        Self {
            connections: BTreeMap::new(),
            newest: BTreeMap::new(),
            overtaken: 0,
            number_last: 0,
            cuts: BTreeSet::new(),
            is_up: vec![false; hosts],
            paused: BTreeMap::new(),
            slowness: BTreeMap::new(),
        }
    }

    /// Nothing goes from one host to the other.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    /// It goes again.
    pub fn mend(&mut self, from: usize, to: usize) {
        self.cuts.remove(&(from, to));
    }

    /// Everything goes everywhere.
    pub fn mend_all(&mut self) {
        self.cuts.clear();
        self.slowness.clear();
    }

    /// Parcels from and to this host take longer; 0: as usual.
    pub fn slow(&mut self, host: usize, more_ms: u64) {
        self.slowness.insert(host, more_ms);
    }

    /// The host's process does nothing until then, or until it goes: its machine takes connections and bytes for it.
    pub fn pause(&mut self, host: usize, until_ms: u64) {
        self.paused.insert(host, until_ms);
    }

    /// It goes on, and what its machine has taken is there for it: it reads its connections in any order.
    pub fn resume(&mut self, now_ms: u64, host: usize, random: &mut Random, agenda: &mut Agenda) {
        self.paused.remove(&host);
        for (id, connection) in &self.connections {
            for side in [Side::Caller, Side::Accepter] {
                let waiting = connection.ways[side as usize].taken.len();
                if connection.hosts()[side as usize] == host && waiting > 0 {
                    let at_ms = now_ms + random.below(READ_MS);
                    (0..waiting).for_each(|_| agenda.plan(at_ms, Due::Arrive(*id, side)));
                }
            }
        }
    }

    /// Whether one side of a link may send more at present.
    pub fn has_room(&self, (id, from): (ConnectionId, Side)) -> bool {
        let connection = self.connections.get(&id);
        connection.is_none_or(|it| it.ways[from.other() as usize].bytes < UNDER_WAY_BYTES_MAX)
    }

    /// The host takes connections.
    pub fn host_came(&mut self, host: usize) {
        self.is_up[host] = true;
    }

    /// The host is gone, and so are its ends.
    pub fn host_went(
        &mut self,
        now_ms: u64,
        host: usize,
        going: Going,
        random: &mut Random,
        agenda: &mut Agenda,
    ) {
        self.is_up[host] = false;
        self.paused.remove(&host);
        for id in self.connections_of(host) {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            for side in [Side::Caller, Side::Accepter] {
                if connection.hosts()[side as usize] == host {
                    connection.is_owned[side as usize] = false;
                    connection.ways[side as usize].clear();
                    if random.below(2) == 0 {
                        // Who waits for a connection hears of it: a try that nobody answers would end by itself.
                        connection.ways[side.other() as usize].lose(|it| *it == Parcel::Connected);
                    }
                    if going == Going::Process {
                        self.send(now_ms, id, side, Parcel::Closed, random, agenda);
                    }
                    break;
                }
            }
        }
    }

    /// Begins to connect. [`Parcel::Connected`] or [`Parcel::Closed`] follows.
    pub fn connect(
        &mut self,
        now_ms: u64,
        line: Line,
        random: &mut Random,
        agenda: &mut Agenda,
    ) -> ConnectionId {
        self.number_last += 1;
        let id = ConnectionId(self.number_last);
        let connection = Connection {
            line,
            ways: [Way::new(now_ms), Way::new(now_ms)],
            is_owned: [true, false],
            is_reset: false,
            asked_ms: now_ms,
        };
        self.connections.insert(id, connection);
        agenda.plan(now_ms + 1 + random.below(DELAY_MS_USUAL), Due::Connect(id));
        id
    }

    /// A try to connect. What comes of it at once, and at which host: the other end accepts, or the caller's own machine
    /// tells it that there is no connection, which nothing on the way can keep from it. Where the process pauses that is
    /// for later.
    pub fn try_connect(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        random: &mut Random,
        agenda: &mut Agenda,
    ) -> Option<(usize, Side, Parcel)> {
        let connection = self.connections.get_mut(&id)?;
        let [from, to] = connection.hosts();
        if !connection.is_owned[Side::Caller as usize] {
            self.connections.remove(&id);
            return None;
        }
        let is_cut = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        if is_cut && !connection.is_reset && now_ms < connection.asked_ms + CONNECT_MS_MAX {
            agenda.plan(now_ms + 1 + random.below(RESEND_MS), Due::Connect(id));
            return None;
        }
        if is_cut || connection.is_reset || !self.is_up[to] {
            if let Some(until_ms) = self.paused.get(&from) {
                agenda.plan(*until_ms, Due::Connect(id));
                return None;
            }
            self.connections.remove(&id);
            return Some((from, Side::Caller, Parcel::Closed));
        }
        connection.is_owned = [true; 2];
        let is_paused = self.paused.contains_key(&to);
        if is_paused {
            connection.ways[Side::Accepter as usize].taken.push_back(Parcel::Accepted);
        }
        self.send(now_ms, id, Side::Accepter, Parcel::Connected, random, agenda);
        (!is_paused).then_some((to, Side::Accepter, Parcel::Accepted))
    }

    /// Sends bytes from one side to the other.
    pub fn send_bytes(
        &mut self,
        now_ms: u64,
        (id, from): (ConnectionId, Side),
        bytes: Bytes,
        random: &mut Random,
        agenda: &mut Agenda,
    ) {
        if !bytes.is_empty() && self.connections.get(&id).is_some_and(|connection| !connection.is_reset) {
            self.send(now_ms, id, from, Parcel::Bytes(bytes), random, agenda);
        }
    }

    /// One side gives the connection up; the other hears so after what was sent before.
    pub fn close(
        &mut self,
        now_ms: u64,
        (id, side): (ConnectionId, Side),
        random: &mut Random,
        agenda: &mut Agenda,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_owned[side as usize] = false;
        connection.ways[side as usize].clear();
        self.send(now_ms, id, side, Parcel::Closed, random, agenda);
    }

    /// One side gives the connection up by a reset: what it has said and is still on its way never arrives. What the other
    /// machine has taken for a process that pauses does.
    pub fn cut_off(
        &mut self,
        now_ms: u64,
        (id, side): (ConnectionId, Side),
        random: &mut Random,
        agenda: &mut Agenda,
    ) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ways[side.other() as usize].lose(|_| false);
        }
        self.close(now_ms, (id, side), random, agenda);
    }

    /// Something in between ends a connection.
    pub fn reset(&mut self, now_ms: u64, id: ConnectionId, random: &mut Random, agenda: &mut Agenda) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_reset = true;
        for side in [Side::Caller, Side::Accepter] {
            if random.below(2) == 0
                && let Some(connection) = self.connections.get_mut(&id)
            {
                connection.ways[side as usize].lose(|_| false);
            }
            self.send(now_ms, id, side.other(), Parcel::Closed, random, agenda);
        }
    }

    /// Connections with an end at this host.
    pub fn connections_of(&self, host: usize) -> Vec<ConnectionId> {
        let of_host = self.connections.iter().filter(|(_, connection)| connection.hosts().contains(&host));
        of_host.map(|(id, _)| *id).collect()
    }

    /// What arrives now, and at which host. `None`: nothing, it has to be sent again, or it waits for a process that pauses.
    pub fn arrive(
        &mut self,
        now_ms: u64,
        (id, side): (ConnectionId, Side),
        random: &mut Random,
        agenda: &mut Agenda,
    ) -> Option<(usize, Parcel)> {
        let connection = self.connections.get_mut(&id)?;
        let (to, from) = (connection.hosts()[side as usize], connection.hosts()[side.other() as usize]);
        let way = &mut connection.ways[side as usize];
        let is_paused = self.paused.contains_key(&to);
        let parcel = if !is_paused && let Some(taken) = way.taken.pop_front() {
            taken
        } else if self.cuts.contains(&(from, to)) && from != to {
            agenda.plan(now_ms + 1 + random.below(RESEND_MS), Due::Arrive(id, side));
            return None;
        } else {
            way.parcels.pop_front()?
        };
        if is_paused && connection.is_owned[side as usize] {
            way.taken.push_back(parcel);
            return None;
        }
        way.bytes -= parcel.bytes();
        if !connection.is_owned[side as usize] {
            // The machine says that nobody is there, if there is a machine.
            let is_heard = connection.is_owned[side.other() as usize] && self.is_up[to];
            if parcel != Parcel::Closed && is_heard {
                self.send(now_ms, id, side, Parcel::Closed, random, agenda);
            }
            self.forget(id);
            return None;
        }
        if parcel == Parcel::Closed {
            connection.is_owned[side as usize] = false;
            connection.ways[side as usize].clear();
            self.forget(id);
        } else if side == Side::Accepter && matches!(parcel, Parcel::Bytes(_)) {
            let newest = self.newest.entry(connection.line).or_insert(id);
            self.overtaken += u64::from(id < *newest);
            *newest = id.max(*newest);
        }
        Some((to, parcel))
    }

    fn forget(&mut self, id: ConnectionId) {
        if self.connections.get(&id).is_some_and(|connection| connection.is_owned == [false; 2]) {
            self.connections.remove(&id);
        }
    }

    fn send(
        &mut self,
        now_ms: u64,
        id: ConnectionId,
        from: Side,
        parcel: Parcel,
        random: &mut Random,
        agenda: &mut Agenda,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let side = from.other();
        let rarely = random.below(DELAY_RARE) == 0;
        let delay_ms = random.below(if rarely { DELAY_MS_MAX } else { DELAY_MS_USUAL });
        let slowness = connection.hosts().iter().filter_map(|host| self.slowness.get(host)).max();
        let more_ms = slowness.map_or(0, |more_ms| random.below(more_ms + 1));
        let way = &mut connection.ways[side as usize];
        way.last_ms = way.last_ms.max(now_ms + DELAY_MS_MIN + delay_ms + more_ms);
        way.push(parcel);
        agenda.plan(way.last_ms, Due::Arrive(id, side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connects while nothing comes back, and lets the other host's power fail at this time, counted from the beginning.
    /// When the caller hears that there is no connection.
    fn told_ms(fails_at_ms: u64, seed: u64) -> Option<u64> {
        let (mut network, mut random, mut agenda) = (Network::new(2), Random::new(seed), Agenda::default());
        network.host_came(1);
        network.cut(1, 0);
        let line = Line { from: 0, to: 1, number: 0 };
        let id = network.connect(0, line, &mut random, &mut agenda);
        let mut has_failed = false;
        while let Some((now_ms, due)) = agenda.next() {
            if now_ms >= fails_at_ms && !std::mem::replace(&mut has_failed, true) {
                network.host_went(now_ms, 1, Going::Power, &mut random, &mut agenda);
            }
            match due {
                Due::Connect(_) => match network.try_connect(now_ms, id, &mut random, &mut agenda) {
                    Some((0, Side::Caller, Parcel::Closed)) => return Some(now_ms),
                    other => assert_eq!(other, None),
                },
                Due::Arrive(..) => panic!("nothing can arrive"),
                other => panic!("{other:?}"),
            }
            assert!(now_ms < 2 * CONNECT_MS_MAX, "tried for ever");
        }
        None
    }

    /// All that is due. Over which connections bytes came to their accepters, in their order.
    fn pass(network: &mut Network, random: &mut Random, agenda: &mut Agenda) -> Vec<ConnectionId> {
        let mut came = Vec::new();
        while let Some((now_ms, due)) = agenda.next() {
            match due {
                Due::Connect(id) => drop(network.try_connect(now_ms, id, random, agenda)),
                Due::Arrive(id, side) => {
                    let arrived = network.arrive(now_ms, (id, side), random, agenda);
                    came.extend(arrived.filter(|(_, parcel)| matches!(parcel, Parcel::Bytes(_))).map(|_| id));
                }
                other => panic!("{other:?}"),
            }
        }
        came
    }

    #[test]
    fn bytes_are_overtaken_by_those_of_the_next_connection_of_their_line_and_of_no_other() {
        let mut orders = [0; 2];
        for (seed, number) in (0..40).zip([0, 1].into_iter().cycle()) {
            let (mut network, mut random, mut agenda) =
                (Network::new(2), Random::new(seed), Agenda::default());
            network.host_came(1);
            let first = network.connect(0, Line { from: 0, to: 1, number: 0 }, &mut random, &mut agenda);
            let next = network.connect(0, Line { from: 0, to: 1, number }, &mut random, &mut agenda);
            assert!(pass(&mut network, &mut random, &mut agenda).is_empty(), "both are made");
            for (id, more_ms) in [(first, 100), (next, 0)] {
                network.slow(0, more_ms);
                let bytes = Bytes::from_static(b"sent");
                network.send_bytes(1_000, (id, Side::Caller), bytes, &mut random, &mut agenda);
            }
            let is_overtaken = pass(&mut network, &mut random, &mut agenda) == [next, first];
            assert_eq!(network.overtaken, u64::from(is_overtaken && number == 0), "seed {seed}");
            orders[usize::from(is_overtaken)] += 1;
        }
        assert!(orders[1] > 10, "{orders:?}");
    }

    #[test]
    fn what_is_on_its_way_arrives_unless_its_sender_cuts_the_connection_off() {
        for is_cut_off in [false, true] {
            let (mut network, mut random, mut agenda) = (Network::new(2), Random::new(1), Agenda::default());
            network.host_came(1);
            let line = Line { from: 0, to: 1, number: 0 };
            let id = network.connect(0, line, &mut random, &mut agenda);
            assert!(pass(&mut network, &mut random, &mut agenda).is_empty(), "it is made");
            let end = (id, Side::Caller);
            for _ in 0..2 {
                network.send_bytes(1_000, end, Bytes::from_static(b"sent"), &mut random, &mut agenda);
            }
            if is_cut_off {
                network.cut_off(1_000, end, &mut random, &mut agenda);
            } else {
                network.close(1_000, end, &mut random, &mut agenda);
            }
            let came = pass(&mut network, &mut random, &mut agenda).len();
            assert_eq!(came, if is_cut_off { 0 } else { 2 });
            assert!(network.connections.is_empty(), "both ends know");
        }
    }

    #[test]
    fn what_came_while_a_process_paused_waits_for_it_whatever_is_cut_since_and_is_bounded() {
        let newest_first = (0..40).filter(|seed| is_newest_first_after_a_pause(*seed)).count();
        assert!((4..37).contains(&newest_first), "{newest_first} of 40");
    }

    /// Whether what a newer connection brought came first.
    fn is_newest_first_after_a_pause(seed: u64) -> bool {
        let (mut network, mut random, mut agenda) = (Network::new(2), Random::new(seed), Agenda::default());
        network.host_came(1);
        let line = Line { from: 0, to: 1, number: 0 };
        let first = network.connect(0, line, &mut random, &mut agenda);
        assert!(pass(&mut network, &mut random, &mut agenda).is_empty(), "it is made");
        network.pause(1, 5_000);
        let next = network.connect(900, line, &mut random, &mut agenda);
        let bytes = Bytes::from(vec![0; UNDER_WAY_BYTES_MAX / 2]);
        for _ in 0..2 {
            assert!(network.has_room((first, Side::Caller)));
            network.send_bytes(1_000, (first, Side::Caller), bytes.clone(), &mut random, &mut agenda);
        }
        assert!(pass(&mut network, &mut random, &mut agenda).is_empty(), "it pauses");
        assert!(!network.has_room((first, Side::Caller)) && network.has_room((first, Side::Accepter)));
        network.cut(0, 1);
        network.resume(5_000, 1, &mut random, &mut agenda);
        let mut came = Vec::new();
        while let Some((now_ms, Due::Arrive(id, side))) = agenda.next() {
            let arrived = network.arrive(now_ms, (id, side), &mut random, &mut agenda);
            came.extend(arrived.map(|(_, parcel)| (id, parcel)));
        }
        assert!(network.has_room((first, Side::Caller)));
        let is_newest_first = came.first().is_some_and(|(id, _)| *id == next);
        // Within a connection all keeps its order.
        came.sort_by_key(|(id, _)| *id);
        let sent = Parcel::Bytes(bytes);
        assert_eq!(came, [(first, sent.clone()), (first, sent), (next, Parcel::Accepted)], "seed {seed}");
        is_newest_first
    }

    #[test]
    fn a_caller_hears_that_there_is_no_connection_whatever_becomes_of_the_other_end() {
        for seed in 0..20 {
            for fails_at_ms in [100, CONNECT_MS_MAX + 1, 2 * CONNECT_MS_MAX] {
                let told_ms = told_ms(fails_at_ms, seed).expect("it hears");
                assert!((CONNECT_MS_MAX..CONNECT_MS_MAX + 2 * RESEND_MS).contains(&told_ms), "{told_ms}");
            }
        }
    }
}
