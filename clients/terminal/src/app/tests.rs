use super::*;
use ringline_client::{ConversationKind, DeviceId, EntryKind, Refusal, UserId};

pub fn own() -> Identity {
    let (user, device) = (UserId([1; 16]), DeviceId([9; 16]));
    Identity { user, device, username: "ada".into(), display_name: "Ada".into() }
}

fn conversation(id: u8, read_up_to: u64) -> Conversation {
    Conversation {
        id: ConversationId([id; 16]),
        kind: ConversationKind::Direct,
        title: format!("room {id}"),
        members: Vec::new(),
        own_ordinal: 0,
        last: None,
        unread: 0,
        read_up_to: Seq(read_up_to),
        high: Seq(0),
        activity_ms: 0,
    }
}

fn message(room: u8, seq: u64) -> Message {
    Message {
        conversation: ConversationId([room; 16]),
        seq: Seq(seq),
        sender_ordinal: 1,
        sender: None,
        own: false,
        time_ms: 0,
        kind: EntryKind::Text,
        body: "hi".into(),
        client_message_id: None,
    }
}

fn app() -> App {
    let mut app = App::new(own(), ConnectionState::Online);
    app.take_conversations(vec![conversation(1, 0), conversation(2, 0), conversation(3, 0)]);
    app
}

fn press(app: &mut App, code: KeyCode) -> Vec<Wish> {
    app.handle_key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn enter(app: &mut App, line: &str) -> Vec<Wish> {
    line.chars().for_each(|c| drop(press(app, KeyCode::Char(c))));
    press(app, KeyCode::Enter)
}

#[test]
fn a_line_is_sent_to_the_open_conversation() {
    let mut app = app();
    let sent = Wish::Send { conversation: ConversationId([1; 16]), text: "hello".into() };
    assert_eq!(enter(&mut app, "hello"), [sent]);
    assert!(app.composer.is_empty());
    assert_eq!(enter(&mut app, "  "), []);
}

#[test]
fn without_a_conversation_the_line_stays() {
    let mut app = App::new(own(), ConnectionState::Connecting);
    assert_eq!(enter(&mut app, "hello"), []);
    assert!(app.notice.is_some());
    assert_eq!(app.composer.text(), "hello");
    assert_eq!(enter(&mut app, ""), []);
}

#[test]
fn a_wrong_command_is_explained_and_can_be_mended() {
    let mut app = app();
    assert_eq!(enter(&mut app, "/wiht bob"), []);
    assert!(app.notice.as_ref().is_some_and(|notice| notice.contains("/wiht")));
    assert_eq!(app.composer.text(), "/wiht bob");
}

#[test]
fn conversations_are_stepped_through_in_a_ring() {
    let mut app = app();
    for expected in [2, 3, 1] {
        assert_eq!(press(&mut app, KeyCode::Tab), [Wish::Load]);
        assert_eq!(app.selected, Some(ConversationId([expected; 16])));
    }
    press(&mut app, KeyCode::Up);
    assert_eq!(app.selected, Some(ConversationId([3; 16])));
    press(&mut app, KeyCode::Char('x'));
    assert_eq!(press(&mut app, KeyCode::Up), [], "while writing, arrows do not leave the conversation");
}

#[test]
fn what_is_seen_is_read_and_only_that() {
    let mut app = app();
    let read = || Wish::Read { conversation: ConversationId([1; 16]), seq: Seq(5) };
    assert_eq!(app.take_messages(ConversationId([2; 16]), vec![message(2, 9)], Vec::new()), None);
    assert_eq!(app.take_messages(ConversationId([1; 16]), vec![message(1, 5)], Vec::new()), Some(read()));
    app.focused = false;
    assert_eq!(app.read_wish(), None);
    app.focused = true;
    app.scroll_up(10);
    assert_eq!(app.read_wish(), None);
    assert_eq!(app.scroll_down(10), [read()]);
    app.take_conversations(vec![conversation(1, 5)]);
    assert_eq!(app.read_wish(), None);
}

#[test]
fn older_messages_are_loaded_once_at_the_top() {
    let mut app = app();
    let room = ConversationId([1; 16]);
    app.take_messages(room, vec![message(1, 50)], Vec::new());
    app.scroll_up(10);
    assert_eq!(app.limit_scroll(30), None, "not at the top yet");
    app.scroll_up(30);
    let older = Wish::Older { conversation: room, before: Seq(50) };
    assert_eq!(app.limit_scroll(30), Some(older));
    assert_eq!(app.limit_scroll(30), None, "it is loading");
    app.take_older(room, 40);
    assert_eq!(app.wanted_messages(), PAGE_MESSAGES + 40);
    app.take_older(room, 0);
    app.scroll_up(30);
    assert_eq!(app.limit_scroll(30), None, "there is nothing older");
}

#[test]
fn help_goes_by_any_key() {
    let mut app = app();
    enter(&mut app, "/help");
    assert!(app.help);
    press(&mut app, KeyCode::Char('x'));
    assert!(!app.help && app.composer.is_empty());
    let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.handle_key(quit), [Wish::Quit]);
}

#[test]
fn a_key_counts_once() {
    let mut app = app();
    let key = KeyEvent::new(KeyCode::Char('x'), KeyModifiers::NONE);
    app.handle_key(key);
    app.handle_key(KeyEvent { kind: KeyEventKind::Release, ..key });
    assert_eq!(app.composer.text(), "x");
}

#[test]
fn sending_goes_back_to_the_newest_message() {
    let mut app = app();
    app.scroll_up(20);
    assert_eq!(enter(&mut app, "hello").len(), 1);
    assert_eq!(app.scroll_rows, 0);
}

#[test]
fn only_refused_messages_are_retried_or_discarded() {
    let mut app = app();
    let room = ConversationId([1; 16]);
    let pending = |id: u64, state| PendingMessage {
        conversation: room,
        client_message_id: ClientMessageId(id),
        kind: EntryKind::Text,
        body: "hi".into(),
        queued_ms: 0,
        state,
    };
    let states =
        [PendingState::Accepted(Seq(9)), PendingState::OnItsWay, PendingState::Refused(Refusal::Unconfirmed)];
    let pending = (1..).zip(states).map(|(id, state)| pending(id, state)).collect();
    app.take_messages(room, vec![message(1, 5)], pending);
    assert_eq!(enter(&mut app, "/retry"), [Wish::Retry(room, ClientMessageId(3))]);
    assert_eq!(enter(&mut app, "/discard"), [Wish::Discard(room, ClientMessageId(3))]);
    app.take_messages(room, vec![message(1, 5)], Vec::new());
    assert_eq!(enter(&mut app, "/retry"), []);
    assert!(app.notice.is_some());
}
