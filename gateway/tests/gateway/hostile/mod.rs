//! Clients that mean harm, against the real process: each is answered with the right error or close code, and the
//! server serves others on.

mod tokens;
mod requests;
mod handles;
mod frames;
mod dripping;
mod http;
mod tls;
mod half_open;
mod secrets;
mod crowd;

use crate::client::{Client, Way};
use crate::server::{Account, PATIENCE_S, Server};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use wire_protocol::v1::{self, client_frame, server_frame};

/// A connection without any protocol.
pub fn raw(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S))).expect("a socket");
    stream
}

/// A connection from this address of the machine: all of 127/8 are its own.
pub fn connected(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127/8 is this machine");
    socket.connect(&to.into()).expect("it listens");
    socket.into()
}

/// Memory of the process that no file backs, in KiB. Asking for it holds up nobody, other than asking for its maps.
pub fn private_kib(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.process.id());
    let text = std::fs::read_to_string(path).expect("a running process");
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Everything until the server ends the connection, cleanly or not.
pub fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // It may have closed before it read the last of what we sent.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server does not end it: {error}"),
    }
    answer
}

/// Sends nothing more; reads on.
pub fn half_close(stream: &TcpStream) {
    // A server that is quicker has closed it already.
    let _ = stream.shutdown(Shutdown::Write);
}

/// The session is there and is answered.
pub fn assert_alive(client: &mut Client) {
    let list = client_frame::Body::List(v1::ListConversations::default());
    assert!(matches!(client.ask(list), server_frame::Body::ConversationPage(_)));
}

/// Others are served: a new client gets in and is answered.
pub fn assert_serves(server: &Server, account: &Account) {
    assert_alive(&mut Client::connect(server, Way::NativeTls, account));
}
