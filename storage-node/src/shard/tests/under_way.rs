//! Log and rows of a shard stay as they are while a read thread is at them: it would miss an entry, or find another state's
//! rows. Reads are counted by the core (`worker/route.rs`).

use super::*;
use crate::replication::{Replicas, TICK_MS};
use crate::snapshots::{SnapshotReport, SnapshotRequest};
use std::sync::atomic::Ordering;
use wire_protocol::internal::{RaftMessage, ReplicaSet, ShardPlace, SnapshotPoint, raft_message};

/// As after the start of a read, or its end.
fn set_reads(rig: &Rig, reads: usize) {
    rig.marks.reads.store(reads, Ordering::Release);
}

#[test]
fn what_a_replica_leaves_is_removed_once_nobody_reads_it() {
    let folder = folder();
    let mut rig = with_people(Rig::leading(folder.path(), &[2, 3]));
    set_reads(&rig, 1);
    // Others have taken it out, and the fleet knows.
    let place = ShardPlace { nodes: vec![2, 3, 4], changed_at: 99 };
    rig.shard.fleet_changed(place, None, true);
    for _ in 0..5 {
        rig.now_ms += TICK_MS;
        rig.turn();
    }
    assert!(!rig.shard.is_serving(), "it is a replica no more");
    assert!(rig.effects.snapshots.is_empty(), "a thread reads: {:?}", rig.effects.snapshots);
    set_reads(&rig, 0);
    rig.turn();
    let asked = std::mem::take(&mut rig.effects.snapshots);
    assert!(matches!(asked[..], [SnapshotRequest::Remove { shard: SHARD, changed_at: 99 }]), "{asked:?}");
}

#[test]
fn a_snapshot_takes_the_place_of_log_and_rows_once_nobody_reads_them() {
    let folder = folder();
    let mut rig = Rig::open_as(folder.path(), Arc::default(), 500, Replicas::of(1, &[1, 2, 3]));
    rig.turn();
    set_reads(&rig, 1);
    let voters = vec![1, 2, 3];
    let set = ReplicaSet { voters: voters.clone(), ..ReplicaSet::default() };
    let replicas = Some(Box::new(set));
    let point = SnapshotPoint { index: 9, term: 7, voters, learners: Vec::new(), replicas };
    let message = RaftMessage {
        shard: SHARD.0,
        kind: raft_message::Kind::Snapshot as i32,
        from: 2,
        to: 1,
        term: 7,
        snapshot: Some(point),
        ..RaftMessage::default()
    };
    let received = SnapshotReport::Received { message };
    rig.shard.snapshot_report(rig.now_ms, received, &mut rig.effects).expect("the group is well");
    for _ in 0..5 {
        rig.turn();
        rig.persist();
    }
    assert!(rig.effects.snapshots.is_empty(), "a thread reads: {:?}", rig.effects.snapshots);
    set_reads(&rig, 0);
    rig.turn();
    let asked = std::mem::take(&mut rig.effects.snapshots);
    assert!(matches!(asked[..], [SnapshotRequest::Install { shard: SHARD }]), "{asked:?}");
}
