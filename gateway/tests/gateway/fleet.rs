//! Two gateways before the same storage: they find each other, one leaves, and its clients are all at the other.

use crate::chat::{accepted_at_last, created, direct, text};
use crate::client::{Client, Way};
use crate::nodes::Cluster;
use crate::server::{Account, Folder, PATIENCE_S, Server};
use gateway::listen::reserve;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::Socket;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire_protocol::limits::ALPN_HTTP;
use wire_protocol::session::Proof;
use wire_protocol::v1::session_closing::Reason;

/// Sessions that each gateway admits a second, so that one that leaves sends half as many.
const ADMITS_PER_S: u32 = 20;
/// And at once: more than any test has.
const ADMITS_AT_ONCE: u32 = 60;
/// Between two clients that it sends away.
pub const SLOT_MS: u64 = 2 * 1_000 / ADMITS_PER_S as u64;

/// The nodes, and two gateways with one certificate, one set of keys, one secret.
pub struct Fleet {
    pub first: Server,
    pub second: Server,
    configs: [String; 2],
    ports: [u16; 2],
    secret: PathBuf,
    _secrets: Folder,
    /// Keep the ports from others.
    _reserved: [Socket; 2],
    _cluster: Cluster,
}

impl Fleet {
    pub fn start(drain_s: u32) -> Self {
        let cluster = Cluster::start();
        let reserved = [(); 2].map(|()| reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port"));
        let ports = reserved.each_ref().map(|(_, address)| address.port());
        let secrets = Folder::new();
        let secret = secrets.path().join("ticket-secret");
        fs::write(&secret, "a".repeat(64)).expect("written");
        // One finds the other in a list, the other one by a name.
        let others = [
            format!("gateways = ['127.0.0.1:{}', '127.0.0.1:{}']", ports[0], ports[1]),
            format!("dns = 'localhost:{}'", ports[0]),
        ];
        let configs = [0, 1].map(|number: usize| {
            format!(
                "cores = 1\ngateway_id = {}\n[tls]\nticket_secret = {secret:?}\n\
                 [limits]\nhellos_per_core = '{ADMITS_PER_S} per second, burst {ADMITS_AT_ONCE}'\n\
                 [fleet]\n{}\nadvertise = '127.0.0.1:{}'\n\
                 server_name = 'localhost'\ndrain_s = {drain_s}\n{}",
                number + 1,
                others[number],
                ports[number],
                cluster.gateway_config(),
            )
        });
        let first = Server::start_at(Folder::new(), &configs[0], ports[0]);
        let folder = Folder::new();
        share_keys(&first.data(), &folder.path().join("data"));
        let second = Server::start_at(folder, &configs[1], ports[1]);
        let _reserved = reserved.map(|(socket, _)| socket);
        Self { first, second, configs, ports, secret, _secrets: secrets, _reserved, _cluster: cluster }
    }

    /// The first one again, with all that it had.
    pub fn with_first_again(self) -> Self {
        let first = Server::start_at(self.first.into_folder(), &self.configs[0], self.ports[0]);
        Self { first, ..self }
    }

    /// Until each hands out both.
    pub fn wait_until_known(&self, account: &Account) {
        for gateway in [&self.first, &self.second] {
            wait_until_handed_out(gateway, account, &[&self.first, &self.second]);
        }
    }
}

/// What a gateway hands out to an account, best first.
pub fn handed_out(gateway: &Server, account: &Account) -> Vec<String> {
    let (status, answer) = gateway.get_as(account, "/v1/gateways");
    assert_eq!(status, 200, "{answer}");
    let list = answer["gateways"].as_array().expect("a list");
    list.iter().map(|address| address.as_str().expect("text").to_owned()).collect()
}

/// Until a gateway hands out these, and no others.
fn wait_until_handed_out(gateway: &Server, account: &Account, wanted: &[&Server]) {
    let mut wanted: Vec<String> = wanted.iter().map(|gateway| gateway.tls.to_string()).collect();
    wanted.sort_unstable();
    gateway.wait_until_equal("it hands out those that can be gone to", &wanted, || {
        let mut known = handed_out(gateway, account);
        known.sort_unstable();
        known
    });
}

/// Gives a gateway that is to start the keys of another one.
pub fn share_keys(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("tls")).expect("made");
    for file in ["signing-key.pem", "resume-key", "tls/cert.pem", "tls/key.pem"] {
        fs::copy(from.join(file), to.join(file)).expect("copied");
    }
}

fn accounts(server: &Server, count: usize) -> Vec<Account> {
    (0..count).map(|number| server.register(&format!("user-{number}"))).collect()
}

/// Waits for the moment that a server named.
pub fn wait_until(moment: Instant) {
    while let Some(left) = moment.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

#[test]
fn clients_of_a_gateway_that_leaves_are_all_at_the_other_in_their_slots() {
    const CLIENTS: usize = 40;
    // The window holds a quarter of them, and more where a turn is late; the others are told how long to wait.
    let mut fleet = Fleet::start(1);
    let accounts = accounts(&fleet.first, CLIENTS);
    fleet.wait_until_known(&accounts[0]);
    let connect = |account: &Account| Client::connect(&fleet.first, Way::NativeTls, account);
    let mut clients: Vec<Client> = accounts.iter().map(connect).collect();
    let conversation = created(clients[0].ask(direct(&accounts[1]))).conversation_id;
    accepted_at_last(&mut clients[0], &text(&conversation, 1, "before"));

    // Before it is asked: whatever takes long here makes nobody seem early.
    let began = Instant::now();
    fleet.first.process.ask_to_end();
    let second = &fleet.second;
    let moved: Vec<(Duration, u32, Client)> = std::thread::scope(|scope| {
        let moves: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || {
                    let closing = client.wait_for_end().expect("a reason");
                    let told = began.elapsed();
                    assert_eq!(closing.reason(), Reason::Draining);
                    assert_eq!(closing.gateways, [second.tls.to_string()]);
                    wait_until(Instant::now() + Duration::from_millis(closing.retry_after_ms.into()));
                    let proof = Proof::ResumeToken(client.ready.resume_token.clone());
                    let again = Client::hello(second, Way::NativeTls, proof);
                    assert_eq!(again.closing, None, "none is refused");
                    (told, closing.retry_after_ms, again)
                })
            })
            .collect();
        moves.into_iter().map(|moved| moved.join().expect("it moved")).collect()
    });
    assert!(fleet.first.process.wait().success());
    let later = moved.iter().filter(|(_, wait_ms, _)| *wait_ms > 0).count();
    // A gateway that stood still for as long as all slots take sends everybody away at once.
    let last_told = moved.iter().map(|(told, ..)| *told).max().expect("some");
    assert!(later > 0 || last_told > Duration::from_secs(3), "nobody was told to wait");
    assert!(later <= CLIENTS * 3 / 4, "{later} were told to wait");
    let longest_ms = moved.iter().map(|(_, wait_ms, _)| u64::from(*wait_ms)).max().expect("some");
    assert!(longest_ms <= CLIENTS as u64 * SLOT_MS - 1_000 + SLOT_MS, "{longest_ms}");
    let early = moved.iter().filter(|(told, ..)| told.as_millis() < 500).count();
    assert!(early <= 500 / SLOT_MS as usize + 1, "{early} were sent away in the first half second");
    assert_eq!(fleet.second.metric("ringline_sessions_put_off_total"), 0.0);
    // They go on where they were.
    let mut moved: Vec<Client> = moved.into_iter().map(|(_, _, client)| client).collect();
    accepted_at_last(&mut moved[0], &text(&conversation, 2, "after"));
    // What was pushed late comes to the new session: the created entry, before, after.
    while crate::chat::live(&mut moved[1]).1 != 3 {}
}

#[test]
fn a_gateway_that_stands_still_or_is_gone_is_handed_out_no_more_and_one_that_answers_again_is() {
    let mut fleet = Fleet::start(1);
    let account = fleet.first.register("ada");
    fleet.wait_until_known(&account);
    // Its socket still takes connections.
    fleet.second.process.signal("STOP");
    wait_until_handed_out(&fleet.first, &account, &[&fleet.first]);
    fleet.second.process.signal("CONT");
    fleet.wait_until_known(&account);
    fleet.second.process.kill();
    wait_until_handed_out(&fleet.first, &account, &[&fleet.first]);
}

/// Connects, asks something, so that the ticket has come, and tells how the handshake went.
fn handshake(config: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(config.clone(), name).expect("a client");
    let mut tcp = TcpStream::connect(address).expect("it listens");
    tcp.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    let request = "GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    tls.handshake_kind().expect("it is over")
}

#[test]
fn a_ticket_of_one_gateway_is_good_at_the_other_and_a_new_secret_is_taken_over() {
    let fleet = Fleet::start(0);
    let (first, second) = (fleet.first.tls, fleet.second.tls);
    let certificate = CertificateDer::from_pem_file(&fleet.first.certificate).expect("a certificate");
    let client = || {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("fits");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = versions.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        Arc::new(config)
    };
    let config = client();
    assert_eq!(handshake(&config, first), HandshakeKind::Full);
    assert_eq!(handshake(&config, second), HandshakeKind::Resumed);
    // The first one's probes come by tickets, too.
    fleet
        .second
        .wait_until("it is counted", || fleet.second.metric("ringline_tls_handshakes_resumed_total") >= 1.0);
    // Both take over another secret by themselves: tickets of the last one are void, once, at each.
    let regulars = [first, second].map(|gateway| (client(), gateway));
    for (regular, gateway) in &regulars {
        assert_eq!(handshake(regular, *gateway), HandshakeKind::Full);
        assert_eq!(handshake(regular, *gateway), HandshakeKind::Resumed);
    }
    fs::write(&fleet.secret, "b".repeat(64)).expect("written");
    for gateway in [&fleet.first, &fleet.second] {
        let changes = || gateway.metric("ringline_tls_secret_changes_total");
        gateway.wait_until("the new secret is taken over", || changes() == 1.0);
    }
    for (regular, gateway) in &regulars {
        assert_eq!(handshake(regular, *gateway), HandshakeKind::Full, "the old tickets are void");
    }
    let new = client();
    assert_eq!(handshake(&new, first), HandshakeKind::Full);
    assert_eq!(handshake(&new, second), HandshakeKind::Resumed);
}
