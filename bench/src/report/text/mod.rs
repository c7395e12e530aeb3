//! A run as a text table for a terminal: 100 columns, no colour.

use super::figures::{self, Percentiles, Slope};
use super::numbers::{bytes, grouped, moment, ms, percent, short};
use super::remedies;
use super::results::{
    HostFacts, LedgerResult, MachineResult, PhaseResult, ReturnCounts, RunResult, ServerResult, StreamResult,
};
use crate::measure::histogram::Latencies;
use std::collections::BTreeMap;

/// Columns of a line: what a terminal beside an editor has.
pub const COLUMNS: usize = 100;
/// Column at which values begin.
const INDENT: usize = 16;
/// Threads that a server's line names.
const THREADS_SHOWN: usize = 4;
/// Examples of wrong messages that are shown.
const EXAMPLES_SHOWN: usize = 5;

/// The whole run as text, every line at most [`COLUMNS`] wide.
pub fn table(run: &RunResult) -> String {
    let mut page = Page::default();
    page.void(run);
    page.head(run);
    for phase in run.phases.iter().filter(|phase| !phase.preparation) {
        page.phase(phase);
    }
    page.line("");
    if let Some(slope) = figures::run_slope(run) {
        page.named("memory", &format!("over the run: {}", slope_text(&slope)));
    }
    match &run.ledger {
        Some(ledger) => page.ledger(ledger),
        None => page.named("ledger", "not kept"),
    }
    page.text
}

/// What was run, where, and its ledger: everything but the phases.
pub fn frame(run: &RunResult) -> String {
    let mut page = Page::default();
    page.head(run);
    match &run.ledger {
        Some(ledger) => page.ledger(ledger),
        None => page.named("ledger", "not kept"),
    }
    page.text
}

/// User and kernel bytes for each connection, as text and page write it.
pub fn slope_text(slope: &Slope) -> String {
    format!(
        "user {} B, kernel {} B for each connection (fit from {} to {} connections)",
        short(slope.user_bytes),
        short(slope.kernel_bytes),
        grouped(slope.from),
        grouped(slope.to)
    )
}

/// A table of codes in a line: "busy 3, reset 1".
pub fn counts_text(counts: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> =
        counts.iter().map(|(code, count)| format!("{code} {}", grouped(*count))).collect();
    if each.is_empty() { "none".into() } else { each.join(", ") }
}

/// How long it took until half, 99 % and all of the lost sessions were ready again, those counted that were not: "–" where so
/// many have not come back. `None`: none was lost.
pub fn recovery_text(phase: &PhaseResult) -> Option<String> {
    let recovery = Latencies::from_text(&phase.recovery).unwrap_or_default();
    let back = recovery.count();
    // Who was lost in the phase before comes back in this one.
    let lost = (phase.returns.cut + phase.returns.told).max(back);
    (lost > 0).then(|| {
        let until = |percent: u64| match (lost * percent).div_ceil(100) {
            needed if needed > back => "–".to_owned(),
            needed if needed == back => format!("{} ms", ms(recovery.max())),
            needed => format!("{} ms", ms(recovery.at(needed as f64 / back as f64))),
        };
        let (half, most, all) = (until(50), until(99), until(100));
        let (back, lost) = (grouped(back), grouped(lost));
        format!("{back} of {lost}: half after {half}, 99 % after {most}, all after {all}")
    })
}

/// How sessions ended that nobody ended on purpose, and how they were tried again; `None`: none did.
pub fn returns_text(phase: &PhaseResult) -> Option<String> {
    let ReturnCounts { cut, told, sent_on, put_off, failed } = phase.returns;
    (cut + told > 0).then(|| {
        let back = Latencies::from_text(&phase.recovery).map_or(0, |recovery| recovery.count());
        format!(
            "{} cut without a word, {} told, {} of them where to go; {} ready again, after {} tries that were put off \
             and {} that failed; at most {} sent on and {} ready in one second",
            grouped(cut),
            grouped(told),
            grouped(sent_on),
            grouped(back),
            grouped(put_off),
            grouped(failed),
            grouped(figures::most(phase, |second| second.sent_on)),
            grouped(figures::most(phase, |second| second.log_ins))
        )
    })
}

/// How busy each CPU was, and what the hypervisor kept of it.
pub fn busy_text(machine: &MachineResult) -> String {
    let shares = |milli: &[u64]| milli.iter().map(|milli| percent(*milli)).collect::<Vec<_>>().join(", ");
    let busy = shares(&machine.cpu_busy_milli);
    match machine.cpu_stolen_milli.iter().any(|milli| *milli > 0) {
        true => format!("{busy}; taken by the hypervisor: {}", shares(&machine.cpu_stolen_milli)),
        false => busy,
    }
}

/// A machine in a line.
pub fn host_text(host: &HostFacts) -> String {
    format!(
        "{}, {} CPUs, {}, Linux {}, {} files, governor {}, clock {}",
        host.cpu_model,
        host.cpus,
        bytes(host.memory_bytes as f64),
        host.kernel,
        grouped(host.open_files_max),
        host.governor,
        host.clock_source
    )
}

/// What one server did in a line.
pub fn server_text(server: &ServerResult, measured_s: f64) -> String {
    let cores = (server.user_ms + server.system_ms) as f64 / (measured_s * 1e3);
    let threads = server.threads.iter().take(THREADS_SHOWN);
    let threads: Vec<String> = threads.map(|(name, ms)| format!("{name} {} ms", grouped(*ms))).collect();
    let threads = if threads.is_empty() { String::new() } else { format!(" ({})", threads.join(", ")) };
    format!(
        "{} cores{threads}, {} → {} private, {} open files",
        short(cores),
        bytes(server.private_bytes_start as f64),
        bytes(server.private_bytes_end as f64),
        grouped(server.open_files)
    )
}

/// Lines so far.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(clip(line, COLUMNS).trim_end());
        self.text.push('\n');
    }

    /// A name, and its value in as many lines as it takes.
    fn named(&mut self, name: &str, value: &str) {
        let mut name = format!("  {name}");
        if name.chars().count() >= INDENT {
            self.line(&name);
            name.clear();
        }
        for line in wrap(value, COLUMNS - INDENT) {
            self.line(&format!("{name:INDENT$}{line}"));
            name.clear();
        }
    }

    fn void(&mut self, run: &RunResult) {
        if run.void.is_empty() {
            return;
        }
        self.line(&"*".repeat(COLUMNS));
        self.line("*** VOID: this run says nothing of the subject, because");
        for reason in &run.void {
            let place = if reason.phase.is_empty() { "whole run" } else { &reason.phase };
            let text = format!("{} ({place}): {}", reason.rule, reason.detail);
            for (index, line) in wrap(&text, COLUMNS - 6).into_iter().enumerate() {
                self.line(&format!("{}{line}", if index == 0 { "***   " } else { "      " }));
            }
        }
        self.line(&"*".repeat(COLUMNS));
    }

    fn head(&mut self, run: &RunResult) {
        self.line(&clip(&format!("{}: plan {}", run.subject, run.plan.name), COLUMNS));
        self.named("about", &run.plan.about);
        self.named("durability", &run.durability);
        self.named("started", &moment(run.started_ms));
        self.named("commit", &run.commit);
        self.named("command", &run.command_line.join(" "));
        for host in &run.hosts {
            self.named(&host.role, &host_text(host));
        }
        let unfit: Vec<_> = run.tuning.iter().filter(|fact| !fact.serves).collect();
        if !run.tuning.is_empty() {
            let settings: Vec<String> = unfit
                .iter()
                .map(|fact| format!("{} is {}, wanted {}", fact.setting, fact.present, fact.wanted))
                .collect();
            let list = if settings.is_empty() { String::new() } else { format!(": {}", settings.join("; ")) };
            self.named(
                "tuning",
                &format!("{} of {} settings do not serve{list}", unfit.len(), run.tuning.len()),
            );
        }
        if let Some(bound) = run.clocks.iter().map(|clock| clock.bound_us).max() {
            self.named("clocks", &format!("off by at most {} µs", grouped(bound)));
        }
    }

    fn phase(&mut self, phase: &PhaseResult) {
        self.line("");
        let title = format!("── {} ", clip(&phase.name, 60));
        let measured = format!(" {} s measured ──", short(phase.measured_s));
        let fill = COLUMNS.saturating_sub(title.chars().count() + measured.chars().count());
        self.line(&format!("{title}{}{measured}", "─".repeat(fill)));
        self.streams(phase);
        self.connections(phase);
        for (code, remedy) in remedies::of_phase(phase) {
            self.named("", &format!("{code}: {remedy}"));
        }
        if let Some(text) = recovery_text(phase) {
            self.named("ready again", &text);
        }
        if let Some(text) = returns_text(phase) {
            self.named("sessions", &text);
        }
        self.costs(phase);
        if let Some(slope) = figures::phase_slope(phase) {
            self.named("memory", &slope_text(&slope));
        }
        for server in &phase.servers {
            self.named(&server.name, &server_text(server, phase.measured_s));
        }
        if !phase.machine.cpu_busy_milli.is_empty() {
            self.named("CPUs busy", &busy_text(&phase.machine));
        }
        self.generators(phase);
        if !phase.faults.is_empty() {
            let faults =
                phase.faults.iter().map(|(us, what)| format!("{what} at {} s", short(*us as f64 / 1e6)));
            self.named("faults", &faults.collect::<Vec<_>>().join(", "));
        }
    }

    fn streams(&mut self, phase: &PhaseResult) {
        if phase.streams.is_empty() {
            self.named("streams", "none");
            return;
        }
        let head = ["stream", "offered/s", "achieved/s", "due", "begun", "answered", "errors", "unanswered"];
        self.row(&head.map(Into::into));
        for stream in &phase.streams {
            let errors = stream.errors.values().sum();
            let name = if stream.open_loop { stream.action.clone() } else { format!("{} *", stream.action) };
            self.row(&[
                name,
                short(stream.offered_rate),
                short(stream.achieved_rate),
                grouped(stream.due),
                grouped(stream.begun),
                grouped(stream.succeeded),
                grouped(errors),
                grouped(stream.unanswered),
            ]);
        }
        if phase.streams.iter().any(|stream| !stream.open_loop) {
            self.line(
                "  * closed loop: latency counts from sending, and says nothing of what users would see",
            );
        }
        let head = ["latency, ms", "", "count", "p50", "p90", "p99", "p99.9", "max"];
        self.row(&head.map(Into::into));
        phase.streams.iter().for_each(|stream| self.latencies(stream));
        for stream in phase.streams.iter().filter(|stream| !stream.errors.is_empty()) {
            self.named("errors", &format!("{}: {}", stream.action, counts_text(&stream.errors)));
        }
    }

    fn latencies(&mut self, stream: &StreamResult) {
        for name in stream.histograms.keys() {
            let values = Percentiles::of(&figures::latencies(stream, name));
            let mut row = vec![stream.action.clone(), name.clone(), grouped(values.count)];
            let Percentiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = values;
            let figure = |us: u64| if values.count == 0 { "–".to_owned() } else { ms(us) };
            row.extend([p50_us, p90_us, p99_us, p999_us, max_us].map(figure));
            self.row(&row);
        }
    }

    fn costs(&mut self, phase: &PhaseResult) {
        let Some(costs) = figures::costs(phase) else { return };
        let name = format!("each {}", figures::action_word(phase));
        let head = [
            &name, "CPU, µs", "user", "system", "switches", "forced", "calls", "wire, B", "disk, B", "syncs",
        ];
        let counted = |value: Option<f64>| value.map_or("–".to_owned(), short);
        let cells = [
            String::new(),
            short(costs.cpu_us()),
            short(costs.user_us),
            short(costs.system_us),
            short(costs.voluntary),
            short(costs.involuntary),
            counted(costs.system_calls),
            short(costs.wire_bytes),
            short(costs.disk_bytes),
            counted(costs.log_syncs),
        ];
        for row in [head.map(str::to_owned), cells] {
            let [first, numbers @ ..] = row;
            let numbers: String = numbers.iter().map(|number| format!("{:>9}", clip(number, 8))).collect();
            self.line(&format!("  {first:15}{numbers}"));
        }
    }

    /// Eight cells: a name, seven numbers to the right.
    fn row(&mut self, cells: &[String]) {
        let mut line = String::from("  ");
        for (index, cell) in cells.iter().enumerate() {
            line.push_str(&match index {
                0 => format!("{:18}", clip(cell, 18)),
                _ => format!(" {:>10}", clip(cell, 10)),
            });
        }
        self.line(&line);
    }

    fn connections(&mut self, phase: &PhaseResult) {
        let counts = &phase.connections;
        let text = format!(
            "{} at the end, {} at most; {} full and {} resumed handshakes; lost: {}",
            grouped(counts.at_end),
            grouped(counts.peak),
            grouped(counts.full_handshakes),
            grouped(counts.resumed_handshakes),
            counts_text(&phase.losses)
        );
        self.named("connections", &text);
    }

    fn generators(&mut self, phase: &PhaseResult) {
        let Some(busiest) = phase.generators.iter().max_by_key(|generator| generator.cpu_milli) else {
            return;
        };
        let lag = figures::lag(phase);
        let lost: u64 = phase.generators.iter().map(|generator| generator.samples_lost).sum();
        let text = format!(
            "agents: {}; the busiest ({}) used {} of a core; lag p99 {} ms, max {} ms; {} samples lost",
            phase.generators.len(),
            busiest.agent,
            percent(busiest.cpu_milli),
            ms(lag.at(0.99)),
            ms(lag.max()),
            grouped(lost)
        );
        self.named("generator", &text);
    }

    fn ledger(&mut self, ledger: &LedgerResult) {
        self.named("ledger", &ledger_text(ledger));
        for example in ledger.examples.iter().take(EXAMPLES_SHOWN) {
            self.named("", example);
        }
    }
}

/// The balance in a line.
pub fn ledger_text(ledger: &LedgerResult) -> String {
    let wrong = ledger.lost + ledger.doubled + ledger.reordered + ledger.altered;
    format!(
        "{}: {} acknowledged, {} without answer, {} places checked; {} lost, {} doubled, {} reordered, {} altered",
        if wrong == 0 { "balances" } else { "DOES NOT BALANCE" },
        grouped(ledger.acknowledged),
        grouped(ledger.unacknowledged),
        grouped(ledger.checked),
        grouped(ledger.lost),
        grouped(ledger.doubled),
        grouped(ledger.reordered),
        grouped(ledger.altered)
    )
}

/// At most so many characters, the last one "…" if there were more. Control characters become spaces: a name must
/// not steer a terminal.
pub fn clip(text: &str, columns: usize) -> String {
    let mut clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut out: String = clean.by_ref().take(columns).collect();
    if clean.next().is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// Lines of at most so many characters, broken at spaces; a longer word is cut.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let letters: Vec<char> = clip(word, usize::MAX).chars().collect();
        for piece in letters.chunks(columns) {
            let line = lines.last_mut().expect("there is one from the start");
            let used = line.chars().count();
            if used > 0 && used + 1 + piece.len() > columns {
                lines.push(piece.iter().collect());
            } else {
                line.push_str(if used > 0 { " " } else { "" });
                line.extend(piece);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests;
