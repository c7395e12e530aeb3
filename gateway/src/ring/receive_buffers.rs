//! The provided-buffer ring: memory that the kernel receives into, for all connections of a ring together.
//!
//! Each buffer is either the kernel's, or lent to us by a completion until it is given back. One of two files with
//! unsafe code; the other is `queue.rs`, which alone may create a [`ReceivedBuffer`].

use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The kernel wants the ring of entries to begin at a page.
const PAGE_BYTES: usize = 4_096;

/// Bytes that arrived, in a buffer lent by the kernel: look at them with
/// [`ClientRing::bytes_mut`](super::ClientRing::bytes_mut) and give the buffer back soon.
#[derive(Debug)]
#[must_use = "the buffer must be given back to its ring"]
pub struct ReceivedBuffer {
    id: u16,
    bytes: u32,
}

impl ReceivedBuffer {
    /// Number of bytes that arrived.
    pub(super) fn len(&self) -> u32 {
        self.bytes
    }
}

/// All receive buffers of one ring, and the ring of entries shared with the kernel.
pub(super) struct ReceiveBuffers {
    /// `count` entries at the start of a page; the tail that we move lies in the first one.
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    /// `count` times `buffer_bytes`.
    memory: NonNull<u8>,
    memory_layout: Layout,
    /// A power of two.
    count: u16,
    buffer_bytes: u32,
    /// Entries ever given to the kernel, wrapping.
    tail: u16,
    /// Which buffers are ours to touch; all others may be written by the kernel at any time.
    lent: Box<[bool]>,
}

impl ReceiveBuffers {
    /// Allocates, touching no page before it is used, and offers all buffers.
    pub(super) fn new(count: u16, buffer_bytes: u32) -> Self {
        assert!(count.is_power_of_two() && count <= 1 << 15, "the kernel takes powers of two up to 32,768");
        assert!(buffer_bytes > 0, "a buffer holds something");
        let entries_layout = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(PAGE_BYTES))
            .expect("at most 512 KiB");
        let memory_layout = Layout::array::<u8>(usize::from(count) * buffer_bytes as usize)
            .and_then(|layout| layout.align_to(PAGE_BYTES))
            .expect("buffers fit the address space");
        let entries = allocate(entries_layout).cast();
        let memory = allocate(memory_layout);
        let lent = vec![true; usize::from(count)].into_boxed_slice();
        let mut buffers =
            Self { entries, entries_layout, memory, memory_layout, count, buffer_bytes, tail: 0, lent };
        (0..count).for_each(|id| buffers.give_back(ReceivedBuffer { id, bytes: 0 }));
        buffers
    }

    /// Where the ring of entries begins, for its registration.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Number of entries, and of buffers.
    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// The buffer a completion named. Only to be called for completions: it hands the buffer from the kernel to us.
    pub(super) fn lend(&mut self, id: u16, bytes: u32) -> ReceivedBuffer {
        assert!(bytes <= self.buffer_bytes, "the kernel wrote beyond a buffer");
        let lent = &mut self.lent[usize::from(id)];
        assert!(!*lent, "the kernel lent a buffer twice");
        *lent = true;
        ReceivedBuffer { id, bytes }
    }

    /// The received bytes, to read or to change in place.
    pub(super) fn bytes_mut(&mut self, buffer: &mut ReceivedBuffer) -> &mut [u8] {
        assert!(self.lent[usize::from(buffer.id)], "the buffer belongs to another ring");
        let offset = usize::from(buffer.id) * self.buffer_bytes as usize;
        // SAFETY: id < count (checked by the index above) and bytes <= buffer_bytes (checked in `lend`), so the
        // range lies within the allocation, which is initialised (zeroed). `lent` says that the kernel will not
        // touch it until `give_back`; the two exclusive borrows, of the buffer and of this table, keep anyone else
        // from a slice of it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(offset), buffer.bytes as usize) }
    }

    /// Offers the buffer to the kernel again.
    pub(super) fn give_back(&mut self, buffer: ReceivedBuffer) {
        let lent = &mut self.lent[usize::from(buffer.id)];
        assert!(*lent, "the buffer belongs to another ring");
        *lent = false;
        let offset = usize::from(buffer.id) * self.buffer_bytes as usize;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: index < count, so the entry lies within the allocation. The kernel reads an entry only between
        // head and tail, and this one is beyond the tail until the store below: at most `count` buffers exist and
        // each is offered at most once (`lent`), so the ring never overruns. Setting address, length and id leaves
        // alone the tail, which shares the first entry.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        // SAFETY: id < count, so the address lies within the allocation.
        entry.set_addr(unsafe { self.memory.as_ptr().add(offset) } as u64);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(buffer.id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the pointer is to the tail field within the first entry, valid and aligned for as long as
        // `entries`; both sides access it atomically only.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts. The owner drops this only when no operation is in flight
        // and the kernel ring is closed, so nobody writes here any more.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.memory.as_ptr(), self.memory_layout);
        }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "an allocation holds something");
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_buffer_is_ours_until_it_is_given_back() {
        let mut buffers = ReceiveBuffers::new(4, 16);
        let mut first = buffers.lend(0, 3);
        let mut last = buffers.lend(3, 16);
        buffers.bytes_mut(&mut first).copy_from_slice(b"abc");
        buffers.bytes_mut(&mut last).fill(7);
        assert_eq!(buffers.bytes_mut(&mut first), b"abc");
        buffers.give_back(first);
        buffers.give_back(last);
        assert_eq!(buffers.tail, 6);
    }

    #[test]
    #[should_panic(expected = "lent a buffer twice")]
    fn a_buffer_is_not_lent_twice() {
        let mut buffers = ReceiveBuffers::new(4, 16);
        let _first = buffers.lend(1, 0);
        let _second = buffers.lend(1, 0);
    }

    #[test]
    #[should_panic(expected = "beyond a buffer")]
    fn a_length_beyond_the_buffer_is_refused() {
        let _ = ReceiveBuffers::new(4, 16).lend(0, 17);
    }
}
