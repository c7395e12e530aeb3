//! The Prometheus text of every core of this process, and of what else registered.

use super::core::{CoreMetrics, QUANTILES};
use super::names::{
    Described, ERRORS, Kind, LATENCIES, LATENCIES_HELP, LATENCY_LABELS, METRICS, REQUEST_KINDS, REQUESTS,
};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use wire_protocol::v1::ErrorCode;

/// Cores that one process may register: four times the largest machines.
const CORES_MAX: usize = 1_024;
/// Other sources of text: the embedded storage node.
const TEXTS_MAX: usize = 16;

type Text = Box<dyn Fn() -> String + Send + Sync>;

static CORES: Registry<Arc<CoreMetrics>, CORES_MAX> = Registry::new();
static TEXTS: Registry<Text, TEXTS_MAX> = Registry::new();

/// A list that only grows, without a lock.
struct Registry<T, const MAX: usize> {
    places: [OnceLock<T>; MAX],
    taken: AtomicUsize,
}

impl<T, const MAX: usize> Registry<T, MAX> {
    const fn new() -> Self {
        Self { places: [const { OnceLock::new() }; MAX], taken: AtomicUsize::new(0) }
    }

    /// A full registry takes nothing more; those numbers are then not shown.
    fn push(&self, value: T) {
        let place = self.taken.fetch_add(1, Ordering::AcqRel);
        match self.places.get(place) {
            Some(free) => drop(free.set(value)),
            None => tracing::warn!(MAX, "too many sources of metrics; one is not shown"),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().take(self.taken.load(Ordering::Acquire)).filter_map(OnceLock::get)
    }
}

/// Shows a core's numbers from now on, under the next free core number.
pub fn register_core(metrics: Arc<CoreMetrics>) {
    CORES.push(metrics);
}

/// Shows another part's text from now on.
pub fn register_text(text: impl Fn() -> String + Send + Sync + 'static) {
    TEXTS.push(Box::new(text));
}

/// Everything, in Prometheus' text form.
pub fn render() -> String {
    let mut out = String::with_capacity(16 * 1_024);
    let cores: Vec<&CoreMetrics> = CORES.iter().map(AsRef::as_ref).collect();
    render_cores(&cores, &mut out);
    TEXTS.iter().for_each(|text| out.push_str(&text()));
    out
}

fn render_cores(cores: &[&CoreMetrics], out: &mut String) {
    let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
    for (index, described) in METRICS.iter().enumerate() {
        head(described, out);
        for (core, metrics) in cores.iter().enumerate() {
            line(out, format_args!("{}{{core=\"{core}\"}} {}", described.name, read(&metrics.values[index])));
        }
    }
    head(&REQUESTS, out);
    for (core, metrics) in cores.iter().enumerate() {
        for (kind, count) in REQUEST_KINDS.iter().zip(&metrics.requests) {
            let labels = format_args!("{{core=\"{core}\",kind=\"{kind}\"}} {}", read(count)).to_string();
            line(out, format_args!("{}{labels}", REQUESTS.name));
        }
    }
    head(&ERRORS, out);
    for (core, metrics) in cores.iter().enumerate() {
        for (code, count) in metrics.errors.iter().enumerate() {
            let Ok(code) = ErrorCode::try_from(code as i32) else { continue };
            let labels = format!("{{core=\"{core}\",code=\"{}\"}} {}", code.as_str_name(), read(count));
            line(out, format_args!("{}{labels}", ERRORS.name));
        }
    }
    render_latencies(cores, out);
}

fn render_latencies(cores: &[&CoreMetrics], out: &mut String) {
    line(out, format_args!("# HELP {LATENCIES} {LATENCIES_HELP}\n# TYPE {LATENCIES} summary"));
    let seconds = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1e6;
    for (core, metrics) in cores.iter().enumerate() {
        for (of, latency) in LATENCY_LABELS.iter().zip(&metrics.latencies) {
            let labels = format!("core=\"{core}\",of=\"{of}\"");
            for (quantile, value) in QUANTILES.iter().zip(&latency.quantiles_us) {
                let quantile = *quantile as f64 / 1_000.0;
                let value = seconds(value);
                line(out, format_args!("{LATENCIES}{{{labels},quantile=\"{quantile}\"}} {value}"));
            }
            line(out, format_args!("{LATENCIES}{{{labels},quantile=\"1\"}} {}", seconds(&latency.max_us)));
            line(out, format_args!("{LATENCIES}_sum{{{labels}}} {}", seconds(&latency.sum_us)));
            let count = latency.count.load(Ordering::Relaxed);
            line(out, format_args!("{LATENCIES}_count{{{labels}}} {count}"));
        }
    }
}

fn head(described: &Described, out: &mut String) {
    let kind = match described.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let Described { name, help, .. } = described;
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a String grows");
}

#[cfg(test)]
mod tests {
    use super::super::{CoreObserver, Latency, Metric};
    use super::*;
    use std::collections::HashSet;
    use std::time::Duration;
    use wire_protocol::v1;

    #[test]
    fn every_line_is_prometheus_text() {
        let mut observer = CoreObserver::new();
        observer.add(Metric::Acks, 3);
        observer.set(Metric::OutboxBytes, 17);
        observer.error(ErrorCode::ErrorUnavailable);
        observer.request(&v1::client_frame::Body::LogOut(v1::LogOut {}));
        observer.latency(Latency::Send, Duration::from_millis(2));
        observer.publish_latencies();
        let mut text = String::new();
        render_cores(&[observer.shared()], &mut text);
        for wanted in [
            "ringline_acks_total{core=\"0\"} 3",
            "ringline_outbox_bytes{core=\"0\"} 17",
            "ringline_errors_total{core=\"0\",code=\"ERROR_UNAVAILABLE\"} 1",
            "ringline_requests_total{core=\"0\",kind=\"log_out\"} 1",
            "ringline_latency_seconds_count{core=\"0\",of=\"send\"} 1",
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted} in\n{text}");
        }
        let p50 = "ringline_latency_seconds{core=\"0\",of=\"send\",quantile=\"0.5\"} 0.002";
        assert!(text.lines().any(|line| line.starts_with(p50)), "{text}");
        let mut seen = HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            assert!(value.parse::<f64>().is_ok() && seen.insert(name), "{line}");
        }
    }

    #[test]
    fn registered_cores_and_texts_are_shown() {
        let observer = CoreObserver::new();
        observer.add(Metric::Turns, 987_654);
        register_core(observer.shared().clone());
        register_text(|| "another_part 1\n".into());
        let text = render();
        assert!(text.contains("} 987654") && text.contains("another_part 1"), "{text}");
    }
}
