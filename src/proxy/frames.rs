//! Where one WebSocket frame ends and the next begins (RFC 6455, 5.2), in one direction. Pure.
//!
//! Bytes pass untouched; of each frame only the head is looked at, for its length. Extensions
//! change what is in a frame and not where it ends. Whatever comes is followed: bytes that are no
//! frames have borders as good as any.

/// A close frame as a server sends it: unmasked, with the status 1012, "service restart".
pub(super) const CLOSE_1012: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];

/// The opcode of a close frame.
const CLOSE: u8 = 0x8;

/// Follows the frames that one side sends.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come of the head of the frame under way.
    head: [u8; 10],
    read: usize,
    /// How many bytes of the frame under way are still to come behind its head.
    left: u64,
    /// A close frame has begun: it is the last.
    closing: bool,
}

impl Frames {
    /// Whether a frame has just ended, or none has begun.
    pub(super) fn is_at_border(&self) -> bool {
        self.read == 0 && self.left == 0
    }

    /// Whether the side has said that it is done: after its close frame no other may come.
    pub(super) fn has_closed(&self) -> bool {
        self.closing && self.is_at_border()
    }

    /// Follows `bytes`, which pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let step = self.step(bytes);
            bytes = &bytes[step..];
        }
    }

    /// How many of `bytes` belong to the frame under way; none where one has just ended. Follows
    /// these alone: they pass, and the rest does not.
    pub(super) fn pass_to_border(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.is_at_border() {
            passed += self.step(&bytes[passed..]);
        }
        passed
    }

    /// Follows some bytes, at least one of the frame under way or the next.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= count as u64;
            return count;
        }
        self.head[self.read] = bytes[0];
        self.read += 1;
        if let Some((payload, masked)) = self.told() {
            self.closing |= self.head[0] & 0x0F == CLOSE;
            self.read = 0;
            self.left = payload.saturating_add(if masked { 4 } else { 0 });
        }
        1
    }

    /// The length of the payload, and whether a mask of four bytes comes before it, once the head
    /// has come so far.
    fn told(&self) -> Option<(u64, bool)> {
        let Self { head, read, .. } = self;
        let masked = head[1] & 0x80 != 0;
        let length = match (head[1] & 0x7F, *read) {
            (_, 0 | 1) => return None,
            (126, 4) => u64::from(u16::from_be_bytes([head[2], head[3]])),
            (127, 10) => u64::from_be_bytes(std::array::from_fn(|at| head[2 + at])),
            (126 | 127, _) => return None,
            (length, _) => u64::from(length),
        };
        Some((length, masked))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of `length` bytes of payload, with the first byte `first`.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match length {
            0..=125 => bytes.push(bit | length as u8),
            126..=0xFFFF => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        // Whatever is in a frame, it may look like the head of one.
        bytes.resize(bytes.len() + length + if masked { 4 } else { 0 }, 0x88);
        bytes
    }

    #[test]
    fn frames_of_every_length_end_where_they_end() {
        for length in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 70_000] {
            for masked in [false, true] {
                let bytes = frame(0x82, length, masked);
                let mut frames = Frames::default();
                assert!(frames.is_at_border());
                frames.pass(&bytes[..bytes.len() - 1]);
                assert!(!frames.is_at_border(), "{length} {masked}");
                frames.pass(&bytes[bytes.len() - 1..]);
                assert!(frames.is_at_border() && !frames.has_closed(), "{length} {masked}");
            }
        }
    }

    #[test]
    fn a_close_frame_is_the_last_once_it_is_whole() {
        let mut frames = Frames::default();
        frames.pass(&CLOSE_1012[..3]);
        assert!(!frames.has_closed());
        frames.pass(&CLOSE_1012[3..]);
        assert!(frames.has_closed());
        assert_eq!(u16::from_be_bytes([CLOSE_1012[2], CLOSE_1012[3]]), 1012);
    }

    #[test]
    fn a_length_beyond_all_bounds_never_ends() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        frames.pass(&[0; 1000]);
        assert_eq!((frames.is_at_border(), frames.pass_to_border(&[0; 10])), (false, 10));
    }

    proptest! {
        #[test]
        fn borders_are_found_however_the_bytes_come(
            lengths in proptest::collection::vec((0_usize..300, any::<bool>()), 1..20),
            size in 1_usize..200,
            at in 0_usize..2_000,
        ) {
            let all: Vec<_> = lengths.iter().map(|(length, masked)| frame(0x81, *length, *masked)).collect();
            let mut borders = vec![0];
            for frame in &all {
                borders.push(borders.last().unwrap() + frame.len());
            }
            let bytes = all.concat();
            let mut frames = Frames::default();
            let mut passed = 0;
            for piece in bytes.chunks(size) {
                frames.pass(piece);
                passed += piece.len();
                prop_assert_eq!(frames.is_at_border(), borders.contains(&passed));
            }
            // From any place the way to the next border is found.
            let at = at.min(bytes.len());
            let mut frames = Frames::default();
            frames.pass(&bytes[..at]);
            let next = *borders.iter().find(|border| **border >= at).unwrap();
            prop_assert_eq!(frames.pass_to_border(&bytes[at..]), next - at);
        }
    }
}
