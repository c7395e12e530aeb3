//! Latencies: HdrHistograms of microseconds that travel and are merged whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

/// Smallest latency told apart, in microseconds.
const LOW_US: u64 = 1;
/// Largest latency held, in microseconds: ten minutes, beyond every time-out of the harness.
pub const HIGH_US: u64 = 600_000_000;
/// Digits that are kept of each value: at most 0.1 % off.
const DIGITS: u8 = 3;

/// Microseconds, merged and never averaged.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies {
    histogram: Histogram<u64>,
    /// Values beyond [`HIGH_US`]: a run with any is void.
    lost: u64,
}

/// A text that is no histogram.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an HdrHistogram: {0}")]
pub struct HistogramError(String);

impl Default for Latencies {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(LOW_US, HIGH_US, DIGITS).expect("bounds that fit each other");
        Self { histogram, lost: 0 }
    }
}

impl Latencies {
    /// Counts one value.
    pub fn record(&mut self, us: u64) {
        if us > HIGH_US || self.histogram.record(us.max(LOW_US)).is_err() {
            self.lost += 1;
        }
    }

    /// Adds all values of another one.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all have the same bounds");
        self.lost += other.lost;
    }

    /// Values counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Values that did not fit.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Value below which this share (0 to 1) of all lies, in microseconds; 0 if there is none.
    pub fn at(&self, quantile: f64) -> u64 {
        if self.histogram.is_empty() { 0 } else { self.histogram.value_at_quantile(quantile) }
    }

    /// Values above this, in microseconds, those in its own bucket left out.
    pub fn above(&self, us: u64) -> u64 {
        self.histogram.len() - self.histogram.count_between(0, us)
    }

    /// Largest value, in microseconds.
    pub fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// Mean, in microseconds; for tables beside the percentiles only.
    pub fn mean(&self) -> f64 {
        self.histogram.mean()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.histogram.reset();
        self.lost = 0;
    }

    /// HdrHistogram's V2 format in base64. What did not fit is not in it.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.histogram, &mut bytes).expect("a Vec grows");
        STANDARD.encode(bytes)
    }

    /// From [`Self::to_text`], or from any histogram whose values fit ours. An empty text is an empty histogram.
    pub fn from_text(text: &str) -> Result<Self, HistogramError> {
        let mut latencies = Self::default();
        if text.is_empty() {
            return Ok(latencies);
        }
        let bytes = STANDARD.decode(text).map_err(|error| HistogramError(error.to_string()))?;
        let read: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| HistogramError(format!("{error:?}")))?;
        latencies.histogram.add(&read).map_err(|error| HistogramError(format!("{error:?}")))?;
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_histograms_are_the_histogram_of_all_values() {
        let (mut one, mut other, mut all) =
            (Latencies::default(), Latencies::default(), Latencies::default());
        for us in (1..5_000u64).map(|number| number * number) {
            if us % 3 == 0 {
                one.record(us)
            } else {
                other.record(us)
            }
            all.record(us);
        }
        let mut merged = Latencies::from_text(&one.to_text()).expect("ours");
        merged.merge(&Latencies::from_text(&other.to_text()).expect("ours"));
        assert_eq!(merged, all);
        assert_eq!(merged.at(0.5), all.at(0.5));
        assert_ne!(merged.at(0.99), (one.at(0.99) + other.at(0.99)) / 2, "an average is something else");
    }

    #[test]
    fn what_does_not_fit_is_counted_as_lost() {
        let mut latencies = Latencies::default();
        latencies.record(HIGH_US + 1);
        latencies.record(0);
        assert_eq!((latencies.lost(), latencies.count(), latencies.max()), (1, 1, 1));
    }

    #[test]
    fn foreign_texts_are_refused() {
        assert!(Latencies::from_text("!").is_err());
        assert!(Latencies::from_text("AAAA").is_err());
        assert_eq!(Latencies::from_text("").expect("empty").count(), 0);
    }
}
