//! The storage node of this process: its cores are turned on the gateway's own loops. The only file of the
//! gateway that knows the storage node.

use super::{StorageEvent, refusal};
use crate::config::{EmbeddedConfig, GatewayConfig};
use crate::router::LinkIndex;
use crate::worker::wake::WakeHandle;
use std::sync::Arc;
use storage_node::{LinkId, LinkOutput, LinkPeer, LogConfig, StorageConfig, StorageCore, StorageNode};
use wire_protocol::error::RequestError;
use wire_protocol::internal::{ShardRequest, link_hello};
use wire_protocol::limits::LINK_CREDITS;
use wire_protocol::link::LinkFull;

/// Outputs taken in one turn: as many requests as may be out, and as many deliveries.
const OUTPUTS_MAX: usize = 2 * LINK_CREDITS as usize;

/// The node's threads and what its cores share.
pub struct EmbeddedNode {
    node: StorageNode,
}

/// Why the node did not start.
#[derive(Debug, thiserror::Error)]
#[error("storage: {0}")]
pub struct EmbeddedStartError(#[from] storage_node::StartError);

/// One core of the node, on one of the gateway's loops.
pub struct EmbeddedCore {
    core: StorageCore,
    link: LinkId,
    /// Requests without an answer.
    unanswered: u32,
}

impl EmbeddedNode {
    /// Opens the data folder and starts the node's threads, with as many cores as the gateway has loops. To be
    /// called from a thread that is not pinned.
    pub fn start(
        config: &GatewayConfig,
        embedded: &EmbeddedConfig,
        cores: usize,
    ) -> Result<(EmbeddedNode, Vec<StorageCore>), EmbeddedStartError> {
        let storage = StorageConfig {
            data_dir: config.data_dir.join("storage"),
            shard_count: embedded.shard_count,
            log: LogConfig {
                file_bytes: embedded.log_file_bytes,
                keep_bytes: embedded.log_keep_bytes,
                prefill: embedded.log_prefill,
            },
            ..StorageConfig::default()
        };
        let (node, cores) = StorageNode::start(storage, cores)?;
        let metrics = node.metrics();
        crate::observe::register_text(move || metrics.render());
        Ok((EmbeddedNode { node }, cores))
    }

    /// Stops the threads. Called when no core is turned any more.
    pub fn shutdown(self) {
        self.node.shutdown();
    }
}

impl EmbeddedCore {
    /// Takes the core to the loop that `wake` wakes, as the gateway's loop number `loop_number`.
    pub fn new(mut core: StorageCore, gateway_id: u32, loop_number: u32, wake: WakeHandle) -> Self {
        core.set_waker(Arc::new(move || wake.wake()));
        let link = core.open_link(LinkPeer {
            role: link_hello::Role::Gateway,
            peer_id: gateway_id,
            incarnation: core.epoch(),
            core: loop_number,
        });
        Self { core, link, unanswered: 0 }
    }

    pub(super) fn submit(&mut self, request: ShardRequest) -> Result<(), RequestError> {
        if self.unanswered >= LINK_CREDITS {
            return Err(refusal::refused(LinkFull::Credits));
        }
        self.unanswered += 1;
        self.core.receive(self.link, request);
        Ok(())
    }

    pub(super) fn turn(&mut self, now_ms: u64, events: &mut Vec<StorageEvent>) {
        self.core.turn(now_ms);
        for output in std::iter::from_fn(|| self.core.poll_output()).take(OUTPUTS_MAX) {
            match output {
                LinkOutput::Response(_, response) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    let id = response.id;
                    events.push(StorageEvent::Answered { id, result: refusal::result(response) });
                }
                LinkOutput::Delivery(_, delivery) => {
                    events.push(StorageEvent::Delivered { link: LinkIndex(0), delivery });
                }
            }
        }
    }

    /// What the log held when the node started has been applied.
    pub(super) fn is_serving(&self) -> bool {
        self.core.is_serving()
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.core.next_deadline_ms()
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.core.failure()
    }
}
