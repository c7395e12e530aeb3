//! The command line: a configuration file and what overrides it.

use super::{ConfigError, GatewayConfig};
use std::path::Path;

/// What `--help` prints.
pub const HELP: &str = "ringline-gateway: the chat gateway

  --config FILE         configuration (TOML); without it the defaults
  --data-dir DIR        overrides data_dir
  --listen ADDRESS      overrides listen (TLS); port 0 takes a free one
  --listen-plain ADDRESS|none   overrides listen_plain (loopback only)
  --metrics ADDRESS|none        overrides metrics (loopback only)
  --advertise HOST:PORT overrides fleet.advertise: this gateway's own address in its fleet
  --help                prints this
";

/// What a command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve with this.
    Serve(Box<GatewayConfig>),
    /// Print [`HELP`].
    Help,
}

/// Reads the arguments after the program's name, and the file they name.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, ConfigError> {
    let mut arguments = arguments.into_iter();
    let mut file = None;
    let mut overrides = Vec::new();
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            return Ok(Invocation::Help);
        }
        let known = ["--config", "--data-dir", "--listen", "--listen-plain", "--metrics", "--advertise"];
        if !known.contains(&flag.as_str()) {
            return Err(ConfigError::Flag(format!("unknown flag {flag:?}; --help lists them")));
        }
        let value = arguments.next().ok_or_else(|| ConfigError::Flag(format!("{flag} needs a value")))?;
        if flag == "--config" {
            file = Some(value);
        } else {
            overrides.push((flag, value));
        }
    }
    let mut config = match file {
        Some(path) => GatewayConfig::read_before_flags(Path::new(&path))?,
        None => GatewayConfig::default(),
    };
    for (flag, value) in overrides {
        match flag.as_str() {
            "--data-dir" => config.data_dir = value.into(),
            "--listen" => {
                let problem = |_| ConfigError::impossible("listen", format!("{value:?} is no address"));
                config.listen = value.parse().map_err(problem)?;
            }
            "--listen-plain" => config.listen_plain = super::optional_address("listen_plain", &value)?,
            "--advertise" => config.fleet.advertise = Some(value),
            _ => config.metrics = super::optional_address("metrics", &value)?,
        }
    }
    config.check()?;
    Ok(Invocation::Serve(Box::new(config)))
}
