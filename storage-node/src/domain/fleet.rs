//! Where replicas are: of each shard, in its own rows; of all of them, in shard 0's.

use super::row::{RowReader, RowWriter};
use super::turn::{Answered, Turn, invalid};
use super::{Event, Overlay};
use crate::engine::{Reader, StoreError, WriteBatch, keys};
use bytes::Bytes;
use prost::Message;
use wire_protocol::ids::ShardId;
use wire_protocol::internal::{Accepted, Fleet, ReplicaSet, outcome};

/// The shard that keeps the fleet.
pub const SHARD_OF_FLEET: ShardId = ShardId(0);

/// Puts a fleet in the place of the one that it was made from. Of two changes of one fleet the later one is refused.
pub(super) fn change(turn: &mut Turn<'_, '_>, next: &Fleet) -> Answered {
    if turn.shard != SHARD_OF_FLEET {
        return Err(invalid("change_fleet: of shard 0 alone"));
    }
    let epoch = fleet(turn.overlay)?.map_or(0, |fleet| fleet.epoch);
    if next.epoch.checked_sub(1) != Some(epoch) {
        return Err(invalid("epoch: another change came before"));
    }
    turn.overlay.put(keys::fleet(), row_of(next));
    turn.events.push(Event::FleetChanged(next.clone()));
    Ok(outcome::Kind::Accepted(Accepted {}))
}

/// The fleet, if it ever changed.
pub fn fleet(reader: &dyn Reader) -> Result<Option<Fleet>, StoreError> {
    read(reader.value(&keys::fleet())?, "fleet")
}

/// The newest fleet that this node has heard of, if it keeps one: any node does, whichever shards it holds.
pub fn known(reader: &dyn Reader) -> Result<Option<Fleet>, StoreError> {
    read(reader.value(&keys::known_fleet())?, "known fleet")
}

/// Keeps a fleet for the next start.
pub fn keep(batch: &mut WriteBatch, fleet: &Fleet) {
    batch.put(keys::known_fleet(), row_of(fleet));
}

/// The replicas of a shard as of its applied index, if they ever changed.
pub fn replicas(reader: &dyn Reader, shard: ShardId) -> Result<Option<ReplicaSet>, StoreError> {
    read(reader.value(&keys::replicas(shard))?, "replicas")
}

/// Goes into the overlay with the entry that changed them.
pub fn set_replicas(overlay: &mut Overlay<'_>, shard: ShardId, set: &ReplicaSet) {
    overlay.put(keys::replicas(shard), row_of(set));
}

fn row_of(message: &impl Message) -> Bytes {
    RowWriter::new(message.encoded_len()).bytes(&message.encode_to_vec()).finish()
}

fn read<M: Message + Default>(row: Option<Bytes>, table: &'static str) -> Result<Option<M>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    let rest = RowReader::new(table, row)?.rest();
    M::decode(rest).map(Some).map_err(|_| StoreError::Damaged { table, detail: "does not decode" })
}
