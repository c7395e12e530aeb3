//! Servers that die at named places on the way of a push, under load and with devices that listen: nobody misses
//! anything.

use bench::agent::Route;
use bench::coordinator::{Cluster, Shape, Tier};
use bench::workload::crash::deaths::{self, Deaths};

fn nobody_misses_anything(name: &str, plan: &Deaths<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cluster = Cluster::start(Shape::Split, name, 2).unwrap_or_else(|error| panic!("{error}"));
    let findings = runtime
        .block_on(deaths::run(&mut cluster, Route::Native, plan))
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{findings:?}");
    assert_eq!(findings.kills as u64, plan.places.len() as u64 * plan.rounds);
    assert!(findings.acknowledged > 100 * findings.kills, "hardly any load: {findings:?}");
    assert!(findings.repeated > 0, "no death hit a message in flight: {findings:?}");
}

#[test]
fn gateways_die_with_deliveries_received_queued_and_written() {
    let places = [("deliveries-received", 60), ("deliveries-queued", 60), ("deliveries-written", 60)];
    let plan = Deaths { pairs: 4, tier: Tier::Gateway, places: &places, rounds: 2 };
    nobody_misses_anything("failpoints-gateways", &plan);
}

#[test]
fn storage_nodes_die_with_deliveries_about_to_leave_and_sent() {
    let places = [("feed-taken", 60), ("delivering", 60), ("deliveries-sent", 60)];
    let plan = Deaths { pairs: 4, tier: Tier::Storage, places: &places, rounds: 2 };
    nobody_misses_anything("failpoints-storage", &plan);
}
