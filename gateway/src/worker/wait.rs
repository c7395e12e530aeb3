//! Where the loop sleeps: until a ring has completions, another thread or task wakes it, or a time has come.

use crate::worker::wake::WakeHandle;
use monoio::net::UnixStream;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Longest sleep, in milliseconds: even an idle loop publishes its numbers.
const SLEEP_MS_MAX: u64 = 1_000;

type Readable = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// Everything the loop waits for. Belongs to one monoio runtime.
pub struct Waits {
    rings: Vec<Watched>,
    wake: WakeHandle,
    /// Always readable: waiting for it parks the runtime for no time, so that its tasks, timers and wakes run.
    yielding: Watched,
    /// The end that keeps it readable.
    _kept_open: StdUnixStream,
}

/// A descriptor, and the wait for it that is under way. The wait outlives a turn: starting one anew each time
/// would cost a cancellation each time.
struct Watched {
    stream: Rc<UnixStream>,
    waiting: Option<Readable>,
}

impl Waits {
    /// To be made inside the runtime.
    pub fn new<'a>(rings: impl IntoIterator<Item = BorrowedFd<'a>>, wake: WakeHandle) -> io::Result<Self> {
        let watch = |fd: BorrowedFd<'_>| Watched::new(fd.try_clone_to_owned()?.into());
        let rings = rings.into_iter().map(watch).collect::<io::Result<_>>()?;
        let (mut kept_open, read_end) = StdUnixStream::pair()?;
        kept_open.write_all(&[0])?;
        Ok(Self { rings, wake, yielding: Watched::new(read_end)?, _kept_open: kept_open })
    }

    /// Sleeps, but not longer than this.
    pub async fn sleep(&mut self, sleep_ms_max: u64) {
        let sleep_ms = sleep_ms_max.min(SLEEP_MS_MAX);
        if sleep_ms == 0 {
            return self.yield_now().await;
        }
        let mut timer = std::pin::pin!(monoio::time::sleep(Duration::from_millis(sleep_ms)));
        poll_fn(|context| {
            // All of them, so that each is armed.
            let mut ready = self.wake.poll_woken(context).is_ready();
            for ring in &mut self.rings {
                ready |= ring.poll_readable(context).is_ready();
            }
            ready |= timer.as_mut().poll(context).is_ready();
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Lets the runtime's other tasks, timers and wakes have their turn.
    async fn yield_now(&mut self) {
        poll_fn(|context| self.yielding.poll_readable(context)).await;
    }
}

impl Watched {
    fn new(stream: StdUnixStream) -> io::Result<Self> {
        Ok(Self { stream: Rc::new(UnixStream::from_std(stream)?), waiting: None })
    }

    /// An error counts as readable: whoever looks will find it.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| {
            let stream = self.stream.clone();
            Box::pin(async move { stream.readable(false).await })
        });
        let readable = waiting.as_mut().poll(context).map(drop);
        if readable.is_ready() {
            self.waiting = None;
        }
        readable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::moment;
    use std::os::fd::AsFd;

    fn run(test: impl Future<Output = ()>) {
        let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new();
        builder.enable_timer().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn a_readable_ring_a_wake_and_the_time_end_a_sleep() {
        run(async {
            let (mut ours, theirs) = StdUnixStream::pair().expect("a pair");
            let wake = WakeHandle::new();
            let mut waits = Waits::new([theirs.as_fd()], wake.clone()).expect("watched");
            let started = moment();
            waits.sleep(30).await;
            assert!(started.elapsed() >= Duration::from_millis(29));
            let started = moment();
            ours.write_all(&[1]).expect("open");
            waits.sleep(1_000).await;
            let woken = std::thread::spawn(move || wake.wake());
            waits.sleep(1_000).await;
            assert!(started.elapsed() < Duration::from_millis(900));
            woken.join().expect("it only wakes");
        });
    }

    #[test]
    fn a_wake_from_another_thread_ends_a_sleep_that_began() {
        run(async {
            let wake = WakeHandle::new();
            let mut waits = Waits::new([], wake.clone()).expect("watched");
            let started = moment();
            let waker = std::thread::spawn(move || {
                std::thread::park_timeout(Duration::from_millis(50));
                wake.wake();
            });
            waits.sleep(1_000).await;
            assert!(started.elapsed() < Duration::from_millis(900));
            waker.join().expect("it only wakes");
        });
    }

    #[test]
    fn yielding_lets_other_tasks_run() {
        run(async {
            let mut waits = Waits::new([], WakeHandle::new()).expect("watched");
            let ran = Rc::new(std::cell::Cell::new(0));
            let count = ran.clone();
            monoio::spawn(async move {
                loop {
                    monoio::time::sleep(Duration::from_millis(1)).await;
                    count.set(count.get() + 1);
                }
            });
            let started = moment();
            while ran.get() < 3 && started.elapsed() < Duration::from_secs(5) {
                waits.sleep(0).await;
            }
            assert!(ran.get() >= 3);
        });
    }
}
