//! Messages over any pair of byte streams: JSON behind its length (u32, big endian). A length is judged before
//! anything is set aside for it, and memory grows only with the bytes that really come.

use super::messages::CONTROL_MESSAGE_BYTES_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind, Read, Write};

/// Bytes of the length before a message.
const LENGTH_BYTES: usize = 4;

/// Why no message came, or went. Each names the other end.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Said to be longer than any message may be.
    #[error("{peer}: a message of {bytes} bytes, more than {bytes_max}")]
    Oversized {
        /// Who.
        peer: String,
        /// By its length.
        bytes: usize,
        /// Most allowed.
        bytes_max: usize,
    },
    /// Not a message of ours.
    #[error("{peer}: not a control message: {detail}")]
    Malformed {
        /// Who.
        peer: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The stream ended within a message.
    #[error("{peer}: ended in the middle of a message")]
    Cut {
        /// Who.
        peer: String,
    },
    /// The stream broke.
    #[error("{peer}: {error}")]
    Broken {
        /// Who.
        peer: String,
        /// How.
        error: io::Error,
    },
    /// Nothing came for too long.
    #[error("{peer}: silent for {silent_s} s")]
    Silent {
        /// Who.
        peer: String,
        /// How long.
        silent_s: u64,
    },
    /// It does not take what is sent to it.
    #[error("{peer}: takes no more messages")]
    Stuck {
        /// Who.
        peer: String,
    },
}

/// Reads messages.
pub struct MessageReader<R> {
    peer: String,
    from: R,
    bytes_max: usize,
}

impl<R: Read> MessageReader<R> {
    /// From a stream; `peer` names its other end in errors.
    pub fn new(peer: &str, from: R) -> Self {
        Self { peer: peer.to_owned(), from, bytes_max: CONTROL_MESSAGE_BYTES_MAX }
    }

    /// Waits for a message. `None`: the stream ended between two messages.
    pub fn receive<M: DeserializeOwned>(&mut self) -> Result<Option<M>, TransportError> {
        let mut length = Vec::with_capacity(LENGTH_BYTES);
        self.fill(&mut length, LENGTH_BYTES)?;
        let Ok(bytes) = <[u8; LENGTH_BYTES]>::try_from(length.as_slice()) else {
            return if length.is_empty() { Ok(None) } else { Err(self.cut()) };
        };
        let bytes = u32::from_be_bytes(bytes) as usize;
        if bytes > self.bytes_max {
            return Err(TransportError::Oversized {
                peer: self.peer.clone(),
                bytes,
                bytes_max: self.bytes_max,
            });
        }
        let mut text = Vec::new();
        self.fill(&mut text, bytes)?;
        if text.len() < bytes {
            return Err(self.cut());
        }
        let malformed = |error: serde_json::Error| TransportError::Malformed {
            peer: self.peer.clone(),
            detail: error.to_string(),
        };
        serde_json::from_slice(&text).map(Some).map_err(malformed)
    }

    /// Reads up to `bytes`, fewer only if the stream ends.
    fn fill(&mut self, into: &mut Vec<u8>, bytes: usize) -> Result<(), TransportError> {
        let read = self.from.by_ref().take(bytes as u64).read_to_end(into);
        match read {
            Ok(_) => Ok(()),
            // TLS tells an end without a goodbye apart from one with it.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(self.cut()),
            Err(error) => Err(TransportError::Broken { peer: self.peer.clone(), error }),
        }
    }

    fn cut(&self) -> TransportError {
        TransportError::Cut { peer: self.peer.clone() }
    }
}

/// Writes messages.
pub struct MessageWriter<W> {
    peer: String,
    into: W,
}

impl<W: Write> MessageWriter<W> {
    /// Into a stream; `peer` names its other end in errors.
    pub fn new(peer: &str, into: W) -> Self {
        Self { peer: peer.to_owned(), into }
    }

    /// Writes a whole message. The receiver's limit holds here too: ours must not be refused there.
    pub fn send<M: Serialize>(&mut self, message: &M) -> Result<(), TransportError> {
        let mut bytes = vec![0; LENGTH_BYTES];
        serde_json::to_writer(&mut bytes, message).map_err(|error| TransportError::Malformed {
            peer: self.peer.clone(),
            detail: error.to_string(),
        })?;
        let text_bytes = bytes.len() - LENGTH_BYTES;
        let length = u32::try_from(text_bytes).ok().filter(|_| text_bytes <= CONTROL_MESSAGE_BYTES_MAX);
        let Some(length) = length else {
            let (peer, bytes_max) = (self.peer.clone(), CONTROL_MESSAGE_BYTES_MAX);
            return Err(TransportError::Oversized { peer, bytes: text_bytes, bytes_max });
        };
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        let written = self.into.write_all(&bytes).and_then(|()| self.into.flush());
        written.map_err(|error| TransportError::Broken { peer: self.peer.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::control::messages::{FromAgent, ToAgent};

    /// A stream that must not be read beyond what it holds.
    struct Guarded<'a>(&'a [u8]);

    impl Read for Guarded<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            assert!(!self.0.is_empty(), "read beyond the length");
            self.0.read(into)
        }
    }

    fn framed(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short");
        [&length.to_be_bytes(), text].concat()
    }

    #[test]
    fn messages_come_as_they_went_even_byte_by_byte() {
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let bytes = into.len().min(1);
                self.0.read(&mut into[..bytes])
            }
        }
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new("agent", &mut bytes);
        let sent = [ToAgent::Probe { number: 7 }, ToAgent::Begin { phase: 1, at_us: 99 }, ToAgent::Finish];
        sent.iter().for_each(|message| writer.send(message).expect("a Vec grows"));
        let mut reader = MessageReader::new("coordinator", Slow(&bytes));
        for message in sent {
            assert_eq!(reader.receive::<ToAgent>().expect("whole"), Some(message));
        }
        assert_eq!(reader.receive::<ToAgent>().expect("a clean end"), None);
    }

    #[test]
    fn an_oversized_message_is_refused_by_its_length_alone() {
        let length = u32::try_from(CONTROL_MESSAGE_BYTES_MAX + 1).expect("fits").to_be_bytes();
        let refused = MessageReader::new("agent-3", Guarded(&length)).receive::<FromAgent>();
        assert_eq!(
            refused.expect_err("too long").to_string(),
            format!(
                "agent-3: a message of {} bytes, more than {CONTROL_MESSAGE_BYTES_MAX}",
                CONTROL_MESSAGE_BYTES_MAX + 1
            )
        );
    }

    #[test]
    fn an_allowed_length_sets_nothing_aside_before_bytes_come() {
        let length = u32::try_from(CONTROL_MESSAGE_BYTES_MAX).expect("fits").to_be_bytes();
        let bytes = [&length[..], b"{"].concat();
        let mut reader = MessageReader::new("agent-3", bytes.as_slice());
        let mut text = Vec::new();
        reader.fill(&mut Vec::new(), LENGTH_BYTES).expect("the length");
        reader.fill(&mut text, CONTROL_MESSAGE_BYTES_MAX).expect("as much as there is");
        assert!(text.capacity() < 4_096, "{} bytes for one", text.capacity());
    }

    #[test]
    fn malformed_and_cut_messages_name_the_peer() {
        let error = |bytes: &[u8]| {
            let received = MessageReader::new("agent-3", bytes).receive::<FromAgent>();
            received.expect_err("refused").to_string()
        };
        for text in [&b"{}"[..], b"\xff", b"{\"type\":\"unheard_of\"}", b"[[[["] {
            let error = error(&framed(text));
            assert!(error.starts_with("agent-3: not a control message: "), "{error}");
        }
        assert_eq!(error(&[0, 0]), "agent-3: ended in the middle of a message");
        assert_eq!(
            error(&framed(b"{\"type\":\"prepared\"}")[..9]),
            "agent-3: ended in the middle of a message"
        );
    }
}
