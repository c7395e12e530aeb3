//! The disk of a node that is restored stops at every step, in every way: the next start finds everything, or nothing at
//! all, or is refused.

use super::plan::Plan;
use super::restore::Restoring;
use super::{Manifest, ShardPoint};
use crate::config::{LogConfig, StorageConfig};
use crate::disk::Disk;
use crate::engine::{MemoryStore, Store, View, WriteBatch, keys};
use crate::placement::ShardMap;
use crate::sim::{Crash, Doing, Random, SimDisk, SimStore, SyncKind, real_folder};
use crate::worker::open_node;
use bytes::Bytes;
use std::iter;
use std::sync::Arc;
use tempfile::TempDir;
use wire_protocol::ids::{ConversationId, Seq, ShardId};

pub(super) const SHARDS: u32 = 4;
/// Messages of the first shard: more than are written at once, so that a part of a shard can be on the disk.
const MANY: u64 = 5_000;
/// Messages of each of the others.
const FEW: u64 = 20;

/// The fleet that is lost: the rows of each shard, and what its only backup says.
pub(super) struct Lost {
    pub shards: Vec<MemoryStore>,
    pub manifest: Manifest,
}

impl Lost {
    fn new() -> Self {
        let point = |shard: u32| ShardPoint {
            shard,
            applied: 90 + u64::from(shard),
            time_ms: 7,
            term: 3,
            copies: vec![1],
        };
        let manifest = Manifest {
            format: Manifest::format(),
            number: 1,
            node_id: 1,
            shard_count: SHARDS,
            made_ms: 5,
            nodes: vec![1],
            shards: (0..SHARDS).map(point).collect(),
            files: Vec::new(),
        };
        Self { shards: (0..SHARDS).map(messages_of).collect(), manifest }
    }
}

/// One conversation of the shard.
pub(super) fn conversation_of(shard: u32) -> ConversationId {
    let mut ids = (0..=u8::MAX).map(|number| ConversationId([number; 16]));
    ids.find(|id| id.slot().shard(SHARDS) == ShardId(shard)).expect("each shard has some")
}

/// Messages of one conversation of the shard.
fn messages_of(shard: u32) -> MemoryStore {
    let id = conversation_of(shard);
    let mut batch = WriteBatch::new();
    for seq in 1..=if shard == 0 { MANY } else { FEW } {
        batch.put(keys::message(id, Seq(seq)), vec![shard as u8; 30]);
    }
    let store = MemoryStore::new();
    store.write(batch).expect("memory");
    store
}

/// What a node has of each shard: its rows, and the span of its log.
#[derive(PartialEq, Debug)]
pub(super) struct Held {
    pub rows: Vec<Vec<(Vec<u8>, Bytes)>>,
    spans: Vec<Option<(u64, u64)>>,
}

impl Held {
    fn is_nothing(&self) -> bool {
        self.rows.iter().all(Vec::is_empty) && self.spans.iter().all(Option::is_none)
    }
}

/// The folder that a node is restored into.
pub(super) struct Folder {
    disk: Arc<SimDisk>,
    store: SimStore,
    config: StorageConfig,
    _root: TempDir,
}

impl Folder {
    /// Empty. Its name is durable: without it there would be no rows, either, which the simulated store does not know.
    pub fn new() -> Self {
        let root = real_folder();
        let disk = SimDisk::new(root.path());
        let data_dir = root.path().join("data");
        disk.create_folder(&data_dir).expect("it is made");
        disk.sync_folder(root.path()).expect("it syncs");
        let log = LogConfig { file_bytes: 64 << 10, keep_bytes: 128 << 10, prefill: false };
        let config = StorageConfig { data_dir, shard_count: SHARDS, log, ..StorageConfig::default() };
        Self { store: SimStore::new(&disk), disk, config, _root: root }
    }

    fn on(&self) -> Disk {
        Disk::Simulated(Arc::clone(&self.disk))
    }

    pub fn restore(&self, lost: &Lost) -> Result<(), String> {
        let map = ShardMap::new(&self.config, 1).map_err(|error| error.to_string())?;
        let manifests = [&lost.manifest];
        let plan = Plan::of(&manifests, map.first_copies())?;
        let (config, disk) = (&self.config, self.on());
        let restoring = Restoring { disk, config, map: &map, plan: &plan, manifests: &manifests };
        self.disk.set_doing(Doing::Starting);
        let folder = restoring.open()?;
        let store = self.store.open(&folder.rows(), SHARDS).map_err(|error| error.to_string())?;
        self.disk.set_doing(Doing::Restoring);
        let sources = lost.shards.iter().map(|rows| rows as &dyn View).collect();
        restoring.fill(&folder, &*store, sources, &mut |_| Ok(()))?;
        folder.claim().map_err(|error| error.to_string())
    }

    /// What a start finds. An error: it is refused.
    pub fn start(&self) -> Result<Held, String> {
        self.disk.set_doing(Doing::Starting);
        let opened = open_node(&self.config, 1, &self.on(), |folder| self.store.open(folder, SHARDS));
        let (shared, _) = opened.map_err(|error| error.to_string())?;
        Ok(Held {
            rows: (0..SHARDS).map(|shard| self.store.rows_of(shard, SHARDS)).collect(),
            spans: (0..SHARDS).map(|shard| shared.log.span(ShardId(shard))).collect(),
        })
    }

    fn crash(&self, crash: Crash, seed: u64) {
        self.disk.stop();
        let mut random = Random::new(seed);
        self.disk.crash(crash, &mut random);
        self.store.crash(crash, &mut random);
    }
}

/// What a node has that was restored, with nothing in its way.
fn whole(lost: &Lost) -> Held {
    let folder = Folder::new();
    folder.restore(lost).expect("nothing stops it");
    let held = folder.start().expect("it is whole");
    let rows: Vec<usize> = held.rows.iter().map(Vec::len).collect();
    // Beside the messages how far the shard is applied, and how far it has heard of each.
    let beside = 1 + SHARDS as usize;
    assert_eq!(rows, [MANY, FEW, FEW, FEW].map(|messages| messages as usize + beside));
    assert!(held.spans.iter().all(|span| span.is_some_and(|(first, last)| first == last)));
    held
}

/// Restores a node until this step of its disk, and starts it. True: it was restored. `Err`: what is wrong then.
fn live(
    lost: &Lost,
    wanted: &Held,
    stop_after: Option<u64>,
    crash: Crash,
    skipped: &[SyncKind],
) -> Result<bool, String> {
    let folder = Folder::new();
    folder.disk.skip(skipped);
    folder.disk.stop_after(stop_after);
    let restored = folder.restore(lost);
    let is_restored = restored.is_ok();
    if is_restored == folder.disk.is_stopped() {
        return Err(format!("it fails for another reason, or for none: {restored:?}"));
    }
    folder.crash(crash, stop_after.unwrap_or(0) * 4 + crash as u64);
    match folder.start() {
        Ok(held) if held == *wanted => Ok(is_restored),
        Ok(held) if held.is_nothing() && !is_restored => Ok(false),
        Err(_) if !is_restored => Ok(false),
        Ok(held) => {
            let rows: Vec<usize> = held.rows.iter().map(Vec::len).collect();
            Err(format!("restored {is_restored}, {rows:?} rows, entries {:?}", held.spans))
        }
        Err(refused) => Err(format!("it was restored, and is refused: {refused}")),
    }
}

/// Restores that end at every step, in every way, until one ends in what is wrong. `Ok`: steps of a restore.
fn restores(lost: &Lost, wanted: &Held, skipped: &[SyncKind]) -> Result<u64, String> {
    let mut steps = 0;
    for stop_after in iter::once(None).chain((1..).map(Some)) {
        let mut is_over = true;
        for crash in Crash::ALL {
            let lived = live(lost, wanted, stop_after, crash, skipped);
            is_over &= lived.map_err(|wrong| format!("step {stop_after:?}, {crash:?}: {wrong}"))?;
        }
        match stop_after {
            Some(_) if is_over => break,
            Some(step) => steps = step,
            None => assert!(is_over, "nothing stops it"),
        }
    }
    Ok(steps)
}

#[test]
fn a_restored_node_is_whole_or_does_not_start_wherever_it_was_stopped() {
    let lost = Lost::new();
    let steps = restores(&lost, &whole(&lost), &[]).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(steps > 20, "{steps} steps");
}

#[test]
fn a_restore_needs_each_of_its_syncs() {
    let lost = Lost::new();
    let wanted = whole(&lost);
    for kind in [
        SyncKind::RestoredRows,
        SyncKind::RestoredLog,
        SyncKind::LogFolder,
        SyncKind::Identity,
        SyncKind::IdentityName,
    ] {
        match restores(&lost, &wanted, &[kind]) {
            Err(wrong) => println!("{kind:?}: needed: {wrong}"),
            Ok(steps) => panic!("{kind:?}: {steps} steps do without"),
        }
    }
}
