//! The result of a run as one JSON file. The schema is versioned; `docs/results-schema.md` explains every field.
//!
//! Histograms are kept whole (HdrHistogram's V2 format, base64), so that results of many agents and runs are merged
//! and never averaged.

use crate::workload::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the schema: grows when a reader of the old one would go wrong.
pub const SCHEMA_VERSION: u32 = 1;

/// A whole run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What was measured: "ringline", or a peer's name and version.
    pub subject: String,
    /// What an acknowledgement of the subject promises, in a line.
    pub durability: String,
    /// Commit of the harness, with "+changes" if its tree was not clean; "unknown" outside of a checkout.
    pub commit: String,
    /// The command as it was given.
    pub command_line: Vec<String>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// The plan as it was carried out.
    pub plan: Plan,
    /// Limits the servers ran with, by name ("defaults" where nothing was set), as the servers print them.
    pub limit_profile: BTreeMap<String, String>,
    /// The coordinator's machine and each agent's.
    pub hosts: Vec<HostFacts>,
    /// What `ringline-tune check` says of the servers' machine, setting by setting.
    pub tuning: Vec<TuningFact>,
    /// Clocks of agents against the coordinator's.
    pub clocks: Vec<ClockOffset>,
    /// In order.
    pub phases: Vec<PhaseResult>,
    /// The ledger's balance; `None`: not kept.
    pub ledger: Option<LedgerResult>,
    /// Why the run says nothing; empty: it counts.
    pub void: Vec<VoidReason>,
}

/// A machine.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    /// "coordinator", "agent-1", …
    pub role: String,
    /// Kernel release.
    pub kernel: String,
    /// As the processor names itself.
    pub cpu_model: String,
    /// CPUs that may be used.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Soft limit of open files.
    pub open_files_max: u64,
    /// Governor of the first CPU, "none" where there is none.
    pub governor: String,
    /// Clock source.
    pub clock_source: String,
}

/// One setting of a machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningFact {
    /// As `ringline-tune` names it.
    pub setting: String,
    /// Present value, or why there is none.
    pub present: String,
    /// What the profile wants.
    pub wanted: String,
    /// Whether it serves.
    pub serves: bool,
}

/// An agent's clock: add `offset_us` to its readings to have the coordinator's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockOffset {
    /// Which agent, from 1.
    pub agent: u32,
    /// In microseconds.
    pub offset_us: i64,
    /// The offset is off by no more than this: half of the quickest round trip, in microseconds.
    pub bound_us: u64,
}

/// One phase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseResult {
    /// As in the plan.
    pub name: String,
    /// Left out of tables.
    pub preparation: bool,
    /// Seconds that figures count: without warm-up.
    pub measured_s: f64,
    /// One for each of the plan's streams.
    pub streams: Vec<StreamResult>,
    /// Connections that were ready at the end, and the most at any moment.
    pub connections: ConnectionCounts,
    /// Second by second, warm-up included.
    pub seconds: Vec<Second>,
    /// Agents' own CPU and lag.
    pub generators: Vec<GeneratorResult>,
    /// What the machine said of the servers.
    pub servers: Vec<ServerResult>,
    /// Whole machine of the servers: bytes on the wire and the like.
    pub machine: MachineResult,
    /// Connections lost without having been asked to, by reason.
    pub losses: BTreeMap<String, u64>,
    /// Lost without having been asked to → ready again: microseconds, HdrHistogram V2, base64.
    #[serde(default)]
    pub recovery: String,
    /// How sessions ended that nobody ended on purpose, and how they were tried again.
    #[serde(default)]
    pub returns: ReturnCounts,
    /// What was done to servers: microseconds after the phase's start, and what.
    pub faults: Vec<(u64, String)>,
}

/// One stream.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamResult {
    /// The action's name.
    pub action: String,
    /// Whether due times were kept (open loop).
    pub open_loop: bool,
    /// Actions that fell due within the measured time.
    pub due: u64,
    /// Of those, begun.
    pub begun: u64,
    /// Of those, answered well.
    pub succeeded: u64,
    /// Of those, refused or given up, by code.
    pub errors: BTreeMap<String, u64>,
    /// Of those, without an answer when the phase had ended and its grace had passed.
    pub unanswered: u64,
    /// Messages that reached another device (send actions), or messages received (catch up).
    pub deliveries: u64,
    /// Due actions a second.
    pub offered_rate: f64,
    /// Answered actions a second.
    pub achieved_rate: f64,
    /// "answer" (due → answered), "delivery" (due → on another device), "spared" (as "answer", of messages by devices
    /// that began at gateways that no fault of the plan ends): microseconds, HdrHistogram V2, base64.
    pub histograms: BTreeMap<String, String>,
}

/// Connections of all agents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionCounts {
    /// Ready at the phase's end.
    pub at_end: u64,
    /// Most at a time.
    pub peak: u64,
    /// Made within the phase, in full.
    pub full_handshakes: u64,
    /// Made within the phase, resumed.
    pub resumed_handshakes: u64,
}

/// Sessions that ended although nobody ended them on purpose, and tries to have new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnCounts {
    /// Sessions that ended without a word of the server.
    pub cut: u64,
    /// Sessions of which the server said that it ends them.
    pub told: u64,
    /// Of those, with where to go.
    pub sent_on: u64,
    /// Tries that were answered by when, or where, to come again.
    pub put_off: u64,
    /// Tries of which nothing came for another reason.
    pub failed: u64,
}

/// One second of a phase, all agents together.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// From the phase's start.
    pub second: u32,
    /// Due, answered well and refused in it.
    pub due: u64,
    /// Answered well.
    pub succeeded: u64,
    /// Refused, given up, lost.
    pub errors: u64,
    /// Ready connections at its end.
    pub connections: u64,
    /// Sessions that became ready in it.
    #[serde(default)]
    pub log_ins: u64,
    /// Sessions that ended in it and were told where to go.
    #[serde(default)]
    pub sent_on: u64,
    /// Latency of what was answered in it, all streams, in microseconds: 50th percentile.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Largest.
    pub max_us: u64,
    /// CPU of all servers, in thousandths of a core.
    pub server_cpu_milli: u64,
    /// Private memory of all servers, in bytes.
    pub server_private_bytes: u64,
    /// Kernel memory that connections grow, in bytes.
    pub kernel_bytes: u64,
    /// CPU of the busiest agent, in thousandths of a core.
    pub agent_cpu_milli: u64,
}

/// How an agent itself fared.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorResult {
    /// Which agent, from 1.
    pub agent: u32,
    /// CPU over the measured time, in thousandths of a core.
    pub cpu_milli: u64,
    /// Due → handed to the kernel, in microseconds, as above: what the agent itself added.
    pub lag: String,
    /// Samples outside of what a histogram holds.
    pub samples_lost: u64,
    /// Private memory at the phase's end, in bytes.
    pub private_bytes: u64,
}

/// One server process over the measured time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerResult {
    /// "gateway-1", "storage-1", or a peer's name.
    pub name: String,
    /// CPU, in milliseconds: in the process itself.
    pub user_ms: u64,
    /// And in the kernel.
    pub system_ms: u64,
    /// CPU of each thread by name, in milliseconds, largest first; at most 32.
    pub threads: Vec<(String, u64)>,
    /// Private memory at the start, in bytes.
    pub private_bytes_start: u64,
    /// And at the end.
    pub private_bytes_end: u64,
    /// Voluntary context switches.
    pub switches_voluntary: u64,
    /// Involuntary ones.
    pub switches_involuntary: u64,
    /// Reads and writes that the kernel counts (`syscr`, `syscw`): io_uring's are not among them.
    pub read_write_calls: u64,
    /// System calls entered, where they could be counted (perf); `None`: not here.
    pub system_calls: Option<u64>,
    /// Bytes that reached the disk.
    pub disk_write_bytes: u64,
    /// Syncs of the log, where the server counts them.
    pub log_syncs: Option<u64>,
    /// Open files at the end.
    pub open_files: u64,
    /// Every counter of the server's own metrics that changed: name and labels to difference.
    pub counters: BTreeMap<String, f64>,
    /// Every gauge of the server's own metrics at the end.
    #[serde(default)]
    pub levels: BTreeMap<String, f64>,
}

/// The servers' machine over the measured time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineResult {
    /// Busy time of each CPU, in thousandths.
    pub cpu_busy_milli: Vec<u64>,
    /// Of it, what the hypervisor took while something waited, in thousandths.
    #[serde(default)]
    pub cpu_stolen_milli: Vec<u64>,
    /// Bytes through the interface that the load uses (loopback counts each once).
    pub wire_bytes: u64,
    /// Packets likewise.
    pub wire_packets: u64,
    /// Kernel memory that connections grow, at the start, in bytes.
    pub kernel_bytes_start: u64,
    /// And at the end.
    pub kernel_bytes_end: u64,
}

/// What became of every acknowledged message.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerResult {
    /// Messages with an acknowledgement.
    pub acknowledged: u64,
    /// Messages without one, whose fate is unknown: they count as wrong only if found twice or out of place.
    pub unacknowledged: u64,
    /// (device, message) pairs that were checked.
    pub checked: u64,
    /// Acknowledged and missing on a device or in history.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// Out of order, with a gap before it, or numbered in another order than its sender sent.
    pub reordered: u64,
    /// With other bytes than were sent, or in a place other than acknowledged.
    pub altered: u64,
    /// The first ones of each kind, as a person reads them; at most 20.
    pub examples: Vec<String>,
}

/// Why a run says nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoidReason {
    /// Which phase; empty: the whole run.
    pub phase: String,
    /// Which rule, a stable name: "generator_busy", "generator_late", "rate_missed", "samples_lost",
    /// "connections_missing", "preparation_failed", "cpu_stolen", "ledger_full", "agent_lost".
    pub rule: String,
    /// With its numbers.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use crate::report::example;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Fields whose keys are data, and no fields.
    const MAPS: [&str; 6] = ["limit_profile", "errors", "losses", "histograms", "counters", "levels"];

    fn collect(value: &Value, names: &mut BTreeSet<String>, empty: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    names.insert(name.clone());
                    if !MAPS.contains(&name.as_str()) {
                        collect(value, names, empty);
                    }
                    if value.is_null() {
                        empty.push(name.clone());
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, names, empty)),
            _ => {}
        }
    }

    #[test]
    fn every_field_is_documented() {
        let document = include_str!("../../../docs/results-schema.md");
        let value = serde_json::to_value(example::void_run("ringline", 1)).expect("it serializes");
        let (mut names, mut empty) = (BTreeSet::new(), Vec::new());
        collect(&value, &mut names, &mut empty);
        assert!(empty.is_empty(), "the example lacks {empty:?}: their fields would not be looked for");
        for list in ["hosts", "tuning", "clocks", "phases", "void"] {
            assert!(value[list].as_array().is_some_and(|list| !list.is_empty()), "the example has no {list}");
        }
        assert!(names.len() > 100, "only {} fields were found", names.len());
        let missing: Vec<&String> =
            names.iter().filter(|name| !document.contains(&format!("| `{name}` |"))).collect();
        assert!(missing.is_empty(), "docs/results-schema.md does not explain {missing:?}");
    }
}
