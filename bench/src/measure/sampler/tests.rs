use super::*;
use crate::right::{Right, refused};
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A shell that carries out the lines it is given, and says when each is done.
struct Shell(Child);

impl Shell {
    fn start() -> Self {
        let child = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        Self(child.expect("every machine has a shell"))
    }

    fn carry_out(&mut self, line: &str) {
        let input = self.0.stdin.as_mut().expect("piped");
        writeln!(input, "{line}\necho done").expect("the shell reads");
        let output = self.0.stdout.as_mut().expect("piped");
        let mut answer = [0; 5];
        io::Read::read_exact(output, &mut answer).expect("the shell answers");
        assert_eq!(&answer, b"done\n");
    }

    /// Keeps the shell busy until it has used [`BUSY_MS`] of CPU: how many loops that takes is the machine's matter.
    fn work(&mut self) {
        let used_ms = |pid| process::cpu(pid).map(|cpu| cpu.user_ms + cpu.system_ms).expect("our own child");
        let begun_ms = used_ms(self.0.id());
        while used_ms(self.0.id()) < begun_ms + BUSY_MS {
            self.carry_out(BUSY);
        }
    }

    fn server(&self, scope: Scope) -> ServerProcess {
        ServerProcess { name: "shell".into(), pid: self.0.id(), scope, metrics: None }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU that shows in what is measured, in milliseconds.
const BUSY_MS: u64 = 120;
/// About 0.2 s of CPU in the shell itself.
const BUSY: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

fn sampler(servers: Vec<ServerProcess>) -> Sampler {
    Sampler::new(servers, "lo", CountCalls::No).expect("our own children")
}

#[test]
fn only_what_happens_in_measured_time_counts() {
    let mut shell = Shell::start();
    shell.work();
    let mut sampler = sampler(vec![shell.server(Scope::Process)]);
    sampler.begin();
    let idle = sampler.end();
    assert!(idle.servers[0].user_ms + idle.servers[0].system_ms <= 20, "{:?}", idle.servers[0]);
    sampler.begin();
    shell.work();
    let second = sampler.second();
    assert!(second.server_cpu_milli > 0 && second.server_private_bytes > 0 && second.kernel_bytes > 0);
    let busy = sampler.end();
    let server = &busy.servers[0];
    assert!(server.user_ms + server.system_ms >= 50, "{server:?}");
    assert_eq!(server.threads.len(), 1, "{server:?}");
    assert_eq!(server.threads[0].0, "sh");
    assert!(server.private_bytes_start > 0 && server.private_bytes_end > 0 && server.open_files >= 3);
    assert_eq!((server.system_calls, server.log_syncs), (None, None), "not counted is not zero");
    assert!(busy.problems.is_empty() && !busy.machine.cpu_busy_milli.is_empty(), "{busy:?}");
}

#[test]
fn a_family_counts_what_its_children_do() {
    let mut shell = Shell::start();
    let mut sampler = sampler(vec![shell.server(Scope::Family), shell.server(Scope::Process)]);
    sampler.begin();
    // Many loops: a fast machine has to be busy, too.
    let busy = [BUSY; 6].join("; ");
    // The child stays, as one that has ended before it was seen is counted by nobody.
    shell.carry_out(&format!(
        "mkfifo /tmp/bench-family-$$; sh -c '{busy}; echo >\"$0\"; exec sleep 60' /tmp/bench-family-$$ \
        >/dev/null 2>&1 & read x </tmp/bench-family-$$; rm /tmp/bench-family-$$"
    ));
    let sample = sampler.end();
    let [family, alone] = &sample.servers[..] else { panic!("two servers") };
    let cpu = |server: &ServerResult| server.user_ms + server.system_ms;
    shell.carry_out("kill $!");
    assert!(cpu(family) >= cpu(alone) + 50, "{family:?} {alone:?}");
    assert!(family.private_bytes_end > alone.private_bytes_end);
}

#[test]
fn a_restarted_server_keeps_what_its_first_life_did() {
    let mut first = Shell::start();
    let mut sampler = sampler(vec![first.server(Scope::Process)]);
    sampler.begin();
    first.work();
    sampler.second();
    drop(first);
    let gone = sampler.second();
    assert_eq!((gone.server_private_bytes, gone.server_cpu_milli), (0, 0));
    let mut second = Shell::start();
    second.work();
    sampler.restarted("shell", second.0.id());
    sampler.restarted("nobody", 1);
    assert!(sampler.second().server_cpu_milli > 0);
    let sample = sampler.end();
    assert!(sample.servers[0].user_ms + sample.servers[0].system_ms >= 100, "{sample:?}");
    assert_eq!(sample.problems.len(), 1, "{:?}", sample.problems);
    assert!(sample.problems[0].contains("nobody"));
    sampler.begin();
    let next = sampler.end();
    assert!(next.servers[0].user_ms <= 20, "the first life left with the phase: {next:?}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let nobody =
        ServerProcess { name: "gateway-9".into(), pid: u32::MAX, scope: Scope::Process, metrics: None };
    let refused = Sampler::new(vec![nobody], "lo", CountCalls::No).map(|_| ()).expect_err("not there");
    assert!(refused.to_string().contains("gateway-9"), "{refused}");
}

/// Loops of the first try, a call and more in each. Every further try has four times as many: perf takes a moment to
/// begin, and misses all of a short one.
const LOOPS_FIRST: u64 = 2_000;
/// Tries; the last one takes some seconds.
const TRIES_MAX: u32 = 5;

#[test]
fn system_calls_are_counted_where_perf_is() {
    let mut shell = Shell::start();
    let mut sampler =
        Sampler::new(vec![shell.server(Scope::Process)], "lo", CountCalls::IfPossible).expect("our child");
    let counted = (0..TRIES_MAX).find_map(|tried| {
        let loops = LOOPS_FIRST * 4_u64.pow(tried);
        sampler.begin();
        shell.carry_out(&format!("i=0; while [ $i -lt {loops} ]; do i=$((i+1)); umask >/dev/null; done"));
        sampler.end().servers[0].system_calls
    });
    // perf may be there and not be allowed: then there is no count, and never a wrong one.
    let Some(calls) = counted else {
        return refused(Right::Perf, "no system call was counted");
    };
    assert!(calls > 0, "not counted is not zero");
    sampler.begin();
    assert!(sampler.end().servers[0].system_calls < Some(calls), "each phase counts for itself");
}
