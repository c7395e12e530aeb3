//! Profiles as written: one TOML file a role.

use crate::setting::{Amount, Kind, Setting, Wish};
use serde::Deserialize;

/// The profiles that come with this crate.
const PROFILES: [(&str, &str); 4] = [
    ("gateway", include_str!("../profiles/gateway.toml")),
    ("storage", include_str!("../profiles/storage.toml")),
    ("single", include_str!("../profiles/single.toml")),
    ("load", include_str!("../profiles/load.toml")),
];

/// What one role wants of its machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called: a name of [`Profile::names`], or a file.
    #[serde(skip)]
    pub name: String,
    /// What the role does, in a line.
    pub role: String,
    /// Settings, in the order they are shown and changed; each at most once.
    pub settings: Vec<Wanted>,
}

/// What one setting should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Wanted {
    /// Which setting.
    pub setting: Setting,
    /// What it should be; of the setting's kind.
    pub wish: Wish,
    /// Why this number.
    pub reason: String,
    /// What leaving it as it is costs.
    pub cost: String,
}

/// A setting's table in the file: exactly one of the wishes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    setting: Setting,
    at_least: Option<u64>,
    at_least_per_gib: Option<u64>,
    at_least_per_core: Option<u64>,
    at_most: Option<u64>,
    exactly: Option<u64>,
    one_of: Option<Vec<String>>,
    reason: String,
    cost: String,
}

impl TryFrom<Written> for Wanted {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { setting, reason, cost, .. } = written;
        let wishes = [
            written.at_least.map(|number| Wish::AtLeast(Amount::Fixed(number))),
            written.at_least_per_gib.map(|number| Wish::AtLeast(Amount::PerGib(number))),
            written.at_least_per_core.map(|number| Wish::AtLeast(Amount::PerCore(number))),
            written.at_most.map(|number| Wish::AtMost(Amount::Fixed(number))),
            written.exactly.map(Wish::Exactly),
            written.one_of.map(Wish::OneOf),
        ];
        let mut wishes = wishes.into_iter().flatten();
        let (Some(wish), None) = (wishes.next(), wishes.next()) else {
            return Err(format!(
                "{setting} takes exactly one of at_least, at_least_per_gib, at_least_per_core, at_most, \
                 exactly, one_of"
            ));
        };
        if wish.kind() != setting.kind() {
            let kind = match setting.kind() {
                Kind::Number => "a number",
                Kind::Word => "a word (one_of)",
            };
            return Err(format!("{setting} is {kind}"));
        }
        if wish == Wish::OneOf(Vec::new()) {
            return Err(format!("{setting} may be none of no words"));
        }
        if reason.trim().is_empty() || cost.trim().is_empty() {
            return Err(format!("{setting} has no reason, or no cost"));
        }
        Ok(Self { setting, wish, reason, cost })
    }
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No profile has this name.
    #[error("there is no profile {name}; there are: {known}")]
    Unknown {
        /// As asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("profile {name}: {error}")]
    Malformed {
        /// Which profile.
        name: String,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A setting is wanted twice.
    #[error("profile {name}: {setting} stands there twice")]
    Twice {
        /// Which profile.
        name: String,
        /// Which setting.
        setting: String,
    },
}

impl Profile {
    /// Names of the profiles that come with this crate.
    pub fn names() -> [&'static str; PROFILES.len()] {
        PROFILES.map(|(name, _)| name)
    }

    /// A profile by its name.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let text = PROFILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let known = || Self::names().join(", ");
        let text = text.ok_or_else(|| ProfileError::Unknown { name: name.to_owned(), known: known() })?;
        Self::parse(name, text)
    }

    /// A profile of one's own.
    pub fn from_file(path: &str) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ProfileError::File { path: path.to_owned(), error })?;
        Self::parse(path, &text)
    }

    /// From a file's text; `name` names it in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| ProfileError::Malformed { name: name.to_owned(), error: Box::new(error) })?;
        for (index, wanted) in profile.settings.iter().enumerate() {
            if profile.settings.iter().take(index).any(|earlier| earlier.setting == wanted.setting) {
                let setting = wanted.setting.to_string();
                return Err(ProfileError::Twice { name: name.to_owned(), setting });
            }
        }
        Ok(Self { name: name.to_owned(), ..profile })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A profile of one setting, whose wish is the given lines.
    fn parse(setting: &str, wish: &str) -> Result<Profile, ProfileError> {
        let text =
            format!("role = 'r'\n[[settings]]\nsetting = '{setting}'\n{wish}\nreason = 'x'\ncost = 'y'\n");
        Profile::parse("p", &text)
    }

    #[test]
    fn a_profile_wants_exactly_one_thing_of_a_setting_and_of_its_kind() {
        assert!(parse("open_files", "at_least = 1").is_ok());
        assert!(parse("huge_pages", "one_of = ['never']").is_ok());
        for (setting, wish, named) in [
            ("open_files", "at_least = 1\nexactly = 1", "exactly one of"),
            ("open_files", "", "exactly one of"),
            ("open_files", "one_of = ['many']", "a number"),
            ("huge_pages", "at_least = 1", "a word"),
            ("huge_pages", "one_of = []", "no words"),
            ("open_files", "at_least = 1\ncolour = 1", "colour"),
            ("colour", "at_least = 1", "colour"),
        ] {
            let error = parse(setting, wish).expect_err(wish).to_string();
            assert!(error.contains(named), "{setting}, {wish}: {error}");
        }
        assert!(Profile::parse("p", "role = 'r'\nsettings = []\ncolour = 1").is_err());
        assert!(Profile::named("other").expect_err("unknown").to_string().contains("gateway, storage"));
    }

    #[test]
    fn a_number_without_a_reason_or_twice_is_refused() {
        let table = "[[settings]]\nsetting = 'open_files'\nat_least = 1\nreason = 'x'\ncost = 'y'\n";
        assert!(Profile::parse("p", &format!("role = 'r'\n{table}{table}")).is_err());
        assert!(Profile::parse("p", &format!("role = 'r'\n{}", table.replace("'x'", "' '"))).is_err());
    }

    #[test]
    fn the_profiles_that_come_along_are_well_formed() {
        for name in Profile::names() {
            let profile = Profile::named(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(profile.name, name);
            assert!(profile.settings.len() > 20, "{name} says little");
        }
    }
}
