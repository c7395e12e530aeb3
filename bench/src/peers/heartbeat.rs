//! When a client says that it is alive, and when it holds its server for dead.

use super::partial::fault;
use crate::agent::protocol::ProtocolFault;

/// A server that has sent nothing for so many heartbeats is gone: one was surely answered.
const SILENT_BEATS_MAX: u64 = 3;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Beat {
    /// Nothing yet.
    Wait,
    /// The protocol's ping goes out.
    Ping,
}

/// Times of one connection, in microseconds. Without an interval it never asks for a call.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every_us: u64,
    pinged_us: u64,
    received_us: u64,
}

impl Heartbeat {
    /// `every_s` seconds apart; 0: none.
    pub fn new(every_s: u32) -> Self {
        Self { every_us: u64::from(every_s) * 1_000_000, pinged_us: 0, received_us: 0 }
    }

    /// The connection begins.
    pub fn opened(&mut self, now_us: u64) {
        (self.pinged_us, self.received_us) = (now_us, now_us);
    }

    /// The server has sent something.
    pub fn received(&mut self, now_us: u64) {
        self.received_us = now_us;
    }

    /// When [`Self::check`] is due.
    pub fn poll_timeout(&self) -> Option<u64> {
        (self.every_us > 0).then(|| self.ping_due().min(self.silence_due()))
    }

    /// What is due now; a fault if the server has been silent too long.
    pub fn check(&mut self, now_us: u64) -> Result<Beat, ProtocolFault> {
        if self.every_us == 0 {
            return Ok(Beat::Wait);
        }
        if now_us >= self.silence_due() {
            return Err(fault(format!("silent for {} ms", (now_us - self.received_us) / 1000)));
        }
        if now_us < self.ping_due() {
            return Ok(Beat::Wait);
        }
        self.pinged_us = now_us;
        Ok(Beat::Ping)
    }

    fn ping_due(&self) -> u64 {
        self.pinged_us.saturating_add(self.every_us)
    }

    fn silence_due(&self) -> u64 {
        self.received_us.saturating_add(SILENT_BEATS_MAX * self.every_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_even_and_silence_is_noticed() {
        let mut beat = Heartbeat::new(30);
        beat.opened(5);
        assert_eq!(beat.poll_timeout(), Some(30_000_005));
        assert_eq!(beat.check(30_000_004), Ok(Beat::Wait));
        assert_eq!(beat.check(30_000_005), Ok(Beat::Ping));
        assert_eq!(beat.check(30_000_006), Ok(Beat::Wait), "once an interval");
        beat.received(31_000_000);
        assert_eq!(beat.check(60_000_005), Ok(Beat::Ping));
        assert_eq!(beat.check(90_000_005), Ok(Beat::Ping));
        assert_eq!(beat.poll_timeout(), Some(120_000_005));
        assert!(beat.check(121_000_000).is_err());
        let mut none = Heartbeat::new(0);
        none.opened(5);
        assert_eq!((none.poll_timeout(), none.check(u64::MAX)), (None, Ok(Beat::Wait)));
    }
}
