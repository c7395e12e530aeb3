//! Values of settings, what a profile may want of them, and what a machine answers.

use super::Setting;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What a setting can be: a number or a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number; its unit is the setting's.
    Number(u64),
    /// A limit that is none.
    Unlimited,
    /// One of the kernel's words.
    Word(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Unlimited => f.write_str("unlimited"),
            Value::Word(word) => f.write_str(word),
        }
    }
}

/// A number stays a number in JSON; the rest are strings.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Number(number) => serializer.serialize_u64(*number),
            Value::Unlimited => serializer.serialize_str("unlimited"),
            Value::Word(word) => serializer.serialize_str(word),
        }
    }
}

/// What a machine answers when asked for a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Present {
    /// The value, and where it comes from if that is not obvious.
    Here(Value, Option<String>),
    /// The setting has no meaning on this machine, and why.
    NotApplicable(String),
    /// It should be readable and is not: names the file.
    Unreadable(String),
}

impl Present {
    /// A value that explains itself.
    pub(crate) fn here(value: Value) -> Self {
        Present::Here(value, None)
    }

    /// A file that has no number, or no known word, where one belongs.
    pub(crate) fn garbled(path: &str, text: &str) -> Self {
        /// Characters shown of a text that nobody expected.
        const SHOWN_MAX: usize = 60;
        let shown: String = text.trim().chars().take(SHOWN_MAX).collect();
        Present::Unreadable(format!("{path}: not understood: {shown:?}"))
    }
}

/// What the kind of a setting's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Number,
    Word,
}

/// A number in a profile, which may grow with the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// The same on every machine.
    Fixed(u64),
    /// For each GiB of memory.
    PerGib(u64),
    /// For each core that is online.
    PerCore(u64),
}

/// What a profile wants of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// This much or more.
    AtLeast(Amount),
    /// This much or less.
    AtMost(Amount),
    /// This number and no other.
    Exactly(u64),
    /// One of these words; the first that the machine offers is what `apply` sets.
    OneOf(Vec<String>),
}

impl Wish {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Wish::AtLeast(_) | Wish::AtMost(_) | Wish::Exactly(_) => Kind::Number,
            Wish::OneOf(_) => Kind::Word,
        }
    }
}

/// A wish on a certain machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// This much or more.
    AtLeast(u64),
    /// This much or less.
    AtMost(u64),
    /// This number and no other.
    Exactly(u64),
    /// One of these words.
    OneOf(Vec<String>),
}

impl Bound {
    /// Whether a value is within.
    pub fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Bound::AtLeast(_), Value::Unlimited) => true,
            (Bound::AtLeast(least), Value::Number(number)) => number >= least,
            (Bound::AtMost(most), Value::Number(number)) => number <= most,
            (Bound::Exactly(exact), Value::Number(number)) => number == exact,
            (Bound::OneOf(words), Value::Word(word)) => words.contains(word),
            _ => false,
        }
    }

    /// The number nearest to what is there that serves; words have none.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Bound::AtLeast(number) | Bound::AtMost(number) | Bound::Exactly(number) => Some(*number),
            Bound::OneOf(_) => None,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtLeast(number) => write!(f, "at least {number}"),
            Bound::AtMost(number) => write!(f, "at most {number}"),
            Bound::Exactly(number) => write!(f, "{number}"),
            Bound::OneOf(words) => f.write_str(&words.join(" or ")),
        }
    }
}

/// One value to be written into a file of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Edit {
    pub(crate) path: String,
    /// Which of the numbers of the file; none: the file is one value.
    pub(crate) field: Option<usize>,
    pub(crate) value: String,
}

/// How a setting that does not serve comes to serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// By writing these.
    Edits(Vec<Edit>),
    /// Not by this program, but by what the text says.
    ByHand(String),
}

/// Everything about a setting that does not depend on a machine.
pub(crate) struct Spec {
    /// The kernel's name for it.
    pub(crate) name: &'static str,
    /// What it is, in a line.
    pub(crate) what: &'static str,
    pub(crate) source: Source,
}

/// Where a setting is read, and how it is changed.
pub(crate) enum Source {
    /// A number in a file of numbers: a sysctl.
    Sysctl {
        path: &'static str,
        field: usize,
        /// What it means that the file is not there; none: it has to be there.
        absent: Option<&'static str>,
    },
    /// The bracketed word of a file that lists all words.
    Choice { path: &'static str, absent: &'static str },
    /// What takes more than a file.
    Computed { kind: Kind, room: &'static dyn Room },
}

/// A setting that is put together from several files.
pub(crate) trait Room: Sync {
    fn present(&self, setting: Setting, host: &dyn crate::host::Host) -> Present;
    /// Called only when the present value is known and does not serve.
    fn change(&self, setting: Setting, bound: &Bound, host: &dyn crate::host::Host) -> Change;
}
