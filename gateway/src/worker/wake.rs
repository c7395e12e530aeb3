//! How other threads wake a core's loop: a flag and the loop's waker, so that many wakes cost one.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

#[derive(Default)]
struct Shared {
    woken: AtomicBool,
    waker: AtomicWaker,
}

/// Wakes one core's loop. Cheap to clone and to call from any thread, as often as one likes.
#[derive(Clone, Default)]
pub struct WakeHandle {
    shared: Arc<Shared>,
}

impl WakeHandle {
    /// A handle whose loop is whoever polls [`WakeHandle::poll_woken`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The loop takes another turn, soon.
    pub fn wake(&self) {
        // Only the first wake since the last turn has to reach the loop's thread.
        if !self.shared.woken.swap(true, Ordering::AcqRel) {
            self.shared.waker.wake();
        }
    }

    /// For the loop alone: ready once for any number of wakes since the last time.
    pub fn poll_woken(&self, context: &mut Context<'_>) -> Poll<()> {
        self.shared.waker.register(context.waker());
        if self.shared.woken.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn many_wakes_are_one_and_none_is_lost() {
        let handle = WakeHandle::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(handle.poll_woken(&mut context).is_pending());
        let other = handle.clone();
        std::thread::spawn(move || (0..3).for_each(|_| other.wake())).join().expect("the thread only wakes");
        assert!(handle.poll_woken(&mut context).is_ready());
        assert!(handle.poll_woken(&mut context).is_pending());
    }
}
