//! A core's end of the pipes to the HTTP runtime. Belongs to the core's thread; no call blocks or waits.

use super::pipe::{CorePipe, PipeFeed};
use super::under_way::{ConnectionUnderWay, UnderWay};
use crate::admission::addresses::AddressKey;
use crate::front::ConnectionToken;
use crate::worker::mailbox::CoreMailbox;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// HTTP connections that one core keeps open. A browser needs six for the page and closes them soon; each may
/// hold a window of output and a request, some 130 KiB, so that all of a core's stay below 140 MiB.
pub const HTTP_CONNECTIONS_MAX: usize = 1_024;
/// HTTP connections that one address keeps open on one core: browsers of forty people at once. So no address can take
/// all the places of others' log ins.
pub const HTTP_CONNECTIONS_PER_ADDRESS_MAX: usize = HTTP_CONNECTIONS_MAX / 4;
/// Connections opened and not yet taken up by the runtime: one burst of a turn.
const OPENED_MAX: usize = 256;

/// The HTTP side cannot take what it was given: close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the HTTP side is full")]
pub struct IngressFull;

/// A connection on its way to the runtime.
pub(super) struct OpenedConnection {
    pub(super) pipe: CorePipe,
    pub(super) client: Client,
    pub(super) under_way: Arc<ConnectionUnderWay>,
}

/// Who sends the requests of a connection: an extension of each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The client's address, as the socket says.
    pub peer: SocketAddr,
    /// Whether it came by TLS.
    pub secure: bool,
}

/// Hands a core's HTTP connections to the runtime.
pub struct HttpIngress {
    mailbox: CoreMailbox,
    opened: mpsc::Sender<OpenedConnection>,
    feeds: HashMap<ConnectionToken, Fed>,
    /// How many of them each address has.
    addresses: HashMap<AddressKey, usize>,
    under_way: UnderWay,
}

/// One connection.
struct Fed {
    feed: PipeFeed,
    address: AddressKey,
}

impl HttpIngress {
    pub(super) fn new(mailbox: CoreMailbox) -> (HttpIngress, mpsc::Receiver<OpenedConnection>) {
        let (opened, receiver) = mpsc::channel(OPENED_MAX);
        let (feeds, addresses) = (HashMap::new(), HashMap::new());
        (HttpIngress { mailbox, opened, feeds, addresses, under_way: UnderWay::default() }, receiver)
    }

    /// One that takes no connection: nobody serves them.
    #[cfg(feature = "sim")]
    pub(crate) fn unserved(mailbox: CoreMailbox) -> HttpIngress {
        Self::new(mailbox).0
    }

    /// A connection turned out to speak HTTP; `first` is everything read so far.
    pub fn open(
        &mut self,
        token: ConnectionToken,
        peer: SocketAddr,
        secure: bool,
        first: Bytes,
    ) -> Result<(), IngressFull> {
        let address = AddressKey::from(peer.ip());
        let of_address = self.addresses.get(&address).copied().unwrap_or_default();
        if self.feeds.len() >= HTTP_CONNECTIONS_MAX || of_address >= HTTP_CONNECTIONS_PER_ADDRESS_MAX {
            return Err(IngressFull);
        }
        let under_way = self.under_way.connection();
        let (feed, pipe) = PipeFeed::new(token, self.mailbox.clone(), under_way.clone());
        feed.push(first)?;
        let opened = OpenedConnection { pipe, client: Client { peer, secure }, under_way };
        self.opened.try_send(opened).map_err(|_| IngressFull)?;
        self.addresses.insert(address, of_address + 1);
        let before = self.feeds.insert(token, Fed { feed, address });
        debug_assert!(before.is_none(), "a token names one connection");
        Ok(())
    }

    /// More bytes of the client. What comes after the runtime has ended the connection is dropped.
    pub fn bytes(&mut self, token: ConnectionToken, bytes: Bytes) -> Result<(), IngressFull> {
        self.feeds.get(&token).map_or(Ok(()), |fed| fed.feed.push(bytes))
    }

    /// The client sends nothing more, but may still read.
    pub fn eof(&mut self, token: ConnectionToken) {
        if let Some(fed) = self.feeds.get(&token) {
            fed.feed.end();
        }
    }

    /// This many bytes of [`CoreMessage::HttpOut`](crate::worker::mailbox::CoreMessage) were handed to the
    /// connection's outbox: the runtime may send as many again.
    pub fn written(&mut self, token: ConnectionToken, bytes: usize) {
        if let Some(fed) = self.feeds.get(&token) {
            fed.feed.written(bytes);
        }
    }

    /// The connection is gone. Its requests under way are dropped.
    pub fn closed(&mut self, token: ConnectionToken) {
        let Some(Fed { address, .. }) = self.feeds.remove(&token) else { return };
        let of_address = self.addresses.get_mut(&address).expect("counted when it was opened");
        *of_address -= 1;
        if *of_address == 0 {
            self.addresses.remove(&address);
        }
    }

    /// Every open connection.
    pub fn tokens(&self) -> Vec<ConnectionToken> {
        self.feeds.keys().copied().collect()
    }

    /// Requests whose answers have not all left the runtime. Their last bytes may still be on the way to the core.
    pub fn requests_under_way(&self) -> usize {
        self.under_way.count()
    }

    /// Connections open now.
    pub fn connection_count(&self) -> usize {
        self.feeds.len()
    }
}
