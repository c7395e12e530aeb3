//! kill -9 of gateways and storage under load at random moments: the ledger balances.

use bench::agent::Route;
use bench::coordinator::{Cluster, Shape};
use bench::workload::crash::{self, Plan};

fn balances(shape: Shape, name: &str, plan: &Plan) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cluster = Cluster::start(shape, name, 2).unwrap_or_else(|error| panic!("{error}"));
    let findings = runtime
        .block_on(crash::run(&mut cluster, Route::Native, plan))
        .unwrap_or_else(|error| panic!("seed {}: {error}", plan.seed));
    println!("seed {}: {findings:?}", plan.seed);
    assert!(findings.acknowledged >= plan.acknowledged_min, "hardly any load: {findings:?}");
    assert!(findings.repeated > 0, "no kill hit a message in flight: {findings:?}");
}

fn plan(seed: u64) -> Plan {
    Plan { pairs: 8, kills: 12, after_ms: 50..700, seed, acknowledged_min: 1_500 }
}

#[test]
fn embedded_survives_kills_at_random_moments() {
    balances(Shape::Embedded, "crash-embedded", &plan(11));
}

#[test]
fn split_survives_kills_of_gateways_and_storage() {
    balances(Shape::Split, "crash-split", &plan(12));
}
