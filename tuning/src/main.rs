//! `ringline-tune check [PROFILE]`: compares this machine with a profile and changes nothing.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use tuning::{Profile, RealHost, check};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => "single",
        ["check", name] => name,
        _ => {
            eprintln!("ringline-tune check [PROFILE]: what this machine is set to, and what the role wants");
            return ExitCode::from(2);
        }
    };
    let profile = match Profile::named(name) {
        Ok(profile) => profile,
        Err(error) => {
            eprintln!("ringline-tune: {error}");
            return ExitCode::from(2);
        }
    };
    println!("{name}: {}", profile.role);
    let findings = check(&profile, &RealHost);
    for finding in &findings {
        let wanted = &finding.wanted;
        let present = finding.present.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let bound = wanted.at_least.map(|least| format!("at least {least}"));
        let bound = bound.or(wanted.exactly.map(|exact| exact.to_string())).unwrap_or_default();
        let mark = if finding.serves() { "ok  " } else { "LOW " };
        println!("{mark} {}: {present} (wanted: {bound})", wanted.setting);
        if !finding.serves() {
            println!("     why: {}\n     left as it is: {}", wanted.reason, wanted.cost);
        }
    }
    if findings.iter().all(tuning::Finding::serves) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
