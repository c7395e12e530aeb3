//! Names and users as the shards keep them, as far as accounts need it.

use crate::worker::mailbox::{ShardKey, StorageResult};
use std::collections::{HashMap, VecDeque};
use wire_protocol::error::RequestError;
use wire_protocol::ids::UserId;
use wire_protocol::internal::shard_request::Operation;
use wire_protocol::internal::shard_response::Result as ShardResult;
use wire_protocol::internal::{Accepted, Answer, NameRecord, Outcome, Refused, UserRecord};
use wire_protocol::internal::{answer, command, outcome, query};
use wire_protocol::limits::NAME_CLAIM_MS;
use wire_protocol::v1::ErrorCode;

struct Name {
    user: UserId,
    confirmed: bool,
    claimed_ms: u64,
}

/// What happens to the next call instead of an answer.
pub(crate) enum Fault {
    /// The core answers with an error.
    Error(RequestError),
    /// The shard answers with an error.
    Result(ShardResult),
    /// The core drops the call.
    Dropped,
}

#[derive(Default)]
pub(crate) struct FakeStorage {
    names: HashMap<String, Name>,
    pub(crate) users: HashMap<UserId, UserRecord>,
    /// Every call's kind and shard, in order.
    pub(crate) calls: Vec<(&'static str, ShardKey)>,
    pub(crate) faults: VecDeque<Fault>,
    /// Calls are kept unanswered.
    pub(crate) silent: bool,
    unanswered: Vec<tokio::sync::oneshot::Sender<StorageResult>>,
}

impl FakeStorage {
    pub(crate) fn call_names(&self) -> Vec<&'static str> {
        self.calls.iter().map(|(name, _)| *name).collect()
    }

    pub(crate) fn keep(&mut self, reply: tokio::sync::oneshot::Sender<StorageResult>) {
        self.unanswered.push(reply);
    }

    /// `None`: the call is dropped.
    pub(crate) fn answer(
        &mut self,
        key: ShardKey,
        operation: Operation,
        now_ms: u64,
    ) -> Option<StorageResult> {
        let (name, result) = match operation {
            Operation::Command(command) => {
                self.apply(&key, command.kind.expect("a command has a kind"), now_ms)
            }
            Operation::Query(query) => self.read(&key, query.kind.expect("a query has a kind")),
            _ => panic!("accounts send nothing else"),
        };
        self.calls.push((name, key));
        match self.faults.pop_front() {
            None => Some(Ok(result)),
            Some(Fault::Error(error)) => Some(Err(error)),
            Some(Fault::Result(result)) => Some(Ok(result)),
            Some(Fault::Dropped) => None,
        }
    }

    fn apply(&mut self, key: &ShardKey, command: command::Kind, now_ms: u64) -> (&'static str, ShardResult) {
        // A fault means that the command was not carried out.
        let away = !self.faults.is_empty();
        let (name, refused) = match command {
            command::Kind::ClaimName(claim) => {
                assert_eq!(*key, ShardKey::Name(claim.name.clone()));
                ("claim", if away { None } else { self.claim(claim.name, user_id(&claim.user_id), now_ms) })
            }
            command::Kind::ConfirmName(confirm) => {
                assert_eq!(*key, ShardKey::Name(confirm.name.clone()));
                (
                    "confirm",
                    if away { None } else { self.confirm(&confirm.name, user_id(&confirm.user_id), now_ms) },
                )
            }
            command::Kind::CreateUser(create) => {
                let user = user_id(&create.user_id);
                assert_eq!(*key, ShardKey::User(user));
                let record = UserRecord {
                    user_id: create.user_id,
                    username: create.username,
                    display_name: create.display_name,
                    password_hash: create.password_hash,
                    devices: create.device.into_iter().collect(),
                    created_ms: now_ms,
                };
                if !away {
                    self.users.insert(user, record);
                }
                ("create", None)
            }
            command::Kind::AddDevice(add) => {
                let user = user_id(&add.user_id);
                assert_eq!(*key, ShardKey::User(user));
                self.users.get_mut(&user).expect("the user exists").devices.extend(add.device);
                ("add_device", None)
            }
            command::Kind::RotateRefresh(rotate) => {
                let user = user_id(&rotate.user_id);
                assert_eq!(*key, ShardKey::User(user));
                let device = self.users.get_mut(&user).map(|record| &mut record.devices);
                let device =
                    device.and_then(|all| all.iter_mut().find(|one| one.device_id == rotate.device_id));
                let refused = match device {
                    None => Some(ErrorCode::ErrorUnauthenticated),
                    Some(device) if device.refresh_hash == rotate.old_hash => {
                        device.refresh_hash = rotate.new_hash;
                        None
                    }
                    Some(device) if device.refresh_hash == rotate.new_hash => None,
                    Some(_) => Some(ErrorCode::ErrorUnauthenticated),
                };
                ("rotate", refused)
            }
            _ => panic!("accounts send nothing else"),
        };
        let kind = match refused {
            None => outcome::Kind::Accepted(Accepted {}),
            Some(code) => outcome::Kind::Refused(refusal(code)),
        };
        (name, ShardResult::Outcome(Outcome { kind: Some(kind) }))
    }

    fn claim(&mut self, name: String, user: UserId, now_ms: u64) -> Option<ErrorCode> {
        let taken = self.names.get(&name).is_some_and(|entry| {
            entry.user != user && (entry.confirmed || now_ms <= entry.claimed_ms + NAME_CLAIM_MS)
        });
        if taken {
            return Some(ErrorCode::ErrorAlreadyExists);
        }
        self.names.insert(name, Name { user, confirmed: false, claimed_ms: now_ms });
        None
    }

    fn confirm(&mut self, name: &str, user: UserId, now_ms: u64) -> Option<ErrorCode> {
        let expired = |entry: &Name| !entry.confirmed && now_ms > entry.claimed_ms + NAME_CLAIM_MS;
        match self.names.get_mut(name).filter(|entry| !expired(entry)) {
            None => Some(ErrorCode::ErrorNotFound),
            Some(entry) if entry.user != user => Some(ErrorCode::ErrorAlreadyExists),
            Some(entry) => {
                entry.confirmed = true;
                None
            }
        }
    }

    fn read(&self, key: &ShardKey, query: query::Kind) -> (&'static str, ShardResult) {
        let (name, found) = match query {
            query::Kind::ReadName(read) => {
                assert_eq!(*key, ShardKey::Name(read.name.clone()));
                let entry = self.names.get(&read.name).filter(|entry| entry.confirmed);
                let found =
                    entry.map(|entry| answer::Kind::Name(NameRecord { user_id: entry.user.to_bytes() }));
                ("read_name", found)
            }
            query::Kind::ReadUser(read) => {
                let user = user_id(&read.user_id);
                assert_eq!(*key, ShardKey::User(user));
                ("read_user", self.users.get(&user).cloned().map(answer::Kind::User))
            }
            _ => panic!("accounts send nothing else"),
        };
        let kind = found.unwrap_or_else(|| answer::Kind::Refused(refusal(ErrorCode::ErrorNotFound)));
        (name, ShardResult::Answer(Answer { kind: Some(kind) }))
    }
}

fn user_id(bytes: &[u8]) -> UserId {
    UserId::from_slice(bytes).expect("ids have 16 bytes")
}

fn refusal(code: ErrorCode) -> Refused {
    Refused { code: code as u32, detail: String::new() }
}
