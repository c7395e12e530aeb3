//! TLS over a blocking socket whose two directions are used by two threads.
//!
//! Ciphertext is made and read under the session's lock, but no thread waits for the socket while it holds it:
//! neither direction can stop the other.

use crate::clock;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest handshake, in seconds: three round trips of the slowest link and a busy machine.
pub const HANDSHAKE_S_MAX: u64 = 5;
/// Longest wait for a peer to take what is written, in seconds.
const WRITE_WAIT_S_MAX: u64 = 10;
/// Ciphertext read at a time, in bytes: a whole record.
const READ_BYTES: usize = 16 * 1024;

/// Both directions of a channel to a peer.
pub struct Streams {
    /// From it.
    pub reader: Box<dyn Read + Send>,
    /// To it. Dropped: says goodbye and closes this direction.
    pub writer: Box<dyn Write + Send>,
    /// Ends both directions at once; `None` for pipes, which end with their process.
    pub socket: Option<TcpStream>,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket broke or ended.
    #[error("handshake: {0}")]
    Io(#[from] io::Error),
    /// TLS, or who the peer is.
    #[error("handshake: {0}")]
    Tls(#[from] rustls::Error),
    /// Took too long.
    #[error("handshake: not done within {HANDSHAKE_S_MAX} s")]
    TimedOut,
}

/// A peer whose certificate was accepted.
pub struct Accepted {
    /// To speak with it.
    pub streams: Streams,
    /// Its certificate.
    pub certificate: CertificateDer<'static>,
}

/// The accepting side's handshake, within [`HANDSHAKE_S_MAX`]. After an error the peer has been sent the reason; see
/// [`linger`].
pub fn accept(socket: &TcpStream, config: Arc<ServerConfig>) -> Result<Accepted, HandshakeError> {
    finish(socket, Connection::Server(ServerConnection::new(config)?))
}

/// The connecting side's handshake, within [`HANDSHAKE_S_MAX`]. What the other end thinks of our certificate is
/// known only with its first message.
pub fn connect(socket: &TcpStream, connection: ClientConnection) -> Result<Accepted, HandshakeError> {
    finish(socket, Connection::Client(connection))
}

fn finish(socket: &TcpStream, mut connection: Connection) -> Result<Accepted, HandshakeError> {
    let deadline = clock::now() + Duration::from_secs(HANDSHAKE_S_MAX);
    while connection.is_handshaking() || connection.wants_write() {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(HandshakeError::TimedOut);
        }
        socket.set_read_timeout(Some(left))?;
        socket.set_write_timeout(Some(left))?;
        let timed_out = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => HandshakeError::TimedOut,
            _ => HandshakeError::Io(error),
        };
        if connection.wants_write() {
            connection.write_tls(&mut &*socket).map_err(timed_out)?;
            continue;
        }
        if connection.read_tls(&mut &*socket).map_err(timed_out)? == 0 {
            return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
        }
        if let Err(error) = connection.process_new_packets() {
            // The alert tells the peer why; whether it arrives changes nothing here.
            let _ = connection.write_tls(&mut &*socket);
            return Err(error.into());
        }
    }
    let certificate = connection.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.ok_or(rustls::Error::NoCertificatesPresented)?.clone().into_owned();
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(Some(Duration::from_secs(WRITE_WAIT_S_MAX)))?;
    let (reading, writing, ending) = (socket.try_clone()?, socket.try_clone()?, socket.try_clone()?);
    let connection = Arc::new(Mutex::new(connection));
    let reader = TlsReader {
        connection: Arc::clone(&connection),
        socket: reading,
        ciphertext: Box::new([0; READ_BYTES]),
        unread: 0..0,
        ended: false,
    };
    let writer = TlsWriter { connection, socket: writing, ciphertext: Vec::new() };
    let streams = Streams { reader: Box::new(reader), writer: Box::new(writer), socket: Some(ending) };
    Ok(Accepted { streams, certificate })
}

/// Closes our direction and takes what the peer still sends, for a second at most: closing with bytes unread would
/// reset the connection, and the last words we wrote with it.
pub fn linger(socket: &TcpStream) {
    const LINGER: Duration = Duration::from_secs(1);
    const LINGER_READS_MAX: u32 = 64;
    let _ = socket.shutdown(Shutdown::Write);
    let (deadline, mut rest, mut socket) = (clock::now() + LINGER, [0; 1_024], socket);
    for _ in 0..LINGER_READS_MAX {
        let left = deadline.saturating_duration_since(clock::now());
        let waits = !left.is_zero() && socket.set_read_timeout(Some(left)).is_ok();
        if !waits || !matches!(socket.read(&mut rest), Ok(1..)) {
            break;
        }
    }
}

fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // A thread that panicked left the session between two calls of rustls: still whole.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

struct TlsReader {
    connection: Arc<Mutex<Connection>>,
    socket: TcpStream,
    ciphertext: Box<[u8; READ_BYTES]>,
    /// What of it is not yet with the session.
    unread: Range<usize>,
    ended: bool,
}

impl Read for TlsReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            // Plaintext first: the session takes no more ciphertext while it holds a record that nobody has read.
            match locked(&self.connection).reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.ended => {}
                done => return done,
            }
            if self.unread.is_empty() {
                self.unread = 0..self.socket.read(self.ciphertext.as_mut_slice())?;
                self.ended = self.unread.is_empty();
            }
            let mut connection = locked(&self.connection);
            self.unread.start += connection.read_tls(&mut &self.ciphertext[self.unread.clone()])?;
            let broken = |error| io::Error::new(ErrorKind::InvalidData, error);
            connection.process_new_packets().map_err(broken)?;
        }
    }
}

struct TlsWriter {
    connection: Arc<Mutex<Connection>>,
    socket: TcpStream,
    ciphertext: Vec<u8>,
}

impl TlsWriter {
    /// Makes ciphertext with the lock, and writes it without.
    fn write_with(
        &mut self,
        plaintext: impl FnOnce(&mut Connection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.ciphertext.clear();
        let mut connection = locked(&self.connection);
        let bytes = plaintext(&mut connection)?;
        while connection.wants_write() {
            connection.write_tls(&mut self.ciphertext)?;
        }
        drop(connection);
        self.socket.write_all(&self.ciphertext)?;
        Ok(bytes)
    }
}

impl Write for TlsWriter {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.write_with(|connection| connection.writer().write(from))
    }

    fn flush(&mut self) -> io::Result<()> {
        // What was written went to the kernel at once.
        Ok(())
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        // A peer that is already gone needs no goodbye.
        let _ = self.write_with(|connection| {
            connection.send_close_notify();
            Ok(0)
        });
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::control::authority::{Authority, Role};
    use crate::coordinator::control::messages::{FromAgent, ToAgent};
    use crate::coordinator::control::transport::{MessageReader, MessageWriter};
    use crate::coordinator::control::trust::{CoordinatorTrust, agent_config};
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn megabytes_go_both_ways_at_the_same_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut authority = Authority::open(folder.path(), Duration::from_secs(3_600)).expect("an authority");
        let agent = authority.add(Role::Agent, "a0").expect("an identity");
        let coordinator = authority.add(Role::Coordinator, "coordinator").expect("an identity");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let accepting = thread::spawn(move || {
            accept(&listener.accept().expect("a peer").0, agent_config(&agent).expect("ours"))
        });
        let session = CoordinatorTrust::read(&coordinator).expect("ours").session().expect("a session");
        let down = connect(&socket, session).expect("an agent").streams;
        let up = accepting.join().expect("no panic").expect("a coordinator").streams;

        let long = FromAgent::Failed { detail: "x".repeat(5_000_000) };
        let expected = long.clone();
        let sending = thread::spawn(move || MessageWriter::new("a0", up.writer).send(&long));
        let (mut into, mut from) =
            (MessageWriter::new("a0", down.writer), MessageReader::new("c", up.reader));
        // The agent reads none of this until its own message is through.
        for number in 0..2_000 {
            into.send(&ToAgent::Probe { number }).expect("it takes them");
        }
        let received = MessageReader::new("a0", down.reader).receive::<FromAgent>().expect("whole");
        assert!(received == Some(expected), "as it was sent");
        sending.join().expect("no panic").expect("sent");
        for number in 0..2_000 {
            assert_eq!(from.receive().expect("whole"), Some(ToAgent::Probe { number }));
        }
    }
}
