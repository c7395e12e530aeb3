//! `ringline-storage backup`: work on a folder of backups, without a node.

use super::Words;
use std::path::PathBuf;
use storage_node::StorageConfig;
use storage_node::backup::{restore, verify};

/// What is to be done.
pub enum Work {
    /// Look at all backups.
    Verify { from: PathBuf, is_json: bool },
    /// Make a node's folder.
    Restore { from: PathBuf, config: PathBuf },
}

impl Work {
    pub(super) fn parse(mut words: Words) -> Result<Self, String> {
        let work = match words.word().as_deref() {
            Some("verify") => {
                let is_json = words.flag("--json");
                Self::Verify { from: words.word().ok_or("a folder is missing")?.into(), is_json }
            }
            Some("restore") => Self::Restore {
                from: words.value("--from")?.ok_or("--from is missing")?.into(),
                config: words.value("--config")?.ok_or("--config is missing")?.into(),
            },
            Some(other) => return Err(format!("unknown command {other}")),
            None => return Err("a command is missing".to_owned()),
        };
        words.end()?;
        Ok(work)
    }

    /// Does it; gives what is to be printed, and whether all is well. How far it is goes to standard error meanwhile.
    pub fn carry_out(&self) -> Result<(String, bool), String> {
        let mut progress = |detail: String| {
            eprintln!("{detail}");
            Ok(())
        };
        match self {
            Self::Verify { from, is_json } => {
                let scratch = std::env::temp_dir().join(format!("ringline-verify-{}", std::process::id()));
                let report = verify(from, &scratch, &mut progress);
                // There is none if nothing could be opened.
                let _ = std::fs::remove_dir_all(&scratch);
                let report = report?;
                let text = match is_json {
                    true => serde_json::to_string(&report).map_err(|error| error.to_string())?,
                    false => report.to_text().trim_end().to_owned(),
                };
                Ok((text, report.problems.is_empty()))
            }
            Self::Restore { from, config } => {
                let config = StorageConfig::read(config).map_err(|error| error.to_string())?;
                let report = restore(from, &config, &mut progress)?;
                Ok((report.to_text().trim_end().to_owned(), true))
            }
        }
    }
}
