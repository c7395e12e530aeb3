//! The faults by name: what begins each, and what heals it.

use super::FaultsError;
use super::fleet::Fleet;
use crate::coordinator::network::Direction;
use rustix::process::Signal;
use std::time::Duration;

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// kill -9 of a storage node; started again.
    Kill,
    /// SIGSTOP of a storage node; SIGCONT. Its connections stand, and nobody is told.
    Stop,
    /// A storage node's packets vanish, both ways.
    Cut,
    /// The same between it and the other storage nodes alone: gateways still reach it.
    CutPeers,
    /// What a storage node sends vanishes; it hears.
    CutOut,
    /// What is sent to a storage node vanishes; it speaks.
    CutIn,
    /// A storage node's link carries next to nothing.
    SlowLink,
    /// A storage node's file system is full; then there is room, and it is started again.
    DiskFull,
    /// A storage node's wall clock is an hour ahead, and later right again.
    ClockAhead,
    /// A storage node's wall clock is an hour behind, and later right again.
    ClockBehind,
    /// The wall clocks of all storage nodes are set back by an hour, and then one of them is killed.
    ClocksBehindKill,
    /// kill -9 of a gateway; started again.
    KillGateway,
    /// A zone is cut off: a storage node and a gateway.
    ZoneLoss,
    /// Each process is told to end (SIGTERM), and started again once it has; storage nodes first.
    RollingRestart,
    /// A fourth storage node joins, gets its share of all shards, gives it back, and leaves.
    ShardMoves,
    /// The fleet runs the release before this one; each process ends and is started again as this release, storage nodes
    /// first. The first of each kind goes back once more before the next one's turn.
    RollingUpgrade,
}

/// Who is hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Victim {
    /// Index of the storage node; `None`: none.
    pub storage: Option<usize>,
    /// Index of the gateway.
    pub gateway: Option<usize>,
}

impl Kind {
    /// All that need one release alone, in the order of a long run.
    pub const ALL: [Kind; 15] = [
        Self::Kill,
        Self::Stop,
        Self::Cut,
        Self::CutPeers,
        Self::CutOut,
        Self::CutIn,
        Self::SlowLink,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::ClocksBehindKill,
        Self::DiskFull,
        Self::KillGateway,
        Self::ZoneLoss,
        Self::RollingRestart,
        Self::ShardMoves,
    ];

    /// As the command line and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::CutPeers => "cut-peers",
            Self::CutOut => "cut-out",
            Self::CutIn => "cut-in",
            Self::SlowLink => "slow-link",
            Self::DiskFull => "disk-full",
            Self::ClockAhead => "clock-ahead",
            Self::ClockBehind => "clock-behind",
            Self::ClocksBehindKill => "clocks-behind-kill",
            Self::KillGateway => "kill-gateway",
            Self::ZoneLoss => "zone-loss",
            Self::RollingRestart => "rolling-restart",
            Self::ShardMoves => "shard-moves",
            Self::RollingUpgrade => "rolling-upgrade",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::RollingUpgrade]).find(|kind| kind.name() == name)
    }

    /// Whether the hit node cannot lead, so that another copy has to.
    pub fn takes_leader(self) -> bool {
        match self {
            Self::Kill
            | Self::Stop
            | Self::Cut
            | Self::CutPeers
            | Self::CutOut
            | Self::CutIn
            | Self::DiskFull
            | Self::ClocksBehindKill
            | Self::ZoneLoss => true,
            Self::SlowLink
            | Self::ClockAhead
            | Self::ClockBehind
            | Self::KillGateway
            | Self::RollingRestart
            | Self::ShardMoves
            | Self::RollingUpgrade => false,
        }
    }

    /// Whom it hits: the storage node that leads most shards, where it is one.
    pub fn victim(self, busiest: usize) -> Victim {
        match self {
            Self::KillGateway => Victim { storage: None, gateway: Some(0) },
            Self::ZoneLoss => Victim { storage: Some(busiest), gateway: Some(0) },
            Self::RollingRestart | Self::ShardMoves | Self::RollingUpgrade => {
                Victim { storage: None, gateway: None }
            }
            _ => Victim { storage: Some(busiest), gateway: None },
        }
    }

    /// What has to have happened before: harmless by itself.
    pub fn prepare(self, fleet: &Fleet) -> Result<(), FaultsError> {
        if self == Self::ClocksBehindKill { fleet.set_clocks(-CLOCK_JUMP_S) } else { Ok(()) }
    }

    /// Breaks it.
    pub fn begin(self, fleet: &mut Fleet, victim: Victim) -> Result<(), FaultsError> {
        let storage = victim.storage.unwrap_or(0);
        match self {
            Self::Kill => fleet.cluster.storages[storage].kill(),
            Self::Stop => fleet.cluster.storages[storage].signal(Signal::STOP)?,
            Self::Cut => fleet.cut_off(&fleet.storage(storage))?,
            Self::CutPeers => {
                let own = fleet.storage(storage);
                for other in (0..fleet.cluster.storages.len()).filter(|other| *other != storage) {
                    fleet.network.cut_between(&own, &fleet.storage(other))?;
                    fleet.network.cut_between(&fleet.storage(other), &own)?;
                }
            }
            Self::CutOut => fleet.network.cut(&fleet.storage(storage), Direction::From)?,
            Self::CutIn => fleet.network.cut(&fleet.storage(storage), Direction::To)?,
            Self::SlowLink => {
                fleet.network.slow_down(&fleet.storage(storage), SLOW_KBIT, SLOW_QUEUE_MS)?;
            }
            Self::DiskFull => fleet.fill_disk(storage)?,
            Self::ClockAhead => fleet.set_clock(storage, CLOCK_JUMP_S)?,
            Self::ClockBehind => fleet.set_clock(storage, -CLOCK_JUMP_S)?,
            Self::ClocksBehindKill => fleet.cluster.storages[storage].kill(),
            Self::KillGateway => fleet.cluster.gateways[victim.gateway.unwrap_or(0)].kill(),
            Self::ZoneLoss => {
                fleet.cut_off(&fleet.storage(storage))?;
                fleet.cut_off(&fleet.gateway(victim.gateway.unwrap_or(0)))?;
            }
            Self::RollingRestart => fleet.restart_in_turn()?,
            Self::ShardMoves => fleet.move_shards()?,
            Self::RollingUpgrade => fleet.upgrade_in_turn()?,
        }
        Ok(())
    }

    /// Mends it.
    pub fn heal(self, fleet: &mut Fleet, victim: Victim) -> Result<(), FaultsError> {
        let storage = victim.storage.unwrap_or(0);
        match self {
            Self::Kill => drop(fleet.cluster.storages[storage].restart()?),
            Self::Stop => fleet.cluster.storages[storage].signal(Signal::CONT)?,
            Self::Cut | Self::CutPeers | Self::CutOut | Self::CutIn | Self::SlowLink | Self::ZoneLoss => {
                fleet.network.heal()?
            }
            Self::DiskFull => fleet.free_disk(storage)?,
            Self::ClockAhead | Self::ClockBehind => fleet.set_clock(storage, 0)?,
            Self::ClocksBehindKill => {
                fleet.cluster.storages[storage].restart()?;
                fleet.set_clocks(0)?;
            }
            Self::KillGateway => drop(fleet.cluster.gateways[victim.gateway.unwrap_or(0)].restart()?),
            Self::RollingRestart | Self::ShardMoves | Self::RollingUpgrade => {}
        }
        Ok(())
    }

    /// How long it lasts before it is healed.
    pub fn hold(self, length: Length) -> Duration {
        match (self, length) {
            // It lasts as long as it takes.
            (Self::RollingRestart | Self::ShardMoves | Self::RollingUpgrade, _) => Duration::ZERO,
            // The other nodes give a silent link up after 9 s, and that is to be seen, too.
            (_, Length::Long) => Duration::from_secs(15),
            (_, Length::Short) => Duration::from_secs(4),
        }
    }
}

/// How thorough a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// For every change.
    Short,
    /// For figures.
    Long,
}

/// What a slow link carries: less than a tenth of what replication asks for under the load of these runs.
const SLOW_KBIT: u32 = 256;
/// What waits before it, in milliseconds; more is lost.
const SLOW_QUEUE_MS: u32 = 400;
/// How far a clock jumps: an hour, as one that takes its time zone for its time does.
const CLOCK_JUMP_S: i64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        for kind in Kind::ALL.into_iter().chain([Kind::RollingUpgrade]) {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("flood"), None);
    }
}
