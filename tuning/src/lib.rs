//! What a machine should be set to for a role, how far it is from that, and the way there and back.
//!
//! A profile (`profiles/*.toml`) names settings, what each should be and why. `check` compares, `Plan` says what would
//! be written, `apply` writes it after a record of the old values is on disk, `revert` restores them. This crate knows
//! nothing of gateways or storage nodes beyond the names of their profiles. Modules stand in the order of the work.
//!
//! Beside it stands [`failpoint`]: what a test sets one process to. The programs share it from here, since this crate is
//! below both of them and may touch files.

#![forbid(unsafe_code)]

mod host;
mod setting;
mod profile;
mod check;
mod plan;
mod record;
mod apply;
mod revert;
pub mod command;
pub mod failpoint;

#[cfg(test)]
mod made_up;

pub use apply::{ApplyError, Done, apply};
pub use check::{Finding, Machine, Report, State, check};
pub use host::{Host, ProcessHost, RealHost};
pub use plan::{ByHand, Plan, Step};
pub use profile::{Profile, ProfileError, Wanted};
pub use record::{Changed, Disk, Progress, RECORD_PATH, RealDisk, Record, RecordError, RecordFile};
pub use revert::{Foreign, Outcome, RevertError, revert};
pub use setting::{Amount, Bound, Present, Setting, Value, Wish};
