//! Checksums over the parts of a snapshot: each begins with the one before, so that a part that is missing, doubled or of
//! another snapshot is found as surely as a flipped bit.

use prost::Message;
use wire_protocol::internal::SnapshotPart;

/// CRC-32 (IEEE) of the part without its checksum, begun with `before`: that of the part before it, or 0.
pub(super) fn of(part: &SnapshotPart, before: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    let bare = SnapshotPart { checksum: 0, ..part.clone() };
    hasher.update(&bare.encode_to_vec());
    hasher.finalize()
}
