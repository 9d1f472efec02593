//! What hyper is given of a client's bytes, message by message, and a request's target as the client wrote it.
//!
//! hyper refuses or changes bytes of a target that are an app's business (`<`, Latin-1), and forgets what it read. So the
//! gate stands before it: it keeps the target, writes `~` for each of its bytes that hyper would not read, and lets no byte of
//! the next request pass before the current one is answered. Where a body ends it knows from who judged the head: two readers that
//! disagree are never asked. What it does not understand passes as it came, and is hyper's to refuse.
//!
//! A pure machine over the bytes as they come, however they are cut.

use crate::http1::fields;

/// The longest part of a target that is kept. hyper reads no longer head.
const MOST: usize = 1 << 20;

/// Bytes of a target that hyper reads and keeps as they are. Controls and space are its to refuse.
const PLAIN: [bool; 256] = fields::table(b"-._~!$&'()*+,;=:@/?%[]");

/// The body of a request, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
}

/// See the file's head.
#[derive(Debug)]
pub(super) struct Gate {
    place: Place,
    target: Vec<u8>,
    /// The request that passes is not answered yet: the next one waits.
    busy: bool,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request. Line ends there mean nothing.
    Before,
    Method,
    Target,
    /// Behind the target, in a line that is blank so far or not.
    Head {
        blank: bool,
    },
    /// Behind a head, until somebody says what body follows.
    Judged,
    /// In a body, with so much left.
    Data(u64),
    Chunked(Chunked),
    /// Behind a request.
    Whole,
    /// Somewhere unknown: everything passes.
    Lost,
}

/// Where in a chunked body (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunked {
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    /// Before the line feed behind a chunk.
    DataFeed,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    TrailerLine,
    TrailerFeed,
    LastFeed,
}

impl Default for Gate {
    fn default() -> Self {
        Self { place: Place::Before, target: Vec::new(), busy: false }
    }
}

impl Gate {
    /// How many of `bytes`, which come next, may pass now. Those of a target may be others afterwards.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                Place::Lost => return bytes.len(),
                Place::Judged => break,
                Place::Whole if self.busy => break,
                Place::Whole => self.place = Place::Before,
                Place::Data(left) | Place::Chunked(Chunked::Data(left)) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += taken;
                    self.place = self.place.behind(left - taken as u64);
                }
                Place::Head { .. } => at += self.head(&bytes[at..]),
                Place::Before | Place::Method | Place::Target | Place::Chunked(_) => {
                    self.byte(&mut bytes[at]);
                    at += 1;
                }
            }
        }
        at
    }

    fn byte(&mut self, byte: &mut u8) {
        self.place = match (self.place, *byte) {
            (Place::Before, b'\r' | b'\n') => Place::Before,
            (Place::Before, _) => {
                self.target.clear();
                Place::Method
            }
            (Place::Method, b' ') => Place::Target,
            (Place::Target, b' ') => Place::Head { blank: false },
            (Place::Method | Place::Target, b'\r' | b'\n') => Place::Lost,
            (Place::Target, _) if self.target.len() == MOST => Place::Lost,
            (Place::Target, _) => {
                self.target.push(*byte);
                if byte.is_ascii_graphic() && !PLAIN[usize::from(*byte)] || !byte.is_ascii() {
                    *byte = b'~';
                }
                Place::Target
            }
            (Place::Chunked(chunked), byte) => chunked.behind(byte),
            (place, _) => place,
        };
    }

    /// Looks at the fields; how many bytes belong to the head.
    fn head(&mut self, bytes: &[u8]) -> usize {
        let Place::Head { mut blank } = self.place else { return 0 };
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if blank => {
                    self.place = Place::Judged;
                    self.busy = true;
                    return at + 1;
                }
                b'\n' => blank = true,
                b'\r' => (),
                _ => blank = false,
            }
        }
        self.place = Place::Head { blank };
        bytes.len()
    }

    /// The target of the request whose head has passed, told once; `None` where the head was not understood.
    pub(super) fn take_target(&mut self) -> Option<Vec<u8>> {
        (self.place == Place::Judged).then(|| std::mem::take(&mut self.target))
    }

    /// What body the request has whose head has passed.
    pub(super) fn judged(&mut self, body: Body) {
        self.place = match (self.place, body) {
            (Place::Judged, Body::Length(0)) => Place::Whole,
            (Place::Judged, Body::Length(length)) => Place::Data(length),
            (Place::Judged, Body::Chunked) => Place::Chunked(Chunked::Size(0)),
            _ => Place::Lost,
        };
    }

    /// The request is answered: the next one may pass.
    pub(super) fn answered(&mut self) {
        self.busy = false;
    }
}

impl Place {
    /// Where it goes on when of a part of a body so much is left.
    fn behind(self, left: u64) -> Self {
        match (self, left) {
            (Self::Chunked(_), 0) => Self::Chunked(Chunked::DataEnd),
            (Self::Chunked(_), left) => Self::Chunked(Chunked::Data(left)),
            (_, 0) => Self::Whole,
            (_, left) => Self::Data(left),
        }
    }
}

impl Chunked {
    fn behind(self, byte: u8) -> Place {
        let next = match (self, byte) {
            (Self::Size(size) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
            (Self::Size(size), b';' | b' ' | b'\t') => Self::Extension(size),
            (Self::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).map(u64::from);
                match digit.and_then(|digit| size.checked_mul(16)?.checked_add(digit)) {
                    Some(size) => Self::Size(size),
                    None => return Place::Lost,
                }
            }
            (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
            (Self::SizeEnd(0), b'\n') => Self::Trailer,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataEnd, b'\r') => Self::DataFeed,
            (Self::DataFeed, b'\n') => Self::Size(0),
            (Self::Trailer, b'\r') => Self::LastFeed,
            (Self::TrailerLine, b'\r') => Self::TrailerFeed,
            (Self::Trailer | Self::TrailerLine, byte) if byte != b'\n' => Self::TrailerLine,
            (Self::TrailerFeed, b'\n') => Self::Trailer,
            (Self::LastFeed, b'\n') => return Place::Whole,
            _ => return Place::Lost,
        };
        Place::Chunked(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What passes of `requests`, each with the body that it has, in pieces of `size` bytes; and the targets.
    fn passed(requests: &[(&[u8], Body)], size: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let all: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let mut pieces: std::collections::VecDeque<_> = all.chunks(size).map(<[u8]>::to_vec).collect();
        let (mut gate, mut messages, mut targets) = (Gate::default(), Vec::new(), Vec::new());
        for (_, body) in requests {
            let (mut message, mut judged) = (Vec::new(), false);
            while let Some(mut piece) = pieces.pop_front() {
                let count = gate.pass(&mut piece);
                message.extend_from_slice(&piece[..count]);
                if count < piece.len() {
                    pieces.push_front(piece.split_off(count));
                }
                match gate.place {
                    Place::Judged if !judged => {
                        judged = true;
                        targets.push(gate.take_target().unwrap());
                        gate.judged(*body);
                    }
                    Place::Whole if count == 0 || pieces.is_empty() => break,
                    _ => (),
                }
            }
            gate.answered();
            messages.push(message);
        }
        (messages, targets)
    }

    proptest! {
        #[test]
        fn a_message_passes_before_the_next_and_with_a_target_that_hyper_reads(size in 1_usize..90) {
            let requests: [(&[u8], Body); 6] = [
                (b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", Body::Length(0)),
                (b"\r\nPOST /<\"\xfc#?{>` HTTP/1.1\r\nhost: a\r\n\r\nGET /<", Body::Length(6)),
                (b"GET http://[::1]/ HTTP/1.1\nhost: a\n\n", Body::Length(0)),
                (b"PUT /c HTTP/1.1\r\n\r\n2;<=\"\r\n<<\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nx: <\r\n\r\n", Body::Chunked),
                (b"PUT /d HTTP/1.1\r\n\r\n0\r\n\r\n", Body::Chunked),
                (b"GET /e| HTTP/1.1\r\n\r\n", Body::Length(0)),
            ];
            let (messages, targets) = passed(&requests, size);
            let expected: [&[u8]; 6] = [
                requests[0].0,
                b"\r\nPOST /~~~~?~~~ HTTP/1.1\r\nhost: a\r\n\r\nGET /<",
                requests[2].0,
                requests[3].0,
                requests[4].0,
                b"GET /e~ HTTP/1.1\r\n\r\n",
            ];
            prop_assert_eq!(messages, expected.map(<[u8]>::to_vec).to_vec());
            let asked: [&[u8]; 6] =
                [b"/a", b"/<\"\xfc#?{>`", b"http://[::1]/", b"/c", b"/d", b"/e|"];
            prop_assert_eq!(targets, asked.map(<[u8]>::to_vec).to_vec());
        }

        #[test]
        fn any_bytes_pass_or_wait(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut gate = Gate::default();
            let passed = gate.pass(&mut bytes);
            prop_assert!(passed == bytes.len() || gate.place == Place::Judged);
        }
    }
}
