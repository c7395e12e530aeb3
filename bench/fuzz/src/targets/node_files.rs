//! What a storage node finds in its own folder at a start, and what it must never take for its own: whose folder it is, whom
//! a shard's replica voted for, and of which format the rows are.

use crate::Target;
use crate::input::Input;
use std::path::Path;
use std::sync::OnceLock;
use storage_node::engine::{MemoryStore, Store, WriteBatch, format, keys};
use storage_node::replication::read_vote;
use storage_node::worker::read_node_file;
use storage_node::{NodeConfig, StorageConfig};

/// The node whose folder it is, and shards of its fleet.
const NODE: u32 = 2;
const SHARDS: u32 = 4;
/// What it writes if it is alone.
const OWN_FILE: &str =
    "format = 1\nnode_id = 2\nshard_count = 4\nshards = [0, 1, 2, 3]\n# checksum 04481523\n";
/// What begins the line that releases before this one do not write.
const CHECKSUM: &str = "# checksum ";
/// What a vote begins with, and its bytes: then term and node follow, of eight bytes each.
const VOTE_VERSION: u8 = 1;
const VOTE_BYTES: usize = 1 + 8 + 8;

/// See `holds`.
pub const NODE_FILE: Target = Target {
    name: "node-file",
    holds: "a `node.toml` is taken if it is byte by byte what a node writes, or what the releases before it wrote, which is \
            the same without the checksum, and else refused by its path; a node that is alone takes its own alone",
    run: node_file,
};
/// See `holds`.
pub const VOTES: Target = Target {
    name: "votes",
    holds: "a vote is taken if it has its version and length, and is written again as it was",
    run: votes,
};
/// See `holds`.
pub const FORMAT_ROW: Target = Target {
    name: "format-row",
    holds: "rows are taken if their format row is the one that is written, and else refused by their folder",
    run: format_row,
};

/// A node alone, and one of three with copies of each shard.
fn configs() -> &'static [StorageConfig; 2] {
    static CONFIGS: OnceLock<[StorageConfig; 2]> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let alone = StorageConfig {
            data_dir: "/data".into(),
            node_id: NODE,
            shard_count: SHARDS,
            ..StorageConfig::default()
        };
        let node = |id| {
            let address = ([127, 0, 0, 1], 7_000).into();
            NodeConfig { id, address, shards: Vec::new(), zone: String::new() }
        };
        let one_of_three = StorageConfig { nodes: (1..=3).map(node).collect(), replicas: 3, ..alone.clone() };
        [alone, one_of_three]
    })
}

fn node_file(data: &[u8]) {
    let mut input = Input::new(data);
    let [alone, one_of_three] = configs();
    let is_alone = input.below(2) == 0;
    let config = if is_alone { alone } else { one_of_three };
    let text = String::from_utf8_lossy(input.rest());
    match read_node_file(config, &text) {
        Ok(own) => {
            assert!(!is_alone || own == OWN_FILE, "{text}");
            let older = own.split_once(CHECKSUM).map(|(content, _)| content);
            assert!(text == own || older == Some(&*text), "{text}");
            assert_eq!(read_node_file(config, &own).as_ref(), Ok(&own), "{text}");
        }
        Err(refusal) => assert!(refusal.starts_with("/data/node.toml: "), "{refusal}"),
    }
}

fn votes(data: &[u8]) {
    let is_whole = data.len() == VOTE_BYTES && data.first() == Some(&VOTE_VERSION);
    assert_eq!(read_vote(data).as_deref(), is_whole.then_some(data));
}

fn format_row(data: &[u8]) {
    let mut input = Input::new(data);
    let shards = 1 + input.below(256) as u32;
    let row = input.rest();
    let own = [format::FORMAT_VERSION.to_be_bytes(), shards.to_be_bytes()].concat();
    let store = MemoryStore::new();
    let mut batch = WriteBatch::new();
    batch.put(keys::format(), row.to_vec());
    store.write(batch).expect("memory does not fail");
    match format::check_shards(&store, Path::new("/data/rows"), shards) {
        Ok(()) => assert_eq!(row, own),
        Err(error) => {
            assert_ne!(row, own);
            assert!(error.to_string().starts_with("cannot use the store in /data/rows: it"), "{error}");
        }
    }
}
