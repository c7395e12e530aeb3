//! What has come of a frame that is not whole yet. Every protocol here cuts a stream into frames with it.

use crate::agent::protocol::ProtocolFault;

/// A fault with its text.
pub(super) fn fault(text: impl Into<String>) -> ProtocolFault {
    ProtocolFault(text.into())
}

/// The bytes that wait for the rest of their frame. Holds no memory between frames: idle devices are many.
#[derive(Debug, Default)]
pub(super) struct Partial {
    kept: Vec<u8>,
}

impl Partial {
    /// Gives `frame` everything that has come and was not taken yet. It answers how many bytes it took, 0 if the
    /// frame is not whole; it must refuse a frame that promises to be longer than the protocol's limit, and with
    /// `bytes_max` what is kept is bounded whatever it does.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        bytes_max: usize,
        mut frame: impl FnMut(&[u8]) -> Result<usize, ProtocolFault>,
    ) -> Result<(), ProtocolFault> {
        if self.kept.is_empty() {
            let rest = take_all(bytes, &mut frame)?;
            self.kept.extend_from_slice(rest);
        } else {
            self.kept.extend_from_slice(bytes);
            let left = take_all(&self.kept, &mut frame)?.len();
            self.kept.drain(..self.kept.len() - left);
        }
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
        if self.kept.len() > bytes_max {
            return Err(fault(format!("a frame of more than {bytes_max} bytes")));
        }
        Ok(())
    }
}

fn take_all<'a>(
    mut bytes: &'a [u8],
    frame: &mut impl FnMut(&[u8]) -> Result<usize, ProtocolFault>,
) -> Result<&'a [u8], ProtocolFault> {
    while !bytes.is_empty() {
        match frame(bytes)? {
            0 => break,
            taken => bytes = bytes.get(taken..).expect("a frame takes no more than there is"),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of a length byte and so many bytes.
    fn cut(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, ProtocolFault> {
        let (mut partial, mut frames) = (Partial::default(), Vec::new());
        for piece in pieces {
            partial.feed(piece, 4, |bytes| {
                let length = usize::from(bytes[0]);
                let Some(frame) = bytes.get(1..=length) else { return Ok(0) };
                frames.push(frame.to_vec());
                Ok(length + 1)
            })?;
        }
        assert_eq!(partial.kept.capacity(), 0, "nothing is held between frames");
        Ok(frames)
    }

    #[test]
    fn frames_come_whole_wherever_they_are_cut() {
        let stream = [2, 7, 8, 0, 3, 1, 2, 3, 1, 9];
        let whole = cut(&[&stream]).expect("whole");
        assert_eq!(whole, [vec![7, 8], vec![], vec![1, 2, 3], vec![9]]);
        for at in 0..stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(cut(&[head, tail]).as_ref(), Ok(&whole), "cut at {at}");
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(cut(&single), Ok(whole));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut partial = Partial::default();
        assert!(partial.feed(&[1; 4], 4, |_| Ok(0)).is_ok());
        assert!(partial.feed(&[1], 4, |_| Ok(0)).is_err());
    }
}
