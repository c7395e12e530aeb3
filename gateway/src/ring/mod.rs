//! Client sockets on an io_uring of our own, beside the one of the runtime in the same thread.
//!
//! ```text
//! accept (a few at a time) -> slot of the descriptor table -> receive (multishot)
//!   Free ---> Open ---> Draining ---> Free
//! ```
//!
//! The layers above see [`RingEvent`]s and call [`ClientRing::send`], [`ClientRing::close`] and a few more: no
//! descriptors, no memory shared with the kernel. Here is known: which operations are in flight for each slot, when
//! a multishot operation ended and must be armed again, when there is room to accept. Not known: TLS, frames, time.
//! The code with `unsafe` is in `queue.rs` and `receive_buffers.rs` alone.

mod operation;
#[allow(unsafe_code)]
mod queue;
#[allow(unsafe_code)]
mod receive_buffers;
mod send_buffer;
mod slots;
#[cfg(test)]
mod tests;

pub use queue::open_files_max;
pub use receive_buffers::ReceivedBuffer;
pub use send_buffer::{LARGE_BYTES, SMALL_BYTES, SendBuffer, SendBuffers};
pub use slots::SlotToken;

use operation::{Operation, SLOT_MAX, Tag};
use queue::{Completion, Queue};
use receive_buffers::ReceiveBuffers;
use slots::{Receiving, Slots, State};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Measures of one ring.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Size of the table of descriptors: connections it can hold. At most the limit on open files.
    pub connections_max: u32,
    /// Accepts in flight for each listener: so many connections one submission brings at most. Accepting stops while
    /// fewer places are free than all of them together take.
    pub accepts: u32,
    /// Receive buffers, a power of two.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_bytes: u32,
}

/// What happened to a connection.
#[derive(Debug)]
pub enum RingEvent {
    /// A new connection; it is being received from.
    Accepted {
        /// From now on.
        token: SlotToken,
        /// Index of the listener.
        listener: usize,
        /// Its address.
        peer: SocketAddr,
    },
    /// Bytes arrived.
    Received {
        /// The connection.
        token: SlotToken,
        /// To be given back with [`ClientRing::give_back`].
        buffer: ReceivedBuffer,
    },
    /// The peer sends nothing more.
    Ended {
        /// The connection.
        token: SlotToken,
    },
    /// The socket failed. The connection still has to be closed.
    Failed {
        /// The connection.
        token: SlotToken,
        /// The OS error code.
        error: i32,
    },
    /// A send is over: the whole buffer was taken, or the socket failed. Comes for closed connections too.
    Sent {
        /// The connection, which may be gone.
        token: SlotToken,
        /// For the pool.
        buffer: SendBuffer,
        /// The OS error code.
        result: Result<(), i32>,
    },
}

/// What a ring went through, since it was made.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct RingCounters {
    /// Sockets accepted.
    pub accepted: u64,
    /// Times the system refused to accept.
    pub accept_failures: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Sends that were taken in part and continued.
    pub short_sends: u64,
    /// Times a receive found no buffer.
    pub receive_buffers_exhausted: u64,
    /// Completions of a connection that had lost its slot: none, unless this file is wrong.
    pub stale_completions: u64,
}

/// Connections of one io_uring. Belongs to the thread that made it.
pub struct ClientRing {
    queue: Queue,
    slots: Slots,
    accept_wanted: bool,
    /// Accepting failed for want of something in the system; waits for [`Self::retry_accept`].
    accept_stalled: bool,
    /// Open connections at which accepting stops.
    accept_until: u32,
    /// Connections whose receive ended for want of a buffer. At most one entry for each.
    starved: Vec<SlotToken>,
    /// Looked at by [`Self::next_sent`] and left for [`Self::next_event`].
    next: Option<Completion>,
    counters: RingCounters,
}

impl ClientRing {
    /// A ring that does not accept yet.
    pub fn new(config: RingConfig, listeners: Vec<Rc<TcpListener>>) -> io::Result<Self> {
        let reserve = config.accepts * listeners.len() as u32;
        assert!(config.accepts > 0 && reserve < config.connections_max, "there is room for a connection");
        assert!(config.connections_max <= SLOT_MAX, "a tag names every slot");
        let buffers = ReceiveBuffers::new(config.receive_buffers, config.receive_buffer_bytes);
        Ok(Self {
            queue: Queue::new(config.connections_max, buffers, listeners, config.accepts)?,
            slots: Slots::new(config.connections_max),
            accept_wanted: false,
            accept_stalled: false,
            accept_until: config.connections_max - reserve,
            starved: Vec::new(),
            next: None,
            counters: RingCounters::default(),
        })
    }

    /// Readable when [`Self::next_event`] may have something.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.descriptor()
    }

    /// Connections that hold a place in the table.
    pub fn open_count(&self) -> u32 {
        self.slots.open_count()
    }

    /// Whether there is room to accept.
    pub fn has_room(&self) -> bool {
        self.slots.open_count() < self.accept_until
    }

    /// Counters.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// From now on accepts whenever there is room.
    pub fn start_accepting(&mut self) {
        self.accept_wanted = true;
        self.steer_accept();
    }

    /// Stops accepting. What the kernel has accepted already, or is just accepting, still comes.
    pub fn stop_accepting(&mut self) {
        self.accept_wanted = false;
        self.steer_accept();
    }

    /// Whether accepting failed and waits for [`Self::retry_accept`].
    pub fn accept_stalled(&self) -> bool {
        self.accept_stalled
    }

    /// Tries to accept again.
    pub fn retry_accept(&mut self) {
        self.accept_stalled = false;
        self.steer_accept();
    }

    /// The next event, looking at no more than `budget` completions, which are counted down.
    pub fn next_event(&mut self, budget: &mut u32) -> Option<RingEvent> {
        while *budget > 0 {
            let completion = self.next.take().or_else(|| self.queue.next_completion())?;
            *budget -= 1;
            if let Some(event) = self.handle(completion) {
                return Some(event);
            }
        }
        None
    }

    /// The next event, if it is a [`RingEvent::Sent`]: most sends are over when they are submitted, and taking them
    /// at once saves a round of waiting. Anything else is left for [`Self::next_event`].
    pub fn next_sent(&mut self) -> Option<RingEvent> {
        loop {
            let completion = self.next.take().or_else(|| self.queue.next_completion())?;
            if !matches!(completion, Completion::Sent { .. }) {
                self.next = Some(completion);
                return None;
            }
            if let Some(event) = self.handle(completion) {
                return Some(event);
            }
        }
    }

    /// Whether [`Self::next_event`] has something that the descriptor does not tell of.
    pub fn has_more(&self) -> bool {
        self.next.is_some()
    }

    /// The received bytes, to read or to change in place.
    pub fn bytes_mut(&mut self, buffer: &mut ReceivedBuffer) -> &mut [u8] {
        self.queue.receive_buffers().bytes_mut(buffer)
    }

    /// Lets the kernel receive into the buffer again.
    pub fn give_back(&mut self, buffer: ReceivedBuffer) {
        self.queue.receive_buffers().give_back(buffer);
    }

    /// Sends the whole buffer, however many calls that takes; then comes [`RingEvent::Sent`]. One at a time for each
    /// connection. The buffer comes back at once if the connection is gone.
    pub fn send(&mut self, token: SlotToken, buffer: SendBuffer) -> Result<(), SendBuffer> {
        let Some(slot) = self.slots.open_mut(token) else { return Err(buffer) };
        assert!(!slot.sending, "one send for each connection at a time");
        slot.sending = true;
        self.queue.send(token.slot, token.generation, buffer);
        Ok(())
    }

    /// Tells the peer that nothing more comes, once what was sent has left. Receiving goes on.
    pub fn shut_down_sending(&mut self, token: SlotToken) {
        if let Some(slot) = self.slots.open_mut(token)
            && !slot.installing
        {
            slot.installing = true;
            self.queue.install(token.slot, token.generation);
        }
    }

    /// Stops receiving. What the kernel has received already still comes.
    pub fn pause_receiving(&mut self, token: SlotToken) {
        let Some(slot) = self.slots.open_mut(token) else { return };
        slot.receive_wanted = false;
        if slot.receiving == Receiving::Armed {
            slot.receiving = Receiving::Cancelling;
            self.queue.cancel(token.tag(Operation::Receive));
        }
    }

    /// Receives again.
    pub fn resume_receiving(&mut self, token: SlotToken) {
        let Some(slot) = self.slots.open_mut(token) else { return };
        slot.receive_wanted = true;
        // A cancellation under way, or a wait for buffers, arms it when it is over.
        if slot.receiving == Receiving::No {
            self.arm_receive(token);
        }
    }

    /// Closes the connection: a send in flight is cut off, nothing more comes but its [`RingEvent::Sent`]. The slot
    /// is free when the kernel has let go of all operations.
    pub fn close(&mut self, token: SlotToken) {
        let Some(slot) = self.slots.open_mut(token) else { return };
        slot.state = State::Draining;
        let (receiving, sending) = (slot.receiving, slot.sending);
        match receiving {
            Receiving::Armed => {
                slot.receiving = Receiving::Cancelling;
                self.queue.cancel(token.tag(Operation::Receive));
            }
            Receiving::Starved => slot.receiving = Receiving::No,
            Receiving::No | Receiving::Cancelling | Receiving::Ended => {}
        }
        if sending {
            self.queue.cancel(token.tag(Operation::Send));
        }
        self.release_if_quiet(token.slot);
    }

    /// Hands everything asked for to the kernel. To be called before waiting.
    pub fn submit(&mut self) {
        for token in std::mem::take(&mut self.starved) {
            if let Some(slot) = self.slots.open_mut(token)
                && slot.receiving == Receiving::Starved
            {
                slot.receiving = Receiving::No;
                if slot.receive_wanted {
                    self.arm_receive(token);
                }
            }
        }
        self.queue.submit();
    }

    fn handle(&mut self, completion: Completion) -> Option<RingEvent> {
        match completion {
            Completion::Accepted { listener, slot } => self.handle_accepted(listener, slot),
            Completion::Installed { tag, descriptor } => {
                self.handle_installed(tag, descriptor);
                None
            }
            Completion::Received { tag, bytes, more } => self.handle_received(tag, bytes, more),
            Completion::Sent { tag, buffer, bytes } => self.handle_sent(tag, buffer, bytes),
            Completion::CloseFailed { tag, error } => {
                tracing::error!(slot = tag.slot, error, "a direct descriptor could not be closed");
                None
            }
        }
    }

    fn handle_accepted(
        &mut self,
        listener: u32,
        result: Result<(u32, SocketAddr), i32>,
    ) -> Option<RingEvent> {
        let event = match result {
            Ok((slot, peer)) => {
                self.counters.accepted += 1;
                let token = self.slots.occupy(slot);
                self.arm_receive(token);
                Some(RingEvent::Accepted { token, listener: listener as usize, peer })
            }
            // Cancelled by us, or the client was gone before we came.
            Err(libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => None,
            Err(error) => {
                // All that are in flight fail for the same want: told once.
                if !self.accept_stalled {
                    tracing::warn!(error, "accepting failed");
                    self.counters.accept_failures += 1;
                }
                self.accept_stalled = true;
                None
            }
        };
        self.steer_accept();
        event
    }

    /// The ordinary descriptor has come, to shut the connection down.
    fn handle_installed(&mut self, tag: Tag, descriptor: Result<OwnedFd, i32>) {
        let token = SlotToken::of(tag);
        let Some(slot) = self.slots.occupied_mut(token) else {
            self.counters.stale_completions += 1;
            return;
        };
        slot.installing = false;
        if slot.state == State::Draining {
            return self.release_if_quiet(token.slot);
        }
        // A failure means that the peer has closed already, or that no descriptor is left: the end of the
        // connection follows in either case.
        if let Ok(descriptor) = descriptor {
            let _ = TcpStream::from(descriptor).shutdown(Shutdown::Write);
        }
    }

    fn handle_received(
        &mut self,
        tag: Tag,
        bytes: Result<Option<ReceivedBuffer>, i32>,
        more: bool,
    ) -> Option<RingEvent> {
        let token = SlotToken::of(tag);
        let Some(slot) = self.slots.occupied_mut(token) else {
            self.counters.stale_completions += 1;
            bytes.ok().flatten().into_iter().for_each(|buffer| self.give_back(buffer));
            return None;
        };
        if !more {
            slot.receiving = Receiving::No;
        }
        if slot.state == State::Draining {
            bytes.ok().flatten().into_iter().for_each(|buffer| self.give_back(buffer));
            self.release_if_quiet(token.slot);
            return None;
        }
        match bytes {
            Ok(Some(buffer)) => {
                self.counters.bytes_received += u64::from(buffer.len());
                if !more && slot.receive_wanted {
                    self.arm_receive(token);
                }
                Some(RingEvent::Received { token, buffer })
            }
            Ok(None) => {
                slot.receiving = Receiving::Ended;
                Some(RingEvent::Ended { token })
            }
            Err(libc::ENOBUFS) => {
                slot.receiving = Receiving::Starved;
                self.starved.push(token);
                self.counters.receive_buffers_exhausted += 1;
                None
            }
            Err(libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {
                if slot.receive_wanted {
                    self.arm_receive(token);
                }
                None
            }
            Err(error) => {
                slot.receiving = Receiving::Ended;
                Some(RingEvent::Failed { token, error })
            }
        }
    }

    fn handle_sent(
        &mut self,
        tag: Tag,
        mut buffer: SendBuffer,
        bytes: Result<usize, i32>,
    ) -> Option<RingEvent> {
        let token = SlotToken::of(tag);
        let Some(slot) = self.slots.occupied_mut(token) else {
            self.counters.stale_completions += 1;
            return Some(RingEvent::Sent { token, buffer, result: Err(libc::ECANCELED) });
        };
        slot.sending = false;
        let open = slot.state == State::Open;
        let result = match bytes {
            Ok(bytes) => {
                buffer.advance(bytes);
                self.counters.bytes_sent += bytes as u64;
                let whole = buffer.unsent().is_empty();
                if !whole && open && bytes > 0 {
                    self.counters.short_sends += 1;
                    slot.sending = true;
                    self.queue.send(token.slot, token.generation, buffer);
                    return None;
                }
                if whole { Ok(()) } else { Err(libc::ECANCELED) }
            }
            Err(libc::EINTR | libc::EAGAIN) if open => {
                slot.sending = true;
                self.queue.send(token.slot, token.generation, buffer);
                return None;
            }
            Err(error) => Err(error),
        };
        if !open {
            self.release_if_quiet(token.slot);
        }
        Some(RingEvent::Sent { token, buffer, result })
    }

    fn arm_receive(&mut self, token: SlotToken) {
        if let Some(slot) = self.slots.open_mut(token) {
            assert!(slot.receiving == Receiving::No, "one receive for each connection at a time");
            slot.receiving = Receiving::Armed;
            slot.receive_wanted = true;
            self.queue.arm_receive(token.slot, token.generation);
        }
    }

    /// Gives the slot of a closed connection back once nothing is in flight for it.
    fn release_if_quiet(&mut self, index: u32) {
        if let Some(generation) = self.slots.release_if_quiet(index) {
            self.queue.close(index, generation);
            self.steer_accept();
        }
    }

    /// Arms or cancels accepts as room and wish have it.
    fn steer_accept(&mut self) {
        if self.accept_wanted && !self.accept_stalled && self.has_room() {
            self.queue.arm_accepts();
        } else {
            self.queue.cancel_accepts();
        }
    }
}
