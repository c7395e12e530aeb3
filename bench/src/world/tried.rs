//! What a run really tried: how often things came about that a plan can only ask for.

use std::fmt;
use std::ops::AddAssign;

/// Counts of one run, or of many.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tried {
    /// Messages of devices that came to a gateway and had come before, over a connection that was lost before the answer came.
    pub doubled: u64,
    /// Parcels that came after some of the connection that had taken the place of theirs.
    pub overtaken: u64,
    /// Processes that paused.
    pub pauses: u64,
    /// Those that led a shard which another one led when they went on.
    pub leaders_replaced: u64,
    /// Storage nodes that ended, or did not start, since a sync of their log failed.
    pub syncs_failed: u64,
    /// Fleets that began when all of their first nodes had asked each other.
    pub fleets_begun: u64,
    /// First nodes whose processes went before that, while they waited for the others or in the middle of a step.
    pub begins_cut: u64,
    /// Answers to first nodes of others that ran already and knew their folders.
    pub folders_known: u64,
    /// Machines whose power failed while they showed what no sync had made durable.
    pub power_lost: u64,
    /// Voters that went as soon as somebody led by their votes.
    pub voters_struck: u64,
    /// Storage nodes that went when a leader counted on their patience, and was cut off.
    pub patience_tried: u64,
    /// Snapshots that storage nodes have installed.
    pub snapshots: u64,
    /// Replicas that came back to a node which had lost its replica of the same shard less than three seconds before.
    pub came_back: u64,
    /// Those whose node ran and had not removed by then what it had of the shard.
    pub came_back_whole: u64,
    /// Disks of storage nodes that were lost.
    pub disks_lost: u64,
    /// Starts of such a node as it always was started. Each was refused.
    pub starts_refused: u64,
    /// Starts of such a node as one of a new fleet. Each was refused by another one.
    pub begins_refused: u64,
    /// Runs in which such a node was started as a new one, under its old id, and said that it has forgotten.
    pub forgotten: u64,
    /// Gateways that were asked to leave, and left.
    pub drained: u64,
    /// Devices that such a gateway sent away.
    pub sent_on: u64,
    /// Of those, devices that had a session where they were sent, at the first try.
    pub followed: u64,
    /// Devices that were told to come again since a gateway let in too many already.
    pub put_off: u64,
    /// Cursors that devices moved, and were told so.
    pub cursors: u64,
    /// Runs with open links of the version before this one.
    pub old_links: u64,
    /// Times that all replicas of a node came to hibernate while faults came.
    pub rests_under_faults: u64,
    /// Times that they did afterwards.
    pub rests_afterwards: u64,
}

impl AddAssign for Tried {
    fn add_assign(&mut self, other: Self) {
        self.doubled += other.doubled;
        self.overtaken += other.overtaken;
        self.pauses += other.pauses;
        self.leaders_replaced += other.leaders_replaced;
        self.syncs_failed += other.syncs_failed;
        self.fleets_begun += other.fleets_begun;
        self.begins_cut += other.begins_cut;
        self.folders_known += other.folders_known;
        self.power_lost += other.power_lost;
        self.voters_struck += other.voters_struck;
        self.patience_tried += other.patience_tried;
        self.snapshots += other.snapshots;
        self.came_back += other.came_back;
        self.came_back_whole += other.came_back_whole;
        self.disks_lost += other.disks_lost;
        self.starts_refused += other.starts_refused;
        self.begins_refused += other.begins_refused;
        self.forgotten += other.forgotten;
        self.drained += other.drained;
        self.sent_on += other.sent_on;
        self.followed += other.followed;
        self.put_off += other.put_off;
        self.cursors += other.cursors;
        self.old_links += other.old_links;
        self.rests_under_faults += other.rests_under_faults;
        self.rests_afterwards += other.rests_afterwards;
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doubled, overtaken, pauses, leaders_replaced, disks_lost, .. } = self;
        let Self { syncs_failed, starts_refused, begins_refused, forgotten, drained, cursors, .. } = self;
        let Self { fleets_begun, begins_cut, folders_known, .. } = self;
        let Self { power_lost, voters_struck, patience_tried, snapshots, .. } = self;
        let Self { came_back, came_back_whole, .. } = self;
        let Self { sent_on, followed, put_off, old_links, rests_under_faults, rests_afterwards, .. } = self;
        write!(formatter, "{doubled} messages doubled and {overtaken} parcels overtaken by the network, ")?;
        write!(formatter, "{pauses} pauses ({leaders_replaced} of leaders that were replaced), ")?;
        write!(formatter, "{fleets_begun} fleets begun ({begins_cut} first nodes went before, ")?;
        write!(formatter, "{folders_known} folders known to who ran already), ")?;
        write!(formatter, "{syncs_failed} ends by a failed sync ({power_lost} power failures behind one), ")?;
        write!(formatter, "{voters_struck} voters gone behind their votes, ")?;
        write!(formatter, "{patience_tried} gone that a leader counted on, {snapshots} snapshots, ")?;
        write!(formatter, "{came_back} replicas back soon ({came_back_whole} before all was removed), ")?;
        write!(formatter, "{disks_lost} disks lost ({starts_refused} starts without one refused, ")?;
        write!(formatter, "{begins_refused} as of a new fleet, ")?;
        write!(formatter, "{forgotten} nodes that said what they have forgotten), ")?;
        write!(formatter, "{drained} gateways left, {sent_on} devices sent on ({followed} followed), ")?;
        write!(formatter, "{put_off} put off, {cursors} cursors moved, {old_links} runs with old links, ")?;
        write!(formatter, "all of a node hibernated {rests_under_faults} times under faults, ")?;
        write!(formatter, "{rests_afterwards} times afterwards")
    }
}
