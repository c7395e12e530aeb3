//! What a backup says of itself: a line of JSON, and the SHA-256 of that line.

use super::MANIFEST_BYTES_MAX;
use crate::disk::Disk;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::Path;

/// Version of manifests and of what they describe.
const BACKUP_FORMAT: u32 = 1;

/// What one backup of one node holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this description.
    pub format: u32,
    /// Counts the node's backups.
    pub number: u64,
    /// Whose.
    pub node_id: u32,
    /// Shards of the whole fleet.
    pub shard_count: u32,
    /// When it was begun, in milliseconds since 1970.
    pub made_ms: u64,
    /// All nodes of the fleet then, this one among them.
    pub nodes: Vec<u32>,
    /// How far each shard of the node is, ascending.
    pub shards: Vec<ShardPoint>,
    /// Everything it consists of.
    pub files: Vec<BackupFile>,
}

/// How far a shard is in a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPoint {
    /// Which.
    pub shard: u32,
    /// Its rows hold everything up to this entry of its log.
    pub applied: u64,
    /// Time of that entry.
    pub time_ms: u64,
    /// No election before the backup was of a higher term.
    pub term: u64,
    /// Nodes that held copies, ascending.
    pub copies: Vec<u32>,
}

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// As the store calls it.
    pub name: String,
    /// Where it is, from the node's folder on.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The version that this program writes and reads.
    pub fn format() -> u32 {
        BACKUP_FORMAT
    }

    /// As it stands in its file.
    pub fn to_text(&self) -> String {
        let line = serde_json::to_string(self).expect("a manifest has text keys alone");
        let sum = sha256_hex(line.as_bytes());
        format!("{line}\n{sum}\n")
    }

    /// Reads and checks a manifest's file. An error names it.
    pub fn read(file: &Path) -> Result<Self, String> {
        Self::read_on(&Disk::Real, file)
    }

    /// The same, of a file on this disk.
    pub(super) fn read_on(disk: &Disk, file: &Path) -> Result<Self, String> {
        let named = |detail: String| format!("{}: {detail}", file.display());
        let text = read_text(disk, file).map_err(|error| named(error.to_string()))?;
        Self::parse(&text).map_err(named)
    }

    /// Reads and checks what [`Self::to_text`] gave. An error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let damaged = || "damaged: it does not have the checksum that it names".to_owned();
        let (line, sum) =
            text.strip_suffix('\n').and_then(|text| text.split_once('\n')).ok_or_else(damaged)?;
        if sha256_hex(line.as_bytes()) != sum {
            return Err(damaged());
        }
        Self::from_line(line)
    }

    /// Reads the line of JSON alone, whose checksum is right. An error says what is wrong with it.
    pub fn from_line(line: &str) -> Result<Self, String> {
        // The version before all else: the rest may mean something else in another one.
        let format = serde_json::from_str::<Format>(line).map_err(|error| error.to_string())?.format;
        if format != BACKUP_FORMAT {
            return Err(format!("a backup of format {format}, this program reads {BACKUP_FORMAT}"));
        }
        serde_json::from_str(line).map_err(|error| error.to_string())
    }

    /// How far a shard is, if it is in this backup.
    pub fn point(&self, shard: u32) -> Option<&ShardPoint> {
        self.shards.iter().find(|point| point.shard == shard)
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn read_text(disk: &Disk, file: &Path) -> io::Result<String> {
    let mut text = String::new();
    disk.open(file)?.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// A SHA-256 as manifests and names of files have it.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let file =
            BackupFile { name: "1.sst".into(), path: "tables/a.sst".into(), bytes: 9, sha256: "00".into() };
        let point = ShardPoint { shard: 3, applied: 9, time_ms: 8, term: 7, copies: vec![1, 2, 3] };
        Manifest {
            format: BACKUP_FORMAT,
            number: 4,
            node_id: 2,
            shard_count: 6,
            made_ms: 1,
            nodes: vec![1, 2, 3],
            shards: vec![point],
            files: vec![file],
        }
    }

    #[test]
    fn a_manifest_reads_back_and_no_byte_of_it_may_change() {
        let text = manifest().to_text();
        assert_eq!(Manifest::parse(&text), Ok(manifest()));
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(Manifest::parse(&changed).is_err(), "byte {place}");
            assert!(Manifest::parse(&text[..place]).is_err(), "{place} bytes");
        }
    }

    #[test]
    fn another_version_is_named() {
        let text = Manifest { format: BACKUP_FORMAT + 1, ..manifest() }.to_text();
        let error = Manifest::parse(&text).expect_err("another version");
        assert_eq!(error, "a backup of format 2, this program reads 1");
    }
}
