//! What a client must be told: which server, whom to trust, where to store.

use std::path::PathBuf;

/// Whose certificates are trusted. There is no way to trust anybody.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The authorities of the operating system.
    System,
    /// The certificates in this PEM file and no others: an own authority, or a server's own certificate in
    /// development.
    CertFile(PathBuf),
}

/// How frames travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportKind {
    /// Length-prefixed frames over TLS.
    Native,
    /// WebSocket over TLS, for networks that let nothing else pass.
    WebSocket,
    /// WebSocket and REST without TLS: only to a loopback address, for development.
    WebSocketPlain,
}

/// Settings of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `host:port`.
    pub server: String,
    /// The name that the server's certificate must carry, if it is not the host.
    pub server_name: Option<String>,
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// How frames travel.
    pub transport: TransportKind,
    /// Folder of the store: one user on one server. It is made if it is missing.
    pub store: PathBuf,
    /// Shown to the user in their list of devices.
    pub device_name: String,
    /// Wished heartbeat in seconds; 0: the server's default.
    pub heartbeat_s: u32,
}

impl Config {
    /// Native transport, system authorities.
    pub fn new(server: impl Into<String>, store: impl Into<PathBuf>) -> Self {
        Self {
            server: server.into(),
            server_name: None,
            trust: Trust::System,
            transport: TransportKind::Native,
            store: store.into(),
            device_name: "ringline-client".into(),
            heartbeat_s: 0,
        }
    }

    /// The host of [`Config::server`] and whether a port follows it.
    pub(crate) fn host(&self) -> Option<&str> {
        host(&self.server)
    }
}

/// The host of a `host:port`.
pub(crate) fn host(server: &str) -> Option<&str> {
    let (host, port) = server.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        let host = |server: &str| Config::new(server, "").host().map(str::to_owned);
        assert_eq!(host("chat.example.org:8443"), Some("chat.example.org".into()));
        assert_eq!(host("[::1]:8443"), Some("::1".into()));
        assert_eq!(host("chat.example.org"), None);
        assert_eq!(host("chat.example.org:http"), None);
    }
}
