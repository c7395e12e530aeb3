//! kill -9 under load, at random moments, again and again: what was acknowledged is there once and in order, what
//! was not is there once at most, and a repeat gets the first answer.

use crate::certificates;
use crate::process::{Link, Process, Setup};
use crate::requests::{self, Person, applied, body, person, view};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::time::Duration;
use storage_node::{LinkTls, clock};
use wire_protocol::ids::ConversationId;
use wire_protocol::internal::shard_response::Result as Reply;
use wire_protocol::internal::{SessionAddress, delivery};
use wire_protocol::v1::Entry;

const SHARDS: u32 = 8;
const CORES: usize = 2;
const PAIRS: u64 = 12;
/// Sends without an answer at any time.
const IN_FLIGHT: usize = 64;
/// The test ends with the first round after this, if it has tried hard enough by then.
const LASTS: Duration = Duration::from_secs(25);
/// The longest that it goes on otherwise.
const LASTS_MAX: Duration = Duration::from_secs(4 * LASTS.as_secs());
/// The longest that most processes live under load, in milliseconds.
const LIFE_MS_MAX: u64 = 400;
/// Each round of this many lives longer, so that the store is synced and the log is cut before the kill.
const LONG_LIFE_EVERY: u64 = 5;
/// One start in this many is killed at a random moment, ready or not, before the one that serves.
const STARTS_KILLED_ONE_IN: u64 = 3;
/// The longest that such a process lives, in milliseconds.
const START_MS_MAX: u64 = 300;
/// The shortest of the long lives, in milliseconds.
const LONG_LIFE_MS_MIN: u64 = 1_500;

/// Both people of a conversation, and what they sent.
struct Chat {
    people: [Person; 2],
    conversation: ConversationId,
    /// By sender and client id: seq and time, once acknowledged; sends are numbered 1, 2, 3, … each.
    sent: [BTreeMap<u64, Option<(u64, u64)>>; 2],
    /// Bodies by seq less 1, as far as they were read.
    read: Vec<bytes::Bytes>,
    /// Bodies by seq that were pushed, until they are held against what is read.
    pushed: BTreeMap<u64, bytes::Bytes>,
}

/// xorshift64*: the kills must be repeatable from the seed that a failure prints.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// How much of what was read before is read again.
#[derive(Clone, Copy)]
pub enum Extent {
    New,
    All,
}

/// How long a process lives under load.
#[derive(Clone, Copy)]
enum Lives {
    Short,
    Long,
}

pub struct World {
    chats: Vec<Chat>,
    random: Random,
    /// Messages acknowledged, and those sent that nothing was heard of.
    acknowledged: usize,
    unknown: usize,
    repeats_known: usize,
    pushes: usize,
}

#[test]
fn kill_nine_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| clock::now_ms() | 1);
    println!("SEED={seed}");
    let mut world = World::new(seed);
    let started = clock::now();
    let (mut rounds, mut starts_killed) = (0u64, 0u64);
    let goes_on = |world: &World, rounds: u64| {
        started.elapsed() < LASTS || (started.elapsed() < LASTS_MAX && !world.has_tried_hard(rounds))
    };
    while goes_on(&world, rounds) {
        if world.random.below(STARTS_KILLED_ONE_IN) == 0 {
            let lives = Duration::from_millis(world.random.below(START_MS_MAX));
            Process::start_and_kill(&setup(folder.path(), &tls), lives);
            starts_killed += 1;
        }
        let process = Process::start(&setup(folder.path(), &tls));
        let mut link = Link::open(process.address, &tls).expect("it is ready");
        if rounds == 0 {
            world.create(&mut link).expect("it lives");
        }
        world.check(&mut link, Extent::New).expect("it lives");
        world.repeat(&mut link).expect("it lives");
        rounds += 1;
        let lives = if rounds.is_multiple_of(LONG_LIFE_EVERY) { Lives::Long } else { Lives::Short };
        world.load_and_kill(link, process, lives);
    }
    let process = Process::start(&setup(folder.path(), &tls));
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    world.check(&mut link, Extent::All).expect("it lives");
    world.repeat(&mut link).expect("it lives");
    world.check(&mut link, Extent::New).expect("it lives");
    world.check_feeds(&mut link).expect("it lives");
    process.terminate();
    let World { acknowledged, unknown, repeats_known, .. } = &world;
    println!("{rounds} kills under load, {starts_killed} while starting");
    println!("{acknowledged} acknowledged, {unknown} unknown, {repeats_known} of them were applied");
    assert!(world.has_tried_hard(rounds), "the test did not try hard enough");
}

pub fn setup<'a>(folder: &'a Path, tls: &'a LinkTls) -> Setup<'a> {
    Setup { cores: CORES, ..Setup::alone(folder, tls, SHARDS) }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let chats = (0..PAIRS)
            .map(|pair| {
                let people = [person(2 * pair), person(2 * pair + 1)];
                let conversation = ConversationId::direct(people[0].user, people[1].user);
                let sent = [BTreeMap::new(), BTreeMap::new()];
                Chat { people, conversation, sent, read: Vec::new(), pushed: BTreeMap::new() }
            })
            .collect();
        Self { chats, random: Random(seed), acknowledged: 0, unknown: 0, repeats_known: 0, pushes: 0 }
    }

    /// Whether so many rounds could have found something.
    fn has_tried_hard(&self, rounds: u64) -> bool {
        rounds >= 5 && self.acknowledged > 1_000 && self.unknown > 0
    }

    pub fn create(&self, link: &mut Link) -> io::Result<()> {
        for chat in &self.chats {
            for person in chat.people {
                link.call(requests::create_user(SHARDS, person))?;
            }
            link.call(requests::create_direct(SHARDS, chat.people[0], chat.people[1]))?;
        }
        Ok(())
    }

    /// Gives each person a session over this link: it is pushed what the other one sends.
    pub fn attach(&self, link: &mut Link) -> io::Result<()> {
        let people = self.chats.iter().flat_map(|chat| chat.people);
        for (person, slot) in people.zip(1..) {
            let session = SessionAddress { slot, generation: 1 };
            let response = link.call(requests::attach(SHARDS, person, session))?;
            match response.result {
                Some(Reply::Attached(attached)) => assert!(attached.device_known, "{person:?} is not known"),
                other => panic!("{person:?} is not attached: {other:?}"),
            }
        }
        Ok(())
    }

    /// Messages that were pushed to sessions of [`Self::attach`].
    pub fn pushes(&self) -> usize {
        self.pushes
    }

    /// Reads what is new, or everything, and holds it against what was acknowledged, and what was pushed.
    pub fn check(&mut self, link: &mut Link, extent: Extent) -> io::Result<()> {
        for chat in &mut self.chats {
            let known = match extent {
                Extent::New => chat.read.len(),
                Extent::All => 0,
            };
            let entries = entries(link, chat, known as u64)?;
            assert!(known + entries.len() >= chat.read.len(), "entries that were read are gone");
            for (place, entry) in entries.into_iter().enumerate() {
                match chat.read.get(known + place) {
                    Some(before) => assert_eq!(*before, entry.body, "entry {} changed", entry.seq),
                    None => chat.read.push(entry.body),
                }
            }
            for (seq, body) in std::mem::take(&mut chat.pushed) {
                let stored = chat.read.get(seq as usize - 1);
                assert_eq!(stored, Some(&body), "entry {seq} was pushed, and is not there");
            }
            let mut found: HashMap<&bytes::Bytes, u64> = HashMap::new();
            for (body, seq) in chat.read.iter().zip(1..).skip(1) {
                assert_eq!(found.insert(body, seq), None, "stored twice: {body:?}");
            }
            for (person, sent) in chat.people.iter().zip(&chat.sent) {
                let mut seq_before = 0;
                for (client_id, answer) in sent {
                    let seq = found.remove(&body(*person, *client_id));
                    if let Some((answered, _)) = answer {
                        assert_eq!(seq, Some(*answered), "acknowledged message {client_id} of {person:?}");
                    }
                    if let Some(seq) = seq {
                        assert!(seq > seq_before, "message {client_id} of {person:?} overtook another");
                        seq_before = seq;
                    }
                }
            }
            assert!(found.is_empty(), "nobody sent {found:?}");
        }
        Ok(())
    }

    /// Sends again what nothing was heard of, and some of what was acknowledged: all at once, in order.
    pub fn repeat(&mut self, link: &mut Link) -> io::Result<()> {
        let mut begun = Vec::new();
        for (place, chat) in self.chats.iter().enumerate() {
            for (side, sent) in chat.sent.iter().enumerate() {
                let sample = self.random.below(sent.len().max(1) as u64);
                for (client_id, answer) in sent {
                    if answer.is_none() || *client_id == sample {
                        let call = requests::send(SHARDS, chat.people[side], chat.conversation, *client_id);
                        begun.push((link.begin(call), place, side, *client_id));
                    }
                }
            }
        }
        for (id, place, side, client_id) in begun {
            link.run_until("an answer", |link| link.responses.contains_key(&id))?;
            let again = applied(&link.responses.remove(&id).expect("it is there"));
            let answer = self.chats[place].sent[side].entry(client_id).or_default();
            match answer {
                Some(first) => {
                    assert!(again.repeated_send, "message {client_id} was stored again");
                    assert_eq!(*first, (again.seq, again.time_ms), "another answer to {client_id}");
                }
                None => {
                    self.repeats_known += usize::from(again.repeated_send);
                    *answer = Some((again.seq, again.time_ms));
                }
            }
        }
        Ok(())
    }

    /// Messages that were acknowledged when they were sent first.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// Many sends in flight until so many more messages are acknowledged, and every one that was sent.
    pub fn load(&mut self, link: &mut Link, messages: usize) -> io::Result<()> {
        let (started, enough) = (clock::now(), self.acknowledged + messages);
        let mut in_flight = HashMap::new();
        while self.acknowledged < enough || !in_flight.is_empty() {
            assert!(started.elapsed() < crate::process::PATIENCE, "{} of {enough}", self.acknowledged);
            if self.acknowledged + in_flight.len() < enough {
                self.send(link, &mut in_flight);
            }
            link.pump(Duration::from_millis(1))?;
            self.take_answers(link, &mut in_flight);
        }
        Ok(())
    }

    /// Many sends in flight until a random moment, then kill -9. Answers that still arrive count.
    fn load_and_kill(&mut self, mut link: Link, process: Process, lives: Lives) {
        let shortest_ms = match lives {
            Lives::Short => 1,
            Lives::Long => LONG_LIFE_MS_MIN,
        };
        let lives = Duration::from_millis(shortest_ms + self.random.below(LIFE_MS_MAX));
        let started = clock::now();
        let mut in_flight = HashMap::new();
        while started.elapsed() < lives {
            self.send(&mut link, &mut in_flight);
            link.pump(Duration::from_millis(1)).expect("it lives");
            self.take_answers(&mut link, &mut in_flight);
        }
        process.kill();
        while link.pump(Duration::from_millis(1)).is_ok() {}
        self.take_answers(&mut link, &mut in_flight);
        self.unknown += in_flight.len();
    }

    /// Many sends in flight until the process ends by itself. Answers that still arrive count.
    pub fn load_until_it_dies(&mut self, mut link: Link) {
        let started = clock::now();
        let mut in_flight = HashMap::new();
        let mut lives = true;
        while lives {
            assert!(started.elapsed() < crate::process::PATIENCE, "it does not die");
            self.send(&mut link, &mut in_flight);
            lives = link.pump(Duration::from_millis(1)).is_ok();
            self.take_answers(&mut link, &mut in_flight);
            self.take_pushes(&mut link);
        }
        self.unknown += in_flight.len();
    }

    fn send(&mut self, link: &mut Link, in_flight: &mut HashMap<u64, (usize, usize, u64)>) {
        while in_flight.len() < IN_FLIGHT && link.can_send() {
            let (place, side) = (self.random.below(PAIRS) as usize, self.random.below(2) as usize);
            let chat = &mut self.chats[place];
            let client_id = chat.sent[side].len() as u64 + 1;
            chat.sent[side].insert(client_id, None);
            let call = requests::send(SHARDS, chat.people[side], chat.conversation, client_id);
            in_flight.insert(link.begin(call), (place, side, client_id));
        }
    }

    fn take_answers(&mut self, link: &mut Link, in_flight: &mut HashMap<u64, (usize, usize, u64)>) {
        for (id, response) in link.responses.drain() {
            let (place, side, client_id) = in_flight.remove(&id).expect("it was asked");
            if let Some(Reply::Error(error)) = &response.result {
                panic!("refused: {error:?}");
            }
            let first = applied(&response);
            self.chats[place].sent[side].insert(client_id, Some((first.seq, first.time_ms)));
            self.acknowledged += 1;
        }
    }

    fn take_pushes(&mut self, link: &mut Link) {
        for pushed in link.deliveries.drain(..) {
            let Some(delivery::Event::Entry(entry)) = pushed.event else { continue };
            let id = ConversationId::from_slice(&pushed.conversation_id).expect("an id");
            let chat = self.chats.iter_mut().find(|chat| chat.conversation == id).expect("nobody else chats");
            if let Some(before) = chat.pushed.insert(entry.seq, entry.body.clone()) {
                assert_eq!(before, entry.body, "two messages were pushed as {}", entry.seq);
            }
            self.pushes += 1;
        }
    }

    /// The change feeds of all users end up at the heads.
    pub fn check_feeds(&self, link: &mut Link) -> io::Result<()> {
        for chat in &self.chats {
            let head = chat.read.len() as u64;
            for person in chat.people {
                let started = clock::now();
                loop {
                    let page = requests::feed_page(link.call(requests::read_feed(SHARDS, person, 0))?);
                    let id = chat.conversation.to_bytes();
                    let row = page.rows.into_iter().find(|row| row.conversation_id == id);
                    if row.as_ref().is_some_and(|row| row.top_seq == head) {
                        break;
                    }
                    assert!(started.elapsed() < crate::process::PATIENCE, "{row:?} instead of {head}");
                }
            }
        }
        Ok(())
    }
}

/// Entries above `after`, checked to follow it without gaps.
fn entries(link: &mut Link, chat: &Chat, after: u64) -> io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let after = after + entries.len() as u64;
        let page = view(link.call(requests::read_after(SHARDS, chat.people[0], chat.conversation, after))?);
        entries.extend(page.entries);
        if !page.truncated {
            break;
        }
    }
    for (seq, entry) in (after + 1..).zip(&entries) {
        assert_eq!(entry.seq, seq, "entries have no gaps");
    }
    Ok(entries)
}
