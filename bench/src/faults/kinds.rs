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
    /// SIGSTOP of a gateway; SIGCONT. Its clients' connections stand, and nobody is told.
    GatewayStop,
    /// A gateway's packets vanish, both ways: those of storage nodes and those of its clients.
    GatewayCut,
    /// What storage nodes send to a gateway vanishes: they do what it asks, and it hears no answer. Clients reach it.
    GatewayOneWay,
    /// What a gateway sends to storage nodes vanishes: it hears them, and they never hear what it asks. Clients reach it.
    GatewayUnheard,
    /// Nothing passes between a gateway and the storage node that leads most shards. The followers hear their leader, so
    /// that no other copy comes to lead; clients reach the gateway, and the other gateway reaches all.
    GatewayLeaderCut,
    /// All servers of a zone are cut off at once: its storage nodes, and the gateway where it has one.
    ZoneLoss,
    /// Each process is told to end (SIGTERM), and started again once it has; storage nodes first.
    RollingRestart,
    /// A fourth storage node joins in the zone of another one, gets its share of all shards, gives it back, and leaves.
    ShardMoves,
    /// The fleet runs the release before this one; each process ends and is started again as this release, storage nodes
    /// first. The first of each kind goes back once more before the next one's turn.
    RollingUpgrade,
}

/// Who is hit, by place among servers of the same kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Victims {
    /// Storage nodes.
    pub storages: Vec<usize>,
    /// Gateways.
    pub gateways: Vec<usize>,
}

impl Victims {
    /// All who stand in the zone of this storage node; where zones have no names, it alone. `storages` and `gateways`: the
    /// zone of each.
    pub fn of_zone(storage: usize, storages: &[String], gateways: &[String]) -> Self {
        let Some(zone) = storages.get(storage).filter(|zone| !zone.is_empty()) else {
            return Self { storages: vec![storage], gateways: Vec::new() };
        };
        let within = |zones: &[String]| (0..zones.len()).filter(|index| zones[*index] == *zone).collect();
        Self { storages: within(storages), gateways: within(gateways) }
    }

    /// The one storage node, where a fault is of one.
    fn storage(&self) -> usize {
        self.storages.first().copied().unwrap_or(0)
    }

    /// The one gateway, where a fault is of one.
    fn gateway(&self) -> usize {
        self.gateways.first().copied().unwrap_or(0)
    }
}

impl Kind {
    /// All that need one release alone, in the order of a long run.
    pub const ALL: [Kind; 20] = [
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
        Self::GatewayStop,
        Self::GatewayCut,
        Self::GatewayOneWay,
        Self::GatewayUnheard,
        Self::GatewayLeaderCut,
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
            Self::GatewayStop => "gateway-stop",
            Self::GatewayCut => "gateway-cut",
            Self::GatewayOneWay => "gateway-one-way",
            Self::GatewayUnheard => "gateway-unheard",
            Self::GatewayLeaderCut => "gateway-leader-cut",
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
            | Self::GatewayStop
            | Self::GatewayCut
            | Self::GatewayOneWay
            | Self::GatewayUnheard
            | Self::GatewayLeaderCut
            | Self::RollingRestart
            | Self::ShardMoves
            | Self::RollingUpgrade => false,
        }
    }

    /// Whether a gateway that is hit still reaches all but the hit node: whose shard another one leads has service there.
    pub fn is_of_one_link(self) -> bool {
        self == Self::GatewayLeaderCut
    }

    /// Whom it hits: the storage node that leads most shards, where it is one, and all of its zone, where it is that; the
    /// first gateway, where it is one.
    pub fn victims(self, busiest: usize, zone_of: impl FnOnce(usize) -> Victims) -> Victims {
        match self {
            Self::KillGateway
            | Self::GatewayStop
            | Self::GatewayCut
            | Self::GatewayOneWay
            | Self::GatewayUnheard => Victims { storages: Vec::new(), gateways: vec![0] },
            Self::GatewayLeaderCut => Victims { storages: vec![busiest], gateways: vec![0] },
            Self::ZoneLoss => zone_of(busiest),
            Self::RollingRestart | Self::ShardMoves | Self::RollingUpgrade => Victims::default(),
            _ => Victims { storages: vec![busiest], gateways: Vec::new() },
        }
    }

    /// What has to have happened, and to be so, before: harmless by itself. Gives the zones that the copies of each shard
    /// are in at the least, where that is looked at.
    pub fn prepare(self, fleet: &Fleet) -> Result<Option<u32>, FaultsError> {
        match self {
            Self::ClocksBehindKill => fleet.set_clocks(-CLOCK_JUMP_S).map(|()| None),
            // No copy moves in between: what the zone takes with it is decided by now.
            Self::ZoneLoss => fleet.zones_min().map(Some),
            _ => Ok(None),
        }
    }

    /// Takes back what [`Self::prepare`] did, or the part of it that it came to.
    pub fn take_back(self, fleet: &Fleet) -> Result<(), FaultsError> {
        match self {
            Self::ClocksBehindKill => fleet.set_clocks(0),
            _ => Ok(()),
        }
    }

    /// Breaks it. Gives what [`Self::prepare`] does.
    pub fn begin(self, fleet: &mut Fleet, victims: &Victims) -> Result<Option<u32>, FaultsError> {
        let (storage, gateway) = (victims.storage(), victims.gateway());
        match self {
            Self::Kill => fleet.cluster.storages[storage].kill(),
            Self::Stop => fleet.cluster.storages[storage].signal(Signal::STOP)?,
            Self::Cut => fleet.cut_off(&fleet.storage(storage))?,
            Self::CutPeers => {
                let own = fleet.storage(storage);
                for other in (0..fleet.cluster.storages.len()).filter(|other| *other != storage) {
                    fleet.cut_apart(&own, &fleet.storage(other))?;
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
            Self::KillGateway => fleet.cluster.gateways[gateway].kill(),
            Self::GatewayStop => fleet.cluster.gateways[gateway].signal(Signal::STOP)?,
            Self::GatewayCut => fleet.cut_off(&fleet.gateway(gateway))?,
            Self::GatewayOneWay => {
                let own = fleet.gateway(gateway);
                for storage in 0..fleet.cluster.storages.len() {
                    fleet.network.cut_between(&fleet.storage(storage), &own)?;
                }
            }
            Self::GatewayUnheard => {
                let own = fleet.gateway(gateway);
                for storage in 0..fleet.cluster.storages.len() {
                    fleet.network.cut_between(&own, &fleet.storage(storage))?;
                }
            }
            Self::GatewayLeaderCut => fleet.cut_apart(&fleet.gateway(gateway), &fleet.storage(storage))?,
            Self::ZoneLoss => fleet.names(victims).iter().try_for_each(|server| fleet.cut_off(server))?,
            Self::RollingRestart => fleet.restart_in_turn()?,
            Self::ShardMoves => return fleet.move_shards().map(Some),
            Self::RollingUpgrade => fleet.upgrade_in_turn()?,
        }
        Ok(None)
    }

    /// Mends it.
    pub fn heal(self, fleet: &mut Fleet, victims: &Victims) -> Result<(), FaultsError> {
        let (storage, gateway) = (victims.storage(), victims.gateway());
        match self {
            Self::Kill => drop(fleet.cluster.storages[storage].restart()?),
            Self::Stop => fleet.cluster.storages[storage].signal(Signal::CONT)?,
            Self::Cut
            | Self::CutPeers
            | Self::CutOut
            | Self::CutIn
            | Self::SlowLink
            | Self::GatewayCut
            | Self::GatewayOneWay
            | Self::GatewayUnheard
            | Self::GatewayLeaderCut
            | Self::ZoneLoss => fleet.network.heal()?,
            Self::DiskFull => fleet.free_disk(storage)?,
            Self::ClockAhead | Self::ClockBehind => fleet.set_clock(storage, 0)?,
            Self::ClocksBehindKill => {
                let restarted = fleet.cluster.storages[storage].restart();
                // Also where the node does not start: the clocks of the others must not stay behind.
                let set = self.take_back(fleet);
                restarted?;
                set?;
            }
            Self::KillGateway => drop(fleet.cluster.gateways[gateway].restart()?),
            Self::GatewayStop => fleet.cluster.gateways[gateway].signal(Signal::CONT)?,
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

    /// It lasts until then if no other node leads before.
    pub fn hold_max(self, length: Length) -> Duration {
        match self {
            // The node notices when its log needs the next file.
            Self::DiskFull => Duration::from_secs(40),
            // Who is to lead may be short of time, and how long it took is judged apart.
            _ if self.takes_leader() => Duration::from_secs(15),
            _ => self.hold(length),
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

    #[test]
    fn a_gateways_fault_hits_one_gateway_and_a_storage_node_only_where_it_is_of_their_link() {
        fn no_zone(_: usize) -> Victims {
            unreachable!("no zone is lost")
        }
        let alone = Victims { storages: Vec::new(), gateways: vec![0] };
        let both = Victims { storages: vec![2], gateways: vec![0] };
        for (kind, hit) in [
            (Kind::KillGateway, &alone),
            (Kind::GatewayStop, &alone),
            (Kind::GatewayCut, &alone),
            (Kind::GatewayOneWay, &alone),
            (Kind::GatewayUnheard, &alone),
            (Kind::GatewayLeaderCut, &both),
        ] {
            assert_eq!(kind.victims(2, no_zone), *hit, "{}", kind.name());
            assert!(!kind.takes_leader(), "{}: its followers hear it", kind.name());
            assert_eq!(kind.is_of_one_link(), !hit.storages.is_empty());
        }
        assert_eq!(Kind::ZoneLoss.victims(1, |node| Victims::of_zone(node, &[], &[])).storages, [1]);
    }

    #[test]
    fn a_zone_is_all_who_stand_in_it() {
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let (stand, gateways_stand) = (named(&["a", "b", "c", "a"]), named(&["a", "b"]));
        for (storage, storages, gateways) in [
            (0, vec![0, 3], vec![0]),
            (1, vec![1], vec![1]),
            (2, vec![2], Vec::new()),
            (3, vec![0, 3], vec![0]),
        ] {
            let hit = Victims { storages, gateways };
            assert_eq!(Victims::of_zone(storage, &stand, &gateways_stand), hit);
        }
        let unnamed = named(&["", "", ""]);
        let alone = Victims { storages: vec![1], gateways: Vec::new() };
        assert_eq!(Victims::of_zone(1, &unnamed, &unnamed), alone, "nobody shares a zone without a name");
    }
}
