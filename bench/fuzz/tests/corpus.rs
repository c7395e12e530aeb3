//! The kept corpus, and changes of it from fixed seeds: the same inputs every time, on any machine.

use ringline_fuzz::mutate::{Random, mutate};
use ringline_fuzz::{TARGETS, Target};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Changed inputs for each target.
const CHANGED: usize = 20_000;
/// The same for a target that opens files for each.
const CHANGED_WITH_FILES: usize = 600;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<(PathBuf, Vec<u8>)> = files
        .map(|file| file.expect("an entry").path())
        .map(|path| {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes)
        })
        .collect();
    inputs.sort();
    inputs
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
        let inputs = corpus(target);
        assert!(inputs.len() >= 3, "{}: {} inputs", target.name, inputs.len());
        for (path, bytes) in inputs {
            check(target, &bytes, &path.display().to_string());
        }
    }
}

#[test]
fn changed_inputs_pass() {
    for (number, target) in TARGETS.iter().enumerate() {
        let inputs = corpus(target);
        let mut random = Random::new(number as u64);
        let count = if target.name == "log-files" { CHANGED_WITH_FILES } else { CHANGED };
        for round in 0..count {
            let pick = |random: &mut Random| &inputs[random.below(inputs.len())].1;
            let (input, other) = (pick(&mut random).clone(), pick(&mut random).clone());
            check(target, &mutate(&mut random, &input, &other), &format!("change {round}"));
        }
    }
}

#[test]
fn names_are_the_folders_of_the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<String> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
}
