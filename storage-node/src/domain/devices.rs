//! Devices: log ins of a user, each with its refresh token's hash. They live in the user's row.

use super::turn::{Answered, Stop, Turn, device_id, invalid, user_id};
use super::{Event, fits_chars, users};
use wire_protocol::ids::DeviceId;
use wire_protocol::internal::{Accepted, AddDevice, Device, RemoveDevice, RotateRefresh, outcome};
use wire_protocol::limits::DEVICES_MAX;
use wire_protocol::v1::ErrorCode;

/// Longest name of a device, in characters: free text for its owner.
const DEVICE_NAME_CHARS_MAX: usize = 100;
/// Bytes of a refresh hash: SHA-256.
const REFRESH_HASH_BYTES: usize = 32;

/// The device as it is stored, if its fields are as they must be.
pub(super) fn check(device: Option<&Device>, time_ms: u64) -> Result<Device, Stop> {
    let device = device.ok_or(invalid("device: missing"))?;
    device_id(&device.device_id)?;
    if !fits_chars(&device.name, DEVICE_NAME_CHARS_MAX) {
        return Err(invalid("device name: too long"));
    }
    if device.refresh_hash.len() != REFRESH_HASH_BYTES {
        return Err(invalid("refresh_hash: not 32 bytes"));
    }
    Ok(Device { created_ms: time_ms, ..device.clone() })
}

/// Adds a device. Repeating it changes nothing; beyond [`DEVICES_MAX`] the oldest one goes.
pub(super) fn add(turn: &mut Turn<'_, '_>, command: &AddDevice) -> Answered {
    let id = user_id(&command.user_id)?;
    let device = check(command.device.as_ref(), turn.time_ms)?;
    let mut user = users::load(turn.overlay, id)?.ok_or(Stop::Refused(ErrorCode::ErrorNotFound, "user"))?;
    if user.devices.iter().any(|known| known.device_id == device.device_id) {
        return Ok(outcome::Kind::Accepted(Accepted {}));
    }
    while user.devices.len() >= DEVICES_MAX {
        let oldest = user.devices.remove(0);
        if let Some(device) = DeviceId::from_slice(&oldest.device_id) {
            turn.events.push(Event::DeviceRemoved { user: id, device });
        }
    }
    user.devices.push(device);
    users::store(turn, id, &user);
    Ok(outcome::Kind::Accepted(Accepted {}))
}

/// Puts a new refresh hash in place of the old one, once: whoever comes second with the old one is refused, unless
/// it brings the same new one.
pub(super) fn rotate_refresh(turn: &mut Turn<'_, '_>, command: &RotateRefresh) -> Answered {
    let id = user_id(&command.user_id)?;
    device_id(&command.device_id)?;
    if command.new_hash.len() != REFRESH_HASH_BYTES {
        return Err(invalid("new_hash: not 32 bytes"));
    }
    let unauthenticated = |detail| Stop::Refused(ErrorCode::ErrorUnauthenticated, detail);
    let mut user = users::load(turn.overlay, id)?.ok_or(unauthenticated("user"))?;
    let device = user.devices.iter_mut().find(|device| device.device_id == command.device_id);
    let device = device.ok_or(unauthenticated("device"))?;
    if device.refresh_hash == command.new_hash {
        return Ok(outcome::Kind::Accepted(Accepted {}));
    }
    if device.refresh_hash != command.old_hash {
        return Err(unauthenticated("refresh token"));
    }
    device.refresh_hash = command.new_hash.clone();
    users::store(turn, id, &user);
    Ok(outcome::Kind::Accepted(Accepted {}))
}

/// Forgets a device. Repeating it changes nothing.
pub(super) fn remove(turn: &mut Turn<'_, '_>, command: &RemoveDevice) -> Answered {
    let id = user_id(&command.user_id)?;
    let device = device_id(&command.device_id)?;
    let mut user = users::load(turn.overlay, id)?.ok_or(Stop::Refused(ErrorCode::ErrorNotFound, "user"))?;
    let count = user.devices.len();
    user.devices.retain(|known| known.device_id != command.device_id);
    if user.devices.len() < count {
        users::store(turn, id, &user);
        turn.events.push(Event::DeviceRemoved { user: id, device });
    }
    Ok(outcome::Kind::Accepted(Accepted {}))
}
