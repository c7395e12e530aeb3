//! Telling a torn end of a log file from damage before its end.
//!
//! The log engine drops everything behind the first batch that does not check, which is right for a write that a
//! power failure tore: nobody was told of it. It is wrong for a bit that rotted in the middle. The difference: each
//! write is synced before the next one begins ([`super::Log`]), so that only the last batch can be torn, and a whole
//! batch behind a broken one proves that the broken one had been whole, and was acknowledged.
//!
//! A batch in a file, as raft-engine 0.4 writes it: length and compression (u64, big endian: length << 8 | kind),
//! offset of the footer (u64), entries and their CRC, footer. The footer ends with its CRC (u32, little endian), which
//! is signed by the file's number, so that batches of an earlier use of a recycled file do not count.

/// What every log file begins with.
const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// Highest format of a log file that the engine reads. It makes files of the one below, too, out of one that a crash
/// left empty.
pub(super) const FORMAT_MAX: u64 = 2;

/// The format of a file that another program wrote. A torn head has none or 0: its bytes are written in their order or
/// are still 0, and only the last of the format is not.
pub(super) fn other_format(bytes: &[u8]) -> Option<u64> {
    let version = bytes.strip_prefix(MAGIC)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*version)).filter(|version| !(1..=FORMAT_MAX).contains(version))
}

/// Whether a file's head begins here.
pub(crate) fn is_head(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Bytes of a file's head: what it begins with, its format, and how its batches are aligned.
pub(crate) const HEAD_BYTES: usize = MAGIC.len() + 8 + 8;

/// First format whose head says how batches are aligned; before it, they follow at once.
const FORMAT_WITH_ALIGNMENT: u64 = 2;

/// How a file's head says that its batches are aligned. They never are here; the engine believes any number, and would
/// set aside as many bytes, up to what no machine has.
pub(super) fn alignment(head: &[u8]) -> u64 {
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let Some(rest) = head.strip_prefix(MAGIC) else { return 0 };
    if number(rest) != Some(FORMAT_WITH_ALIGNMENT) {
        return 0;
    }
    rest.get(8..).and_then(number).unwrap_or(0)
}

/// Bytes of length, compression and footer offset.
const BATCH_HEADER_BYTES: usize = 16;
/// Bytes of a CRC.
const CHECKSUM_BYTES: usize = 4;
/// Highest number of a compression.
const COMPRESSION_MAX: u64 = 1;

/// Where the first whole batch behind a break begins, if there is one. `bytes`: the file from the broken batch on.
/// `file_number`: from the file's name.
pub(crate) fn whole_batch_behind(bytes: &[u8], file_number: u64) -> Option<usize> {
    // Also within what the broken batch claims as its own: its length may be what rotted. A body made to look like a
    // batch of this very file, torn by a power failure, is then refused, too: a start too few, but nothing lost.
    (1..bytes.len()).find(|at| bytes.get(*at..).is_some_and(|rest| begins_with_batch(rest, file_number)))
}

fn begins_with_batch(bytes: &[u8], file_number: u64) -> bool {
    let Some(header) = Header::read(bytes) else { return false };
    let Some(footer) = bytes.get(header.footer..header.length) else { return false };
    let Some((content, checksum)) = footer.split_last_chunk::<CHECKSUM_BYTES>() else { return false };
    let signed = u32::from_le_bytes(*checksum);
    // The signature is the number's lower half.
    !content.is_empty() && crc32fast::hash(content) == signed ^ (file_number & u64::from(u32::MAX)) as u32
}

struct Header {
    length: usize,
    footer: usize,
}

impl Header {
    /// `None`: no batch begins like this.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let first = u64::from_be_bytes(*first);
        let footer = usize::try_from(u64::from_be_bytes(*rest.first_chunk::<8>()?)).ok()?;
        let length = usize::try_from(first >> 8).ok()?;
        let fits = first & 0xff <= COMPRESSION_MAX
            && footer >= BATCH_HEADER_BYTES
            && footer < length
            && length <= bytes.len();
        fits.then_some(Self { length, footer })
    }
}
