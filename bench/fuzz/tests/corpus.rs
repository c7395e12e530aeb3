//! The kept corpus, and changes of it from fixed seeds: the same inputs every time, on any machine.

use ringline_fuzz::mutate::{Random, mutate};
use ringline_fuzz::{TARGETS, Target, corpus};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Changed inputs for each target.
const CHANGED: usize = 20_000;
/// The same for a target that opens files, or shakes hands, for each.
const CHANGED_SLOWLY: usize = 600;
/// Those.
const SLOW: [&str; 4] = ["log-files", "raft-group", "snapshots", "tls"];

fn inputs_of(target: &Target) -> Vec<Vec<u8>> {
    let file = corpus::file_of(target.name);
    corpus::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Fails with the input's bytes, so that it can be kept.
fn check(target: &Target, bytes: &[u8], from: &str) {
    let run = AssertUnwindSafe(|| (target.run)(bytes));
    if catch_unwind(run).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{}: broken by {from}: {hex}", target.name);
    }
}

#[test]
fn every_kept_input_passes() {
    for target in TARGETS {
        let inputs = inputs_of(target);
        assert!(inputs.len() >= 3, "{}: {} inputs", target.name, inputs.len());
        for (number, bytes) in inputs.iter().enumerate() {
            check(target, bytes, &format!("kept input {number}"));
        }
    }
}

#[test]
fn changed_inputs_pass() {
    for (number, target) in TARGETS.iter().enumerate() {
        let inputs = inputs_of(target);
        let mut random = Random::new(number as u64);
        let count = if SLOW.contains(&target.name) { CHANGED_SLOWLY } else { CHANGED };
        for round in 0..count {
            let pick = |random: &mut Random| &inputs[random.below(inputs.len())];
            let (input, other) = (pick(&mut random).clone(), pick(&mut random).clone());
            check(target, &mutate(&mut random, &input, &other), &format!("change {round}"));
        }
    }
}

#[test]
fn each_target_has_its_corpus_and_no_corpus_is_left_over() {
    let files = fs::read_dir(corpus::file_of("any").parent().expect("a folder")).expect("the corpus");
    let mut files: Vec<String> =
        files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    files.sort();
    let mut names: Vec<String> = TARGETS.iter().map(|target| format!("{}.bin", target.name)).collect();
    names.sort_unstable();
    assert_eq!(files, names);
}

/// The table of docs/reliability.md is of the corpus that stands beside it.
#[test]
fn the_table_says_how_many_inputs_are_kept() {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this checkout is");
    let page = Path::new(&own).join("../../docs/reliability.md");
    let page = fs::read_to_string(&page).expect("the page");
    for target in TARGETS {
        let begin = format!("| `{}` | ", target.name);
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with(&begin)).collect();
        let said = rows.iter().filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
        let said: Vec<usize> = said.filter_map(|count| count.replace(',', "").parse().ok()).collect();
        assert_eq!(said, [inputs_of(target).len()], "{}: kept, as the page says", target.name);
    }
}
