//! `ringline-tune check | show | apply | revert`: what this machine is set to, what a role wants, the way there and back.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use tuning::command::{Command, NOT_DONE, NOT_UNDERSTOOD, USAGE, World, run};
use tuning::{Host, ProcessHost, RealDisk, RealHost};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = match Command::parse(&arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("ringline-tune: {error}\n\n{USAGE}");
            return ExitCode::from(NOT_UNDERSTOOD);
        }
    };
    let other = match command {
        Command::Check { pid: Some(pid), .. } | Command::Show { pid: Some(pid), .. } => {
            Some(ProcessHost { pid })
        }
        _ => None,
    };
    let host: &dyn Host = other.as_ref().map_or(&RealHost as &dyn Host, |other| other);
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let mut world = World { host, disk: &RealDisk, ask: &mut ask, out: &mut out, err: &mut err };
    match run(&command, &mut world) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Who closed our output wants no more of it, and its kind tells nothing new.
            if error.kind() != io::ErrorKind::BrokenPipe {
                let _ = writeln!(err, "ringline-tune: {error}");
            }
            ExitCode::from(NOT_DONE)
        }
    }
}

/// Asks on the terminal. None if there is none to answer from.
fn ask(question: &str) -> io::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    // The question goes where it is seen even if the plan is piped into a file.
    let mut terminal = std::fs::OpenOptions::new().write(true).open("/dev/tty")?;
    terminal.write_all(question.as_bytes())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(Some(answer))
}
