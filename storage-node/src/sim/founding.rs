//! A first node of a new fleet before its fleet begins, for a simulation that has the network and the time: it asks the others
//! and is asked by them, as `server/founding.rs` does for a process. What is asked, taken and written is the real thing.

use super::{Doing, SimDisk};
use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::placement::OtherNode;
use crate::worker::{Founding, NextRound, is_question, question};
use std::sync::Arc;
use wire_protocol::internal::{LinkHello, LinkWelcome};

/// A node that waits for the others. To be dropped before its disk crashes.
pub struct SimFounding {
    disk: Arc<SimDisk>,
    founding: Founding,
}

impl SimFounding {
    /// `None`: the node starts without asking. `number`: drawn at random, for a folder that has none yet. `Err`: why it
    /// does not start.
    pub fn begin(config: &StorageConfig, disk: &Arc<SimDisk>, number: u64) -> Result<Option<Self>, String> {
        disk.set_doing(Doing::Starting);
        let on = Disk::Simulated(Arc::clone(disk));
        let founding = Founding::begin(on, config, || Ok(number)).map_err(|error| error.to_string())?;
        Ok(founding.map(|founding| Self { disk: Arc::clone(disk), founding }))
    }

    /// What it says to those who ask it.
    pub fn welcome(&self) -> LinkWelcome {
        self.founding.welcome()
    }

    /// What it says to those whom it asks.
    pub fn question(&self) -> LinkHello {
        question(self.founding.welcome().node_id)
    }

    /// Whether this is what such a node says to those whom it asks.
    pub fn is_question(hello: &LinkHello) -> bool {
        is_question(hello)
    }

    /// Nodes that are still to be asked.
    pub fn awaited(&self) -> Vec<OtherNode> {
        self.founding.awaited().to_vec()
    }

    /// One of them has answered. `Err`: why this node must not begin.
    pub fn take(&mut self, node: OtherNode, welcome: &LinkWelcome) -> Result<(), String> {
        self.founding.take(node, welcome).map_err(|error| error.to_string())
    }

    /// One of them has not.
    pub fn miss(&mut self) {
        self.founding.miss();
    }

    /// All who were awaited have been asked.
    pub fn end_round(&mut self) -> NextRound {
        self.founding.end_round()
    }

    /// No further round is needed: it writes down who the others are. The node may start.
    pub fn finish(self) -> Result<(), String> {
        self.disk.set_doing(Doing::Starting);
        self.founding.finish().map_err(|error| error.to_string())
    }
}
