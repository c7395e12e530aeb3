//! Which plots a phase has, and what is in them. Several runs share each plot: then a colour is a run and the kind
//! of line a quantity; with one run alone a colour is a quantity.

use super::axis::{Axis, Scale};
use super::plot::{Line, Plot, Stroke};
use crate::measure::histogram::Latencies;
use crate::report::figures;
use crate::report::numbers::short;
use crate::report::results::{PhaseResult, Second};

/// Points of a curve over time; longer phases show the worst of each group of seconds.
const POINTS_MAX: usize = 400;
/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;
/// Points for each nine of a percentile curve.
const POINTS_A_NINE: i32 = 24;

/// One run's part of a phase.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    /// The run, in legends.
    pub run: &'a str,
    /// Its place among all runs: its colour.
    pub number: usize,
    /// The phase.
    pub phase: &'a PhaseResult,
    /// Seconds of it that figures leave out.
    pub warm_up_s: f64,
}

/// All plots of a phase.
pub fn plots(parts: &[Part<'_>]) -> Vec<Plot> {
    let mut plots = percentiles(parts);
    plots.push(latency_over_time(parts));
    plots.push(rate(parts));
    if parts.iter().any(|part| part.phase.seconds.iter().any(|second| second.errors > 0)) {
        plots.push(over_time(
            parts,
            "Errors",
            "a second",
            Axis::linear("errors/s"),
            &[Quantity {
                name: "errors",
                value: |second| second.errors as f64,
                group: Group::Mean,
                stroke: Stroke::Solid,
            }],
        ));
    }
    plots.push(cpu(parts));
    plots.push(over_time(
        parts,
        "Connections",
        "",
        Axis::linear("ready"),
        &[Quantity {
            name: "connections",
            value: |second| second.connections as f64,
            group: Group::Least,
            stroke: Stroke::Solid,
        }],
    ));
    plots.push(memory(parts));
    plots.extend(memory_slope(parts));
    plots
}

/// Line of a quantity of a run.
fn ink(parts: &[Part<'_>], part: &Part<'_>, quantity: usize, name: &str) -> (String, usize, Stroke) {
    let strokes = [Stroke::Solid, Stroke::Dashed, Stroke::Dotted];
    match parts {
        [_] => (name.to_owned(), quantity, Stroke::Solid),
        _ => (format!("{}: {name}", part.run), part.number, strokes[quantity % strokes.len()]),
    }
}

fn percentiles(parts: &[Part<'_>]) -> Vec<Plot> {
    let mut actions: Vec<&str> = Vec::new();
    for stream in parts.iter().flat_map(|part| &part.phase.streams) {
        if !actions.contains(&stream.action.as_str()) {
            actions.push(&stream.action);
        }
    }
    let plot = |action: &&str| {
        let mut lines = Vec::new();
        for part in parts {
            let streams = part.phase.streams.iter().filter(|stream| stream.action == **action);
            for (stream, name) in
                streams.flat_map(|stream| stream.histograms.keys().map(move |name| (stream, name)))
            {
                let points = percentile_points(&figures::latencies(stream, name));
                let quantity = ["answer", "delivery"].iter().position(|known| known == name).unwrap_or(2);
                let (name, colour, stroke) = ink(parts, part, quantity, name);
                lines.push(Line { name, colour, stroke, points });
            }
        }
        Plot {
            title: format!("{action}: latency by percentile"),
            note: String::new(),
            x: Axis { label: "percentile".into(), scale: Scale::Percentile },
            y: Axis::log("ms"),
            lines,
            marks: Vec::new(),
        }
    };
    actions.iter().map(plot).collect()
}

/// Percentiles up to the one that the last value stands for.
fn percentile_points(latencies: &Latencies) -> Vec<(f64, f64)> {
    if latencies.count() == 0 {
        return Vec::new();
    }
    let last = 1.0 - 1.0 / (latencies.count() as f64 + 1.0);
    let shares = (0..).map(|index| 1.0 - 10f64.powf(-f64::from(index) / f64::from(POINTS_A_NINE)));
    let mut points: Vec<_> = shares
        .take_while(|share| *share < last)
        .map(|share| (share, latencies.at(share) as f64 / 1e3))
        .collect();
    points.push((last, latencies.max() as f64 / 1e3));
    points
}

/// What becomes of several seconds that share a point. Percentiles are never averaged.
#[derive(Clone, Copy)]
enum Group {
    Mean,
    Largest,
    Least,
}

/// Something that each second has.
struct Quantity {
    name: &'static str,
    value: fn(&Second) -> f64,
    group: Group,
    /// With one run alone.
    stroke: Stroke,
}

/// Points over time, thinned to what a plot can show.
fn points(seconds: &[Second], quantity: &Quantity) -> Vec<(f64, f64)> {
    let every = seconds.len().div_ceil(POINTS_MAX).max(1);
    let group = |seconds: &[Second]| {
        let values = || seconds.iter().map(quantity.value);
        let value = match quantity.group {
            Group::Mean => values().sum::<f64>() / seconds.len() as f64,
            Group::Largest => values().fold(0.0, f64::max),
            Group::Least => values().fold(f64::INFINITY, f64::min),
        };
        (f64::from(seconds[0].second), value)
    };
    seconds.chunks(every).map(group).collect()
}

fn over_time(parts: &[Part<'_>], title: &str, note: &str, y: Axis, quantities: &[Quantity]) -> Plot {
    let mut lines = Vec::new();
    for part in parts {
        for (number, quantity) in quantities.iter().enumerate() {
            let (name, colour, stroke) = ink(parts, part, number, quantity.name);
            let stroke = if parts.len() == 1 { quantity.stroke } else { stroke };
            lines.push(Line { name, colour, stroke, points: points(&part.phase.seconds, quantity) });
        }
    }
    // Marks of several runs would lie over each other.
    let marks = if let [part] = parts { marks(part) } else { Vec::new() };
    Plot { title: title.into(), note: note.into(), x: Axis::linear("seconds"), y, lines, marks }
}

fn marks(part: &Part<'_>) -> Vec<(f64, String)> {
    let warm_up = (part.warm_up_s > 0.0).then(|| (part.warm_up_s, "end of warm-up".to_owned()));
    let faults = part.phase.faults.iter().map(|(us, what)| (*us as f64 / 1e6, what.clone()));
    warm_up.into_iter().chain(faults).collect()
}

fn latency_over_time(parts: &[Part<'_>]) -> Plot {
    let quantities = [
        Quantity {
            name: "p50",
            value: |second| second.p50_us as f64 / 1e3,
            group: Group::Largest,
            stroke: Stroke::Solid,
        },
        Quantity {
            name: "p99",
            value: |second| second.p99_us as f64 / 1e3,
            group: Group::Largest,
            stroke: Stroke::Solid,
        },
        Quantity {
            name: "max",
            value: |second| second.max_us as f64 / 1e3,
            group: Group::Largest,
            stroke: Stroke::Solid,
        },
    ];
    let note = "of what was answered in each second, all streams";
    over_time(parts, "Latency over time", note, Axis::log("ms"), &quantities)
}

fn rate(parts: &[Part<'_>]) -> Plot {
    let quantities = [
        Quantity {
            name: "answered",
            value: |second| second.succeeded as f64,
            group: Group::Mean,
            stroke: Stroke::Solid,
        },
        Quantity {
            name: "offered",
            value: |second| second.due as f64,
            group: Group::Mean,
            stroke: Stroke::Dashed,
        },
    ];
    over_time(parts, "Offered and achieved rate", "all streams", Axis::linear("actions/s"), &quantities)
}

fn cpu(parts: &[Part<'_>]) -> Plot {
    let quantities = [
        Quantity {
            name: "servers",
            value: |second| second.server_cpu_milli as f64 / 1e3,
            group: Group::Mean,
            stroke: Stroke::Solid,
        },
        Quantity {
            name: "busiest agent",
            value: |second| second.agent_cpu_milli as f64 / 1e3,
            group: Group::Mean,
            stroke: Stroke::Solid,
        },
    ];
    over_time(parts, "CPU", "", Axis::linear("cores"), &quantities)
}

fn memory(parts: &[Part<'_>]) -> Plot {
    let quantities = [
        Quantity {
            name: "servers, private",
            value: |second| second.server_private_bytes as f64 / MIB,
            group: Group::Largest,
            stroke: Stroke::Solid,
        },
        Quantity {
            name: "kernel (slab, socket buffers, page tables)",
            value: |second| second.kernel_bytes as f64 / MIB,
            group: Group::Largest,
            stroke: Stroke::Solid,
        },
    ];
    over_time(parts, "Memory", "", Axis::linear("MiB"), &quantities)
}

/// A kind of memory in a second.
type BytesOf = fn(&Second) -> u64;

/// Memory over connections with the fitted lines; none if no run has a slope.
fn memory_slope(parts: &[Part<'_>]) -> Option<Plot> {
    let mut lines = Vec::new();
    for part in parts {
        let Some(slope) = figures::phase_slope(part.phase) else { continue };
        let halves: [(&str, BytesOf, f64, f64); 2] = [
            ("servers", |second| second.server_private_bytes, slope.user_base, slope.user_bytes),
            ("kernel", |second| second.kernel_bytes, slope.kernel_base, slope.kernel_bytes),
        ];
        for (quantity, (name, bytes, base, each)) in halves.into_iter().enumerate() {
            let text = format!("{name}: {} B for each connection", short(each));
            let (name, colour, stroke) = ink(parts, part, quantity, &text);
            let at = |connections: u64| (connections as f64, (base + each * connections as f64) / MIB);
            let seconds = &part.phase.seconds;
            let every = seconds.len().div_ceil(POINTS_MAX).max(1);
            let measured = seconds.iter().step_by(every);
            let measured =
                measured.map(|second| (second.connections as f64, bytes(second) as f64 / MIB)).collect();
            lines.push(Line { name, colour, stroke, points: vec![at(slope.from), at(slope.to)] });
            lines.push(Line { name: "measured".into(), colour, stroke: Stroke::Points, points: measured });
        }
    }
    (!lines.is_empty()).then(|| Plot {
        title: "Memory of a connection".into(),
        note: "least squares over the seconds of the phase".into(),
        x: Axis::linear("connections"),
        y: Axis::linear("MiB"),
        lines,
        marks: Vec::new(),
    })
}
