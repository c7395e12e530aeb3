//! A storage node before its fleet begins: what `server/founding.rs` does between sockets and `worker/founders.rs`. It asks the
//! other first nodes one after the other, and answers when they ask. Whoever else calls is not answered.
//!
//! ```text
//! started -> asks -> all have answered -> writes them down -> the node starts
//!             | ^         |
//!   refused <-+ +---------+ somebody was missed, or answered long ago
//! ```

use super::{NodeHost, REFUSAL};
use crate::world::HOSTS;
use crate::world::faults::Back;
use crate::world::founding::is_founded;
use crate::world::network::{ConnectionId, Line, Parcel, Side};
use crate::world::outside::{End, Outside};
use crate::world::tried::Tried;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use storage_node::placement::OtherNode;
use storage_node::sim::{NextRound, SimDisk, SimFounding};
use wire_protocol::frame::{FrameDecoder, encode_message};
use wire_protocol::internal::{LinkHello, LinkRequestFrame, LinkResponseFrame, LinkWelcome};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, ServingEvent, ServingLink, Versions, decode};

/// As `server/founding.rs`: between two rounds of questions, in milliseconds.
const ROUNDS_APART_MS: u64 = 100;
/// As there: a connection that is not made by then is given up, and so is a question without an answer; in milliseconds.
const CONNECT_MS_MAX: u64 = 1_000;
const QUESTION_MS_MAX: u64 = 3_000;

/// How a node came to run, and what was tried on the way.
#[derive(Default)]
pub(super) struct Begins {
    /// Its fleet begins as the product's do, and `--new-fleet` stays in its command.
    pub is_founded: bool,
    /// It waits for the others.
    pub asking: Option<Asking>,
    /// It was refused by one that runs, and has ended.
    pub is_refused: bool,
    /// It has run.
    pub has_begun: bool,
    /// Processes that went before that, while they waited or in the middle of a step.
    cut: u64,
    /// Starts from an empty disk that were refused.
    refused: u64,
    /// Answers of nodes that ran already and knew its folder.
    known: u64,
}

impl Begins {
    /// From the seed alone.
    pub fn plan(seed: u64, host: usize) -> Self {
        Self { is_founded: is_founded(seed) && host != HOSTS.joiner(), ..Self::default() }
    }

    /// The process goes.
    pub fn end(&mut self, disk: &SimDisk) {
        let is_torn = self.is_founded && disk.is_stopped();
        let is_on_the_way = self.asking.is_some() || is_torn;
        self.cut += u64::from(is_on_the_way && !self.has_begun);
        (self.asking, self.is_refused) = (None, false);
    }
}

/// A node that waits for the others.
pub(super) struct Asking {
    founding: SimFounding,
    versions: Versions,
    /// Nodes that are still to be asked in this round.
    round: VecDeque<OtherNode>,
    /// When the next one begins, unless somebody is being asked.
    round_at_ms: u64,
    question: Option<Question>,
    answers: BTreeMap<ConnectionId, Answer>,
    /// Its next turn.
    turn_at_ms: Option<u64>,
    /// It was asked to stop.
    is_leaving: bool,
}

/// To a node that has not answered yet.
struct Question {
    id: ConnectionId,
    node: OtherNode,
    /// Once the connection is made.
    half: Option<CallerLink>,
    decoder: FrameDecoder,
    until_ms: u64,
}

impl Question {
    fn hear(&mut self, bytes: &Bytes, now_ms: u64) -> Result<Option<LinkWelcome>, ()> {
        let Some(half) = &mut self.half else { return Ok(None) };
        let mut events = Vec::new();
        self.decoder.push(bytes);
        while let Some(payload) = self.decoder.next_frame().map_err(drop)? {
            let frame: LinkResponseFrame = decode(payload).map_err(drop)?;
            half.handle_frame(now_ms, frame, &mut |event| events.push(event)).map_err(drop)?;
        }
        Ok(events.into_iter().find_map(|event| match event {
            CallerEvent::Welcome(welcome) => Some(welcome),
            _ => None,
        }))
    }
}

/// To a node that may be about to ask.
struct Answer {
    half: ServingLink,
    decoder: FrameDecoder,
}

impl Answer {
    fn hear(&mut self, bytes: &Bytes, now_ms: u64) -> Result<Option<LinkHello>, ()> {
        let mut events = Vec::new();
        self.decoder.push(bytes);
        while let Some(payload) = self.decoder.next_frame().map_err(drop)? {
            let frame: LinkRequestFrame = decode(payload).map_err(drop)?;
            self.half.handle_frame(now_ms, frame, &mut |event| events.push(event)).map_err(drop)?;
        }
        Ok(events.into_iter().find_map(|event| match event {
            ServingEvent::Hello(hello) => Some(hello),
            _ => None,
        }))
    }

    /// What is said before the connection is closed, which may be nothing; `None`: the hello is not here yet.
    fn last_word(&mut self, bytes: &Bytes, now_ms: u64) -> Option<BytesMut> {
        let mut said = BytesMut::new();
        match self.hear(bytes, now_ms) {
            Ok(None) => return None,
            Ok(Some(hello)) if !SimFounding::is_question(&hello) => {}
            // The answer, or what versions are spoken here.
            _ => {
                while let Some(frame) = self.half.poll_frame(now_ms) {
                    encode_message(&frame, &mut said);
                }
            }
        }
        Some(said)
    }
}

impl Asking {
    fn new(founding: SimFounding, versions: Versions, now_ms: u64) -> Self {
        Self {
            founding,
            versions,
            round: VecDeque::new(),
            round_at_ms: now_ms,
            question: None,
            answers: BTreeMap::new(),
            turn_at_ms: None,
            is_leaving: false,
        }
    }

    /// When something is due by itself, by the true time.
    fn due_ms(&self) -> u64 {
        let waits_until_ms = self.question.as_ref().map_or(self.round_at_ms, |question| question.until_ms);
        if self.is_leaving { 0 } else { waits_until_ms }
    }

    /// What is due. True: the node may begin.
    fn turn(&mut self, host: usize, outside: &mut Outside) -> bool {
        let now_ms = outside.now_ms;
        if self.is_leaving || self.due_ms() > now_ms {
            return false;
        }
        match self.question.take() {
            Some(Question { id, .. }) => {
                outside.close((id, Side::Caller));
                self.founding.miss();
            }
            None => self.round = self.founding.awaited().into(),
        }
        self.ask_next(host, outside)
    }

    /// Asks the next one, if there is one. True: nobody is to be asked any more, and the node may begin.
    fn ask_next(&mut self, host: usize, outside: &mut Outside) -> bool {
        loop {
            if let Some(node) = self.round.pop_front() {
                let id = outside.connect(Line { from: host, to: HOSTS.host_of_node(node.id), number: 0 });
                let decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
                let until_ms = outside.now_ms + CONNECT_MS_MAX;
                self.question = Some(Question { id, node, half: None, decoder, until_ms });
                return false;
            }
            match self.founding.end_round() {
                NextRound::NotNeeded => return true,
                NextRound::AtOnce => self.round = self.founding.awaited().into(),
                NextRound::Later => {
                    self.round_at_ms = outside.now_ms + ROUNDS_APART_MS;
                    return false;
                }
            }
        }
    }

    /// Something came from one that was asked. What it has said, if that was all; `Err`: that is nothing, and will be nothing.
    fn hear(
        &mut self,
        id: ConnectionId,
        parcel: Parcel,
        now_ms: u64,
        outside: &mut Outside,
    ) -> Result<Option<LinkWelcome>, ()> {
        let Some(question) = self.question.as_mut().filter(|question| question.id == id) else {
            return Ok(None);
        };
        match parcel {
            Parcel::Connected => {
                let mut half = CallerLink::speaking(self.versions, self.founding.question(), now_ms);
                let mut said = BytesMut::new();
                while let Some(frame) = half.poll_frame(now_ms) {
                    encode_message(&frame, &mut said);
                }
                question.half = Some(half);
                question.until_ms = outside.now_ms + QUESTION_MS_MAX;
                outside.send((id, Side::Caller), said);
                Ok(None)
            }
            Parcel::Bytes(bytes) => question.hear(&bytes, now_ms),
            Parcel::Accepted => Ok(None),
            Parcel::Closed => Err(()),
        }
    }

    /// Something came from one that may be about to ask.
    fn answer(&mut self, id: ConnectionId, parcel: Parcel, now_ms: u64, outside: &mut Outside) {
        match parcel {
            Parcel::Accepted => {
                let half = ServingLink::speaking(self.versions, self.founding.welcome(), now_ms);
                let decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
                self.answers.insert(id, Answer { half, decoder });
            }
            Parcel::Bytes(bytes) => {
                let answer = self.answers.get_mut(&id);
                let Some(said) = answer.and_then(|answer| answer.last_word(&bytes, now_ms)) else { return };
                outside.send((id, Side::Accepter), said);
                outside.close((id, Side::Accepter));
                self.answers.remove(&id);
            }
            Parcel::Closed => drop(self.answers.remove(&id)),
            Parcel::Connected => {}
        }
    }

    /// Nobody is to be asked any more. Whoever still asks here has to ask again.
    fn finish(self, outside: &mut Outside) -> Result<(), String> {
        self.answers.keys().for_each(|id| outside.close((*id, Side::Accepter)));
        self.founding.finish()
    }
}

impl NodeHost {
    /// Whether one that runs has refused it, so that its process has ended.
    pub fn is_refused(&self) -> bool {
        self.begins.is_refused
    }

    /// Whether it has run.
    pub fn has_begun(&self) -> bool {
        self.begins.has_begun
    }

    /// Whether it has run, and has asked the others before.
    pub fn has_founded(&self) -> bool {
        self.begins.is_founded && self.begins.has_begun
    }

    /// Counts what was tried before it ran.
    pub fn count_begins(&self, tried: &mut Tried) {
        let Begins { cut, refused, known, .. } = &self.begins;
        tried.begins_cut += cut;
        tried.begins_refused += refused;
        tried.folders_known += known;
    }

    /// As `server/mod.rs`: whoever may be to begin a fleet asks the others first. False: it asks nobody.
    pub(super) fn asks_first(&mut self, outside: &mut Outside) -> bool {
        if !self.begins.is_founded && self.lost != Some(Back::NewFleet) {
            return false;
        }
        let number = self.chance.draw();
        match SimFounding::begin(&self.config, &self.disk, number) {
            Ok(None) => return false,
            Ok(Some(founding)) => {
                self.begins.asking = Some(Asking::new(founding, self.installed, outside.now_ms));
                outside.network.host_came(self.host);
                self.plan_asking(outside);
            }
            Err(error) => self.does_not_begin(&error, outside),
        }
        true
    }

    /// Its turn while it waits, if this is the one that was planned.
    pub(super) fn go_on_asking(&mut self, outside: &mut Outside) {
        let Some(asking) = &mut self.begins.asking else { return };
        if asking.turn_at_ms.take_if(|at_ms| *at_ms == outside.now_ms).is_none() {
            return;
        }
        if asking.turn(self.host, outside) {
            return self.begin(outside);
        }
        self.plan_asking(outside);
    }

    /// Something arrived while it waits.
    pub(super) fn hear_while_asking(&mut self, (id, side): End, parcel: Parcel, outside: &mut Outside) {
        let now_ms = self.clock.at(outside.now_ms);
        let Some(asking) = &mut self.begins.asking else { return };
        if side == Side::Accepter {
            return asking.answer(id, parcel, now_ms, outside);
        }
        let heard = asking.hear(id, parcel, now_ms, outside);
        if heard == Ok(None) {
            return self.plan_asking(outside);
        }
        let Some(Question { node, .. }) = asking.question.take() else { return };
        outside.close((id, side));
        match heard {
            Ok(Some(welcome)) => {
                if let Err(error) = asking.founding.take(node, &welcome) {
                    return self.does_not_begin(&error, outside);
                }
                self.begins.known += u64::from(!welcome.founding);
            }
            Ok(None) | Err(()) => asking.founding.miss(),
        }
        if self.begins.asking.as_mut().is_some_and(|asking| asking.ask_next(self.host, outside)) {
            return self.begin(outside);
        }
        self.plan_asking(outside);
    }

    /// It was asked to stop, and does at its next turn. False: it does not wait.
    pub(super) fn leave_while_asking(&mut self, outside: &mut Outside) -> bool {
        let Some(asking) = &mut self.begins.asking else { return false };
        asking.is_leaving = true;
        self.plan_asking(outside);
        true
    }

    /// Whether it was asked to stop while it waits.
    pub(super) fn has_left_asking(&self) -> bool {
        self.begins.asking.as_ref().is_some_and(|asking| asking.is_leaving)
    }

    /// It goes on after a pause while it waits. False: it does not wait.
    pub(super) fn resume_asking(&mut self, outside: &mut Outside) -> bool {
        let Some(asking) = &mut self.begins.asking else { return false };
        asking.turn_at_ms = None;
        self.plan_asking(outside);
        true
    }

    /// All have answered, one after the other.
    fn begin(&mut self, outside: &mut Outside) {
        let Some(asking) = self.begins.asking.take() else { return };
        match asking.finish(outside) {
            Ok(()) => self.start_node(outside),
            Err(error) => self.does_not_begin(&error, outside),
        }
    }

    /// The process ends: one that lost its disk has to, when one that runs says so; and any whose disk stops it.
    fn does_not_begin(&mut self, error: &str, outside: &mut Outside) {
        self.begins.asking = None;
        if self.disk.is_stopped() {
            return;
        }
        if self.lost == Some(Back::NewFleet) && error.contains(REFUSAL) {
            self.begins.is_refused = true;
            self.begins.refused += 1;
            return;
        }
        self.failed(format!("does not begin: {error}"), outside);
    }

    /// Plans what is due while it waits.
    fn plan_asking(&mut self, outside: &mut Outside) {
        let Some(asking) = &mut self.begins.asking else { return };
        let due_ms = asking.due_ms().max(outside.now_ms);
        if asking.turn_at_ms.is_none_or(|planned_ms| due_ms < planned_ms) {
            asking.turn_at_ms = Some(due_ms);
            outside.plan_turn(due_ms, self.host, self.life);
        }
    }
}
