//! The io_uring itself: submissions, completions, and all memory the kernel may touch through them.
//!
//! This file and `receive_buffers.rs` are the only ones with unsafe code. Its interface is safe: a buffer of a send
//! stays in [`Queue`] from its submission to its completion, as do the places for peers' addresses, receive buffers
//! are lent by completions only, and a queue that is dropped first makes the kernel let go of all of them.

use super::operation::{Operation, Tag};
use super::receive_buffers::{ReceiveBuffers, ReceivedBuffer};
use super::send_buffer::SendBuffer;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};
use socket2::{SockAddr, SockAddrStorage};
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

/// Submissions between two system calls; more are submitted on the way. 64 bytes each.
const SUBMISSION_ENTRIES: u32 = 1_024;
/// Completions the ring holds before the kernel keeps them in a list of its own. 16 bytes each.
const COMPLETION_ENTRIES: u32 = 4_096;
/// The one group of receive buffers.
const BUFFER_GROUP: u16 = 0;
/// Waits for cancelled operations at the end, each of at most [`QUIET_WAIT_MS`].
const QUIET_WAITS_MAX: u32 = 100;
/// Longest single wait for cancelled operations, in milliseconds.
const QUIET_WAIT_MS: u64 = 20;

/// One completion, with what it gives back.
#[derive(Debug)]
pub(super) enum Completion {
    /// One of a listener's accepts is over: a socket in this slot of the table, and whose it is, or a failure.
    Accepted { listener: u32, slot: Result<(u32, SocketAddr), i32> },
    /// An ordinary descriptor of a connection's socket.
    Installed { tag: Tag, descriptor: Result<OwnedFd, i32> },
    /// Bytes, the end of the stream (`None`), or a failure. Without `more` it is no longer armed.
    Received { tag: Tag, bytes: Result<Option<ReceivedBuffer>, i32>, more: bool },
    /// The kernel took this many bytes of the buffer, which is ours again.
    Sent { tag: Tag, buffer: SendBuffer, bytes: Result<usize, i32> },
    /// A direct descriptor could not be closed.
    CloseFailed { tag: Tag, error: i32 },
}

/// Where the kernel writes the address of the next peer.
struct PeerPlace {
    storage: SockAddrStorage,
    len: libc::socklen_t,
}

impl PeerPlace {
    fn empty() -> Self {
        let storage = SockAddrStorage::zeroed();
        Self { len: storage.size_of(), storage }
    }
}

/// What is in flight for one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accept {
    No,
    Armed,
    /// To be cancelled. It may have had its connection already, and if the kernel was just at it, it may wait for one as if
    /// nothing had been asked.
    Cancelling,
}

/// A ring with a table of direct descriptors. Belongs to the thread that made it.
pub(super) struct Queue {
    /// Dropped by hand: before the buffers, and only if nothing is in flight.
    ring: ManuallyDrop<IoUring>,
    receive_buffers: ManuallyDrop<ReceiveBuffers>,
    listeners: Vec<Rc<TcpListener>>,
    /// For each listener as many as it may have accepts in flight, one listener after the other; never more of them. The
    /// kernel's while an accept is in flight: then nothing here refers to it.
    peers: ManuallyDrop<Vec<UnsafeCell<PeerPlace>>>,
    /// Of each of them.
    accepts: Vec<Accept>,
    /// Of each listener.
    accepts_max: usize,
    /// The buffer of the send in flight for each slot; at most one.
    sends: ManuallyDrop<Vec<Option<SendBuffer>>>,
    sends_in_flight: usize,
    receives_armed: usize,
    /// Submissions that found the queue full and the kernel unwilling to take it: a few for each connection at most.
    backlog: VecDeque<Entry>,
}

impl Queue {
    pub(super) fn new(
        table_size: u32,
        receive_buffers: ReceiveBuffers,
        listeners: Vec<Rc<TcpListener>>,
        accepts_max: u32,
    ) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::FixedFdInstall::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "Linux 6.8 or later is needed"));
        }
        ring.submitter().register_files_sparse(table_size)?;
        let (address, count) = (receive_buffers.entries_address(), receive_buffers.count());
        // SAFETY: `address` is a page-aligned array of `count` entries, owned by `receive_buffers`, which lives in
        // this queue and is freed only after the ring is closed with nothing in flight.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0)? };
        let accepts_max = accepts_max as usize;
        let accepts = vec![Accept::No; listeners.len() * accepts_max];
        let peers = accepts.iter().map(|_| UnsafeCell::new(PeerPlace::empty())).collect();
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            receive_buffers: ManuallyDrop::new(receive_buffers),
            listeners,
            peers: ManuallyDrop::new(peers),
            accepts,
            accepts_max,
            sends: ManuallyDrop::new(Vec::with_capacity(table_size as usize)),
            sends_in_flight: 0,
            receives_armed: 0,
            backlog: VecDeque::new(),
        })
    }

    /// Readable when there are completions.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring, and with it its descriptor, lives as long as the borrow of self.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    pub(super) fn receive_buffers(&mut self) -> &mut ReceiveBuffers {
        &mut self.receive_buffers
    }

    /// Puts as many accepts in flight as each listener may have, each for one socket, into a free slot of the table.
    pub(super) fn arm_accepts(&mut self) {
        for index in 0..self.accepts.len() {
            if self.accepts[index] != Accept::No {
                continue;
            }
            self.accepts[index] = Accept::Armed;
            let (tag, place) = (self.accept_tag(index), self.peers[index].get());
            let descriptor = Fd(self.listeners[tag.slot as usize].as_raw_fd());
            // SAFETY: the place exists, and was not the kernel's until now; addresses are taken, nothing is read.
            let (address, len) = unsafe { (&raw mut (*place).storage, &raw mut (*place).len) };
            let accept = opcode::Accept::new(descriptor, address.cast(), len)
                .file_index(Some(DestinationSlot::auto_target()))
                .build();
            self.push(accept.user_data(tag.pack()));
        }
    }

    /// Cancels all accepts that are in flight. Each still completes, in whichever way.
    pub(super) fn cancel_accepts(&mut self) {
        // One by one: to find all of a descriptor's, the kernel looks at every operation of the ring.
        for index in 0..self.accepts.len() {
            if self.accepts[index] == Accept::Armed {
                self.accepts[index] = Accept::Cancelling;
                self.cancel(self.accept_tag(index));
            }
        }
    }

    fn accept_tag(&self, index: usize) -> Tag {
        let (listener, number) = (index / self.accepts_max, index % self.accepts_max);
        Tag::new(Operation::Accept, listener as u32, number as u32)
    }

    /// An accept is over: its place is ours again, and has the peer's address if there is a peer.
    fn take_peer(&mut self, tag: Tag) -> Option<SocketAddr> {
        let index = tag.slot as usize * self.accepts_max + tag.generation as usize;
        let accept = std::mem::replace(&mut self.accepts[index], Accept::No);
        assert!(accept != Accept::No, "an accept is over once");
        let PeerPlace { storage, len } = std::mem::replace(self.peers[index].get_mut(), PeerPlace::empty());
        // SAFETY: the kernel has written an address of this length, or nothing into what was zero.
        unsafe { SockAddr::new(storage, len) }.as_socket()
    }

    /// Receives until cancelled, or until the buffers run out.
    pub(super) fn arm_receive(&mut self, slot: u32, generation: u32) {
        let tag = Tag::new(Operation::Receive, slot, generation);
        let receive = opcode::RecvMulti::new(Fixed(slot), BUFFER_GROUP).build();
        self.receives_armed += 1;
        self.push(receive.user_data(tag.pack()));
    }

    /// Asks for an ordinary descriptor of the slot's socket, for calls that io_uring does not have.
    pub(super) fn install(&mut self, slot: u32, generation: u32) {
        let tag = Tag::new(Operation::Install, slot, generation);
        self.push(opcode::FixedFdInstall::new(Fixed(slot), 0).build().user_data(tag.pack()));
    }

    /// Sends what is unsent in the buffer, or a part of it. One send a slot at a time.
    pub(super) fn send(&mut self, slot: u32, generation: u32, buffer: SendBuffer) {
        let tag = Tag::new(Operation::Send, slot, generation);
        let unsent = buffer.unsent();
        let (address, bytes) = (unsent.as_ptr(), unsent.len() as u32);
        let index = slot as usize;
        if index >= self.sends.len() {
            self.sends.resize_with(index + 1, || None);
        }
        assert!(self.sends[index].is_none(), "one send for each connection at a time");
        self.sends[index] = Some(buffer);
        self.sends_in_flight += 1;
        let send = opcode::Send::new(Fixed(slot), address, bytes).flags(libc::MSG_NOSIGNAL).build();
        self.push(send.user_data(tag.pack()));
    }

    /// Cancels an operation that is in flight. It still completes, in whichever way.
    pub(super) fn cancel(&mut self, target: Tag) {
        let tag = Tag::new(Operation::Cancel, target.slot, target.generation);
        let cancel = opcode::AsyncCancel::new(target.pack()).build().flags(Flags::SKIP_SUCCESS);
        self.push(cancel.user_data(tag.pack()));
    }

    /// Empties the slot, which the next accept may take.
    pub(super) fn close(&mut self, slot: u32, generation: u32) {
        let tag = Tag::new(Operation::Close, slot, generation);
        let close = opcode::Close::new(Fixed(slot)).build().flags(Flags::SKIP_SUCCESS);
        self.push(close.user_data(tag.pack()));
    }

    /// Hands all submissions to the kernel. No system call if there are none.
    pub(super) fn submit(&mut self) {
        loop {
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as in `push`, where the entry came from.
                if unsafe { self.ring.submission().push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
            let submission = self.ring.submission();
            let (nothing, overflow) = (submission.is_empty(), submission.cq_overflow());
            drop(submission);
            if nothing && !overflow {
                return;
            }
            match self.ring.submit() {
                Ok(_) if self.backlog.is_empty() => return,
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // EBUSY, EAGAIN: completions must be taken first, or memory is short. What is queued stays queued.
                Err(_) => return,
            }
        }
    }

    /// The next completion that concerns anyone.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            let tag = Tag::unpack(entry.user_data()).expect("every submission carries a tag");
            let completion = self.decode(tag, &entry);
            if completion.is_some() {
                return completion;
            }
        }
    }

    /// Takes ownership of what the completion gives. `None`: of no interest.
    fn decode(&mut self, tag: Tag, entry: &cqueue::Entry) -> Option<Completion> {
        let more = cqueue::more(entry.flags());
        let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
        match tag.operation {
            Operation::Accept => {
                let peer = self.take_peer(tag);
                let of_peer =
                    |slot| (slot, peer.expect("listeners of the internet have peers of the internet"));
                Some(Completion::Accepted { listener: tag.slot, slot: result.map(of_peer) })
            }
            Operation::Install => {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                let descriptor = result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) });
                Some(Completion::Installed { tag, descriptor })
            }
            Operation::Receive => {
                self.receives_armed -= usize::from(!more);
                let lent = cqueue::buffer_select(entry.flags());
                let buffer = lent.map(|id| self.receive_buffers.lend(id, result.unwrap_or(0)));
                let bytes = match (result, buffer) {
                    (Ok(1..), buffer) => Ok(Some(buffer.expect("received bytes lie in a buffer"))),
                    (other, buffer) => {
                        buffer.into_iter().for_each(|buffer| self.receive_buffers.give_back(buffer));
                        other.map(|_| None)
                    }
                };
                Some(Completion::Received { tag, bytes, more })
            }
            Operation::Send => {
                let buffer = self.sends[tag.slot as usize].take().expect("a send owns a buffer");
                self.sends_in_flight -= 1;
                Some(Completion::Sent { tag, buffer, bytes: result.map(|bytes| bytes as usize) })
            }
            // Nothing was found to cancel: it had completed by itself, or the kernel was at it.
            Operation::Cancel => None,
            Operation::Close => result.err().map(|error| Completion::CloseFailed { tag, error }),
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.backlog.is_empty() {
            // SAFETY: of the operations made in this file, install, cancel and close carry no pointers. Receives
            // write to buffers of the registered group only, an accept to its place in `peers`, and a send reads
            // from a buffer in `sends`: memory that does not move and outlives the operation. `decode` lets go of a
            // send's buffer, and of an accept's place, at its completion, and `drop` frees nothing while an
            // operation is in flight.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            self.submit();
            // SAFETY: as above.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Cancels everything and takes completions until the kernel uses none of our memory. `false`: it would not.
    fn quieten(&mut self) -> bool {
        for _ in 0..QUIET_WAITS_MAX {
            self.push(
                opcode::AsyncCancel2::new(CancelBuilder::any().all())
                    .build()
                    .user_data(Tag::new(Operation::Cancel, 0, 0).pack()),
            );
            self.submit();
            while self.next_completion().is_some() {}
            let is_accepting = self.accepts.iter().any(|accept| *accept != Accept::No);
            let in_flight = self.sends_in_flight > 0 || self.receives_armed > 0 || is_accepting;
            if !in_flight && self.backlog.is_empty() {
                return true;
            }
            let wait = Timespec::from(std::time::Duration::from_millis(QUIET_WAIT_MS));
            // A time-out or an interruption only leads to the next round.
            let _ = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait));
        }
        false
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !self.quieten() {
            // Better to lose the memory, and the ring with it, than to free what the kernel may still use.
            return;
        }
        // Someone may hold a clone of the ring's descriptor, to wait on it: connections and buffers end here, not
        // when that is closed. There is nothing to be done about a refusal.
        let _ = self.ring.submitter().unregister_files();
        let _ = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
        // SAFETY: none of the four is used after this, and each is dropped once. The ring goes first, so that the
        // kernel is done with the registered entries before their memory is freed.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.receive_buffers);
            ManuallyDrop::drop(&mut self.sends);
            ManuallyDrop::drop(&mut self.peers);
        }
    }
}

/// The limit on open files, which also bounds each table of direct descriptors.
pub fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to the one structure it is given.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0;
    // 20 is what POSIX promises at least.
    if failed { 20 } else { limit.rlim_cur }
}
