//! How other threads, and other tasks of the loop, make a core's loop take a turn.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

#[derive(Default, Debug)]
struct Shared {
    woken: AtomicBool,
    waker: AtomicWaker,
}

/// Wakes whoever polls [`Wake::poll_woken`]. Cheap to clone; many wakes cost one.
#[derive(Clone, Default, Debug)]
pub(super) struct Wake {
    shared: Arc<Shared>,
}

impl Wake {
    /// From any thread.
    pub fn wake(&self) {
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            self.shared.waker.wake();
        }
    }

    /// Whether a wake is there that nobody took.
    pub fn is_woken(&self) -> bool {
        self.shared.woken.load(Ordering::Acquire)
    }

    /// Whether anybody else has this one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Ready once for any number of wakes since the last time.
    pub fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.waker.register(context.waker());
        if self.shared.woken.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}
