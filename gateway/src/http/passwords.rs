//! Password hashes: argon2id on threads of their own, a bounded number at a time and a bounded number waiting.

use super::HttpStartError;
use super::fields::Password;
use crate::config::AuthConfig;
use argon2::password_hash::{self, phc::Output, phc::PasswordHash, phc::Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use crossbeam_queue::ArrayQueue;
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use wire_protocol::error::RequestError;
use wire_protocol::v1::ErrorCode;

/// Threads that hash at most, whatever the machine: at 19 MiB each they stay below 80 MiB.
const HASHING_THREADS_MAX: usize = 4;
/// Bytes of a salt: what the PHC string format recommends.
const SALT_BYTES: usize = 16;
/// Hashes that are computed or wait, for each thread: at some 30 ms a hash the last one waits about a second.
const HASHES_PER_THREAD_MAX: usize = 32;
/// What a client is told to wait when no place is free, in milliseconds.
const RETRY_AFTER_MS: u32 = 1_000;

/// Niceness of threads that hash, of 19 at most: their weight beside a loop is 110 to 1,024 (`sched_prio_to_weight` of
/// Linux). A hash that took turns with the loop, log and store of a core, all of which a message passes through, would
/// make each wait for a slice of some milliseconds; so it takes what they leave, and a tenth of a CPU beside one that
/// never sleeps.
const HASHING_NICENESS: i32 = 10;

/// Threads that hash: half the machine's, for the loops need the rest.
pub(super) fn hashing_threads() -> usize {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (threads / 2).clamp(1, HASHING_THREADS_MAX)
}

/// argon2id at the configured cost.
pub(super) struct Hasher {
    argon2: Argon2<'static>,
    /// Of no password: compared with when there is no such user, so that the answer takes as long.
    decoy: String,
    /// The memory of hashes, one for each that was ever computed at the same time. Kept: blocks of this size and
    /// alignment, given back each time, left the allocator with several times as much.
    memory: ArrayQueue<Vec<Block>>,
}

impl Hasher {
    pub(super) fn new(config: &AuthConfig) -> Result<Self, HttpStartError> {
        let AuthConfig { argon2_memory_kib, argon2_iterations, argon2_parallelism, .. } = *config;
        let params = Params::new(argon2_memory_kib, argon2_iterations, argon2_parallelism, None)
            .map_err(|error| HttpStartError::PasswordCost(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let memory = ArrayQueue::new(HASHING_THREADS_MAX);
        let mut hasher = Self { argon2, decoy: String::new(), memory };
        hasher.decoy = hasher.hash(b"nobody").map_err(|error| HttpStartError::PasswordCost(error.detail))?;
        Ok(hasher)
    }

    /// A PHC string with a salt of its own.
    fn hash(&self, password: &[u8]) -> Result<String, RequestError> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| broken(&error.to_string()))?;
        let hash = self.phc(password, &salt).map_err(|error| broken(&error.to_string()))?;
        Ok(hash.to_string())
    }

    fn phc(&self, password: &[u8], salt: &[u8]) -> password_hash::Result<PasswordHash> {
        let length = self.argon2.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: self.argon2.params().try_into()?,
            salt: Some(Salt::new(salt)?),
            hash: Some(self.output(&self.argon2, password, salt, length)?),
        })
    }

    /// Whether the password is the hash's. Takes the cost from the hash. Without one: as long, and `false`.
    fn verify(&self, password: &[u8], hash: Option<&str>) -> Result<bool, RequestError> {
        let right = self.fits(password, hash.unwrap_or(&self.decoy));
        Ok(right.map_err(|error| broken(&error.to_string()))? && hash.is_some())
    }

    fn fits(&self, password: &[u8], hash: &str) -> password_hash::Result<bool> {
        let hash = PasswordHash::new(hash)?;
        let (Some(salt), Some(wanted)) = (&hash.salt, &hash.hash) else { return Ok(false) };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
        let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash)?);
        // Compared in constant time.
        Ok(self.output(&argon2, password, salt, wanted.len())? == *wanted)
    }

    /// The hash alone, in memory that is used again.
    fn output(
        &self,
        argon2: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        length: usize,
    ) -> password_hash::Result<Output> {
        let mut memory = self.memory.pop().unwrap_or_default();
        if memory.len() < argon2.params().block_count() {
            memory.resize(argon2.params().block_count(), Block::default());
        }
        let mut bytes = [0; Output::MAX_LENGTH];
        let out = bytes.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
        let filled = argon2.hash_password_into_with_memory(password, salt, out, &mut memory[..]);
        // Threads that hash are no more than places for their memory.
        let _ = self.memory.push(memory);
        filled?;
        Ok(Output::new(out)?)
    }
}

fn broken(problem: &str) -> RequestError {
    RequestError::new(ErrorCode::ErrorInternal, format!("password hash: {problem}"))
}

fn interrupted(_: JoinError) -> RequestError {
    RequestError::new(ErrorCode::ErrorUnavailable, "password hash: the server stops")
}

/// Admits a bounded number of requests that need a hash.
#[derive(Clone)]
pub(super) struct PasswordPool {
    hasher: Arc<Hasher>,
    places: Arc<Semaphore>,
}

impl PasswordPool {
    pub(super) fn new(hasher: Hasher) -> Self {
        let places = Semaphore::new(hashing_threads() * HASHES_PER_THREAD_MAX);
        Self { hasher: Arc::new(hasher), places: Arc::new(places) }
    }

    /// A place for one hash, or the refusal. Taken before a request changes anything, so that a refused one has
    /// left nothing behind.
    pub(super) fn admit(&self) -> Result<PasswordPlace, RequestError> {
        let permit = self.places.clone().try_acquire_owned().map_err(|_| {
            let error = RequestError::new(ErrorCode::ErrorOverloaded, "too many log ins at once");
            error.after_ms(RETRY_AFTER_MS)
        })?;
        Ok(PasswordPlace { hasher: self.hasher.clone(), permit })
    }
}

/// The right to compute one hash.
pub(super) struct PasswordPlace {
    hasher: Arc<Hasher>,
    permit: OwnedSemaphorePermit,
}

impl PasswordPlace {
    /// The hash to store. The place stays taken until it is computed, even if nobody waits for it any more.
    pub(super) async fn hash(self, password: Password) -> Result<String, RequestError> {
        self.computed(move |hasher| hasher.hash(password.as_bytes())).await
    }

    /// Whether the password is the stored hash's; `false` after the same time if there is none.
    pub(super) async fn verify(self, password: Password, hash: Option<String>) -> Result<bool, RequestError> {
        self.computed(move |hasher| hasher.verify(password.as_bytes(), hash.as_deref())).await
    }

    /// On a thread for hashes alone.
    async fn computed<T: Send + 'static>(
        self,
        compute: impl FnOnce(&Hasher) -> Result<T, RequestError> + Send + 'static,
    ) -> Result<T, RequestError> {
        let Self { hasher, permit } = self;
        let job = tokio::task::spawn_blocking(move || {
            give_way();
            let computed = compute(&hasher);
            drop(permit);
            computed
        });
        job.await.map_err(interrupted)?
    }
}

/// Lowers the priority of the calling thread, once. A system that refuses has its reasons: hashes are right anyway.
fn give_way() {
    thread_local! {
        static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
    }
    if !GIVES_WAY.replace(true) {
        let _ = rustix::process::nice(HASHING_NICENESS);
    }
}

#[cfg(test)]
impl PasswordPool {
    /// As many places as a test wants.
    pub(super) fn with_places(hasher: Hasher, places: usize) -> Self {
        Self { hasher: Arc::new(hasher), places: Arc::new(Semaphore::new(places)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_hashes_waits() {
        let config = AuthConfig { argon2_memory_kib: 8, argon2_iterations: 1, ..AuthConfig::default() };
        let pool = PasswordPool::new(Hasher::new(&config).expect("the cost is possible"));
        let places: Vec<_> = (0..10_000).map_while(|_| pool.admit().ok()).collect();
        assert_eq!(places.len(), hashing_threads() * HASHES_PER_THREAD_MAX);
        drop(places);
        assert!(pool.admit().is_ok());
    }

    #[test]
    fn threads_that_hash_give_way_and_nobody_else_does() {
        let config = AuthConfig { argon2_memory_kib: 8, argon2_iterations: 1, ..AuthConfig::default() };
        let pool = PasswordPool::new(Hasher::new(&config).expect("the cost is possible"));
        const NICENESS_MAX: i32 = 19;
        // Of the calling thread: on Linux each has its own.
        let niceness = || rustix::process::getpriority_process(None).expect("the system tells");
        let before = niceness();
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        runtime.expect("a runtime").block_on(async {
            for _ in 0..2 {
                let place = pool.admit().expect("it is free");
                place.computed(|hasher| hasher.verify(b"a guess", None)).await.expect("computed");
            }
            let hashing = tokio::task::spawn_blocking(niceness).await.expect("it answers");
            assert_eq!((hashing, niceness()), ((before + HASHING_NICENESS).min(NICENESS_MAX), before));
        });
    }

    fn fits(hasher: &Hasher, password: &[u8], hash: &str) -> bool {
        hasher.verify(password, Some(hash)).expect("a hash")
    }

    #[test]
    fn memory_is_used_again_whatever_was_in_it() {
        let cost = |argon2_memory_kib, argon2_iterations| AuthConfig {
            argon2_memory_kib,
            argon2_iterations,
            argon2_parallelism: 1,
            ..AuthConfig::default()
        };
        let dear = Hasher::new(&cost(64, 3)).expect("the cost is possible");
        let cheap = Hasher::new(&cost(8, 1)).expect("the cost is possible");
        let hashes = [dear.hash(b"one").expect("hashed"), cheap.hash(b"two").expect("hashed")];
        assert_ne!(dear.hash(b"one").expect("hashed"), hashes[0], "a salt of its own");
        for _ in 0..3 {
            for hasher in [&dear, &cheap] {
                assert!(fits(hasher, b"one", &hashes[0]) && fits(hasher, b"two", &hashes[1]));
                assert!(!fits(hasher, b"two", &hashes[0]));
                assert_eq!(hasher.memory.len(), 1);
            }
        }
    }

    /// Made by the reference implementation's command line: `echo -n password | argon2 somesalt -id -t 2 -m 10 -p 1 -e`.
    #[test]
    fn hashes_are_those_of_everybody() {
        let hasher =
            Hasher::new(&AuthConfig { argon2_memory_kib: 8, argon2_iterations: 1, ..AuthConfig::default() });
        let hasher = hasher.expect("the cost is possible");
        let known = "$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$7FfsnA6vUe7qLpL/3Kqc3uR48ZJyFbUVt7jWZlf0Htk";
        assert!(fits(&hasher, b"password", known));
        assert!(!fits(&hasher, b"Password", known));
    }

    #[test]
    fn without_a_hash_the_decoy_is_compared_with_and_never_fits() {
        let config = AuthConfig {
            argon2_memory_kib: 16,
            argon2_iterations: 2,
            argon2_parallelism: 1,
            ..AuthConfig::default()
        };
        let mut hasher = Hasher::new(&config).expect("the cost is possible");
        // As dear as a real one, or the time would tell who has an account.
        assert!(hasher.decoy.starts_with("$argon2id$v=19$m=16,t=2,p=1$"), "{}", hasher.decoy);
        assert_eq!(hasher.verify(b"nobody", None).map_err(|error| error.code), Ok(false));
        assert_eq!(hasher.verify(b"somebody", None).map_err(|error| error.code), Ok(false));
        let decoy = hasher.decoy.clone();
        assert_eq!(hasher.verify(b"nobody", Some(&decoy)).map_err(|error| error.code), Ok(true));
        // That it is looked at shows when it is broken.
        hasher.decoy.truncate(20);
        assert!(hasher.verify(b"somebody", None).is_err());
    }
}
