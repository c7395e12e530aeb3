//! Who is who: users by id and by username.

use super::calls::{answer, unexpected};
use super::{Asker, Calls, Progress, Step, invalid};
use crate::worker::mailbox::{ShardKey, StorageResult};
use std::collections::{BTreeMap, HashMap, HashSet};
use wire_protocol::error::RequestError;
use wire_protocol::ids::{UserId, normal_username};
use wire_protocol::internal::{ReadName, ReadProfiles, answer as storage, query};
use wire_protocol::limits::LOOK_UP_USERS_MAX;
use wire_protocol::v1::{self, ErrorCode, server_frame};

/// A look-up on its way: names first become ids, ids become profiles.
#[derive(Debug)]
pub struct LookUp {
    /// In the order asked for: ids, then names.
    wanted: Vec<Wanted>,
    profiles: HashMap<UserId, v1::User>,
    /// Calls without a result.
    waiting: usize,
    /// No call out has this part or a later one.
    next_part: u16,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    User(UserId),
    /// A name that nobody was found for, so far.
    Name,
}

impl LookUp {
    pub(super) fn start(
        asker: &Asker<'_>,
        look_up: &v1::LookUpUsers,
        calls: &mut Calls,
    ) -> Result<(Self, Progress), RequestError> {
        if look_up.user_ids.len() + look_up.usernames.len() > LOOK_UP_USERS_MAX {
            return Err(invalid(format!("user_ids, usernames: more than {LOOK_UP_USERS_MAX}")));
        }
        let mut wanted = Vec::new();
        for id in &look_up.user_ids {
            let user = UserId::from_slice(id).ok_or_else(|| invalid("user_ids: not 16 bytes"))?;
            wanted.push(Wanted::User(user));
        }
        // A part below the names' count is a name; profile calls are counted from there.
        let users: Vec<UserId> = wanted.iter().filter_map(Wanted::user).collect();
        let mut waiting = 0;
        for name in look_up.usernames.iter().filter_map(|name| normal_username(name)) {
            let part = wanted.len() as u16;
            wanted.push(Wanted::Name);
            let query = query::Kind::ReadName(ReadName { name: name.clone() });
            calls.query(part, ShardKey::Name(name), query);
            waiting += 1;
        }
        let shards = read_profiles(asker, &users, wanted.len() as u16, calls);
        let next_part = (wanted.len() + shards) as u16;
        let mut look_up = Self { wanted, profiles: HashMap::new(), waiting: waiting + shards, next_part };
        let progress = look_up.progress();
        Ok((look_up, progress))
    }

    pub(super) fn handle_result(
        &mut self,
        asker: &Asker<'_>,
        part: u16,
        result: StorageResult,
        calls: &mut Calls,
    ) -> Step {
        self.waiting -= 1;
        match answer(result) {
            Ok(storage::Kind::Profiles(found)) => self.take_profiles(found.users),
            Ok(storage::Kind::Name(found)) => {
                let user = UserId::from_slice(&found.user_id).ok_or_else(|| unexpected("a user's id"))?;
                let wanted = self.wanted.get_mut(usize::from(part)).ok_or_else(|| unexpected("a name"))?;
                *wanted = Wanted::User(user);
                if !self.profiles.contains_key(&user) {
                    self.waiting += read_profiles(asker, &[user], self.next_part, calls);
                    self.next_part += 1;
                }
            }
            Ok(_) => return Err(unexpected("profiles or a name")),
            Err(error) if error.code == ErrorCode::ErrorNotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self.progress())
    }

    fn take_profiles(&mut self, users: Vec<v1::User>) {
        for user in users {
            if let Some(id) = UserId::from_slice(&user.user_id) {
                self.profiles.insert(id, user);
            }
        }
    }

    fn progress(&mut self) -> Progress {
        if self.waiting > 0 {
            return Progress::Waiting;
        }
        let mut told = HashSet::new();
        let users = self.wanted.iter().filter_map(Wanted::user).filter(|user| told.insert(*user));
        let users = users.filter_map(|user| self.profiles.remove(&user)).collect();
        Progress::Answered(server_frame::Body::Users(v1::Users { users }))
    }
}

impl Wanted {
    fn user(&self) -> Option<UserId> {
        match self {
            Wanted::User(user) => Some(*user),
            Wanted::Name => None,
        }
    }
}

/// One query for each home shard of these users, all with this part; how many.
pub(super) fn read_profiles(
    asker: &Asker<'_>,
    users: &[UserId],
    first_part: u16,
    calls: &mut Calls,
) -> usize {
    let mut by_shard: BTreeMap<_, Vec<UserId>> = BTreeMap::new();
    for &user in users {
        by_shard.entry(asker.router.shard(&ShardKey::User(user))).or_default().push(user);
    }
    for (part, users) in (first_part..).zip(by_shard.values()) {
        let query = query::Kind::ReadProfiles(ReadProfiles {
            user_ids: users.iter().map(|user| user.to_bytes()).collect(),
        });
        calls.query(part, ShardKey::User(users[0]), query);
    }
    by_shard.len()
}

#[cfg(test)]
mod tests {
    use super::super::fake_storage::{FakeStorage, user};
    use super::*;
    use wire_protocol::v1::client_frame;

    fn look_up(storage: &mut FakeStorage, ids: &[UserId], names: &[&str]) -> Vec<String> {
        let body = client_frame::Body::LookUp(v1::LookUpUsers {
            user_ids: ids.iter().map(|id| id.to_bytes()).collect(),
            usernames: names.iter().map(ToString::to_string).collect(),
        });
        match storage.ask(user(1), body) {
            Ok(server_frame::Body::Users(users)) => {
                users.users.into_iter().map(|user| user.username).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn users_come_in_the_order_asked_for_and_once() {
        let mut storage = FakeStorage::with_users(4);
        let found = look_up(&mut storage, &[user(3), user(1), user(99)], &["USER2", "user3", "nobody", "!"]);
        assert_eq!(found, ["user3", "user1", "user2"]);
        assert!(look_up(&mut storage, &[], &[]).is_empty());
        assert!(look_up(&mut storage, &[], &["nobody"]).is_empty());
    }

    #[test]
    fn as_many_as_a_look_up_holds_are_found_and_one_more_is_refused() {
        let mut storage = FakeStorage::with_users(4);
        let body = |ids: usize, names: usize| {
            client_frame::Body::LookUp(v1::LookUpUsers {
                user_ids: vec![user(3).to_bytes(); ids],
                usernames: vec!["user2".to_owned(); names],
            })
        };
        for (ids, names) in [(LOOK_UP_USERS_MAX, 0), (LOOK_UP_USERS_MAX - 1, 1)] {
            assert!(storage.ask(user(1), body(ids, names)).is_ok());
            for more in [body(ids + 1, names), body(ids, names + 1)] {
                let error = storage.ask(user(1), more).expect_err("one too many");
                assert_eq!(error.code, ErrorCode::ErrorInvalidArgument);
            }
        }
    }

    #[test]
    fn one_home_shard_away_fails_the_look_up() {
        let mut storage = FakeStorage::with_users(4);
        storage.fail_call(1);
        let body = client_frame::Body::LookUp(v1::LookUpUsers {
            user_ids: (1..=4).map(|number| user(number).to_bytes()).collect(),
            usernames: vec![],
        });
        let error = storage.ask(user(1), body).expect_err("a shard is away");
        assert_eq!(error.code, ErrorCode::ErrorUnavailable);
    }
}
