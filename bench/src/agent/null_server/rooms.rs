//! What requests mean to a server without storage: rooms, their members, and a number for each message.

use crate::clock;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::Deserialize;
use std::collections::HashMap;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, DeviceId, UserId};
use wire_protocol::session::{Proof, ReadyInfo, ServerInput};
use wire_protocol::v1::{self, ConversationKind, ErrorCode, client_frame, server_frame};

/// What a session is to be told. Answers are for the session that asked.
pub(super) enum Outgoing {
    Ready {
        identity: (UserId, DeviceId),
        info: ReadyInfo,
    },
    Answer {
        request_id: u32,
        body: server_frame::Body,
    },
    Event {
        /// Which session.
        place: usize,
        body: server_frame::Body,
    },
}

struct Room {
    kind: ConversationKind,
    title: String,
    members: Vec<UserId>,
    head_seq: u64,
}

/// All rooms, and who is here.
#[derive(Default)]
pub(super) struct Rooms {
    rooms: HashMap<ConversationId, Room>,
    /// Places of a user's sessions.
    present: HashMap<UserId, Vec<usize>>,
}

/// The claims of an access token that matter here. Its signature does not.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    dev: String,
}

impl Rooms {
    /// What follows from a session's input; `None`: the session is of no use.
    pub(super) fn answer(
        &mut self,
        place: usize,
        identity: Option<(UserId, DeviceId)>,
        input: ServerInput,
    ) -> Option<Vec<Outgoing>> {
        let (request_id, body) = match input {
            ServerInput::Handled => return Some(Vec::new()),
            ServerInput::Authenticate { proof } => {
                let identity = read_proof(&proof)?;
                self.present.entry(identity.0).or_default().push(place);
                let info = ReadyInfo {
                    user: identity.0,
                    device: identity.1,
                    server_time_ms: clock::wall_ms(),
                    resume_token: Bytes::from([identity.0.0, identity.1.0].concat()),
                    feed_version: 0,
                };
                return Some(vec![Outgoing::Ready { identity, info }]);
            }
            ServerInput::Request { request_id, body } => (request_id, body),
        };
        let (user, _) = identity?;
        let mut outgoing = Vec::new();
        let body = self.carry_out(place, user, body, &mut outgoing).unwrap_or_else(|code| {
            let error = RequestError::new(code, "the null server has no such thing");
            server_frame::Body::Error(error.to_wire())
        });
        outgoing.push(Outgoing::Answer { request_id, body });
        Some(outgoing)
    }

    /// A session is gone.
    pub(super) fn left(&mut self, user: UserId, place: usize) {
        if let Some(places) = self.present.get_mut(&user) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.present.remove(&user);
            }
        }
    }

    fn carry_out(
        &mut self,
        place: usize,
        user: UserId,
        body: client_frame::Body,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<server_frame::Body, ErrorCode> {
        use client_frame::Body;
        use server_frame::Body as Answer;
        Ok(match body {
            Body::Send(send) => Answer::Accepted(self.send(place, user, send, outgoing)?),
            Body::Create(create) => Answer::Conversation(self.create(user, create)?),
            Body::Get(get) => {
                let (id, room) = self.room(&get.conversation_id, user)?;
                Answer::Conversation(room.view(id, user))
            }
            Body::Sync(sync) => Answer::SyncPage(v1::SyncPage {
                conversations: Vec::new(),
                version: sync.since_version,
                more: false,
            }),
            Body::History(history) => {
                let (id, room) = self.room(&history.conversation_id, user)?;
                let head_seq = room.head_seq;
                let conversation_id = id.to_bytes();
                Answer::HistoryPage(v1::HistoryPage {
                    handle: 0,
                    conversation_id,
                    entries: Vec::new(),
                    head_seq,
                })
            }
            Body::Delivered(_) | Body::Read(_) => Answer::Done(v1::Done {}),
            Body::List(_) => Answer::ConversationPage(v1::ConversationPage::default()),
            Body::LookUp(_) => Answer::Users(v1::Users::default()),
            Body::Hello(_) | Body::Ping(_) | Body::LogOut(_) => return Err(ErrorCode::ErrorInvalidArgument),
        })
    }

    fn room(&mut self, id: &[u8], user: UserId) -> Result<(ConversationId, &mut Room), ErrorCode> {
        let id = ConversationId::from_slice(id).ok_or(ErrorCode::ErrorInvalidArgument)?;
        let room = self.rooms.get_mut(&id).ok_or(ErrorCode::ErrorNotFound)?;
        if room.members.contains(&user) { Ok((id, room)) } else { Err(ErrorCode::ErrorNotAMember) }
    }

    fn send(
        &mut self,
        place: usize,
        user: UserId,
        send: v1::SendMessage,
        outgoing: &mut Vec<Outgoing>,
    ) -> Result<v1::MessageAccepted, ErrorCode> {
        let (_, room) = self.room(&send.conversation_id, user)?;
        room.head_seq += 1;
        let seq = room.head_seq;
        let sender = room.members.iter().position(|member| *member == user).unwrap_or(0) as u32;
        let entry = v1::Entry { seq, sender, time_ms: clock::wall_ms(), kind: send.kind, body: send.body };
        let members = room.members.clone();
        for member in members {
            for &other in self.present.get(&member).into_iter().flatten().filter(|other| **other != place) {
                let conversation_id = send.conversation_id.clone();
                let event = v1::MessageEvent { handle: 0, conversation_id, entry: Some(entry.clone()) };
                outgoing.push(Outgoing::Event { place: other, body: server_frame::Body::Message(event) });
            }
        }
        Ok(v1::MessageAccepted { seq, time_delta_ms: 0, durability: v1::Durability::Synced as i32 })
    }

    fn create(
        &mut self,
        user: UserId,
        create: v1::CreateConversation,
    ) -> Result<v1::Conversation, ErrorCode> {
        let others: Option<Vec<UserId>> = create.member_ids.iter().map(|id| UserId::from_slice(id)).collect();
        let others = others.ok_or(ErrorCode::ErrorInvalidArgument)?;
        let kind = ConversationKind::try_from(create.kind).map_err(|_| ErrorCode::ErrorInvalidArgument)?;
        let id = match (kind, others.first()) {
            (ConversationKind::Group, _) => ConversationId::group(user, create.creation_id),
            (_, Some(other)) => ConversationId::direct(user, *other),
            (_, None) => return Err(ErrorCode::ErrorInvalidArgument),
        };
        let room = self.rooms.entry(id).or_insert_with(|| Room {
            kind,
            title: create.title,
            members: std::iter::once(user).chain(others).collect(),
            head_seq: 0,
        });
        Ok(room.view(id, user))
    }
}

impl Room {
    fn view(&self, id: ConversationId, user: UserId) -> v1::Conversation {
        let member = |(ordinal, member): (usize, &UserId)| v1::Member {
            ordinal: ordinal as u32,
            user_id: member.to_bytes(),
            delivered_up_to: 0,
            read_up_to: 0,
        };
        v1::Conversation {
            conversation_id: id.to_bytes(),
            kind: self.kind as i32,
            title: self.title.clone(),
            members: self.members.iter().enumerate().map(member).collect(),
            head_seq: self.head_seq,
            own_ordinal: self.members.iter().position(|member| *member == user).unwrap_or(0) as u32,
            ..v1::Conversation::default()
        }
    }
}

fn read_proof(proof: &Proof) -> Option<(UserId, DeviceId)> {
    match proof {
        Proof::AccessToken(token) => {
            let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
            let claims: Claims = serde_json::from_slice(&claims).ok()?;
            Some((UserId::from_hex(&claims.sub)?, DeviceId::from_hex(&claims.dev)?))
        }
        Proof::ResumeToken(token) => {
            let (user, device) = token.split_at_checked(16)?;
            Some((UserId::from_slice(user)?, DeviceId::from_slice(device)?))
        }
    }
}
