//! Links that this node's cores open to other storage nodes, for Raft and the change feed: one for each core and node.

use super::connection::{Connection, Ended};
use super::driver::Driver;
use super::tls_config::LinkTlsConfigs;
use super::tls_stream::TlsStream;
use super::wake::Wake;
use crate::clock;
use crate::placement::OtherNode;
use crate::worker::PeerMessage;
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use wire_protocol::internal::{LinkHello, LinkWelcome, link_hello};
use wire_protocol::link::{CallerEvent, CallerLink};

/// The first wait before connecting again, in milliseconds; it doubles with every failure.
const RECONNECT_MS_MIN: u64 = 50;
/// The longest wait before connecting again, in milliseconds.
const RECONNECT_MS_MAX: u64 = 1_000;
/// A connection that is not made by then is given up, in milliseconds: when the kernel has asked twice.
const CONNECT_MS_MAX: u64 = 2_000;
/// What was asked so short a time ago is not asked again because the other one is back, in milliseconds.
const CONNECT_MS_MIN: u64 = 200;
/// A connection is being made. The same on every Linux.
const EINPROGRESS: i32 = 115;

/// Keeps a link to another node for as long as this one runs and the other is of the fleet. One that opens a link itself is
/// back, and is not waited for any longer, but for the end of a link that still stands: until its links are there a node
/// that came back counts for no majority, and may be needed for one at once, when the next node is restarted.
pub(super) async fn keep(driver: Rc<Driver>, node: OtherNode, core: u32, tls: LinkTlsConfigs) {
    let is_back = driver.newest_links.links_of(node.id);
    let mut wait_ms = RECONNECT_MS_MIN;
    while !driver.is_stopping() && driver.is_known(node) {
        let is_there = match connect_unless_woken(&is_back, node).await {
            Some(Ok((stream, socket))) => serve(&driver, node, core, &tls, stream, socket).await,
            Some(Err(error)) => {
                tracing::debug!(node = node.id, "{}: {error}", node.address);
                false
            }
            // What was asked when it was not there would be asked again much later.
            None => true,
        };
        wait_ms = if is_there { RECONNECT_MS_MIN } else { (wait_ms * 2).min(RECONNECT_MS_MAX) };
        if unless_woken(&is_back, monoio::time::sleep(Duration::from_millis(wait_ms))).await.is_none() {
            wait_ms = RECONNECT_MS_MIN;
        }
    }
}

/// A connection that is made in time; `None`: the other one is back, and what was asked before was asked in vain. Its cores open
/// links one after another, and each wakes: what is asked meanwhile is about to be answered.
async fn connect_unless_woken(wake: &Wake, node: OtherNode) -> Option<std::io::Result<(TcpStream, Socket)>> {
    let mut connecting = pin!(connect(node));
    match monoio::time::timeout(Duration::from_millis(CONNECT_MS_MIN), connecting.as_mut()).await {
        Ok(connected) => Some(connected),
        Err(_) => unless_woken(wake, connecting).await,
    }
}

/// What comes of it; `None`: it was woken before, and it is given up.
async fn unless_woken<T>(wake: &Wake, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => wake.poll_woken(context).map(|()| None),
    })
    .await
}

/// The stream, and its socket once more: the runtime's own connecting gives nothing by which options can be set.
async fn connect(node: OtherNode) -> std::io::Result<(TcpStream, Socket)> {
    let domain = Domain::for_address(node.address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    match socket.connect(&node.address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.try_clone()?.into())?;
    match monoio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), stream.writable(false)).await {
        Ok(ready) => ready?,
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    }
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // The ring waits for what a socket cannot do at once, unless the socket says that it does not want to.
    socket.set_nonblocking(false)?;
    Ok((stream, socket))
}

/// Whether the link was opened before it ended.
async fn serve(
    driver: &Rc<Driver>,
    node: OtherNode,
    core: u32,
    tls: &LinkTlsConfigs,
    stream: TcpStream,
    socket: Socket,
) -> bool {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    let tls = match TlsStream::client(tls.client.clone(), tls.server_name.clone()) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(node = node.id, "tls: {error}");
            return false;
        }
    };
    let hello = {
        let own = driver.core.borrow();
        LinkHello {
            role: link_hello::Role::Storage as i32,
            peer_id: own.node_id(),
            incarnation: own.epoch(),
            core,
            ..LinkHello::default()
        }
    };
    let half = CallerLink::speaking(driver.versions, hello, clock::now_ms());
    let connection = Connection::over(half, tls, socket);
    connection.notify();
    driver.peers.borrow_mut().insert(node.id, Rc::clone(&connection));
    let take = |_: &Rc<Connection<CallerLink>>, events: Vec<CallerEvent>| {
        for event in events {
            take_event(driver, node, event)?;
        }
        driver.wake.wake();
        Ok(())
    };
    let ended = Rc::clone(&connection).run(stream, take).await;
    if !driver.is_stopping() && connection.half.borrow().welcome().is_some() {
        // There will be another one: what still waits in this one would only be old when it arrives.
        connection.cut_off();
    }
    driver.peers.borrow_mut().remove(&node.id);
    driver.core.borrow_mut().peer_link_ended(node.id);
    tracing::info!(node = node.id, "link to {} ended: {ended}", node.address);
    connection.half.borrow().welcome().is_some()
}

fn take_event(driver: &Driver, node: OtherNode, event: CallerEvent) -> Result<(), Ended> {
    let mut core = driver.core.borrow_mut();
    match event {
        CallerEvent::Welcome(welcome) => {
            check(&welcome, node, core.shard_count())?;
            tracing::info!(node = node.id, version = welcome.version, "link to {} opened", node.address);
            core.peer_link_opened(node.id);
        }
        CallerEvent::FeedAck(ack) => core.receive_from_peer(clock::now_ms(), PeerMessage::Ack(ack)),
        CallerEvent::Leader(leader) => core.hear_of_leader(leader),
        CallerEvent::Fleet(fleet) => core.hear_of_fleet(fleet),
        CallerEvent::Response(_) | CallerEvent::Delivery(_) => {
            tracing::warn!(node = node.id, "an answer to a link that asks nothing");
        }
    }
    Ok(())
}

/// A node with another idea of the shards would misplace what it is sent.
fn check(welcome: &LinkWelcome, node: OtherNode, shard_count: u32) -> Result<(), Ended> {
    if (welcome.node_id, welcome.shard_count) == (node.id, shard_count) {
        return Ok(());
    }
    let detail = format!(
        "{} says it is node {} of {} shards, the configuration says node {} of {shard_count}",
        node.address, welcome.node_id, welcome.shard_count, node.id
    );
    tracing::error!("{detail}");
    Err(Ended::Frame(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use monoio::{IoUringDriver, RuntimeBuilder};
    use std::future::pending;
    use std::io::Read;
    use wire_protocol::limits::LINK_DEAD_MS;

    /// How a link ends for the other side that reads nothing before, and how many bytes of how many come.
    fn ended_by(end: fn(&Connection<CallerLink>)) -> (std::io::Result<()>, usize, usize) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it binds");
        let node = OtherNode { id: 2, address: listener.local_addr().expect("it is bound") };
        let (reads, may_read) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody comes");
            may_read.recv().expect("it is told");
            let mut bytes = Vec::new();
            let ended = stream.read_to_end(&mut bytes);
            (ended.map(drop), bytes.len())
        });
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("a ring");
        let sent = runtime.block_on(async {
            let (stream, socket) = connect(node).await.expect("it listens");
            socket.set_nonblocking(true).expect("a socket");
            let sent: usize = std::iter::from_fn(|| socket.send(&[0; 64 * 1024]).ok()).sum();
            socket.set_nonblocking(false).expect("a socket");
            let link = Connection::of_test(Some(socket));
            let running = monoio::spawn(Rc::clone(&link).run(stream, |_, _| Ok(())));
            end(&link);
            if link.is_closed() {
                running.await;
                reads.send(()).expect("it waits");
            } else {
                reads.send(()).expect("it waits");
                running.await;
            }
            sent
        });
        let (ended, came) = other.join().expect("it does not panic");
        (ended, came, sent)
    }

    #[test]
    fn what_waits_in_a_link_that_is_cut_off_or_dead_never_arrives_and_in_one_that_is_closed_it_does() {
        for end in [Connection::cut_off, |link: &Connection<CallerLink>| link.look_at_clock(LINK_DEAD_MS)] {
            let (ended, came, sent) = ended_by(end);
            assert_eq!(ended.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
            assert!(came < sent, "{came} of {sent}");
        }
        let (ended, came, sent) = ended_by(Connection::close);
        assert!(ended.is_ok() && came > sent, "{came} of {sent}, and the hello: {ended:?}");
    }

    #[test]
    fn who_is_back_is_not_waited_for() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("a ring");
        runtime.block_on(async {
            let wake = Wake::default();
            assert_eq!(unless_woken(&wake, async { 7 }).await, Some(7));
            let of_another_thread = wake.clone();
            // What never ends, for at most as long as a slow machine may take.
            let waits =
                || monoio::time::timeout(Duration::from_secs(60), unless_woken(&wake, pending::<()>()));
            let (waiting, waits_now) = std::sync::mpsc::channel();
            let other = std::thread::spawn(move || {
                waits_now.recv().expect("it is told");
                of_another_thread.wake();
            });
            waiting.send(()).expect("it listens");
            assert_eq!(waits().await.expect("it hears"), None);
            other.join().expect("it does not panic");
            wake.wake();
            assert_eq!(waits().await.expect("it hears"), None, "it was woken before it waited");
        });
    }

    #[test]
    fn a_connection_that_is_about_to_be_made_is_not_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("it binds");
        let node = OtherNode { id: 2, address: listener.local_addr().expect("it is bound") };
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().expect("a ring");
        let wake = Wake::default();
        wake.wake();
        let connected = runtime.block_on(connect_unless_woken(&wake, node));
        assert!(connected.is_some_and(|connected| connected.is_ok()), "it was woken a moment ago");
        assert!(wake.is_woken(), "nobody took it");
    }

    #[test]
    fn a_peer_that_is_another_node_or_counts_other_shards_gets_no_feed() {
        let node = OtherNode { id: 2, address: ([127, 0, 0, 1], 1).into() };
        let welcome = LinkWelcome { node_id: 2, shard_count: 8, ..LinkWelcome::default() };
        assert!(check(&welcome, node, 8).is_ok());
        for other in [LinkWelcome { node_id: 3, ..welcome }, LinkWelcome { shard_count: 16, ..welcome }] {
            let refusal = check(&other, node, 8).expect_err("refused").to_string();
            assert!(refusal.contains("the configuration says node 2 of 8"), "{refusal}");
        }
    }
}
