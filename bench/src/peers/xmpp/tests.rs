use super::*;
use crate::peers::names::tests::names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

const STREAM: &str = "<?xml version='1.0'?><stream:stream id='1' version='1.0' xml:lang='en' \
                      xmlns:stream='http://etherx.jabber.org/streams' from='localhost' xmlns='jabber:client'>";
const PLAIN: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                     <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
const FEATURES: &str = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/><sm xmlns='urn:xmpp:sm:3'/></stream:features>";
const BOUND: &str = "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                     <jid>r2au0@localhost/d0</jid></bind></iq>";
const ENABLED: &str = "<enabled xmlns='urn:xmpp:sm:3'/>";
const JOINED: &str = "<presence to='r2au0@localhost/d0' from='r2ag4@conference.localhost/d0'>\
                      <x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>";

fn take(xmpp: &mut Xmpp, text: &str) -> (String, Vec<ProtocolEvent>) {
    let (mut out, mut events) = (BytesMut::new(), Vec::new());
    xmpp.received(1, text.as_bytes(), &mut out, &mut events).expect("well formed");
    (String::from_utf8(out.to_vec()).expect("text"), events)
}

fn breaks(xmpp: &mut Xmpp, text: &str) -> bool {
    xmpp.received(1, text.as_bytes(), &mut BytesMut::new(), &mut Vec::new()).is_err()
}

fn ask(xmpp: &mut Xmpp, token: u64, request: &Request) -> String {
    let mut out = BytesMut::new();
    xmpp.request(1, Token(token), request, &mut out).expect("it goes");
    String::from_utf8(out.to_vec()).expect("text")
}

fn ready_with(memory: &DeviceMemory) -> Xmpp {
    let mut xmpp = Xmpp::new(names(0), memory);
    xmpp.opened(0, &mut BytesMut::new());
    let opening = [STREAM, PLAIN, SUCCESS, STREAM, FEATURES, BOUND, ENABLED, JOINED].concat();
    assert_eq!(take(&mut xmpp, &opening).1, [ProtocolEvent::Ready]);
    xmpp
}

fn ready() -> Xmpp {
    ready_with(&DeviceMemory::default())
}

fn send(room: u32) -> Request {
    let body = Bytes::from_static(b"\0<&>\xff");
    Request::Send { room: RoomIndex(room), message: 1, predecessor: None, body }
}

fn catch_up() -> Request {
    Request::CatchUp { from: Vec::new(), expected: 0 }
}

/// A message as the server passes it on, with its archive's id.
fn direct(from: &str, id: &str, body: &str, archive_id: &str) -> String {
    let body = BASE64.encode(body);
    format!(
        "<message from='{from}' to='r2au0@localhost' type='chat' id='{id}'>\
         <stanza-id by='r2au0@localhost' id='{archive_id}' xmlns='urn:xmpp:sid:0'/><body>{body}</body></message>"
    )
}

fn group(nick: &str, id: &str, body: &str, archive_id: &str) -> String {
    let body = BASE64.encode(body);
    format!(
        "<message from='r2ag4@conference.localhost/{nick}' to='r2au0@localhost/d0' type='groupchat' id='{id}'>\
         <stanza-id by='r2ag4@conference.localhost' id='{archive_id}' xmlns='urn:xmpp:sid:0'/>\
         <body>{body}</body></message>"
    )
}

fn archived(query: u32, archive_id: &str, message: &str) -> String {
    format!(
        "<message to='r2au0@localhost/d0'><result xmlns='urn:xmpp:mam:2' queryid='q{query}' id='{archive_id}'>\
         <forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>\
         {message}</forwarded></result></message>"
    )
}

fn page_end(query: u32, complete: bool) -> String {
    format!("<iq type='result' id='q{query}'><fin xmlns='urn:xmpp:mam:2' complete='{complete}'/></iq>")
}

fn message(room: u32, body: &str) -> ProtocolEvent {
    let body = Bytes::copy_from_slice(body.as_bytes());
    ProtocolEvent::Message(Message { room: RoomIndex(room), seq: None, body })
}

fn accepted(token: u64) -> ProtocolEvent {
    ProtocolEvent::Accepted { token: Token(token), seq: None }
}

#[test]
fn the_opening_goes_step_by_step() {
    let mut xmpp = Xmpp::new(names(0), &DeviceMemory::default());
    let mut out = BytesMut::new();
    xmpp.opened(0, &mut out);
    assert!(out.starts_with(b"<?xml version='1.0'?><stream:stream to='localhost' "));
    let (out, events) = take(&mut xmpp, &[STREAM, PLAIN].concat());
    assert_eq!((out.split('>').nth(1), events), (Some("AHIyYXUwAHJpbmdsaW5l</auth"), vec![]));
    assert!(take(&mut xmpp, SUCCESS).0.contains("<stream:stream"));
    assert!(take(&mut xmpp, &[STREAM, FEATURES].concat()).0.contains("<resource>d0</resource>"));
    let (out, _) = take(&mut xmpp, BOUND);
    assert!(
        out.starts_with("<enable xmlns='urn:xmpp:sm:3'/><presence/><presence to='r2ag4@conference."),
        "{out}"
    );
    assert_eq!(take(&mut xmpp, ENABLED).1, [], "the group is not joined yet");
    assert_eq!(xmpp.request(1, Token(1), &send(0), &mut BytesMut::new()), Err(NotSent::NotReady));
    assert_eq!(take(&mut xmpp, &JOINED.replace("/d0'>", "/d1'>")).1, [], "somebody else is there");
    assert_eq!(take(&mut xmpp, JOINED).1, [ProtocolEvent::Ready]);
}

#[test]
fn refusals_of_the_opening_say_why() {
    let closing =
        |code: &str| ProtocolEvent::Closing { code: code.into(), retry_after_ms: 0, go_to: Vec::new() };
    let mut stranger = Xmpp::new(names(0), &DeviceMemory::default());
    take(&mut stranger, &[STREAM, PLAIN].concat());
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>";
    assert_eq!(take(&mut stranger, failure).1, [closing("authentication_not-authorized")]);
    let mut scram = Xmpp::new(names(0), &DeviceMemory::default());
    assert!(breaks(&mut scram, &[STREAM, &PLAIN.replace(">PLAIN<", ">SCRAM-SHA-1<")].concat()));
    let mut ended = ready();
    let error = "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    let (_, events) = take(&mut ended, &format!("{error}</stream:stream>"));
    assert_eq!(events, [closing("stream_system-shutdown")]);
    assert_eq!(take(&mut ready(), "</stream:stream>").1, [closing("stream_end")]);
}

#[test]
fn direct_messages_are_accepted_by_the_count_and_groups_by_their_echo() {
    let mut xmpp = ready();
    // Presence and one join went before.
    let out = ask(&mut xmpp, 0x1f, &send(0));
    let expected = "<message to='r2au1@localhost' type='chat' id='0.1f'><body>ADwmPv8=</body></message>\
                    <r xmlns='urn:xmpp:sm:3'/>";
    assert_eq!(out, expected);
    let out = ask(&mut xmpp, 2, &send(4));
    assert!(
        out.ends_with("</message>") && out.contains("to='r2ag4@conference.localhost' type='groupchat'"),
        "{out}"
    );
    ask(&mut xmpp, 3, &send(0));
    ask(&mut xmpp, 4, &Request::Open(RoomIndex(0)));
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='2'/>").1, []);
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='3'/>").1, [accepted(0x1f)]);
    assert_eq!(take(&mut xmpp, &group("d0", "4.2", "own", "50")).1, [accepted(2)]);
    let events = take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='5'/>").1;
    assert_eq!(events, [accepted(3), ProtocolEvent::Done(Token(4))]);
    assert!(breaks(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='6'/>"), "more than was sent");
    assert!(breaks(&mut ready(), "<a xmlns='urn:xmpp:sm:3' h='x'/>"));
}

#[test]
fn counts_wrap_round() {
    let mut xmpp = ready();
    xmpp.sent = u32::MAX;
    ask(&mut xmpp, 1, &send(0));
    ask(&mut xmpp, 2, &send(0));
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='4294967295'/>").1, []);
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='0'/>").1, [accepted(1)]);
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='1'/>").1, [accepted(2)]);
}

#[test]
fn messages_are_told_and_counted_wherever_they_are_cut() {
    let stream = [
        direct("r2au1@localhost/d1", "0.9", "hello", "7"),
        " ".into(),
        group("d3", "4.8", "all", "8"),
        "<presence from='r2ag4@conference.localhost/d5' to='r2au0@localhost/d0' type='unavailable'/>".into(),
        "<message from='r2ag4@conference.localhost' type='groupchat'><subject/></message>".into(),
        "<r xmlns='urn:xmpp:sm:3'/>".into(),
    ]
    .concat();
    for at in 0..=stream.len() {
        let mut xmpp = ready();
        let (mut out, mut events) = take(&mut xmpp, &stream[..at]);
        let more = take(&mut xmpp, &stream[at..]);
        out.push_str(&more.0);
        events.extend(more.1);
        assert_eq!(events, [message(0, "hello"), message(4, "all")], "cut at {at}");
        // The group's presence when it was joined is the first of five.
        assert_eq!(out, "<a xmlns='urn:xmpp:sm:3' h='5'/>", "cut at {at}");
    }
}

#[test]
fn a_server_that_breaks_the_protocol_is_left() {
    let stranger = direct("r2au2@localhost/d2", "0.9", "x", "7");
    assert!(breaks(&mut ready(), &stranger), "not the other one of that room");
    assert!(breaks(&mut ready(), &direct("r2au1@localhost/d1", "9.9", "x", "7")), "a room of others");
    assert!(breaks(&mut ready(), &direct("r2au1@localhost/d1", "no", "x", "7")));
    assert!(breaks(&mut ready(), &group("d1", "0.9", "x", "7")), "a direct room as a group");
    let raw = "<message from='r2au1@localhost/d1' type='chat' id='0.9'><body>***</body></message>";
    assert!(breaks(&mut ready(), raw), "not base64");
    assert!(breaks(&mut ready(), &archived(1, "5", "<message/>")), "a page nobody asked for");
    assert!(breaks(&mut ready(), "<proceed/>"));
    assert!(breaks(&mut ready(), "<message><body></other></message>"));
    assert!(breaks(&mut ready(), &format!("<message>{}", "x".repeat(scanner::STANZA_BYTES_MAX))));
    assert!(breaks(&mut Xmpp::new(names(0), &DeviceMemory::default()), "<html>"));
}

#[test]
fn a_bounced_message_is_refused() {
    let mut xmpp = ready();
    ask(&mut xmpp, 1, &send(0));
    ask(&mut xmpp, 2, &send(4));
    let bounce = |id: &str, kind: &str, condition: &str| {
        format!(
            "<message type='error' id='{id}' from='r2au1@localhost'><error type='{kind}'>\
             <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
        )
    };
    let refused = |token: Option<u64>, code: &str, retryable| ProtocolEvent::Refused {
        token: token.map(Token),
        code: code.into(),
        retryable,
        retry_after_ms: 0,
    };
    let (_, events) = take(&mut xmpp, &bounce("0.1", "cancel", "service-unavailable"));
    assert_eq!(events, [refused(Some(1), "service-unavailable", false)]);
    let (_, events) = take(&mut xmpp, &bounce("4.2", "wait", "resource-constraint"));
    assert_eq!(events, [refused(Some(2), "resource-constraint", true)]);
    assert_eq!(take(&mut xmpp, "<a xmlns='urn:xmpp:sm:3' h='4'/>").1, [], "refused is not accepted");
    let (_, events) = take(&mut xmpp, &bounce("0.1", "cancel", "gone"));
    assert_eq!(events, [refused(None, "gone", false)]);
}

#[test]
fn catching_up_reads_the_archives_page_by_page() {
    let memory = DeviceMemory(br#"[["User","6"]]"#.to_vec().into());
    let mut xmpp = ready_with(&memory);
    assert_eq!(take(&mut xmpp, &direct("r2au1@localhost/d1", "0.9", "live", "9")).1, [message(0, "live")]);
    let out = ask(&mut xmpp, 5, &catch_up());
    assert!(out.contains("id='q1'><query") && out.contains("<after>6</after>"), "{out}");
    assert_eq!(xmpp.request(1, Token(6), &catch_up(), &mut BytesMut::new()), Err(NotSent::Full));
    let missed = archived(1, "7", &direct("r2au1@localhost/d1", "0.7", "missed", "7"));
    assert_eq!(take(&mut xmpp, &missed).1, [message(0, "missed")]);
    let own = archived(1, "8", &direct("r2au0@localhost/d0", "0.8", "own", "8"));
    assert_eq!(take(&mut xmpp, &own).1, []);
    assert_eq!(take(&mut xmpp, &direct("r2au1@localhost/d1", "0.a", "newer", "10")).1, [], "held back");
    let (out, events) = take(&mut xmpp, &page_end(1, false));
    assert!(out.contains("id='q2'><query") && out.contains("<after>8</after>"), "{out}");
    assert_eq!(events, []);
    let known = archived(2, "9", &direct("r2au1@localhost/d1", "0.9", "live", "9"));
    assert_eq!(take(&mut xmpp, &known).1, [], "it came live");
    let (out, events) = take(&mut xmpp, &page_end(2, false));
    assert_eq!(events, [message(0, "newer")]);
    assert!(out.contains("id='q3' to='r2ag4@conference.localhost'><query"), "{out}");
    assert!(!out.contains("<after>"), "{out}");
    let of_group = archived(3, "20", &group("d3", "4.1", "all", "20"));
    assert_eq!(take(&mut xmpp, &of_group).1, [message(4, "all")]);
    assert_eq!(take(&mut xmpp, &page_end(3, true)).1, [ProtocolEvent::CaughtUp(Token(5))]);
    let memory = Box::new(xmpp).into_memory();
    assert_eq!(&memory.0[..], br#"[["User","10"],[{"Group":4},"20"]]"#);
}

#[test]
fn a_refused_page_refuses_the_catch_up() {
    let mut xmpp = ready();
    ask(&mut xmpp, 5, &catch_up());
    let error = "<iq type='error' id='q1'><error type='wait'><resource-constraint/></error></iq>";
    let refused = ProtocolEvent::Refused {
        token: Some(Token(5)),
        code: "resource-constraint".into(),
        retryable: true,
        retry_after_ms: 0,
    };
    assert_eq!(take(&mut xmpp, error).1, [refused]);
    ask(&mut xmpp, 6, &catch_up());
}

#[test]
fn requests_are_bounded_and_heartbeats_are_counts() {
    let mut xmpp = ready();
    for token in 0..UNANSWERED_MAX as u64 {
        ask(&mut xmpp, token, &send(if token % 2 == 0 { 0 } else { 4 }));
    }
    assert_eq!(xmpp.request(1, Token(0), &send(0), &mut BytesMut::new()), Err(NotSent::Full));
    let mut xmpp = ready();
    let read = Request::Read { room: RoomIndex(0), seq: 1 };
    assert_eq!(xmpp.request(1, Token(0), &read, &mut BytesMut::new()), Err(NotSent::Unsupported));
    let mut out = BytesMut::new();
    xmpp.handle_timeout(30_000_000, &mut out).expect("alive");
    assert_eq!(&out[..], b"<r xmlns='urn:xmpp:sm:3'/>");
    assert!(xmpp.handle_timeout(90_000_001, &mut out).is_err());
}
