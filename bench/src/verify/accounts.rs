//! The file with the accounts that try a cluster: names and passwords, TOML. Passwords are never shown, nor is any
//! line that might hold one.
//!
//! ```toml
//! [[account]]
//! name = "check-1"
//! password = "…"
//! ```

use serde::Deserialize;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use wire_protocol::ids::normal_username;

/// Fewest accounts: somebody has to receive.
pub const ACCOUNTS_MIN: usize = 2;
/// Most accounts: with two devices each they stay far below any machine's limit of open files.
pub const ACCOUNTS_MAX: usize = 20;
/// Longest file, in bytes: the most accounts with the longest names and passwords fit many times.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bits of a file's mode that let everybody read or change it.
const MODE_OTHERS: u32 = 0o006;

/// One account. Its debug form hides the password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// As it logs in.
    pub name: String,
    /// What proves it.
    pub password: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a file of accounts is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The system refused.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Everybody on the machine knows the passwords.
    #[error("{path}: everybody can read or change it (mode {mode:o}); chmod 600 it, it holds passwords")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not in the documented form. What stands there is not shown.
    #[error("{path}: line {line}: [[account]] tables with name and password as text are wanted")]
    Form {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
    },
    /// Accounts that cannot be used together.
    #[error("{path}: {detail}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accounts {
    #[serde(default)]
    account: Vec<Account>,
}

/// Reads the file, which must not be everybody's to read.
pub fn read(path: &Path) -> Result<Vec<Account>, AccountsError> {
    let refused = |error| AccountsError::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(refused)?;
    // Of the file that is open, so that nobody can put another one in its place meanwhile.
    let mode = file.metadata().map_err(refused)?.permissions().mode() & 0o777;
    if mode & MODE_OTHERS != 0 {
        return Err(AccountsError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(refused)?;
    if bytes as u64 > FILE_BYTES_MAX {
        let detail = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(AccountsError::Unusable { path: path.to_owned(), detail });
    }
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Account>, AccountsError> {
    let Accounts { mut account } = toml::from_str(text).map_err(|error| {
        // The library's own words show the line, and with it the password.
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        AccountsError::Form { path: path.to_owned(), line }
    })?;
    let unusable = |detail: String| AccountsError::Unusable { path: path.to_owned(), detail };
    if !(ACCOUNTS_MIN..=ACCOUNTS_MAX).contains(&account.len()) {
        let count = account.len();
        return Err(unusable(format!("{count} accounts; {ACCOUNTS_MIN} to {ACCOUNTS_MAX} are wanted")));
    }
    for index in 0..account.len() {
        let given = &account[index].name;
        let name = normal_username(given).ok_or_else(|| unusable(format!("{given:?} is no user name")))?;
        if account[..index].iter().any(|earlier| earlier.name == name) {
            return Err(unusable(format!("{name} is named twice")));
        }
        account[index].name = name;
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Account>, AccountsError> {
        parse(Path::new("accounts.toml"), text)
    }

    const TWO: &str = "[[account]]\nname = \"Ada \"\npassword = \"secret-one\"\n\
                       [[account]]\nname = \"bob\"\npassword = \"secret-two\"\n";

    #[test]
    fn accounts_are_read_and_their_passwords_stay_hidden() {
        let accounts = parsed(TWO).expect("as documented");
        assert_eq!((accounts[0].name.as_str(), accounts[1].password.as_str()), ("ada", "secret-two"));
        let shown = format!("{accounts:?}");
        assert!(shown.contains("bob") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named_without_what_stands_there() {
        for (text, line) in [
            (TWO.replace("password = \"secret-two\"", "password = 99112233"), 6),
            (TWO.replace("password = \"secret-one\"", "pasword = \"secret-one\""), 3),
            (TWO.replace("\"secret-two\"", "\"secret-two"), 6),
            (TWO.replace("password = \"secret-one\"\n", ""), 1),
        ] {
            let error = parsed(&text).expect_err("not as documented");
            assert!(matches!(&error, AccountsError::Form { .. }), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("secret") && !shown.contains("99112233"), "{shown}");
            assert!(shown.contains(&format!("line {line}:")), "{shown}, not line {line}");
        }
    }

    #[test]
    fn too_few_too_many_and_doubled_accounts_are_refused() {
        let one = "[[account]]\nname = \"ada\"\npassword = \"secret\"\n";
        let many: String = (0..=ACCOUNTS_MAX).map(|n| one.replace("ada", &format!("user-{n}"))).collect();
        for (text, says) in [
            ("", "0 accounts"),
            (one, "1 accounts"),
            (&many, "21 accounts"),
            (&TWO.replace("bob", "ADA"), "named twice"),
            (&TWO.replace("bob", "b o b"), "no user name"),
        ] {
            let error = parsed(text).expect_err("cannot be used").to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("accounts.toml");
        std::fs::write(&path, TWO).expect("written");
        for (mode, taken) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            let result = read(&path);
            assert_eq!(result.is_ok(), taken, "{mode:o}: {result:?}");
        }
        assert!(matches!(read(&folder.path().join("none")), Err(AccountsError::Io { .. })));
        std::fs::write(&path, "#".repeat(70_000)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(read(&path).is_err_and(|error| error.to_string().contains("longer")));
    }
}
