//! Entries, facts and names on their way into the stored state, by whatever way they came.

use super::fetches::Fetch;
use super::timeline::{Arrived, Timeline};
use super::writes::ConversationFacts;
use super::{Engine, Write};
use crate::model::{Event, Message};
use wire_protocol::ids::{ConversationId, Seq, UserId};
use wire_protocol::v1::{self, Entry};

/// What [`Engine::take_conversation`] made of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenConversation {
    pub(super) conversation: ConversationId,
    /// It was not here before.
    pub(super) new: bool,
}

impl Engine {
    /// Takes one entry; whatever is next in line then enters the window, is stored and told to the app.
    pub(super) fn take_entry(&mut self, conversation: ConversationId, arrived: Arrived) -> bool {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return false };
        let link = arrived.link;
        let entry_stored = link.is_some();
        timeline.take(arrived);
        let mut heard_from_others = false;
        let mut grown = false;
        while let Some(arrived) = timeline.poll_next() {
            grown = true;
            heard_from_others |= arrived.link.is_none();
            self.events.push_back(Event::Message(message_of(conversation, timeline, &arrived)));
            if !(entry_stored && arrived.link == link) {
                self.writes.push(Write::Entry { conversation, arrived });
            }
        }
        if heard_from_others {
            self.cursors.want_delivered(conversation, timeline.high());
        }
        grown
    }

    /// Takes consecutive, ascending entries. True: the window grew.
    pub(super) fn take_page(&mut self, conversation: ConversationId, entries: Vec<Entry>) -> bool {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return false };
        if let Some(first) = entries.first().filter(|first| first.seq >= 1) {
            timeline.begin_at(first.seq);
        }
        let mut grown = false;
        for entry in entries {
            grown |= self.take_entry(conversation, Arrived { entry, link: None });
        }
        self.after_entries(conversation);
        grown
    }

    /// Stores where the window stands, and has a gap filled if there is one.
    pub(super) fn after_entries(&mut self, conversation: ConversationId) {
        let Some(timeline) = self.timelines.get(&conversation) else { return };
        let (low, high, head) = (timeline.low(), timeline.high(), timeline.head());
        self.writes.push(Write::Window { conversation, low, high, head });
        if timeline.gap().is_some() {
            self.fetches.want(Fetch::Gap(conversation));
        }
    }

    /// Takes a page of older entries; the number that was new.
    pub(super) fn take_older(&mut self, conversation: ConversationId, entries: Vec<Entry>) -> usize {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return 0 };
        if !timeline.extend_down(&entries) {
            return 0;
        }
        let count = entries.len();
        for entry in entries {
            self.writes.push(Write::Entry { conversation, arrived: Arrived { entry, link: None } });
        }
        self.after_entries(conversation);
        count
    }

    /// Takes the facts of a conversation. `None`: not understood, or no room.
    pub(super) fn take_conversation(&mut self, facts: &v1::Conversation) -> Option<TakenConversation> {
        let conversation = ConversationId::from_slice(&facts.conversation_id)?;
        let new = !self.timelines.contains_key(&conversation);
        if new && !self.has_room() {
            tracing::warn!("more conversations than this device keeps");
            return None;
        }
        let timeline = self.timelines.entry(conversation).or_default();
        timeline.own_ordinal = facts.own_ordinal;
        timeline.raise_head(facts.head_seq);
        self.writes.push(Write::Conversation(ConversationFacts {
            id: conversation,
            kind: facts.kind,
            title: facts.title.clone(),
            own_ordinal: facts.own_ordinal,
            created_ms: facts.created_ms,
            unread: facts.unread,
            unread_at: facts.head_seq,
        }));
        if !facts.members.is_empty() {
            let is_whole = |member: &&v1::Member| UserId::from_slice(&member.user_id).is_some();
            let members: Vec<v1::Member> = facts.members.iter().filter(is_whole).cloned().collect();
            let user = |member: &v1::Member| Some((member.ordinal, UserId::from_slice(&member.user_id)?));
            timeline.members = members.iter().filter_map(user).collect();
            self.names.want(timeline.members.iter().map(|(_, user)| *user));
            self.writes.push(Write::Members { conversation, members });
        } else if timeline.members.is_empty() {
            self.fetches.want(Fetch::Facts(conversation));
        }
        self.learn_own_read(conversation, facts.read_up_to);
        // A conversation that was just created is complete with its first entry.
        if let Some(last) = facts.last.clone().filter(|last| last.seq == 1) {
            self.take_entry(conversation, Arrived { entry: last, link: None });
        }
        self.after_entries(conversation);
        self.events.push_back(Event::ConversationChanged(conversation));
        Some(TakenConversation { conversation, new })
    }

    /// The user has read on another device, or on this one in an earlier life.
    pub(super) fn learn_own_read(&mut self, conversation: ConversationId, seq: u64) {
        let Some(timeline) = self.timelines.get_mut(&conversation) else { return };
        self.cursors.read_elsewhere(conversation, seq);
        if seq > timeline.read_up_to {
            timeline.read_up_to = seq;
            self.writes.push(Write::ReadUpTo { conversation, seq });
            self.events.push_back(Event::ConversationChanged(conversation));
        }
    }

    /// Takes names.
    pub(super) fn take_users(&mut self, mut users: v1::Users) {
        users.users.retain(|user| UserId::from_slice(&user.user_id).is_some());
        let ids: Vec<UserId> =
            users.users.iter().filter_map(|user| UserId::from_slice(&user.user_id)).collect();
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|user| self.names.learn(*user));
        let concerns = |timeline: &Timeline| timeline.members.iter().any(|(_, user)| ids.contains(user));
        let concerned = self.timelines.iter().filter(|(_, timeline)| concerns(timeline));
        let events = concerned.map(|(conversation, _)| Event::ConversationChanged(*conversation));
        self.events.extend(events);
        self.writes.push(Write::Users(users.users));
    }
}

fn message_of(conversation: ConversationId, timeline: &Timeline, arrived: &Arrived) -> Message {
    let Entry { seq, sender, time_ms, ref body, .. } = arrived.entry;
    Message {
        conversation,
        seq: Seq(seq),
        sender_ordinal: sender,
        sender: timeline.member(sender),
        own: sender == timeline.own_ordinal,
        time_ms,
        kind: arrived.entry.kind(),
        body: body.clone(),
        client_message_id: arrived.link,
    }
}
