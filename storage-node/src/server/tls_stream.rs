//! TLS over byte buffers: what comes from the socket goes in, what goes to the socket comes out. It knows no socket.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// One TLS connection.
#[derive(Debug)]
pub(super) struct TlsStream {
    connection: Connection,
}

/// Whether more may come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    Open,
    /// The peer said that it sends nothing more.
    Ended,
}

impl TlsStream {
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Connection::Server(ServerConnection::new(config)?)))
    }

    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Connection::Client(ClientConnection::new(config, name)?)))
    }

    fn new(mut connection: Connection) -> Self {
        // What is given to `send` is bounded by the caller; a limit here would drop part of a frame.
        connection.set_buffer_limit(None);
        Self { connection }
    }

    /// Takes what came from the socket and appends what it says to `plaintext`. After an error the connection is
    /// over; an alert may still be in [`Self::take_ciphertext`].
    pub fn receive(&mut self, mut ciphertext: &[u8], plaintext: &mut Vec<u8>) -> io::Result<Flow> {
        let mut flow = Flow::Open;
        while !ciphertext.is_empty() && flow == Flow::Open {
            self.connection.read_tls(&mut ciphertext)?;
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            let before = plaintext.len();
            plaintext.resize(before + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plaintext[before..])?;
            if state.peer_has_closed() {
                flow = Flow::Ended;
            }
        }
        Ok(flow)
    }

    /// Takes what is to be sent. Before the handshake ends it is kept.
    pub fn send(&mut self, plaintext: &[u8]) {
        self.connection.writer().write_all(plaintext).expect("the send buffer has no limit");
    }

    /// Says that nothing more will be sent.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Appends what is for the socket.
    pub fn take_ciphertext(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(out).expect("a Vec grows");
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }
}
