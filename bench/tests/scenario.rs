//! The end-to-end scenario on real processes: two routes, three shapes.

use bench::agent::Route;
use bench::coordinator::{Cluster, Shape};
use bench::workload::scenario;

fn passes(shape: Shape, route: Route, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut cluster = Cluster::start(shape, name, 2).unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(scenario::run(&mut cluster, route)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn native_embedded() {
    passes(Shape::Embedded, Route::Native, "native-embedded");
}

#[test]
fn native_split() {
    passes(Shape::Split, Route::Native, "native-split");
}

#[test]
fn websocket_embedded() {
    passes(Shape::Embedded, Route::WebSocketPlain, "websocket-embedded");
}

#[test]
fn websocket_split() {
    passes(Shape::Split, Route::WebSocketTls, "websocket-split");
}

#[test]
fn native_replicated() {
    passes(Shape::Replicated, Route::Native, "native-replicated");
}

#[test]
fn websocket_replicated() {
    passes(Shape::Replicated, Route::WebSocketTls, "websocket-replicated");
}
