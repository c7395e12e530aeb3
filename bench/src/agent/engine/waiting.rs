//! Waiting for sockets, or for a moment to the microsecond.
//!
//! epoll waits in whole milliseconds, which an open loop of 10,000 requests a second cannot do with. A timerfd in
//! the same poll wakes within a few microseconds of its time and costs one system call for each wait; spinning
//! instead would take the CPU that is to be measured.

use crate::clock;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Tokens beyond every device's.
const TIMER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Events taken at a time: beyond it the next wait returns at once with the rest.
const EVENTS_MAX: usize = 1_024;

/// What a wait brought.
pub(super) struct Waited {
    /// Of sockets; to be given back to the next wait.
    pub(super) events: Events,
    /// Somebody used the waker.
    pub(super) woken: bool,
}

/// The poll of an engine, with its timer and waker.
pub(super) struct Waiting {
    poll: Poll,
    /// `None` while a [`Waited`] is out.
    events: Option<Events>,
    timer: OwnedFd,
    /// What the timer is set to, if that is still to come.
    armed_us: Option<u64>,
    waker: Arc<Waker>,
}

impl Waiting {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, events: Some(Events::with_capacity(EVENTS_MAX)), timer, armed_us: None, waker })
    }

    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Waits until something happens, or until `until_us`; not at all if that has passed.
    pub(super) fn wait(&mut self, until_us: u64) -> io::Result<Waited> {
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(EVENTS_MAX));
        let now_us = clock::now_us();
        let timeout = if until_us <= now_us {
            Some(Duration::ZERO)
        } else {
            self.arm(now_us, until_us)?;
            None
        };
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let mut woken = false;
        for event in &events {
            match event.token() {
                // Edge-triggered: setting it anew forgets what was not read.
                TIMER => self.armed_us = None,
                WAKER => woken = true,
                _ => {}
            }
        }
        Ok(Waited { events, woken })
    }

    /// Gives the events back.
    pub(super) fn done(&mut self, waited: Waited) {
        self.events = Some(waited.events);
    }

    fn arm(&mut self, now_us: u64, until_us: u64) -> io::Result<()> {
        if self.armed_us == Some(until_us) {
            return Ok(());
        }
        let wait_us = until_us - now_us;
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec {
            tv_sec: i64::try_from(wait_us / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: (wait_us % 1_000_000) as i64 * 1_000,
        };
        let setting = Itimerspec { it_interval: none, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        self.armed_us = Some(until_us);
        Ok(())
    }
}

/// Which device an event is about; `None`: the timer or the waker.
pub(super) fn device_token(token: Token) -> Option<u32> {
    u32::try_from(token.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_within_its_microseconds_and_not_before() {
        let mut waiting = Waiting::new().expect("a poll");
        let mut best_us = u64::MAX;
        for _ in 0..50 {
            let until_us = clock::now_us() + 300;
            let waited = waiting.wait(until_us).expect("it waits");
            let late_us = clock::now_us().checked_sub(until_us).expect("not before its time");
            assert!(!waited.woken);
            waiting.done(waited);
            best_us = best_us.min(late_us);
        }
        // A wait in whole milliseconds would be 700 us late each time; a busy machine is, now and then.
        assert!(best_us < 700, "{best_us} us late at best");
    }

    #[test]
    fn a_waker_ends_it() {
        let mut waiting = Waiting::new().expect("a poll");
        let waker = waiting.waker();
        let thread = std::thread::spawn(move || waker.wake());
        let waited = waiting.wait(clock::now_us() + 60_000_000).expect("it waits");
        assert!(waited.woken);
        thread.join().expect("it ran").expect("it woke");
    }
}
