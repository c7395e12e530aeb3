//! What has to be written so that a machine serves: one new text for each file of the kernel.
//!
//! A plan is made from findings that do not serve, so a value that already serves better is never touched. Several
//! settings may live in one file (the three numbers of `tcp_rmem`): they become one write.

use crate::check::check;
use crate::host::Host;
use crate::profile::Profile;
use crate::setting::{Change, Edit, bracketed};

/// One file to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The file.
    pub path: String,
    /// Names of the settings it is written for.
    pub settings: Vec<String>,
    /// Its text now, as the kernel prints it.
    pub old: String,
    /// The text to write.
    pub new: String,
}

/// What does not serve and is not this program's to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ByHand {
    /// Name of the setting.
    pub setting: String,
    /// What to do.
    pub how: String,
}

/// All that has to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The profile's name.
    pub profile: String,
    /// Writes, in order.
    pub steps: Vec<Step>,
    /// What is left to a person.
    pub by_hand: Vec<ByHand>,
    /// Settings that cannot be read, with the file: they cannot be changed either.
    pub unreadable: Vec<String>,
}

impl Plan {
    /// Compares and plans; writes nothing.
    pub fn of(profile: &Profile, host: &dyn Host) -> Self {
        let mut plan = Self {
            profile: profile.name.clone(),
            steps: Vec::new(),
            by_hand: Vec::new(),
            unreadable: Vec::new(),
        };
        for finding in check(profile, host) {
            if finding.state == crate::check::State::Unreadable {
                let why = finding.detail.clone().unwrap_or_default();
                plan.unreadable.push(format!("{}: {why}", finding.name));
            }
            match finding.change(host) {
                None => {}
                Some(Change::ByHand(how)) => plan.by_hand.push(ByHand { setting: finding.name, how }),
                Some(Change::Edits(edits)) => {
                    for edit in edits {
                        if let Err(why) = plan.add(&finding.name, edit, host) {
                            plan.unreadable.push(format!("{}: {why}", finding.name));
                        }
                    }
                }
            }
        }
        plan
    }

    /// Adds a value to the step of its file. An error names the file.
    fn add(&mut self, setting: &str, edit: Edit, host: &dyn Host) -> Result<(), String> {
        let index = match self.steps.iter().position(|step| step.path == edit.path) {
            Some(index) => index,
            None => {
                let old = host.read(&edit.path).map_err(|error| format!("{}: {error}", edit.path))?;
                let new = old.trim().to_owned();
                self.steps.push(Step { path: edit.path.clone(), settings: Vec::new(), old, new });
                self.steps.len() - 1
            }
        };
        let step = &mut self.steps[index];
        step.new = match edit.field {
            None => edit.value,
            Some(field) => {
                let mut fields: Vec<&str> = step.new.split_whitespace().collect();
                match fields.get_mut(field) {
                    Some(place) => *place = &edit.value,
                    None => return Err(format!("{}: has no number {field}", edit.path)),
                }
                fields.join("\t")
            }
        };
        if !step.settings.iter().any(|known| known == setting) {
            step.settings.push(setting.to_owned());
        }
        Ok(())
    }
}

/// What to write so that a file shows the given text: its bracketed word if it lists words, else the text itself.
pub(crate) fn writable(text: &str) -> &str {
    bracketed(text).unwrap_or(text)
}

/// Whether two texts of a file are one value: the kernel prints numbers with tabs, words in brackets, masks padded.
pub(crate) fn same_value(path: &str, one: &str, other: &str) -> bool {
    let value = |text: &str| {
        let fields = writable(text).split_whitespace();
        match path.ends_with("_cpus") {
            true => fields.map(|mask| mask.replace(',', "").trim_start_matches('0').to_owned()).collect(),
            false => fields.map(str::to_owned).collect::<Vec<_>>(),
        }
    };
    value(one) == value(other)
}

/// Every whitespace character shown, so that old and new stand in one line.
pub(crate) fn shown(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_the_kernel_understands_them() {
        let ports = "/proc/sys/net/ipv4/ip_local_port_range";
        assert!(same_value(ports, "1024\t65535\n", "1024 65535"));
        assert!(!same_value(ports, "1024\t65535\n", "1024 6553"));
        assert!(same_value("/sys/x/enabled", "always [madvise] never\n", "madvise"));
        assert!(!same_value("/sys/x/enabled", "always [madvise] never\n", "never"));
        assert!(same_value("/sys/x/rps_cpus", "00000000,00000003\n", "3"));
        assert!(!same_value("/sys/x/rps_cpus", "00000003,00000000\n", "3"));
        assert_eq!(writable("always [madvise] never\n"), "madvise");
    }
}
