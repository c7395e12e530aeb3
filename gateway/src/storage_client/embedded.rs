//! The storage node of this process: its cores are turned on the gateway's own loops. The only file of the
//! gateway that knows the storage node.

pub use storage_node::AFTER_FAILURE;

use super::{StorageEvent, refusal};
use crate::config::{EmbeddedConfig, GatewayConfig};
use crate::router::LinkIndex;
use crate::worker::wake::WakeHandle;
use std::sync::Arc;
use storage_node::{
    LinkId, LinkOutput, LinkPeer, LogConfig, MemoryConfig, StorageConfig, StorageCore, StorageNode,
};
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
            memory: MemoryConfig {
                memtable_bytes: embedded.memtable_bytes,
                block_cache_bytes: embedded.block_cache_bytes,
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
                // There is one link, whoever leads.
                LinkOutput::Leader(..) | LinkOutput::Fleet(..) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::moment;
    use crate::config::StorageMode;
    use std::path::Path;
    use std::time::Duration;
    use wire_protocol::internal::{Query, ReadName, query, shard_request};
    use wire_protocol::v1::ErrorCode;

    fn question(id: u64) -> ShardRequest {
        let kind = Some(query::Kind::ReadName(ReadName { name: "ada".into() }));
        ShardRequest { id, shard: 0, operation: Some(shard_request::Operation::Query(Query { kind })) }
    }

    /// Turns until it is so.
    fn turn_until(core: &mut EmbeddedCore, mut is_so: impl FnMut(&EmbeddedCore, &[StorageEvent]) -> bool) {
        let started = moment();
        let mut events = Vec::new();
        while !is_so(core, &events) {
            assert!(started.elapsed() < Duration::from_secs(30), "never");
            events.clear();
            core.turn(0, &mut events);
            std::thread::yield_now();
        }
    }

    #[test]
    fn as_many_requests_are_out_as_a_link_has_credits_and_answers_give_them_back() {
        let text = "[storage]\nshard_count = 1\nlog_file_bytes = 4194304\nlog_keep_bytes = 16777216\n\
                    log_prefill = false\n";
        let mut config = GatewayConfig::parse(text, Path::new("test")).expect("a configuration");
        config.data_dir = std::env::temp_dir().join(format!("ringline-embedded-{}", std::process::id()));
        let StorageMode::Embedded(embedded) = config.storage.clone() else { panic!("not embedded") };
        let (node, mut cores) = EmbeddedNode::start(&config, &embedded, 1).expect("it starts");
        let mut core = EmbeddedCore::new(cores.remove(0), 1, 0, WakeHandle::new());
        assert!(!core.is_serving(), "nobody has looked at the log yet");
        turn_until(&mut core, |core, _| core.is_serving());
        for round in 0..2 {
            for id in 0..u64::from(LINK_CREDITS) {
                core.submit(question(id)).unwrap_or_else(|error| panic!("{round} {id}: {error}"));
            }
            let error = core.submit(question(0)).expect_err("one too many");
            assert_eq!(error.code, ErrorCode::ErrorOverloaded);
            let mut answered = 0;
            turn_until(&mut core, |_, events| {
                let is_answer = |event: &&StorageEvent| matches!(event, StorageEvent::Answered { .. });
                answered += events.iter().filter(is_answer).count();
                answered == LINK_CREDITS as usize
            });
        }
        drop(core);
        node.shutdown();
        std::fs::remove_dir_all(&config.data_dir).expect("nobody holds it");
    }
}
