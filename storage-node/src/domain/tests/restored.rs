//! A fleet made of shards of different moments: what one says of another follows from the other.

use super::super::Restored;
use super::*;
use crate::engine::{View, keys};
use bytes::Bytes;
use wire_protocol::ids::{Seq, name_slot};
use wire_protocol::internal::{
    ClaimName, ConfirmName, CreateConversation, CreateUser, Device, FeedCheckpoint, FeedPosition, FeedRow,
    ReadFeed, ReadName, SendMessage, command, query,
};
use wire_protocol::v1::ConversationKind;

const SHARDS: u32 = 4;
const INDEX: u64 = 1 << 40;
const TERM: u64 = 1 << 17;

/// Each shard's rows in a store of its own, as backups of different moments have them.
struct Backups(Vec<MemoryStore>);

impl Backups {
    fn new() -> Self {
        Self((0..SHARDS).map(|_| MemoryStore::new()).collect())
    }

    fn store(&self, shard: ShardId) -> &MemoryStore {
        &self.0[shard.0 as usize]
    }

    fn apply(&self, shard: ShardId, kind: command::Kind) {
        let store = self.store(shard);
        let index = applied_index(store, shard).unwrap().0 + 1;
        let commands = vec![internal::Command { kind: Some(kind) }];
        let batch = internal::CommandBatch { time_ms: 1_000 + index, commands, feed_cut: 0, log_cut: 0 };
        let mut overlay = Overlay::new(store);
        let applied = super::super::apply(&mut overlay, shard, &batch).unwrap();
        assert!(!matches!(applied[0].outcome.kind, Some(outcome::Kind::Refused(_))), "{applied:?}");
        set_applied_index(&mut overlay, shard, index, batch.time_ms);
        store.write(overlay.into_batch()).unwrap();
    }

    fn user(&self, user: UserId, name: &str) {
        let device = Device {
            device_id: Bytes::from_static(&[9; 16]),
            name: "phone".into(),
            refresh_hash: Bytes::from_static(&[1; 32]),
            created_ms: 0,
        };
        let create = CreateUser {
            user_id: user.to_bytes(),
            username: name.into(),
            display_name: name.into(),
            password_hash: "hash".into(),
            device: Some(device),
        };
        self.apply(user.slot().shard(SHARDS), command::Kind::CreateUser(create));
    }

    fn name(&self, user: UserId, name: &str) {
        let shard = name_slot(name).shard(SHARDS);
        let (user_id, name) = (user.to_bytes(), name.to_owned());
        let claim = ClaimName { user_id: user_id.clone(), name: name.clone() };
        self.apply(shard, command::Kind::ClaimName(claim));
        self.apply(shard, command::Kind::ConfirmName(ConfirmName { user_id, name }));
    }

    fn talk(&self, a: UserId, b: UserId, messages: u64) -> ConversationId {
        let id = ConversationId::direct(a, b);
        let shard = id.slot().shard(SHARDS);
        let create = CreateConversation {
            conversation_id: id.to_bytes(),
            kind: ConversationKind::Direct as u32,
            member_ids: vec![a.to_bytes(), b.to_bytes()],
            title: String::new(),
        };
        self.apply(shard, command::Kind::CreateConversation(create));
        for client_message_id in 1..=messages {
            let send = SendMessage {
                conversation_id: id.to_bytes(),
                user_id: a.to_bytes(),
                device_id: Bytes::from_static(&[9; 16]),
                client_message_id,
                predecessor: 0,
                kind: 0,
                body: Bytes::from_static(b"hello"),
            };
            self.apply(shard, command::Kind::SendMessage(send));
        }
        id
    }

    fn restore(&self, own: &[ShardId]) -> MemoryStore {
        let store = MemoryStore::new();
        let sources = self.0.iter().map(|store| store as &dyn View).collect();
        let mut restored = Restored::new(&store, sources, own, (INDEX, TERM));
        for shard in own {
            let (_, time_ms) = applied_index(self.store(*shard), *shard).unwrap();
            restored.take(*shard, time_ms).unwrap();
        }
        for shard in all() {
            restored.tell_feeds(shard).unwrap();
            restored.give_names(shard).unwrap();
        }
        restored.finish().unwrap();
        store
    }
}

fn all() -> Vec<ShardId> {
    (0..SHARDS).map(ShardId).collect()
}

fn user(number: u8) -> UserId {
    UserId([number; 16])
}

fn feed(store: &MemoryStore, user: UserId, since_version: u64) -> Vec<(Bytes, u64, u64)> {
    let read = ReadFeed { user_id: user.to_bytes(), since_version, rows_max: 0 };
    let answer = query(store, &internal::Query { kind: Some(query::Kind::ReadFeed(read)) }).unwrap();
    let Some(answer::Kind::Feed(page)) = answer.kind else { panic!("{answer:?}") };
    page.rows.into_iter().map(|row| (row.conversation_id, row.top_seq, row.version)).collect()
}

fn owner(store: &MemoryStore, name: &str) -> Option<UserId> {
    let read = ReadName { name: name.into() };
    let answer = query(store, &internal::Query { kind: Some(query::Kind::ReadName(read)) }).unwrap();
    match answer.kind {
        Some(answer::Kind::Name(record)) => UserId::from_slice(&record.user_id),
        _ => None,
    }
}

#[test]
fn feeds_are_those_of_the_conversations_that_are_there() {
    let backups = Backups::new();
    let (ada, bob, eve) = (user(1), user(2), user(3));
    backups.user(ada, "ada");
    let talk = backups.talk(ada, bob, 3);
    // Ada's home is newer than the conversations': it knows of more messages, and of a conversation that is lost.
    let lost = ConversationId::direct(ada, eve);
    let row = |id: ConversationId, version: u64, top_seq| FeedRow {
        user_id: ada.to_bytes(),
        conversation_id: id.to_bytes(),
        version,
        top_seq,
        activity_ms: 5_000,
    };
    let rows = vec![row(talk, 7, 90), row(lost, 8, 1)];
    let positions = vec![FeedPosition { source_shard: talk.slot().shard(SHARDS).0, log_index: 500 }];
    let home = ada.slot().shard(SHARDS);
    backups.apply(home, command::Kind::FeedCheckpoint(FeedCheckpoint { rows, positions }));

    let store = backups.restore(&all());
    for who in [ada, bob] {
        let rows = feed(&store, who, 8);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].0.clone(), rows[0].1), (talk.to_bytes(), 4), "the creation is the first entry");
        assert!(rows[0].2 > TERM << 40 && rows[0].2 < (TERM + 1) << 40);
    }
    assert!(feed(&store, eve, 0).is_empty());
    let place = keys::feed_by_activity(ada, 5_000, lost);
    assert!(store.rows().iter().all(|(key, _)| *key != place.as_slice()));
    assert!(store.rows().iter().any(|(key, _)| *key == keys::message(talk, Seq(4)).as_slice()));
    for shard in all() {
        let (_, time_ms) = applied_index(backups.store(shard), shard).unwrap();
        assert_eq!(applied_index(&store, shard).unwrap(), (INDEX, time_ms));
        let positions = feed_positions(&store, shard).unwrap();
        assert!(
            positions
                .iter()
                .map(|position| (position.source_shard, position.log_index))
                .eq((0..SHARDS).map(|source| (source, INDEX)))
        );
    }
}

#[test]
fn names_are_those_of_the_users_that_are_there() {
    let backups = Backups::new();
    let (ada, bob, carl, dora, rival) = (user(1), user(2), user(3), user(4), user(5));
    backups.user(ada, "ada");
    backups.name(ada, "ada");
    // His home is older than his name.
    backups.name(bob, "bob");
    // His name's shard is older than he.
    backups.user(carl, "carl");
    // Somebody lost the race for a name and stayed behind without one.
    backups.user(rival, "dora");
    backups.user(dora, "dora");
    backups.name(dora, "dora");
    let store = backups.restore(&all());
    assert_eq!(owner(&store, "ada"), Some(ada));
    assert_eq!(owner(&store, "bob"), None);
    assert_eq!(owner(&store, "carl"), Some(carl));
    assert_eq!(owner(&store, "dora"), Some(dora));
    // Of two without a word from the name's shard it is the first; of the same moment, the lower id.
    for user in [user(6), user(7)] {
        backups.user(user, "zoe");
    }
    let first = [user(6), user(7)].into_iter().min_by_key(|user| {
        let record =
            super::super::users::load(backups.store(user.slot().shard(SHARDS)), *user).unwrap().unwrap();
        (record.created_ms, *user)
    });
    let store = backups.restore(&all());
    assert_eq!(owner(&store, "zoe"), first);
}

#[test]
fn every_node_makes_the_same_rows_of_a_shard() {
    let backups = Backups::new();
    let people: Vec<UserId> = (1..40).map(user).collect();
    for (number, person) in people.iter().enumerate() {
        backups.user(*person, &format!("person{number}"));
        backups.name(*person, &format!("person{number}"));
    }
    for pair in people.windows(2) {
        backups.talk(pair[0], pair[1], 2);
    }
    let whole = backups.restore(&all()).rows();
    for own in [vec![0], vec![1, 3], vec![0, 2], vec![2, 3]] {
        let own: Vec<ShardId> = own.into_iter().map(ShardId).collect();
        let is_own = |key: &[u8]| {
            own.iter().any(|shard| {
                let ranges = keys::ranges_of_shard(*shard, SHARDS);
                ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key))
            })
        };
        let wanted: Vec<_> = whole.iter().filter(|(key, _)| is_own(key)).cloned().collect();
        assert!(!wanted.is_empty());
        assert_eq!(backups.restore(&own).rows(), wanted, "{own:?}");
    }
}
