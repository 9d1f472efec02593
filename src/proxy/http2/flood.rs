//! How much of nothing a client may send, and how often it may ask and not want the answer
//! (RFC 9113, 10.5). Pure.

/// For how many seconds is counted.
const SECONDS: usize = 10;

/// The most frames in that time that ask for nothing but work: pings, settings, and empty ones.
const CONTROL: u32 = 100;

/// The most streams in that time that are reset before their answer's head; and more than half of
/// all have to be.
const RESETS: u32 = 1000;

/// What one connection has sent lately.
#[derive(Debug, Default)]
pub(super) struct Flood {
    control: Recent,
    begun: Recent,
    reset: Recent,
}

/// A frame's header (RFC 9113, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHeader {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    /// ACK of settings and pings, END_STREAM of data and headers.
    const FIRST_FLAG: u8 = 1;

    /// The header in these nine bytes.
    pub(super) fn of(bytes: [u8; 9]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        Self { length, kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }
    }

    /// Whether it says how the client speaks.
    pub(super) fn is_settings(&self) -> bool {
        self.kind == Self::SETTINGS && self.flags & Self::FIRST_FLAG == 0
    }

    /// Whether it asks for nothing but work.
    fn is_control(&self) -> bool {
        let first = self.flags & Self::FIRST_FLAG != 0;
        match self.kind {
            // portok itself sends one ping at most, where a connection ends politely.
            Self::PING => true,
            Self::SETTINGS => !first,
            Self::DATA | Self::HEADERS => self.length == 0 && !first,
            Self::CONTINUATION => self.length == 0,
            _ => false,
        }
    }
}

impl Flood {
    /// A frame comes in this second. Whether it is one too many.
    pub(super) fn frame(&mut self, header: FrameHeader, second: u64) -> bool {
        header.is_control() && self.control.add(second) > CONTROL
    }

    /// A stream begins.
    pub(super) fn begun(&mut self, second: u64) {
        self.begun.add(second);
    }

    /// A stream was reset before its answer's head. Whether it is one too many.
    pub(super) fn reset(&mut self, second: u64) -> bool {
        let resets = self.reset.add(second);
        resets > RESETS && resets > self.begun.sum(second) / 2
    }
}

/// How often something was in the last seconds.
#[derive(Debug, Default)]
struct Recent {
    counts: [u32; SECONDS],
    /// The second that was counted last.
    last: u64,
}

impl Recent {
    /// Once more, in this second. Returns how often in all.
    fn add(&mut self, second: u64) -> u32 {
        self.forget(second);
        let count = &mut self.counts[place(second)];
        *count = count.saturating_add(1);
        self.counts.iter().sum()
    }

    fn sum(&mut self, second: u64) -> u32 {
        self.forget(second);
        self.counts.iter().sum()
    }

    /// Forgets what was too long ago.
    fn forget(&mut self, second: u64) {
        let passed = second.saturating_sub(self.last).min(SECONDS as u64);
        for past in 0..passed {
            self.counts[place(second - past)] = 0;
        }
        self.last = self.last.max(second);
    }
}

fn place(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8, length: u32, flags: u8) -> FrameHeader {
        FrameHeader { length, kind, flags, stream: 1 }
    }

    #[test]
    fn a_header_is_read_and_the_reserved_bit_passed_over() {
        let bytes = [0, 64, 1, 6, 1, 0x80, 0, 1, 2];
        assert_eq!(FrameHeader::of(bytes), FrameHeader { length: 16385, kind: 6, flags: 1, stream: 258 });
    }

    #[test]
    fn what_asks_for_nothing_but_work_is_counted() {
        for (frame, counts) in [
            (header(FrameHeader::PING, 8, 0), true),
            (header(FrameHeader::PING, 8, 1), true),
            (header(FrameHeader::SETTINGS, 0, 0), true),
            (header(FrameHeader::SETTINGS, 0, 1), false),
            (header(FrameHeader::DATA, 0, 0), true),
            (header(FrameHeader::DATA, 0, 1), false),
            (header(FrameHeader::DATA, 1, 0), false),
            (header(FrameHeader::HEADERS, 0, 4), true),
            (header(FrameHeader::CONTINUATION, 0, 4), true),
            (header(FrameHeader::WINDOW_UPDATE, 4, 0), false),
        ] {
            let mut flood = Flood::default();
            let too_many = (0..=CONTROL).map(|_| flood.frame(frame, 7)).last();
            assert_eq!(too_many, Some(counts), "{frame:?}");
        }
    }

    #[test]
    fn what_was_ten_seconds_ago_is_forgotten() {
        let mut flood = Flood::default();
        let ping = header(FrameHeader::PING, 8, 0);
        // Ten a second are as many as may be.
        assert!((0..1000).all(|number| !flood.frame(ping, number / 10)));
        assert!(flood.frame(ping, 99));
        assert!(!flood.frame(ping, 101));
        assert!(!flood.frame(ping, 10_000));
    }

    #[test]
    fn resets_are_too_many_where_most_streams_are_reset() {
        let (mut few, mut most) = (Flood::default(), Flood::default());
        for number in 0..=RESETS {
            let second = u64::from(number / 500);
            (0..3).for_each(|_| few.begun(second));
            most.begun(second);
            assert!(!few.reset(second));
            assert_eq!(most.reset(second), number == RESETS);
        }
    }
}
