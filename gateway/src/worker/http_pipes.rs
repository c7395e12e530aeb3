//! HTTP connections of this core: bytes between their sockets and the HTTP runtime.

use crate::front::{Clients, ConnectionToken, SendRefused};
use crate::http::{HttpIngress, IngressFull};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

/// Bytes between sockets and the HTTP runtime.
pub(super) struct HttpPipes {
    ingress: HttpIngress,
    /// What an outbox had no room for. The runtime keeps at most its window unwritten for each connection, so no
    /// more than that waits here.
    waiting: HashMap<ConnectionToken, Waiting>,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<Bytes>,
    /// The runtime has ended the connection: close it after the last chunk.
    close: bool,
}

impl HttpPipes {
    pub(super) fn new(ingress: HttpIngress) -> Self {
        Self { ingress, waiting: HashMap::new() }
    }

    pub(super) fn connection_count(&self) -> usize {
        self.ingress.connection_count()
    }

    /// Whether a request has no answer yet, or one that waits for room.
    pub(super) fn is_busy(&self) -> bool {
        self.ingress.requests_under_way() > 0 || !self.waiting.is_empty()
    }

    /// A connection turned out to speak HTTP.
    pub(super) fn open(
        &mut self,
        clients: &mut Clients,
        token: ConnectionToken,
        peer: SocketAddr,
        secure: bool,
        first: Bytes,
    ) -> Result<(), IngressFull> {
        let opened = self.ingress.open(token, peer, secure, first);
        self.close_if_full(clients, token, opened)
    }

    pub(super) fn bytes(
        &mut self,
        clients: &mut Clients,
        token: ConnectionToken,
        bytes: Bytes,
    ) -> Result<(), IngressFull> {
        let taken = self.ingress.bytes(token, bytes);
        self.close_if_full(clients, token, taken)
    }

    fn close_if_full(
        &mut self,
        clients: &mut Clients,
        token: ConnectionToken,
        result: Result<(), IngressFull>,
    ) -> Result<(), IngressFull> {
        if result.is_err() {
            self.waiting.remove(&token);
            clients.close(token);
        }
        result
    }

    pub(super) fn eof(&mut self, token: ConnectionToken) {
        self.ingress.eof(token);
    }

    /// Bytes of the runtime for a client.
    pub(super) fn out(&mut self, clients: &mut Clients, token: ConnectionToken, bytes: Bytes) {
        self.waiting.entry(token).or_default().chunks.push_back(bytes);
        self.drained(clients, token);
    }

    /// The runtime has ended the connection.
    pub(super) fn close(&mut self, clients: &mut Clients, token: ConnectionToken) {
        self.waiting.entry(token).or_default().close = true;
        self.drained(clients, token);
    }

    /// The outbox may have room again.
    pub(super) fn drained(&mut self, clients: &mut Clients, token: ConnectionToken) {
        let Some(waiting) = self.waiting.get_mut(&token) else { return };
        while let Some(chunk) = waiting.chunks.front() {
            match clients.send_raw(token, chunk.clone()) {
                Ok(()) => self.ingress.written(token, chunk.len()),
                Err(SendRefused::Full) => return,
                // The connection's end is on its way here.
                Err(SendRefused::Gone) => {}
            }
            waiting.chunks.pop_front();
        }
        if waiting.close {
            clients.close(token);
        }
        self.waiting.remove(&token);
    }

    pub(super) fn closed(&mut self, token: ConnectionToken) {
        self.waiting.remove(&token);
        self.ingress.closed(token);
    }

    #[cfg(test)]
    pub(super) fn tokens(&self) -> Vec<ConnectionToken> {
        self.ingress.tokens()
    }

    /// Connections of which something waits for room.
    #[cfg(test)]
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The core leaves. What was handed to outboxes is still sent.
    pub(super) fn close_all(&mut self, clients: &mut Clients) {
        for token in self.ingress.tokens() {
            clients.close(token);
        }
        self.waiting.clear();
    }
}
