//! Before a new fleet begins: asks each of its other first nodes for the folder that it begins with, and answers when they
//! ask (`worker/founders.rs`). It ends when all have answered, or one runs already: then this node does not start. Nothing
//! else runs yet, and this thread waits.

use super::connection::Half;
use super::tls_config::LinkTlsConfigs;
use super::{ServeError, bind, refused};
use crate::clock;
use crate::config::StorageConfig;
use crate::disk::Disk;
use crate::placement::OtherNode;
use crate::worker::{Founding, StartError};
use bytes::BytesMut;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wire_protocol::frame::FrameDecoder;
use wire_protocol::internal::{LinkHello, LinkWelcome, link_hello};
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, ServingEvent, ServingLink, Versions};

/// Between two rounds of questions, and between two looks for who asks.
const ROUNDS_APART: Duration = Duration::from_millis(100);
/// A connection, and each read and write of a question or an answer, takes no longer.
const STEP_MAX: Duration = Duration::from_secs(1);
/// A question and its answer take no longer.
const QUESTION_MAX: Duration = Duration::from_secs(3);
/// Whoever waits is told for whom this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;

/// Returns when this node may begin; at once if it is no first node of a new fleet, or has begun before.
pub(super) fn found(
    config: &StorageConfig,
    listen: SocketAddr,
    tls: &LinkTlsConfigs,
    versions: Versions,
) -> Result<(), ServeError> {
    let Some(mut founding) = Founding::begin(Disk::Real, config, draw)? else { return Ok(()) };
    let listener = bind(listen, 1).map(|mut listeners| listeners.remove(0));
    let listener = listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| refused(format!("listen at {listen}"), error))?;
    let (is_over, welcome) = (AtomicBool::new(false), founding.welcome());
    thread::scope(|scope| {
        scope.spawn(|| answer_all(&listener, tls, versions, welcome, &is_over));
        let asked = ask_all(&mut founding, config.node_id, tls, versions);
        is_over.store(true, Ordering::Release);
        asked
    })?;
    founding.finish()?;
    tracing::info!("all first nodes are there: the fleet begins");
    Ok(())
}

fn draw() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Io {
        what: "draw the number of the folder".to_owned(),
        error: io::Error::other(error.to_string()),
    })
}

fn ask_all(
    founding: &mut Founding,
    own: u32,
    tls: &LinkTlsConfigs,
    versions: Versions,
) -> Result<(), StartError> {
    let mut told: Option<Instant> = None;
    loop {
        for node in founding.awaited().to_vec() {
            match ask(node, own, tls, versions) {
                Ok(welcome) => founding.take(node, &welcome)?,
                Err(error) => tracing::debug!(node = node.id, "{}: {error}", node.address),
            }
        }
        if founding.awaited().is_empty() {
            return Ok(());
        }
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            told = Some(clock::now());
            let awaited: Vec<u32> = founding.awaited().iter().map(|node| node.id).collect();
            tracing::info!(nodes = ?awaited, "waits: a fleet begins when all of its first nodes are there");
        }
        thread::sleep(ROUNDS_APART);
    }
}

/// What the other node says to this one.
fn ask(node: OtherNode, own: u32, tls: &LinkTlsConfigs, versions: Versions) -> io::Result<LinkWelcome> {
    let connection = ClientConnection::new(Arc::clone(&tls.client), tls.server_name.clone());
    let connection = connection.map_err(io::Error::other)?;
    let socket = TcpStream::connect_timeout(&node.address, STEP_MAX)?;
    bound(&socket)?;
    let mut stream = StreamOwned::new(connection, socket);
    let role = link_hello::Role::Storage as i32;
    let hello = LinkHello { role, peer_id: own, ..LinkHello::default() };
    let mut half = CallerLink::speaking(versions, hello, clock::now_ms());
    say(&mut half, &mut stream)?;
    let welcome = hear(&mut half, &mut stream, |event| match event {
        CallerEvent::Welcome(welcome) => Some(welcome),
        _ => None,
    })?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(welcome)
}

fn answer_all(
    listener: &TcpListener,
    tls: &LinkTlsConfigs,
    versions: Versions,
    welcome: LinkWelcome,
    is_over: &AtomicBool,
) {
    while !is_over.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((socket, peer)) => {
                if let Err(error) = answer(socket, tls, versions, welcome) {
                    tracing::debug!(%peer, "asks, and is not answered: {error}");
                }
            }
            // Nobody asks now, or there is no descriptor left.
            Err(_) => thread::sleep(ROUNDS_APART),
        }
    }
}

/// Gateways are not answered: they come back when the fleet is there.
fn answer(
    socket: TcpStream,
    tls: &LinkTlsConfigs,
    versions: Versions,
    welcome: LinkWelcome,
) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    bound(&socket)?;
    let connection = ServerConnection::new(Arc::clone(&tls.server)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut half = ServingLink::speaking(versions, welcome, clock::now_ms());
    let hello = hear(&mut half, &mut stream, |event| match event {
        ServingEvent::Hello(hello) => Some(hello),
        _ => None,
    })?;
    if hello.role() != link_hello::Role::Storage {
        return Err(io::Error::other("no storage node"));
    }
    say(&mut half, &mut stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn bound(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(STEP_MAX))?;
    socket.set_write_timeout(Some(STEP_MAX))
}

fn say(half: &mut impl Half, stream: &mut impl Write) -> io::Result<()> {
    let mut frames = BytesMut::new();
    while half.put_frame(clock::now_ms(), &mut frames).is_some() {}
    stream.write_all(&frames)?;
    stream.flush()
}

/// Until there is an event that is waited for.
fn hear<H: Half, T>(
    half: &mut H,
    stream: &mut impl Read,
    is_awaited: impl Fn(H::Event) -> Option<T>,
) -> io::Result<T> {
    let started = clock::now();
    let mut decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
    let mut bytes = [0; READ_BYTES];
    while started.elapsed() < QUESTION_MAX {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&bytes[..count]);
        let mut events = Vec::new();
        while let Some(payload) = decoder.next_frame().map_err(|error| io::Error::other(error.to_string()))? {
            half.take_payload(clock::now_ms(), payload, &mut events).map_err(io::Error::other)?;
        }
        if let Some(found) = events.into_iter().find_map(&is_awaited) {
            return Ok(found);
        }
    }
    Err(ErrorKind::TimedOut.into())
}
