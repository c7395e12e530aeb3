//! Disks that fail, fill up, rot, and lose files: an error that names the file, and everything that was acknowledged
//! when the cause is gone.

use crate::replication::whole_batch_behind;
use crate::sim::{Crash, Ended, SYNC_ERROR, SyncKind, World};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Messages of a world.
const MESSAGES: usize = 60;
/// Bits turned round in each file of a world.
const FLIPS: usize = 24;

#[test]
fn a_failed_sync_stops_the_node_and_loses_nothing() {
    let mut failed = 0;
    let kinds = [
        SyncKind::LogWrite,
        SyncKind::LogCut,
        SyncKind::RewriteWrite,
        SyncKind::Rewrite,
        SyncKind::Rows,
        SyncKind::LogFolder,
    ];
    for (seed, kind) in (300..340u64).zip(kinds.into_iter().cycle()) {
        let mut world = World::new(seed, MESSAGES);
        world.disk.fail(Some((kind, 30 + seed % 11 * 15)));
        match world.live(None) {
            Ended::Failed(detail) => {
                failed += 1;
                assert!(detail.contains(SYNC_ERROR), "seed {seed}: {detail}");
                assert!(world.disk.failed_syncs() > 0, "seed {seed}: {detail}");
                let names_file = detail.contains("/data/log/0");
                assert!(names_file || kind == SyncKind::Rows, "seed {seed}, {kind:?}: {detail}");
            }
            // There was nothing more of this kind to sync.
            Ended::Finished => {}
            other => panic!("seed {seed}, {kind:?}: {other:?}"),
        }
        world.disk.fail(None);
        // The process is started again, on a machine that still shows what is not on its disk; then power fails.
        world.crash(Crash::Process);
        let ended = world.live(Some(20 + seed % 60));
        assert!(matches!(ended, Ended::Stopped | Ended::Finished), "seed {seed}, {kind:?}: {ended:?}");
        world.crash(Crash::PowerKeepsNothing);
        let ended = world.live(None);
        assert_eq!(ended, Ended::Finished, "seed {seed}, {kind:?}:\n{}", world.disk.last_steps(60));
    }
    assert!(failed > 20, "{failed} of 40 worlds met the failing sync");
}

#[test]
fn a_sync_that_fails_at_the_start_is_an_error_of_the_start() {
    for kind in [
        SyncKind::DataFolderName,
        SyncKind::Identity,
        SyncKind::IdentityName,
        SyncKind::LogName,
        SyncKind::LogHead,
        SyncKind::LogFolder,
    ] {
        let mut world = World::new(350, 8);
        world.disk.fail(Some((kind, 0)));
        match world.live(None) {
            Ended::Refused(detail) => {
                assert!(detail.contains(SYNC_ERROR) && detail.contains("/data"), "{kind:?}: {detail}");
            }
            other => panic!("{kind:?}: {other:?}"),
        }
        world.disk.fail(None);
        world.crash(Crash::Process);
        assert_eq!(world.live(None), Ended::Finished, "{kind:?}");
    }
}

#[test]
fn a_full_disk_stops_the_node_and_loses_nothing() {
    let mut failed = 0;
    for seed in 400..430u64 {
        let mut world = World::new(seed, MESSAGES);
        assert_eq!(world.live(Some(40 + seed % 13 * 10)), Ended::Stopped, "seed {seed}");
        world.crash(Crash::Process);
        world.disk.set_bytes_max(Some(world.disk.bytes() + (seed as usize % 7) * 300));
        match world.live(None) {
            Ended::Failed(detail) | Ended::Refused(detail) => {
                failed += 1;
                assert!(
                    detail.contains("nospace") && detail.contains("/data/log/0"),
                    "seed {seed}: {detail}"
                );
            }
            Ended::Finished => {}
            other => panic!("seed {seed}: {other:?}"),
        }
        world.disk.set_bytes_max(None);
        world.crash(if seed % 2 == 0 { Crash::Process } else { Crash::PowerKeepsSome });
        let ended = world.live(None);
        assert_eq!(ended, Ended::Finished, "seed {seed}:\n{}", world.disk.last_steps(60));
    }
    assert!(failed > 10, "{failed} of 30 worlds met the full disk");
}

/// How the last life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It was told to stop: rows are durable.
    Clean,
    /// It was killed: some entries are in the log alone.
    Killed,
}

/// A world whose node did everything, and the files it left.
fn ended_world(seed: u64, end: End) -> (World, Vec<(PathBuf, usize)>) {
    let mut world = World::new(seed, MESSAGES);
    world.set_ends_cleanly(end == End::Clean);
    assert_eq!(world.live(None), Ended::Finished, "seed {seed}");
    world.crash(Crash::Process);
    let files = world.disk.files();
    (world, files)
}

#[derive(PartialEq, Eq, Debug)]
enum Judged {
    Whole,
    Refused(String),
    /// The last write of a log file, which nothing tells from one that power failure tore.
    LastWrite,
}

/// What a damaged folder leads to: everything as it was, or a refusal that names where the damage is.
fn judged(world: &mut World, what: &str, may_be_torn: bool) -> Judged {
    match world.live(None) {
        Ended::Finished => Judged::Whole,
        Ended::Refused(detail) => {
            assert!(detail.contains("/data/log") || detail.contains("node.toml"), "{what}: {detail}");
            Judged::Refused(detail)
        }
        _ if may_be_torn => Judged::LastWrite,
        other => panic!("{what}: {other:?}\n{}", world.disk.last_steps(20)),
    }
}

/// Bits turned round in files of worlds that ended like this: refused, without effect, in a last write.
fn flipped(seeds: Range<u64>, end: End) -> [usize; 3] {
    let mut counts = [0; 3];
    for seed in seeds {
        let (mut choose, files) = {
            let (mut world, files) = ended_world(seed, end);
            (world.random().clone(), files)
        };
        for number in (0..files.len()).cycle().take(files.len() * FLIPS) {
            let (mut world, files) = ended_world(seed, end);
            let Some((path, used)) = files.get(number).filter(|(_, used)| *used > 0) else { continue };
            let (at, bit) = (choose.below(*used), choose.below(8) as u8);
            assert!(world.disk.flip(path, at, bit));
            let what = format!("seed {seed}, {end:?}, {} byte {at} of {used}, bit {bit}", path.display());
            let may_be_torn = end == End::Killed && is_in_last_write(&world, path, at);
            match judged(&mut world, &what, may_be_torn) {
                Judged::Refused(detail) => {
                    counts[0] += 1;
                    let names_other =
                        detail.contains("damaged") && !detail.contains(&*path.to_string_lossy());
                    assert!(!names_other, "{what}: {detail}");
                    assert!(world.disk.flip(path, at, bit), "{what}: it is mended");
                    assert_eq!(judged(&mut world, &what, false), Judged::Whole, "{what}, mended");
                }
                Judged::Whole => counts[1] += 1,
                Judged::LastWrite => counts[2] += 1,
            }
        }
    }
    counts
}

/// Whether no whole write stands behind this byte.
fn is_in_last_write(world: &World, path: &Path, at: usize) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let number = name.split('.').next().and_then(|number| number.parse().ok());
    let bytes = world.disk.bytes_of(path);
    number.is_some_and(|number| whole_batch_behind(&bytes[at..], number).is_none())
}

#[test]
fn a_bit_that_rots_after_a_clean_end_is_noticed_or_does_not_matter() {
    let [refused, whole, last_write] = flipped(500..506, End::Clean);
    println!("{refused} refused, {whole} did not matter");
    assert!(refused > 100 && last_write == 0);
}

#[test]
fn a_bit_that_rots_after_a_kill_is_noticed_unless_in_the_last_write() {
    let [refused, whole, last_write] = flipped(510..516, End::Killed);
    println!("{refused} refused, {whole} did not matter, {last_write} in the last write");
    assert!(refused > 100 && last_write < refused / 10);
}

#[test]
fn a_missing_file_is_noticed_or_does_not_matter() {
    for end in [End::Clean, End::Killed] {
        let (mut refused, mut whole) = (0, 0);
        for seed in 600..620u64 {
            let (_, files) = ended_world(seed, end);
            for number in 0..files.len() {
                let (mut world, files) = ended_world(seed, end);
                let Some((path, _)) = files.get(number) else { continue };
                world.disk.lose_file(path);
                let what = format!("seed {seed}, {end:?}, without {} of {files:?}", path.display());
                match judged(&mut world, &what, false) {
                    Judged::Refused(_) => refused += 1,
                    _ => whole += 1,
                }
            }
        }
        println!("{end:?}: {refused} refused, {whole} did not matter");
        assert!(refused > 20);
    }
}
