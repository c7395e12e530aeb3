//! The file of a run: written whole or not at all, and read only if its schema is ours.

use super::results::{PhaseResult, RunResult, SCHEMA_VERSION};
use crate::measure::histogram::{HistogramError, Latencies};
use serde::Deserialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Largest file that is read, in bytes: a day of seconds and histograms of thousands of agents have less.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why a results file was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not JSON, or not a result of this schema; names the field.
    #[error("{path}: {error}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Names the place.
        error: serde_json::Error,
    },
    /// Of another schema.
    #[error("{path}: schema version {found}, but this program reads version {SCHEMA_VERSION}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// The file's version.
        found: u64,
    },
    /// A histogram in it is none.
    #[error("{path}: phase {phase}: {error}")]
    Histogram {
        /// Which file.
        path: PathBuf,
        /// Which phase.
        phase: String,
        /// Why.
        error: HistogramError,
    },
    /// Too large to be one of ours.
    #[error("{path}: {bytes} bytes are more than a result may have")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

/// The one field that every version has.
#[derive(Deserialize)]
struct Versioned {
    schema_version: u64,
}

/// Writes the result beside its place, syncs it and renames it into it: readers see the old file or the new one.
pub fn write(path: &Path, result: &RunResult) -> Result<(), FileError> {
    let mut text = serde_json::to_vec_pretty(result).map_err(|error| malformed(path, error))?;
    text.push(b'\n');
    // Numbers that are none would be written as null: found now, not when somebody wants to read the file.
    parse(path, &text)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = write_synced(&beside, &text).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(FileError::Io { path: path.to_owned(), error });
    }
    Ok(())
}

fn write_synced(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Reads a result; refuses other schemas and broken histograms.
pub fn read(path: &Path) -> Result<RunResult, FileError> {
    let refused = |error| FileError::Io { path: path.to_owned(), error };
    let bytes = fs::metadata(path).map_err(refused)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes });
    }
    parse(path, &fs::read(path).map_err(refused)?)
}

fn parse(path: &Path, text: &[u8]) -> Result<RunResult, FileError> {
    // Before anything else: another version's fields are no errors of this one.
    let Versioned { schema_version } =
        serde_json::from_slice(text).map_err(|error| malformed(path, error))?;
    if schema_version != u64::from(SCHEMA_VERSION) {
        return Err(FileError::Version { path: path.to_owned(), found: schema_version });
    }
    let result: RunResult = serde_json::from_slice(text).map_err(|error| malformed(path, error))?;
    for phase in &result.phases {
        check_histograms(phase).map_err(|error| {
            let (path, phase) = (path.to_owned(), phase.name.clone());
            FileError::Histogram { path, phase, error }
        })?;
    }
    Ok(result)
}

fn check_histograms(phase: &PhaseResult) -> Result<(), HistogramError> {
    let of_streams = phase.streams.iter().flat_map(|stream| stream.histograms.values());
    let of_generators = phase.generators.iter().map(|generator| &generator.lag);
    of_streams.chain(of_generators).try_for_each(|text| Latencies::from_text(text).map(drop))
}

fn malformed(path: &Path, error: serde_json::Error) -> FileError {
    FileError::Malformed { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// A folder that goes when this is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("bench-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("a temporary folder");
            Self(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("our folder");
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn results_round_trip_and_replace_older_ones() {
        let folder = Folder::new("round");
        let path = folder.0.join("result.json");
        fs::write(&path, "older").expect("our folder");
        let result = example::run("ringline", 1);
        write(&path, &result).expect("written");
        let again = read(&path).expect("ours");
        // Rates may differ in the last bit of a decimal number.
        assert_eq!(again.phases[1].streams[0].histograms, result.phases[1].streams[0].histograms);
        assert_eq!((again.plan, again.hosts, again.ledger), (result.plan, result.hosts, result.ledger));
        assert_eq!(folder.names(), ["result.json"], "nothing is left beside it");
    }

    #[test]
    fn other_versions_are_refused_by_both_numbers() {
        let folder = Folder::new("version");
        let path = folder.0.join("result.json");
        fs::write(&path, r#"{"schema_version": 77, "unknown": 1}"#).expect("our folder");
        let refused = read(&path).expect_err("of another version").to_string();
        assert!(
            refused.contains("77") && refused.contains(&format!("version {SCHEMA_VERSION}")),
            "{refused}"
        );
        assert!(refused.contains("result.json"), "{refused}");
    }

    #[test]
    fn what_is_no_result_is_refused_by_name() {
        let folder = Folder::new("broken");
        let path = folder.0.join("result.json");
        assert!(matches!(read(&path), Err(FileError::Io { .. })));
        fs::write(&path, r#"{"schema_version": 1, "surplus": 1}"#).expect("our folder");
        let refused = read(&path).expect_err("an unknown field").to_string();
        assert!(refused.contains("surplus"), "{refused}");
        fs::write(&path, "{").expect("our folder");
        assert!(matches!(read(&path), Err(FileError::Malformed { .. })));
    }

    #[test]
    fn a_result_that_nobody_could_read_is_not_written() {
        let folder = Folder::new("unwritten");
        let path = folder.0.join("result.json");
        fs::write(&path, "older").expect("our folder");
        let mut broken = example::run("ringline", 1);
        broken.phases[1].streams[0].histograms.insert("answer".into(), "!".into());
        assert!(matches!(write(&path, &broken), Err(FileError::Histogram { .. })));
        let mut broken = example::run("ringline", 1);
        broken.phases[1].measured_s = f64::NAN;
        assert!(matches!(write(&path, &broken), Err(FileError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).expect("untouched"), "older");
        assert_eq!(folder.names(), ["result.json"]);
        let nowhere = folder.0.join("no-folder/result.json");
        assert!(matches!(write(&nowhere, &example::run("ringline", 1)), Err(FileError::Io { .. })));
    }
}
