use super::*;
use crate::engine::outbox::Outgoing;
use crate::engine::timeline::Arrived;
use crate::engine::writes::ConversationFacts;
use crate::model::{Identity, PendingState, Refusal};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq, UserId};
use wire_protocol::v1::{self, Entry, EntryKind, ErrorCode};

const ROOM: ConversationId = ConversationId([1; 16]);

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringline-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // A process of the same number may have been killed.
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Store {
        Store::open(&self.0).expect("opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn facts(unread: u64, unread_at: u64) -> Write {
    Write::Conversation(ConversationFacts {
        id: ROOM,
        kind: v1::ConversationKind::Group as i32,
        title: "room".into(),
        own_ordinal: 0,
        created_ms: 5,
        unread,
        unread_at,
    })
}

fn entry(seq: u64, sender: u32, link: Option<u64>) -> Write {
    let entry = Entry { seq, sender, time_ms: seq * 10, kind: 0, body: format!("entry {seq}").into() };
    Write::Entry { conversation: ROOM, arrived: Arrived { entry, link: link.map(ClientMessageId) } }
}

fn window(low: u64, high: u64, head: u64) -> Write {
    Write::Window { conversation: ROOM, low, high, head }
}

fn outgoing(id: u64, first_attempt_ms: Option<u64>) -> Outgoing {
    let id = ClientMessageId(id);
    Outgoing {
        conversation: ROOM,
        id,
        kind: 0,
        body: Bytes::from_static(b"text"),
        queued_ms: 7,
        first_attempt_ms,
    }
}

fn member(ordinal: u32, delivered: u64, read: u64) -> v1::Member {
    let user_id = UserId([ordinal as u8; 16]).to_bytes();
    v1::Member { ordinal, user_id, delivered_up_to: delivered, read_up_to: read }
}

fn identity(user: u8, device: u8) -> Identity {
    let (user, device) = (UserId([user; 16]), DeviceId([device; 16]));
    Identity { user, device, username: "ada".into(), display_name: "Ada".into() }
}

fn credentials(refresh: &str) -> Credentials {
    Credentials { refresh_token: refresh.into(), access_token: "access".into(), access_ends_ms: u64::MAX - 1 }
}

#[test]
fn everything_comes_back_as_it_was() {
    let folder = Folder::new();
    let last = u64::MAX - 5;
    let user =
        v1::User { user_id: UserId([1; 16]).to_bytes(), username: "bob".into(), display_name: "Bob".into() };
    folder
        .open()
        .commit(&[
            Write::FeedVersion(last),
            Write::ResumeToken(Some(Bytes::from_static(b"resume"))),
            facts(0, 0),
            Write::Members { conversation: ROOM, members: vec![member(0, 0, 0), member(1, 4, 3)] },
            entry(3, 0, Some(last)),
            entry(4, 1, None),
            entry(9, 0, Some(77)),
            window(3, 4, 9),
            Write::ReadUpTo { conversation: ROOM, seq: 3 },
            Write::Confirmed { conversation: ROOM, delivered: 4, read: 2 },
            Write::Queued(outgoing(last, None)),
            Write::Queued(outgoing(2, Some(8))),
            Write::Users(vec![user]),
        ])
        .expect("committed");

    let store = folder.open();
    let snapshot = store.snapshot().expect("read");
    assert_eq!((snapshot.feed_version, snapshot.resume_token), (last, Some(Bytes::from_static(b"resume"))));
    assert_eq!(snapshot.outbox, [outgoing(last, None), outgoing(2, Some(8))]);
    assert_eq!(snapshot.users, [UserId([1; 16])]);
    let [room] = &snapshot.conversations[..] else { panic!("one conversation") };
    assert_eq!((room.low, room.high, room.head, room.read_up_to), (3, 4, 9, 3));
    assert_eq!((room.delivered_confirmed, room.read_confirmed), (4, 2));
    assert_eq!(room.members, [(0, UserId([0; 16])), (1, UserId([1; 16]))]);
    assert_eq!(
        room.ahead.iter().map(|ahead| (ahead.entry.seq, ahead.link)).collect::<Vec<_>>(),
        [(9, Some(ClientMessageId(77)))]
    );

    let history = store.history(ROOM, None, 100).expect("read");
    assert_eq!(history.iter().map(|message| message.seq.0).collect::<Vec<_>>(), [3, 4], "only the window");
    assert_eq!(history[0].client_message_id, Some(ClientMessageId(last)));
    assert!(history[0].own && !history[1].own);
    assert_eq!(store.history(ROOM, Some(Seq(4)), 100).expect("read").len(), 1);
    let conversation = store.conversation(ROOM).expect("read").expect("known");
    assert_eq!((conversation.unread, conversation.high, conversation.activity_ms), (1, Seq(4), 40));
    assert_eq!(conversation.members[1].username, "bob");
    let pending = store.pending(ROOM).expect("read");
    assert_eq!(
        pending.iter().map(|message| message.state.clone()).collect::<Vec<_>>(),
        [PendingState::Accepted(Seq(9)), PendingState::OnItsWay, PendingState::OnItsWay,]
    );
}

#[test]
fn an_entry_never_changes_but_may_learn_whose_it_is() {
    let folder = Folder::new();
    let mut store = folder.open();
    store.commit(&[facts(0, 0), entry(1, 0, None), window(1, 1, 1)]).expect("committed");
    let other = Entry { seq: 1, sender: 3, body: Bytes::from_static(b"other"), ..Entry::default() };
    let other = Arrived { entry: other, link: Some(ClientMessageId(5)) };
    store.commit(&[Write::Entry { conversation: ROOM, arrived: other }]).expect("committed");
    let history = store.history(ROOM, None, 10).expect("read");
    assert_eq!((history[0].text().as_ref(), history[0].sender_ordinal), ("entry 1", 0));
    assert_eq!(history[0].client_message_id, Some(ClientMessageId(5)));
    assert_eq!(store.own_entry(ROOM, ClientMessageId(5)).expect("read"), Some(Seq(1)));
}

#[test]
fn cursors_never_fall() {
    let folder = Folder::new();
    let mut store = folder.open();
    let members = |delivered, read| Write::Members {
        conversation: ROOM,
        members: vec![member(0, 0, 0), member(1, delivered, read)],
    };
    store
        .commit(&[
            facts(0, 0),
            members(5, 4),
            members(3, 2),
            Write::Receipt { conversation: ROOM, member: 1, delivered: 1, read: 1 },
            Write::ReadUpTo { conversation: ROOM, seq: 9 },
            Write::ReadUpTo { conversation: ROOM, seq: 8 },
        ])
        .expect("committed");
    let conversation = store.conversation(ROOM).expect("read").expect("known");
    assert_eq!(
        (conversation.members[1].delivered_up_to, conversation.members[1].read_up_to),
        (Seq(5), Seq(4))
    );
    assert_eq!(conversation.read_up_to, Seq(9));
}

#[test]
fn unread_is_counted_here_or_taken_from_the_server() {
    let folder = Folder::new();
    let mut store = folder.open();
    let created = Entry { seq: 1, kind: EntryKind::Created as i32, ..Entry::default() };
    let created = Write::Entry { conversation: ROOM, arrived: Arrived { entry: created, link: None } };
    let unread = |store: &Store| store.conversation(ROOM).expect("read").expect("known").unread;
    // 90 unread by the server's count when the head stood at 100; the device begins at 99.
    store
        .commit(&[facts(90, 100), entry(99, 1, None), entry(100, 1, None), window(99, 100, 100)])
        .expect("ok");
    assert_eq!(unread(&store), 90);
    store.commit(&[entry(101, 1, None), entry(102, 0, None), window(99, 102, 102)]).expect("ok");
    assert_eq!(unread(&store), 91, "own messages do not count");
    store.commit(&[Write::ReadUpTo { conversation: ROOM, seq: 99 }]).expect("ok");
    assert_eq!(unread(&store), 2);
    store.commit(&[Write::ReadUpTo { conversation: ROOM, seq: 102 }]).expect("ok");
    assert_eq!(unread(&store), 0);

    let folder = Folder::new();
    let mut store = folder.open();
    store.commit(&[facts(0, 0), created, entry(2, 1, None), window(1, 2, 2)]).expect("ok");
    assert_eq!(unread(&store), 1, "what the server writes does not count");
}

#[test]
fn refused_messages_stay_but_are_not_sent() {
    let folder = Folder::new();
    let mut store = folder.open();
    let refusal = Refusal::Server { code: ErrorCode::ErrorNotAMember, detail: "gone".into() };
    let id = ClientMessageId(1);
    store
        .commit(&[
            Write::Queued(outgoing(1, None)),
            Write::Attempted { conversation: ROOM, id, at_ms: 9 },
            Write::Refused { conversation: ROOM, id, refusal: refusal.clone() },
        ])
        .expect("committed");
    assert!(store.snapshot().expect("read").outbox.is_empty());
    let pending = store.pending_message(ROOM, id).expect("read").expect("there");
    assert_eq!(pending.state, PendingState::Refused(refusal));
    store.commit(&[Write::Unqueued { conversation: ROOM, id }]).expect("committed");
    assert_eq!(store.pending_message(ROOM, id).expect("read"), None);
}

#[test]
fn another_user_finds_nothing_and_another_device_sends_nothing_twice() {
    let folder = Folder::new();
    let mut store = folder.open();
    store.set_identity(&identity(1, 1), &credentials("first")).expect("stored");
    let rows = [facts(0, 0), Write::Queued(outgoing(1, Some(5))), Write::Queued(outgoing(2, None))];
    store.commit(&rows).expect("committed");
    store.commit(&[Write::Confirmed { conversation: ROOM, delivered: 4, read: 4 }]).expect("committed");

    store.set_identity(&identity(1, 2), &credentials("second")).expect("stored");
    let snapshot = store.snapshot().expect("read");
    assert_eq!(snapshot.outbox, [outgoing(2, None)], "the attempted one waits for the user");
    assert_eq!(snapshot.conversations[0].delivered_confirmed, 0);
    let unconfirmed = store.pending_message(ROOM, ClientMessageId(1)).expect("read").expect("there");
    assert_eq!(unconfirmed.state, PendingState::Refused(Refusal::Unconfirmed));
    assert_eq!(store.identity().expect("read"), Some(identity(1, 2)));
    assert_eq!(store.credentials().expect("read"), Some(credentials("second")));

    store.set_identity(&identity(9, 3), &credentials("third")).expect("stored");
    assert!(store.snapshot().expect("read").conversations.is_empty());
    assert!(store.pending(ROOM).expect("read").is_empty());
    store.forget_credentials().expect("stored");
    assert_eq!(store.credentials().expect("read"), None);
    assert!(store.identity().expect("read").is_some());
    store.wipe().expect("wiped");
    assert_eq!(store.identity().expect("read"), None);
}

#[test]
fn a_failed_commit_changes_nothing_and_is_the_last() {
    let folder = Folder::new();
    let mut store = folder.open();
    let twice = [Write::FeedVersion(5), Write::Queued(outgoing(1, None)), Write::Queued(outgoing(1, None))];
    assert!(matches!(store.commit(&twice), Err(StoreError::Database(_))));
    assert!(matches!(store.commit(&[Write::FeedVersion(6)]), Err(StoreError::Failed)));
    assert_eq!(store.snapshot().expect("read").feed_version, 0);
    drop(store);
    folder.open().commit(&[Write::FeedVersion(6)]).expect("opened again, it works");
}

#[test]
fn one_process_owns_the_store_and_other_formats_are_refused() {
    let folder = Folder::new();
    let store = folder.open();
    assert!(matches!(Store::open(&folder.0), Err(StoreError::InUse)));
    store.connection.pragma_update(None, "user_version", 2).expect("written");
    drop(store);
    assert!(matches!(Store::open(&folder.0), Err(StoreError::Version { found: 2, known: 1 })));
}

#[test]
fn damaged_files_are_refused_without_a_panic() {
    let folder = Folder::new();
    let mut store = folder.open();
    let entries: Vec<Write> = (1..200).map(|seq| entry(seq, 1, None)).collect();
    store.commit(&entries).expect("committed");
    store.commit(&[facts(0, 0), window(1, 199, 199)]).expect("committed");
    drop(store);
    let file = folder.0.join(FILE_NAME);
    let whole = std::fs::read(&file).expect("read");
    for step in 1..60 {
        let mut damaged = whole.clone();
        let at = step * whole.len() / 60;
        damaged[at..].iter_mut().take(64).for_each(|byte| *byte ^= 0xa5);
        if step % 2 == 0 {
            damaged.truncate(at);
        }
        std::fs::write(&file, &damaged).expect("written");
        if let Ok(store) = Store::open(&folder.0) {
            // Whatever is answered, it is an answer.
            let _ = (store.snapshot(), store.conversations(10), store.history(ROOM, None, 1_000));
        }
    }
    std::fs::write(&file, b"not a database at all, but long enough to be looked at as one").expect("written");
    assert!(Store::open(&folder.0).is_err());
}

#[cfg(unix)]
#[test]
fn nobody_else_reads_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let mut store = folder.open();
    store.set_identity(&identity(1, 1), &credentials("secret")).expect("stored");
    for file in std::fs::read_dir(&folder.0).expect("listed") {
        let mode = file.expect("listed").metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
    assert_eq!(std::fs::metadata(&folder.0).expect("there").permissions().mode() & 0o077, 0);
}

#[test]
fn every_commit_is_synced() {
    let folder = Folder::new();
    let store = folder.open();
    let setting = |name: &str| -> String {
        let value =
            store.connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        format!("{:?}", value.expect("a setting"))
    };
    // FULL: the log of changes is synced with each commit, not only with the file itself.
    assert_eq!(
        (setting("synchronous"), setting("journal_mode")),
        ("Integer(2)".into(), "Text(\"wal\")".into())
    );
}

#[test]
fn the_outbox_comes_back_in_the_order_it_was_filled() {
    let folder = Folder::new();
    let ids = [7, u64::MAX, 3, 1 << 63, 5];
    let writes: Vec<Write> = ids.map(|id| Write::Queued(outgoing(id, None))).to_vec();
    folder.open().commit(&writes).expect("committed");
    let snapshot = folder.open().snapshot().expect("read");
    assert_eq!(snapshot.outbox.iter().map(|message| message.id.0).collect::<Vec<_>>(), ids);
}

#[test]
fn a_new_log_in_does_not_begin_with_the_token_of_the_one_before() {
    let folder = Folder::new();
    let mut store = folder.open();
    store.set_identity(&identity(1, 1), &credentials("first")).expect("stored");
    store.commit(&[Write::ResumeToken(Some(Bytes::from_static(b"resume")))]).expect("committed");
    store.set_identity(&identity(1, 2), &credentials("second")).expect("stored");
    assert_eq!(store.snapshot().expect("read").resume_token, None);
}

#[test]
fn what_a_restored_server_may_not_have_goes_and_the_outbox_stays() {
    let folder = Folder::new();
    let mut store = folder.open();
    let member = member(1, 4, 3);
    let members = Write::Members { conversation: ROOM, members: vec![member] };
    let there = [facts(0, 0), members, entry(1, 1, None), window(1, 1, 1), Write::FeedVersion(9)];
    store.commit(&there).expect("committed");
    store.commit(&[Write::Queued(outgoing(2, Some(8)))]).expect("committed");
    // In one transaction with what comes anew.
    store.commit(&[Write::Forgotten, Write::Restores(3), facts(0, 0)]).expect("committed");
    let snapshot = store.snapshot().expect("read");
    assert_eq!((snapshot.feed_version, snapshot.restores), (0, Some(3)));
    assert_eq!(snapshot.outbox, vec![outgoing(2, Some(8))]);
    let [room] = &snapshot.conversations[..] else { panic!("what came anew") };
    assert_eq!((room.high, room.members.len()), (0, 0));
    assert_eq!(store.history(ROOM, None, 100).expect("read"), []);
}
