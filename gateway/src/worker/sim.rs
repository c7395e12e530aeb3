//! A core of a gateway for a simulation of a cluster: the real loop's turns, sessions, requests and storage links,
//! without a ring, a runtime or a clock. The simulation says what time it is, carries the bytes of clients and links,
//! and calls [`SimGateway::turn`] whenever the loop would have been woken.
//!
//! Left out: TLS, WebSocket, HTTP, other cores, and how long a turn takes; and with them the pace at which connections are
//! accepted and the shares of addresses, which are before TLS, and the rates of log ins, which are behind HTTP.

use super::leaving::Stage;
use super::mailbox::{CoreMailbox, CoreMessage, LeaveOrder};
use super::wake::WakeHandle;
use super::{Core, CoreParts};
use crate::admission::rate::Rate;
use crate::admission::requests::RequestLimits;
use crate::config::AuthConfig;
use crate::domain::auth::{self, Issuer, KeysError, Verifier};
use crate::fleet::FleetView;
use crate::fleet::slots::LeavePlan;
use crate::front::simulated::SimClients;
use crate::front::{Clients, ConnectionToken};
use crate::http::HttpIngress;
use crate::observe::CoreObserver;
use crate::router::Router;
pub use crate::storage_client::nodes::GatewayPeer;
pub use crate::storage_client::simulated::{SimWire, SimWires};
use crate::storage_client::{Nodes, StorageClient};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use wire_protocol::ids::{DeviceId, UserId};
use wire_protocol::link::Versions;

/// Keys of a fleet of simulated gateways, and of those who mint its users.
#[derive(Clone)]
pub struct SimKeys {
    minter: Issuer,
    verifier: Verifier,
}

impl SimKeys {
    /// Makes keys in this folder, which is not needed any more afterwards.
    pub fn make(folder: &Path) -> Result<Self, KeysError> {
        let config = AuthConfig { token_ttl_s: 365 * 24 * 3_600, ..AuthConfig::default() };
        let benchmark = folder.join("benchmark");
        let (minter, _) = auth::open(&config, &benchmark)?;
        let benchmark_key = Some(benchmark.join("signing-key.pem"));
        let (_, verifier) = auth::open(&AuthConfig { benchmark_key, ..config }, folder)?;
        Ok(Self { minter, verifier })
    }

    /// A token for a benchmark's user, good for a year.
    pub fn access_token(&self, user: UserId, device: DeviceId, now_ms: u64) -> String {
        self.minter.issue_access(user, device, now_ms).expect("the key signs").text
    }
}

/// What a simulated gateway is told at its start.
pub struct SimGatewayParts<'a> {
    /// Whom storage nodes see.
    pub peer: GatewayPeer,
    /// Shards of the fleet.
    pub shard_count: u32,
    /// Ids of the storage nodes.
    pub nodes: &'a [u32],
    /// Whose tokens are let in.
    pub keys: &'a SimKeys,
    /// How many sessions are let in; `None`: whoever comes.
    pub hellos: Option<Rate>,
    /// What its links to storage nodes speak.
    pub versions: Versions,
    /// The time.
    pub now_ms: u64,
}

/// One life of a gateway.
pub struct SimGateway {
    core: Core,
    wires: SimWires,
    mailbox: CoreMailbox,
}

impl SimGateway {
    /// A gateway with one core and no connections yet.
    pub fn start(parts: SimGatewayParts<'_>) -> Self {
        let wake = WakeHandle::new();
        let (mailbox, inbox) = CoreMailbox::new(wake.clone());
        let wires = SimWires::default();
        let nodes = Nodes::simulated(parts.nodes, parts.shard_count, parts.peer, wires.clone(), wake)
            .speaking(parts.versions);
        let core = Core::new(CoreParts {
            clients: Clients::Simulated(SimClients::default()),
            storage: StorageClient::Nodes(Box::new(nodes)),
            router: Router::replicated(parts.shard_count, parts.nodes.len()),
            verifier: parts.keys.verifier.clone(),
            ingress: HttpIngress::unserved(mailbox.clone()),
            inbox,
            now_ms: parts.now_ms,
            hellos: parts.hellos,
            limits: RequestLimits::default(),
            observer: CoreObserver::new(),
            serving: Arc::new(AtomicUsize::new(1)),
        });
        Self { core, wires, mailbox }
    }

    /// One turn of the loop.
    pub fn turn(&mut self, now_ms: u64) {
        self.core.turn_at(now_ms);
        self.core.storage.check_invariants();
    }

    /// When a turn is due even if nothing happens.
    pub fn next_deadline_ms(&self) -> u64 {
        self.core.next_deadline_ms()
    }

    /// It is asked to end, as by SIGTERM: `fleet` is what it knows of the gateways then, and for `window_ms` it serves those
    /// whose turn to go has not come. To be turned at once.
    pub fn leave(&mut self, fleet: FleetView, window_ms: u64) {
        let own_per_s = fleet.own.as_ref().and_then(|own| own.admits_per_s);
        let plan = LeavePlan::new(&fleet, own_per_s, window_ms, 1);
        let sent = self.mailbox.send(CoreMessage::Drain(LeaveOrder { fleet: Arc::new(fleet), plan }));
        assert!(sent.is_ok(), "nobody else leaves messages");
    }

    /// Whether it was asked to end and has done all that this takes: the process ends.
    pub fn has_left(&self) -> bool {
        self.core.stage == Stage::Done
    }

    /// Whether there is still a listener to connect to.
    pub fn accepts(&self) -> bool {
        matches!(&self.core.clients, Clients::Simulated(clients) if clients.accepts())
    }

    /// The next connection to a storage node that the gateway wants: which node, and the connection's end here.
    pub fn take_connecting(&mut self) -> Option<(u32, SimWire)> {
        self.wires.take()
    }

    /// A client connected.
    pub fn connect(&mut self, peer: SocketAddr) -> ConnectionToken {
        self.clients().connect(peer)
    }

    /// Bytes of a client arrived.
    pub fn receive(&mut self, token: ConnectionToken, bytes: &[u8]) {
        self.clients().receive(token, bytes);
    }

    /// What was sent to a client. `None`: the connection is closed, and this was all.
    pub fn take_sent(&mut self, token: ConnectionToken) -> Option<BytesMut> {
        self.clients().take_sent(token)
    }

    /// A client's connection is gone.
    pub fn hang_up(&mut self, token: ConnectionToken) {
        self.clients().hang_up(token);
    }

    fn clients(&mut self) -> &mut SimClients {
        match &mut self.core.clients {
            Clients::Simulated(clients) => clients,
            Clients::Front(_) => unreachable!("a simulated gateway has simulated clients"),
        }
    }
}
