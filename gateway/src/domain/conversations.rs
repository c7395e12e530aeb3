//! Creating a conversation, and reading one.

use super::calls::{ConversationRead, answer, conversation_id, conversation_view, outcome, unexpected};
use super::users::read_profiles;
use super::{Asker, Calls, Progress, Step, answered, invalid};
use crate::worker::mailbox::{ShardKey, StorageResult};
use std::collections::HashSet;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::internal::{self, answer as storage, command, outcome as carried_out};
use wire_protocol::limits::{GROUP_MEMBERS_MAX, TITLE_CHARS_MAX};
use wire_protocol::v1::{self, ConversationKind, ErrorCode, server_frame};

/// One conversation, being read.
#[derive(Debug)]
pub struct Get;

impl Get {
    pub(super) fn start(
        asker: &Asker<'_>,
        get: &v1::GetConversation,
        calls: &mut Calls,
    ) -> Result<Self, RequestError> {
        let conversation = conversation_id(&get.conversation_id)?;
        calls.read_conversation(0, asker, ConversationRead::without_entries(conversation).with_members());
        Ok(Self)
    }

    pub(super) fn handle_result(&mut self, result: StorageResult) -> Step {
        let view = conversation_view(result)?;
        let conversation = view.conversation.ok_or_else(|| unexpected("a conversation"))?;
        answered(server_frame::Body::Conversation(conversation))
    }
}

/// A conversation in the making.
#[derive(Debug)]
pub struct Create {
    id: ConversationId,
    kind: ConversationKind,
    title: String,
    /// The creator first, nobody twice.
    members: Vec<UserId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Do all the members exist?
    Members { waiting: usize, found: HashSet<UserId> },
    /// The command is out.
    Creating,
    /// What was made, or was there, is being read.
    Reading,
}

impl Create {
    pub(super) fn start(
        asker: &Asker<'_>,
        create: v1::CreateConversation,
        calls: &mut Calls,
    ) -> Result<Self, RequestError> {
        let members = members(asker.user, &create.member_ids)?;
        let kind = ConversationKind::try_from(create.kind).unwrap_or(ConversationKind::Unspecified);
        let id = match kind {
            ConversationKind::Direct => {
                let &[creator, other] = members.as_slice() else {
                    return Err(invalid("member_ids: a direct conversation has one other member"));
                };
                if !create.title.is_empty() {
                    return Err(invalid("title: a direct conversation has none"));
                }
                ConversationId::direct(creator, other)
            }
            ConversationKind::Group => {
                if members.len() < 2 {
                    return Err(invalid("member_ids: a group has another member"));
                }
                if members.len() > GROUP_MEMBERS_MAX {
                    let detail = format!("a group has at most {GROUP_MEMBERS_MAX} members");
                    return Err(RequestError::new(ErrorCode::ErrorTooManyMembers, detail));
                }
                if create.title.chars().count() > TITLE_CHARS_MAX {
                    return Err(invalid(format!("title: more than {TITLE_CHARS_MAX} characters")));
                }
                ConversationId::group(asker.user, create.creation_id)
            }
            ConversationKind::Unspecified => return Err(invalid("kind")),
        };
        // The creator exists: it has a session.
        let waiting = read_profiles(asker, &members[1..], 0, calls);
        let stage = Stage::Members { waiting, found: HashSet::new() };
        Ok(Self { id, kind, title: create.title, members, stage })
    }

    pub(super) fn handle_result(
        &mut self,
        asker: &Asker<'_>,
        result: StorageResult,
        calls: &mut Calls,
    ) -> Step {
        match &mut self.stage {
            Stage::Members { waiting, found } => {
                let storage::Kind::Profiles(profiles) = answer(result)? else {
                    return Err(unexpected("profiles"));
                };
                found.extend(profiles.users.iter().filter_map(|user| UserId::from_slice(&user.user_id)));
                *waiting -= 1;
                if *waiting == 0 {
                    self.check_members()?;
                    self.create(calls);
                }
            }
            Stage::Creating => {
                let carried_out::Kind::ConversationCreated(_) = outcome(result)? else {
                    return Err(unexpected("a created conversation"));
                };
                let read = ConversationRead::without_entries(self.id).with_members();
                calls.read_conversation(0, asker, read);
                self.stage = Stage::Reading;
            }
            Stage::Reading => return Get.handle_result(result),
        }
        Ok(Progress::Waiting)
    }

    fn check_members(&self) -> Result<(), RequestError> {
        let Stage::Members { found, .. } = &self.stage else { return Ok(()) };
        match self.members[1..].iter().find(|member| !found.contains(member)) {
            Some(member) => {
                Err(RequestError::new(ErrorCode::ErrorNotFound, format!("member_ids: no user {member}")))
            }
            None => Ok(()),
        }
    }

    fn create(&mut self, calls: &mut Calls) {
        let command = command::Kind::CreateConversation(internal::CreateConversation {
            conversation_id: self.id.to_bytes(),
            kind: self.kind as u32,
            member_ids: self.members.iter().map(|member| member.to_bytes()).collect(),
            title: std::mem::take(&mut self.title),
        });
        calls.command(0, ShardKey::Conversation(self.id), command);
        self.stage = Stage::Creating;
    }
}

/// The creator, then the others in the order given, nobody twice.
fn members(creator: UserId, others: &[bytes::Bytes]) -> Result<Vec<UserId>, RequestError> {
    let mut members = vec![creator];
    let mut known = HashSet::from([creator]);
    for id in others {
        let member = UserId::from_slice(id).ok_or_else(|| invalid("member_ids: not 16 bytes"))?;
        if known.insert(member) {
            members.push(member);
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::super::fake_storage::{FakeStorage, user};
    use super::*;
    use bytes::Bytes;
    use wire_protocol::v1::client_frame;

    fn create(kind: ConversationKind, members: &[u8], title: &str) -> client_frame::Body {
        client_frame::Body::Create(v1::CreateConversation {
            kind: kind as i32,
            member_ids: members.iter().map(|&number| user(number).to_bytes()).collect(),
            title: title.into(),
            creation_id: 5,
        })
    }

    fn created(answer: Result<server_frame::Body, RequestError>) -> v1::Conversation {
        match answer {
            Ok(server_frame::Body::Conversation(conversation)) => conversation,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn creating_a_direct_conversation_twice_gives_the_same() {
        let mut storage = FakeStorage::with_users(3);
        let first = created(storage.ask(user(1), create(ConversationKind::Direct, &[2], "")));
        let other = created(storage.ask(user(2), create(ConversationKind::Direct, &[1, 1], "")));
        assert_eq!(first.conversation_id, other.conversation_id);
        assert_eq!(first.members, other.members);
        assert_eq!(first.members[0].user_id, user(1).to_bytes());
    }

    #[test]
    fn a_groups_creator_comes_first_and_nobody_twice() {
        let mut storage = FakeStorage::with_users(4);
        let group = created(storage.ask(user(2), create(ConversationKind::Group, &[4, 2, 3, 4], "tea")));
        let members: Vec<_> = group.members.iter().map(|member| member.user_id.clone()).collect();
        assert_eq!(members, [2, 4, 3].map(|number| user(number).to_bytes()));
        assert_eq!(group.title, "tea");
        assert_eq!(group.conversation_id, ConversationId::group(user(2), 5).to_bytes());
    }

    #[test]
    fn the_largest_group_with_the_longest_title_is_created() {
        let mut storage = FakeStorage::with_users(255);
        let title = "é".repeat(TITLE_CHARS_MAX);
        // Every number that a user of the fake can have.
        let others: Vec<u8> = (0..=u8::MAX).filter(|&number| number != 1).collect();
        let group = created(storage.ask(user(1), create(ConversationKind::Group, &others, &title)));
        assert_eq!((group.members.len(), group.title), (GROUP_MEMBERS_MAX, title));
    }

    #[test]
    fn two_users_groups_are_two_even_under_one_creation_id() {
        let mut storage = FakeStorage::with_users(2);
        let first = created(storage.ask(user(1), create(ConversationKind::Group, &[2], "")));
        let second = created(storage.ask(user(2), create(ConversationKind::Group, &[1], "")));
        assert_ne!(first.conversation_id, second.conversation_id);
    }

    #[test]
    fn a_member_that_any_home_shard_does_not_know_is_no_member() {
        // Whichever shard answers last.
        for unknown in 100..=140 {
            let mut storage = FakeStorage::with_users(12);
            let others: Vec<u8> = (2..=12).chain([unknown]).collect();
            let error =
                storage.ask(user(1), create(ConversationKind::Group, &others, "")).expect_err("unknown");
            assert_eq!((error.code, storage.conversation_count()), (ErrorCode::ErrorNotFound, 0));
        }
    }

    #[test]
    fn what_cannot_be_created_is_refused_before_anything_is_stored() {
        let mut storage = FakeStorage::with_users(3);
        let long = "x".repeat(TITLE_CHARS_MAX + 1);
        let stranger = |number: usize| Bytes::from([&[7; 8], &number.to_be_bytes()[..]].concat());
        let crowd = client_frame::Body::Create(v1::CreateConversation {
            kind: ConversationKind::Group as i32,
            member_ids: (0..GROUP_MEMBERS_MAX).map(stranger).collect(),
            ..Default::default()
        });
        for (body, code) in [
            (create(ConversationKind::Direct, &[1], ""), ErrorCode::ErrorInvalidArgument),
            (create(ConversationKind::Direct, &[2, 3], ""), ErrorCode::ErrorInvalidArgument),
            (create(ConversationKind::Direct, &[2], "t"), ErrorCode::ErrorInvalidArgument),
            (create(ConversationKind::Direct, &[77], ""), ErrorCode::ErrorNotFound),
            (create(ConversationKind::Group, &[], ""), ErrorCode::ErrorInvalidArgument),
            (create(ConversationKind::Group, &[2], &long), ErrorCode::ErrorInvalidArgument),
            (create(ConversationKind::Group, &[2, 77], ""), ErrorCode::ErrorNotFound),
            (create(ConversationKind::Unspecified, &[2], ""), ErrorCode::ErrorInvalidArgument),
            (crowd, ErrorCode::ErrorTooManyMembers),
        ] {
            assert_eq!(storage.ask(user(1), body.clone()).expect_err("refused").code, code, "{body:?}");
        }
        assert_eq!(storage.conversation_count(), 0);
    }
}
