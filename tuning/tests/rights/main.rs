//! What a machine refuses to tests is not passed over in silence: a test that is refused what its machine gives fails,
//! and `.ci/rights`, which asks the machine, knows the same words as the tests.

mod right;

use right::{Right, VARIABLE, refused};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Wakes the child, and is why it is refused.
const CHILD: &str = "RINGLINE_TEST_REFUSED";

fn root() -> PathBuf {
    let tuning = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    Path::new(&tuning).parent().expect("a crate lies in the workspace").to_owned()
}

/// The child: is refused control groups. Does nothing in an ordinary run.
#[test]
fn child_that_is_refused() {
    let Ok(why) = std::env::var(CHILD) else { return };
    refused(Right::Cgroups, &why);
}

/// Whether the child passes on a machine that gives this (`None`: it was not asked), and what it says.
fn child(given: Option<&str>) -> (bool, String) {
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "child_that_is_refused", "--nocapture"]).env(CHILD, "the kernel said no");
    match given {
        Some(given) => child.env(VARIABLE, given),
        None => child.env_remove(VARIABLE),
    };
    let output = child.output().expect("the child runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}

#[test]
fn a_test_that_is_refused_what_the_machine_gives_fails() {
    let (passed, said) = child(Some("mounts cgroups"));
    assert!(!passed, "{said}");
    assert!(said.contains("this machine gives cgroups, and yet: the kernel said no"), "{said}");
}

#[test]
fn a_test_that_is_refused_what_the_machine_does_not_give_says_so_and_passes() {
    for given in [None, Some(""), Some("mounts perf")] {
        let (passed, said) = child(given);
        assert!(passed, "{given:?}: {said}");
        assert!(said.contains("NOT TRIED for want of cgroups: the kernel said no"), "{given:?}: {said}");
    }
}

#[test]
fn a_right_that_is_misspelt_is_not_taken_for_one() {
    let (passed, said) = child(Some("cgroup"));
    assert!(!passed && said.contains("\"cgroup\", which is no right"), "{said}");
}

/// What `.ci/rights` says that this machine gives, and what it says that it refuses. `before`: what the shell does first.
fn asked(before: &str) -> (Vec<String>, Vec<String>) {
    let script = format!("{before}\n. \"$0\"");
    let output = Command::new("bash").args(["-c", &script]).arg(root().join(".ci/rights")).output();
    let output = output.expect("bash runs");
    let (found, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let denied = said.lines().find_map(|line| line.strip_prefix("rights: this machine refuses: "));
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    (words(&found), words(denied.unwrap_or_default()))
}

#[test]
fn the_machine_is_asked_for_each_right_once() {
    let (found, denied) = asked("");
    let mut words = [found, denied].concat();
    words.sort_unstable();
    let mut known = Right::ALL.map(Right::word);
    known.sort_unstable();
    assert_eq!(words, known);
}

#[test]
fn a_machine_that_refuses_everything_is_no_failure() {
    let (found, denied) = asked("PATH=/nowhere");
    assert_eq!(found, [] as [&str; 0]);
    assert_eq!(denied, Right::ALL.map(Right::word));
}

#[test]
fn every_right_is_explained_and_handed_on() {
    let text = |file: &str| std::fs::read_to_string(root().join(file)).expect("it reads");
    let explained = text("docs/reliability.md");
    for right in Right::ALL {
        let row = format!("| `{}` |", right.word());
        assert!(explained.contains(&row), "docs/reliability.md has no row for {right:?}");
    }
    assert!(text(".ci/run").contains(&format!("export {VARIABLE}\n")), "no test would insist on anything");
}
