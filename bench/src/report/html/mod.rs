//! A run, or several over each other, as one self-contained page: no request goes anywhere, no script is needed.
//!
//! `markup` escapes every text and closes every element; `axis` and `plot` draw; `charts` says what is drawn.

pub mod markup;
pub mod axis;
pub mod plot;
pub mod charts;

use super::figures::{self, Percentiles, Slope};
use super::numbers::{bytes, grouped, moment, ms, percent, short};
use super::remedies;
use super::results::{PhaseResult, RunResult, StreamResult};
use super::text::{busy_text, counts_text, host_text, ledger_text, recovery_text, returns_text, server_text};
use charts::Part;
use markup::Markup;
use plot::Stroke;

/// Runs that one page shows: more cannot be told apart by colour.
pub const RUNS_MAX: usize = 8;
/// So many runs are named in the title, and their circumstances stand before the figures.
const FEW_RUNS: usize = 2;

/// More runs than a page can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a page shows from 1 to {RUNS_MAX} runs, not {0}")]
pub struct TooManyRuns(pub usize);

/// The page of these runs; phases of the same name share their plots.
pub fn page(runs: &[RunResult]) -> Result<String, TooManyRuns> {
    if runs.is_empty() || runs.len() > RUNS_MAX {
        return Err(TooManyRuns(runs.len()));
    }
    let subjects: Vec<&str> = runs.iter().map(|run| run.subject.as_str()).collect();
    let mut names: Vec<String> = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    for (index, name) in names.iter_mut().enumerate() {
        if subjects.iter().filter(|other| *other == name).count() > 1 {
            *name = format!("{name} ({})", index + 1);
        }
    }
    let mut page = Markup::default();
    let title = format!("{}: {}", runs[0].plan.name, names.join(", "));
    head(&mut page, runs, &names);
    runs.iter().zip(&names).for_each(|(run, name)| void(&mut page, run, name));
    overview(&mut page, runs, &names);
    let tell_circumstances =
        |page: &mut Markup| runs.iter().zip(&names).for_each(|(run, name)| circumstances(page, run, name));
    // Before the figures, unless there are so many that they would hide them.
    let are_few = runs.len() <= FEW_RUNS;
    if are_few {
        tell_circumstances(&mut page);
    }
    for phase in phase_names(runs) {
        show_phase(&mut page, runs, &names, phase);
    }
    if !are_few {
        tell_circumstances(&mut page);
    }
    Ok(markup::page(&title, &page.finish()))
}

/// Names of measured phases, in the order in which they first appear.
fn phase_names(runs: &[RunResult]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for phase in runs.iter().flat_map(|run| &run.phases).filter(|phase| !phase.preparation) {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    names
}

fn head(page: &mut Markup, runs: &[RunResult], names: &[String]) {
    page.open("header", "");
    let subjects = match names.len() <= FEW_RUNS {
        true => names.join(" / "),
        false => format!("{} runs", names.len()),
    };
    page.element("h1", "", &format!("{} · {subjects}", runs[0].plan.name));
    page.element("p", "soft", &runs[0].plan.about);
    for (number, (run, name)) in runs.iter().zip(names).enumerate() {
        page.open("p", "");
        if runs.len() > 1 {
            page.open("span", "run");
            page.raw(&plot::key(number, Stroke::Solid));
            page.element("strong", "", name);
            page.close();
        }
        let commit: String = run.commit.chars().take(12).collect();
        let changes = if run.commit.ends_with("+changes") { " with changes" } else { "" };
        page.element("span", "soft", &format!("{} · commit {commit}{changes}", moment(run.started_ms)));
        page.close();
        page.element("p", "", &format!("Durability: {}", run.durability));
    }
    page.close();
}

fn void(page: &mut Markup, run: &RunResult, name: &str) {
    if run.void.is_empty() {
        return;
    }
    page.open("section", "card void");
    page.element("h2", "", &format!("VOID: {name} says nothing"));
    page.open("ul", "");
    for reason in &run.void {
        let place = if reason.phase.is_empty() { "whole run" } else { &reason.phase };
        page.element("li", "", &format!("{} ({place}): {}", reason.rule, reason.detail));
    }
    page.close();
    page.close();
}

fn overview(page: &mut Markup, runs: &[RunResult], names: &[String]) {
    let is_one_machine = runs.windows(2).all(|pair| pair[0].tuning == pair[1].tuning);
    if is_one_machine {
        runs.iter().take(1).for_each(|run| tuning(page, run, ""));
    }
    for (run, name) in runs.iter().zip(names) {
        let prefix = if runs.len() > 1 { format!("{name}: ") } else { String::new() };
        if let Some(ledger) = &run.ledger {
            let wrong = ledger.lost + ledger.doubled + ledger.reordered + ledger.altered;
            let class = if wrong == 0 { "good" } else { "bad" };
            page.element("p", class, &format!("{prefix}the ledger {}", ledger_text(ledger)));
            if !ledger.examples.is_empty() {
                page.open("ul", "");
                ledger.examples.iter().for_each(|example| page.element("li", "", example));
                page.close();
            }
        }
        if !is_one_machine {
            tuning(page, run, &prefix);
        }
        if let Some(slope) = figures::run_slope(run) {
            let text = super::text::slope_text(&slope);
            page.element("p", "soft", &format!("{prefix}memory over the run: {text}"));
        }
    }
}

fn tuning(page: &mut Markup, run: &RunResult, prefix: &str) {
    if run.tuning.iter().any(|fact| !fact.serves) {
        let text = format!("{prefix}tuning of the servers' machine: {}", tuning_text(run));
        page.element("p", "soft", &text);
    }
}

fn tuning_text(run: &RunResult) -> String {
    let unfit = run.tuning.iter().filter(|fact| !fact.serves).count();
    format!("{unfit} of {} settings do not serve", run.tuning.len())
}

fn show_phase(page: &mut Markup, runs: &[RunResult], names: &[String], phase: &str) {
    let mut parts = Vec::new();
    for (number, (run, name)) in runs.iter().zip(names).enumerate() {
        let planned = run.plan.phases.iter().find(|planned| planned.name == phase);
        let warm_up_s = planned.map_or(0.0, |planned| planned.warm_up_s);
        let mut found = run.phases.iter().filter(|found| found.name == phase && !found.preparation);
        parts.extend(found.next().map(|phase| Part { run: name, number, phase, warm_up_s }));
    }
    page.open("section", "");
    page.element("h2", "", phase);
    if let [part] = &parts[..] {
        page.element("p", "soft", &format!("{} s measured", short(part.phase.measured_s)));
        tiles(page, part.phase);
    }
    streams(page, &parts);
    costs(page, &parts);
    page.open("div", "plots");
    charts::plots(&parts).iter().for_each(|plot| page.raw(&plot.render()));
    page.close();
    page.open_folded("Servers, connections, generators");
    parts.iter().for_each(|part| details(page, part, parts.len()));
    page.close();
    page.close();
}

fn tiles(page: &mut Markup, phase: &PhaseResult) {
    let mut shown: Vec<(String, String, String)> = Vec::new();
    if let Some(stream) = phase.streams.first() {
        let offered = format!("of {} offered", short(stream.offered_rate));
        shown.push((format!("{}/s", short(stream.achieved_rate)), stream.action.clone(), offered));
        let answer = Percentiles::of(&figures::latencies(stream, "answer"));
        if answer.count > 0 {
            let more = format!("p50 {} ms · p99.9 {} ms", ms(answer.p50_us), ms(answer.p999_us));
            shown.push((format!("{} ms", ms(answer.p99_us)), "answer, p99".into(), more));
        }
    }
    if let Some(costs) = figures::costs(phase) {
        let more = format!("user {} · system {}", short(costs.user_us), short(costs.system_us));
        let label = format!("server CPU for each {}", figures::action_word(phase));
        shown.push((format!("{} µs", short(costs.cpu_us())), label, more));
    }
    if let Some(Slope { user_bytes, kernel_bytes, .. }) = figures::phase_slope(phase) {
        let value = format!("{} B", short(user_bytes + kernel_bytes));
        let more = format!("user {} · kernel {}", short(user_bytes), short(kernel_bytes));
        shown.push((value, "memory of a connection".into(), more));
    }
    let peak = format!("{} at most", grouped(phase.connections.peak));
    shown.push((grouped(phase.connections.at_end), "connections at the end".into(), peak));
    let errors: u64 =
        phase.streams.iter().map(|stream| stream.errors.values().sum::<u64>() + stream.unanswered).sum();
    let lost: u64 = phase.losses.values().sum();
    shown.push((
        grouped(errors),
        "errors and unanswered".into(),
        format!("{} connections lost", grouped(lost)),
    ));
    page.open("div", "tiles");
    for (value, label, more) in shown {
        page.open("div", "tile");
        page.element("div", "value", &value);
        page.element("div", "label", &label);
        if !more.is_empty() {
            page.element("div", "more", &more);
        }
        page.close();
    }
    page.close();
}

/// Cells that name the run come first if there are several.
fn with_run(several: bool, part: &Part<'_>, cells: Vec<String>) -> Vec<String> {
    if several { [part.run.to_owned()].into_iter().chain(cells).collect() } else { cells }
}

fn streams(page: &mut Markup, parts: &[Part<'_>]) {
    let several = parts.len() > 1;
    let mut rows = Vec::new();
    for part in parts {
        for stream in &part.phase.streams {
            for (first, name) in
                [true].into_iter().chain(std::iter::repeat(false)).zip(stream.histograms.keys())
            {
                rows.push(with_run(several, part, stream_row(stream, name, first)));
            }
        }
    }
    let mut head = vec![
        "stream",
        "latency, ms",
        "offered/s",
        "achieved/s",
        "errors",
        "unanswered",
        "count",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
    ];
    if several {
        head.insert(0, "run");
    }
    if !rows.is_empty() {
        page.table(if several { 3 } else { 2 }, &head, &rows);
    }
}

fn stream_row(stream: &StreamResult, name: &str, first: bool) -> Vec<String> {
    let values = Percentiles::of(&figures::latencies(stream, name));
    let loop_kind = if stream.open_loop { "" } else { " (closed loop)" };
    let mut row = vec![format!("{}{loop_kind}", stream.action), name.to_owned()];
    let counts = [
        short(stream.offered_rate),
        short(stream.achieved_rate),
        grouped(stream.errors.values().sum()),
        grouped(stream.unanswered),
    ];
    row.extend(counts.map(|count| if first { count } else { String::new() }));
    row.push(grouped(values.count));
    let figure = |us| if values.count == 0 { "–".to_owned() } else { ms(us) };
    row.extend([values.p50_us, values.p90_us, values.p99_us, values.p999_us, values.max_us].map(figure));
    row
}

fn costs(page: &mut Markup, parts: &[Part<'_>]) {
    let several = parts.len() > 1;
    let counted = |value: Option<f64>| value.map_or("not counted".to_owned(), short);
    let mut rows = Vec::new();
    for part in parts {
        let Some(costs) = figures::costs(part.phase) else { continue };
        rows.push(with_run(
            several,
            part,
            vec![
                format!("each {}", figures::action_word(part.phase)),
                short(costs.cpu_us()),
                short(costs.user_us),
                short(costs.system_us),
                format!("{} + {}", short(costs.voluntary), short(costs.involuntary)),
                counted(costs.system_calls),
                bytes(costs.wire_bytes),
                short(costs.wire_packets),
                bytes(costs.disk_bytes),
                counted(costs.log_syncs),
            ],
        ));
    }
    let mut head = vec![
        "cost",
        "CPU, µs",
        "user",
        "system",
        "switches, invol.",
        "system calls",
        "wire",
        "packets",
        "disk",
        "syncs",
    ];
    if several {
        head.insert(0, "run");
    }
    if !rows.is_empty() {
        page.table(if several { 2 } else { 1 }, &head, &rows);
    }
}

fn details(page: &mut Markup, part: &Part<'_>, parts: usize) {
    let phase = part.phase;
    if parts > 1 {
        page.element("h3", "", part.run);
    }
    let counts = &phase.connections;
    let mut facts = vec![
        (
            "connections".to_owned(),
            format!(
                "{} at the end, {} at most; {} full and {} resumed handshakes",
                grouped(counts.at_end),
                grouped(counts.peak),
                grouped(counts.full_handshakes),
                grouped(counts.resumed_handshakes)
            ),
        ),
        ("connections lost".to_owned(), counts_text(&phase.losses)),
        ("ready again".to_owned(), recovery_text(phase).unwrap_or_else(|| "none was lost".into())),
    ];
    facts.extend(returns_text(phase).map(|text| ("sessions".to_owned(), text)));
    for stream in phase.streams.iter().filter(|stream| !stream.errors.is_empty()) {
        facts.push((format!("errors of {}", stream.action), counts_text(&stream.errors)));
    }
    facts.extend(remedies::of_phase(phase).into_iter().map(|(code, remedy)| (code.into(), remedy.into())));
    for server in &phase.servers {
        facts.push((server.name.clone(), server_text(server, phase.measured_s)));
    }
    facts.push(("CPUs busy".into(), busy_text(&phase.machine)));
    let lag = figures::lag(phase);
    for generator in &phase.generators {
        let text = format!(
            "{} of a core, {} private, {} samples lost",
            percent(generator.cpu_milli),
            bytes(generator.private_bytes as f64),
            grouped(generator.samples_lost)
        );
        facts.push((format!("agent {}", generator.agent), text));
    }
    facts.push(("agents' lag".into(), format!("p99 {} ms, max {} ms", ms(lag.at(0.99)), ms(lag.max()))));
    page.facts(&facts);
    for server in &phase.servers {
        let rows: Vec<Vec<String>> =
            server.threads.iter().map(|(name, ms)| vec![name.clone(), grouped(*ms)]).collect();
        if !rows.is_empty() {
            page.table(1, &[&format!("thread of {}", server.name), "CPU, ms"], &rows);
        }
        let rows: Vec<Vec<String>> =
            server.counters.iter().map(|(name, change)| vec![name.clone(), short(*change)]).collect();
        if !rows.is_empty() {
            page.table(1, &[&format!("counter of {}", server.name), "change"], &rows);
        }
    }
}

fn circumstances(page: &mut Markup, run: &RunResult, name: &str) {
    page.open_folded(&format!("How {name} was measured: {}", run.command_line.join(" ")));
    let mut facts = vec![
        ("command".to_owned(), run.command_line.join(" ")),
        ("commit".to_owned(), run.commit.clone()),
        ("started".to_owned(), moment(run.started_ms)),
        ("durability".to_owned(), run.durability.clone()),
    ];
    facts.extend(run.hosts.iter().map(|host| (host.role.clone(), host_text(host))));
    for clock in &run.clocks {
        let bound = grouped(clock.bound_us);
        let text = format!(
            "its readings and {} µs are the coordinator's, off by at most {bound} µs",
            clock.offset_us
        );
        facts.push((format!("clock of agent {}", clock.agent), text));
    }
    let limits: Vec<String> =
        run.limit_profile.iter().map(|(name, value)| format!("{name} {value}")).collect();
    facts.push(("limits".into(), limits.join(", ")));
    page.facts(&facts);
    if !run.tuning.is_empty() {
        page.open_folded(&format!("Tuning: {}", tuning_text(run)));
        let row = |fact: &super::results::TuningFact| {
            let serves = if fact.serves { "yes" } else { "no" };
            vec![fact.setting.clone(), fact.present.clone(), fact.wanted.clone(), serves.to_owned()]
        };
        let rows: Vec<Vec<String>> = run.tuning.iter().map(row).collect();
        page.table(4, &["setting", "present", "wanted", "serves"], &rows);
        page.close();
    }
    page.open_folded(&format!("Plan {}", run.plan.name));
    let plan = serde_json::to_string_pretty(&run.plan).unwrap_or_else(|error| error.to_string());
    page.element("pre", "", &plan);
    page.close();
    page.close();
}

#[cfg(test)]
pub(crate) mod tests;
