//! A node's folder from the backups of a fleet that is lost: offline, into an empty folder. The new fleet may have other
//! nodes, and another number of copies; the number of shards stays.

use super::Progress;
use super::files::{Pace, named};
use super::folder::{Backup, NodeFolder};
use super::manifest::Manifest;
use super::open::open;
use super::plan::Plan;
use super::verify::{VerifyReport, check_files};
use crate::config::{Beginning, StorageConfig};
use crate::disk::Disk;
use crate::domain::Restored;
use crate::engine::{RocksOptions, RocksStore, Store, View};
use crate::placement::ShardMap;
use crate::replication::Log;
use crate::worker::{DataFolder, LOCK, Owner};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;
use wire_protocol::ids::ShardId;

/// How long another node has to answer, if it runs.
const OTHER_NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoreReport {
    /// Tells what was restored: all nodes of a fleet must name the same.
    pub mark: String,
    /// The restored node.
    pub node_id: u32,
    /// Its shards, each with the node and the number of the backup that it is from.
    pub shards: Vec<(u32, u32, u64)>,
    /// Rows taken over.
    pub rows: u64,
}

impl RestoreReport {
    /// For a person.
    pub fn to_text(&self) -> String {
        let mut text =
            format!("node {} has {} rows of {} shards:\n", self.node_id, self.rows, self.shards.len());
        for (shard, node, backup) in &self.shards {
            text.push_str(&format!("  shard {shard} from backup {backup} of node {node}\n"));
        }
        text.push_str(&format!(
            "restored as {}: every node of this fleet must say the same before the first one is started\n",
            self.mark
        ));
        text
    }
}

/// Makes the node's folder. After an error the folder is no whole one, and no node starts on it.
pub fn restore(from: &Path, config: &StorageConfig, progress: Progress<'_>) -> Result<RestoreReport, String> {
    let config = &StorageConfig { beginning: Beginning::NewFleet, ..config.clone() };
    let map = ShardMap::new(config, 1).map_err(|error| error.to_string())?;
    refuse_used_folder(&config.data_dir)?;
    refuse_living_fleet(&map)?;
    let nodes = NodeFolder::all(&Disk::Real, from)?;
    let backups: Vec<Backup> =
        nodes.iter().map(|(node_id, folder)| folder.newest(*node_id)).collect::<Result<_, _>>()?;
    let manifests: Vec<&Manifest> = backups.iter().map(|backup| &backup.manifest).collect();
    let plan = Plan::of(&manifests, map.first_copies())?;
    if plan.chosen.len() != config.shard_count as usize {
        let (found, wanted) = (plan.chosen.len(), config.shard_count);
        return Err(format!(
            "{}: backups of {found} shards, the configuration says {wanted}",
            from.display()
        ));
    }
    let used: BTreeSet<usize> = plan.chosen.iter().copied().collect();
    check_used(&backups, &used, progress)?;

    let restoring = Restoring { disk: Disk::Real, config, map: &map, plan: &plan, manifests: &manifests };
    let folder = restoring.open()?;
    let scratch = config.data_dir.join("restoring");
    let views: BTreeMap<usize, Box<dyn View>> = used
        .iter()
        .map(|place| Ok((*place, open(&backups[*place], &scratch.join(place.to_string()))?)))
        .collect::<Result<_, String>>()?;
    let sources: Vec<&dyn View> = plan.chosen.iter().map(|place| &*views[place]).collect();
    let options = RocksOptions::with_memory(config.shard_count, config.memory);
    let store = RocksStore::open(&folder.rows(), &options).map_err(|error| error.to_string())?;
    let rows = restoring.fill(&folder, &store, sources, progress)?;
    drop(views);
    fs::remove_dir_all(&scratch).map_err(|error| named(&scratch, &error))?;
    // Last: a folder without it is refused.
    folder.claim().map_err(|error| error.to_string())?;
    let shard_from = |shard: &ShardId| {
        let manifest = manifests[plan.chosen[shard.0 as usize]];
        (shard.0, manifest.node_id, manifest.number)
    };
    Ok(RestoreReport {
        mark: plan.mark.clone(),
        node_id: config.node_id,
        shards: restoring.own().iter().map(shard_from).collect(),
        rows,
    })
}

/// A node's folder that is being made.
pub(super) struct Restoring<'a> {
    pub disk: Disk,
    pub config: &'a StorageConfig,
    pub map: &'a ShardMap,
    pub plan: &'a Plan,
    pub manifests: &'a [&'a Manifest],
}

impl Restoring<'_> {
    /// Shards that the node is to hold.
    pub fn own(&self) -> Vec<ShardId> {
        let own = self.config.node_id;
        let is_here = |shard: &ShardId| self.map.first_replicas(*shard).set.voters.contains(&own);
        self.map.own_shards().into_iter().filter(is_here).collect()
    }

    /// Opens the folder, which is nobody's yet.
    pub fn open(&self) -> Result<DataFolder, String> {
        let owner = Owner::of(self.config, self.map);
        DataFolder::open(self.disk.clone(), &self.config.data_dir, owner, Beginning::NewFleet)
            .map_err(|error| error.to_string())
    }

    /// Fills it with rows and logs, all of them durable on return; gives the number of rows. `sources`: a view for each
    /// shard of the fleet.
    pub fn fill(
        &self,
        folder: &DataFolder,
        store: &dyn Store,
        sources: Vec<&dyn View>,
        progress: Progress<'_>,
    ) -> Result<u64, String> {
        let (own, plan) = (self.own(), self.plan);
        // First: no node starts where a log is that nobody has claimed, so none does on a part of the rows.
        let log = Log::open_on(self.disk.clone(), &folder.log(), &self.config.log)
            .map_err(|error| error.to_string())?;
        let mut restored = Restored::new(store, sources, &own, (plan.index, plan.term));
        let rows = self.take(&mut restored, &own, progress)?;
        progress("all of it becomes durable".to_owned())?;
        restored.finish().map_err(|error| error.to_string())?;
        log.begin_at(&own, plan.index, plan.term).map_err(|error| error.to_string())?;
        Ok(rows)
    }

    fn take(
        &self,
        restored: &mut Restored<'_>,
        own: &[ShardId],
        progress: Progress<'_>,
    ) -> Result<u64, String> {
        let mut rows = 0;
        for shard in own {
            progress(format!("shard {shard}: its rows"))?;
            let point = self.manifests[self.plan.chosen[shard.0 as usize]].point(shard.0);
            let time_ms = point.map_or(0, |point| point.time_ms);
            rows += restored.take(*shard, time_ms).map_err(|error| error.to_string())?;
        }
        for shard in (0..self.plan.chosen.len() as u32).map(ShardId) {
            progress(format!("shard {shard}: feeds of its conversations' members, names of its users"))?;
            restored.tell_feeds(shard).map_err(|error| error.to_string())?;
            restored.give_names(shard).map_err(|error| error.to_string())?;
        }
        Ok(rows)
    }
}

fn refuse_used_folder(data_dir: &Path) -> Result<(), String> {
    match fs::read_dir(data_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(named(data_dir, &error)),
        Ok(mut entries) => {
            // A start that was refused has left its lock.
            let is_used = entries.any(|entry| entry.map_or(true, |entry| entry.file_name() != LOCK));
            match is_used {
                false => Ok(()),
                true => Err(format!(
                    "{}: is not empty: move away what is in it; a node is restored into an empty folder",
                    data_dir.display()
                )),
            }
        }
    }
}

/// A restored copy among living ones would lead them, and have them throw away what they acknowledged since the backup.
fn refuse_living_fleet(map: &ShardMap) -> Result<(), String> {
    for other in map.others() {
        if TcpStream::connect_timeout(&other.address, OTHER_NODE_TIMEOUT).is_ok() {
            return Err(format!(
                "node {} runs at {}: a whole fleet is restored, and none of it may run meanwhile. A single node that was \
                 lost is not to be restored: the others have newer copies",
                other.id, other.address
            ));
        }
    }
    Ok(())
}

fn check_used(backups: &[Backup], used: &BTreeSet<usize>, progress: Progress<'_>) -> Result<(), String> {
    let mut pace = Pace::new(None, progress);
    for &place in used {
        check_files(&backups[place], &mut BTreeMap::new(), &mut pace, &mut VerifyReport::default())?;
    }
    Ok(())
}
