//! One channel between coordinator and agent at work: a thread that reads, a thread that writes, and a mailbox for
//! each. Who sends never waits for the peer; a peer that does not take its messages has a full mailbox, and is lost.

use super::clocks::ProcessClock;
use super::tls::Streams;
use super::transport::{MessageReader, MessageWriter, TransportError};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

/// Who has been silent for longer is lost, in seconds. Coordinators probe once a second, and agents answer at once.
pub const SILENT_S_MAX: u64 = 10;
/// Messages that wait to be written.
const OUTBOX_MESSAGES_MAX: usize = 256;
/// Longest wait for the peer to close its direction after we have closed ours, in seconds.
const LINGER_S_MAX: u64 = 2;
/// Stack of a link's thread, in bytes: JSON of a plan is a few levels deep, and records are read into 16 KiB of it.
const STACK_BYTES: usize = 256 * 1024;

/// What came over a link.
#[derive(Debug)]
pub enum LinkEvent<In> {
    /// A message.
    Message {
        /// When it was there, by the own clock, in microseconds.
        at_us: u64,
        /// What.
        message: In,
    },
    /// The link is of no more use: ended by the other side, or by an error. May come twice.
    Ended(Option<TransportError>),
}

enum Outgoing<Out> {
    Message(Out),
    Close,
}

/// One end of a link. Copies are the same end; when the last one goes, the link closes.
pub struct Link<Out> {
    peer: Arc<str>,
    outbox: Sender<Outgoing<Out>>,
    heard_us: Arc<AtomicU64>,
    socket: Arc<Option<TcpStream>>,
    clock: ProcessClock,
}

impl<Out> Clone for Link<Out> {
    fn clone(&self) -> Self {
        Self {
            peer: Arc::clone(&self.peer),
            outbox: self.outbox.clone(),
            heard_us: Arc::clone(&self.heard_us),
            socket: Arc::clone(&self.socket),
            clock: self.clock,
        }
    }
}

impl<Out: Serialize + Send + 'static> Link<Out> {
    /// Starts both threads. `deliver` takes what comes, may wait, and says whether anybody still listens.
    pub fn start<In: DeserializeOwned + 'static>(
        peer: &str,
        streams: Streams,
        clock: ProcessClock,
        deliver: impl Fn(LinkEvent<In>) -> bool + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let Streams { reader, writer, socket } = streams;
        let (outbox, outgoing) = bounded(OUTBOX_MESSAGES_MAX);
        let (reading, reader_ended) = bounded::<()>(0);
        let heard_us = Arc::new(AtomicU64::new(clock.now_us()));
        let deliver = Arc::new(deliver);
        let mut from = MessageReader::new(peer, Heard { from: reader, clock, at_us: Arc::clone(&heard_us) });
        let read = {
            let deliver = Arc::clone(&deliver);
            move || {
                let end = loop {
                    match from.receive() {
                        Ok(Some(message)) => {
                            let event = LinkEvent::Message { at_us: clock.now_us(), message };
                            if !deliver(event) {
                                break None;
                            }
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                deliver(LinkEvent::Ended(end));
                drop(reading);
            }
        };
        let mut into = MessageWriter::new(peer, writer);
        let closing = socket.as_ref().map(TcpStream::try_clone).transpose()?;
        let write = move || {
            let failed = write_all(&mut into, &outgoing).err();
            let broken = failed.is_some();
            if let Some(error) = failed {
                deliver(LinkEvent::Ended(Some(error)));
            }
            // Says goodbye.
            drop(into);
            if let Some(socket) = closing {
                if !broken {
                    let _ = reader_ended.recv_timeout(Duration::from_secs(LINGER_S_MAX));
                }
                let _ = socket.shutdown(Shutdown::Both);
            }
        };
        Builder::new().name("link-read".into()).stack_size(STACK_BYTES).spawn(read)?;
        Builder::new().name("link-write".into()).stack_size(STACK_BYTES).spawn(write)?;
        Ok(Self { peer: peer.into(), outbox, heard_us, socket: Arc::new(socket), clock })
    }

    /// Hands a message over to be written. Never waits.
    pub fn send(&self, message: Out) -> Result<(), TransportError> {
        let sent = self.outbox.try_send(Outgoing::Message(message));
        sent.map_err(|_| TransportError::Stuck { peer: self.peer.to_string() })
    }

    /// Closes after what waits has been written.
    pub fn close(&self) {
        if self.outbox.try_send(Outgoing::Close).is_err() {
            self.abort();
        }
    }

    /// Ends both directions now. A pipe ends with its process instead.
    pub fn abort(&self) {
        if let Some(socket) = self.socket.as_ref() {
            // Fails if the peer has ended it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let _ = self.outbox.try_send(Outgoing::Close);
    }

    /// An error once the peer has been silent for too long. Bytes count, not messages: a long one takes its time.
    pub fn check_heard(&self) -> Result<(), TransportError> {
        let silent_us = self.clock.now_us().saturating_sub(self.heard_us.load(Ordering::Relaxed));
        let silent_s = silent_us / 1_000_000;
        if silent_s < SILENT_S_MAX {
            Ok(())
        } else {
            Err(TransportError::Silent { peer: self.peer.to_string(), silent_s })
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }
}

fn write_all<Out: Serialize, W: io::Write>(
    into: &mut MessageWriter<W>,
    outgoing: &Receiver<Outgoing<Out>>,
) -> Result<(), TransportError> {
    while let Ok(Outgoing::Message(message)) = outgoing.recv() {
        into.send(&message)?;
    }
    Ok(())
}

/// Notes when bytes came.
struct Heard<R> {
    from: R,
    clock: ProcessClock,
    at_us: Arc<AtomicU64>,
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.from.read(into)?;
        self.at_us.store(self.clock.now_us(), Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::control::messages::{FromAgent, ToAgent};
    use std::io::Write;

    /// A pipe end that takes nothing.
    struct Stopped(Receiver<()>);
    impl Write for Stopped {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Read for Stopped {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }

    #[test]
    fn a_peer_that_takes_and_says_nothing_is_noticed_without_waiting_for_it() {
        let (hold, held) = bounded(0);
        let streams = Streams {
            reader: Box::new(Stopped(held.clone())),
            writer: Box::new(Stopped(held)),
            socket: None,
        };
        let clock = ProcessClock::start();
        let link: Link<ToAgent> =
            Link::start("agent-2", streams, clock, |_: LinkEvent<FromAgent>| true).expect("threads");
        let refused = (0..OUTBOX_MESSAGES_MAX + 2).find_map(|_| link.send(ToAgent::Finish).err());
        assert_eq!(refused.expect("its mailbox is full").to_string(), "agent-2: takes no more messages");
        assert!(link.check_heard().is_ok(), "it has been silent for a moment only");
        let later = Link { clock: clock.set_forward(SILENT_S_MAX * 1_000_000), ..link.clone() };
        assert_eq!(later.check_heard().expect_err("silent").to_string(), "agent-2: silent for 10 s");
        drop(hold);
    }
}
