//! `ringline-storage`: a storage node as a process of its own.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use storage_node::StorageConfig;
use storage_node::server::{Ready, serve};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: ringline-storage --config FILE [--new-fleet]

  --new-fleet  this node's folder may be empty although other nodes have copies of its shards: none of them ever ran";

struct Arguments {
    file: PathBuf,
    is_new_fleet: bool,
}

fn main() -> ExitCode {
    let Arguments { file, is_new_fleet } = match arguments(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(detail) => {
            eprintln!("{detail}\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let result = StorageConfig::read(&file).map_err(|error| error.to_string()).and_then(|config| {
        let config = StorageConfig { is_new_fleet, ..config };
        tracing::info!(?config, "configuration");
        serve(config, announce).map_err(|error| error.to_string())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(detail) => {
            eprintln!("ringline-storage: {detail}");
            ExitCode::FAILURE
        }
    }
}

/// The ready line; whoever started this process waits for it.
fn announce(ready: Ready) {
    if let Some(metrics) = ready.metrics {
        tracing::info!("metrics at http://{metrics}/metrics");
    }
    let mut out = io::stdout().lock();
    // A closed standard output is no reason to stop.
    let _ = writeln!(out, "ringline-storage ready: {}", ready.listen).and_then(|()| out.flush());
}

/// `None`: only the usage is wanted.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut file, mut is_new_fleet) = (None, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--config" => file = Some(PathBuf::from(arguments.next().ok_or("--config needs a file")?)),
            "--new-fleet" => is_new_fleet = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    let file = file.ok_or("--config is missing")?;
    Ok(Some(Arguments { file, is_new_fleet }))
}
