//! Where clients come in: listening sockets, and which ring takes the next connections.
//!
//! Every core binds the same addresses with `SO_REUSEPORT`, so that the kernel spreads connections over the cores
//! and nothing is handed from one to another. Called by `front/`.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections the kernel finishes for us before we accept them; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Binds an address and listens. Accepted sockets inherit the options.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Records leave when they are made: batching is ours, once a turn.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes an address and does not listen: the port stays ours, whatever else asks the system for a free one, and
/// [`bind`] takes it any number of times. Gives the socket to keep meanwhile and, of port 0, the port that was found.
pub fn reserve(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}

/// The ring that should accept: the present one while it has room, else the first that has. `None`: all are full.
pub fn accepting_ring(
    present: Option<usize>,
    has_room: impl Fn(usize) -> bool,
    rings: usize,
) -> Option<usize> {
    present.filter(|&ring| has_room(ring)).or_else(|| (0..rings).find(|&ring| has_room(ring)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn cores_share_an_address() {
        let first = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = first.local_addr().expect("bound");
        let second = bind(address).expect("the same port again");
        assert_eq!(second.local_addr().expect("bound"), address);
    }

    #[test]
    fn a_reserved_address_is_kept_from_others_and_not_from_us() {
        let (held, address) = reserve((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let refusal = other.bind(&address.into()).expect_err("it is taken");
        assert_eq!(refusal.kind(), io::ErrorKind::AddrInUse);
        let first = bind(address).expect("ours");
        let client = std::net::TcpStream::connect(address).expect("somebody listens");
        let (_, peer) = first.accept().expect("not given to the one that does not listen");
        assert_eq!(peer, client.local_addr().expect("connected"));
        drop((first, client));
        // A server that shares its port with nobody, as the metrics' does.
        TcpListener::bind(address).expect("ours");
        drop(held);
    }

    #[test]
    fn a_full_ring_hands_on_and_an_emptied_one_is_found_again() {
        let room = |rooms: [bool; 3]| move |ring: usize| rooms[ring];
        assert_eq!(accepting_ring(None, room([true, true, true]), 3), Some(0));
        assert_eq!(accepting_ring(Some(0), room([false, true, true]), 3), Some(1));
        assert_eq!(accepting_ring(Some(1), room([true, true, true]), 3), Some(1));
        assert_eq!(accepting_ring(Some(2), room([true, false, false]), 3), Some(0));
        assert_eq!(accepting_ring(Some(2), room([false; 3]), 3), None);
    }
}
