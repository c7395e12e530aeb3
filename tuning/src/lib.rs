//! What a machine should be set to for a role, and how far it is from that.
//!
//! A profile (`profiles/*.toml`) names settings, what each should be at least or exactly, and why. This crate
//! reads profiles and the machine's present values and compares them; it changes nothing. It knows nothing of
//! gateways or storage nodes beyond the names of their profiles.

#![forbid(unsafe_code)]

mod profile;
mod setting;

pub use profile::{Profile, ProfileError, Wanted};
pub use setting::{Finding, Host, RealHost, Setting, check};
