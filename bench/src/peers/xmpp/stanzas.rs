//! What is written to an XMPP server, and what its stanzas mean.

use super::element::Element;
use super::{MessageOf, Owner, PAGE_MESSAGES};
use crate::agent::protocol::{ProtocolFault, Token};
use crate::peers::names::{Names, Recipient};
use crate::peers::partial::fault;
use crate::workload::population::{RoomIndex, UserIndex};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::BytesMut;
use std::fmt::Write;

/// Domain of all users; groups are in its `conference` part.
pub const HOST: &str = "localhost";
/// Everybody's: the server is there for a measurement, on this machine's own addresses.
pub const PASSWORD: &str = "ringline";
/// Namespace of archives.
pub const MAM: &str = "urn:xmpp:mam:2";

/// A user's name of a run.
pub fn user_name(run_id: u64, user: UserIndex) -> String {
    format!("r{run_id:x}u{}", user.0)
}

fn jid(names: &Names, user: UserIndex) -> String {
    format!("{}@{HOST}", user_name(names.run_id, user))
}

fn group_jid(names: &Names, room: RoomIndex) -> String {
    format!("r{:x}g{}@conference.{HOST}", names.run_id, room.0)
}

/// Its names are ASCII letters, digits, `@`, `.` and `/`: nothing here needs escaping.
macro_rules! put {
    ($out:expr, $($rest:tt)*) => { write!($out, $($rest)*).expect("memory takes it") };
}

pub fn open_stream(out: &mut BytesMut) {
    put!(
        out,
        "<?xml version='1.0'?><stream:stream to='{HOST}' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
    );
}

pub fn authenticate(out: &mut BytesMut, names: &Names) {
    let secret = BASE64.encode(format!("\0{}\0{PASSWORD}", user_name(names.run_id, names.user())));
    put!(out, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>");
}

pub fn bind(out: &mut BytesMut, names: &Names) {
    put!(
        out,
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>d{}</resource></bind></iq>",
        names.device.0
    );
}

pub fn enable_and_show(out: &mut BytesMut) {
    put!(out, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
}

pub fn join(out: &mut BytesMut, names: &Names, room: RoomIndex) {
    put!(
        out,
        "<presence to='{}/d{}'><x xmlns='http://jabber.org/protocol/muc'>\
         <history maxstanzas='0'/></x></presence>",
        group_jid(names, room),
        names.device.0
    );
}

/// How many stanzas have you dealt with?
pub fn ask_count(out: &mut BytesMut) {
    put!(out, "<r xmlns='urn:xmpp:sm:3'/>");
}

pub fn count(out: &mut BytesMut, received: u32) {
    put!(out, "<a xmlns='urn:xmpp:sm:3' h='{received}'/>");
}

pub fn send(out: &mut BytesMut, names: &Names, room: RoomIndex, token: Token, body: &[u8]) {
    let (to, kind) = match names.recipient(room) {
        Recipient::User(user) => (jid(names, user), "chat"),
        Recipient::Group => (group_jid(names, room), "groupchat"),
    };
    put!(
        out,
        "<message to='{to}' type='{kind}' id='{}.{:x}'><body>{}</body></message>",
        room.0,
        token.0,
        BASE64.encode(body)
    );
}

pub fn query(out: &mut BytesMut, names: &Names, owner: Owner, query: u64, after: Option<&str>) {
    let to = match owner {
        Owner::User => String::new(),
        Owner::Group(room) => format!(" to='{}'", group_jid(names, room)),
    };
    put!(
        out,
        "<iq type='set' id='q{query}'{to}><query xmlns='{MAM}' queryid='q{query}'>\
         <set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE_MESSAGES}</max>"
    );
    if let Some(after) = after {
        put!(out, "<after>{}</after>", quick_xml::escape::escape(after));
    }
    put!(out, "</set></query></iq>");
}

/// What a message says to a device.
pub struct Told {
    /// Whose archive it is in.
    pub owner: Owner,
    /// `None`: it is the device's user's own.
    pub message: Option<MessageOf>,
    /// Its sender's.
    pub token: Option<Token>,
}

/// Reads a message, live or archived; `None`: it has no body.
pub fn told(stanza: &Element, names: &Names) -> Result<Option<Told>, ProtocolFault> {
    let Some(body) = stanza.inner("body") else { return Ok(None) };
    let body = BASE64.decode(&body.text).map_err(|_| fault("a body that is not base64"))?;
    let from = stanza.attribute("from").unwrap_or_default();
    let (from, resource) = from.split_once('/').unwrap_or((from, ""));
    let id = stanza.attribute("id").unwrap_or_default();
    let (room, token) = id.split_once('.').ok_or_else(|| fault(format!("a message with id {id:?}")))?;
    let room = room.parse().map(RoomIndex).map_err(|_| fault(format!("a message with id {id:?}")))?;
    let token = u64::from_str_radix(token, 16).map(Token).ok();
    let stranger = || fault(format!("a message of {from:?} in room {}", room.0));
    if stanza.attribute("type") == Some("groupchat") {
        if from != group_jid(names, room) || !names.groups().contains(&room) {
            return Err(stranger());
        }
        let own = resource == format!("d{}", names.device.0);
        let message = (!own).then(|| MessageOf { room, body: body.into() });
        return Ok(Some(Told { owner: Owner::Group(room), message, token }));
    }
    let message = if from == jid(names, names.user()) {
        None
    } else if names.population.rooms_of_user(names.user()).contains(&room)
        && matches!(names.recipient(room), Recipient::User(user) if from == jid(names, user))
    {
        Some(MessageOf { room, body: body.into() })
    } else {
        return Err(stranger());
    };
    Ok(Some(Told { owner: Owner::User, message, token }))
}

/// The archive's id of a live message. The server adds it for the archive it writes to; clients' own are removed.
pub fn archive_id(stanza: &Element) -> Option<&str> {
    stanza.child("stanza-id", "urn:xmpp:sid:0")?.attribute("id")
}

/// The sender's token of a message or its error.
pub fn token_of(stanza: &Element) -> Option<Token> {
    let (_, token) = stanza.attribute("id")?.split_once('.')?;
    u64::from_str_radix(token, 16).map(Token).ok()
}

/// Whether this presence is the device's own in a group it has joined.
pub fn is_own_presence(stanza: &Element, names: &Names) -> bool {
    let from = stanza.attribute("from").unwrap_or_default();
    stanza.attribute("type").is_none()
        && from.split_once('/').is_some_and(|(group, nick)| {
            nick == format!("d{}", names.device.0) && group.contains("@conference.")
        })
}

/// Name of an error's condition.
pub fn error_of(stanza: &Element) -> &str {
    let error = stanza.inner("error").and_then(|error| error.children.first());
    error.map_or("unknown", |condition| condition.name.as_str())
}

/// Whether the error says that waiting helps.
pub fn is_retryable(stanza: &Element) -> bool {
    stanza.inner("error").is_some_and(|error| error.attribute("type") == Some("wait"))
}
