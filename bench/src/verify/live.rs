//! The check that writes: every device sends into its account's rooms at a bounded rate, some messages twice under one
//! id; some devices drop their connection with a message in the air, stay away, resume and catch up. Then every device
//! syncs, every account reads history, and the [`Audit`] is closed.

use super::VerifyError;
use super::audit::{Answer, Audit, RECORDS_MAX};
use super::cast::Seat;
use super::stage::{Amount, Room, Rooms, Stage};
use crate::agent::AgentError;
use crate::clock;
use crate::workload::ledger::{LedgerFull, MessageKey};
use crate::workload::population::RoomIndex;
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire_protocol::ids::ConversationId;
use wire_protocol::v1::{self, client_frame, server_frame};

/// Every so-manieth message of a device is sent again after its answer.
const REPEAT_EACH: u64 = 5;
/// How long a device stays away, in milliseconds: others send meanwhile.
const ABSENCE_MS: u64 = 1_000;
/// Longest wait for an event at a time, in milliseconds: pings are due in between.
const LISTEN_MS_MAX: u64 = 1_000;
/// Pages of one sync; each holds 100 conversations or 40 KiB.
const SYNC_PAGES_MAX: u32 = 10_000;

/// Sends, checks and leaves the account in `audit`, also if it is dropped half way.
pub async fn run(
    seats: &mut [Seat],
    audit: &RefCell<Audit>,
    amount: Amount,
    rooms: Rooms,
    say: &dyn Fn(&str),
) -> Result<(), VerifyError> {
    let seat_count = seats.len() as u64;
    let mut stage = Stage { audit, rooms: Vec::new(), started: clock::now(), amount, seat_count };
    stage.open_rooms(seats, rooms).await?;
    say(&format!(
        "{} devices send {} messages into {} rooms, {}/s",
        seats.len(),
        amount.messages,
        stage.rooms.len(),
        amount.rate
    ));
    stage.started = clock::now();
    let stage = &stage;
    let players = seats.iter_mut().map(|seat| {
        let version = seat.device().and_then(|device| Ok(device.connection()?.ready.feed_version));
        Player { version: version.unwrap_or(0), seat, stage }.play()
    });
    let players = try_join_all(players).await?;
    say("all is sent; every device syncs, every account reads history");
    settle(stage, players).await
}

/// A device while messages are sent.
struct Player<'a> {
    seat: &'a mut Seat,
    stage: &'a Stage<'a>,
    /// Of the change feed, as the last page told it.
    version: u64,
}

impl<'a> Player<'a> {
    async fn play(mut self) -> Result<Self, VerifyError> {
        let count = self.stage.count_of(self.seat);
        // Of each account one device goes away, native and WebSocket in turn.
        let leaves = (self.seat.index.0 + self.seat.user.0).is_multiple_of(2);
        let leaves_at = if leaves { count.div_ceil(2) } else { 0 };
        let rooms: Vec<(RoomIndex, ConversationId)> =
            self.stage.rooms_of(self.seat.user).map(|room| (room.index, room.id)).collect();
        for number in 1..=count {
            self.listen_until(self.stage.due_ms(self.seat, number)).await?;
            let (room, id) = rooms[number as usize % rooms.len()];
            let message = MessageKey { sender: self.seat.index, number };
            self.stage.audit(|audit| audit.sent(room, message)).map_err(full)?;
            if number == leaves_at {
                self.leave_in_mid_air(id, message).await?;
            }
            self.send(room, id, message).await?;
            if number.is_multiple_of(REPEAT_EACH) || number == leaves_at {
                self.send(room, id, message).await?;
            }
        }
        // Others may still send: what comes is taken until the last message is due.
        let last_ms = self.stage.amount.messages as f64 / self.stage.amount.rate * 1_000.0;
        self.listen_until(last_ms as u64).await?;
        Ok(self)
    }

    /// Sends until there is an answer, under one id.
    async fn send(
        &mut self,
        room: RoomIndex,
        id: ConversationId,
        message: MessageKey,
    ) -> Result<(), VerifyError> {
        let body = self.body(id, message);
        let answer = self
            .seat
            .ask(async |device| {
                let connection = device.connection()?;
                let base_ms = connection.ready.server_time_ms;
                match connection.request(body.clone()).await? {
                    server_frame::Body::Accepted(accepted) => Ok(Answer {
                        seq: accepted.seq,
                        time_ms: base_ms.saturating_add_signed(accepted.time_delta_ms),
                    }),
                    other => Err(AgentError::Protocol(format!("no acknowledgement: {other:?}"))),
                }
            })
            .await?;
        self.stage.audit(|audit| audit.accepted(room, message, answer));
        Ok(())
    }

    fn body(&self, id: ConversationId, message: MessageKey) -> client_frame::Body {
        client_frame::Body::Send(v1::SendMessage {
            handle: 0,
            conversation_id: id.to_bytes(),
            // The device is new: its count of messages is free.
            client_message_id: message.number,
            kind: v1::EntryKind::Text as i32,
            body: self.stage.audit(|audit| audit.body(message)),
            // The device waits for each answer: none of its messages is in flight when the next one goes.
            predecessor: 0,
        })
    }

    /// Hands a message to the kernel, drops the connection, stays away, resumes and catches up. Whether the message was
    /// stored is unknown: it is sent again afterwards.
    async fn leave_in_mid_air(&mut self, id: ConversationId, message: MessageKey) -> Result<(), VerifyError> {
        let body = self.body(id, message);
        self.seat
            .ask(async |device| {
                let connection = device.connection()?;
                connection.begin(body.clone())?;
                connection.flush().await
            })
            .await?;
        self.seat.drop_connection();
        tokio::time::sleep(Duration::from_millis(ABSENCE_MS)).await;
        self.seat.come_back().await?;
        self.sync().await
    }

    /// Takes what comes by itself until a moment, in milliseconds after the start.
    async fn listen_until(&mut self, until_ms: u64) -> Result<(), VerifyError> {
        loop {
            let left_ms = until_ms.saturating_sub(clock::since_ms(self.stage.started));
            if left_ms == 0 {
                return Ok(());
            }
            let heard = self.hear(left_ms.min(LISTEN_MS_MAX)).await;
            match heard {
                Ok(None) => {}
                Ok(Some(server_frame::Body::SyncNeeded(_))) => self.sync().await?,
                Ok(Some(event)) => self.take(event)?,
                Err(error) if error.is_retryable() => {
                    self.seat.come_back_after(&error).await?;
                    self.sync().await?;
                }
                Err(error) => return Err(self.seat.failed(error)),
            }
        }
    }

    async fn hear(&mut self, within_ms: u64) -> Result<Option<server_frame::Body>, AgentError> {
        let connection = self.seat.device()?.connection()?;
        connection.keep_alive().await?;
        connection.event_within(within_ms).await
    }

    fn take(&mut self, event: server_frame::Body) -> Result<(), VerifyError> {
        let server_frame::Body::Message(message) = event else { return Ok(()) };
        match (ConversationId::from_slice(&message.conversation_id), message.entry) {
            (Some(id), Some(entry)) => self.store(id, &[entry]),
            _ => Ok(()),
        }
    }

    fn store(&mut self, id: ConversationId, entries: &[v1::Entry]) -> Result<(), VerifyError> {
        let Some(room) = self.stage.rooms.iter().find(|room| room.id == id) else { return Ok(()) };
        let device = self.seat.index;
        entries
            .iter()
            .try_for_each(|entry| self.stage.audit(|audit| audit.received(room.index, device, entry)))
            .map_err(full)
    }

    /// Catches up from the stored version, naming where it stands in each of its rooms, as clients do.
    async fn sync(&mut self) -> Result<(), VerifyError> {
        let device = self.seat.index;
        let stands = |room: &Room| self.stage.audit(|audit| audit.complete_to(room.index, device));
        let mut places: BTreeMap<ConversationId, u64> =
            self.stage.rooms_of(self.seat.user).map(|room| (room.id, stands(room))).collect();
        for _ in 0..SYNC_PAGES_MAX {
            let cursors = places.iter().map(|(id, seq)| v1::SyncCursor {
                handle: 0,
                conversation_id: id.to_bytes(),
                after_seq: *seq,
            });
            let sync =
                v1::Sync { since_version: self.version, cursors: cursors.collect(), named_only: false };
            let page = self.seat.ask(async |device| device.sync_page(sync.clone()).await).await?;
            for delta in &page.conversations {
                let Some(conversation) = &delta.conversation else { continue };
                let Some(id) = ConversationId::from_slice(&conversation.conversation_id) else { continue };
                self.store(id, &delta.entries)?;
                let last_seq = delta.entries.last().map_or(0, |entry| entry.seq);
                match places.get_mut(&id) {
                    Some(place) => *place = last_seq.max(*place),
                    // None of this check: the rest of it is passed over.
                    None if delta.truncated => drop(places.insert(id, conversation.head_seq)),
                    None => {}
                }
            }
            self.version = page.version;
            if !page.more {
                return Ok(());
            }
        }
        let error = AgentError::Protocol(format!("a sync has no end after {SYNC_PAGES_MAX} pages"));
        Err(self.seat.failed(error))
    }
}

/// All is sent: heads are taken, every device syncs up to them, every account reads history.
async fn settle(stage: &Stage<'_>, mut players: Vec<Player<'_>>) -> Result<(), VerifyError> {
    for room in &stage.rooms {
        let member = players.iter_mut().find(|player| room.members.contains(&player.seat.user));
        let Some(player) = member else { continue };
        let conversation = player.seat.ask(async |device| device.look_at(room.id).await).await?;
        stage.audit(|audit| audit.close(room.index, conversation.head_seq));
    }
    try_join_all(players.iter_mut().map(Player::sync)).await?;
    let mut read = BTreeSet::new();
    for player in &mut players {
        if read.insert(player.seat.user) {
            player.read_histories().await?;
        }
    }
    Ok(())
}

impl Player<'_> {
    /// Reads every room of the account, from what was its head to what is its head.
    async fn read_histories(&mut self) -> Result<(), VerifyError> {
        let (stage, user) = (self.stage, self.seat.user);
        for room in stage.rooms_of(user) {
            let (mut after_seq, head_seq) = stage.audit(|audit| {
                audit.begins_to_read(room.index, user);
                audit.window(room.index)
            });
            while after_seq < head_seq {
                // Both bounds 0 would mean the newest entries.
                let bounds = if after_seq == 0 { (2, 0) } else { (0, after_seq) };
                let page = self
                    .seat
                    .ask(async |device| device.history_page(room.id, bounds.0, bounds.1).await)
                    .await?;
                let last_seq = page.entries.last().map_or(0, |entry| entry.seq);
                stage
                    .audit(|audit| {
                        page.entries.iter().try_for_each(|entry| audit.read(room.index, user, entry))
                    })
                    .map_err(full)?;
                if last_seq <= after_seq {
                    // It leads no further: what is missing is the audit's to tell.
                    break;
                }
                after_seq = last_seq;
            }
        }
        Ok(())
    }
}

fn full(_: LedgerFull) -> VerifyError {
    VerifyError::TooMuch(format!("more than {RECORDS_MAX} entries came in one room: send fewer messages"))
}
