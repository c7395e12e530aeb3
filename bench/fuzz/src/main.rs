//! libFuzzer's process: `RINGLINE_FUZZ_TARGET` names what it throws bytes at, its arguments are libFuzzer's own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringline_fuzz::{TARGETS, Target, target};
use std::sync::OnceLock;

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("RINGLINE_FUZZ_TARGET").unwrap_or_default();
        target(&name).unwrap_or_else(|| {
            let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!("RINGLINE_FUZZ_TARGET: there is no target {name:?}; there are {}", known.join(", "));
            std::process::exit(2)
        })
    })
}

fuzz_target!(|data: &[u8]| (chosen().run)(data));
