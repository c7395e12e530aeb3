//! What coordinator and agent tell each other. JSON, each message behind its length (u32, big endian), over the
//! pipe to a child process or over TLS to another machine. A relay speaks as an agent upwards and as a coordinator
//! downwards.
//!
//! ```text
//! coordinator                      agent (or relay)
//!   <------------------------------- Hello
//!   Probe -------------------------> (several)
//!   <------------------------------- Echo
//!   Prepare -----------------------> refused with Failed, or
//!   <------------------------------- Prepared
//!   Begin (phase) -----------------> at a moment of the agent's own clock
//!   <------------------------------- Progress (each second)
//!   <------------------------------- PhaseDone
//!   ... next phase ...
//!   Settle ------------------------> the ledger's end
//!   <------------------------------- Settled
//!   Finish ------------------------> the agent is free for another coordinator
//! ```

use crate::report::results::{ConnectionCounts, GeneratorResult, HostFacts, LedgerResult, ReturnCounts};
use crate::workload::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of these messages: both ends must have the same.
pub const CONTROL_VERSION: u32 = 2;
/// Largest message, in bytes: a plan or a phase's result of a relay with thousands of agents below it.
pub const CONTROL_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// From the coordinator.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// Answered at once by `Echo`.
    Probe {
        /// Comes back.
        number: u32,
    },
    /// What to be ready for.
    Prepare(Box<Prepare>),
    /// Run this phase.
    Begin {
        /// Its place in the plan.
        phase: u32,
        /// When, by the agent's own clock, in microseconds. Relays shift it by their children's offsets.
        at_us: u64,
    },
    /// End the running phase now.
    EndPhase,
    /// Compare all devices and history with what was acknowledged.
    Settle,
    /// Let go of everything.
    Finish,
}

/// From an agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// First of all.
    Hello {
        /// [`CONTROL_VERSION`].
        version: u32,
        /// The agent's machine; a relay tells of all its children.
        hosts: Vec<HostFacts>,
        /// Agents that stand behind this connection: 1, or a relay's children's sum.
        agents: u32,
        /// Connections that this machine can hold, all agents together.
        connections_max: u64,
    },
    /// Answer to `Probe`.
    Echo {
        /// The probe's.
        number: u32,
        /// The agent's clock when it answered, in microseconds.
        now_us: u64,
        /// How far the clocks of a relay's agents may be off from what the relay knows of them, in microseconds; 0
        /// for an agent.
        #[serde(default)]
        bound_us: u64,
    },
    /// Users, keys and targets are understood.
    Prepared,
    /// A second of the running phase has passed.
    Progress(Box<Progress>),
    /// The phase has ended, its grace included.
    PhaseDone(Box<PhaseShare>),
    /// The devices were compared with what was acknowledged.
    Settled {
        /// `None`: the plan keeps no ledger.
        balance: Option<LedgerResult>,
    },
    /// Cannot go on; the connection closes.
    Failed {
        /// Names the culprit.
        detail: String,
    },
}

/// What to be ready for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Prepare {
    /// The whole plan.
    pub plan: Plan,
    /// This agent's place among all, from 0; of a relay, that of its first.
    pub agent_first: u32,
    /// Agents of the whole run.
    pub agents: u32,
    /// Where to connect. Each must be among those named on the agent's own command line.
    pub targets: Vec<TargetAddress>,
    /// Which protocol, and what it needs to know.
    pub subject: Subject,
}

/// A server to connect to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetAddress {
    /// Host and port.
    pub address: String,
    /// Name in the certificate; empty: no TLS.
    pub tls_name: String,
    /// Certificates to trust, PEM.
    pub ca_pem: String,
}

/// Which protocol is spoken, and what it needs to know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "protocol", rename_all = "snake_case")]
pub enum Subject {
    /// Ringline's own.
    Ringline {
        /// Mints identities: PKCS#8 PEM of the benchmark's Ed25519 key. A secret.
        bench_key_pem: String,
        /// Makes the run's user ids its own.
        run_id: u64,
    },
    /// A peer, by name; see `peers/`.
    Peer {
        /// "mqtt", "nats_core", "jet_stream", "xmpp".
        name: String,
        /// Makes the run's names its own.
        run_id: u64,
    },
}

/// One second of one phase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Which phase.
    pub phase: u32,
    /// Which second of it, from 0.
    pub second: u32,
    /// Fell due in it.
    pub due: u64,
    /// Answered well in it.
    pub succeeded: u64,
    /// Refused, given up or lost in it.
    pub errors: u64,
    /// Ready connections at its end.
    pub connections: u64,
    /// Became ready in it.
    pub log_ins: u64,
    /// Ended in it and were told where to go.
    pub sent_on: u64,
    /// Latency of what was answered in it: microseconds, HdrHistogram V2, base64.
    pub latency: String,
    /// The agent's CPU in it, in thousandths of a core; of a relay, the busiest one's.
    pub cpu_milli: u64,
}

/// One agent's part of a phase's result, or the sum over a relay's agents.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PhaseShare {
    /// Which phase.
    pub phase: u32,
    /// Seconds that figures count.
    pub measured_s: f64,
    /// One for each of the plan's streams.
    pub streams: Vec<StreamShare>,
    /// Ready at the end, and so on.
    pub connections: ConnectionCounts,
    /// How each agent itself fared.
    pub generators: Vec<GeneratorResult>,
    /// Connections lost without having been asked to, by reason.
    pub losses: BTreeMap<String, u64>,
    /// A ledger that was full: void.
    pub ledger_full: bool,
    /// Lost without having been asked to → ready again: microseconds, HdrHistogram V2, base64.
    #[serde(default)]
    pub recovery: String,
    /// How sessions ended, and how they were tried again.
    pub returns: ReturnCounts,
}

/// One stream of one agent, or of a relay's agents.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StreamShare {
    /// Actions that fell due within the measured time.
    pub due: u64,
    /// Of those, begun.
    pub begun: u64,
    /// Of those, answered well.
    pub succeeded: u64,
    /// Of those, refused or given up, by code.
    pub errors: BTreeMap<String, u64>,
    /// Of those, without an answer.
    pub unanswered: u64,
    /// Messages that reached another device.
    pub deliveries: u64,
    /// By name: microseconds, HdrHistogram V2, base64.
    pub histograms: BTreeMap<String, String>,
}

impl ToAgent {
    /// Short, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Probe { .. } => "Probe",
            Self::Prepare(_) => "Prepare",
            Self::Begin { .. } => "Begin",
            Self::EndPhase => "EndPhase",
            Self::Settle => "Settle",
            Self::Finish => "Finish",
        }
    }
}

impl FromAgent {
    /// Short, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "Hello",
            Self::Echo { .. } => "Echo",
            Self::Prepared => "Prepared",
            Self::Progress(_) => "Progress",
            Self::PhaseDone(_) => "PhaseDone",
            Self::Settled { .. } => "Settled",
            Self::Failed { .. } => "Failed",
        }
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ringline { run_id, .. } => {
                f.debug_struct("Ringline").field("run_id", run_id).finish_non_exhaustive()
            }
            Self::Peer { name, run_id } => {
                f.debug_struct("Peer").field("name", name).field("run_id", run_id).finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<M>(message: &M)
    where
        M: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug,
    {
        let text = serde_json::to_string(message).expect("JSON");
        assert_eq!(&serde_json::from_str::<M>(&text).expect("ours"), message, "{text}");
    }

    #[test]
    fn every_message_of_a_coordinator_survives_json() {
        let text = "name = \"p\"\nabout = \"a\"\n[population]\nusers = 2\n[[phase]]\nname = \"f\"\nseconds = 0.1\n\
                    [[phase.stream]]\naction = \"send_direct\"\nschedule = { kind = \"step\", rates = [1.5, 2.0] }\n\
                    [[phase.fault]]\nat_s = 0.05\nkill = \"gateway-1\"\n";
        let plan = Plan::parse(text, std::path::Path::new("p.toml")).expect("a plan");
        let target = TargetAddress { address: "h:1".into(), tls_name: "h".into(), ca_pem: "-----".into() };
        let ours = Subject::Ringline { bench_key_pem: "secret".into(), run_id: u64::MAX };
        let peer = Subject::Peer { name: "mqtt".into(), run_id: 1 };
        for subject in [ours, peer] {
            let (plan, targets) = (plan.clone(), vec![target.clone()]);
            let prepare = Prepare { plan, agent_first: 3, agents: 9, targets, subject };
            assert!(!format!("{prepare:?}").contains("secret"), "keys are not for logs");
            round_trip(&ToAgent::Prepare(Box::new(prepare)));
        }
        let begin = ToAgent::Begin { phase: 1, at_us: u64::MAX };
        for message in
            [ToAgent::Probe { number: 7 }, begin, ToAgent::EndPhase, ToAgent::Settle, ToAgent::Finish]
        {
            round_trip(&message);
        }
    }

    #[test]
    fn every_message_of_an_agent_survives_json() {
        let hosts = vec![HostFacts { memory_bytes: u64::MAX, ..HostFacts::default() }];
        let share = PhaseShare {
            measured_s: 0.1,
            streams: vec![StreamShare { errors: [("full".to_owned(), 3)].into(), ..StreamShare::default() }],
            generators: vec![GeneratorResult::default()],
            losses: [("reset".to_owned(), 2)].into(),
            ..PhaseShare::default()
        };
        for message in [
            FromAgent::Hello { version: CONTROL_VERSION, hosts, agents: 1, connections_max: u64::MAX },
            FromAgent::Echo { number: 7, now_us: 8, bound_us: 9 },
            FromAgent::Prepared,
            FromAgent::Progress(Box::default()),
            FromAgent::PhaseDone(Box::new(share)),
            FromAgent::Settled { balance: None },
            FromAgent::Settled { balance: Some(LedgerResult::default()) },
            FromAgent::Failed { detail: "why".into() },
        ] {
            round_trip(&message);
        }
    }
}
