//! A fleet of two releases, in network namespaces and under load, the short way: the command as a person runs it.
//!
//! `bench/upgrade.sh` gives the binaries of an earlier commit. Without them the release before this one is this one,
//! speaking the lowest link version that it knows: so two link versions are spoken in any case.

#[path = "../../tuning/tests/rights/right.rs"]
mod right;

use bench::coordinator::binary;
use bench::coordinator::enclosure::NOT_PERMITTED;
use bench::faults::outcome::Outcome;
use right::{Right, refused};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use wire_protocol::limits::{LINK_VERSION, LINK_VERSION_MIN};
use wire_protocol::link::Versions;

/// Folder with the release before this one.
const VARIABLE: &str = "RINGLINE_PREVIOUS_BIN_DIR";
/// Longest time without service while one process after the other is exchanged, in seconds. Without a hand-over it is an
/// election, 1.3 s and more; tests share their machine with other tests.
const LIMIT_S: &str = "4.5";

const _: () = assert!(LINK_VERSION_MIN < LINK_VERSION);

#[test]
fn a_fleet_is_upgraded_process_by_process_and_back_while_it_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let given = std::env::var_os(VARIABLE).map(PathBuf::from);
    let previous = given.clone().unwrap_or_else(|| speaking_of_old(folder.path()));
    let out = folder.path().join("outcomes.json");
    let output = Command::new(env!("CARGO_BIN_EXE_ringline-bench"))
        .args(["faults", "--short", "--limit-s", LIMIT_S, "--rate-scale", "0.5", "--out"])
        .args([out.as_os_str(), "--previous".as_ref(), previous.as_os_str()])
        .output()
        .expect("it starts");
    let said =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(i32::from(NOT_PERMITTED)) {
        return refused(Right::Namespaces, &said);
    }
    println!("{said}");
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&out).expect("it was written");
    let outcomes: Vec<Outcome> = serde_json::from_str(&text).expect("as it is documented");
    assert_eq!(outcomes.len(), 1);
    let outcome = &outcomes[0];
    assert!(outcome.fault == "rolling-upgrade" && outcome.acknowledged > 0, "{outcome:?}");
    assert!(outcome.link_versions.contains(&LINK_VERSION), "the new release among itself: {outcome:?}");
    if given.is_none() {
        assert_eq!(outcome.link_versions, [LINK_VERSION_MIN, LINK_VERSION]);
    }
}

/// Programs that are this release's, and speak the lowest link version alone.
fn speaking_of_old(folder: &Path) -> PathBuf {
    for name in ["ringline-storage", "ringline-gateway"] {
        let program = binary(name).unwrap_or_else(|error| panic!("{error}"));
        let variable = Versions::TEST_VARIABLE;
        let script = format!(
            "#!/bin/sh\n{variable}={LINK_VERSION_MIN} exec '{}' \"$@\"\n",
            program.canonicalize().expect("it is there").display()
        );
        let file = folder.join(name);
        std::fs::write(&file, script).expect("it writes");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its owner may");
    }
    folder.to_owned()
}
