//! `ringline-bench`: load, its ledger, and what it cost.

#![forbid(unsafe_code)]

mod commands;

use std::process::ExitCode;

const HELP: &str = "ringline-bench COMMAND

  run [PLAN]            carries out a plan (a name of bench/plans, or a file; default: canonical) on servers that it starts
      [--out FILE] [--html FILE]      the result as JSON, and as a page; a table is printed in any case
      [--faults]                      kills and restarts servers as the plan says
      [--agents N]                    agent processes; default: as many as the file limit wants
      [--subject ringline | null | PEER]   what is tested; peers: mosquitto nats jetstream … (peers --list)
      [--bin-dir DIR]                 the servers' binaries, if not beside this one
      [--target HOST:PORT]… --ca FILE --tls-name NAME --bench-key FILE      a fleet that runs already
      [--agents-file FILE --authority FILE --cert FILE --key FILE]          agents and relays on other machines
      [--rate-scale X]                multiplies every open-loop rate
  search [PLAN] --p99-ms X [--phase NAME] [--first RATE] [--precision 0.05]
                        highest rate of a phase's first stream whose answers' p99 stays below
  soak [PLAN] [--minutes 30] [--out FILE] [--html FILE]
                        rounds of load and kills: do memory or files grow, does it get slower, was anything lost?
  faults [FAULT…] [--short] [--limit-s 3] [--bin-dir DIR] [--rate-scale X] [--out FILE]
  faults --previous DIR a fleet of another release's binaries, upgraded process by process under the same load
                        three storage nodes and two gateways in network namespaces, broken one way after another under
                        load: seconds without service, and the ledger, fault by fault (as root; faults --list names them)
  compare A B [--plan PLAN] [--plan-b PLAN] [--runs 3] [--out DIR] [--html FILE]
                        two folders with binaries, run in turn: ratios and their spread; B may have a plan of its own
                        with the same load, for servers of another shape. A phase that is void in a run is left out
                        of that pair; --with-void compares it all the same
  compare --from DIR    runs that --out kept, compared again
  peers [--list] [--only NAME,…] [--plans NAME,…] [--runs 1] [--out DIR] [--html DIR]
                        Ringline and its peers by the same plans, in turn: one table, each result, a page a plan
  report FILE… [--html FILE]      tables, and one page, of results
  verify --target HOST:PORT… --accounts FILE [--ca FILE] [--tls-name NAME]
                        a cluster that runs already: is each acknowledged message on every device, in order, once,
                        and in history? Ends with 0: it is, 1: it is not, 2: could not be checked
      [--messages 200] [--rate 20] [--seconds 120] [--group]      how much is sent, into direct rooms and a group
      [--history-only]                sends nothing: is what is there whole, and the same for everybody?
      [--out FILE]                    the outcome as JSON
  world [--seeds 0..1000] [--threads N]
                        a whole cluster in one thread, from each seed: faults of every kind, then every promise is checked
      --seed N [--show]               one seed again; --show prints what its devices did and saw
      [--plant NAME]                  with a bug in the storage nodes, which is to be found: lost-vote, stale-read, …
  agent …  relay …  authority …   load from many machines: docs/benchmarking.md
  null-server [--listen ADDRESS] [--certificate FILE]
                        a server that only answers
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match commands::run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringline-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
