//! Requests that met a node which does not lead their shard, on their way to the one that does. Pure.
//!
//! Such a node has done nothing of them. They wait here in the order in which they were first submitted, and whatever else
//! is for the shard waits behind them. Once it is known who leads, and no other node has a request of the shard any more,
//! they all go there in that order: of what one session asks of a conversation, nothing overtakes.
//!
//! ```text
//! submitted ──nothing of the shard waits──> sent ──answered, or its link lost──> told
//!     │                                     │  ^
//!     └──────────────> waiting <──refused───┘  │
//!                         ├──the leader is known, nobody else has any──┘
//!                         └──too often, or too long: it, and what is behind it──> told
//! ```
//!
//! What was sent is kept as long as there is room. One that was not kept is told when it is refused, and with it what is
//! behind it, which would come before its repeat.
//!
//! A request of which nobody knows whether it was done is not sent again here: its client is told, and its repeat finds
//! out. A message behind such a one names it as its predecessor, and is refused if that was not applied. So it is with the
//! one case in which the order is lost here: a node refuses a request while it follows, and wins an election before that
//! refusal has arrived; then it takes what was sent to it behind that request. (Once it has won it refuses nothing of the
//! kind, and what waits there it takes along into another term: storage node, `shard/role.rs`.)
//!
//! [`super::nodes`] tells what links take, answer and refuse, and carries out what comes of it.

mod id_hasher;

use super::{Leads, StorageEvent, refusal};
use crate::router::LinkIndex;
use id_hasher::IdHasher;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use wire_protocol::error::RequestError;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::ShardRequest;
use wire_protocol::limits::{LINK_ITEM_BYTES_MAX, LINK_QUEUE_BYTES_MAX, REQUEST_TIMEOUT_MS};
use wire_protocol::link::LinkFull;

/// Times that one request is sent again because the node that had it does not lead. A change of leaders takes one, another
/// one in the middle of it a second; where it takes more, nodes contradict each other. Then its client is told.
pub const FOLLOWS_MAX: u8 = 4;
/// How long requests of a shard wait for a leader that takes them, in milliseconds: twice what an election and its winner's
/// recovery take. Then their clients are told.
pub const FOLLOW_WAIT_MS_MAX: u64 = 3_000;
/// How long a node has to say what it did of a shard's requests after another one has come to lead it, in milliseconds: it
/// hears of that a moment later than we do, and needs a turn. What it has not answered then is given back; it may be cut off.
pub const LAST_WORD_MS_MAX: u64 = 100;
/// Bytes of requests that a core keeps to send them again, in bytes: as many as one link queues. A request beyond that is
/// sent but not kept, and its client is told if the node does not lead; one that would have to wait is refused.
pub const FOLLOW_BYTES_MAX: usize = LINK_QUEUE_BYTES_MAX;
/// What a request takes here beside its encoded self, in bytes: its places in tables that may be half empty.
const REQUEST_BYTES: usize = 512;

const _: () = {
    assert!(FOLLOW_WAIT_MS_MAX + LAST_WORD_MS_MAX < REQUEST_TIMEOUT_MS);
    assert!(LINK_ITEM_BYTES_MAX + REQUEST_BYTES < FOLLOW_BYTES_MAX);
};

/// A refusal by a node that does not lead the shard: nothing of the request was done there.
#[derive(Debug)]
pub(super) struct Refused {
    /// The request.
    pub(super) id: u64,
    /// The link of the node that leads, as the refusing one says.
    pub(super) leader: Option<LinkIndex>,
    /// The newest term that the refusing node knows; 0: it does not say.
    pub(super) term: u64,
    /// What the client is told if the request is not sent again.
    pub(super) error: RequestError,
}

impl Refused {
    /// It is not sent again.
    pub(super) fn told(self) -> StorageEvent {
        StorageEvent::Answered { id: self.id, result: Err(self.error) }
    }
}

/// All requests of one core that links have, or that wait for a leader.
pub(super) struct Following {
    /// By shard.
    shards: Vec<Shard>,
    /// Those in which something waits, or a last word is due.
    busy: BTreeSet<ShardId>,
    /// By id.
    sent: HashMap<u64, Sent, BuildHasherDefault<IdHasher>>,
    /// Shards in which a client was told since the last [`Self::end_waits`], each with the order of the first such request:
    /// nothing behind that one is sent again.
    ended: BTreeMap<ShardId, u64>,
    /// Of all requests that are kept here. At most [`FOLLOW_BYTES_MAX`].
    kept_bytes: usize,
    /// The order of the request that was submitted last.
    order_last: u64,
    /// Requests that were sent again, ever.
    followed: u64,
}

#[derive(Default)]
struct Shard {
    /// Who leads it, as far as is known, and since which term.
    leader: Option<(LinkIndex, u64)>,
    /// How often news of a leader have come.
    news: u64,
    /// By order.
    waiting: BTreeMap<u64, Waiting>,
    /// How many requests each link has that ever had one.
    sent: Vec<(LinkIndex, usize)>,
    last_word: Option<LastWord>,
}

/// Another node has come to lead a shard while others had requests.
#[derive(Clone, Copy)]
struct LastWord {
    /// Until then these may answer.
    at_ms: u64,
    leader: LinkIndex,
}

struct Waiting {
    id: u64,
    kept: Kept,
    /// Nodes that have refused it.
    refusals: u8,
    /// Since when it waits, here or at links; `None`: it has come since the last turn.
    since_ms: Option<u64>,
}

/// A request that a link has.
struct Sent {
    shard: ShardId,
    link: LinkIndex,
    order: u64,
    /// [`Shard::news`] as the link got it.
    news: u64,
    refusals: u8,
    /// The client of one before it was told: it is not sent again, or it would come before that one's repeat.
    is_given_up: bool,
    since_ms: Option<u64>,
    /// `None` as long as the link has not encoded it, if there was no room then, and if it is given up.
    kept: Option<Kept>,
}

/// A request in the form that it has on the wire. What it was made of is part of a client's frame, and would hold all of it.
struct Kept(Box<[u8]>);

impl Kept {
    fn new(request: &ShardRequest) -> Self {
        Self(request.encode_to_vec().into_boxed_slice())
    }

    /// What it is counted for.
    fn bytes(&self) -> usize {
        REQUEST_BYTES + self.0.len()
    }

    fn request(&self) -> ShardRequest {
        ShardRequest::decode(&self.0[..]).expect("it was encoded here")
    }
}

impl Following {
    /// Nothing was submitted yet.
    pub(super) fn new(shard_count: u32) -> Self {
        Self {
            shards: std::iter::repeat_with(Shard::default).take(shard_count as usize).collect(),
            busy: BTreeSet::new(),
            sent: HashMap::default(),
            ended: BTreeMap::new(),
            kept_bytes: 0,
            order_last: 0,
            followed: 0,
        }
    }

    /// Whether a request that is submitted for this link has to wait: others of its shard do, or another node has some.
    pub(super) fn must_wait(&self, shard: ShardId, link: LinkIndex) -> bool {
        let shard = &self.shards[place(shard)];
        !shard.waiting.is_empty() || shard.sent_elsewhere(link) > 0
    }

    /// Takes a request that has to wait, behind the others of its shard.
    pub(super) fn wait(&mut self, request: &ShardRequest) -> Result<(), RequestError> {
        let (id, shard, kept) = (request.id, ShardId(request.shard), Kept::new(request));
        if self.kept_bytes + kept.bytes() > FOLLOW_BYTES_MAX {
            return Err(refusal::refused(LinkFull::Bytes));
        }
        self.order_last += 1;
        self.kept_bytes += kept.bytes();
        let waiting = Waiting { id, kept, refusals: 0, since_ms: None };
        self.shards[place(shard)].waiting.insert(self.order_last, waiting);
        self.busy.insert(shard);
        Ok(())
    }

    /// A link has taken a request that did not have to wait.
    pub(super) fn sent(&mut self, id: u64, shard: ShardId, link: LinkIndex) {
        self.order_last += 1;
        let (order, news) = (self.order_last, self.shards[place(shard)].news);
        let (refusals, is_given_up, since_ms, kept) = (0, false, None, None);
        self.put(id, Sent { shard, link, order, news, refusals, is_given_up, since_ms, kept });
    }

    fn put(&mut self, id: u64, sent: Sent) {
        *self.shards[place(sent.shard)].sent_to(sent.link) += 1;
        let before = self.sent.insert(id, sent);
        assert!(before.is_none(), "ids of requests differ");
    }

    /// A link has encoded a request: it is kept as long as there is room.
    pub(super) fn keep(&mut self, request: &ShardRequest) {
        let Some(sent) = self.sent.get_mut(&request.id) else { return };
        // One that is sent again is kept already.
        if sent.is_given_up || sent.kept.is_some() {
            return;
        }
        let kept = Kept::new(request);
        if self.kept_bytes + kept.bytes() <= FOLLOW_BYTES_MAX {
            self.kept_bytes += kept.bytes();
            sent.kept = Some(kept);
        }
    }

    /// What links have answered or given up: nobody sends it again.
    pub(super) fn answered(&mut self, events: &[StorageEvent]) {
        for event in events {
            if let StorageEvent::Answered { id, .. } = event {
                self.forget(*id);
            }
        }
    }

    /// Forgets a request that a link had.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(Sent { kept: Some(kept), .. }) = self.take(id) {
            self.kept_bytes -= kept.bytes();
        }
    }

    /// A link has a request no more.
    fn take(&mut self, id: u64) -> Option<Sent> {
        let sent = self.sent.remove(&id)?;
        let shard = &mut self.shards[place(sent.shard)];
        *shard.sent_to(sent.link) -= 1;
        if shard.last_word.is_some_and(|word| shard.sent_elsewhere(word.leader) == 0) {
            shard.last_word = None;
            self.tidy(sent.shard);
        }
        Some(sent)
    }

    /// A node that does not lead has refused a request. It waits, or its client is told. Who leads, as that node says, is an
    /// event as any other news of leaders: whether it is believed comes back by [`Self::lead`]. To be called in a turn that
    /// ends with [`Self::end_waits`].
    pub(super) fn refused(&mut self, now_ms: u64, refused: Refused, events: &mut Vec<StorageEvent>) {
        let Some(sent) = self.take(refused.id) else { return events.push(refused.told()) };
        let (id, order) = (sent.shard, sent.order);
        if let Some(link) = refused.leader {
            events.push(StorageEvent::Leader { link, shard: id, term: refused.term });
        }
        let shard = &mut self.shards[place(id)];
        shard.look_at_refusal(&sent, &refused);
        let is_behind = self.ended.get(&id).is_some_and(|first| order > *first);
        match sent.kept {
            Some(kept) if !is_behind => {
                let (refusals, since_ms) = (sent.refusals + 1, sent.since_ms.or(Some(now_ms)));
                shard.waiting.insert(order, Waiting { id: refused.id, kept, refusals, since_ms });
                self.busy.insert(id);
                if refusals > FOLLOWS_MAX {
                    self.end(id, order, events);
                }
            }
            kept => {
                self.kept_bytes -= kept.map_or(0, |kept| kept.bytes());
                events.push(refused.told());
                self.end(id, order, events);
            }
        }
    }

    /// Another node leads a shard, or the same one since another term. The others have a moment for what they have.
    pub(super) fn lead(&mut self, now_ms: u64, leads: Leads) {
        let Leads { link: leader, shard: id, term } = leads;
        let shard = &mut self.shards[place(id)];
        shard.leader = Some((leader, term));
        shard.news += 1;
        let at_ms = shard.last_word.take().map_or(now_ms + LAST_WORD_MS_MAX, |word| word.at_ms);
        if shard.sent_elsewhere(leader) > 0 {
            shard.last_word = Some(LastWord { at_ms, leader });
            self.busy.insert(id);
        } else {
            self.tidy(id);
        }
    }

    /// A shard whose requests are to be given back by all links but the one that is named with it.
    pub(super) fn poll_last_word(&mut self, now_ms: u64) -> Option<(ShardId, LinkIndex)> {
        let due = |id: &&ShardId| self.shards[place(**id)].last_word.is_some_and(|word| word.at_ms <= now_ms);
        let id = *self.busy.iter().find(due)?;
        let word = self.shards[place(id)].last_word.take()?;
        self.tidy(id);
        Some((id, word.leader))
    }

    /// Tells the clients of those who have waited too long, and lets go of what links have behind whatever was told.
    pub(super) fn end_waits(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        let mut over = Vec::new();
        for id in &self.busy {
            let waiting = &mut self.shards[place(*id)].waiting;
            // Who has come since the last turn is behind all others, or refused and knows its time.
            let newcomers = waiting.values_mut().rev().take_while(|it| it.since_ms.is_none());
            newcomers.for_each(|it| it.since_ms = Some(now_ms));
            let Some((order, first)) = waiting.first_key_value() else { continue };
            if first.over_ms() <= now_ms {
                over.push((*id, *order));
            }
        }
        over.into_iter().for_each(|(id, order)| self.end(id, order, events));
        self.let_go();
    }

    /// Tells the clients of what waits for a shard from this order on, in their order.
    fn end(&mut self, id: ShardId, from: u64, events: &mut Vec<StorageEvent>) {
        for Waiting { id, kept, .. } in self.shards[place(id)].waiting.split_off(&from).into_values() {
            self.kept_bytes -= kept.bytes();
            let error = refusal::away("no node was found that leads the shard; nothing was done");
            events.push(StorageEvent::Answered { id, result: Err(error) });
        }
        let first = self.ended.entry(id).or_insert(from);
        *first = from.min(*first);
        self.tidy(id);
    }

    /// What links have behind a request whose client was told would come before that one's repeat if it were sent again. Looked
    /// for once a turn, in all shards at a time: links may have many requests.
    fn let_go(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        if ended.is_empty() {
            return;
        }
        for sent in self.sent.values_mut() {
            if ended.get(&sent.shard).is_some_and(|first| sent.order > *first) {
                self.kept_bytes -= sent.kept.take().map_or(0, |kept| kept.bytes());
                sent.is_given_up = true;
            }
        }
    }

    /// Shards whose requests can go on, and to which link.
    pub(super) fn ready(&self) -> Vec<(ShardId, LinkIndex)> {
        let ready = |id: &ShardId| {
            let shard = &self.shards[place(*id)];
            let (leader, _) = shard.leader?;
            let is_ready = !shard.waiting.is_empty() && shard.sent_elsewhere(leader) == 0;
            is_ready.then_some((*id, leader))
        };
        self.busy.iter().filter_map(ready).collect()
    }

    /// The next request of such a shard, for that link.
    pub(super) fn poll(&mut self, id: ShardId, leader: LinkIndex) -> Option<ShardRequest> {
        let shard = &mut self.shards[place(id)];
        let (order, waiting) = shard.waiting.pop_first()?;
        let Waiting { id: request_id, kept, refusals, since_ms } = waiting;
        let request = kept.request();
        self.followed += u64::from(refusals > 0);
        let (news, is_given_up, kept) = (shard.news, false, Some(kept));
        let (shard, link) = (id, leader);
        self.put(request_id, Sent { shard, link, order, news, refusals, is_given_up, since_ms, kept });
        self.tidy(id);
        Some(request)
    }

    /// When [`Self::poll_last_word`] or [`Self::end_waits`] has something to do.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let deadline_ms = |id: &ShardId| {
            let shard = &self.shards[place(*id)];
            let over_ms = shard.waiting.values().next().map(Waiting::over_ms);
            [over_ms, shard.last_word.map(|word| word.at_ms)].into_iter().flatten().min()
        };
        self.busy.iter().filter_map(deadline_ms).min()
    }

    /// Requests that were sent again, ever.
    pub(super) fn followed(&self) -> u64 {
        self.followed
    }

    /// Requests that wait.
    pub(super) fn waiting_count(&self) -> usize {
        self.busy.iter().map(|id| self.shards[place(*id)].waiting.len()).sum()
    }

    /// What is counted beside the requests is what there is of them.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn check_invariants(&self) {
        let kept_there = self.sent.values().filter_map(|sent| sent.kept.as_ref());
        let waiting = self.shards.iter().flat_map(|shard| shard.waiting.values());
        let kept = kept_there.chain(waiting.map(|waiting| &waiting.kept));
        let bytes: usize = kept.map(Kept::bytes).sum();
        assert_eq!(self.kept_bytes, bytes, "bytes are counted once");
        assert!(bytes <= FOLLOW_BYTES_MAX, "{bytes} bytes are kept");
        assert!(self.ended.is_empty(), "a turn lets go of what is not sent again");
        let is_let_go = |sent: &Sent| !sent.is_given_up || sent.kept.is_none();
        assert!(self.sent.values().all(is_let_go), "what is given up is not kept");
        for (id, shard) in (0..).map(ShardId).zip(&self.shards) {
            let of_shard = || self.sent.values().filter(move |sent| sent.shard == id);
            for (link, count) in &shard.sent {
                let has = of_shard().filter(|sent| sent.link == *link).count();
                assert_eq!(*count, has, "shard {id}: {link:?}");
            }
            let has_others = shard.last_word.is_none_or(|word| shard.sent_elsewhere(word.leader) > 0);
            assert!(has_others, "shard {id}: a last word of nobody");
            let is_busy = !shard.waiting.is_empty() || shard.last_word.is_some();
            assert_eq!(self.busy.contains(&id), is_busy, "shard {id}");
        }
    }

    fn tidy(&mut self, id: ShardId) {
        let shard = &self.shards[place(id)];
        if shard.waiting.is_empty() && shard.last_word.is_none() {
            self.busy.remove(&id);
        }
    }
}

impl Waiting {
    /// When it has waited too long. The time of one that has come since the last turn begins with the next one, which is due.
    fn over_ms(&self) -> u64 {
        self.since_ms.map_or(0, |since_ms| since_ms.saturating_add(FOLLOW_WAIT_MS_MAX))
    }
}

impl Shard {
    /// Forgets the leader if this refusal of it says that it leads no more: it knows of a newer term, or it has stepped down in
    /// its own. What it refused before it led is no news, in older terms or while it stood for election in its own; and
    /// the news of that may be faster than the refusal. That a node refuses what it says it leads tells of nobody else.
    fn look_at_refusal(&mut self, sent: &Sent, refused: &Refused) {
        let Some((known, known_term)) = self.leader else { return };
        let is_after = sent.news == self.news;
        // Releases before name no term.
        let is_same = [0, known_term].contains(&refused.term);
        let is_news = refused.term > known_term || (is_same && is_after);
        if known == sent.link && is_news && refused.leader != Some(sent.link) {
            self.leader = None;
        }
    }

    /// How many requests a link has.
    fn sent_to(&mut self, link: LinkIndex) -> &mut usize {
        let found = self.sent.iter().position(|(to, _)| *to == link);
        let place = found.unwrap_or_else(|| {
            self.sent.push((link, 0));
            self.sent.len() - 1
        });
        &mut self.sent[place].1
    }

    /// How many requests all other links have.
    fn sent_elsewhere(&self, link: LinkIndex) -> usize {
        self.sent.iter().filter(|(to, _)| *to != link).map(|(_, count)| count).sum()
    }
}

/// The router knows these shards only.
fn place(shard: ShardId) -> usize {
    shard.0 as usize
}

#[cfg(test)]
mod tests;
