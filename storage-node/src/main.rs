//! `ringline-storage`: a storage node as a process of its own, and the commands for whoever runs one.

#![forbid(unsafe_code)]

mod command;

use command::{Command, USAGE};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use storage_node::StorageConfig;
use storage_node::config::Beginning;
use storage_node::server::{Ready, serve};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let result = match Command::parse(std::env::args().skip(1)) {
        Ok(Command::Help) => print(USAGE),
        Ok(Command::Serve { file, beginning }) => run(&file, beginning),
        Ok(Command::Admin(question)) => question.ask().and_then(|answer| print(&answer)),
        Ok(Command::Backup(work)) => match work.carry_out() {
            Ok((text, true)) => print(&text),
            Ok((text, false)) => print(&text).and(Err("these backups are not whole".to_owned())),
            Err(detail) => Err(detail),
        },
        Err(detail) => {
            eprintln!("{detail}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(detail) => {
            eprintln!("ringline-storage: {detail}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path, beginning: Beginning) -> Result<(), String> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let config = StorageConfig::read(file).map_err(|error| error.to_string())?;
    let config = StorageConfig { beginning, ..config };
    tracing::info!(?config, "configuration");
    serve(config, announce).map_err(|error| error.to_string())
}

/// The ready line; whoever started this process waits for it.
fn announce(ready: Ready) {
    if let Some(metrics) = ready.metrics {
        tracing::info!("metrics at http://{metrics}/metrics");
    }
    // A closed standard output is no reason to stop.
    let _ = print(&format!("ringline-storage ready: {}", ready.listen));
}

/// To standard output.
fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    let printed = writeln!(out, "{text}").and_then(|()| out.flush());
    printed.map_err(|error| format!("standard output: {error}"))
}
