//! The command line.

use super::Question;
use crate::profile::{Profile, ProfileError};
use crate::record::RECORD_PATH;
use crate::revert::Foreign;
use std::path::PathBuf;

/// The profile that is meant if none is named.
const PROFILE_DEFAULT: &str = "single";

/// How to use the program.
pub const USAGE: &str = "\
ringline-tune check  [PROFILE] [--json] [--pid PID]      compare this machine with what a role wants; 1 if it does not serve
ringline-tune show   [PROFILE] [--pid PID]               each setting: what it is, should be, why, what leaving it costs
ringline-tune apply  [PROFILE] [--dry-run] [--yes] [--record FILE]   change what does not serve, after a question
ringline-tune revert [--record FILE] [--force]           restore what was there before apply

PROFILE is gateway, storage, single (both in one process; the default) or load, or else --profile-file FILE.
--pid takes the limits of a running process instead of this shell's; --force also overwrites what others changed since.";

/// How a comparison is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// For a person.
    Text,
    /// For a program.
    Json,
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// The usage.
    Help,
    /// Compare.
    Check {
        /// With which.
        profile: Named,
        /// How to show it.
        form: Form,
        /// Whose limits; none: this process's.
        pid: Option<u32>,
    },
    /// Explain.
    Show {
        /// Which.
        profile: Named,
        /// Whose limits; none: this process's.
        pid: Option<u32>,
    },
    /// Change.
    Apply {
        /// To which.
        profile: Named,
        /// Whether and how to ask.
        question: Question,
        /// Where the record goes.
        record: PathBuf,
    },
    /// Change back.
    Revert {
        /// Where the record is.
        record: PathBuf,
        /// What to do with what others changed.
        foreign: Foreign,
    },
}

/// A profile as named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named {
    /// One that comes along.
    Known(String),
    /// A file.
    File(String),
}

impl Named {
    /// Reads it.
    pub fn load(&self) -> Result<Profile, ProfileError> {
        match self {
            Named::Known(name) => Profile::named(name),
            Named::File(path) => Profile::from_file(path),
        }
    }
}

/// Options as they come; which belong to which command is decided afterwards.
#[derive(Default)]
struct Options {
    profile: Option<Named>,
    record: Option<PathBuf>,
    pid: Option<u32>,
    flags: Vec<&'static str>,
}

impl Command {
    /// From the arguments after the program's name. An error names the argument.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let Some((command, rest)) = arguments.split_first() else {
            return Err("what is to be done?".to_owned());
        };
        if ["help", "--help", "-h"].contains(&command.as_str()) {
            return Ok(Command::Help);
        }
        let allowed: &[&str] = match command.as_str() {
            "check" => &["PROFILE", "--profile-file", "--json", "--pid"],
            "show" => &["PROFILE", "--profile-file", "--pid"],
            "apply" => &["PROFILE", "--profile-file", "--dry-run", "--yes", "--record"],
            "revert" => &["--record", "--force"],
            other => return Err(format!("there is no command {other}")),
        };
        let options = Options::parse(rest, command, allowed)?;
        let has = |flag| options.flags.contains(&flag);
        let record = options.record.clone().unwrap_or_else(|| PathBuf::from(RECORD_PATH));
        let profile = || options.profile.clone().unwrap_or_else(|| Named::Known(PROFILE_DEFAULT.to_owned()));
        let pid = options.pid;
        Ok(match command.as_str() {
            "check" => {
                let form = if has("--json") { Form::Json } else { Form::Text };
                Command::Check { profile: profile(), form, pid }
            }
            "show" => Command::Show { profile: profile(), pid },
            "apply" => {
                let question = match (has("--dry-run"), has("--yes")) {
                    (true, _) => Question::OnlyPlan,
                    (false, true) => Question::Answered,
                    (false, false) => Question::Ask,
                };
                Command::Apply { profile: profile(), question, record }
            }
            _ => {
                let foreign = if has("--force") { Foreign::Overwrite } else { Foreign::Keep };
                Command::Revert { record, foreign }
            }
        })
    }
}

impl Options {
    fn parse(rest: &[String], command: &str, allowed: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = rest.iter();
        while let Some(argument) = rest.next() {
            let kind = if argument.starts_with('-') { argument.as_str() } else { "PROFILE" };
            if !allowed.contains(&kind) {
                return Err(format!("{command} takes no {argument}"));
            }
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} takes a value"));
            match kind {
                "PROFILE" => options.choose(Named::Known(argument.clone()))?,
                "--profile-file" => options.choose(Named::File(value()?))?,
                "--record" => options.record = Some(PathBuf::from(value()?)),
                "--pid" => {
                    let pid = value()?;
                    options.pid = Some(pid.parse().map_err(|_| format!("--pid {pid}: not a process id"))?);
                }
                "--json" => options.flags.push("--json"),
                "--dry-run" => options.flags.push("--dry-run"),
                "--yes" => options.flags.push("--yes"),
                _ => options.flags.push("--force"),
            }
        }
        Ok(options)
    }

    fn choose(&mut self, profile: Named) -> Result<(), String> {
        match self.profile.replace(profile) {
            None => Ok(()),
            Some(_) => Err("one profile at a time".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Command::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_takes_its_own_options() {
        let gateway = || Named::Known("gateway".to_owned());
        assert_eq!(
            parse("check gateway --json --pid 7"),
            Ok(Command::Check { profile: gateway(), form: Form::Json, pid: Some(7) })
        );
        let record = PathBuf::from(RECORD_PATH);
        let apply = |question| Command::Apply { profile: gateway(), question, record: record.clone() };
        assert_eq!(parse("apply gateway"), Ok(apply(Question::Ask)));
        assert_eq!(parse("apply gateway --yes"), Ok(apply(Question::Answered)));
        assert_eq!(parse("apply --yes gateway --dry-run"), Ok(apply(Question::OnlyPlan)));
        let revert = Command::Revert { record: PathBuf::from("r"), foreign: Foreign::Overwrite };
        assert_eq!(parse("revert --record r --force"), Ok(revert));
        let own = Command::Show { profile: Named::File("p".to_owned()), pid: None };
        assert_eq!(parse("show --profile-file p"), Ok(own));
        assert_eq!(parse("--help"), Ok(Command::Help));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("", "what"),
            ("tune", "tune"),
            ("check --yes", "--yes"),
            ("revert gateway", "gateway"),
            ("apply --record", "--record"),
            ("check --pid self", "self"),
            ("check gateway storage", "one profile"),
            ("show --json", "--json"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
