//! The rows of a fleet that is made anew from backups, of which each shard may be of another moment.
//!
//! What a shard says of itself is taken as it is. What one shard says of another one is not: it follows from the other, and
//! is made anew.
//!
//! | rows | taken from |
//! | --- | --- |
//! | conversations, heads, messages, first answers, cursors, users | the shard's backup |
//! | change feeds | the conversations: every one is a change for each member, newer than any that a client may know |
//! | names | the users: a name whose user is lost is free again, a user whose name is lost has it again |
//! | applied index, feed positions | the index at which all logs begin: no feed has anything to catch up with |

use super::conversations::{Head, Room};
use super::row::RowWriter;
use super::{feed, names, users};
use crate::engine::keys::{self, Key};
use crate::engine::{Store, StoreError, View, WriteBatch};
use crate::feed::home::version_of;
use bytes::Bytes;
use wire_protocol::ids::{ConversationId, ShardId, UserId, name_slot};

/// Rows that are written at once.
const BATCH_ROWS: usize = 4_096;

/// A store that is being filled.
pub(crate) struct Restored<'a> {
    store: &'a dyn Store,
    /// Where each shard's rows are.
    sources: Vec<&'a dyn View>,
    /// Shards that the store is to hold.
    own: Vec<bool>,
    /// The logs begin at this index,
    index: u64,
    /// and in this term.
    term: u64,
    /// Changes given so far, by home shard. The same on every node, whatever others it holds.
    changes: Vec<u64>,
    batch: WriteBatch,
}

impl<'a> Restored<'a> {
    /// `sources`: a view for each shard of the fleet.
    pub fn new(
        store: &'a dyn Store,
        sources: Vec<&'a dyn View>,
        own: &[ShardId],
        (index, term): (u64, u64),
    ) -> Self {
        let is_own = |shard: usize| own.contains(&ShardId(shard as u32));
        Self {
            store,
            own: (0..sources.len()).map(is_own).collect(),
            index,
            term,
            changes: vec![0; sources.len()],
            sources,
            batch: WriteBatch::new(),
        }
    }

    fn shard_count(&self) -> u32 {
        self.sources.len() as u32
    }

    fn source(&self, shard: ShardId) -> Result<&'a dyn View, StoreError> {
        let source = self.sources.get(shard.0 as usize).copied();
        source.ok_or_else(|| StoreError::Engine(format!("shard {shard} of {}", self.shard_count())))
    }

    fn is_own(&self, shard: ShardId) -> bool {
        self.own.get(shard.0 as usize).copied().unwrap_or(false)
    }

    /// Takes over what a shard of this node says of itself; gives the number of rows.
    pub fn take(&mut self, shard: ShardId, time_ms: u64) -> Result<u64, StoreError> {
        let (source, mut rows) = (self.source(shard)?, 0);
        let [(from, to), ..] = keys::ranges_of_shard(shard, self.shard_count());
        self.batch.set_logged_ms(time_ms);
        walk(source, &from, &to, &mut |key, value| {
            if !follows_from_others(key) {
                let damaged = StoreError::Damaged { table: "unknown", detail: "a key longer than any" };
                rows += 1;
                self.put(Key::copy_of(key).ok_or(damaged)?, Bytes::copy_from_slice(value))?;
            }
            Ok(())
        })?;
        let row = RowWriter::new(20).varint(self.index).varint(time_ms).finish();
        self.put(keys::applied(shard), row)?;
        for other in 0..self.shard_count() {
            self.put(keys::feed_position(shard, ShardId(other)), feed::position_row(self.index))?;
        }
        Ok(rows)
    }

    /// Tells the feeds of this node's users of all conversations of a shard. To be called for every shard of the fleet,
    /// ascending.
    pub fn tell_feeds(&mut self, of: ShardId) -> Result<(), StoreError> {
        let source = self.source(of)?;
        for slot in keys::slots_of_shard(of, self.shard_count()) {
            let (from, to) = keys::table_range(slot, keys::CONVERSATION);
            walk(source, &from, &to, &mut |key, value| {
                let room = Room::parse(Bytes::copy_from_slice(value))?;
                let damaged = StoreError::Damaged { table: "conversation", detail: "short key" };
                let id = ConversationId(keys::entity(key).ok_or(damaged)?);
                let head = Head::load(source, id)?;
                room.member_ids()
                    .iter()
                    .filter_map(|member| UserId::from_slice(member))
                    .try_for_each(|user| self.tell_feed(user, id, head))
            })?;
        }
        Ok(())
    }

    fn tell_feed(&mut self, user: UserId, id: ConversationId, head: Head) -> Result<(), StoreError> {
        let home = user.slot().shard(self.shard_count());
        let Some(changes) = self.changes.get_mut(home.0 as usize) else { return Ok(()) };
        *changes += 1;
        let version = version_of(self.term, *changes);
        if !self.is_own(home) {
            return Ok(());
        }
        for (key, row) in feed::new_rows(user, id, version, (head.seq, head.time_ms)) {
            self.put(key, row)?;
        }
        Ok(())
    }

    /// Gives the users of a home shard their names, as far as those belong to this node. To be called for every shard of the
    /// fleet.
    pub fn give_names(&mut self, home: ShardId) -> Result<(), StoreError> {
        let source = self.source(home)?;
        for slot in keys::slots_of_shard(home, self.shard_count()) {
            let (from, to) = keys::table_range(slot, keys::USER);
            walk(source, &from, &to, &mut |key, value| {
                let damaged = StoreError::Damaged { table: "user", detail: "short key" };
                let user = UserId(keys::entity(key).ok_or(damaged)?);
                let record = users::parse(Bytes::copy_from_slice(value))?;
                self.give_name(user, &record.username, record.created_ms)
            })?;
        }
        Ok(())
    }

    fn give_name(&mut self, user: UserId, name: &str, created_ms: u64) -> Result<(), StoreError> {
        let shard = name_slot(name).shard(self.shard_count());
        if !self.is_own(shard) {
            return Ok(());
        }
        let owner = names::owner(self.source(shard)?, name)?;
        if let Some(owner) = owner.filter(|owner| *owner != user)
            && self.created(owner, name)?.is_some()
        {
            return Ok(());
        }
        if owner != Some(user) {
            // Two whose claims were lost or never confirmed: whoever came first.
            self.write()?;
            let rival = names::owner(self.store, name)?;
            if let Some(rival) = rival
                && self
                    .created(rival, name)?
                    .is_some_and(|rivals_ms| (rivals_ms, rival.0) < (created_ms, user.0))
            {
                return Ok(());
            }
        }
        self.put(keys::name(name), names::confirmed_row(user, name, created_ms))
    }

    /// When the user of this name was made, if there is such a user.
    fn created(&self, user: UserId, name: &str) -> Result<Option<u64>, StoreError> {
        let source = self.source(user.slot().shard(self.shard_count()))?;
        let record = users::load(source, user)?.filter(|record| record.username == name);
        Ok(record.map(|record| record.created_ms))
    }

    fn put(&mut self, key: Key, value: Bytes) -> Result<(), StoreError> {
        self.batch.put(key, value);
        if self.batch.rows().len() < BATCH_ROWS { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.store.write(std::mem::take(&mut self.batch))
    }

    /// All of it is durable on return.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write()?;
        self.store.sync()
    }
}

/// Whether a row of a shard's slots is about other shards.
fn follows_from_others(key: &[u8]) -> bool {
    let others = [keys::FEED, keys::FEED_BY_VERSION, keys::FEED_BY_ACTIVITY, keys::NAME];
    keys::table(key).is_some_and(|table| others.contains(&table))
}

/// Takes a row, key and value.
type Take<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError>;

/// As [`View::walk`], until an error.
fn walk(view: &dyn View, from: &[u8], to: &[u8], take: Take<'_>) -> Result<(), StoreError> {
    let mut taken = Ok(());
    view.walk(from, to, &mut |key, value| {
        taken = take(key, value);
        taken.is_ok()
    })?;
    taken
}
