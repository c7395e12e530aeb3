//! Named places at which a test lets a process die, wait, or meet a disk that fails: always compiled, so that tests kill
//! the very programs that run elsewhere, and inert unless the environment names one.
//!
//! | `RINGLINE_FAILPOINT` | what happens there |
//! | --- | --- |
//! | `rows-written:7` | the process ends when it comes by for the seventh time: at once, without unwinding, flushing or closing anything |
//! | `log-writing:wait=500` | every pass takes half a second: a disk that is slow |
//! | `log-syncing:stand=FILE` | while FILE is there passes stand, and write into it that they do |
//! | `log-syncing:fail=FILE` | a pass that finds FILE takes it away, and the sync reports an error of the device: one error for each time that FILE is put there, as Linux reports it |
//!
//! Each program lists its places ([`Place`]) and comes by them; here is what may happen at one. A gateway with embedded
//! storage has the places of both. Places are passed once a batch, not once a message.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The variable that arms one.
pub const VARIABLE: &str = "RINGLINE_FAILPOINT";
/// The longest that a pass stands: nobody lets it go on whose test has died.
const STANDS_MAX: Duration = Duration::from_secs(60);
/// How often a pass that stands looks whether it may go on.
const STANDING_LOOK: Duration = Duration::from_millis(1);

/// A place of a program.
pub trait Place {
    /// As the variable names it. No two places of a process have the same name.
    fn name(&self) -> &'static str;
}

struct Armed {
    name: String,
    action: Action,
}

enum Action {
    /// The process ends after so many passes.
    End(AtomicU64),
    /// Every pass takes so long.
    Wait(Duration),
    /// Passes stand while this file is there.
    Stand(PathBuf),
    /// A pass fails that can take this file away.
    Fail(PathBuf),
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process, or waits, if the environment says so.
pub fn pass(place: impl Place) {
    try_pass(place).expect("only a sync can be made to fail");
}

/// As [`pass`], where a disk may fail.
pub fn try_pass(place: impl Place) -> io::Result<()> {
    match ARMED.get_or_init(armed) {
        Some(armed) if armed.name == place.name() => armed.action.happen(),
        _ => Ok(()),
    }
}

fn armed() -> Option<Armed> {
    let armed = Armed::parse(&std::env::var(VARIABLE).ok()?);
    tracing::warn!("{VARIABLE} is set: this process will end, wait or fail at {}", armed.name);
    Some(armed)
}

impl Armed {
    /// As the variable says it.
    fn parse(text: &str) -> Self {
        let (name, how) = text.split_once(':').unwrap_or((text, "1"));
        Self { name: name.to_owned(), action: Action::parse(how) }
    }
}

impl Action {
    fn parse(how: &str) -> Self {
        match how.split_once('=') {
            Some(("wait", wait_ms)) => Self::Wait(Duration::from_millis(wait_ms.parse().unwrap_or(0))),
            Some(("stand", switch)) => Self::Stand(PathBuf::from(switch)),
            Some(("fail", switch)) => Self::Fail(PathBuf::from(switch)),
            _ => Self::End(AtomicU64::new(how.parse().ok().filter(|passes| *passes > 0).unwrap_or(1))),
        }
    }

    /// Somebody came by.
    fn happen(&self) -> io::Result<()> {
        match self {
            Self::End(left) if left.fetch_sub(1, Ordering::AcqRel) == 1 => std::process::abort(),
            Self::End(_) => {}
            Self::Wait(time) => std::thread::sleep(*time),
            Self::Stand(switch) => stand(switch),
            Self::Fail(switch) if fs::remove_file(switch).is_ok() => {
                // EIO.
                return Err(io::Error::from_raw_os_error(5));
            }
            Self::Fail(_) => {}
        }
        Ok(())
    }
}

/// Says in the file that it stands, and does until somebody takes the file away. Never makes the file anew.
fn stand(switch: &Path) {
    let file = OpenOptions::new().write(true).truncate(true).open(switch);
    if file.and_then(|mut file| file.write_all(b"stands")).is_err() {
        return;
    }
    // Looks are counted instead of time: this crate has no clock.
    for _ in 0..STANDS_MAX.as_millis() / STANDING_LOOK.as_millis() {
        if !switch.exists() {
            return;
        }
        std::thread::sleep(STANDING_LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_a_place_and_what_happens_there() {
        let armed = ["a", "a:7", "a:0", "a:often", "a:wait=500", "a:stand=b", "a:fail=c"].map(Armed::parse);
        assert!(armed.iter().all(|armed| armed.name == "a"));
        let [once, seventh, never, nonsense, wait, stand, fail] = armed.map(|armed| armed.action);
        for (action, passes) in [(once, 1), (seventh, 7), (never, 1), (nonsense, 1)] {
            assert!(matches!(&action, Action::End(left) if left.load(Ordering::Relaxed) == passes));
        }
        assert!(matches!(wait, Action::Wait(time) if time == Duration::from_millis(500)));
        assert!(matches!(&stand, Action::Stand(switch) if switch == Path::new("b")));
        assert!(matches!(&fail, Action::Fail(switch) if switch == Path::new("c")));
    }

    #[test]
    fn passes_before_the_last_one_are_counted_and_end_nothing() {
        let armed = Armed::parse("committed:3");
        for left_after in [2, 1] {
            armed.action.happen().expect("it goes on");
            assert!(matches!(&armed.action, Action::End(left) if left.load(Ordering::Relaxed) == left_after));
        }
    }

    #[test]
    fn a_pass_fails_once_for_each_time_that_the_file_is_put_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let switch = folder.path().join("fail");
        let armed = Armed::parse(&format!("log-syncing:fail={}", switch.display()));
        for _ in 0..2 {
            armed.action.happen().expect("nobody has put it there");
            fs::write(&switch, "").expect("it writes");
            let error = armed.action.happen().expect_err("it is there");
            assert_eq!(error.raw_os_error(), Some(5));
        }
        armed.action.happen().expect("it was taken away");
    }

    #[test]
    fn a_pass_says_that_it_stands_and_goes_on_when_the_file_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let switch = folder.path().join("stand");
        let armed = Armed::parse(&format!("log-syncing:stand={}", switch.display()));
        armed.action.happen().expect("nobody has put it there");
        fs::write(&switch, "").expect("it writes");
        let standing = std::thread::spawn(move || armed.action.happen());
        while fs::read(&switch).expect("it reads") != b"stands" {
            assert!(!standing.is_finished(), "it went on without a word");
            std::thread::yield_now();
        }
        assert!(!standing.is_finished(), "it said that it stands, and went on");
        fs::remove_file(&switch).expect("it is there");
        standing.join().expect("it does not panic").expect("it goes on");
    }
}
