//! A sync that reports an error, once, as Linux does: what was written before it may not be on the disk, and the next sync
//! would not say so. The node acknowledges nothing more, ends with an error that says what could not be synced, and serves
//! again when it is started again.

use crate::certificates;
use crate::crash::{Extent, World, setup};
use crate::process::{Link, Process, Setup, names_numbered_file};
use std::fs;
use std::path::Path;
use storage_node::AFTER_FAILURE;

/// Messages that are acknowledged before the fault.
const LOADED: usize = 300;
/// What a disk says that lost what it was given.
const DEVICE_ERROR: &str = "Input/output error";

/// Syncs of this place fail once for each time that the file is put there.
fn fails(place: &str, switch: &Path) -> String {
    format!("{place}:fail={}", switch.display())
}

/// Without the fault everything acknowledged is there once, in order. What nothing was heard of is there once at most, and
/// is taken when it is sent again.
fn check_without_fault(setup: &Setup<'_>, world: &mut World) {
    let process = Process::start(setup);
    let mut link = Link::open(process.address, setup.tls).expect("it is ready");
    world.check(&mut link, Extent::All).expect("it lives");
    world.repeat(&mut link).expect("it lives");
    world.check(&mut link, Extent::All).expect("it lives");
    world.check_feeds(&mut link).expect("it lives");
    process.terminate();
}

#[test]
fn nothing_is_acknowledged_from_a_failed_sync_of_the_log_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = setup(folder.path(), &tls);
    let switch = folder.path().join("fails");
    let mut world = World::new(0x5eed);
    let process = Process::start_failing_at(&setup, &fails("log-syncing", &switch)).expect("it is ready");
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    world.create(&mut link).expect("it lives");
    world.load(&mut link, LOADED).expect("it lives");
    let acknowledged = world.acknowledged();
    assert!(acknowledged >= LOADED);

    // All syncs of before are over, and whatever comes from here on rests on one that fails or follows it.
    fs::write(&switch, "").expect("it writes");
    world.load_until_it_dies(link);
    assert!(!switch.exists(), "it ended without a sync");
    assert_eq!(world.acknowledged(), acknowledged, "acknowledged although the sync failed");
    assert!(!process.wait().success(), "it ends with an error");
    let said = setup.complaint();
    assert!(names_numbered_file(&said, &setup.data().join("log"), ".raftlog"), "{said}");
    assert!(said.contains(DEVICE_ERROR) && said.contains(AFTER_FAILURE), "{said}");
    check_without_fault(&setup, &mut world);
}

#[test]
fn a_failed_sync_of_the_log_at_the_start_refuses_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = setup(folder.path(), &tls);
    let switch = folder.path().join("fails");
    fs::write(&switch, "").expect("it writes");
    let started = Process::start_failing_at(&setup, &fails("log-syncing", &switch));
    let ended = started.err().expect("it is refused");
    assert!(!ended.success() && !switch.exists());
    let said = setup.complaint();
    assert!(names_numbered_file(&said, &setup.data().join("log"), ".raftlog"), "{said}");
    assert!(said.contains(DEVICE_ERROR), "{said}");

    let process = Process::start(&setup);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    let mut world = World::new(0x5eed);
    world.create(&mut link).expect("it lives");
    world.load(&mut link, LOADED).expect("it lives");
    process.kill();
    check_without_fault(&setup, &mut world);
}

#[test]
fn a_failed_sync_of_the_rows_ends_the_node_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = setup(folder.path(), &tls);
    let switch = folder.path().join("fails");
    let mut world = World::new(0x5eed);
    let process = Process::start_failing_at(&setup, &fails("rows-syncing", &switch)).expect("it is ready");
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    world.create(&mut link).expect("it lives");
    world.load(&mut link, LOADED).expect("it lives");

    // Rows are synced every ten seconds, or after some megabytes. The log holds what is acknowledged meanwhile.
    fs::write(&switch, "").expect("it writes");
    world.load_until_it_dies(link);
    assert!(!switch.exists(), "it ended without a sync of rows");
    assert!(!process.wait().success(), "it ends with an error");
    let said = setup.complaint();
    let place = format!("sync of {}: {DEVICE_ERROR}", setup.data().join("rows").display());
    assert!(said.contains(&place) && said.contains(AFTER_FAILURE), "{said}");
    check_without_fault(&setup, &mut world);
}
