//! Idle connections: users who are registered, have conversations, sent one message, and now say nothing. The
//! slope between two counts is what one of them costs the server.

use super::device::{Device, send_body};
use crate::agent::{AgentError, Connection, Identity, Route, rest};
use crate::coordinator::{Cluster, Shape};
use crate::measure;
use std::io;

/// How many, between which counts the slope is taken.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections at the first measurement.
    pub from: usize,
    /// Connections at the second.
    pub to: usize,
    /// Conversations each user mentions in its session.
    pub conversations: usize,
    /// Cores of the server.
    pub cores: usize,
}

/// Users, each with one connection of its own per [`Plan::to`] / this; registering costs a password hash each.
const CONNECTIONS_A_USER: usize = 10;

/// Runs it and prints the table.
pub async fn run(plan: Plan) -> Result<(), AgentError> {
    let start = Cluster::start(Shape::Embedded, "idle", plan.cores);
    let cluster = start.map_err(|error| AgentError::Protocol(error.to_string()))?;
    let target = &cluster.targets[0];
    let pid = cluster.gateways[0].pid().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let users = plan.to.div_ceil(CONNECTIONS_A_USER).max(plan.conversations + 1);
    let mut identities: Vec<Identity> = Vec::new();
    for user in 0..users {
        identities.push(rest::register(target, &format!("idle-{user}")).await?);
    }
    let mut held: Vec<Connection> = Vec::new();
    let mut rows = Vec::new();
    for count in [plan.from, plan.to] {
        while held.len() < count {
            let index = held.len() % users;
            held.push(open(target, &identities, index, plan.conversations).await?);
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let process = measure::process(pid)?;
        rows.push((held.len(), process.private_bytes, measure::kernel_bytes()?));
        println!("{count} connections: {} KiB private in the server", process.private_bytes / 1_024);
    }
    let count = (rows[1].0 - rows[0].0) as f64;
    let user = (rows[1].1 as f64 - rows[0].1 as f64) / count;
    // Both ends of each connection are on this machine.
    let kernel = (rows[1].2 as f64 - rows[0].2 as f64) / count / 2.0;
    println!("slope: {user:.0} user bytes and about {kernel:.0} kernel bytes a connection");
    Ok(())
}

/// Connects, mentions the conversations so that the session has their handles, sends one message.
async fn open(
    target: &crate::agent::Target,
    identities: &[Identity],
    index: usize,
    conversations: usize,
) -> Result<Connection, AgentError> {
    let mut device = Device::connect(target, Route::Native, identities[index].clone()).await?;
    let mut first = None;
    for other in 1..=conversations {
        let other = &identities[(index + other) % identities.len()];
        let id = device.create_direct(other).await?;
        first = first.or(Some(id));
    }
    if let Some(id) = first {
        let body = send_body(id, device.next_message_id(), "hello");
        device.connection()?.request(body).await?;
    }
    device.into_connection()
}
