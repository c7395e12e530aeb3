//! One file for each command that has more than a line to do.

mod compare;
mod faults;
mod peers;
mod report;
mod run;
mod search;
mod soak;
mod verify;
mod world;

use bench::agent::load::RunLoad;
use bench::agent::null_server::NullServer;
use bench::agent::service::{Agent, AgentOptions};
use bench::coordinator::control::authority;
use bench::coordinator::control::flags::Flags;
use bench::coordinator::{relay, run::merging};
use bench::measure::host::host_facts;
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// Anything that ends a command; each names its culprit.
pub type Failure = Box<dyn Error>;

/// Carries out a command line.
pub fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    let (command, rest) = arguments.split_first().map_or(("help", [].as_slice()), |(c, r)| (c.as_str(), r));
    let command = if rest.iter().any(|word| word == "--help" || word == "-h") { "help" } else { command };
    match command {
        "run" => run::command(rest),
        "search" => search::command(rest),
        "faults" => faults::command(rest),
        "soak" => soak::command(rest),
        "compare" => compare::command(rest),
        "peers" => peers::command(rest),
        "report" => report::command(rest),
        "verify" => Ok(verify::command(rest)),
        "world" => world::command(rest),
        "agent" => agent(rest),
        "relay" => relay::command(rest, merging()).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        "authority" => authority_command(rest),
        "null-server" => null_server(rest),
        "help" | "--help" | "-h" => {
            print!("{}", super::HELP);
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("unknown command {other}\n{}", super::HELP).into()),
    }
}

fn agent(arguments: &[String]) -> Result<ExitCode, Failure> {
    let host = host_facts("agent");
    let options = AgentOptions::parse(arguments, host.open_files_max)?;
    Agent::new(options, host).run(&mut |setup, clock| RunLoad::new(setup, clock))?;
    Ok(ExitCode::SUCCESS)
}

fn authority_command(arguments: &[String]) -> Result<ExitCode, Failure> {
    for files in authority::command(arguments)? {
        println!("{}  {}", files.cert.display(), files.key.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn null_server(arguments: &[String]) -> Result<ExitCode, Failure> {
    let mut flags = Flags::parse(arguments, &["--listen", "--certificate"], &[])?;
    flags.no_operand()?;
    let listen = flags.one("--listen")?.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = NullServer::bind(listen.parse().map_err(|_| format!("--listen: {listen} is no address"))?)?;
    if let Some(file) = flags.one("--certificate")? {
        std::fs::write(&file, server.certificate_pem()).map_err(|error| format!("{file}: {error}"))?;
    }
    println!("null server ready: {}", server.address());
    server.run(&AtomicBool::new(false))?;
    Ok(ExitCode::SUCCESS)
}
