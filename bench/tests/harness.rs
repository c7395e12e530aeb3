//! The harness as a person runs it: the binary, real servers, and what its result says. Nothing here judges speed: a
//! slow day may void a run, and must not fail a test.

use bench::report::file;
use bench::report::results::{LedgerResult, PhaseResult, RunResult, VoidReason};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const QUICK: &str = include_str!("../plans/quick.toml");

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringline-bench"))
}

/// Runs the plan in this text; gives what the process said, and the result's file.
fn run(folder: &Path, plan: &str, more: &[&str]) -> (Output, PathBuf) {
    let (file, out) = (folder.join("plan.toml"), folder.join("result.json"));
    std::fs::write(&file, plan).expect("a folder of our own");
    let output = bench().arg("run").arg(&file).arg("--out").arg(&out).args(more).output().expect("it starts");
    (output, out)
}

fn result(output: &Output, out: &Path) -> RunResult {
    let said = || {
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    file::read(out).unwrap_or_else(|error| panic!("{error}\n{}", said()))
}

/// Whether a run is void by the generator's own troubles, or the machine's.
fn is_slow(reason: &VoidReason) -> bool {
    reason.rule.starts_with("generator") || reason.rule == "cpu_stolen" || is_starved(reason)
}

/// Whether it may come of those. By itself it is the servers' fault.
fn may_come_of_it(reason: &VoidReason) -> bool {
    ["rate_missed", "connections_missing", "preparation_failed"].contains(&reason.rule.as_str())
}

/// Whether an agent was silent for so long that it was given up: one that died is noticed at once.
fn is_starved(reason: &VoidReason) -> bool {
    reason.rule == "agent_lost" && reason.detail.contains("silent for ")
}

/// Whether the day was too slow for the run to count; says so.
fn is_slow_day(result: &RunResult) -> bool {
    let slow: Vec<&VoidReason> = result.void.iter().filter(|reason| is_slow(reason)).collect();
    if !slow.is_empty() {
        eprintln!("a slow day, on which only the ledger counts: {slow:?}");
    }
    !slow.is_empty()
}

/// What became of every message; none if there was no agent left to compare.
fn ledger(result: &RunResult) -> Option<&LedgerResult> {
    let starved = result.void.iter().any(is_starved);
    assert!(starved || result.ledger.is_some(), "the plan keeps a ledger: {:?}", result.void);
    result.ledger.as_ref()
}

/// Everything that was due was answered, everything acknowledged is everywhere: gives true. On a slow day, false, only the
/// latter has to be.
fn assert_whole(result: &RunResult) -> bool {
    let is_slow_day = is_slow_day(result);
    let is_excused = |reason: &VoidReason| is_slow(reason) || is_slow_day && may_come_of_it(reason);
    assert!(result.void.iter().all(is_excused), "{:?}", result.void);
    let ledger = ledger(result);
    assert!(ledger.is_none_or(LedgerResult::is_balanced), "{ledger:?}");
    if is_slow_day {
        let mostly = |ledger: &LedgerResult| ledger.acknowledged > ledger.unacknowledged;
        assert!(ledger.is_none_or(mostly), "hardly anything was answered: {ledger:?}");
        return false;
    }
    for phase in &result.phases {
        for stream in &phase.streams {
            let name = format!("{}: {}", phase.name, stream.action);
            assert_eq!((stream.succeeded, stream.unanswered), (stream.due, 0), "{name}: {stream:?}");
            assert!(stream.errors.is_empty(), "{name}: {:?}", stream.errors);
        }
    }
    let is_full = |ledger: &LedgerResult| ledger.acknowledged > 1_000 && ledger.checked > ledger.acknowledged;
    assert!(ledger.is_some_and(is_full), "{ledger:?}");
    true
}

#[test]
fn the_quick_plan_accounts_for_every_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    let (output, out) = run(folder.path(), QUICK, &["--html", &page.display().to_string()]);
    let result = result(&output, &out);
    if assert_whole(&result) {
        assert_told(&result, &output, &out, &page);
    }
}

/// What the result, the report and the page of the quick plan say.
fn assert_told(result: &RunResult, output: &Output, out: &Path, page: &Path) {
    let messages = result.phases.iter().find(|phase| phase.name == "messages").expect("as planned");
    assert!(messages.servers[0].user_ms + messages.servers[0].system_ms > 0, "the server was sampled");
    assert!(messages.servers[0].log_syncs.is_some_and(|syncs| syncs > 0));
    assert!(messages.connections.resumed_handshakes > 0, "{:?}", messages.connections);
    assert!(messages.streams[1].deliveries > 6 * messages.streams[1].succeeded, "{:?}", messages.streams[1]);
    let catch_up = result.phases.last().expect("phases");
    assert!(catch_up.streams[0].deliveries > 0, "what was missed came");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("balances"), "{text}");
    assert!(std::fs::read_to_string(page).expect("written").contains("<svg"));
    let report = bench().arg("report").arg(out).output().expect("it starts");
    assert!(report.status.success() && String::from_utf8_lossy(&report.stdout).contains("send_group"));
}

#[test]
fn browsers_come_in_by_web_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = QUICK.replace("[ledger]", "[transport]\nroute = \"web_socket\"\n[ledger]");
    let (output, out) = run(folder.path(), &plan, &[]);
    assert_whole(&result(&output, &out));
}

#[test]
fn a_starved_run_is_declared_void() {
    let folder = tempfile::tempdir().expect("a folder");
    // A million messages a second from one thread: no machine's agent keeps that schedule.
    let plan = QUICK.replace("rate = 500", "rate = 1000000").replace("[ledger]\nkeep = true", "");
    let (output, out) = run(folder.path(), &plan, &[]);
    let result = result(&output, &out);
    let rules: Vec<&str> = result.void.iter().map(|reason| reason.rule.as_str()).collect();
    assert!(rules.iter().any(|rule| rule.starts_with("generator") || *rule == "rate_missed"), "{rules:?}");
    assert!(!output.status.success(), "a void run does not end well");
    assert!(String::from_utf8_lossy(&output.stdout).contains("VOID"));
}

#[test]
fn killed_servers_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = include_str!("../plans/faults.toml").replace("rate = 1000 ", "rate = 400 ");
    let (output, out) = run(folder.path(), &plan, &["--faults"]);
    let result = result(&output, &out);
    if let Some(ledger) = ledger(&result) {
        assert!(ledger.is_balanced(), "{ledger:?}");
        assert!(is_slow_day(&result) || ledger.acknowledged > 5_000, "{ledger:?}");
        assert_killed(&result);
    }
}

/// Five servers were killed, and their clients came back.
fn assert_killed(result: &RunResult) {
    let phase = result.phases.last().expect("phases");
    let killed = phase.faults.iter().filter(|(_, what)| what.ends_with("killed")).count();
    assert_eq!(killed, 5, "{:?}", phase.faults);
    assert!(!phase.recovery.is_empty(), "connections were lost and came back");
}

/// Two gateways, one of which leaves, at rates of a small machine.
const LEAVING: &str = r#"
name = "leaving"
about = "a gateway leaves"
population = { users = 60 }
transport = { gateway = "ranked" }
ledger = { keep = true }
[server]
gateways = 2
storages = 1
cpus = ""
rates = "default"
hellos_per_core = "60 per second, burst 60"
[[phase]]
name = "connect"
preparation = true
seconds = 20
until_done = true
stream = [{ action = "connect", schedule = { kind = "closed", in_flight = 8 } }]
[[phase]]
name = "rooms"
preparation = true
seconds = 20
until_done = true
stream = [{ action = "open_room", schedule = { kind = "closed", in_flight = 8 } }]
[[phase]]
name = "leaving"
seconds = 10
stream = [{ action = "send_direct", schedule = { kind = "constant", rate = 100 } }]
fault = [{ at_s = 0.5, kill = "gateway-2", signal = "term" }]
"#;

#[test]
fn a_gateway_that_leaves_sends_its_clients_on_and_cuts_none_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, out) = run(folder.path(), LEAVING, &["--faults"]);
    let result = result(&output, &out);
    if let Some(ledger) = ledger(&result) {
        assert!(ledger.is_balanced(), "{ledger:?}");
        let phase = result.phases.last().expect("phases");
        let happened: Vec<&str> = phase.faults.iter().map(|(_, what)| what.as_str()).collect();
        assert_eq!(happened, ["gateway-2 asked to leave", "gateway-2 has left"]);
        if !is_slow_day(&result) {
            assert!(ledger.acknowledged > 500, "{ledger:?}");
            assert_sent_on(phase);
        }
    }
}

/// All clients of the gateway that left are at the other one, and went there because they were told to.
fn assert_sent_on(phase: &PhaseResult) {
    let returns = phase.returns;
    assert!(returns.cut == 0 && returns.sent_on > 0 && returns.sent_on == returns.told, "{returns:?}");
    assert_eq!(phase.connections.at_end, 60, "all are at the other one");
    assert!(phase.streams[0].histograms.contains_key("spared"), "some were there before");
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a part of the harness that says "ready: ADDRESS".
fn start(command: &mut Command) -> (Running, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let ready =
        lines.find_map(|line| line.ok()?.split_once("ready: ").map(|(_, address)| address.to_owned()));
    std::thread::spawn(move || lines.for_each(drop));
    (Running(child), ready.expect("it gets ready"))
}

#[test]
fn agents_elsewhere_serve_a_coordinator_that_proves_itself_through_a_relay() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let trust = path("trust");
    let made =
        bench().args(["authority", &trust, "--agent", "left", "--agent", "right", "--relay", "top"]).status();
    assert!(made.expect("it starts").success());
    let own = |name: &str| {
        let file = |end: &str| format!("{trust}/{name}{end}.pem");
        [
            "--authority".into(),
            format!("{trust}/authority.pem"),
            "--cert".into(),
            file(""),
            "--key".into(),
            file("-key"),
        ]
    };
    let key = path("null-cert.pem");
    let (_null, target) = start(bench().args(["null-server", "--certificate", &key]));
    let agent = |name: &str| {
        start(bench().args(["agent", "--listen", "127.0.0.1:0", "--target", &target]).args(own(name)))
    };
    let ((_left, left), (_right, right)) = (agent("left"), agent("right"));
    let list = |file: &str, agents: &[(&str, &str)]| {
        let entry = |(name, address): &(&str, &str)| {
            format!("[[agent]]\nname = \"{name}\"\naddress = \"{address}\"\n")
        };
        std::fs::write(path(file), agents.iter().map(entry).collect::<String>())
            .expect("a folder of our own");
        path(file)
    };
    let below = list("below.toml", &[("left", &left), ("right", &right)]);
    let down = [format!("{trust}/coordinator.pem"), format!("{trust}/coordinator-key.pem")];
    let mut relay = bench();
    relay.args(["relay", "--listen", "127.0.0.1:0", "--agents", &below]).args(own("top"));
    let (_relay, top) = start(relay.args(["--down-cert", &down[0], "--down-key", &down[1]]));
    let above = list("above.toml", &[("top", &top)]);
    let minted = bench::agent::identity::generate_key_pem().expect("randomness");
    std::fs::write(path("bench-key.pem"), minted).expect("a folder of our own");
    let plan = "name = \"remote\"\nabout = \"two agents below a relay\"\npopulation = { users = 40 }\n\
        [[phase]]\nname = \"connect\"\nseconds = 10\nuntil_done = true\nconnections_min = 40\n\
        stream = [{ action = \"connect\", schedule = { kind = \"constant\", rate = 200 } }]\n\
        [[phase]]\nname = \"rooms\"\npreparation = true\nseconds = 10\nuntil_done = true\n\
        stream = [{ action = \"open_room\", schedule = { kind = \"closed\", in_flight = 8 } }]\n\
        [[phase]]\nname = \"messages\"\nseconds = 2\n\
        stream = [{ action = \"send_direct\", schedule = { kind = \"constant\", rate = 300 } }]\n";
    let bench_key = path("bench-key.pem");
    let mut flags = vec!["--agents-file", &above, "--target", &target, "--tls-name", "localhost"];
    flags.extend(["--ca", &key, "--bench-key", &bench_key]);
    let coordinator = own("coordinator");
    flags.extend(coordinator.iter().map(String::as_str));
    let (output, out) = run(folder.path(), plan, &flags);
    let result = result(&output, &out);
    assert_eq!(result.hosts.len(), 3, "the coordinator and both agents: {:?}", result.hosts);
    assert_eq!(result.phases[0].connections.at_end, 40);
    let sent = &result.phases[2].streams[0];
    let all_came = (sent.due, sent.succeeded, sent.deliveries) == (600, 600, 600);
    assert!(is_slow_day(&result) || all_came, "{sent:?}");
    assert_eq!(result.phases[2].generators.len(), 2, "each agent tells how it fared itself");
}
