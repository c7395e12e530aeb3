//! A comparison as text and as a page.

use super::{Comparison, Row, Verdict};
use crate::report::html::markup::{Markup, page};
use crate::report::numbers::short;
use crate::report::text::{COLUMNS, clip};
use std::fmt::Write;

/// The comparison as text of at most [`COLUMNS`] columns.
pub fn text(comparison: &Comparison) -> String {
    let mut lines = vec![
        format!("A: {}", comparison.a),
        format!("   durability: {}", comparison.durability[0]),
        format!("B: {}", comparison.b),
        format!("   durability: {}", comparison.durability[1]),
    ];
    lines.extend(comparison.notes.iter().map(|note| format!("!  {note}")));
    lines.push(format!("   {}", chance(comparison)));
    lines.push(String::new());
    lines.push(format!(
        "  {:21}{:>10}{:>10}{:>8}  {:15}",
        headline(comparison),
        "A",
        "B",
        "B/A",
        "smallest…largest"
    ));
    let mut group = None;
    for row in &comparison.rows {
        if group.replace((&row.phase, &row.stream)) != Some((&row.phase, &row.stream)) {
            lines.push(format!("{} {}{}", row.phase, row.stream, of_pairs(comparison, row)));
        }
        let range = format!("{}…{}", ratio(row.ratio.low), ratio(row.ratio.high));
        lines.push(format!(
            "  {:21}{:>10}{:>10}{:>8}  {range:15} {}",
            row.figure.name(),
            short(row.a),
            short(row.b),
            ratio(row.ratio.median),
            row.verdict().text()
        ));
    }
    if comparison.rows.is_empty() {
        lines.push("  no figure that every run has".into());
    }
    let mut out = String::new();
    for line in lines {
        let _ = writeln!(out, "{}", clip(line.trim_end(), COLUMNS));
    }
    out
}

/// How far "better" and "worse" can be trusted.
fn chance(comparison: &Comparison) -> String {
    format!(
        "With {} pairs, {} % of figures that do not differ look as if they did: more runs show it.",
        comparison.fewest_pairs,
        short(comparison.chance_percent)
    )
}

/// How many pairs count, where it is not all of them.
fn of_pairs(comparison: &Comparison, row: &Row) -> String {
    if row.pairs == comparison.pairs {
        return String::new();
    }
    format!(" ({} of {} pairs, the others are void)", row.pairs, comparison.pairs)
}

fn headline(comparison: &Comparison) -> String {
    format!("medians, {} pairs", comparison.pairs)
}

/// Three places after the point: a hundredth is a difference that counts.
fn ratio(value: f64) -> String {
    if value >= 100.0 { short(value) } else { format!("{value:.3}") }
}

/// The comparison as a self-contained page.
pub fn html(comparison: &Comparison) -> String {
    let mut body = Markup::default();
    let short_name = |name: &str| name.split(" (commit").next().unwrap_or(name).to_owned();
    let title = format!("{} against {}", short_name(&comparison.b), short_name(&comparison.a));
    body.element("h1", "", &title);
    let pairs = comparison.pairs;
    body.element(
        "p",
        "soft",
        &format!("B/A over {pairs} pairs of runs: the middle ratio, and the smallest and largest one."),
    );
    body.element("p", "soft", &chance(comparison));
    body.facts(&[
        ("A".into(), comparison.a.clone()),
        ("durability of A".into(), comparison.durability[0].clone()),
        ("B".into(), comparison.b.clone()),
        ("durability of B".into(), comparison.durability[1].clone()),
    ]);
    if !comparison.notes.is_empty() {
        body.open("section", "card void");
        body.element("h2", "", "Mind");
        body.open("ul", "");
        comparison.notes.iter().for_each(|note| body.element("li", "", note));
        body.close();
        body.close();
    }
    let reach = reach(&comparison.rows);
    let mut phases: Vec<&str> = Vec::new();
    for row in &comparison.rows {
        if !phases.contains(&row.phase.as_str()) {
            phases.push(&row.phase);
        }
    }
    if phases.is_empty() {
        body.element("p", "soft", "There is no figure that every run has.");
    }
    for phase in phases {
        let rows = comparison.rows.iter().filter(|row| row.phase == phase);
        let pairs = rows.clone().next().map(|row| of_pairs(comparison, row)).unwrap_or_default();
        body.element("h2", "", &format!("{phase}{pairs}"));
        table(&mut body, rows, reach);
    }
    page(&title, &body.finish())
}

/// How far the ratios are from 1, as a logarithm: the scale that all drawings share. At least a tenth.
fn reach(rows: &[Row]) -> f64 {
    let ends = rows.iter().flat_map(|row| [row.ratio.low, row.ratio.high]);
    ends.map(|ratio| ratio.ln().abs()).filter(|size| size.is_finite()).fold(1.1f64.ln(), f64::max)
}

fn table<'a>(body: &mut Markup, rows: impl Iterator<Item = &'a Row>, reach: f64) {
    body.open("div", "scroll card");
    body.open("table", "");
    body.open("thead", "");
    body.open("tr", "");
    for (title, class) in [
        ("stream", "name"),
        ("figure", "name"),
        ("A", ""),
        ("B", ""),
        ("B/A", ""),
        ("less ← 1 → more", "name"),
        ("smallest…largest", ""),
        ("", "name"),
    ] {
        body.element("th", class, title);
    }
    body.close();
    body.close();
    body.open("tbody", "");
    for row in rows {
        body.open("tr", "");
        body.element("td", "name", if row.stream.is_empty() { "all" } else { &row.stream });
        body.element("td", "name", &row.figure.name());
        body.element("td", "", &short(row.a));
        body.element("td", "", &short(row.b));
        body.element("td", "", &ratio(row.ratio.median));
        body.open("td", "name");
        body.raw(&drawing(row, reach));
        body.close();
        body.element("td", "", &format!("{}…{}", ratio(row.ratio.low), ratio(row.ratio.high)));
        let class = match row.verdict() {
            Verdict::NoDifference => "name soft",
            Verdict::BBetter => "name good",
            Verdict::BWorse => "name bad",
        };
        body.element("td", class, row.verdict().text());
        body.close();
    }
    body.close();
    body.close();
    body.close();
}

/// The ratios of a row beside 1, on a logarithmic scale: half and double are as far away.
fn drawing(row: &Row, reach: f64) -> String {
    let place = |ratio: f64| 80.0 + 70.0 * (ratio.ln() / reach).clamp(-1.0, 1.0);
    let colour = match row.verdict() {
        Verdict::NoDifference => "c7",
        Verdict::BBetter => "c2",
        Verdict::BWorse => "c4",
    };
    let (low, median, high) = (place(row.ratio.low), place(row.ratio.median), place(row.ratio.high));
    format!(
        "<svg width=\"160\" height=\"18\" viewBox=\"0 0 160 18\" aria-hidden=\"true\">\
         <line class=\"mark\" x1=\"80\" x2=\"80\" y1=\"0\" y2=\"18\"/>\
         <path class=\"range {colour}\" fill=\"none\" d=\"M{low:.1} 9L{high:.1} 9\"/>\
         <path class=\"middle {colour}\" fill=\"none\" d=\"M{median:.1} 9h0\"/></svg>"
    )
}
