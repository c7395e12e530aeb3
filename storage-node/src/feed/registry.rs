//! Which sessions of a home shard's users are attached, and over which link. In memory only: an entry lives as
//! long as its link, and gateways announce their sessions again when they see a new epoch.

use crate::worker::{LinkId, SessionKey};
use std::collections::{HashMap, HashSet};
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::internal::SessionAddress;
use wire_protocol::limits::DEVICES_MAX;

/// Sessions of one user: each device with a few pages open, or with a connection that is not known to be dead.
pub const SESSIONS_PER_USER_MAX: usize = 4 * DEVICES_MAX;
/// Sessions of one home shard: 64 bytes each, 64 MiB in all.
pub const SESSIONS_PER_SHARD_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
struct Session {
    key: SessionKey,
    device: DeviceId,
}

/// The registry is full for this user or this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RegistryFull;

/// Attached sessions of one home shard.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    users: HashMap<UserId, Vec<Session>>,
    links: HashMap<LinkId, HashSet<(UserId, SessionKey)>>,
    session_count: usize,
}

impl Registry {
    /// Adds a session. Adding it again changes nothing.
    pub fn attach(&mut self, user: UserId, device: DeviceId, key: SessionKey) -> Result<(), RegistryFull> {
        let sessions = self.users.entry(user).or_default();
        if sessions.iter().any(|session| session.key == key) {
            return Ok(());
        }
        if sessions.len() >= SESSIONS_PER_USER_MAX || self.session_count >= SESSIONS_PER_SHARD_MAX {
            return Err(RegistryFull);
        }
        sessions.push(Session { key, device });
        self.links.entry(key.link).or_default().insert((user, key));
        self.session_count += 1;
        Ok(())
    }

    /// Removes a session, if it is there.
    pub fn detach(&mut self, user: UserId, key: SessionKey) {
        self.remove(user, |session| session.key == key);
    }

    /// Removes every session: they belong to another replica now.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes every session of a link.
    pub fn link_closed(&mut self, link: LinkId) {
        for (user, key) in self.links.remove(&link).unwrap_or_default() {
            self.remove(user, |session| session.key == key);
        }
    }

    /// Removes the sessions of a device and names them, by link.
    pub fn device_removed(&mut self, user: UserId, device: DeviceId) -> Vec<(LinkId, Vec<SessionAddress>)> {
        by_link(self.remove(user, |session| session.device == device).into_iter())
    }

    /// The sessions of these users, but for those of the device that caused what they are told, by link.
    pub fn sessions(&self, users: &[UserId], except: Option<DeviceId>) -> Vec<(LinkId, Vec<SessionAddress>)> {
        let sessions = users.iter().filter_map(|user| self.users.get(user)).flatten();
        by_link(sessions.filter(|session| Some(session.device) != except).map(|session| session.key))
    }

    /// Attached sessions.
    pub fn session_count(&self) -> usize {
        self.session_count
    }

    fn remove(&mut self, user: UserId, which: impl Fn(&Session) -> bool) -> Vec<SessionKey> {
        let Some(sessions) = self.users.get_mut(&user) else { return Vec::new() };
        let mut removed = Vec::new();
        sessions.retain(|session| {
            let goes = which(session);
            if goes {
                removed.push(session.key);
            }
            !goes
        });
        if sessions.is_empty() {
            self.users.remove(&user);
        }
        for key in &removed {
            if let Some(of_link) = self.links.get_mut(&key.link) {
                of_link.remove(&(user, *key));
                if of_link.is_empty() {
                    self.links.remove(&key.link);
                }
            }
        }
        self.session_count -= removed.len();
        removed
    }
}

/// Few links have sessions of one user: a search is cheaper than a map.
fn by_link(keys: impl Iterator<Item = SessionKey>) -> Vec<(LinkId, Vec<SessionAddress>)> {
    let mut links: Vec<(LinkId, Vec<SessionAddress>)> = Vec::new();
    for key in keys {
        match links.iter_mut().find(|(link, _)| *link == key.link) {
            Some((_, sessions)) => sessions.push(key.address()),
            None => links.push((key.link, vec![key.address()])),
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: UserId = UserId([1; 16]);
    const BOB: UserId = UserId([2; 16]);

    fn key(link: u64, slot: u32) -> SessionKey {
        SessionKey::new(LinkId::of_test(0, link), SessionAddress { slot, generation: 1 })
    }

    fn slots(found: &[(LinkId, Vec<SessionAddress>)]) -> Vec<u32> {
        found.iter().flat_map(|(_, sessions)| sessions.iter().map(|session| session.slot)).collect()
    }

    #[test]
    fn sessions_are_found_but_not_the_origins() {
        let (phone, page) = (DeviceId([3; 16]), DeviceId([4; 16]));
        let mut registry = Registry::default();
        for (user, device, key) in [
            (ADA, phone, key(1, 1)),
            (ADA, page, key(1, 2)),
            (BOB, phone, key(2, 3)),
            (ADA, phone, key(1, 1)),
        ] {
            registry.attach(user, device, key).expect("there is room");
        }
        assert_eq!(registry.session_count(), 3);
        assert_eq!(slots(&registry.sessions(&[ADA, BOB], Some(page))), [1, 3]);
        registry.detach(ADA, key(1, 1));
        assert_eq!(slots(&registry.sessions(&[ADA], None)), [2]);
        registry.link_closed(key(1, 0).link);
        assert_eq!(slots(&registry.sessions(&[ADA, BOB], None)), [3]);
        assert_eq!(slots(&registry.device_removed(BOB, phone)), [3]);
        assert_eq!((registry.session_count(), registry.users.len(), registry.links.len()), (0, 0, 0));
    }

    #[test]
    fn a_user_has_no_more_sessions_than_allowed() {
        let mut registry = Registry::default();
        for slot in 0..SESSIONS_PER_USER_MAX as u32 {
            registry.attach(ADA, DeviceId([3; 16]), key(1, slot)).expect("there is room");
        }
        assert_eq!(registry.attach(ADA, DeviceId([3; 16]), key(1, 1_000)), Err(RegistryFull));
        registry.attach(BOB, DeviceId([3; 16]), key(1, 1_001)).expect("there is room");
    }
}
