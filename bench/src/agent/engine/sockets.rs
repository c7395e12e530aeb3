//! Sockets to servers, from as many source addresses as there are.
//!
//! A connection is known by both addresses and both ports, so each pair of source and target address has its own
//! ports. Linux would give them out by itself if it were told to choose only when connecting
//! (IP_BIND_ADDRESS_NO_PORT), which no safe interface can do; so ports are chosen here, in turn, within the range
//! that the system gives out. In turn, because a port that was just left still waits for late packets.

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

/// Where the system says which ports it gives out.
const PORT_RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel's own default, where the file cannot be read.
const PORT_RANGE_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
/// Ports that are tried before a connection is given up: in a range that is nearly full, most are taken.
const PORTS_TRIED_MAX: u32 = 256;
/// "Too many open files", of the process and of the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Gives out sockets that connect.
pub struct Sockets {
    sources: Vec<IpAddr>,
    next_source: usize,
    /// Next port of each pair of source and target.
    next_ports: HashMap<(IpAddr, SocketAddr), u16>,
    ports: RangeInclusive<u16>,
}

impl Sockets {
    /// Without `sources` the system chooses address and port.
    pub fn new(sources: Vec<IpAddr>) -> Self {
        let text = std::fs::read_to_string(PORT_RANGE_FILE).unwrap_or_default();
        Self {
            sources,
            next_source: 0,
            next_ports: HashMap::new(),
            ports: read_range(&text).unwrap_or(PORT_RANGE_DEFAULT),
        }
    }

    /// Connections to one target that may be open at a time.
    pub fn connections_max(&self) -> u64 {
        self.sources.len().max(1) as u64 * self.ports.len() as u64
    }

    /// A socket on its way to `target`: it becomes writable when it is there, or has failed.
    pub fn connect(&mut self, target: SocketAddr) -> io::Result<TcpStream> {
        let Some(source) = self.take_source(target) else { return connect_from(None, target) };
        let mut tried = 0;
        loop {
            let port = self.take_port(source, target);
            let result = connect_from(Some(SocketAddr::new(source, port)), target);
            tried += 1;
            let kind = result.as_ref().err().map(io::Error::kind);
            match kind {
                Some(io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
                    if tried < PORTS_TRIED_MAX => {}
                // All the tried ones were taken: another source may do better next time.
                Some(io::ErrorKind::AddrInUse) => return Err(io::ErrorKind::AddrNotAvailable.into()),
                _ => return result,
            }
        }
    }

    /// Sources in turn, those of the target's family only.
    fn take_source(&mut self, target: SocketAddr) -> Option<IpAddr> {
        for _ in 0..self.sources.len() {
            let source = *self.sources.get(self.next_source)?;
            self.next_source = (self.next_source + 1) % self.sources.len();
            if source.is_ipv4() == target.is_ipv4() {
                return Some(source);
            }
        }
        None
    }

    fn take_port(&mut self, source: IpAddr, target: SocketAddr) -> u16 {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let span = u32::from(last - first) + 1;
        // Agents of one machine begin in different places, so that they seldom meet.
        let begin = || first + (std::process::id().wrapping_mul(7_919) % span) as u16;
        let next = self.next_ports.entry((source, target)).or_insert_with(begin);
        let port = *next;
        *next = if port == last { first } else { port + 1 };
        port
    }
}

fn connect_from(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        // Connections of one port to different targets are different connections.
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// "Under way".
const EINPROGRESS: i32 = 115;

fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let first: u16 = words.next()?.parse().ok()?;
    let last: u16 = words.next()?.parse().ok()?;
    (first > 0 && first <= last).then_some(first..=last)
}

/// Why a connection is gone: a key in tables of errors.
pub fn reason(error: &io::Error) -> &'static str {
    if let Some(EMFILE | ENFILE) = error.raw_os_error() {
        return "no_file";
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => "reset",
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => "no_port",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
        io::ErrorKind::UnexpectedEof => "end",
        _ => "io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn sources_take_turns_and_so_do_ports() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let target = listener.local_addr().expect("bound");
        let sources = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)].map(IpAddr::V4);
        let mut sockets = Sockets::new(sources.to_vec());
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(sockets.connect(target).expect("on its way"));
        }
        let mut from = Vec::new();
        for _ in 0..4 {
            from.push(listener.accept().expect("it came").1);
        }
        let of = |source: IpAddr| from.iter().filter(|address| address.ip() == source).count();
        assert_eq!((of(sources[0]), of(sources[1])), (2, 2));
        assert!(from[2].port() > from[0].port(), "not the same port again: {from:?}");
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let target = listener.local_addr().expect("bound");
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));
        let mut sockets = Sockets::new(vec![source]);
        // Somebody listens where the first connection would come from.
        let first = sockets.take_port(source, target);
        sockets.next_ports.insert((source, target), first);
        let taken = TcpListener::bind((source, first)).expect("free so far");
        let _held = sockets.connect(target).expect("the next port");
        let (_, from) = listener.accept().expect("it came");
        assert!(from.port() > first && from.port() - first < 50, "{from} after {first}");
        drop(taken);
    }

    #[test]
    fn a_source_that_is_not_ours_says_so() {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let mut sockets = Sockets::new(vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]);
        let error = sockets.connect(target).expect_err("a documentation address");
        assert_eq!(reason(&error), "no_port");
    }

    #[test]
    fn the_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(read_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(read_range("60999 32768"), None);
        assert_eq!(read_range(""), None);
    }
}
