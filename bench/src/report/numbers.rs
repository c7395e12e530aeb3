//! How numbers are written for people.

use crate::workload::plan::ActionName;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// An action as plans name it.
pub fn name_of(action: ActionName) -> String {
    match serde_json::to_value(action) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{action:?}"),
    }
}

/// With a comma before each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits or all before the point: 0.0123, 1.23, 12.3, 1,234. "–" for what is no number.
pub fn short(number: f64) -> String {
    if !number.is_finite() {
        return "–".into();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let size = number.abs();
    let places = match size {
        _ if size == 0.0 || size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 0.099_95 => 3,
        _ => 4,
    };
    let text = format!("{size:.places$}");
    match text.split_once('.') {
        Some(_) => format!("{sign}{text}"),
        None => format!("{sign}{}", grouped(text.parse().unwrap_or(u64::MAX))),
    }
}

/// Microseconds as milliseconds.
pub fn ms(us: u64) -> String {
    short(us as f64 / 1e3)
}

/// Bytes in the unit that fits: B, KiB, MiB, GiB.
pub fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (count, 0);
    while size.abs() >= 1_024.0 && unit + 1 < units.len() {
        size /= 1_024.0;
        unit += 1;
    }
    format!("{} {}", short(size), units[unit])
}

/// Thousandths as a percentage.
pub fn percent(milli: u64) -> String {
    format!("{} %", short(milli as f64 / 10.0))
}

/// Seconds as "1:05" or "2:01:05".
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Milliseconds since 1970 as "2025-11-28 00:04:18 UTC".
pub fn moment(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (year, month, day) = date(seconds / DAY_S);
    let rest = seconds % DAY_S;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a count of days since 1970. Years are counted from March, so that the leap day is last.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days of 400 years.
    const ERA_DAYS: u64 = 146_097;
    /// Days from March of year 0 to 1970.
    const FROM_ZERO: u64 = 719_468;
    let days = days + FROM_ZERO;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    (era * 400 + year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (0.01234, "0.0123"),
            (0.1, "0.100"),
            (0.99999, "1.00"),
            (1.234, "1.23"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (99.99, "100"),
            (1234.5, "1,234"),
            (-8_428.0, "-8,428"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn units_are_written_behind() {
        assert_eq!(ms(412), "0.412");
        assert_eq!(ms(33_400), "33.4");
        assert_eq!(bytes(1_023.0), "1,023 B");
        assert_eq!(bytes(1_536.0), "1.50 KiB");
        assert_eq!(bytes(-2_097_152.0), "-2.00 MiB");
        assert_eq!(percent(437), "43.7 %");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!((clock(65), clock(3_725)), ("1:05".to_owned(), "1:02:05".to_owned()));
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_827_696_000), "2000-02-29 12:34:56 UTC");
        assert_eq!(moment(1_764_288_258_123), "2025-11-28 00:04:18 UTC");
        assert_eq!(moment(4_107_542_399_000), "2100-02-28 23:59:59 UTC");
        assert_eq!(moment(4_107_542_400_000), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn actions_have_the_names_of_plans() {
        assert_eq!(name_of(ActionName::CatchUp), "catch_up");
    }
}
