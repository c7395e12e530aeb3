//! Rows that engines may drop by themselves, by logged time.
//!
//! Dropping is local and late, so nothing may depend on it: readers apply the exact rule to the logged time in
//! the row (`domain/messages.rs`, `domain/names.rs`). An engine only drops what every reader already ignores.

use super::keys;
use wire_protocol::limits::{IDEMPOTENCY_MS, NAME_CLAIM_MS};

/// Age at which an idempotency row may vanish, in milliseconds of logged time: a day more than readers honour it,
/// so that the clocks of two leaders may differ by that much.
pub const IDEMPOTENCY_DROP_MS: u64 = IDEMPOTENCY_MS + 24 * 3_600 * 1_000;

const _: () = assert!(NAME_CLAIM_MS < IDEMPOTENCY_DROP_MS);

/// Where the logged time stands in an expiring row: behind the version byte, 8 bytes, big endian.
const TIME_START: usize = 1;

/// Whether no reader will look at this row again. `logged_ms` is the newest logged time the engine has seen.
pub fn is_expired(key: &[u8], value: &[u8], logged_ms: u64) -> bool {
    if keys::table(key) != Some(keys::IDEMPOTENCY) {
        return false;
    }
    let time = value.get(TIME_START..TIME_START + 8).and_then(|bytes| bytes.try_into().ok());
    // A row that cannot be read is kept for whoever reads it to complain.
    time.is_some_and(|bytes| u64::from_be_bytes(bytes).saturating_add(IDEMPOTENCY_DROP_MS) < logged_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::ids::{ClientMessageId, ConversationId, DeviceId, Seq};

    #[test]
    fn only_old_idempotency_rows_expire() {
        let id = ConversationId([1; 16]);
        let row = keys::idempotency(id, 0, DeviceId([2; 16]), ClientMessageId(3));
        let mut value = vec![1];
        value.extend_from_slice(&1_000u64.to_be_bytes());
        assert!(!is_expired(&row, &value, 0));
        assert!(!is_expired(&row, &value, 1_000 + IDEMPOTENCY_DROP_MS));
        assert!(is_expired(&row, &value, 1_001 + IDEMPOTENCY_DROP_MS));
        assert!(!is_expired(&row, &[], u64::MAX));
        assert!(!is_expired(&keys::message(id, Seq(1)), &value, u64::MAX));
        // A name's row begins with a time, too.
        assert!(!is_expired(&keys::name("ada"), &value, u64::MAX));
    }
}
