//! A run's devices as clients of a peer.

use super::names::Names;
use super::subjects::{protocol, subject};
use crate::agent::engine::Clients;
use crate::agent::protocol::{ClientProtocol, DeviceMemory};
use crate::coordinator::control::messages::{Prepare, Subject};
use crate::workload::population::{DeviceIndex, Population};
use std::sync::Arc;

struct PeerClients {
    protocol: &'static str,
    run_id: u64,
    heartbeat_s: u32,
    population: Arc<Population>,
}

impl Clients for PeerClients {
    fn protocol(&mut self, device: DeviceIndex, memory: DeviceMemory) -> Box<dyn ClientProtocol> {
        let names = Names {
            run_id: self.run_id,
            device,
            heartbeat_s: self.heartbeat_s,
            population: Arc::clone(&self.population),
        };
        protocol(self.protocol, names, &memory).expect("looked up when the run was prepared")
    }
}

/// A run's clients, the protocol's name within TLS, and the run's id.
pub type MadeClients = (Box<dyn Clients>, &'static [u8], u64);

/// Clients of the peer that a run names, the protocol's name within TLS, and the run's id.
pub fn clients(prepare: &Prepare, people: &Population) -> Result<MadeClients, String> {
    let Subject::Peer { name, run_id } = &prepare.subject else {
        return Err("no peer is named".to_owned());
    };
    let subject = subject(name).ok_or_else(|| format!("there is no peer {name}"))?;
    let alpn: &[u8] = match subject.protocol {
        "mqtt" => b"mqtt",
        "xmpp" => b"xmpp-client",
        _ => b"nats",
    };
    let clients = PeerClients {
        protocol: subject.protocol,
        run_id: *run_id,
        heartbeat_s: prepare.plan.transport.heartbeat_s,
        population: Arc::new(people.clone()),
    };
    Ok((Box::new(clients), alpn, *run_id))
}
