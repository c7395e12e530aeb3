//! `verify`: whether a live cluster keeps its word, tried by accounts that were given.

use bench::agent::Trust;
use bench::coordinator::control::flags::{FlagError, Flags};
use bench::verify::VerifyError;
use bench::verify::accounts;
use bench::verify::run::{Check, Mode};
use bench::verify::stage::{Amount, Rooms};
use std::path::Path;
use std::process::ExitCode;

/// Messages when no number is given: every device of four sends 50, with ten repeats.
const MESSAGES_DEFAULT: u64 = 200;
/// Messages a second when no rate is given.
const RATE_DEFAULT: f64 = 20.0;
/// Seconds when none are given.
const SECONDS_DEFAULT: u64 = 120;
/// The process ends with this when nothing can be said.
const EXIT_NOT_CHECKED: u8 = 2;

/// `ringline-bench verify …`: ends with 0, 1 or 2, never with an error.
pub fn command(arguments: &[String]) -> ExitCode {
    let (check, out) = match read(arguments) {
        Ok(read) => read,
        Err(error) => {
            eprintln!("ringline-bench verify: NOT CHECKED: {error} (trying again does not help)");
            return ExitCode::from(EXIT_NOT_CHECKED);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ringline-bench verify: NOT CHECKED: {error} (trying again may help)");
            return ExitCode::from(EXIT_NOT_CHECKED);
        }
    };
    let outcome = runtime.block_on(check.make(&|line| eprintln!("{line}")));
    print!("{}", outcome.table());
    if let Some(out) = out {
        let text = serde_json::to_vec_pretty(&outcome).expect("the outcome has no keys but text");
        if let Err(error) = std::fs::write(&out, text) {
            eprintln!("ringline-bench verify: {out}: {error}");
            return ExitCode::from(EXIT_NOT_CHECKED.max(outcome.exit_code()));
        }
    }
    ExitCode::from(outcome.exit_code())
}

fn read(arguments: &[String]) -> Result<(Check, Option<String>), VerifyError> {
    let asked = |FlagError(detail)| VerifyError::Asked(detail);
    let valued =
        ["--target", "--ca", "--tls-name", "--accounts", "--messages", "--rate", "--seconds", "--out"];
    let mut flags = Flags::parse(arguments, &valued, &["--group", "--history-only"]).map_err(asked)?;
    flags.no_operand().map_err(asked)?;
    let file = flags.needed("--accounts").map_err(asked)?;
    let messages = flags.number("--messages").map_err(asked)?;
    let rate = flags.decimal("--rate").map_err(asked)?;
    let mode = if flags.has("--history-only") {
        if messages.is_some() || rate.is_some() || flags.has("--group") {
            let detail = "--history-only sends nothing: not together with --messages, --rate or --group";
            return Err(VerifyError::Asked(detail.into()));
        }
        Mode::HistoryOnly
    } else {
        let amount =
            Amount { messages: messages.unwrap_or(MESSAGES_DEFAULT), rate: rate.unwrap_or(RATE_DEFAULT) };
        Mode::Messages(amount, if flags.has("--group") { Rooms::DirectsAndGroup } else { Rooms::Directs })
    };
    let check = Check {
        targets: flags.all("--target"),
        tls_name: flags.one("--tls-name").map_err(asked)?,
        trust: flags.one("--ca").map_err(asked)?.map_or(Trust::System, |file| Trust::File(file.into())),
        accounts: accounts::read(Path::new(&file))?,
        mode,
        seconds: flags.number("--seconds").map_err(asked)?.unwrap_or(SECONDS_DEFAULT),
    };
    check.check()?;
    Ok((check, flags.one("--out").map_err(asked)?))
}
