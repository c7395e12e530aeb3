//! The harness: drives real servers over the real protocol, keeps a ledger of what was acknowledged, measures.
//!
//! [`coordinator`] starts server processes and kills them, [`agent`] is one client over one connection,
//! [`workload`] says what clients do and checks what every device must see, [`measure`] counts and reads what
//! the machine says of the servers. [`world`] simulates a whole cluster in one thread. Tests and benchmarks run the same workload modules.

#![forbid(unsafe_code)]

pub mod clock;
pub mod coordinator;
pub mod agent;
pub mod workload;
pub mod measure;
pub mod report;
pub mod verify;
pub mod faults;
pub mod world;
pub mod peers;

#[cfg(test)]
#[path = "../../tuning/tests/rights/right.rs"]
mod right;
