//! Axes: from a value to a place, and where the ticks are.

use crate::report::numbers::grouped;

/// How values are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By powers of ten; values above 0 only.
    Log,
    /// Shares from 0 to below 1, each further nine of 0.9, 0.99, 0.999 as wide as the last.
    Percentile,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How.
    pub scale: Scale,
}

impl Axis {
    /// Evenly.
    pub fn linear(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Linear }
    }

    /// By powers of ten.
    pub fn log(label: &str) -> Self {
        Self { label: label.into(), scale: Scale::Log }
    }
}

/// Ticks that a linear axis has at most.
const LINEAR_TICKS_MAX: f64 = 6.0;
/// Most nines of a percentile axis: a histogram of ten million values has seven.
const NINES_MAX: f64 = 7.0;

/// An axis and the range that its values need.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    scale: Scale,
    /// In the scale's own measure: the value, its logarithm, its nines.
    low: f64,
    high: f64,
}

impl Range {
    /// Wide enough for all values that the scale can show; `None`: there is no such value.
    pub fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let measures = values.filter_map(|value| measure(scale, value));
        let (low, high) = measures
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        let (low, high) = match scale {
            Scale::Linear => {
                let low = low.min(0.0);
                let step = step(high - low);
                (
                    if low < 0.0 { (low / step).floor() * step } else { 0.0 },
                    (high / step).ceil().max(1.0) * step,
                )
            }
            Scale::Log => {
                (log_step(low, f64::floor), log_step(high, f64::ceil).max(log_step(low, f64::floor) + 0.3))
            }
            Scale::Percentile => (0.0, high.ceil().max(1.0)),
        };
        Some(Self { scale, low, high })
    }

    /// Exactly from zero to the largest value: for time, where room behind the end would look like silence.
    pub fn tight(self, values: impl Iterator<Item = f64>) -> Self {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        if self.scale == Scale::Linear && high > 0.0 { Self { high, ..self } } else { self }
    }

    /// Place of a value, 0 to 1; `None`: the scale cannot show it.
    pub fn place(&self, value: f64) -> Option<f64> {
        measure(self.scale, value).map(|value| ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0))
    }

    /// Values that have a tick, with what stands there.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.high - self.low);
                let count = ((self.high - self.low) / step + 1e-6).floor() as u32;
                let values = (0..=count).map(|index| self.low + f64::from(index) * step);
                values.map(|value| (value, plain(value, step))).collect()
            }
            Scale::Log => self.log_ticks(),
            Scale::Percentile => {
                let nines = (0..=self.high as i32).map(|nines| 1.0 - 10f64.powi(-nines));
                nines.enumerate().map(|(nines, value)| (value, percentile_text(nines))).collect()
            }
        }
    }

    fn log_ticks(&self) -> Vec<(f64, String)> {
        let decades = self.high - self.low;
        let factors: &[f64] = if decades <= 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let mut ticks = Vec::new();
        for decade in self.low.floor() as i32..=self.high.ceil() as i32 {
            for value in factors.iter().map(|factor| factor * 10f64.powi(decade)) {
                if (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10()) {
                    ticks.push((value, log_text(value)));
                }
            }
        }
        ticks
    }
}

fn measure(scale: Scale, value: f64) -> Option<f64> {
    let measure = match scale {
        Scale::Linear => value,
        Scale::Log if value > 0.0 => value.log10(),
        Scale::Percentile if (0.0..1.0).contains(&value) => -(1.0 - value).log10(),
        Scale::Percentile if value == 1.0 => NINES_MAX,
        Scale::Log | Scale::Percentile => return None,
    };
    let measure = if scale == Scale::Percentile { measure.min(NINES_MAX) } else { measure };
    measure.is_finite().then_some(measure)
}

/// The next of 1, 2, 5, 10, … that gives at most so many ticks.
fn step(span: f64) -> f64 {
    if span <= 0.0 || !span.is_finite() {
        return 1.0;
    }
    let rough = span / LINEAR_TICKS_MAX;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// The next of 1, 2, 5, 10, … below or above, as a logarithm.
fn log_step(measure: f64, round: fn(f64) -> f64) -> f64 {
    let decade = measure.floor();
    let steps = [0.0, 2f64.log10(), 5f64.log10(), 1.0].map(|part| decade + part);
    let below = round(0.5) == 0.0;
    let mut fitting = steps
        .into_iter()
        .filter(|step| if below { *step <= measure + 1e-9 } else { *step >= measure - 1e-9 });
    if below { fitting.next_back().unwrap_or(decade) } else { fitting.next().unwrap_or(decade + 1.0) }
}

/// A linear tick: as many decimals as the step has.
fn plain(value: f64, step: f64) -> String {
    let places = if step >= 1.0 { 0 } else { (-step.log10()).ceil().clamp(0.0, 9.0) as usize };
    if places > 0 {
        return format!("{value:.places$}");
    }
    match value.abs() {
        size if size >= 1e9 => format!("{}G", value / 1e9),
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e5 => format!("{}k", value / 1e3),
        size => format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(size.round() as u64)),
    }
}

fn log_text(value: f64) -> String {
    let places = (-value.log10()).ceil().clamp(0.0, 9.0) as usize;
    if value >= 1.0 { plain(value, 1.0) } else { format!("{value:.places$}") }
}

/// "0 %", "90 %", "99 %", "99.9 %".
fn percentile_text(nines: usize) -> String {
    match nines {
        0 => "0 %".into(),
        1 => "90 %".into(),
        2 => "99 %".into(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(scale: Scale, values: &[f64]) -> Vec<String> {
        let range = Range::of(scale, values.iter().copied()).expect("something to show");
        range.ticks().into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(
            ticks(Scale::Linear, &[3.0, 9_800.0]),
            ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]
        );
        assert_eq!(ticks(Scale::Linear, &[0.0, 0.37]), ["0.0", "0.1", "0.2", "0.3", "0.4"]);
        assert_eq!(
            ticks(Scale::Linear, &[0.0]),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"],
            "nothing but zero still has a range"
        );
        assert_eq!(ticks(Scale::Linear, &[-3.0, 5.0]), ["-4", "-2", "0", "2", "4", "6"]);
        assert_eq!(ticks(Scale::Log, &[0.03, 40.0, 900.0]), ["0.1", "1", "10", "100", "1,000"]);
        assert_eq!(ticks(Scale::Log, &[0.4, 3.0]), ["0.2", "0.5", "1", "2", "5"]);
        assert_eq!(ticks(Scale::Percentile, &[0.0, 0.9995]), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn places_are_within_the_plot_and_ordered() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            let values = [0.01, 0.2, 0.5, 0.95, 0.999];
            let range = Range::of(scale, values.into_iter()).expect("something to show");
            let places: Vec<f64> = values.iter().map(|value| range.place(*value).expect("it fits")).collect();
            assert!(
                places.is_sorted() && places.iter().all(|place| (0.0..=1.0).contains(place)),
                "{places:?}"
            );
        }
        let nines = Range::of(Scale::Percentile, [0.99].into_iter()).expect("two nines");
        assert!((nines.place(0.9).expect("a nine") - 0.5).abs() < 1e-9, "0.9 is half way to 0.99");
    }

    #[test]
    fn what_cannot_be_shown_has_no_place() {
        assert_eq!(Range::of(Scale::Log, [0.0, -1.0, f64::NAN].into_iter()), None);
        assert_eq!(Range::of(Scale::Linear, std::iter::empty()), None);
        let log = Range::of(Scale::Log, [1.0].into_iter()).expect("one value");
        assert_eq!((log.place(0.0), log.place(f64::NAN)), (None, None));
        assert!(log.place(1.0).is_some_and(f64::is_finite), "one value alone divides by nothing");
    }
}
