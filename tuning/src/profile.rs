//! Profiles as written: one TOML file a role.

use crate::setting::Setting;
use serde::Deserialize;

/// The profiles that come with this crate.
const PROFILES: [(&str, &str); 1] = [("single", include_str!("../profiles/single.toml"))];

/// What one role wants of its machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the role does, in a line.
    pub role: String,
    /// Settings, in the order they are shown.
    pub settings: Vec<Wanted>,
}

/// What one setting should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Which setting.
    pub setting: Setting,
    /// The least value that serves; exclusive with `exactly`.
    pub at_least: Option<u64>,
    /// The one value that serves.
    pub exactly: Option<u64>,
    /// Why this number.
    pub reason: String,
    /// What leaving it as it is costs.
    pub cost: String,
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
    /// The file is not what it should be.
    #[error("profile {name}: {error}")]
    Malformed {
        /// Which profile.
        name: String,
        /// Where and why.
        error: Box<toml::de::Error>,
    },
    /// A setting wants nothing, or two things.
    #[error("profile {name}: {setting} takes either at_least or exactly")]
    Contradiction {
        /// Which profile.
        name: String,
        /// Which setting.
        setting: String,
    },
}

impl Profile {
    /// A profile by its name.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let known = || PROFILES.map(|(name, _)| name).join(", ");
        let text = PROFILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let text = text.ok_or_else(|| ProfileError::Unknown { name: name.to_owned(), known: known() })?;
        Self::parse(name, text)
    }

    /// From a file's text; `name` names it in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| ProfileError::Malformed { name: name.to_owned(), error: Box::new(error) })?;
        match profile.settings.iter().find(|wanted| wanted.at_least.is_some() == wanted.exactly.is_some()) {
            Some(wanted) => Err(ProfileError::Contradiction {
                name: name.to_owned(),
                setting: wanted.setting.to_string(),
            }),
            None => Ok(profile),
        }
    }
}
