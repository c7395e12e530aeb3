use super::*;
use crate::app::App;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ringline_client::{
    ClientMessageId, Conversation, ConversationId, DeviceId, EntryKind, ErrorCode, Identity, Member, Message,
    PendingMessage, PendingState, Refusal, Seq, UserId,
};

const ROOM: ConversationId = ConversationId([1; 16]);

fn member(ordinal: u32, name: &str, delivered: u64, read: u64) -> Member {
    Member {
        ordinal,
        user: UserId([ordinal as u8; 16]),
        username: name.into(),
        display_name: name.to_uppercase(),
        delivered_up_to: Seq(delivered),
        read_up_to: Seq(read),
    }
}

fn message(seq: u64, sender: u32, text: &str) -> Message {
    Message {
        conversation: ROOM,
        seq: Seq(seq),
        sender_ordinal: sender,
        sender: Some(UserId([sender as u8; 16])),
        own: sender == 0,
        time_ms: 1_700_000_000_000 + seq * 1_000,
        kind: EntryKind::Text,
        body: text.to_owned().into(),
        client_message_id: None,
    }
}

fn pending(state: PendingState, text: &str) -> PendingMessage {
    PendingMessage {
        conversation: ROOM,
        client_message_id: ClientMessageId(1),
        kind: EntryKind::Text,
        body: text.to_owned().into(),
        queued_ms: 1_700_000_100_000,
        state,
    }
}

fn conversation(kind: ConversationKind) -> Conversation {
    Conversation {
        id: ROOM,
        kind,
        title: "Bob".into(),
        members: vec![member(0, "ada", 9, 9), member(1, "bob", 3, 2)],
        own_ordinal: 0,
        last: Some(message(5, 1, "and\nyou?")),
        unread: 3,
        read_up_to: Seq(0),
        high: Seq(5),
        activity_ms: 1_700_000_000_000,
    }
}

fn app(kind: ConversationKind) -> App {
    let own = Identity {
        user: UserId([0; 16]),
        device: DeviceId([9; 16]),
        username: "ada".into(),
        display_name: "Ada".into(),
    };
    let mut app = App::new(own, ConnectionState::Online);
    app.take_conversations(vec![conversation(kind)]);
    let refused = Refusal::Server { code: ErrorCode::ErrorBodyTooLarge, detail: "body".into() };
    let messages = vec![
        message(2, 0, "was read"),
        message(3, 0, "was delivered"),
        message(4, 0, "is durable"),
        message(5, 1, "and\nyou?"),
    ];
    let waiting = vec![
        pending(PendingState::Accepted(Seq(9)), "waits for others"),
        pending(PendingState::OnItsWay, "is on its way"),
        pending(PendingState::Refused(refused), "was refused"),
    ];
    app.take_messages(ROOM, messages, waiting);
    app
}

fn picture(app: &App, width: u16, height: u16) -> (Buffer, usize) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a picture in memory");
    let mut rows_max = 0;
    terminal.draw(|frame| rows_max = draw(frame, app)).expect("a picture in memory");
    (terminal.backend().buffer().clone(), rows_max)
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let row = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(row).collect()
}

fn line_with<'a>(lines: &'a [String], text: &str) -> &'a str {
    lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text:?} is not in {lines:#?}"))
}

#[test]
fn ticks_tell_how_far_a_message_has_come() {
    let (buffer, _) = picture(&app(ConversationKind::Direct), 100, 30);
    let lines = lines(&buffer);
    assert!(line_with(&lines, "was read").trim_end().ends_with("✓✓"));
    assert!(line_with(&lines, "was delivered").trim_end().ends_with("✓✓"));
    let durable = line_with(&lines, "is durable").trim_end();
    assert!(durable.ends_with('✓') && !durable.ends_with("✓✓"));
    assert!(line_with(&lines, "is on its way").trim_end().ends_with('…'));
    assert!(line_with(&lines, "waits for others").trim_end().ends_with('✓'));
    assert!(lines.iter().any(|line| line.contains("✗ ErrorBodyTooLarge: body")));
    // Read is told from delivered by its colour.
    let color = |text: &str| {
        let y = lines.iter().position(|line| line.contains(text)).expect("it is there");
        let x = (0..buffer.area.width).rev().find(|x| buffer[(*x, y as u16)].symbol() == "✓");
        buffer[(x.expect("a tick"), y as u16)].fg
    };
    assert_eq!(color("was read"), Color::LightBlue);
    assert_eq!(color("was delivered"), Color::DarkGray);
}

#[test]
fn the_list_shows_title_preview_and_unread() {
    let (buffer, _) = picture(&app(ConversationKind::Direct), 100, 30);
    let lines = lines(&buffer);
    let list: Vec<String> = lines.iter().map(|line| line.chars().take(26).collect()).collect();
    assert!(line_with(&list, "▌Bob").contains(" 3 "));
    assert!(line_with(&list, "and\u{fffd}you?").starts_with('▌'));
    assert!(lines[0].contains("ringline · ada") && lines[0].contains("online"));
}

#[test]
fn groups_name_who_speaks() {
    let (buffer, _) = picture(&app(ConversationKind::Group), 100, 30);
    let lines = lines(&buffer);
    assert!(lines.iter().any(|line| line.contains("BOB") && !line.contains("ada, bob")));
    assert!(lines.iter().any(|line| line.contains("ada, bob")));
}

#[test]
fn narrow_and_tiny_terminals_still_work() {
    for (width, height) in [(59, 20), (40, 10), (20, 6), (8, 4), (3, 3), (1, 1)] {
        for help in [false, true] {
            let mut app = app(ConversationKind::Group);
            app.help = help;
            app.composer.insert_text("a rather long text that does not fit one line\nnor two");
            picture(&app, width, height);
        }
    }
    let (buffer, _) = picture(&app(ConversationKind::Direct), 59, 20);
    assert!(!lines(&buffer).iter().any(|line| line.contains("▌")), "no list where there is no room");
}

#[test]
fn scrolling_shows_older_rows_and_stops_at_the_first() {
    let mut app = app(ConversationKind::Direct);
    let messages = (1..=200).map(|seq| message(seq, 1, &format!("number {seq} of many"))).collect();
    app.take_messages(ROOM, messages, Vec::new());
    let (buffer, rows_max) = picture(&app, 100, 20);
    let shown = lines(&buffer);
    line_with(&shown, "number 200 of");
    assert!(rows_max > 150);
    app.scroll_rows = rows_max;
    let (buffer, _) = picture(&app, 100, 20);
    let shown = lines(&buffer);
    line_with(&shown, "number 1 of");
    app.scroll_rows = rows_max + 1_000;
    let (further, _) = picture(&app, 100, 20);
    assert_eq!(further, buffer);
}

#[test]
fn what_others_send_cannot_steer_the_terminal() {
    let mut app = app(ConversationKind::Direct);
    app.take_messages(ROOM, vec![message(2, 1, "\x1b[31mred\x07 \u{202e}evil")], Vec::new());
    let (buffer, _) = picture(&app, 100, 20);
    let shown = lines(&buffer).concat();
    assert!(!shown.contains('\x1b') && !shown.contains('\x07') && !shown.contains('\u{202e}'));
    assert!(shown.contains("[31mred"));
}

#[test]
fn states_of_the_connection_are_told() {
    let mut app = app(ConversationKind::Direct);
    for (state, text) in [
        (ConnectionState::Offline { retry_in_ms: 1_500 }, "offline, trying again"),
        (ConnectionState::Connecting, "connecting"),
        (ConnectionState::Syncing, "catching up"),
        (ConnectionState::LoggedOut, "logged out"),
    ] {
        app.connection = state;
        let (buffer, _) = picture(&app, 100, 20);
        assert!(lines(&buffer)[0].contains(text), "{text}");
    }
}

#[test]
fn rows_never_pass_the_width() {
    let open = conversation(ConversationKind::Group);
    let text = "words of many lengths and einsehrlangeswortohneleerzeichen 日本語テキスト";
    let messages: Vec<Message> = (1..30).map(|seq| message(seq, (seq % 2) as u32, text)).collect();
    for cells in 16..120 {
        for row in rows(&open, &messages, &[pending(PendingState::OnItsWay, text)], cells) {
            assert!(row.width() <= cells, "{} cells of {cells}: {row:?}", row.width());
        }
    }
}
