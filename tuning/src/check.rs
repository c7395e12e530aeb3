//! The comparison of a machine with a profile, and its report for programs.

use crate::host::Host;
use crate::profile::{Profile, Wanted};
use crate::setting::{Amount, Bound, Change, Present, Setting, Value, Wish, cores_online};
use serde::Serialize;

/// How a setting stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As the role wants it.
    Serves,
    /// Otherwise.
    DoesNotServe,
    /// Means nothing on this machine.
    NotApplicable,
    /// Should be readable and is not.
    Unreadable,
}

/// One setting beside what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which setting.
    pub setting: Setting,
    /// The kernel's name for it.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What the machine has; none if it has nothing, or it cannot be told.
    pub present: Option<Value>,
    /// Where that comes from; or why there is nothing, which names the file.
    pub detail: Option<String>,
    /// What the profile wants on this machine; none if the machine's size cannot be read.
    pub wanted: Option<Bound>,
    /// Why this value.
    pub reason: String,
    /// What leaving it as it is costs.
    pub cost: String,
}

impl Finding {
    /// Whether there is nothing to complain of: it serves, or means nothing here.
    pub fn serves(&self) -> bool {
        matches!(self.state, State::Serves | State::NotApplicable)
    }

    fn of(wanted: &Wanted, machine: &Machine, host: &dyn Host) -> Self {
        let bound = machine.bound(&wanted.wish);
        let (state, present, detail) = match (wanted.setting.present(host), &bound) {
            (Present::NotApplicable(why), _) => (State::NotApplicable, None, Some(why)),
            (Present::Unreadable(why), _) => (State::Unreadable, None, Some(why)),
            (Present::Here(value, _), Err(why)) => (State::Unreadable, Some(value), Some(why.clone())),
            (Present::Here(value, detail), Ok(bound)) => {
                let state = if bound.holds(&value) { State::Serves } else { State::DoesNotServe };
                (state, Some(value), detail)
            }
        };
        Self {
            setting: wanted.setting,
            name: wanted.setting.to_string(),
            state,
            present,
            detail,
            wanted: bound.ok(),
            reason: wanted.reason.clone(),
            cost: wanted.cost.clone(),
        }
    }

    /// How it comes to serve; none if there is nothing to change.
    pub(crate) fn change(&self, host: &dyn Host) -> Option<Change> {
        match (self.state, &self.wanted) {
            (State::DoesNotServe, Some(bound)) => Some(self.setting.change(bound, host)),
            _ => None,
        }
    }
}

/// The size of a machine, on which wishes depend.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Cores online.
    pub cores: Option<u64>,
    /// Memory in KiB.
    pub memory_kib: Option<u64>,
}

impl Machine {
    /// Reads it.
    pub fn of(host: &dyn Host) -> Self {
        let kernel = host.read("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned());
        let memory = host.read("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            line.split_whitespace().next()?.parse().ok()
        });
        let cores = cores_online(host).ok().map(|cores| cores.len() as u64);
        Self { kernel, cores, memory_kib: memory }
    }

    /// What a wish comes to here. An error names the file that does not say how large the machine is.
    fn bound(&self, wish: &Wish) -> Result<Bound, String> {
        Ok(match wish {
            Wish::AtLeast(amount) => Bound::AtLeast(self.amount(*amount)?),
            Wish::AtMost(amount) => Bound::AtMost(self.amount(*amount)?),
            Wish::Exactly(number) => Bound::Exactly(*number),
            Wish::OneOf(words) => Bound::OneOf(words.clone()),
        })
    }

    fn amount(&self, amount: Amount) -> Result<u64, String> {
        /// KiB of a GiB.
        const GIB_KIB: u128 = 1_048_576;
        match amount {
            Amount::Fixed(number) => Ok(number),
            Amount::PerGib(number) => {
                let memory = self.memory_kib.ok_or("/proc/meminfo: no MemTotal")?;
                let product = u128::from(number) * u128::from(memory) / GIB_KIB;
                Ok(u64::try_from(product).unwrap_or(u64::MAX))
            }
            Amount::PerCore(number) => {
                let cores = self.cores.ok_or("/sys/devices/system/cpu/online: no list of cores")?;
                Ok(number.saturating_mul(cores))
            }
        }
    }
}

/// Compares a machine with a profile, setting by setting.
pub fn check(profile: &Profile, host: &dyn Host) -> Vec<Finding> {
    let machine = Machine::of(host);
    profile.settings.iter().map(|wanted| Finding::of(wanted, &machine, host)).collect()
}

/// What `check --json` prints; its fields are described in `docs/operations.md`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always [`Report::SCHEMA`].
    pub schema: &'static str,
    /// Always [`Report::VERSION`].
    pub version: u32,
    /// The profile's name.
    pub profile: String,
    /// The profile's role.
    pub role: String,
    /// The machine's size.
    pub machine: Machine,
    /// Whether every setting serves or means nothing here.
    pub serves: bool,
    /// Each setting, in the profile's order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Names what this is, for who finds it in a file.
    pub const SCHEMA: &'static str = "ringline-tune-check";
    /// Grows when a field changes its meaning or goes; new fields may come without.
    pub const VERSION: u32 = 1;

    /// Compares a machine with a profile.
    pub fn of(profile: &Profile, host: &dyn Host) -> Self {
        let findings = check(profile, host);
        Self {
            schema: Self::SCHEMA,
            version: Self::VERSION,
            profile: profile.name.clone(),
            role: profile.role.clone(),
            machine: Machine::of(host),
            serves: findings.iter().all(Finding::serves),
            findings,
        }
    }
}
