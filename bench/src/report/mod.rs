//! Results: shares of many agents merged, the file of a run, tables and pages made of it, comparisons of several,
//! and the live line while it runs.
//!
//! ```text
//! PhaseShare* -> merge -> PhaseResult -> RunResult -> file (JSON)
//!                                         RunResult -> text | html | compare | peers
//! Progress*   -> merge -> progress (live)  and  Second
//! ```
//!
//! Nothing here averages percentiles: histograms are merged, and figures are taken from the merged one.

pub mod results;
pub mod merge;
pub mod file;
pub mod figures;
pub mod numbers;
pub mod remedies;
pub mod text;
pub mod html;
pub mod compare;
pub mod peers;
pub mod soak;
pub mod progress;
pub mod example;
