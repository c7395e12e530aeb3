//! Several gateways: where a client goes, and where it goes when that is not possible.

use super::*;

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

async fn goes_where_it_is_sent(transport: TransportKind) {
    let gateway = Gateway::start().await;
    let mut ada = Person::register(&gateway, "ada", transport).await;
    ada.until_online().await;
    let main = gateway.address(transport);
    assert_eq!(gateway.state().doors, [main.as_str()]);
    // The gateway leaves. The first one that it names is dead, too.
    let other = gateway.another_door().await;
    gateway.state().sends_on = vec![nobody(), other.clone()];
    gateway.cut_all();
    ada.until_dropped().await;
    ada.until_online().await;
    assert_eq!(gateway.state().doors, [main.as_str(), other.as_str()]);
    // Where it is now it stays, and beyond the list it comes by the address that it was given.
    gateway.cut_all();
    ada.until_dropped().await;
    ada.until_online().await;
    assert_eq!(gateway.state().doors, [main.as_str(), other.as_str(), other.as_str()]);
    ada.client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_where_a_leaving_gateway_sends_it() {
    goes_where_it_is_sent(TransportKind::Native).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_goes_where_a_leaving_gateway_sends_it_over_websocket() {
    goes_where_it_is_sent(TransportKind::WebSocket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_log_in_a_client_goes_to_the_gateway_of_its_user() {
    let gateway = Gateway::start().await;
    let best = gateway.another_door().await;
    gateway.state().gateways = vec![best.clone(), gateway.address(TransportKind::Native)];
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    ada.until_state(ConnectionState::Online).await;
    assert_eq!(gateway.state().doors, [best]);
    ada.client.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_dead_gateways_keeps_nobody_away() {
    let gateway = Gateway::start().await;
    gateway.state().gateways = vec![nobody(), nobody()];
    let mut ada = Person::register(&gateway, "ada", TransportKind::Native).await;
    // Two that do not answer, and then the configured one. It names the same ones again, and is not asked again.
    ada.until_state(ConnectionState::Online).await;
    assert_eq!(gateway.state().doors, [gateway.address(TransportKind::Native)]);
    ada.client.shutdown().await;
}
