//! How often an address may register, log in and refresh, and how often anybody may try to log in to an account.
//!
//! One table for the whole process: a connection lands on any core. A log in that succeeds gives its account's token
//! back, so only failures add up. Whoever keeps failing at an account slows its owner's next log in, too, to the
//! account's rate; sessions and refreshing go on.

use super::addresses::AddressKey;
use super::buckets::BucketTable;
use super::rate::Rate;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use wire_protocol::error::RequestError;
use wire_protocol::v1::ErrorCode;

/// Addresses, and as many accounts, that are remembered: 17 bytes each, below 1.2 MiB for each of four tables when
/// all are in use.
pub const ATTEMPTING_KEYS_MAX: usize = 56 * 1_024;

/// Rates of attempts; `None`: without a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttemptLimits {
    /// Registrations from one address.
    pub registrations_per_address: Option<Rate>,
    /// Log ins from one address, whatever becomes of them.
    pub log_ins_per_address: Option<Rate>,
    /// Log ins to one account that fail.
    pub failed_log_ins_per_account: Option<Rate>,
    /// Refreshed tokens from one address.
    pub refreshes_per_address: Option<Rate>,
}

/// What is attempted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// A new account.
    Register,
    /// A log in.
    LogIn,
    /// A refreshed token.
    Refresh,
}

/// Refusals since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttemptCounts {
    /// Registrations, by address.
    pub registrations: u64,
    /// Log ins, by address.
    pub log_ins: u64,
    /// Log ins, by account.
    pub accounts: u64,
    /// Refreshes, by address.
    pub refreshes: u64,
}

/// The buckets of one process.
#[derive(Debug)]
pub struct Attempts {
    registrations: Option<BucketTable<AddressKey>>,
    log_ins: Option<BucketTable<AddressKey>>,
    refreshes: Option<BucketTable<AddressKey>>,
    accounts: Option<BucketTable<AccountKey>>,
    hashes: RandomState,
    counts: AttemptCounts,
}

/// An account's name, hashed under a key of this process: as small as an address, and nobody can choose one that
/// meets another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AccountKey(u64);

impl Attempts {
    /// Nobody has tried.
    pub fn new(limits: AttemptLimits) -> Self {
        let table = |rate: Option<Rate>| rate.map(|rate| BucketTable::new(rate, ATTEMPTING_KEYS_MAX));
        Self {
            registrations: table(limits.registrations_per_address),
            log_ins: table(limits.log_ins_per_address),
            refreshes: table(limits.refreshes_per_address),
            accounts: limits
                .failed_log_ins_per_account
                .map(|rate| BucketTable::new(rate, ATTEMPTING_KEYS_MAX)),
            hashes: RandomState::new(),
            counts: AttemptCounts::default(),
        }
    }

    /// An address tries something.
    pub fn admit(&mut self, address: AddressKey, attempt: Attempt, now_ms: u64) -> Result<(), RequestError> {
        let (table, refused, what) = match attempt {
            Attempt::Register => (&mut self.registrations, &mut self.counts.registrations, "registrations"),
            Attempt::LogIn => (&mut self.log_ins, &mut self.counts.log_ins, "log ins"),
            Attempt::Refresh => (&mut self.refreshes, &mut self.counts.refreshes, "refreshes"),
        };
        let Some(table) = table else { return Ok(()) };
        table.take(address, 1, now_ms).map_err(|wait_ms| {
            *refused += 1;
            throttled(format!("address: {what}: {}", table.rate()), wait_ms)
        })
    }

    /// The account that goes by this name, in the name's one form.
    pub fn account(&self, username: &str) -> AccountKey {
        AccountKey(self.hashes.hash_one(username))
    }

    /// Somebody tries to log in to an account, whether it exists or not.
    pub fn admit_to(&mut self, account: AccountKey, now_ms: u64) -> Result<(), RequestError> {
        let Some(table) = &mut self.accounts else { return Ok(()) };
        table.take(account, 1, now_ms).map_err(|wait_ms| {
            self.counts.accounts += 1;
            throttled(format!("username: failed log ins: {}", table.rate()), wait_ms)
        })
    }

    /// The log in did not fail: the password was right, or was not looked at.
    pub fn did_not_fail(&mut self, account: AccountKey) {
        if let Some(table) = &mut self.accounts {
            table.give_back(&account, 1);
        }
    }

    /// Refusals since the start.
    pub fn counts(&self) -> AttemptCounts {
        self.counts
    }
}

fn throttled(detail: String, wait_ms: u32) -> RequestError {
    RequestError::new(ErrorCode::ErrorThrottled, detail).after_ms(wait_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn limits() -> AttemptLimits {
        AttemptLimits {
            registrations_per_address: Some(Rate::per_minute(6, 2)),
            log_ins_per_address: Some(Rate::per_minute(60, 4)),
            failed_log_ins_per_account: Some(Rate::per_minute(10, 3)),
            refreshes_per_address: Some(Rate::per_second(1, 5)),
        }
    }

    fn address(last: u8) -> AddressKey {
        IpAddr::from([192, 0, 2, last]).into()
    }

    #[test]
    fn each_kind_of_attempt_has_its_own_bucket() {
        let mut attempts = Attempts::new(limits());
        for (attempt, burst, wait_ms) in
            [(Attempt::Register, 2, 10_000), (Attempt::LogIn, 4, 1_000), (Attempt::Refresh, 5, 1_000)]
        {
            for _ in 0..burst {
                attempts.admit(address(1), attempt, 0).expect("within the burst");
            }
            let error = attempts.admit(address(1), attempt, 0).expect_err("beyond it");
            assert_eq!((error.code, error.retry_after_ms), (ErrorCode::ErrorThrottled, wait_ms));
            assert!(error.detail.starts_with("address: "), "{}", error.detail);
            attempts.admit(address(2), attempt, 0).expect("others are others");
            attempts.admit(address(1), attempt, u64::from(wait_ms)).expect("after the wait");
        }
        let counts = AttemptCounts { registrations: 1, log_ins: 1, accounts: 0, refreshes: 1 };
        assert_eq!(attempts.counts(), counts);
    }

    #[test]
    fn only_failures_add_up_at_an_account_wherever_they_come_from() {
        let mut attempts = Attempts::new(limits());
        let (ada, bob) = (attempts.account("ada"), attempts.account("bob"));
        assert_ne!(ada, bob);
        for _ in 0..100 {
            attempts.admit_to(ada, 0).expect("successes do not add up");
            attempts.did_not_fail(ada);
        }
        for _ in 0..3 {
            attempts.admit_to(ada, 0).expect("within the burst");
        }
        let error = attempts.admit_to(ada, 0).expect_err("beyond it");
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::ErrorThrottled, 6_000));
        assert!(!error.detail.contains("ada"), "{}", error.detail);
        attempts.admit_to(bob, 0).expect("others are others");
        attempts.admit_to(ada, 6_000).expect("after the wait");
        assert_eq!(attempts.counts().accounts, 1);
    }
}
