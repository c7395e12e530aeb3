//! `GET /v1/gateways`, and what readiness tells other gateways.

use super::Harness;
use crate::fleet::{FleetView, Peer};
use serde_json::json;
use std::sync::Arc;
use wire_protocol::ids::{DeviceId, UserId};

fn peer(address: &str, zone: &str) -> Peer {
    Peer { address: address.into(), zone: zone.into(), admits_per_s: Some(500) }
}

fn fleet() -> Arc<FleetView> {
    let others =
        ["b:1", "c:1", "d:1"].map(|address| peer(address, if address == "d:1" { "far" } else { "near" }));
    Arc::new(FleetView { own: Some(peer("a:1", "near")), others: others.into() })
}

async fn gateways(harness: &mut Harness, user: u8) -> Vec<String> {
    let token = harness.issuer.issue_access(UserId([user; 16]), DeviceId([1; 16]), harness.now_ms());
    let bearer = format!("Authorization: Bearer {}\r\n", token.expect("it signs").text);
    let answer = harness.request("GET", "/v1/gateways", &bearer, "").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    let list = answer.json()["gateways"].as_array().expect("a list").clone();
    list.iter().map(|address| address.as_str().expect("text").to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_user_gets_its_own_order_of_the_healthy_gateways() {
    let mut harness = Harness::new();
    assert!(gateways(&mut harness, 1).await.is_empty(), "without a fleet there is nowhere else to go");
    harness.fleet.send_replace(fleet());
    let orders: Vec<_> = {
        let mut orders = Vec::new();
        for user in 0..30 {
            orders.push(gateways(&mut harness, user).await);
        }
        orders
    };
    for order in &orders {
        let mut all = order.clone();
        all.sort();
        assert_eq!(all, ["a:1", "b:1", "c:1", "d:1"]);
        assert_eq!(order[3], "d:1", "the far one is last");
    }
    for first in ["a:1", "b:1", "c:1"] {
        assert!(orders.iter().any(|order| order[0] == first), "{first} is nobody's");
    }
    assert_eq!(gateways(&mut harness, 7).await, orders[7]);
    // One that leaves keeps nobody.
    harness.ready.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(!gateways(&mut harness, 7).await.contains(&"a:1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn strangers_and_old_tokens_are_refused() {
    let mut harness = Harness::new();
    harness.fleet.send_replace(fleet());
    let token =
        harness.issuer.issue_access(UserId([1; 16]), DeviceId([1; 16]), harness.now_ms() - 86_400_000);
    let expired = format!("Authorization: Bearer {}\r\n", token.expect("it signs").text);
    for (headers, code) in [
        ("", "ERROR_UNAUTHENTICATED"),
        ("Authorization: Basic YTpi\r\n", "ERROR_UNAUTHENTICATED"),
        ("Authorization: Bearer a.b.c\r\n", "ERROR_UNAUTHENTICATED"),
        (&expired, "ERROR_TOKEN_EXPIRED"),
    ] {
        let answer = harness.request("GET", "/v1/gateways", headers, "").await;
        assert_eq!((answer.status, answer.text("code").as_str()), (401, code));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_says_where_the_gateway_is_and_how_many_it_admits() {
    let mut harness = Harness::new();
    assert_eq!(harness.get("/v1/health/ready").await.json(), json!({ "status": "ready" }));
    harness.fleet.send_replace(fleet());
    let expected = json!({ "status": "ready", "zone": "near", "admits_per_s": 500 });
    assert_eq!(harness.get("/v1/health/ready").await.json(), expected);
}
