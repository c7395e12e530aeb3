//! Who may ask now: the last look before a connection, a request or a log in becomes work.
//!
//! ```text
//! backlog ── doors ──> socket ── addresses ──> hello ── doors ──> frames ── requests (rates), places ──> domain
//! REST   ── attempts ──> password hash
//! ```
//!
//! Pure: every call is given the time. Tables are bounded, and what they forget had nothing left to remember
//! ([`buckets`]). A core has tables of its own and shares them with no other: a limit holds for each core, and who
//! spreads connections over N cores gets at most N times as much. REST, which any core may carry, shares one table
//! ([`attempts`]), locked by its caller.
//!
//! A refusal takes nothing: the same request may be repeated as it is after the time that is named, and a message
//! that was refused changed no order.

pub mod rate;
pub mod buckets;
pub mod doors;
pub mod addresses;
pub mod requests;
pub mod places;
pub mod attempts;

pub use places::{HEAVY_REQUESTS_MAX, SESSION_REQUESTS_MAX, Weight, admit, release};
