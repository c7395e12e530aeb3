//! A shard's snapshot on its way to another node: the parts of an honest leader, changed as the input says, what the receiver
//! makes of them, and what it installs.
//!
//! Most changes happen on the way, where nobody knows how parts are signed: their checksums give them away. After some, parts
//! are signed anew, as by a node that has gone mad: then what they say is what was sent.
//!
//! Which rows are the shard's is told here by their keys alone, as docs/storage.md lays them out, and not by the product.

use crate::Target;
use crate::input::Input;
use crate::targets::storage::in_memory;
use bytes::Bytes;
use prost::Message;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use storage_node::LogConfig;
use storage_node::domain::{self, Overlay};
use storage_node::engine::keys::Key;
use storage_node::engine::{MemoryStore, Reader, Store, WriteBatch, keys};
use storage_node::replication::{Group, Log, LogRange, Replicas};
use storage_node::sim::{PartTaken, SnapshotReceiver, sign_parts, snapshot_parts};
use wire_protocol::ids::{ConversationId, Seq, ShardId, UserId};
use wire_protocol::internal::raft_message::Kind;
use wire_protocol::internal::{RaftEntry, RaftMessage, SnapshotPart, SnapshotPoint, SnapshotRow};

const SHARDS: u32 = 4;
const SHARD: ShardId = ShardId(1);
/// Slots of all shards, which have equal parts of them in their order; and the shard's own, from the first to the last.
const SLOT_COUNT: u16 = 4_096;
const FIRST_SLOT: u16 = 1_024;
const LAST_SLOT: u16 = 2_047;
/// Behind all slots: rows about shards, in these tables, by the shard's number in place of an id.
const SLOT_OF_SHARDS: u16 = 0xfffe;
const TABLES_OF_SHARDS: [u8; 2] = [0xf0, 0xf1];
/// Some table of rows that are in slots.
const TABLE: u8 = 0x20;
/// The leader's node, the receiver's, and all that have a replica.
const LEADER: u32 = 1;
const OWN: u32 = 2;
const VOTERS: [u32; 3] = [1, 2, 3];
/// Term of all entries.
const TERM: u64 = 2;
/// The newest entry, the first that goes with the snapshot, and the last that the receiver has applied.
const INDEX: u64 = 12;
const FEED_CUT: u64 = 7;
const OLD_INDEX: u64 = 4;
/// Far from the highest index: whole logs are moved up to here.
const INDEX_END: u64 = 1 << 56;
/// Ways in which the snapshot is cut into parts: the leader's own, then by so many items.
const CUTS: usize = 8;
/// Changes of a story.
const CHANGES_MAX: usize = 16;
/// Parts of a story.
const PARTS_MAX: usize = 64;

/// See `holds`.
pub const SNAPSHOTS: Target = Target {
    name: "snapshots",
    holds: "whatever becomes of a snapshot's parts, they are refused with a reason, or rows and log are those that were sent \
            and the log goes on from there; rows of other shards stay, and none of them is sent",
    run: snapshots,
};

/// Key and value.
type Row = (Vec<u8>, Bytes);

/// What happens between the decision for a snapshot and its installation.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing.
    GoesOn,
    /// Power fails, and the node starts again.
    PowerFails,
}

fn snapshots(data: &[u8]) {
    let mut input = Input::new(data);
    let sent = &snapshots_sent()[input.below(CUTS)];
    let then = if input.below(4) == 0 { Then::PowerFails } else { Then::GoesOn };
    let (mut parts, mut is_signed_anew, mut changes) = (sent.clone(), false, 0);
    while !input.is_empty() && changes < CHANGES_MAX {
        is_signed_anew |= change(&mut input, &mut parts);
        changes += 1;
    }
    let folder = in_memory().expect("a folder for names");
    let mut receiver = SnapshotReceiver::new(folder.path(), SHARD, SHARDS).expect("a folder for names");
    let genuine = (!is_signed_anew).then_some(sent.as_slice());
    let taken = receive(&mut receiver, parts, genuine);
    assert!(changes > 0 || taken.is_some(), "the leader's own parts are no snapshot");
    if let Some(taken) = taken {
        install(receiver, &taken, then);
    }
}

fn config() -> LogConfig {
    LogConfig { file_bytes: 32 << 10, keep_bytes: 64 << 10, prefill: false }
}

fn entry(index: u64) -> RaftEntry {
    RaftEntry { kind: 0, term: TERM, index, record: Bytes::from(vec![1; 20]) }
}

/// What Raft says of the snapshot.
fn message() -> RaftMessage {
    let voters = VOTERS.to_vec();
    let point = SnapshotPoint { index: INDEX, term: TERM, voters, ..SnapshotPoint::default() };
    RaftMessage {
        shard: SHARD.0,
        kind: Kind::Snapshot as i32,
        from: LEADER,
        to: OWN,
        term: TERM,
        snapshot: Some(point),
        ..RaftMessage::default()
    }
}

/// Durable rows of users and conversations all over the fleet, each shard applied up to an entry. A third of the rows is the
/// same whatever the entry.
fn fill(store: &dyn Store, numbers: Range<u8>, index: u64) {
    let mut batch = WriteBatch::new();
    for number in numbers {
        let id = [number; 16];
        let length = (usize::from(number) * 37 + usize::from(number % 3) * index as usize) % 64;
        let value = vec![number; length];
        batch.put(keys::message(ConversationId(id), Seq(u64::from(number))), value.clone());
        batch.put(keys::user(UserId(id)), value);
    }
    for home in 0..SHARDS {
        batch.put(keys::feed_position(ShardId(home), SHARD), vec![home as u8]);
    }
    // Nobody's, another shard's, and those of other shards that stand next to this one's.
    let beside = [row_at(FIRST_SLOT - 1, 0xff), row_at(LAST_SLOT + 1, 0)];
    for key in [keys::format(), keys::known_fleet(), keys::fleet()].into_iter().chain(beside) {
        batch.put(key, vec![0]);
    }
    store.write(batch).expect("memory does not fail");
    let mut overlay = Overlay::new(store);
    for shard in 0..SHARDS {
        domain::set_applied_index(&mut overlay, ShardId(shard), index, 1_000 + index);
    }
    store.write(overlay.into_batch()).expect("memory does not fail");
    store.sync().expect("memory does not fail");
}

/// In the shard's first slot and in its last: rows that no snapshot has.
fn fill_ends(store: &dyn Store) {
    let mut batch = WriteBatch::new();
    batch.put(row_at(FIRST_SLOT, 0), vec![0]);
    batch.put(row_at(LAST_SLOT, 0xff), vec![0]);
    store.write(batch).expect("memory does not fail");
    store.sync().expect("memory does not fail");
}

/// The key of a row in a slot, of an id of such bytes.
fn row_at(slot: u16, byte: u8) -> Key {
    let key = [&slot.to_be_bytes()[..], &[TABLE], &[byte; 16]].concat();
    Key::copy_of(&key).expect("as long as a key begins")
}

/// The shard that a row is of, by slot, table and id. `None`: of none.
fn shard_of(key: &[u8]) -> Option<u32> {
    let (slot, rest) = key.split_first_chunk::<2>()?;
    let slot = u16::from_be_bytes(*slot);
    if slot < SLOT_COUNT {
        return Some(u32::from(slot) / (u32::from(SLOT_COUNT) / SHARDS));
    }
    let (table, rest) = rest.split_first()?;
    let (id, _) = rest.split_first_chunk::<16>()?;
    let is_of_shard = slot == SLOT_OF_SHARDS && TABLES_OF_SHARDS.contains(table);
    u32::try_from(u128::from_be_bytes(*id)).ok().filter(|_| is_of_shard)
}

/// The shard's rows, and all others.
fn rows(store: &MemoryStore) -> (Vec<Row>, Vec<Row>) {
    store.rows().into_iter().partition(|(key, _)| shard_of(key) == Some(SHARD.0))
}

fn rows_of_parts(parts: &[SnapshotPart]) -> impl Iterator<Item = Row> {
    parts.iter().flat_map(|part| &part.rows).map(|row| (row.key.to_vec(), row.value.clone()))
}

/// The row that says how far the shard is applied.
fn applied_row(index: u64) -> Bytes {
    let store = MemoryStore::new();
    let mut overlay = Overlay::new(&store);
    domain::set_applied_index(&mut overlay, SHARD, index, 1_000 + index);
    let row = overlay.value(&keys::applied(SHARD)).expect("memory does not fail");
    row.expect("it was put there")
}

/// One snapshot in all its cuts; made once.
fn snapshots_sent() -> &'static [Vec<SnapshotPart>] {
    static SENT: OnceLock<Vec<Vec<SnapshotPart>>> = OnceLock::new();
    SENT.get_or_init(|| {
        let folder = in_memory().expect("a folder for a log");
        let log = Log::open(&folder.path().join("log"), &config()).expect("it opens");
        log.begin_anew(SHARD, (1..=INDEX).map(entry).collect()).expect("it writes");
        log.cut(&[(SHARD, FEED_CUT)]).expect("it cuts");
        let store = MemoryStore::new();
        fill(&store, 0..30, INDEX);
        let whole = snapshot_parts(&store, &log, &message(), SHARDS, FEED_CUT).expect("a snapshot");
        let (own, others) = rows(&store);
        assert!(!own.is_empty() && !others.is_empty());
        assert!(own.into_iter().eq(rows_of_parts(&whole)), "other rows than the shard's are sent");
        let entries = whole.iter().flat_map(|part| part.entries.clone());
        assert!(entries.eq((FEED_CUT..=INDEX).map(entry)), "other entries than belong to it are sent");
        let cuts = (1..CUTS).map(|items| cut(&whole, items));
        std::iter::once(whole.clone()).chain(cuts).collect()
    })
}

/// The same snapshot in parts of so many entries or rows: how large parts are is for the leader to say.
fn cut(whole: &[SnapshotPart], items: usize) -> Vec<SnapshotPart> {
    let entries: Vec<RaftEntry> = whole.iter().flat_map(|part| part.entries.clone()).collect();
    let rows: Vec<SnapshotRow> = whole.iter().flat_map(|part| part.rows.clone()).collect();
    let bare = SnapshotPart { message: None, entries: Vec::new(), rows: Vec::new(), ..whole[0].clone() };
    let mut parts = Vec::new();
    for entries in entries.chunks(items) {
        parts.push(SnapshotPart { entries: entries.to_vec(), ..bare.clone() });
    }
    for rows in rows.chunks(items) {
        parts.push(SnapshotPart { rows: rows.to_vec(), ..bare.clone() });
    }
    parts[0].message.clone_from(&whole[0].message);
    renumber(&mut parts);
    sign_parts(&mut parts);
    parts
}

/// Numbers from 0 on, as parts stand; the last one says that it is the last.
fn renumber(parts: &mut [SnapshotPart]) {
    let count = parts.len();
    for (place, part) in parts.iter_mut().enumerate() {
        (part.number, part.is_last) = (place as u32, place + 1 == count);
    }
}

/// One change of the parts. True: by somebody who may know how parts are signed.
fn change(input: &mut Input<'_>, parts: &mut Vec<SnapshotPart>) -> bool {
    let operation = input.below(16);
    let (count, place) = (parts.len(), input.below(parts.len().max(1)));
    match operation {
        0 => {
            sign_parts(parts);
            return true;
        }
        1 => {
            let decoded = SnapshotPart::decode(input.slice());
            parts.splice(place..place, decoded.into_iter().take(PARTS_MAX - count));
            return true;
        }
        _ => {}
    }
    let Some(part) = parts.get_mut(place) else { return false };
    match operation {
        2 => drop(parts.remove(place)),
        3 => {
            let again = part.clone();
            let to = input.below(count + 1);
            parts.insert(to, again);
            parts.truncate(PARTS_MAX);
        }
        4 => parts.swap(place, input.below(count)),
        5 => parts.truncate(place),
        6 | 7 => flip(input, part),
        8 => return change_field(input, part),
        9 => change_message(input, part),
        10 | 11 => change_entries(input, &mut part.entries),
        12 => renumber(parts),
        13 => rebase(input, parts),
        _ => change_rows(input, &mut part.rows),
    }
    false
}

/// Another byte of what travels, if a part is left.
fn flip(input: &mut Input<'_>, part: &mut SnapshotPart) {
    let mut bytes = part.encode_to_vec();
    let place = input.number() as usize % bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= input.byte();
    }
    if let Ok(changed) = SnapshotPart::decode(bytes.as_slice()) {
        *part = changed;
    }
}

/// Another value of a field. True: it is the checksum.
fn change_field(input: &mut Input<'_>, part: &mut SnapshotPart) -> bool {
    let (choice, number) = (input.below(8), input.number());
    match choice {
        0 => part.shard = number as u32,
        1 => part.from = number as u32,
        2 => part.to = number as u32,
        3 => part.term = number,
        4 => part.index = number,
        5 => part.number = number as u32,
        6 => part.is_last = !part.is_last,
        _ => part.checksum = number as u32,
    }
    choice == 7
}

fn change_message(input: &mut Input<'_>, part: &mut SnapshotPart) {
    let (choice, number) = (input.below(8), input.number());
    if choice == 0 {
        part.message = part.message.is_none().then(message);
        return;
    }
    let Some(message) = &mut part.message else { return };
    match choice {
        1 => message.kind = number as i32,
        2 => message.term = number,
        3 => message.index = number,
        4 => message.from = number as u32,
        5 => message.entries.push(entry(number)),
        6 => message.snapshot = None,
        _ => {
            let point = message.snapshot.take().unwrap_or_default();
            message.snapshot = Some(SnapshotPoint { index: number, ..point });
        }
    }
}

fn change_entries(input: &mut Input<'_>, entries: &mut Vec<RaftEntry>) {
    let (choice, number) = (input.below(8), input.number());
    if entries.is_empty() {
        entries.push(entry(number));
        return;
    }
    let count = entries.len();
    let place = input.below(count);
    match choice {
        0 => drop(entries.remove(place)),
        1 => entries.insert(place, entries[place].clone()),
        2 => entries.insert(place, entry(number)),
        3 => entries.swap(place, number as usize % count),
        4 => entries[place].kind = number as u32,
        5 => entries[place].term = number,
        6 => entries[place].index = number,
        _ => entries[place].record = Bytes::copy_from_slice(input.slice()),
    }
}

fn change_rows(input: &mut Input<'_>, rows: &mut Vec<SnapshotRow>) {
    let choice = input.below(8);
    if choice == 0 || rows.is_empty() {
        let row = SnapshotRow { key: some_key(input), value: Bytes::copy_from_slice(input.slice()) };
        // Where it may stand.
        let place = rows.partition_point(|other| other.key < row.key);
        rows.insert(place, row);
        return;
    }
    let count = rows.len();
    let place = input.below(count);
    match choice {
        1 => drop(rows.remove(place)),
        2 => rows.insert(place, rows[place].clone()),
        3 => rows.swap(place, input.below(count)),
        4 => rows[place].key = some_key(input),
        5 => rows[place].key.truncate(input.below(64)),
        6 => rows[place].value.truncate(input.below(64)),
        _ => rows[place].value = Bytes::copy_from_slice(input.slice()),
    }
}

/// A key of this shard, of another one, or of nobody.
fn some_key(input: &mut Input<'_>) -> Bytes {
    let (choice, shard) = (input.below(5), ShardId(input.below(SHARDS as usize) as u32));
    let key = match choice {
        0 => keys::applied(shard),
        1 => keys::replicas(shard),
        2 => keys::feed_position(SHARD, shard),
        3 => keys::user(UserId([input.byte(); 16])),
        _ => return Bytes::copy_from_slice(input.slice()),
    };
    Bytes::copy_from_slice(key.as_slice())
}

/// The snapshot of a leader that is in another term, or whose log is further or less far. It is to be signed.
fn rebase(input: &mut Input<'_>, parts: &mut [SnapshotPart]) {
    let (is_of_term, number) = (input.below(2) == 0, input.number());
    if is_of_term {
        for part in parts {
            part.term = number;
            part.message.iter_mut().for_each(|message| message.term = number);
        }
        return;
    }
    let (index, applied) = (number % INDEX_END, keys::applied(SHARD));
    for part in parts {
        let shift = index.wrapping_sub(part.index);
        part.index = index;
        part.entries.iter_mut().for_each(|entry| entry.index = entry.index.wrapping_add(shift));
        for row in part.rows.iter_mut().filter(|row| row.key == applied.as_slice()) {
            row.value = applied_row(index);
        }
        if let Some(point) = part.message.as_mut().and_then(|message| message.snapshot.as_mut()) {
            point.index = index;
        }
    }
}

/// Gives the parts of the first snapshot that is whole. `genuine`: the only ones that may be taken, since nobody signed others.
fn receive(
    receiver: &mut SnapshotReceiver,
    parts: Vec<SnapshotPart>,
    genuine: Option<&[SnapshotPart]>,
) -> Option<Vec<SnapshotPart>> {
    let (mut taken, mut is_whole) = (Vec::<SnapshotPart>::new(), false);
    for part in parts {
        let told = receiver.take(part.clone());
        if is_whole {
            assert_eq!(told, Ok(PartTaken::PassedOver), "a snapshot that is whole stays as it is");
            continue;
        }
        let message = match told {
            Ok(PartTaken::PassedOver) => continue,
            Ok(PartTaken::Written) => None,
            Ok(PartTaken::Whole(message)) => Some(*message),
            Err(reason) => {
                assert!(reason.starts_with("part "), "{reason}");
                taken.clear();
                continue;
            }
        };
        if part.number == 0 {
            taken.clear();
        }
        let place = taken.len();
        assert_eq!(part.number as usize, place, "parts are taken in order");
        let is_genuine = genuine.is_none_or(|genuine| genuine.get(place) == Some(&part));
        assert!(is_genuine, "changed on its way and taken: {part:?}");
        taken.push(part);
        if message.is_some() {
            assert_eq!(message, taken[0].message, "what the leader says");
            is_whole = true;
        }
    }
    is_whole.then_some(taken)
}

/// Raft wants the snapshot. The receiver has older rows and entries.
fn install(mut receiver: SnapshotReceiver, taken: &[SnapshotPart], then: Then) {
    fill(receiver.store(), 10..40, OLD_INDEX);
    fill_ends(receiver.store());
    let (_, others) = rows(receiver.store().memory());
    let mut log = receiver.open_log(&config()).expect("it is new");
    log.begin_at(&[SHARD], OLD_INDEX, TERM).expect("it writes");
    log.extend(SHARD, vec![entry(OLD_INDEX + 1)]).expect("it writes");
    receiver.decide().expect("it is whole");
    let installed = match then {
        Then::GoesOn => receiver.install(&log),
        Then::PowerFails => {
            drop(log);
            receiver.lose_power();
            log = receiver.open_log(&config()).expect("it was synced");
            receiver.start(&log)
        }
    };
    assert!(rows(receiver.store().memory()).1 == others, "rows of other shards have changed");
    // What could go wrong was to be refused before: a decided snapshot that cannot be installed ends its node for good.
    assert_eq!(installed, Ok(()));
    compare(&receiver, log, taken);
}

/// Rows and log are those of the parts, and nothing is left to be done.
fn compare(receiver: &SnapshotReceiver, log: Log, taken: &[SnapshotPart]) {
    assert_eq!(receiver.start(&log), Ok(()), "it is installed already");
    let (own, _) = rows(receiver.store().memory());
    assert!(own.into_iter().eq(rows_of_parts(taken)), "other rows than were sent");
    let entries: Vec<RaftEntry> = taken.iter().flat_map(|part| part.entries.clone()).collect();
    let (first, last) = (&entries[0], &entries[entries.len() - 1]);
    assert_eq!(log.span(SHARD), Some((first.index, last.index)), "other entries than were sent");
    assert_eq!(last.index, taken[0].index, "the snapshot's point");
    if last.index >= INDEX_END {
        return;
    }
    let range = LogRange { above: first.index - 1, up_to: last.index };
    let found = log.snapshot_entries(SHARD, range, usize::MAX).expect("they are readable");
    assert_eq!(found, entries, "other entries than were sent");
    let log = Arc::new(log);
    if let Err(error) = Group::open(Arc::clone(&log), SHARD, last.index, &Replicas::of(OWN, &VOTERS)) {
        // Nobody votes in a term without its leader having said so before.
        assert!(last.term > TERM, "{error}");
    }
    log.extend(SHARD, vec![entry(last.index + 1)]).expect("it writes");
    assert_eq!(log.span(SHARD), Some((first.index, last.index + 1)), "the log goes on");
}
