//! What tests need of their machine and not every machine gives, and what a test does that is refused it.
//!
//! `.ci/rights` asks the machine once, and `.ci/run` hands the words of what it gives to all tests. A test that is
//! refused something all the same fails. Where the machine does not give it, or was not asked, the test says that it
//! tried nothing, and passes. All crates share this file by `#[path]`: no crate is below all others, and the product
//! has no use for it.

/// Holds words of what the machine gives, with spaces between them.
pub const VARIABLE: &str = "RINGLINE_TEST_RIGHTS";

/// Something that a machine may refuse. `docs/reliability.md` says which tests need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// A tmpfs, in namespaces of its own for mounts and process ids.
    Mounts,
    /// Namespaces for mounts, network and process ids together, and pairs of virtual network cards.
    Namespaces,
    /// Settings of a network namespace that can be written.
    Sysctls,
    /// Control groups that bound memory.
    Cgroups,
    /// Counts of system calls.
    Perf,
    /// The checkout around the sources, as git sees it.
    Checkout,
}

impl Right {
    /// All of them, in the order of `.ci/rights`.
    pub const ALL: [Self; 6] =
        [Self::Mounts, Self::Namespaces, Self::Sysctls, Self::Cgroups, Self::Perf, Self::Checkout];

    /// Its word in `.ci/rights` and in the variable.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Namespaces => "namespaces",
            Self::Sysctls => "sysctls",
            Self::Cgroups => "cgroups",
            Self::Perf => "perf",
            Self::Checkout => "checkout",
        }
    }
}

/// To be called where the machine refused something: fails if it is known to give it. Otherwise the caller goes on
/// without what needs it.
#[track_caller]
pub fn refused(right: Right, why: &str) {
    let given = std::env::var_os(VARIABLE).unwrap_or_default();
    let given = given.to_string_lossy();
    for word in given.split_whitespace() {
        // No test would ever insist on a right that is misspelt.
        let is_known = Right::ALL.iter().any(|known| known.word() == word);
        assert!(is_known, "{VARIABLE} has {word:?}, which is no right");
    }
    let is_given = given.split_whitespace().any(|word| word == right.word());
    assert!(!is_given, "this machine gives {}, and yet: {why}", right.word());
    println!("NOT TRIED for want of {}: {why}", right.word());
}
