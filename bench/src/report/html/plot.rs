//! A plot as inline SVG, with its legend beside it in HTML, so that it wraps on a phone. No script: what a value is
//! shows as the tooltip of a narrow column.

use super::axis::{Axis, Range, Scale};
use super::markup::escape;
use crate::report::numbers::short;
use std::fmt::Write;

/// The drawing's own units: about as wide as it is shown on a large screen, so that its text keeps its size.
const WIDTH: f64 = 500.0;
const HEIGHT: f64 = 276.0;
/// Room for tick texts.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 38.0;
/// Points of a line at most; more are thinned before.
const COLUMNS_MAX: usize = 80;
/// Colours of the style.
const COLOURS: usize = 8;

/// How a line is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stroke {
    /// Unbroken.
    Solid,
    /// In dashes.
    Dashed,
    /// In dots.
    Dotted,
    /// Single points that nothing joins.
    Points,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Which of the style's colours.
    pub colour: usize,
    /// How.
    pub stroke: Stroke,
    /// In order; one that the axes cannot show leaves a gap.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Below the title; empty: nothing.
    pub note: String,
    /// Across.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// Curves.
    pub lines: Vec<Line>,
    /// Moments to mark, and what happened.
    pub marks: Vec<(f64, String)>,
}

impl Plot {
    /// The figure.
    pub fn render(&self) -> String {
        let title = escape(&self.title);
        let mut out = format!("<figure>\n<figcaption>{title}</figcaption>\n");
        if !self.note.is_empty() {
            let _ = writeln!(out, "<p class=\"soft\">{}</p>", escape(&self.note));
        }
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied());
        let x = Range::of(self.x.scale, points().map(|(x, _)| x));
        let x = x.map(|range| range.tight(points().map(|(x, _)| x)));
        match (x, Range::of(self.y.scale, points().map(|(_, y)| y))) {
            (Some(x), Some(y)) => {
                let frame = Frame { x, y };
                let _ = writeln!(
                    out,
                    "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
                );
                self.axes(&frame, &mut out);
                self.lines.iter().for_each(|line| frame.line(line, &mut out));
                self.columns(&frame, &mut out);
                out.push_str("</svg>\n");
                self.legend(&mut out);
            }
            _ => out.push_str("<p class=\"soft\">Nothing to show.</p>\n"),
        }
        out.push_str("</figure>\n");
        out
    }

    fn axes(&self, frame: &Frame, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, text) in frame.y.ticks() {
            let Some(y) = frame.y_of(value) else { continue };
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
            let place = format!("x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\"", LEFT - 7.0, y + 4.5);
            let _ = writeln!(out, "<text {place}>{}</text>", escape(&text));
        }
        for (value, text) in frame.x.ticks() {
            let Some(x) = frame.x_of(value) else { continue };
            if self.x.scale == Scale::Percentile {
                let _ = writeln!(
                    out,
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
                );
            }
            // A text at the right edge would be cut.
            let anchor = if x > right - 12.0 { "end" } else { "middle" };
            let x = if anchor == "end" { right + RIGHT - 1.0 } else { x };
            let place = format!("x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\"", bottom + 17.0);
            let _ = writeln!(out, "<text {place}>{}</text>", escape(&text));
        }
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
        );
        let _ = writeln!(out, "<text x=\"2\" y=\"12\">{}</text>", escape(&self.y.label));
        let middle = (LEFT + right) / 2.0;
        let place = format!("x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\"", HEIGHT - 4.0);
        let _ = writeln!(out, "<text {place}>{}</text>", escape(&self.x.label));
        for (value, what) in &self.marks {
            let Some(x) = frame.x_of(*value) else { continue };
            let _ = writeln!(
                out,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"><title>{}</title></line>",
                escape(what)
            );
        }
    }

    /// Narrow columns over the plot, each with the values of all lines there as its tooltip.
    fn columns(&self, frame: &Frame, out: &mut String) {
        let joined = || self.lines.iter().filter(|line| line.stroke != Stroke::Points);
        let mut places: Vec<f64> = joined().flat_map(|line| line.points.iter().map(|(x, _)| *x)).collect();
        places.retain(|x| frame.x_of(*x).is_some());
        places.sort_by(f64::total_cmp);
        places.dedup();
        let every = places.len().div_ceil(COLUMNS_MAX).max(1);
        let places: Vec<f64> = places.into_iter().step_by(every).collect();
        let pixels: Vec<f64> = places.iter().filter_map(|x| frame.x_of(*x)).collect();
        let (right, height) = (WIDTH - RIGHT, HEIGHT - BOTTOM - TOP);
        for (index, (place, pixel)) in places.iter().zip(&pixels).enumerate() {
            let from = if index == 0 { LEFT } else { (pixels[index - 1] + pixel) / 2.0 };
            let to = pixels.get(index + 1).map_or(right, |next| (pixel + next) / 2.0);
            let mut tip = self.place_text(*place);
            for line in joined() {
                let nearest = line
                    .points
                    .iter()
                    .min_by(|(a, _), (b, _)| (a - place).abs().total_cmp(&(b - place).abs()));
                if let Some((_, value)) = nearest.filter(|(_, value)| value.is_finite()) {
                    let _ = write!(tip, "\n{}: {}", line.name, short(*value));
                }
            }
            let width = (to - from).max(0.0);
            let _ = writeln!(
                out,
                "<rect class=\"hit\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height}\"><title>{}</title></rect>",
                escape(&tip)
            );
        }
    }

    fn place_text(&self, place: f64) -> String {
        match self.x.scale {
            Scale::Percentile => format!("{:.4} %", place * 100.0),
            Scale::Linear | Scale::Log => format!("{}: {}", self.x.label, short(place)),
        }
    }

    fn legend(&self, out: &mut String) {
        out.push_str("<div class=\"legend\">\n");
        for line in &self.lines {
            let _ = writeln!(out, "<span>{}{}</span>", key(line.colour, line.stroke), escape(&line.name));
        }
        for (at, what) in &self.marks {
            let _ = writeln!(out, "<span>┊ {} at {} s</span>", escape(what), short(*at));
        }
        out.push_str("</div>\n");
    }
}

/// A piece of a line, for legends.
pub fn key(colour: usize, stroke: Stroke) -> String {
    let class = class(colour, stroke);
    let to = if stroke == Stroke::Points { 13 } else { 24 };
    let from = if stroke == Stroke::Points { 13 } else { 2 };
    format!(
        "<svg class=\"key\" viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M{from} 5H{to}\"/></svg>"
    )
}

fn class(colour: usize, stroke: Stroke) -> String {
    let stroke = match stroke {
        Stroke::Solid => "line",
        Stroke::Dashed => "line dashed",
        Stroke::Dotted => "line dotted",
        Stroke::Points => "dots",
    };
    format!("{stroke} c{}", colour % COLOURS)
}

struct Frame {
    x: Range,
    y: Range,
}

impl Frame {
    fn x_of(&self, value: f64) -> Option<f64> {
        self.x.place(value).map(|place| LEFT + place * (WIDTH - LEFT - RIGHT))
    }

    fn y_of(&self, value: f64) -> Option<f64> {
        self.y.place(value).map(|place| HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM))
    }

    fn line(&self, line: &Line, out: &mut String) {
        let mut path = String::new();
        let mut joined = false;
        for (x, y) in &line.points {
            let (Some(x), Some(y)) = (self.x_of(*x), self.y_of(*y)) else {
                joined = false;
                continue;
            };
            let dot = line.stroke == Stroke::Points;
            let command = if joined && !dot { 'L' } else { 'M' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            if !joined || dot {
                // A point that nothing joins is a line of no length, which its round ends make a dot.
                path.push_str("h0");
            }
            joined = true;
        }
        if !path.is_empty() {
            let _ = writeln!(out, "<path class=\"{}\" d=\"{path}\"/>", class(line.colour, line.stroke));
        }
    }
}
