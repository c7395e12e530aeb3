//! Who was there when the fleet began. A node of a new fleet begins with copies of shards in an empty folder, which only a
//! node may do that never had another one: one that lost its folder has forgotten whom it voted for and what it
//! acknowledged. Nothing in an empty folder says which of both it is, so the other nodes do.
//!
//! ```text
//! folder drawn (founders.toml) -> every other first node asked -> their folders written down -> node.toml -> copies
//! ```
//!
//! Each folder has a number, drawn when it began and on disk before anybody is told. A node begins once it has been told the
//! number of each of the others, by one that has not begun yet, or by one that has and knows this node's folder. So whoever has
//! begun knows all others' folders before it votes or acknowledges anything, and as long as one of them is left nobody
//! begins again in another folder. The price is that all first nodes must be there when a fleet begins.

use super::data_folder::{DataFolder, LOST, Owner, read_whole, write_whole};
use super::folder_lock::FolderLock;
use super::node::StartError;
use super::sealed::{Seal, check_as_written, unreadable, unsealed};
use crate::config::{Beginning, StorageConfig};
use crate::disk::Disk;
use crate::placement::{OtherNode, ShardMap};
use crate::plant::{self, Plant};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use wire_protocol::internal::{LinkHello, LinkWelcome, link_hello};

/// Format of the file.
const FOUNDERS_FORMAT: u32 = 1;
/// The incarnation in a question's hello: no process that serves has it, and no link has a question's.
const FOUNDING: u64 = 0;

/// The folders with which a fleet began, as one of its first nodes wrote them down. A node that was none of them, and one
/// that began with a release before, know of nobody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Founders {
    own: u64,
    others: BTreeMap<u32, u64>,
    /// Of the first copies, as they were dealt out then; 0: it was not written down.
    first_copies: u32,
    /// There were votes and a log in this folder.
    has_begun: bool,
    /// Whether the file has a checksum.
    seal: Seal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    folder: u64,
    others: Vec<(u32, u64)>,
    #[serde(default)]
    first_copies: u32,
    has_begun: bool,
}

impl Founders {
    /// As the folder says.
    pub fn read(disk: &Disk, folder: &Path) -> Result<Self, StartError> {
        let file = file_in(folder);
        match read_whole(disk, &file)? {
            Some(text) => Self::from_text(&text).map_err(|detail| StartError::DataFolder { file, detail }),
            None => Ok(Self::default()),
        }
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let (content, seal) = unsealed(text)?;
        let written: Written =
            toml::from_str(content).map_err(|error| unreadable(seal, "who began", &error))?;
        let Written { format, folder, others, first_copies, has_begun } = written;
        if format != FOUNDERS_FORMAT {
            return Err(format!("format {format}, this program reads {FOUNDERS_FORMAT}"));
        }
        let others = others.into_iter().collect();
        let founders = Self { own: folder, others, first_copies, has_begun, seal };
        let own = founders.to_text();
        // As it was written before anybody wrote down how copies are dealt out.
        let is_without = first_copies == 0 && content == own.replace("first_copies = 0\n", "");
        if !is_without {
            check_as_written(content, &own)?;
        }
        Ok(founders)
    }

    fn to_text(&self) -> String {
        let Self { own, others, first_copies, has_begun, .. } = self;
        let others: Vec<String> = others.iter().map(|(node, folder)| format!("[{node}, {folder}]")).collect();
        format!(
            "format = {FOUNDERS_FORMAT}\nfolder = {own}\nothers = [{}]\n\
             first_copies = {first_copies}\nhas_begun = {has_begun}\n",
            others.join(", ")
        )
    }

    fn write(&self, disk: &Disk, folder: &Path) -> Result<(), StartError> {
        write_whole(disk, &file_in(folder), &self.to_text())
    }

    /// Whether there were votes and a log in this folder: without them the rest of it is worth nothing.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// How the first copies were dealt out; 0: it is not known.
    pub fn first_copies(&self) -> u32 {
        self.first_copies
    }

    /// There is a log, of which nobody has been told anything yet. What an older release wrote gets its checksum.
    pub fn begin(&mut self, disk: &Disk, folder: &Path) -> Result<(), StartError> {
        if self.own == 0 || (self.has_begun && self.seal == Seal::Whole) {
            return Ok(());
        }
        (self.has_begun, self.seal) = (true, Seal::Whole);
        self.write(disk, folder)
    }

    /// This node's folder; 0: it has no number.
    pub fn own(&self) -> u64 {
        self.own
    }

    /// The folder with which another node began; 0: it is not known here.
    pub fn of(&self, node: u32) -> u64 {
        self.others.get(&node).copied().unwrap_or(0)
    }
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("founders.toml")
}

/// What a first node says to another one that it asks for its folder.
pub(crate) fn question(node_id: u32) -> LinkHello {
    let role = link_hello::Role::Storage as i32;
    LinkHello { role, peer_id: node_id, incarnation: FOUNDING, ..LinkHello::default() }
}

/// Whether somebody says this who asks for a folder, and wants nothing else.
pub(crate) fn is_question(hello: &LinkHello) -> bool {
    (hello.role(), hello.incarnation) == (link_hello::Role::Storage, FOUNDING)
}

/// What follows a round of questions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextRound {
    /// Nothing: all have answered one after the other, and the node may begin.
    NotNeeded,
    /// All are asked once more, at once: some have answered so long ago that they may have lost their folders since.
    AtOnce,
    /// Those who have not answered are asked again, a little later.
    Later,
}

/// A first node of a fleet that has not begun yet.
pub(crate) struct Founding {
    disk: Disk,
    folder: PathBuf,
    founders: Founders,
    welcome: LinkWelcome,
    others: Vec<OtherNode>,
    awaited: Vec<OtherNode>,
    /// All are asked once more, and nobody of them has been missed.
    is_repeated: bool,
    /// Of the folder, in which nobody else may draw a number or write down the others.
    _lock: FolderLock,
}

impl Founding {
    /// Nothing: this node begins without asking, or has begun. `draw` makes a number at random.
    pub fn begin(
        disk: Disk,
        config: &StorageConfig,
        draw: impl FnOnce() -> Result<u64, StartError>,
    ) -> Result<Option<Self>, StartError> {
        let map = ShardMap::new(config, 1)?;
        if config.beginning != Beginning::NewFleet || !map.is_replicated() || map.others().is_empty() {
            return Ok(None);
        }
        let folder = config.data_dir.clone();
        let owner = Owner::of(config, &map);
        let mut data_folder = DataFolder::open(disk.clone(), &folder, owner, config.beginning)?;
        if !data_folder.is_new() {
            return Ok(None);
        }
        let mut founders = Founders::read(&disk, &folder)?;
        if founders.has_begun {
            let file = folder.join("node.toml");
            return Err(StartError::DataFolder { file, detail: LOST.to_owned() });
        }
        if founders.own == 0 {
            // A number of TOML, and none that stands for another thing.
            founders.own = (draw()? >> 1) | 1;
            founders.write(&disk, &folder)?;
        }
        founders.first_copies = digest(map.first_copies());
        // Also those that were written down before: others may have begun with another folder of this node since.
        let others = map.others().to_vec();
        let (node_id, shard_count) = (config.node_id, config.shard_count);
        let welcome = LinkWelcome {
            node_id,
            shard_count,
            founding: true,
            folder: founders.own,
            first_copies: founders.first_copies,
            ..LinkWelcome::default()
        };
        let (awaited, lock) = (others.clone(), data_folder.take_lock());
        Ok(Some(Self { disk, folder, founders, welcome, others, awaited, is_repeated: false, _lock: lock }))
    }

    /// What this node says to those who ask it.
    pub fn welcome(&self) -> LinkWelcome {
        self.welcome
    }

    /// Nodes that are still to be asked.
    pub fn awaited(&self) -> &[OtherNode] {
        &self.awaited
    }

    /// One of them was asked, and has not answered.
    pub fn miss(&mut self) {
        self.is_repeated = false;
    }

    /// All who were awaited have been asked. A node begins when all of them have answered one after the other, so that nobody
    /// who was told a number has lost its folder since.
    pub fn end_round(&mut self) -> NextRound {
        match (self.awaited.is_empty(), self.is_repeated) {
            (false, _) => NextRound::Later,
            (true, true) => NextRound::NotNeeded,
            (true, false) => {
                self.is_repeated = true;
                self.awaited.clone_from(&self.others);
                NextRound::AtOnce
            }
        }
    }

    /// One of them has answered. An error if it has begun with another folder of this node, or without this node.
    pub fn take(&mut self, node: OtherNode, welcome: &LinkWelcome) -> Result<(), StartError> {
        if (welcome.node_id, welcome.shard_count) != (node.id, self.welcome.shard_count) {
            let detail = format!(
                "{} says it is node {} of {} shards, the configuration says node {} of {}",
                node.address, welcome.node_id, welcome.shard_count, node.id, self.welcome.shard_count
            );
            return Err(StartError::DataFolder { file: self.folder.clone(), detail });
        }
        let wrong =
            |detail: String| Err(StartError::DataFolder { file: self.folder.join("node.toml"), detail });
        let of = format!("node {} at {}", node.id, node.address);
        let is_known = welcome.caller_folder == self.founders.own || plant::active(Plant::BeginsAgain);
        if !welcome.founding && !is_known {
            return wrong(format!("{LOST}. Of the others, {of} runs, and not with this folder"));
        }
        let is_told = welcome.founding || welcome.first_copies != 0;
        if is_told && welcome.first_copies != self.welcome.first_copies {
            return wrong(format!(
                "cannot be made: {of} has another list of nodes, zones or replicas in its configuration"
            ));
        }
        if welcome.folder == 0 || i64::try_from(welcome.folder).is_err() {
            return wrong(format!("cannot be made: {of} names no folder"));
        }
        self.founders.others.insert(node.id, welcome.folder);
        self.awaited.retain(|other| other.id != node.id);
        Ok(())
    }

    /// All have answered: writes down who they are. The node may begin. Until it does its folder is free: whoever gets it
    /// first asks once more, and has the same number.
    pub fn finish(self) -> Result<(), StartError> {
        assert!(self.awaited.is_empty(), "all were asked");
        let file = self.folder.join("node.toml");
        if self.disk.exists(&file) {
            let detail = "was written meanwhile: another process has begun in this folder".to_owned();
            return Err(StartError::DataFolder { file, detail });
        }
        self.founders.write(&self.disk, &self.folder)
    }
}

/// Tells apart what nodes make of their configurations.
fn digest(copies: &[Vec<u32>]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for nodes in copies {
        hasher.update(&(nodes.len() as u32).to_be_bytes());
        nodes.iter().for_each(|node| hasher.update(&node.to_be_bytes()));
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;
    use crate::sim::{Crash, Random, SimDisk, real_folder};
    use std::sync::Arc;

    fn config(data_dir: &Path, node_id: u32) -> StorageConfig {
        let node = |id: u32| NodeConfig {
            id,
            address: ([127, 0, 0, 1], 7_000 + id as u16).into(),
            shards: Vec::new(),
            zone: String::new(),
        };
        StorageConfig {
            data_dir: data_dir.to_owned(),
            node_id,
            shard_count: 4,
            replicas: 3,
            nodes: (1..=3).map(node).collect(),
            beginning: Beginning::NewFleet,
            ..StorageConfig::default()
        }
    }

    fn drawn(number: u64) -> impl FnOnce() -> Result<u64, StartError> {
        move || Ok(number)
    }

    fn founding(disk: &Arc<SimDisk>, config: &StorageConfig, number: u64) -> Founding {
        let disk = Disk::Simulated(Arc::clone(disk));
        Founding::begin(disk, config, drawn(number)).expect("it can").expect("it asks")
    }

    #[test]
    fn a_fleet_begins_when_all_know_each_others_folders() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let configs = [1, 2, 3].map(|id| config(&folder.path().join(format!("{id}")), id));
        let mut nodes: Vec<Founding> =
            configs.iter().zip([2, 4, 6]).map(|(config, number)| founding(&disk, config, number)).collect();
        let welcomes: Vec<LinkWelcome> = nodes.iter().map(Founding::welcome).collect();
        for node in &mut nodes {
            for other in node.awaited().to_vec() {
                node.take(other, &welcomes[other.id as usize - 1]).expect("it has not begun either");
            }
        }
        nodes.into_iter().for_each(|node| node.finish().expect("it writes"));
        for config in &configs {
            let read =
                Founders::read(&Disk::Simulated(Arc::clone(&disk)), &config.data_dir).expect("it reads");
            let others = (1..=3).filter(|id| *id != config.node_id);
            others.for_each(|id| assert_eq!(read.of(id), welcomes[id as usize - 1].folder));
            assert_eq!((read.own(), read.of(9)), (welcomes[config.node_id as usize - 1].folder, 0));
        }
        // Started again before it had claimed its folder, it is the same, and asks all the same.
        let again = founding(&disk, &configs[0], 100);
        assert_eq!((again.awaited().len(), again.welcome()), (2, welcomes[0]));
    }

    #[test]
    fn what_was_told_is_kept_and_a_lost_folder_is_another_one() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let config = config(&folder.path().join("data"), 2);
        let told = founding(&disk, &config, 8).welcome().folder;
        assert_eq!(founding(&disk, &config, 100).welcome().folder, told);
        disk.crash(Crash::PowerKeepsNothing, &mut Random::new(1));
        assert_eq!(founding(&disk, &config, 100).welcome().folder, told, "it is on disk before it is told");
        let lost = StorageConfig { data_dir: folder.path().join("another"), ..config };
        assert_ne!(founding(&disk, &lost, 100).welcome().folder, told);
    }

    #[test]
    fn nobody_begins_again_beside_one_that_knew_another_folder_or_nobody() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let mut node = founding(&disk, &config(&folder.path().join("data"), 2), 8);
        let [first, third] = node.awaited().try_into().expect("two others");
        let runs = LinkWelcome { node_id: 1, shard_count: 4, folder: 77, ..LinkWelcome::default() };
        for caller_folder in [0, 78] {
            let refusal = node.take(first, &LinkWelcome { caller_folder, ..runs }).expect_err("it runs");
            let refusal = refusal.to_string();
            assert!(
                refusal.contains("node.toml") && refusal.contains("node 1 at 127.0.0.1:7001"),
                "{refusal}"
            );
        }
        let own = node.welcome().folder;
        let other_list = LinkWelcome { caller_folder: own, first_copies: 9, ..runs };
        let refusal = node.take(first, &other_list).expect_err("it began with other copies").to_string();
        assert!(refusal.contains("node 1 at 127.0.0.1:7001 has another list"), "{refusal}");
        node.take(first, &LinkWelcome { caller_folder: own, ..runs }).expect("it began with this folder");
        assert_eq!(node.awaited(), [third]);
        for wrong in [LinkWelcome { node_id: 1, ..runs }, LinkWelcome { node_id: 3, shard_count: 8, ..runs }]
        {
            let refusal = node.take(third, &LinkWelcome { caller_folder: own, ..wrong });
            assert!(refusal.expect_err("another").to_string().contains("the configuration says node 3 of 4"));
        }
        for folder in [0, u64::MAX] {
            let nameless = LinkWelcome { node_id: 3, caller_folder: own, folder, ..runs };
            assert!(node.take(third, &nameless).expect_err("none").to_string().contains("names no folder"));
        }
    }

    #[test]
    fn a_node_begins_when_all_others_have_answered_one_after_the_other() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let mut node = founding(&disk, &config(&folder.path().join("data"), 2), 8);
        let [first, third] = node.awaited().try_into().expect("two others");
        let caller_folder = node.welcome().folder;
        let runs = LinkWelcome { shard_count: 4, folder: 77, caller_folder, ..LinkWelcome::default() };
        let answer = |node: &mut Founding, other: OtherNode| {
            node.take(other, &LinkWelcome { node_id: other.id, ..runs }).expect("it knows this folder");
        };
        node.miss();
        answer(&mut node, third);
        assert_eq!((node.end_round(), node.awaited()), (NextRound::Later, &[first][..]));
        answer(&mut node, first);
        assert_eq!((node.end_round(), node.awaited()), (NextRound::AtOnce, &[first, third][..]));
        answer(&mut node, first);
        node.miss();
        assert_eq!((node.end_round(), node.awaited()), (NextRound::Later, &[third][..]));
        answer(&mut node, third);
        assert_eq!(node.end_round(), NextRound::AtOnce, "one of them was away");
        for other in [first, third] {
            answer(&mut node, other);
        }
        assert_eq!(node.end_round(), NextRound::NotNeeded);
        node.finish().expect("it writes");
    }

    #[test]
    fn a_question_is_told_from_the_links_of_processes() {
        let asked = question(2);
        assert!(is_question(&asked) && asked.peer_id == 2);
        let gateway = LinkHello { role: link_hello::Role::Gateway as i32, ..asked };
        for other in [LinkHello { incarnation: 1, ..asked }, gateway] {
            assert!(!is_question(&other), "{other:?}");
        }
    }

    #[test]
    fn whoever_deals_copies_out_otherwise_begins_no_fleet_with_the_others() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let mut node = founding(&disk, &config(&folder.path().join("1"), 1), 8);
        let others = config(&folder.path().join("2"), 2);
        let mut zoned = others.clone();
        zoned.nodes.push(NodeConfig { id: 4, ..zoned.nodes[0].clone() });
        for other in [StorageConfig { replicas: 5, nodes: five(&zoned), ..zoned.clone() }, zoned] {
            let welcome = founding(&disk, &other, 10).welcome();
            let refusal = node.take(node.awaited()[0], &welcome).expect_err("another list").to_string();
            assert!(refusal.contains("node 2 at 127.0.0.1:7002 has another list"), "{refusal}");
        }
        node.take(node.awaited()[0], &founding(&disk, &others, 10).welcome()).expect("the same list");
    }

    fn five(config: &StorageConfig) -> Vec<NodeConfig> {
        (1..=5).map(|id| NodeConfig { id, ..config.nodes[0].clone() }).collect()
    }

    #[test]
    fn a_folder_that_has_lost_its_votes_and_its_log_does_not_begin_again() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let config = config(&folder.path().join("data"), 2);
        founding(&disk, &config, 8);
        let on_disk = Disk::Simulated(Arc::clone(&disk));
        let mut founders = Founders::read(&on_disk, &config.data_dir).expect("it reads");
        founders.begin(&on_disk, &config.data_dir).expect("it writes");
        let refusal = Founding::begin(on_disk.clone(), &config, drawn(100)).err().expect("no node.toml");
        assert!(refusal.to_string().contains("node.toml: is missing"), "{refusal}");
        // A node that never was a first one has nothing to say.
        let elsewhere = folder.path().join("elsewhere");
        Founders::default().begin(&on_disk, &elsewhere).expect("it writes nothing");
        assert!(!on_disk.exists(&file_in(&elsewhere)));
    }

    #[test]
    fn a_bit_that_rots_in_the_founders_is_refused_by_its_name() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let config = config(&folder.path().join("data"), 2);
        founding(&disk, &config, 8);
        let (on_disk, file) = (Disk::Simulated(Arc::clone(&disk)), file_in(&config.data_dir));
        let mut founders = Founders::read(&on_disk, &config.data_dir).expect("it reads");
        founders.others = [(1, 77), (3, 12_345_678_901)].into();
        founders.begin(&on_disk, &config.data_dir).expect("it writes");
        for at in 0..disk.bytes_of(&file).len() {
            for bit in 0..8 {
                assert!(disk.flip(&file, at, bit));
                let told = Founders::read(&on_disk, &config.data_dir).expect_err("it rotted").to_string();
                let is_named = told.starts_with(&format!("{}: is damaged: ", file.display()));
                assert!(is_named, "byte {at}, bit {bit}: {told}");
                assert!(disk.flip(&file, at, bit), "it is mended");
            }
        }
        assert_eq!(Founders::read(&on_disk, &config.data_dir).expect("as it was written"), founders);
    }

    #[test]
    fn founders_of_an_older_release_are_taken_and_get_a_checksum() {
        let root = real_folder();
        let (disk, folder) = (Disk::Simulated(SimDisk::new(root.path())), root.path().join("data"));
        disk.create_folder(&folder).expect("it is made");
        let older =
            "format = 1\nfolder = 9\nothers = [[1, 77], [3, 78]]\nfirst_copies = 5\nhas_begun = true\n";
        let oldest = older.replace("first_copies = 5\n", "");
        for (text, first_copies) in [(older, 5), (oldest.as_str(), 0)] {
            disk.write_synced(&file_in(&folder), text).expect("it writes");
            let mut founders = Founders::read(&disk, &folder).expect("it reads");
            assert_eq!((founders.own, founders.of(3), founders.first_copies), (9, 78, first_copies));
            founders.begin(&disk, &folder).expect("it writes");
            let read = disk.read_text(&file_in(&folder)).expect("it reads");
            assert!(read.contains("\n# checksum "), "{read}");
            assert_eq!(Founders::read(&disk, &folder).expect("it reads"), founders);
        }
        let doubled = older.replace("[3, 78]", "[3, 78], [3, 78]");
        for damaged in [older.replace("= 9", "=9"), doubled, older.replace("true\n", "true")] {
            let told = Founders::from_text(&damaged).expect_err("nobody wrote this");
            assert!(told.contains("is damaged"), "{told}");
        }
    }

    #[test]
    fn whoever_has_nobody_to_ask_asks_nobody() {
        let folder = real_folder();
        let disk = SimDisk::new(folder.path());
        let asks = |config: &StorageConfig| {
            let disk = Disk::Simulated(Arc::clone(&disk));
            Founding::begin(disk, config, drawn(8)).expect("it can").is_some()
        };
        let config = config(&folder.path().join("data"), 2);
        assert!(asks(&config));
        assert!(!asks(&StorageConfig { beginning: Beginning::Join, ..config.clone() }));
        let alone = StorageConfig { nodes: Vec::new(), replicas: 1, node_id: 1, ..config };
        assert!(!asks(&alone));
    }
}
