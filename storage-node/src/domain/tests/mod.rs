//! The domain against a naive model, over random commands, crashes and replays; and the rules one by one.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod generate;
mod model;
mod restored;
mod rules;

use super::{Event, Overlay, applied_index, apply, feed_positions, query, replay_events, set_applied_index};
use crate::engine::{MemoryStore, Store};
use generate::{Step, id_of_user};
use model::Model;
use proptest::prelude::*;
use wire_protocol::ids::{ConversationId, DeviceId, ShardId, UserId};
use wire_protocol::internal::{self, answer, outcome};
use wire_protocol::v1::ErrorCode;

const SHARD: ShardId = ShardId(3);

/// A shard: a log, the rows, and what the log led to when it was first applied.
struct World {
    store: MemoryStore,
    log: Vec<internal::CommandBatch>,
    applied: Vec<Vec<super::Applied>>,
    model: Model,
    time_ms: u64,
}

impl World {
    fn new() -> Self {
        Self {
            store: MemoryStore::new(),
            log: vec![],
            applied: vec![],
            model: Model::default(),
            time_ms: 1_000,
        }
    }

    /// Applies one log entry (index from 1) and writes its rows with its index.
    fn apply_entry(&self, index: u64) -> Vec<super::Applied> {
        let batch = &self.log[index as usize - 1];
        let mut overlay = Overlay::new(&self.store);
        let applied = apply(&mut overlay, SHARD, batch).expect("memory does not fail");
        set_applied_index(&mut overlay, SHARD, index, batch.time_ms);
        self.store.write(overlay.into_batch()).expect("memory does not fail");
        applied
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Batch { wait_ms, commands } => self.batch(wait_ms, commands),
            Step::Sync => {
                self.store.sync().expect("memory does not fail");
                Ok(())
            }
            Step::Crash { kept } => self.crash(kept),
            Step::Look(look) => self.look(&look),
        }
    }

    fn batch(&mut self, wait_ms: u64, commands: Vec<internal::Command>) -> Result<(), TestCaseError> {
        self.time_ms += wait_ms;
        self.log.push(internal::CommandBatch { time_ms: self.time_ms, commands, feed_cut: 0, log_cut: 0 });
        let index = self.log.len() as u64;
        let applied = self.apply_entry(index);
        let commands = &self.log[index as usize - 1].commands;
        prop_assert_eq!(applied.len(), commands.len());
        for (command, applied) in commands.iter().zip(&applied) {
            match (self.model.apply(self.time_ms, command), &applied.outcome.kind) {
                (Ok((outcome, events)), found) => {
                    prop_assert_eq!(found.as_ref(), Some(&outcome), "{:?}", command);
                    prop_assert_eq!(&applied.events, &events, "{:?}", command);
                }
                (Err(code), Some(outcome::Kind::Refused(refused))) => {
                    prop_assert_eq!(refused.code, code as u32, "{:?}", command);
                    prop_assert!(applied.events.is_empty());
                }
                (Err(code), found) => prop_assert!(false, "{command:?}: {code:?} expected, found {found:?}"),
            }
        }
        self.applied.push(applied);
        Ok(())
    }

    /// Loses what was not synced but `kept` batches, tells the events of what is left again, applies the rest again.
    fn crash(&mut self, kept: usize) -> Result<(), TestCaseError> {
        self.store.crash_keeping(kept);
        let (index, time_ms) = applied_index(&self.store, SHARD).expect("readable");
        let newest = self.log.get((index as usize).wrapping_sub(1));
        prop_assert_eq!(time_ms, newest.map_or(0, |batch| batch.time_ms));
        for index in 1..=index {
            self.check_replay(index)?;
        }
        for index in index + 1..=self.log.len() as u64 {
            let again = self.apply_entry(index);
            prop_assert_eq!(
                &again,
                &self.applied[index as usize - 1],
                "entry {} differs when it is replayed",
                index
            );
        }
        Ok(())
    }

    /// Everything the entry told is told again, as it was or in a newer form; and nothing untrue.
    fn check_replay(&self, index: u64) -> Result<(), TestCaseError> {
        let told = replay_events(&self.store, SHARD, &self.log[index as usize - 1]).expect("readable");
        let first_told = self.applied[index as usize - 1].iter().flat_map(|applied| &applied.events);
        for event in first_told {
            let is_told = self.need_not_be_told(index, event) || told.iter().any(|later| tells(later, event));
            prop_assert!(is_told, "entry {index}: {event:?} is not among {told:?}");
        }
        for event in &told {
            if let Event::Feed(item) = event {
                let id = ConversationId::from_slice(&item.conversation_id).unwrap();
                let room = &self.model.conversations[&id];
                prop_assert!(item.top_seq <= room.head().seq);
                if let Some(internal::feed_item::Event::Entry(entry)) = &item.event {
                    prop_assert_eq!(entry, &room.entries[entry.seq as usize - 1]);
                }
            }
        }
        Ok(())
    }

    /// Whatever happened: a last crash loses nothing, and the rows are those of an undisturbed run.
    fn end(&mut self) -> Result<(), TestCaseError> {
        self.crash(0)?;
        let undisturbed = MemoryStore::new();
        for (batch, index) in self.log.iter().zip(1..) {
            let mut overlay = Overlay::new(&undisturbed);
            apply(&mut overlay, SHARD, batch).expect("memory does not fail");
            set_applied_index(&mut overlay, SHARD, index, batch.time_ms);
            undisturbed.write(overlay.into_batch()).expect("memory does not fail");
        }
        prop_assert_eq!(self.store.rows(), undisturbed.rows());
        Ok(())
    }

    /// A device that made room for another, or that came back since: its sessions died in the crash.
    fn need_not_be_told(&self, index: u64, event: &Event) -> bool {
        let Event::DeviceRemoved { user, device } = event else { return false };
        let mut commands = self.log[index as usize - 1].commands.iter();
        let was_asked_for = commands.any(|command| {
            matches!(&command.kind, Some(internal::command::Kind::RemoveDevice(remove))
                if remove.user_id == user.to_bytes() && remove.device_id == device.to_bytes())
        });
        let user = super::users::load(&self.store, *user).expect("readable").expect("a device had it");
        !was_asked_for || user.devices.iter().any(|known| known.device_id == device.to_bytes())
    }

    fn look(&self, look: &generate::Look) -> Result<(), TestCaseError> {
        let ask = |kind| match query(&self.store, &internal::Query { kind: Some(kind) }) {
            Ok(answer) => answer.kind.unwrap(),
            Err(error) => panic!("{error}"),
        };
        self.look_at_conversation(look, ask(internal::query::Kind::ReadConversation(look.read.clone())))?;
        let user = id_of_user(look.user);
        self.look_at_user(
            user,
            ask(internal::query::Kind::ReadUser(internal::ReadUser { user_id: user.to_bytes() })),
        )?;
        let name = generate::name(look.user);
        let found = ask(internal::query::Kind::ReadName(internal::ReadName { name: name.clone() }));
        let confirmed = self.model.names.get(&name).filter(|name| name.confirmed);
        match (confirmed, found) {
            (Some(name), answer::Kind::Name(found)) => prop_assert_eq!(found.user_id, name.user.to_bytes()),
            (None, found) => prop_assert!(is_refused(&found, ErrorCode::ErrorNotFound)),
            (Some(_), found) => prop_assert!(false, "{found:?}"),
        }
        self.look_at_feed(look, user, &ask)
    }

    fn look_at_conversation(&self, look: &generate::Look, found: answer::Kind) -> Result<(), TestCaseError> {
        let id = ConversationId::from_slice(&look.read.conversation_id).unwrap();
        let user = UserId::from_slice(&look.read.user_id).unwrap();
        let device = DeviceId::from_slice(&look.read.device_id).unwrap();
        let Some(room) = self.model.conversations.get(&id) else {
            prop_assert!(is_refused(&found, ErrorCode::ErrorNotFound));
            return Ok(());
        };
        let Some(ordinal) = room.ordinal(user) else {
            prop_assert!(is_refused(&found, ErrorCode::ErrorNotAMember));
            return Ok(());
        };
        let answer::Kind::Conversation(found) = found else { panic!("{found:?}") };
        let (entries, truncated) = room.range(&look.read, user, device);
        prop_assert_eq!(found.entries, entries);
        prop_assert_eq!(found.truncated, truncated);
        let found = found.conversation.unwrap();
        prop_assert_eq!(found.kind as u32, room.kind);
        prop_assert_eq!(&found.title, &room.title);
        prop_assert_eq!(found.head_seq, room.head().seq);
        prop_assert_eq!(found.created_ms, room.created_ms);
        prop_assert_eq!(found.own_ordinal, ordinal);
        prop_assert_eq!(found.unread, room.unread(user));
        prop_assert_eq!((found.delivered_up_to, found.read_up_to), room.cursors(user, None));
        prop_assert_eq!(found.last.as_ref(), Some(room.head()));
        prop_assert_eq!(found.members, if look.read.with_members { room.members() } else { vec![] });
        Ok(())
    }

    fn look_at_user(&self, user: UserId, found: answer::Kind) -> Result<(), TestCaseError> {
        match (self.model.users.get(&user), found) {
            (Some(known), answer::Kind::User(found)) => {
                prop_assert_eq!(&found.username, &known.username);
                let devices =
                    found.devices.iter().map(|device| (&device.device_id[..], &device.refresh_hash));
                let known = known.devices.iter().map(|(device, hash)| (&device.0[..], hash));
                prop_assert_eq!(devices.collect::<Vec<_>>(), known.collect::<Vec<_>>());
            }
            (None, found) => prop_assert!(is_refused(&found, ErrorCode::ErrorNotFound)),
            (Some(_), found) => prop_assert!(false, "{found:?}"),
        }
        Ok(())
    }

    fn look_at_feed(
        &self,
        look: &generate::Look,
        user: UserId,
        ask: &dyn Fn(internal::query::Kind) -> answer::Kind,
    ) -> Result<(), TestCaseError> {
        let user_id = user.to_bytes();
        let mut rows = self.model.feed_of(user);
        let newest = rows.last().map_or(0, |row| row.version);
        let changed: Vec<_> = rows.iter().filter(|row| row.version > look.since).cloned().collect();
        let query = internal::ReadFeed {
            user_id: user_id.clone(),
            since_version: look.since,
            rows_max: look.rows_max,
        };
        let answer::Kind::Feed(found) = ask(internal::query::Kind::ReadFeed(query)) else {
            panic!("no feed")
        };
        let count = changed.len().min(look.rows_max as usize);
        prop_assert_eq!(&found.rows[..], &changed[..count]);
        prop_assert_eq!((found.version, found.more), (newest, count < changed.len()));

        // The whole list, page by page.
        rows.sort_by(|a, b| (b.activity_ms, &b.conversation_id).cmp(&(a.activity_ms, &a.conversation_id)));
        let mut listed: Vec<internal::FeedRow> = vec![];
        loop {
            let last = listed.last().cloned().unwrap_or_default();
            let query = internal::ReadConversationList {
                user_id: user_id.clone(),
                rows_max: look.rows_max,
                before_activity_ms: last.activity_ms,
                before_conversation_id: last.conversation_id,
            };
            let found = ask(internal::query::Kind::ReadConversationList(query));
            let answer::Kind::ConversationList(found) = found else { panic!("no list") };
            prop_assert!(found.rows.len() <= look.rows_max as usize);
            listed.extend(found.rows);
            if !found.more {
                break;
            }
        }
        prop_assert_eq!(listed, rows);
        let positions = feed_positions(&self.store, SHARD).expect("readable");
        let known = self.model.positions.iter().filter(|(_, index)| **index > 0);
        let position = |(&source_shard, &log_index)| internal::FeedPosition { source_shard, log_index };
        prop_assert_eq!(positions, known.map(position).collect::<Vec<_>>());
        Ok(())
    }
}

/// Whether `later` tells at least what `event` told.
fn tells(later: &Event, event: &Event) -> bool {
    use internal::feed_item::Event::{Entry, Receipt};
    match (later, event) {
        (Event::Feed(later), Event::Feed(first)) => {
            let same_place =
                later.conversation_id == first.conversation_id && later.user_ids == first.user_ids;
            let is_newer = later.top_seq >= first.top_seq && later.activity_ms >= first.activity_ms;
            let same = match (&later.event, &first.event) {
                (Some(Entry(later)), Some(Entry(first))) => later == first,
                (Some(Receipt(later)), Some(Receipt(first))) => {
                    later.member == first.member
                        && later.delivered_up_to >= first.delivered_up_to
                        && later.read_up_to >= first.read_up_to
                }
                // The entry's answer has expired: the conversation's place says enough.
                (None, Some(Entry(_))) => true,
                _ => false,
            };
            same_place && is_newer && same
        }
        (later, event) => later == event,
    }
}

fn is_refused(found: &answer::Kind, code: ErrorCode) -> bool {
    matches!(found, answer::Kind::Refused(refused) if refused.code == code as u32)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model_across_crashes(steps in generate::steps(60)) {
        let mut world = World::new();
        for step in steps {
            world.run(step)?;
        }
        world.end()?;
    }

    #[test]
    fn accounts_and_names_agree_with_the_model(steps in generate::account_steps(80)) {
        let mut world = World::new();
        for step in steps {
            world.run(step)?;
        }
        world.end()?;
    }

    #[test]
    fn several_batches_on_one_overlay_are_the_same_rows(steps in generate::steps(30)) {
        let (apart, together) = (MemoryStore::new(), MemoryStore::new());
        let mut time_ms = 0;
        let mut overlay = Overlay::new(&together);
        for step in steps {
            let Step::Batch { wait_ms, commands } = step else { continue };
            time_ms += wait_ms;
            let batch = internal::CommandBatch { time_ms, commands, feed_cut: 0, log_cut: 0 };
            let mut single = Overlay::new(&apart);
            let first = apply(&mut single, SHARD, &batch).expect("memory does not fail");
            apart.write(single.into_batch()).expect("memory does not fail");
            prop_assert_eq!(apply(&mut overlay, SHARD, &batch).expect("memory does not fail"), first);
        }
        together.write(overlay.into_batch()).expect("memory does not fail");
        prop_assert_eq!(together.rows(), apart.rows());
    }
}
