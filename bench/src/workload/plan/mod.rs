//! What a run does, as a commented TOML file (`bench/plans/`). Read once into [`Plan`], unknown keys refused, and
//! checked; later code never looks for contradictions again.
//!
//! A plan is a population, a transport, and phases one after another. A phase runs one or more *streams*: each is
//! an action with a schedule of its own. Latency counts from the moment that the schedule says.

mod check;
mod rounds;

pub use check::PlanError;

use serde::{Deserialize, Serialize};

/// A whole run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Short name, also of the result's file.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub about: String,
    /// Makes every random choice: the same seed gives the same users, bodies and due times.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// Who exists.
    pub population: Population,
    /// How clients come in.
    #[serde(default)]
    pub transport: Transport,
    /// What a message is.
    #[serde(default)]
    pub message: MessageShape,
    /// The servers that a local run starts. Not looked at when targets are given.
    #[serde(default)]
    pub server: ServerShape,
    /// Whether every acknowledged message is accounted for.
    #[serde(default)]
    pub ledger: LedgerPlan,
    /// What happens, in order.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

/// Who exists; see `workload/population.rs`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Population {
    /// Users of the whole run; a multiple of `cell_users`.
    pub users: u32,
    /// Devices of each user.
    #[serde(default = "defaults::one")]
    pub devices: u32,
    /// Users of a cell. At least 2, more than `directs`, and at least `group_members`.
    #[serde(default = "defaults::two")]
    pub cell_users: u32,
    /// Direct rooms of each user: 1 joins users in pairs; otherwise an even number of neighbours in the cell.
    #[serde(default = "defaults::one")]
    pub directs: u32,
    /// Groups in each cell.
    #[serde(default)]
    pub groups: u32,
    /// Members of each group: the first users of the cell.
    #[serde(default)]
    pub group_members: u32,
}

/// How clients come in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transport {
    /// Which way.
    pub route: RouteName,
    /// Whether a device that comes back uses its TLS ticket.
    pub resume: bool,
    /// Heartbeat that clients ask for, in seconds; 0: the server's own.
    pub heartbeat_s: u32,
    /// Which gateway a client goes to.
    pub gateway: GatewayChoice,
}

/// Which gateway a client goes to. Wherever it is, it goes where a gateway that leaves sends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayChoice {
    /// Users are spread by their numbers, evenly; the next one after a failure.
    Spread,
    /// The best one for the user, as the gateways say; the next of their list after a failure. The gateways of a local
    /// run know each other then.
    Ranked,
}

/// A way to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteName {
    /// The protocol itself over TLS.
    Native,
    /// WebSocket over TLS.
    WebSocket,
}

/// What a message is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MessageShape {
    /// Bytes of a body; at least what a stamp takes (`workload/stamp.rs`).
    pub body_bytes: u32,
}

/// The servers of a local run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerShape {
    /// Gateways. One with embedded storage if `storages` is 0.
    pub gateways: u32,
    /// Storage nodes.
    pub storages: u32,
    /// Copies of each shard, each on another storage node.
    pub replicas: u32,
    /// Zones to which storage nodes are dealt out in turn, and gateways as well; 0: nobody is told of zones.
    pub zones: u32,
    /// Rows that a storage node keeps for reading, in MiB; 0: as many as it does by default.
    pub block_cache_mib: u32,
    /// Loop threads of each process.
    pub cores: u32,
    /// CPUs that all server processes are bound to, as `taskset -c` takes them; empty: not bound. Agents are bound
    /// to the others.
    pub cpus: String,
    /// Whether gateways hold clients to rates.
    pub rates: RatesChoice,
    /// Connections that a gateway's core accepts, as its own `limits.accepts_per_core` is written; empty: as many as by
    /// default. With `rates = "default"` only.
    pub accepts_per_core: String,
    /// Sessions that it admits, as `limits.hellos_per_core`, likewise.
    pub hellos_per_core: String,
}

/// Whether gateways hold clients to rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatesChoice {
    /// None: what is measured is what a server can do.
    Lifted,
    /// To those of users, conversations and admission. Those of addresses are lifted: all clients come from a few.
    Default,
}

/// Whether every acknowledged message is accounted for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerPlan {
    /// Keeps it: repeats sends until they are answered, and compares all devices and history at the end.
    pub keep: bool,
    /// Most messages of an agent; 40 bytes each in its memory. A run beyond it is void.
    pub messages_max: u64,
}

/// One part of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Names it in results.
    pub name: String,
    /// How long it lasts, in seconds. With `until_done` the longest it may take.
    pub seconds: f64,
    /// Ends early when every stream has done all it can (everybody connected, everything caught up).
    #[serde(default)]
    pub until_done: bool,
    /// Seconds at the start that are left out of figures.
    #[serde(default)]
    pub warm_up_s: f64,
    /// Setting up: left out of the results, and no reason to void a run.
    #[serde(default)]
    pub preparation: bool,
    /// Share of the online devices that stop reading for the phase, 0 to 1.
    #[serde(default)]
    pub slow_readers: f64,
    /// Connections the whole run must hold at the end of the phase; fewer void it.
    #[serde(default)]
    pub connections_min: u64,
    /// What happens.
    #[serde(default, rename = "stream")]
    pub streams: Vec<Stream>,
    /// Servers that end meanwhile. Only with `--faults`, but for those marked `always`.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// An action, again and again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// What is done.
    pub action: ActionName,
    /// Devices are taken in steps of this: 2 leaves every second one alone. For actions on devices.
    #[serde(default = "defaults::one")]
    pub stride: u32,
    /// When.
    pub schedule: Schedule,
}

/// What a stream does. Users, devices and rooms are taken in turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionName {
    /// An offline device comes online. Latency: due → ready.
    Connect,
    /// An online device leaves without a word and comes back at once. Latency: due → ready.
    Reconnect,
    /// An online device leaves and stays away.
    Disconnect,
    /// Makes the next room exist. Latency: due → answered.
    OpenRoom,
    /// A message into the next direct room, its members in turn. Latency: due → accepted, and due → delivered on
    /// each other online device of the room.
    SendDirect,
    /// The same for groups.
    SendGroup,
    /// An offline device comes online and gets all it has missed. Latency: due → last message.
    CatchUp,
    /// The newest 50 messages of the next room. Latency: due → page.
    History,
    /// A read cursor in the next room. Latency: due → answered.
    Read,
}

/// When a stream acts. Rates are of the whole run, in actions a second.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Evenly.
    Constant {
        /// Actions a second.
        rate: f64,
    },
    /// With exponential gaps, as independent users make them.
    Poisson {
        /// Actions a second on average.
        rate: f64,
    },
    /// Evenly, the rate growing or falling linearly over the phase.
    Ramp {
        /// At the start.
        from: f64,
        /// At the end.
        to: f64,
    },
    /// Evenly, the rate changing all at once.
    Step {
        /// Rates, each for the same part of the phase.
        rates: Vec<f64>,
    },
    /// The next one as soon as one is answered: no due times, so latency counts from the sending, and says
    /// nothing of what users would see. For the highest rate, and for preparations.
    Closed {
        /// Unanswered at a time, in the whole run.
        in_flight: u32,
        /// Ends after so many; 0: when the phase does.
        #[serde(default)]
        count: u64,
    },
}

/// A server that ends.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Seconds after the phase's start.
    pub at_s: f64,
    /// `gateway-1`, `storage-2`, …
    pub kill: String,
    /// By which signal.
    #[serde(default)]
    pub signal: FaultSignal,
    /// Started again so long after its end, in seconds; none: it stays away.
    pub restart_after_s: Option<f64>,
    /// Also without `--faults`: the fault is what the plan is about.
    #[serde(default)]
    pub always: bool,
}

/// What a server is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultSignal {
    /// SIGKILL: it ends at once, without a word.
    #[default]
    Kill,
    /// SIGTERM: it leaves; a gateway sends its clients away, each in its turn, and then ends.
    Term,
}

mod defaults {
    pub fn seed() -> u64 {
        1
    }
    pub fn one() -> u32 {
        1
    }
    pub fn two() -> u32 {
        2
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self { route: RouteName::Native, resume: true, heartbeat_s: 30, gateway: GatewayChoice::Spread }
    }
}

impl Default for MessageShape {
    fn default() -> Self {
        Self { body_bytes: 200 }
    }
}

impl Default for ServerShape {
    fn default() -> Self {
        Self {
            gateways: 1,
            storages: 0,
            replicas: 1,
            zones: 0,
            block_cache_mib: 0,
            cores: 1,
            cpus: "0".into(),
            rates: RatesChoice::Lifted,
            accepts_per_core: String::new(),
            hellos_per_core: String::new(),
        }
    }
}

impl Default for LedgerPlan {
    fn default() -> Self {
        Self { keep: false, messages_max: 20_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_plan_of_the_project_is_a_plan() {
        let bench = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
        let folder = Path::new(&bench).join("plans");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("plans are there") {
            let path = entry.expect("an entry").path();
            let plan = Plan::read(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(plan.name.as_str()));
            names.push(plan.name);
        }
        assert!(names.iter().any(|name| name == "canonical") && names.len() >= 12, "{names:?}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let plan = |population: &str, phase: &str| {
            let text =
                format!("name = 'p'\nabout = ''\n[population]\n{population}\n[[phase]]\nname = 'x'\n{phase}");
            Plan::parse(&text, Path::new("p.toml")).map_err(|error| error.to_string())
        };
        assert!(plan("users = 4", "seconds = 1").is_ok());
        let paced = "seconds = 1\n[server]\nrates = 'default'\nhellos_per_core = '9 per second, burst 9'";
        assert!(plan("users = 4", paced).is_ok());
        assert!(plan("users = 100000", "seconds = 1\n[transport]\ngateway = 'ranked'").is_ok());
        let wrong = [
            ("users = 3", "seconds = 1", "population.users"),
            ("users = 4\ndevices = 0", "seconds = 1", "population.devices"),
            ("users = 6\ncell_users = 3", "seconds = 1", "population.directs"),
            ("users = 6\ncell_users = 6\ndirects = 6", "seconds = 1", "population.directs"),
            ("users = 4\ngroups = 1\ngroup_members = 3", "seconds = 1", "population.group_members"),
            ("users = 4", "seconds = 0", "phase x: seconds"),
            ("users = 4", "seconds = 1e9", "phase x: seconds"),
            ("users = 4", "seconds = 1\nwarm_up_s = 1", "warm_up_s"),
            ("users = 4", "seconds = 1\nslow_readers = 2", "slow_readers"),
            (
                "users = 4",
                "seconds = 1\nstream = [{action='read',schedule={kind='constant',rate=0}}]",
                "rate must",
            ),
            (
                "users = 4",
                "seconds = 1\nstream = [{action='read',schedule={kind='closed',in_flight=0}}]",
                "in_flight",
            ),
            ("users = 4", "seconds = 1\nfault = [{at_s=2,kill='x'}]", "fault.at_s"),
            ("users = 4", "seconds = 1\nfault = [{at_s=0,kill='x',restart_after_s=-1}]", "restart_after_s"),
            (
                "users = 4",
                "seconds = 1\nfault = [{at_s=0,kill='x',restart_after_s=86401}]",
                "restart_after_s",
            ),
            ("users = 4", "seconds = 1\nfault = [{at_s=0,kill='x',restart_after_s=nan}]", "restart_after_s"),
            ("users = 4", "seconds = 1\nfault = [{at_s=0,kill='x',signal='hup'}]", "term"),
            ("users = 4", "seconds = 1\n[server]\nstorages = 2\nzones = 3", "server.zones"),
            (
                "users = 4",
                "seconds = 1\n[server]\nhellos_per_core = '9 per second, burst 9'",
                "server.hellos_per_core",
            ),
            (
                "users = 4",
                "seconds = 1\n[server]\nrates = 'default'\naccepts_per_core = '9 a second'",
                "server.accepts_per_core",
            ),
            ("users = 4", "seconds = 1\n[server]\nrates = 'low'", "lifted"),
            ("users = 200000", "seconds = 1\n[transport]\ngateway = 'ranked'", "transport.gateway"),
            ("users = 4", "seconds = 1\nspeed = 2", "speed"),
            ("users = 4\npeople = 1", "seconds = 1", "people"),
        ];
        for (population, phase, culprit) in wrong {
            let error = plan(population, phase).expect_err(phase);
            assert!(error.contains(culprit), "{culprit} is not named: {error}");
        }
        let body =
            "name='p'\nabout=''\npopulation={users=2}\nmessage={body_bytes=8}\nphase=[{name='x',seconds=1}]";
        assert!(Plan::parse(body, Path::new("p")).is_err());
    }
}
