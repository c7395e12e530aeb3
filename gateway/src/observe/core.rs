//! One core's numbers.

use super::names::{LATENCY_LABELS, Latency, METRICS, Metric, REQUEST_KINDS};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wire_protocol::v1::{ErrorCode, client_frame};

/// Wire codes are below this.
pub(super) const CODES: usize = 64;
/// Quantiles that are published, in thousandths.
pub(super) const QUANTILES: [u64; 4] = [500, 900, 990, 999];
/// Longest time a histogram tells apart, in microseconds: a minute, six request timeouts.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Significant figures: 1 % of error for 20 KiB a histogram.
const LATENCY_FIGURES: u8 = 2;

/// One core's numbers, for any thread to read.
#[derive(Debug)]
pub struct CoreMetrics {
    pub(super) values: Vec<AtomicU64>,
    pub(super) requests: [AtomicU64; REQUEST_KINDS.len()],
    pub(super) errors: Vec<AtomicU64>,
    pub(super) latencies: [PublishedLatency; LATENCY_LABELS.len()],
}

/// What is told of a histogram.
#[derive(Debug, Default)]
pub(super) struct PublishedLatency {
    pub(super) count: AtomicU64,
    pub(super) sum_us: AtomicU64,
    pub(super) quantiles_us: [AtomicU64; QUANTILES.len()],
    pub(super) max_us: AtomicU64,
}

impl Default for CoreMetrics {
    fn default() -> Self {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            values: zeros(METRICS.len()),
            requests: Default::default(),
            errors: zeros(CODES),
            latencies: Default::default(),
        }
    }
}

impl CoreMetrics {
    /// The number now.
    pub fn value(&self, metric: Metric) -> u64 {
        self.values[metric as usize].load(Ordering::Relaxed)
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.requests.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The core's own end: it alone writes.
pub struct CoreObserver {
    shared: Arc<CoreMetrics>,
    latencies: Vec<Histogram<u64>>,
    sums_us: [u64; LATENCY_LABELS.len()],
}

impl Default for CoreObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl CoreObserver {
    /// All zero.
    pub fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_FIGURES).expect("valid bounds");
        Self {
            shared: Arc::default(),
            latencies: LATENCY_LABELS.iter().map(|_| histogram()).collect(),
            sums_us: Default::default(),
        }
    }

    /// For readers.
    pub fn shared(&self) -> &Arc<CoreMetrics> {
        &self.shared
    }

    /// Counts on.
    pub fn add(&self, metric: Metric, more: u64) {
        grow(&self.shared.values[metric as usize], more);
    }

    /// Sets a gauge, or a counter that is kept elsewhere.
    pub fn set(&self, metric: Metric, value: u64) {
        self.shared.values[metric as usize].store(value, Ordering::Relaxed);
    }

    /// A request was taken.
    pub fn request(&self, body: &client_frame::Body) {
        grow(&self.shared.requests[request_kind(body)], 1);
    }

    /// A request was answered with an error.
    pub fn error(&self, code: ErrorCode) {
        let place = usize::try_from(code as i32).unwrap_or(0).min(CODES - 1);
        grow(&self.shared.errors[place], 1);
    }

    /// Something took this long.
    pub fn latency(&mut self, of: Latency, took: Duration) {
        let us = (took.as_micros() as u64).clamp(1, LATENCY_US_MAX);
        self.latencies[of as usize].saturating_record(us);
        self.sums_us[of as usize] += us;
    }

    /// Makes the latencies readable. Called about once a second.
    pub fn publish_latencies(&self) {
        for ((histogram, sum), published) in
            self.latencies.iter().zip(self.sums_us).zip(&self.shared.latencies)
        {
            for (&quantile, value) in QUANTILES.iter().zip(&published.quantiles_us) {
                value.store(histogram.value_at_quantile(quantile as f64 / 1_000.0), Ordering::Relaxed);
            }
            published.max_us.store(histogram.max(), Ordering::Relaxed);
            published.sum_us.store(sum, Ordering::Relaxed);
            published.count.store(histogram.len(), Ordering::Relaxed);
        }
    }
}

/// One writer: a plain load and store, no locked instruction.
fn grow(value: &AtomicU64, more: u64) {
    value.store(value.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Place of a request's kind in [`REQUEST_KINDS`].
fn request_kind(body: &client_frame::Body) -> usize {
    use client_frame::Body;
    match body {
        Body::Send(_) => 0,
        Body::Delivered(_) => 1,
        Body::Read(_) => 2,
        Body::Sync(_) => 3,
        Body::History(_) => 4,
        Body::List(_) => 5,
        Body::Create(_) => 6,
        Body::LogOut(_) => 7,
        Body::LookUp(_) => 8,
        Body::Get(_) => 9,
        Body::Hello(_) | Body::Ping(_) => 10,
    }
}

/// Which latency a request's answer belongs to.
pub(crate) fn latency_of(body: &client_frame::Body) -> Latency {
    match body {
        client_frame::Body::Send(_) => Latency::Send,
        client_frame::Body::Sync(_) => Latency::Sync,
        _ => Latency::Other,
    }
}
