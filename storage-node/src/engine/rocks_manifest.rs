//! Telling a torn end of RocksDB's manifest, which names the tables, from damage.
//!
//! RocksDB takes a record that reaches beyond the manifest's end for one that a power failure tore, and begins with what
//! is before it. That is wrong for a length in which a bit rotted: it would know of no table behind, and remove them all.
//! At a kind of record that no manifest has it would look for ever. So what no power failure leaves behind is refused
//! before RocksDB sees it; the rest is left to RocksDB, and so is a manifest that is not there.
//!
//! A manifest as RocksDB 11 writes it: blocks of 32 KiB, of records none of which crosses a block's end; what is too
//! short there for a head is left out. A record: CRC-32C of kind and content, masked (u32, little endian), length of the
//! content (u16, little endian), kind (1: whole; 2, 3, 4: first, middle and last part), content.

use super::rocks::CURRENT;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Bytes of a block.
const BLOCK_BYTES: usize = 32 * 1024;
/// Bytes of a record before its content.
const HEAD_BYTES: usize = 4 + 2 + 1;
/// Kinds of records.
const KINDS: RangeInclusive<u8> = 1..=4;

/// The manifest that `CURRENT` of a folder names, if it names one.
pub(super) fn manifest_of(folder: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(folder.join(CURRENT)).ok()?;
    let name = text.strip_suffix('\n')?;
    let number = name.strip_prefix("MANIFEST-")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| folder.join(name))
}

/// Refuses a manifest that is damaged where RocksDB might not notice.
pub(super) fn refuse_damaged(folder: &Path) -> Result<(), String> {
    let Some(manifest) = manifest_of(folder) else { return Ok(()) };
    let failed = |error: io::Error| format!("read {}: {error}", manifest.display());
    let mut file = match File::open(&manifest) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.map_err(failed)?,
    };
    let (mut block, mut begin) = (Vec::with_capacity(BLOCK_BYTES), 0);
    let mut zeros_from = None;
    loop {
        block.clear();
        file.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block).map_err(failed)?;
        let damaged = |at: usize| Err(format!("{}: damaged at byte {at}", manifest.display()));
        match (zeros_from, damaged_at(&block)) {
            // Up to the end, over the ends of blocks: what was written last, of which nothing has come to the disk.
            (Some(_), _) if is_zero(&block, 0) => {}
            (Some(at), _) => return damaged(at),
            (None, Some(at)) if is_zero(&block, at) => zeros_from = Some(begin + at),
            (None, Some(at)) => return damaged(begin + at),
            (None, None) => {}
        }
        if block.len() < BLOCK_BYTES {
            return Ok(());
        }
        begin += block.len();
    }
}

fn is_zero(block: &[u8], from: usize) -> bool {
    block.iter().skip(from).all(|byte| *byte == 0)
}

/// Where a block is damaged as no power failure leaves it. Only the last one, which is shorter, can have a torn end.
pub(super) fn damaged_at(block: &[u8]) -> Option<usize> {
    let at = broken_at(block, 0)?;
    (block.len() == BLOCK_BYTES || !can_be_torn(block, at)).then_some(at)
}

/// Where the first record is that is not whole, from this place on; `None`: all are.
fn broken_at(block: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(rest) = block.get(at..) {
        if rest.is_empty() || at + HEAD_BYTES > BLOCK_BYTES {
            return None;
        }
        match whole_record(rest) {
            Some(bytes) => at += bytes,
            None => return Some(at),
        }
    }
    None
}

/// Whether a power failure can have left a record so that was being written: of its bytes some are missing or still 0, and
/// nothing is behind it.
fn can_be_torn(block: &[u8], at: usize) -> bool {
    let rest = block.get(at..).unwrap_or_default();
    let Some((head, behind)) = Head::read(rest) else { return true };
    let is_kind = head.kind == 0 || KINDS.contains(&head.kind);
    let is_followed = || {
        let mut places = at + 1..block.len();
        places.any(|place| {
            block.get(place..).and_then(whole_record).is_some() && broken_at(block, place).is_none()
        })
    };
    is_kind && !is_whole_by_another_head(head.checksum, behind) && !is_followed()
}

/// Whether all of a record is there, and its length or kind is what rotted.
fn is_whole_by_another_head(checksum: u32, behind: &[u8]) -> bool {
    let mut kinds = KINDS;
    kinds.any(|kind| {
        let mut crc = crc_with(u32::MAX, kind);
        behind.iter().any(|byte| {
            crc = crc_with(crc, *byte);
            masked(crc) == checksum
        })
    })
}

/// What a record begins with.
struct Head {
    checksum: u32,
    length: usize,
    kind: u8,
}

impl Head {
    /// And what is behind it.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (checksum, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (kind, rest) = rest.split_first()?;
        let (checksum, length) = (u32::from_le_bytes(*checksum), u16::from_le_bytes(*length));
        Some((Self { checksum, length: usize::from(length), kind: *kind }, rest))
    }
}

/// Bytes of the whole record that begins here.
fn whole_record(bytes: &[u8]) -> Option<usize> {
    let (head, behind) = Head::read(bytes)?;
    let content = behind.get(..head.length)?;
    let is_whole = KINDS.contains(&head.kind) && checksum(head.kind, content) == head.checksum;
    is_whole.then_some(HEAD_BYTES + content.len())
}

fn checksum(kind: u8, content: &[u8]) -> u32 {
    masked(content.iter().fold(crc_with(u32::MAX, kind), |crc, byte| crc_with(crc, *byte)))
}

/// CRC-32C with another byte, bit by bit: 100 MB a second is enough for a manifest.
fn crc_with(crc: u32, byte: u8) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc))
}

/// As RocksDB stores it, so that a checksum of bytes that hold checksums is no worse than others.
fn masked(crc: u32) -> u32 {
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("it fits a block");
        let mut bytes = checksum(kind, content).to_le_bytes().to_vec();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of RFC 3720's polynomial.
        assert_eq!(!b"123456789".iter().fold(u32::MAX, |crc, byte| crc_with(crc, *byte)), 0xe306_9283);
    }

    #[test]
    fn a_torn_end_is_left_and_what_cannot_be_one_is_refused() {
        let (first, last) = (record(1, b"the tables of yesterday"), record(1, b"those of today"));
        let whole = [first.clone(), last.clone()].concat();
        assert_eq!(damaged_at(&whole), None);
        for end in first.len()..whole.len() {
            let torn = whole.iter().copied().take(end).collect::<Vec<u8>>();
            assert_eq!(damaged_at(&torn), None, "torn at byte {end}");
            let zeros = torn.iter().copied().chain([0; 9]).collect::<Vec<u8>>();
            assert_eq!(damaged_at(&zeros), None, "torn at byte {end}, with what was not written yet");
        }
        // Zeros in place of the first one: the last is whole.
        let hole = [vec![0; first.len()], last].concat();
        assert_eq!(damaged_at(&hole), Some(0));
    }

    #[test]
    fn only_the_last_block_has_a_torn_end() {
        let filling = record(1, &[7; BLOCK_BYTES - 2 * HEAD_BYTES - 3]);
        // Too short for a head and content, so a record without content; then three bytes are left out.
        let block = [filling.clone(), record(1, b""), vec![0; 3]].concat();
        assert_eq!(block.len(), BLOCK_BYTES);
        assert_eq!(damaged_at(&block), None);
        let broken = [filling.clone(), vec![0; HEAD_BYTES + 3]].concat();
        assert_eq!(damaged_at(&broken), Some(filling.len()));
    }

    #[test]
    fn zeros_up_to_the_end_are_a_torn_end_over_blocks_and_nothing_stands_behind_them() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(CURRENT), "MANIFEST-000001\n").expect("it writes");
        let filling = record(1, &[7; BLOCK_BYTES - 2 * HEAD_BYTES - 3]);
        let rest = vec![0; HEAD_BYTES + 3];
        let refused = |behind: &[u8]| {
            let bytes = [&filling[..], &rest, behind].concat();
            std::fs::write(folder.path().join("MANIFEST-000001"), bytes).expect("it writes");
            refuse_damaged(folder.path()).err()
        };
        for zeros in [0, 1, 100, 2 * BLOCK_BYTES + 5] {
            assert_eq!(refused(&vec![0; zeros]), None, "{zeros} bytes");
        }
        let told = refused(&record(1, b"more")).expect("what is lost was not the last");
        assert!(told.contains("MANIFEST-000001") && told.contains(&filling.len().to_string()), "{told}");
    }
}
