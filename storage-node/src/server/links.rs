//! Links that gateway cores and other storage nodes open to this node.

use super::connection::{Connection, Ended};
use super::driver::Driver;
use super::newest::Turn;
use super::tls_stream::TlsStream;
use crate::clock;
use crate::worker::{LinkId, LinkPeer, PeerMessage, is_question};
use monoio::net::{TcpListener, TcpStream};
use rustls::ServerConfig;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wire_protocol::internal::link_hello;
use wire_protocol::link::{ServingEvent, ServingLink};

/// Connections that one core holds: the cores of every gateway and storage node, twice over.
pub const CONNECTIONS_MAX: usize = 1_024;
/// After a failed accept (no descriptor left, say), in milliseconds.
const ACCEPT_RETRY_MS: u64 = 100;

/// Accepts for as long as the process runs: an accept in flight is never dropped.
pub(super) async fn accept(driver: Rc<Driver>, listener: TcpListener, tls: Arc<ServerConfig>) {
    let mut number = 0;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accept: {error}");
                monoio::time::sleep(Duration::from_millis(ACCEPT_RETRY_MS)).await;
                continue;
            }
        };
        if driver.is_stopping() || driver.accepted.borrow().len() >= CONNECTIONS_MAX {
            tracing::warn!("a link was refused: stopping, or {CONNECTIONS_MAX} connections");
            continue;
        }
        match TlsStream::server(Arc::clone(&tls)) {
            Ok(tls) => {
                number += 1;
                monoio::spawn(serve(Rc::clone(&driver), number, stream, tls));
            }
            Err(error) => tracing::error!("tls: {error}"),
        }
    }
}

async fn serve(driver: Rc<Driver>, number: u64, stream: TcpStream, tls: TlsStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    let welcome = driver.core.borrow().welcome();
    let connection = Connection::new(ServingLink::speaking(driver.versions, welcome, clock::now_ms()), tls);
    driver.accepted.borrow_mut().insert(number, Rc::clone(&connection));
    let link = Cell::new(None);
    let (peer, turn) = (Cell::new(None), OnceCell::new());
    let take = |connection: &Rc<Connection<ServingLink>>, events: Vec<ServingEvent>| {
        for event in events {
            if let ServingEvent::Hello(hello) = &event
                && hello.role() == link_hello::Role::Storage
                && !is_question(hello)
            {
                turn.get_or_init(|| driver.newest_links.begin(hello));
            }
            if turn.get().is_some_and(|turn: &Turn| !turn.is_newest()) {
                return Err(Ended::Replaced);
            }
            if is_of_peer(&event, peer.get()) {
                take_event(&driver, connection, &link, &peer, event);
            }
        }
        driver.wake.wake();
        Ok(())
    };
    let ended = Rc::clone(&connection).run(stream, take).await;
    if matches!(ended, Ended::Replaced) {
        // Nothing more is said: its caller would take a welcome for a link that holds.
        connection.cut_off();
    }
    if let Some(link) = link.get() {
        driver.serving.borrow_mut().remove(&link);
        driver.core.borrow_mut().close_link(link);
    }
    match ended {
        Ended::ByPeer | Ended::Here => tracing::debug!("link ended: {ended}"),
        _ => tracing::warn!("link ended: {ended}"),
    }
    driver.accepted.borrow_mut().remove(&number);
    driver.wake.wake();
}

/// Whether what only storage nodes say comes over a link of one, and what a replica says over its own node's.
fn is_of_peer(event: &ServingEvent, storage_node: Option<u32>) -> bool {
    let from = match event {
        ServingEvent::Raft(message) => Some(message.from),
        ServingEvent::SnapshotPart(part) => Some(part.from),
        ServingEvent::SnapshotProgress(progress) => Some(progress.from),
        ServingEvent::Hibernating(told) => Some(told.from),
        ServingEvent::ReplicaReport(_) | ServingEvent::FleetChange(_) => storage_node,
        ServingEvent::Hello(_)
        | ServingEvent::Request(_)
        | ServingEvent::Feed(_)
        | ServingEvent::FeedAck(_) => return true,
    };
    let is_own = from.is_some() && from == storage_node;
    if !is_own {
        tracing::warn!(?storage_node, ?from, "a peer speaks for a node that it is not");
    }
    is_own
}

fn take_event(
    driver: &Driver,
    connection: &Rc<Connection<ServingLink>>,
    link: &Cell<Option<LinkId>>,
    peer: &Cell<Option<u32>>,
    event: ServingEvent,
) {
    let mut core = driver.core.borrow_mut();
    match (event, link.get()) {
        (ServingEvent::Hello(hello), _) => {
            let opened = core.open_link(LinkPeer {
                role: hello.role(),
                peer_id: hello.peer_id,
                incarnation: hello.incarnation,
                core: hello.core,
            });
            link.set(Some(opened));
            if hello.role() == link_hello::Role::Storage {
                connection.half.borrow_mut().set_caller_folder(core.folder_of(hello.peer_id));
            }
            peer.set((hello.role() == link_hello::Role::Storage).then_some(hello.peer_id));
            driver.serving.borrow_mut().insert(opened, Rc::clone(connection));
        }
        (ServingEvent::Request(request), Some(link)) => core.receive(link, request),
        (ServingEvent::Feed(batch), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Batch(batch));
        }
        (ServingEvent::Raft(message), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Raft(message));
        }
        (ServingEvent::SnapshotPart(part), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Part(Box::new(part)));
        }
        (ServingEvent::SnapshotProgress(progress), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Progress(progress));
        }
        (ServingEvent::ReplicaReport(report), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Report(report));
        }
        (ServingEvent::FleetChange(fleet), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::FleetChange(Box::new(fleet)));
        }
        (ServingEvent::Hibernating(told), _) => {
            core.receive_from_peer(clock::now_ms(), PeerMessage::Hibernating(told));
        }
        (ServingEvent::FeedAck(ack), _) => core.receive_from_peer(clock::now_ms(), PeerMessage::Ack(ack)),
        (ServingEvent::Request(_), None) => unreachable!("the link half takes requests after a hello only"),
    }
}
