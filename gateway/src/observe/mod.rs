//! Counting: what every core counts, and the Prometheus text of all of it.
//!
//! A core writes its own numbers and nobody else does; the metrics server reads them at any time. Latencies go
//! into histograms that only the core's loop touches; once a second their quantiles are published.

pub mod names;
mod core;
mod render;

pub(crate) use self::core::latency_of;
pub use self::core::{CoreMetrics, CoreObserver};
pub use names::{Latency, Metric};
pub use render::{register_core, register_text, render};
