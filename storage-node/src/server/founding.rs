//! Before a new fleet begins: asks each of its other first nodes for the folder that it begins with, and answers when they
//! ask (`worker/founders.rs`). It ends when all have answered, when one runs already, so that this node must not start, or
//! when the process is asked to stop. Nothing else runs yet.

use super::connection::Half;
use super::signals::Signals;
use super::tls_config::LinkTlsConfigs;
use super::{ServeError, bind, refused};
use crate::clock;
use crate::placement::OtherNode;
use crate::worker::{Founding, NextRound, StartError, is_question, question};
use bytes::BytesMut;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use wire_protocol::frame::FrameDecoder;
use wire_protocol::internal::LinkWelcome;
use wire_protocol::limits::LINK_FRAME_BYTES_MAX;
use wire_protocol::link::{CallerEvent, CallerLink, ServingEvent, ServingLink, Versions};

/// Between two rounds of questions, and between two looks for who asks.
const ROUNDS_APART: Duration = Duration::from_millis(100);
/// A connection that is not made by then is given up.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A question and its answer take no longer, however slowly they come.
const QUESTION_MAX: Duration = Duration::from_secs(3);
/// Questions that are answered at a time; who comes then asks again.
const ANSWERS_MAX: usize = 64;
/// It is told who is waited for, and why, this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Bytes of one read.
const READ_BYTES: usize = 4 * 1024;

/// What is the same for every question and answer.
#[derive(Clone, Copy)]
struct Speaking<'a> {
    tls: &'a LinkTlsConfigs,
    versions: Versions,
    welcome: LinkWelcome,
}

/// Returns when this node may begin, or, with `false`, is asked to stop.
pub(super) fn found(
    mut founding: Founding,
    listen: SocketAddr,
    (tls, versions): (&LinkTlsConfigs, Versions),
    (runtime, signals): (&Runtime, &mut Signals),
) -> Result<bool, ServeError> {
    let listener = bind(listen, 1).map(|mut listeners| listeners.remove(0));
    let listener = listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| refused(format!("listen at {listen}"), error))?;
    let speaking = Speaking { tls, versions, welcome: founding.welcome() };
    let (is_over, answering) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (asked, listener, over, answered) = (&mut founding, &listener, &is_over, &answering);
    let is_asked = thread::scope(|scope| {
        let (ended, has_ended) = oneshot::channel();
        scope.spawn(move || answer_all(scope, listener, speaking, over, answered));
        let asking = scope.spawn(move || {
            let result = ask_all(asked, speaking, over);
            let _ = ended.send(());
            result
        });
        let is_asked = runtime.block_on(async {
            tokio::select! {
                _ = has_ended => false,
                () = signals.next() => true,
            }
        });
        is_over.store(true, Ordering::Release);
        let asked = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        asked.map(|()| is_asked)
    })?;
    if is_asked {
        tracing::info!("asked to stop: the fleet has not begun");
        return Ok(false);
    }
    founding.finish()?;
    tracing::info!("all first nodes are there: the fleet begins");
    Ok(true)
}

fn ask_all(founding: &mut Founding, speaking: Speaking<'_>, is_over: &AtomicBool) -> Result<(), StartError> {
    let (mut told, mut reasons) = (None::<Instant>, BTreeMap::new());
    while !is_over.load(Ordering::Acquire) {
        for node in founding.awaited().to_vec() {
            if is_over.load(Ordering::Acquire) {
                return Ok(());
            }
            match ask(node, speaking) {
                Ok(welcome) => founding.take(node, &welcome)?,
                Err(error) => {
                    founding.miss();
                    reasons.insert(node.id, error);
                }
            }
        }
        match founding.end_round() {
            NextRound::NotNeeded => return Ok(()),
            NextRound::AtOnce => continue,
            NextRound::Later => {}
        }
        if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            told = Some(clock::now());
            tracing::info!("waits: a fleet begins when all of its first nodes are there");
            for OtherNode { id, address } in founding.awaited() {
                let reason = reasons.get(id).map(ToString::to_string).unwrap_or_default();
                tracing::info!(node = id, %address, "is not there: {reason}");
            }
        }
        thread::sleep(ROUNDS_APART);
    }
    Ok(())
}

/// What the other node says to this one.
fn ask(node: OtherNode, speaking: Speaking<'_>) -> io::Result<LinkWelcome> {
    let Speaking { tls, versions, welcome } = speaking;
    let connection = ClientConnection::new(Arc::clone(&tls.client), tls.server_name.clone());
    let connection = connection.map_err(io::Error::other)?;
    let socket = TcpStream::connect_timeout(&node.address, CONNECT_MAX)?;
    let mut stream = StreamOwned::new(connection, Bounded::new(socket)?);
    let mut half = CallerLink::speaking(versions, question(welcome.node_id), clock::now_ms());
    say(&mut half, &mut stream)?;
    let welcome = hear(&mut half, &mut stream, |event| match event {
        CallerEvent::Welcome(welcome) => Some(welcome),
        _ => None,
    })?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(welcome)
}

fn answer_all<'scope>(
    scope: &'scope Scope<'scope, '_>,
    listener: &TcpListener,
    speaking: Speaking<'scope>,
    is_over: &AtomicBool,
    answering: &'scope AtomicUsize,
) {
    while !is_over.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((socket, peer)) if answering.load(Ordering::Acquire) < ANSWERS_MAX => {
                answering.fetch_add(1, Ordering::AcqRel);
                let body = move || {
                    if let Err(error) = answer(socket, speaking) {
                        tracing::debug!(%peer, "is not answered: {error}");
                    }
                    answering.fetch_sub(1, Ordering::AcqRel);
                };
                if let Err(error) = thread::Builder::new().spawn_scoped(scope, body) {
                    tracing::debug!(%peer, "is not answered: {error}");
                    answering.fetch_sub(1, Ordering::AcqRel);
                }
            }
            Ok((_, peer)) => tracing::debug!(%peer, "is not answered: so are {ANSWERS_MAX} others"),
            // Nobody asks now, or there is no descriptor left.
            Err(_) => thread::sleep(ROUNDS_APART),
        }
    }
}

/// Gateways, and nodes that run, are not answered: they come back when the fleet is there.
fn answer(socket: TcpStream, speaking: Speaking<'_>) -> io::Result<()> {
    let Speaking { tls, versions, welcome } = speaking;
    socket.set_nonblocking(false)?;
    let connection = ServerConnection::new(Arc::clone(&tls.server)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, Bounded::new(socket)?);
    let mut half = ServingLink::speaking(versions, welcome, clock::now_ms());
    let hello = hear(&mut half, &mut stream, |event| match event {
        ServingEvent::Hello(hello) => Some(hello),
        _ => None,
    });
    match &hello {
        Ok(hello) if !is_question(hello) => return Err(io::Error::other("asks nothing")),
        // The answer, or what versions are spoken here.
        _ => say(&mut half, &mut stream)?,
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    hello.map(drop)
}

/// A socket that is given up at a time.
struct Bounded {
    socket: TcpStream,
    until: Instant,
}

impl Bounded {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, until: clock::now() + QUESTION_MAX })
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(clock::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Bounded {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(bytes)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
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
    let mut decoder = FrameDecoder::new(LINK_FRAME_BYTES_MAX);
    let mut bytes = [0; READ_BYTES];
    loop {
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
}
