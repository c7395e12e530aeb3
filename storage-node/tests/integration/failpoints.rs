//! The process dies at each named place between a commit and the last push, under load: the promises hold as after
//! any other kill.

use crate::certificates;
use crate::crash::{Extent, World, setup};
use crate::process::{Link, Process};

/// Places that every message passes, and how often before the process dies there.
const UNDER_LOAD: [(&str, u64); 13] = [
    ("log-writing", 30),
    ("log-syncing", 30),
    ("log-synced", 30),
    ("committed", 40),
    ("applied", 40),
    ("rows-written", 40),
    ("answering", 40),
    ("feed-sending", 40),
    ("feed-taken", 50),
    ("delivering", 40),
    ("deliveries-sent", 40),
    ("checkpoint-proposing", 3),
    ("checkpointed", 3),
];
/// Places that a start passes once it has applied what the log held.
const AFTER_A_START: [&str; 3] = ["rows-syncing", "flushed", "cut"];

#[test]
fn a_process_that_dies_at_a_named_place_keeps_its_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::make(folder.path());
    let setup = setup(folder.path(), &tls);
    let mut world = World::new(0x5eed);
    let process = Process::start(&setup);
    world.create(&mut Link::open(process.address, &tls).expect("it is ready")).expect("it lives");
    process.kill();
    for round in 0..2u64 {
        for (number, (place, passes)) in UNDER_LOAD.into_iter().enumerate() {
            // A start passes some of these places, too.
            let passes = passes + round * 7;
            if let Ok(process) = Process::start_dying_at(&setup, &format!("{place}:{passes}")) {
                // It may die while the link is being opened, or while sessions are attached.
                if let Ok(mut link) = Link::open(process.address, &tls)
                    && world.attach(&mut link).is_ok()
                {
                    world.load_until_it_dies(link);
                }
                assert!(!process.wait().success(), "{place}: it ended by itself");
            }
            // One of them: the other one comes by only when there is something to apply again.
            let after_start = AFTER_A_START[number % AFTER_A_START.len()];
            if let Ok(process) = Process::start_dying_at(&setup, after_start) {
                assert!(!process.wait().success(), "{after_start}: it ended by itself");
            }
            let process = Process::start(&setup);
            let mut link = Link::open(process.address, &tls).expect("it is ready");
            world.check(&mut link, Extent::New).unwrap_or_else(|error| panic!("{place}: {error}"));
            world.repeat(&mut link).unwrap_or_else(|error| panic!("{place}: {error}"));
            world.check(&mut link, Extent::New).unwrap_or_else(|error| panic!("{place}: {error}"));
            world.check_feeds(&mut link).unwrap_or_else(|error| panic!("{place}: {error}"));
            process.kill();
        }
    }
    let process = Process::start(&setup);
    let mut link = Link::open(process.address, &tls).expect("it is ready");
    world.check(&mut link, Extent::All).expect("it lives");
    process.terminate();
    assert!(world.pushes() > 0, "nothing was pushed before a death");
}
