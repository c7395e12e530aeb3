//! The bodies that are sent: a stamp as printable text, since people may have the conversation open.

use crate::workload::stamp::Stamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// What every body begins with.
const PREFIX: &str = "ringline-bench verify ";
/// Bytes of a stamp with its filling: enough that an altered body differs in more than its stamp.
const STAMPED_BYTES: usize = 96;

/// The one body of a stamp.
pub fn body(stamp: &Stamp) -> Bytes {
    Bytes::from(format!("{PREFIX}{}", STANDARD.encode(stamp.body(STAMPED_BYTES))))
}

/// The stamp of a body of this run; `None`: somebody else's.
pub fn read(body: &[u8], run: u64) -> Option<Stamp> {
    let stamped = STANDARD.decode(body.strip_prefix(PREFIX.as_bytes())?).ok()?;
    Stamp::read(&stamped).filter(|stamp| stamp.run == run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::population::DeviceIndex;

    #[test]
    fn bodies_are_text_and_tell_their_stamp_to_their_own_run() {
        let stamp = Stamp { sender: DeviceIndex(3), number: 9, due_us: 5, run: 77 };
        let body = body(&stamp);
        assert!(body.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '));
        assert_eq!((read(&body, 77), read(&body, 78)), (Some(stamp), None));
        assert_eq!((read(b"hello", 77), read(&body[..40], 77)), (None, None));
    }
}
