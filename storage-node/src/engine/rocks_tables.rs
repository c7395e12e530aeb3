//! Finding the table that RocksDB cannot open, where it does not say which.
//!
//! RocksDB names the file when a checksum does not fit. But of each table it first reads what the table says of itself, its
//! properties, before it compares their checksum, because they may be rewritten later; what it cannot make sense of there
//! it complains of without a name. So when an opening fails so, the properties of all tables are looked at here. Nothing is
//! blamed but what does not fit its checksum; a table that cannot be read, or is of another format, is left out.
//!
//! A table as RocksDB 11 writes it in format 6: blocks, the last of which lists some of the others by name, then a footer.
//! Behind each block stand its compression (u8) and a checksum of both (u32): of XXH3-64 the lower half, with the last byte
//! mixed in by a prime, plus what tells tables and places apart. A footer: kind of checksum (u8), four bytes of magic; its
//! checksum, the base of all checksums, bytes of the list (u32 each); 24 bytes that are not used; format (u32), magic (u64).
//! All numbers are little endian; those in the list have seven bits a byte, the lowest first.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a footer.
const FOOTER_BYTES: usize = 1 + 4 + 3 * 4 + 24 + 4 + 8;
/// Bytes behind the content of a block.
const TRAILER_BYTES: u64 = 1 + 4;
/// The kind of checksum that is known here.
const XXH3: u8 = 4;
/// The format that is known here.
const FORMAT: u32 = 6;
/// What every table ends with.
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
/// The name of the properties in the list.
const PROPERTIES: &[u8] = b"rocksdb.properties";

/// Tables in a folder that are damaged in what they say of themselves.
pub(super) fn damaged_tables(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let files = files.filter_map(|file| Some(file.ok()?.path()));
    let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let is_to_blame = |path: &PathBuf| matches!(is_damaged(path), Ok(true));
    let mut damaged: Vec<PathBuf> = files.filter(is_table).filter(is_to_blame).collect();
    damaged.sort();
    damaged
}

fn is_damaged(path: &Path) -> io::Result<bool> {
    let Some(table) = Table::open(path)? else { return Ok(false) };
    let Some(list) = table.list()? else { return Ok(true) };
    match properties_in(&list) {
        Some((at, bytes)) => Ok(table.block(at, bytes)?.is_none()),
        None => Ok(false),
    }
}

struct Table {
    file: File,
    /// Where the footer begins.
    end: u64,
    base: u32,
    list_bytes: u64,
}

impl Table {
    /// `None`: it is of another format, or no table.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let Some(end) = file.metadata()?.len().checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, end)?;
        let footer = read_footer(&footer);
        Ok(footer.map(|(base, list_bytes)| Self { file, end, base, list_bytes: u64::from(list_bytes) }))
    }

    /// The list, which stands right before the footer. `None`: it is damaged.
    fn list(&self) -> io::Result<Option<Vec<u8>>> {
        match self.end.checked_sub(self.list_bytes + TRAILER_BYTES) {
            Some(at) => self.block(at, self.list_bytes),
            None => Ok(None),
        }
    }

    /// The content of a block. `None`: it is damaged.
    fn block(&self, at: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let behind = at.checked_add(bytes).and_then(|behind| behind.checked_add(TRAILER_BYTES));
        if behind.is_none_or(|behind| behind > self.end) {
            return Ok(None);
        }
        let mut content = vec![0; (bytes + TRAILER_BYTES) as usize];
        self.file.read_exact_at(&mut content, at)?;
        let stored = content.split_off(bytes as usize + 1);
        let stored = stored.first_chunk().map(|stored| u32::from_le_bytes(*stored));
        let is_whole = stored == Some(checksum(&content, self.base, at));
        content.pop();
        Ok(is_whole.then_some(content))
    }
}

/// The base of all checksums, and bytes of the list. `None`: of another format.
fn read_footer(bytes: &[u8]) -> Option<(u32, u32)> {
    let (kind, rest) = bytes.split_first()?;
    let (_magic_and_checksum, rest) = rest.split_first_chunk::<8>()?;
    let (base, rest) = rest.split_first_chunk::<4>()?;
    let (list_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (_unused, rest) = rest.split_first_chunk::<24>()?;
    let (format, rest) = rest.split_first_chunk::<4>()?;
    let magic = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    let is_known = *kind == XXH3 && u32::from_le_bytes(*format) == FORMAT && magic == MAGIC;
    is_known.then_some((u32::from_le_bytes(*base), u32::from_le_bytes(*list_bytes)))
}

/// Where the properties begin, and their bytes: two numbers behind their name.
fn properties_in(list: &[u8]) -> Option<(u64, u64)> {
    let place = list.windows(PROPERTIES.len()).position(|name| name == PROPERTIES)?;
    let mut behind = list.get(place + PROPERTIES.len()..)?.iter();
    Some((number(&mut behind)?, number(&mut behind)?))
}

/// All bytes of a number but for the last one have the highest bit set.
fn number<'a>(bytes: &mut impl Iterator<Item = &'a u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Of what stands at this place of a table with this base.
fn checksum(bytes: &[u8], base: u32, at: u64) -> u32 {
    let Some((last, rest)) = bytes.split_last() else { return 0 };
    let own = xxh3_64(rest) as u32 ^ u32::from(*last).wrapping_mul(0x6b90_83d9);
    let place = (at as u32).wrapping_add((at >> u32::BITS) as u32);
    own.wrapping_add(base ^ place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer that RocksDB wrote.
    const FOOTER: [u8; FOOTER_BYTES] = [
        0x04, 0x3e, 0x00, 0x7a, 0x00, 0x1f, 0x3d, 0xb0, 0x64, 0x3f, 0x52, 0xc6, 0x73, 0x65, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0xf7, 0xcf, 0xf4, 0x85, 0xb7, 0x41,
        0xe2, 0x88,
    ];
    /// Where it stood, and its base of all checksums.
    const FOOTER_AT: u64 = 1_370;
    const BASE: u32 = 0x73c6_523f;
    /// Bytes of what stands before the properties in a table of these tests.
    const ROWS: &[u8] = b"rows";

    #[test]
    fn the_checksum_is_rocksdbs() {
        assert_eq!(read_footer(&FOOTER), Some((BASE, 101)));
        // A footer's own is taken with zeros in its place.
        let mut without = FOOTER;
        without.iter_mut().skip(5).take(4).for_each(|byte| *byte = 0);
        assert_eq!(checksum(&without, BASE, FOOTER_AT), 0x64b0_3d1f);
    }

    #[test]
    fn numbers_end_where_they_say() {
        assert_eq!(number(&mut [0x85, 0x01, 0x07].iter()), Some(133));
        assert_eq!(number(&mut [0x85].iter()), None);
        assert_eq!(number(&mut [0x80; 20].iter()), None);
    }

    fn block(content: &[u8], at: usize) -> Vec<u8> {
        let bytes = [content, &[0]].concat();
        let checksum = checksum(&bytes, BASE, at as u64).to_le_bytes();
        [&bytes[..], &checksum].concat()
    }

    fn table(content: &[u8]) -> Vec<u8> {
        let properties = block(content, ROWS.len());
        // Nothing is shared with the name before; 18 bytes of name, and two of what is behind.
        let list = [&[0, 18, 2][..], PROPERTIES, &[ROWS.len() as u8, content.len() as u8]].concat();
        let place_and_bytes = FOOTER.iter().enumerate();
        let footer = place_and_bytes.map(|(place, byte)| if place == 13 { list.len() as u8 } else { *byte });
        let footer: Vec<u8> = footer.collect();
        [ROWS, &properties, &block(&list, ROWS.len() + properties.len()), &footer].concat()
    }

    #[test]
    fn every_bit_of_what_a_table_says_of_itself_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("000012.sst");
        let whole = table(b"what there is to say of these rows");
        for other in ["000013.sst", "MANIFEST-000001"] {
            std::fs::write(folder.path().join(other), "no table").expect("it writes");
        }
        std::fs::write(&path, &whole).expect("it writes");
        assert!(damaged_tables(folder.path()).is_empty());
        for (at, bit) in (0..whole.len() - FOOTER_BYTES).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = whole.clone();
            flipped.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            std::fs::write(&path, &flipped).expect("it writes");
            let expected = if at < ROWS.len() { Vec::new() } else { vec![path.clone()] };
            assert_eq!(damaged_tables(folder.path()), expected, "byte {at}, bit {bit}");
        }
    }
}
