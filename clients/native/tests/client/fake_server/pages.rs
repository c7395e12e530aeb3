//! Sync: what changed since a version, a few conversations and entries a page.

use super::{Caller, FakeServer, Room};
use wire_protocol::ids::ConversationId;
use wire_protocol::limits::SYNC_LATEST_ENTRIES;
use wire_protocol::v1;

impl FakeServer {
    pub(super) fn sync(&self, caller: Caller, sync: &v1::Sync) -> v1::SyncPage {
        let feed = self.feeds.get(&caller.user).cloned().unwrap_or_default();
        let changed = feed.into_iter().map(|(id, version)| (version, id));
        let mut changed: Vec<(u64, ConversationId)> =
            changed.filter(|(version, _)| *version > sync.since_version).collect();
        changed.sort_unstable();
        let mut page = v1::SyncPage { conversations: Vec::new(), version: sync.since_version, more: false };
        let mut room_left = self.page_entries;
        let mut whole = true;
        for (version, id) in changed {
            if room_left == 0 {
                page.more = true;
                break;
            }
            let room = &self.rooms[&id];
            let delta = room.delta(caller, id, sync, &mut room_left);
            if delta.truncated {
                page.more = true;
                whole = false;
            } else if whole {
                page.version = version;
            }
            page.conversations.push(delta);
        }
        page
    }
}

impl Room {
    fn delta(
        &self,
        caller: Caller,
        id: ConversationId,
        sync: &v1::Sync,
        room_left: &mut usize,
    ) -> v1::ConversationDelta {
        let named = sync.cursors.iter().find(|cursor| cursor.conversation_id == id.to_bytes());
        let head = self.entries.len();
        let latest = head.saturating_sub(SYNC_LATEST_ENTRIES.min(5)) as u64;
        let device = self.device_cursors.get(&caller.device).copied();
        let after = named.map(|cursor| cursor.after_seq).or(device).unwrap_or(latest) as usize;
        let entries: Vec<_> = self.entries.iter().skip(after).take(*room_left).cloned().collect();
        *room_left -= entries.len();
        let truncated = after + entries.len() < head;
        let with_members = device.is_none();
        let conversation = Some(self.facts(id, caller.user, with_members));
        v1::ConversationDelta { conversation, entries, truncated }
    }
}
