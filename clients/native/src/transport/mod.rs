//! Connections: TCP, TLS, frames. A connection is two tasks that move payloads between the socket and two
//! bounded queues; whoever is slower holds the other one up.

mod tls;
mod native;
mod websocket;

use crate::config::{Config, TransportKind, host};
use crate::limits::{CONNECT_MS_MAX, RECEIVED_MAX, TRANSMIT_MAX};
use bytes::Bytes;
use rustls_pki_types::ServerName;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use wire_protocol::limits::{ALPN_HTTP, ALPN_NATIVE};

/// A byte stream to the server, whatever it is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// `Config::server` is not `host:port`, or its host cannot stand in a certificate.
    #[error("server: HOST:PORT is expected")]
    Server,
    /// Without TLS only loopback addresses are spoken to.
    #[error("server: not a loopback address, TLS is needed")]
    NotLoopback,
    /// The trusted certificates cannot be read.
    #[error("trusted certificates: {0}")]
    Trust(String),
    /// The network, TLS included.
    #[error("{0}")]
    Network(#[from] io::Error),
    /// The server does not speak the protocol, or did not upgrade to it.
    #[error("the server does not speak this protocol")]
    Protocol,
    /// Neither made nor refused.
    #[error("no connection in time")]
    TimedOut,
}

/// Makes connections to the one server of a client.
#[derive(Clone)]
pub(crate) struct Connector {
    server: String,
    host: String,
    name: ServerName<'static>,
    kind: TransportKind,
    native: Option<TlsConnector>,
    http: Option<TlsConnector>,
}

impl Connector {
    /// Reads the trusted certificates.
    pub(crate) fn new(config: &Config) -> Result<Self, ConnectError> {
        let host = config.host().ok_or(ConnectError::Server)?.to_owned();
        let name = config.server_name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name).map_err(|_| ConnectError::Server)?;
        let kind = config.transport;
        let (native, http) = match kind {
            TransportKind::WebSocketPlain => (None, None),
            TransportKind::Native | TransportKind::WebSocket => {
                let roots = tls::roots(&config.trust)?;
                (Some(tls::connector(&roots, ALPN_NATIVE)?), Some(tls::connector(&roots, ALPN_HTTP)?))
            }
        };
        Ok(Self { server: config.server.clone(), host, name, kind, native, http })
    }

    /// The same for another gateway of the fleet, `host:port`. Its certificate must carry the name that the app was
    /// given: so a gateway can send us on, but not into a stranger's hands. Without TLS there is no way to tell, and we
    /// stay.
    pub(crate) fn towards(&self, gateway: &str) -> Self {
        match host(gateway) {
            Some(host) if self.kind != TransportKind::WebSocketPlain => {
                Self { server: gateway.to_owned(), host: host.to_owned(), ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// Host and port as an HTTP `Host` header says them.
    pub(crate) fn authority(&self) -> &str {
        &self.server
    }

    /// A connection for frames.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let connecting = async {
            match self.kind {
                TransportKind::Native => {
                    Ok(native::start(self.open(self.native.as_ref(), ALPN_NATIVE).await?))
                }
                TransportKind::WebSocket | TransportKind::WebSocketPlain => {
                    websocket::start(self.open_http_stream().await?, &self.server).await
                }
            }
        };
        in_time(connecting).await
    }

    /// A stream for HTTP.
    pub(crate) async fn open_http(&self) -> Result<Box<dyn Stream>, ConnectError> {
        in_time(self.open_http_stream()).await
    }

    async fn open_http_stream(&self) -> Result<Box<dyn Stream>, ConnectError> {
        self.open(self.http.as_ref(), ALPN_HTTP).await
    }

    /// `tls`: none only for development on loopback.
    async fn open(&self, tls: Option<&TlsConnector>, alpn: &[u8]) -> Result<Box<dyn Stream>, ConnectError> {
        let address = (self.host.as_str(), self.port());
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else {
            let loopback = tcp.peer_addr()?.ip().to_canonical().is_loopback();
            return if loopback { Ok(Box::new(tcp)) } else { Err(ConnectError::NotLoopback) };
        };
        let stream = tls.connect(self.name.clone(), tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(alpn) {
            return Err(ConnectError::Protocol);
        }
        Ok(Box::new(stream))
    }

    fn port(&self) -> u16 {
        let port = self.server.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        port.expect("looked at in new()")
    }
}

async fn in_time<T>(connecting: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    tokio::time::timeout(limit, connecting).await.unwrap_or(Err(ConnectError::TimedOut))
}

/// An open connection. Dropping it ends its tasks and closes the socket.
pub(crate) struct Connection {
    transmit: mpsc::Sender<Bytes>,
    received: mpsc::Receiver<Bytes>,
    tasks: JoinSet<()>,
}

impl Connection {
    /// The next payload; `None`: the connection is gone. May be cancelled without a loss.
    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        self.received.recv().await
    }

    /// A payload that has arrived already.
    pub(crate) fn try_receive(&mut self) -> Option<Bytes> {
        self.received.try_recv().ok()
    }

    /// Hands a payload to the socket's task. False: the connection is gone, or takes nothing any more.
    pub(crate) fn transmit(&self, payload: Bytes) -> bool {
        self.transmit.try_send(payload).is_ok()
    }

    /// Says good-bye after all that was handed over has left.
    pub(crate) async fn close(self) {
        let Self { transmit, received, mut tasks } = self;
        drop((transmit, received));
        let left = async { while tasks.join_next().await.is_some() {} };
        // A peer that does not read is not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(500), left).await;
    }
}

/// The queues between a connection and its tasks.
struct Queues {
    transmit: mpsc::Sender<Bytes>,
    to_send: mpsc::Receiver<Bytes>,
    deliver: mpsc::Sender<Bytes>,
    received: mpsc::Receiver<Bytes>,
}

impl Queues {
    fn new() -> Self {
        let (transmit, to_send) = mpsc::channel(TRANSMIT_MAX);
        let (deliver, received) = mpsc::channel(RECEIVED_MAX);
        Self { transmit, to_send, deliver, received }
    }
}
