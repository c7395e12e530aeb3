//! Cuts an XMPP stream into its opening tag, stanzas and end, without understanding them.
//!
//! Each byte is looked at once, whatever the pieces it comes in. Stricter than XML: XMPP forbids comments, processing
//! instructions and document types, and CDATA sections are refused too, since no server of ours writes them.

use crate::agent::protocol::ProtocolFault;
use crate::peers::partial::fault;
use wire_protocol::limits::BODY_BYTES_MAX;

/// Largest stanza, in bytes: the largest body in base64 (four thirds), forwarded from an archive with its wrapping,
/// twice over; a list of features is far smaller.
pub const STANZA_BYTES_MAX: usize = 4 * BODY_BYTES_MAX;
/// Deepest nesting: an archived message has six levels.
pub const DEPTH_MAX: usize = 24;

/// What was cut.
#[derive(PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// `<stream:stream …>`, as it came.
    StreamOpen(&'a [u8]),
    /// A whole element directly in the stream, as it came.
    Stanza(&'a [u8]),
    /// `</stream:stream>`.
    StreamEnd,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Text,
    /// After `<`.
    TagStart,
    /// Within an opening tag; whether the last byte was a slash that may end it.
    Open {
        slash: bool,
    },
    /// Within a value of an opening tag, until this quote.
    Value {
        quote: u8,
    },
    /// Within a closing tag.
    Close,
    /// Within `<?xml …`; whether the last byte was a question mark.
    Declaration {
        question: bool,
    },
}

/// Where the stream stands.
#[derive(Debug)]
pub struct Scanner {
    kept: Vec<u8>,
    state: State,
    depth: usize,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { kept: Vec::new(), state: State::Text, depth: 0 }
    }
}

impl Scanner {
    /// Takes bytes until something is whole, tells of it, and says how many it took: all, if nothing is.
    pub fn feed<T>(
        &mut self,
        bytes: &[u8],
        piece: impl FnOnce(Piece<'_>) -> T,
    ) -> Result<(usize, Option<T>), ProtocolFault> {
        for (place, byte) in bytes.iter().enumerate() {
            let outside = self.depth <= 1 && self.state == State::Text && *byte != b'<';
            if outside {
                if !byte.is_ascii_whitespace() {
                    return Err(fault("text between stanzas"));
                }
                continue;
            }
            if self.kept.len() >= STANZA_BYTES_MAX {
                return Err(fault(format!("a stanza of more than {STANZA_BYTES_MAX} bytes")));
            }
            self.kept.push(*byte);
            if let Some(end) = self.step(*byte)? {
                // Nothing is held between stanzas: idle devices are many.
                let kept = std::mem::take(&mut self.kept);
                let found = match end {
                    End::Open => Piece::StreamOpen(&kept),
                    End::Stanza => Piece::Stanza(&kept),
                    End::Stream => Piece::StreamEnd,
                    End::Declaration => continue,
                };
                return Ok((place + 1, Some(piece(found))));
            }
        }
        Ok((bytes.len(), None))
    }

    fn step(&mut self, byte: u8) -> Result<Option<End>, ProtocolFault> {
        let (state, end) = match (self.state, byte) {
            (State::Text, b'<') => (State::TagStart, None),
            (State::Text, _) => (State::Text, None),
            (State::TagStart, b'/') => (State::Close, None),
            (State::TagStart, b'?') if self.depth == 0 => (State::Declaration { question: false }, None),
            (State::TagStart, b'a'..=b'z' | b'A'..=b'Z' | b'_') => (State::Open { slash: false }, None),
            (State::TagStart, other) => return Err(fault(format!("a tag that begins with {other:#x}"))),
            (State::Open { .. }, quote @ (b'"' | b'\'')) => (State::Value { quote }, None),
            (State::Open { slash }, b'>') => (State::Text, self.opened(slash)?),
            (State::Open { .. } | State::Close, b'<') => return Err(fault("a tag within a tag")),
            (State::Open { .. }, byte) => (State::Open { slash: byte == b'/' }, None),
            (State::Value { quote }, byte) if byte == quote => (State::Open { slash: false }, None),
            (state @ State::Value { .. }, _) => (state, None),
            (State::Close, b'>') => (State::Text, self.closed()?),
            (State::Close, _) => (State::Close, None),
            (State::Declaration { question: true }, b'>') => (State::Text, Some(End::Declaration)),
            (State::Declaration { .. }, byte) => (State::Declaration { question: byte == b'?' }, None),
        };
        self.state = state;
        Ok(end)
    }

    /// An opening tag has ended.
    fn opened(&mut self, empty: bool) -> Result<Option<End>, ProtocolFault> {
        match (self.depth, empty) {
            (0, true) => Err(fault("a stream that is closed as it opens")),
            (1, true) => Ok(Some(End::Stanza)),
            (_, true) => Ok(None),
            (depth, false) => {
                if depth >= DEPTH_MAX {
                    return Err(fault(format!("elements nested deeper than {DEPTH_MAX}")));
                }
                self.depth += 1;
                Ok((depth == 0).then_some(End::Open))
            }
        }
    }

    fn closed(&mut self) -> Result<Option<End>, ProtocolFault> {
        self.depth = self.depth.checked_sub(1).ok_or_else(|| fault("an end without a beginning"))?;
        Ok(match self.depth {
            0 => Some(End::Stream),
            1 => Some(End::Stanza),
            _ => None,
        })
    }
}

enum End {
    Open,
    Stanza,
    Stream,
    Declaration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Result<Vec<String>, ProtocolFault> {
        let (mut scanner, mut found) = (Scanner::default(), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let (taken, text) = scanner.feed(rest, |piece| match piece {
                    Piece::StreamOpen(bytes) => format!("open {}", String::from_utf8_lossy(bytes)),
                    Piece::Stanza(bytes) => format!("stanza {}", String::from_utf8_lossy(bytes)),
                    Piece::StreamEnd => "end".to_owned(),
                })?;
                found.extend(text);
                rest = &rest[taken..];
            }
        }
        Ok(found)
    }

    #[test]
    fn a_stream_is_cut_the_same_wherever_it_is_broken() {
        let stream = b"<?xml version='1.0'?><s:s a='>' b=\"/>'\">\n<a/><b x='</b>'><c d='/'/><b>t</b></b> <r n='1' /></s:s>";
        let expected = [
            "open <s:s a='>' b=\"/>'\">",
            "stanza <a/>",
            "stanza <b x='</b>'><c d='/'/><b>t</b></b>",
            "stanza <r n='1' />",
            "end",
        ];
        assert_eq!(cut(&[stream]).as_deref(), Ok(&expected.map(String::from)[..]));
        for at in 0..stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(cut(&[head, tail]).as_deref(), Ok(&expected.map(String::from)[..]), "cut at {at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(cut(&single).as_deref(), Ok(&expected.map(String::from)[..]));
    }

    #[test]
    fn what_xmpp_forbids_is_refused() {
        for bad in [
            &b"<s><!-- c --></s>"[..],
            b"<s><a><![CDATA[x]]></a>",
            b"<!DOCTYPE s [<!ENTITY a 'b'>]><s>",
            b"<s><?php ?>",
            b"<s>text<a/>",
            b"text",
            b"<s/>",
            b"</s>",
            b"<s><a <b>",
            b"< s>",
        ] {
            assert!(cut(&[bad]).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        assert!(cut(&[&b"<a>".repeat(DEPTH_MAX)]).is_ok());
        assert!(cut(&[&b"<a>".repeat(DEPTH_MAX + 1)]).is_err(), "depth is bounded");
        let endless = [b"<s><a>".to_vec(), vec![b'x'; STANZA_BYTES_MAX]].concat();
        assert!(cut(&[&endless]).is_err(), "size is bounded");
        assert!(cut(&[&endless[..STANZA_BYTES_MAX]]).is_ok());
    }
}
