//! The words of `ringline-storage`'s command line.

mod admin;
mod backup;

use std::path::PathBuf;
use storage_node::StorageConfig;
use storage_node::config::Beginning;

/// What is told to whoever asks, or errs.
pub const USAGE: &str = "usage: ringline-storage --config FILE [--new-fleet | --join]
       ringline-storage admin (--config FILE | --data-dir DIR) [--json] COMMAND
       ringline-storage backup verify [--json] DIR
       ringline-storage backup restore --from DIR --config FILE

  --new-fleet  this node's folder may be empty although other nodes have copies of its shards: none of them ever ran. It
               begins when all of them are there, and ends if one runs without it
  --join       this node's folder may be empty: the fleet runs, and is to get this node

admin: asks the running node of this configuration, or of this data folder (a gateway's embedded node: DATA/storage)
  --json       the answer as one JSON object
  status       what the node is, and how far each of its shards is
  fleet [--wait]
               nodes, what they hold, and what moves; with --wait once nothing moves any more, and until then how far it is
  add-node ID ADDRESS [--zone ZONE] [--dry-run]
               gives a node that runs with --join its share of replicas
  remove-node ID [--dry-run]
               moves a node's replicas to others, and retires its id; the node need not run
  backup --to DIR [--keep N]
               makes a backup into DIR/node-ID, and removes older ones but for N-1 (7 are kept without --keep)

backup: works on a folder of backups; no node is needed
  verify       reads everything: whether it is whole, and a fleet can be made of it; exit code 1: it is not
  restore      makes this node's empty data folder of the newest backups of all nodes; the nodes of the configuration may
               be others than those that made them. Only for a fleet that is lost, and for all of its nodes";

/// What is to be done.
pub enum Command {
    /// Tell how.
    Help,
    /// Run a node.
    Serve {
        /// The configuration.
        file: PathBuf,
        /// See [`USAGE`].
        beginning: Beginning,
    },
    /// Ask a running node.
    Admin(admin::Question),
    /// Look at backups, or use them.
    Backup(backup::Work),
}

impl Command {
    /// An error is for whoever typed it.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut words = Words::new(arguments);
        if words.flag("--help") || words.flag("-h") {
            return Ok(Self::Help);
        }
        if words.verb("admin") {
            return admin::Question::parse(words).map(Self::Admin);
        }
        if words.verb("backup") {
            return backup::Work::parse(words).map(Self::Backup);
        }
        let beginning = match (words.flag("--new-fleet"), words.flag("--join")) {
            (true, true) => return Err("--new-fleet and --join: a fleet is new, or there already".to_owned()),
            (true, false) => Beginning::NewFleet,
            (false, true) => Beginning::Join,
            (false, false) => Beginning::Known,
        };
        let file = words.value("--config")?.ok_or("--config is missing")?.into();
        words.end()?;
        Ok(Self::Serve { file, beginning })
    }
}

/// Arguments that were not understood yet: options may stand anywhere.
pub struct Words(Vec<String>);

impl Words {
    fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        Self(arguments.into_iter().collect())
    }

    /// Takes the first word, if it is this one.
    fn verb(&mut self, word: &str) -> bool {
        let is_first = self.0.first().is_some_and(|first| first == word);
        if is_first {
            self.0.remove(0);
        }
        is_first
    }

    /// Takes an option without a value.
    fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|word| word == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Takes an option and its value.
    fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(place) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        self.0.remove(place);
        match place < self.0.len() {
            true => Ok(Some(self.0.remove(place))),
            false => Err(format!("{name} needs a value")),
        }
    }

    /// Takes the next word that is no option.
    fn word(&mut self) -> Option<String> {
        let place = self.0.iter().position(|word| !word.starts_with('-'))?;
        Some(self.0.remove(place))
    }

    /// Nothing may be left.
    fn end(self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |word| Err(format!("unknown argument {word}")))
    }
}

/// The data folder that `--data-dir` or the configuration names.
fn data_dir(words: &mut Words) -> Result<PathBuf, String> {
    match (words.value("--data-dir")?, words.value("--config")?) {
        (Some(folder), None) => Ok(folder.into()),
        (None, Some(file)) => StorageConfig::read(file.as_ref())
            .map(|config| config.data_dir)
            .map_err(|error| error.to_string()),
        _ => Err("either --config FILE or --data-dir DIR is needed".to_owned()),
    }
}
