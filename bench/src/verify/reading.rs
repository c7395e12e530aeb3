//! The check that only reads: every conversation of the accounts, by each account that has it, against sync and list.

use super::VerifyError;
use super::cast::Seat;
use super::histories::{Comparison, ENTRIES_MAX, Reading, Told};
use super::outcome::HistoryBalance;
use super::sight::Sight;
use crate::agent::AgentError;
use std::collections::{BTreeMap, BTreeSet};
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1;

/// Conversations of one account, some KiB each with what sync shows of them: 50 MB.
const CONVERSATIONS_MAX: usize = 10_000;
/// Pages of one sync or list.
const PAGES_MAX: u32 = 10_000;

/// What one account was told of its conversations.
type Overview = BTreeMap<ConversationId, Known>;

#[derive(Default)]
struct Known {
    told: Told,
    members: BTreeSet<UserId>,
}

/// Reads all of it. One device of each account is enough.
pub async fn run(seats: &mut [Seat], say: &dyn Fn(&str)) -> Result<Vec<HistoryBalance>, VerifyError> {
    let mut overviews = Vec::new();
    for seat in &mut *seats {
        overviews.push(overview(seat).await?);
    }
    let ids: BTreeSet<ConversationId> = overviews.iter().flat_map(|known| known.keys().copied()).collect();
    say(&format!("{} conversations are read by {} accounts", ids.len(), seats.len()));
    let mut balances = Vec::new();
    for id in ids {
        let mut comparison = Comparison::new(id.to_string());
        let members: BTreeSet<UserId> = overviews
            .iter()
            .filter_map(|known| known.get(&id))
            .flat_map(|known| known.members.clone())
            .collect();
        for (seat, overview) in seats.iter_mut().zip(&mut overviews) {
            let account = seat.identity().username.clone();
            match overview.remove(&id) {
                Some(Known { mut told, .. }) => {
                    let reading = read(seat, id, &mut told).await?;
                    comparison.add(&account, reading, &told);
                }
                None if members.contains(&seat.identity().user) => comparison.lacks(&account),
                None => {}
            }
        }
        balances.push(comparison.balance());
    }
    Ok(balances)
}

/// Syncs from the beginning, then asks for the list.
async fn overview(seat: &mut Seat) -> Result<Overview, VerifyError> {
    let mut overview = Overview::new();
    sync_all(seat, &mut overview).await?;
    list_all(seat, &mut overview).await?;
    Ok(overview)
}

async fn sync_all(seat: &mut Seat, overview: &mut Overview) -> Result<(), VerifyError> {
    let (mut version, mut places) = (0, BTreeMap::<ConversationId, u64>::new());
    for _ in 0..PAGES_MAX {
        let cursors = places.iter().map(|(id, seq)| cursor(*id, *seq));
        let sync = v1::Sync { since_version: version, cursors: cursors.collect(), named_only: false };
        let page = seat.ask(async |device| device.sync_page(sync.clone()).await).await?;
        for delta in &page.conversations {
            let Some(conversation) = &delta.conversation else { continue };
            let id = id_of(seat, &conversation.conversation_id)?;
            let known = overview.entry(id).or_default();
            let (head_seq, sight) = &mut known.told.synced;
            *head_seq = conversation.head_seq.max(*head_seq);
            sight.take_all(&delta.entries);
            let users = conversation.members.iter().filter_map(|member| UserId::from_slice(&member.user_id));
            known.members.extend(users);
            let last_seq = delta.entries.last().map_or(0, |entry| entry.seq);
            match places.get_mut(&id) {
                Some(place) => *place = last_seq.max(*place),
                None if delta.truncated => drop(places.insert(id, last_seq)),
                None => {}
            }
        }
        few_enough(seat, overview)?;
        if page.version != version {
            // The version moved on: nothing before it is truncated any more.
            places.clear();
        }
        version = page.version;
        if !page.more {
            return Ok(());
        }
    }
    Err(endless(seat, "a sync"))
}

async fn list_all(seat: &mut Seat, overview: &mut Overview) -> Result<(), VerifyError> {
    let mut token = bytes::Bytes::new();
    for _ in 0..PAGES_MAX {
        let page = seat.ask(async |device| device.list_page(token.clone()).await).await?;
        for conversation in page.conversations {
            let id = id_of(seat, &conversation.conversation_id)?;
            // One that was made after the sync is not looked at.
            let Some(known) = overview.get_mut(&id) else { continue };
            let mut last = Sight::behind(0);
            last.take_all(&conversation.last);
            known.told.listed = Some((conversation.head_seq, last));
        }
        token = page.next;
        if token.is_empty() {
            return Ok(());
        }
    }
    Err(endless(seat, "a list"))
}

/// Reads a conversation from its first entry to its head, and asks sync for that head again.
async fn read(seat: &mut Seat, id: ConversationId, told: &mut Told) -> Result<Reading, VerifyError> {
    let mut reading = Reading::default();
    loop {
        let after_seq = reading.last_seq();
        // Both bounds 0 would mean the newest entries: the first page is asked for from below its end.
        let (before_seq, after_seq) = if after_seq == 0 { (2, 0) } else { (0, after_seq) };
        let page = seat.ask(async |device| device.history_page(id, before_seq, after_seq).await).await?;
        told.history_head = page.head_seq.max(told.history_head);
        if told.history_head > ENTRIES_MAX {
            let detail = format!("{id} has {} entries; {ENTRIES_MAX} can be read", told.history_head);
            return Err(VerifyError::TooMuch(detail));
        }
        let further = reading.take_page(&page.entries);
        if !further || reading.last_seq() >= page.head_seq {
            break;
        }
    }
    // From before the last entry: a sync leaves out a conversation that has nothing behind its cursor.
    let cursors = vec![cursor(id, reading.last_seq().saturating_sub(1))];
    let sync = v1::Sync { since_version: 0, cursors, named_only: true };
    let page = seat.ask(async |device| device.sync_page(sync.clone()).await).await?;
    let (head_seq, sight) = &mut told.synced_after;
    for delta in &page.conversations {
        *head_seq = delta.conversation.as_ref().map_or(0, |conversation| conversation.head_seq);
        sight.take_all(&delta.entries);
    }
    Ok(reading)
}

fn cursor(id: ConversationId, after_seq: u64) -> v1::SyncCursor {
    v1::SyncCursor { handle: 0, conversation_id: id.to_bytes(), after_seq }
}

fn id_of(seat: &Seat, bytes: &[u8]) -> Result<ConversationId, VerifyError> {
    let wrong = || seat.failed(AgentError::Protocol("a conversation id of another length".into()));
    ConversationId::from_slice(bytes).ok_or_else(wrong)
}

fn few_enough(seat: &Seat, overview: &Overview) -> Result<(), VerifyError> {
    if overview.len() > CONVERSATIONS_MAX {
        let detail = format!("{} has more than {CONVERSATIONS_MAX} conversations", seat.identity().username);
        return Err(VerifyError::TooMuch(detail));
    }
    Ok(())
}

fn endless(seat: &Seat, what: &str) -> VerifyError {
    seat.failed(AgentError::Protocol(format!("{what} has no end after {PAGES_MAX} pages")))
}
