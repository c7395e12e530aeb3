//! What clients do, and what every one of their devices must see. Shared by tests and benchmarks.

pub mod plan;
pub mod random;
pub mod schedule;
pub mod search;
pub mod population;
pub mod stamp;
pub mod ledger;
pub mod load;
pub mod device;
pub mod balance;
pub mod zones;
pub mod scenario;
pub mod crash;
