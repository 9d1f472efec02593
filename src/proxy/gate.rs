//! What hyper gets of a client's bytes, one message at a time, and a request's target as the client
//! wrote it.
//!
//! hyper refuses or changes bytes of a target that are the app's business (`<`, Latin-1), and
//! forgets what it read. So the gate stands before it. It keeps the target, writes `~` for each
//! byte that hyper would not read, and lets no byte of the next request pass before the current one
//! is answered. It finds where a body ends from the lines of the head, so that a body passes
//! together with its head and is never copied. The judge says the same later; if it does not, the
//! gate understands nothing any more. What the gate does not understand passes unchanged, and hyper
//! or the judge refuses it.
//!
//! A pure machine over the bytes as they come, in pieces of any size.

use crate::http1::fields::{self, Kind};

/// The longest part of a target that is kept. hyper reads no longer head.
const MOST: usize = 1 << 20;

/// The longest target whose memory is kept for the next one.
const KEPT: usize = 256;

/// How much of a line of a head is looked at.
const LONGEST_LINE: usize = 128;

/// Bytes of a target that hyper reads and keeps as they are. Controls and space are its to refuse.
const PLAIN: [bool; 256] = fields::table(b"-._~!$&'()*+,;=:@/?%[]");

/// The body of a request, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    Length(u64),
    Chunked,
}

/// What stands between a client and hyper; see the module.
#[derive(Debug)]
pub(super) struct Gate {
    place: Place,
    target: Vec<u8>,
    /// The line of the head that has begun, as far as it may tell about a body.
    line: Vec<u8>,
    /// What the lines so far tell of the body.
    told: Told,
    /// The head has passed and nobody has judged it yet.
    unjudged: bool,
    /// The request that passes is not answered yet: the next one waits.
    busy: bool,
}

/// What a head tells of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Body(BodyFraming),
    /// More than one thing, or something odd: the judge knows.
    Unclear,
}

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a request. Line ends there mean nothing.
    Before,
    Method,
    Target,
    /// Behind the target, in the request's line.
    RestOfLine,
    /// In a line with a field, or in the blank one.
    Fields,
    /// Behind a head that does not tell for sure what body follows, until the judge says it.
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
        let (target, line, told) = (Vec::new(), Vec::new(), Told::Body(BodyFraming::Length(0)));
        Self { place: Place::Before, target, line, told, unjudged: false, busy: false }
    }
}

impl Gate {
    /// A gate that a head with this target has passed.
    pub(super) fn behind(target: Vec<u8>) -> Self {
        Self { place: Place::Judged, target, unjudged: true, ..Self::default() }
    }

    /// How many of `bytes`, which come next, may pass now. Those of a target may be others
    /// afterwards.
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
                Place::RestOfLine | Place::Fields => at += self.head(&bytes[at..]),
                Place::Method => at += self.method(&bytes[at..]),
                Place::Before | Place::Target | Place::Chunked(_) => {
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
                self.line.clear();
                self.told = Told::Body(BodyFraming::Length(0));
                Place::Method
            }
            (Place::Target, b' ') => Place::RestOfLine,
            (Place::Target, b'\r' | b'\n') => Place::Lost,
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

    /// Passes the method over; how many bytes belong to it, with the space behind it.
    fn method(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = bytes.iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n')) else {
            return bytes.len();
        };
        self.place = if bytes[end] == b' ' { Place::Target } else { Place::Lost };
        end + 1
    }

    /// Looks at the fields, line by line; how many bytes belong to the head.
    fn head(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (part, behind) = (&rest[..end], &rest[end + 1..]);
            if self.line.is_empty() {
                // Most lines come whole and are not copied.
                self.look_at_line(part);
            } else {
                self.keep_of_line(part);
                let line = std::mem::take(&mut self.line);
                self.look_at_line(&line);
                self.line = line;
                self.line.clear();
            }
            rest = behind;
            if self.place != Place::Fields {
                return bytes.len() - rest.len();
            }
        }
        self.keep_of_line(rest);
        bytes.len()
    }

    /// Keeps a part of a line, but no more than the longest that tells a body's length.
    fn keep_of_line(&mut self, part: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// A line of the head is over, which is `line` as far as it is kept.
    fn look_at_line(&mut self, line: &[u8]) {
        if self.place == Place::RestOfLine {
            self.place = Place::Fields;
        } else if matches!(line, b"" | b"\r") {
            (self.unjudged, self.busy) = (true, true);
            self.place = match self.told {
                Told::Body(body) => Place::of(body),
                Told::Unclear => Place::Judged,
            };
        } else if may_tell(line) {
            self.note_body(line);
        }
    }

    /// What the line tells of the body.
    fn note_body(&mut self, line: &[u8]) {
        // A name with a blank beside it is hyper's to refuse, as a line that goes on is.
        let ends = ["content-length", "transfer-encoding"].map(str::len);
        let Some(colon) = ends.into_iter().find(|&end| line.get(end) == Some(&b':')) else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let told = match Kind::of(name) {
            // Not looked at to its end.
            Kind::ContentLength | Kind::TransferEncoding if line.len() >= LONGEST_LINE => None,
            Kind::ContentLength => fields::decimal(value).map(BodyFraming::Length),
            Kind::TransferEncoding => value.eq_ignore_ascii_case(b"chunked").then_some(BodyFraming::Chunked),
            _ => return,
        };
        self.told = match (self.told, told) {
            (Told::Body(BodyFraming::Length(0)), Some(body)) => Told::Body(body),
            _ => Told::Unclear,
        };
    }

    /// The target of the request whose head has passed, told once; `None` where the head was not
    /// understood.
    pub(super) fn take_target(&mut self) -> Option<Vec<u8>> {
        (self.unjudged && self.place != Place::Lost).then(|| std::mem::take(&mut self.target))
    }

    /// Takes the memory of a target back, for the next one.
    pub(super) fn give_back(&mut self, target: Vec<u8>) {
        if target.capacity() <= KEPT {
            self.target = target;
        }
    }

    /// What body the request has whose head has passed.
    pub(super) fn judged(&mut self, body: BodyFraming) {
        let unjudged = std::mem::take(&mut self.unjudged);
        self.place = match self.place {
            Place::Judged if unjudged => Place::of(body),
            place if unjudged && self.told == Told::Body(body) => place,
            _ => Place::Lost,
        };
    }

    /// The request is answered: the next one may pass.
    pub(super) fn answered(&mut self) {
        self.busy = false;
    }
}

/// Whether a line, told by its first byte, may tell of a body.
fn may_tell(line: &[u8]) -> bool {
    matches!(line, [b'c' | b'C' | b't' | b'T', ..])
}

impl Place {
    /// Before a body.
    fn of(body: BodyFraming) -> Self {
        match body {
            BodyFraming::Length(0) => Self::Whole,
            BodyFraming::Length(length) => Self::Data(length),
            BodyFraming::Chunked => Self::Chunked(Chunked::Size(0)),
        }
    }

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

    /// What passes of `requests`, each with the body that it has, in pieces of `size` bytes; and
    /// the targets.
    fn passed(requests: &[(&[u8], BodyFraming)], size: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
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
                if gate.unjudged && !judged {
                    judged = true;
                    targets.push(gate.take_target().unwrap());
                    gate.judged(*body);
                }
                match gate.place {
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
            let long = format!("PUT /g HTTP/1.1\r\ncontent-length: {}1\r\n\r\n<", "0".repeat(2 * LONGEST_LINE)).into_bytes();
            let requests: [(&[u8], BodyFraming); 8] = [
                (b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", BodyFraming::Length(0)),
                (b"\r\nPOST /<\"\xfc#?{>` HTTP/1.1\r\nContent-Length: 6\r\n\r\nGET /<", BodyFraming::Length(6)),
                (b"GET http://[::1]/ HTTP/1.1\nhost: a\n\n", BodyFraming::Length(0)),
                (b"PUT /c HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2;<=\"\r\n<<\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nx: <\r\n\r\n", BodyFraming::Chunked),
                (b"PUT /d HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length: 9\r\n\r\n0\r\n\r\n", BodyFraming::Chunked),
                (b"PUT /f HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n<<<", BodyFraming::Length(3)),
                (&long, BodyFraming::Length(1)),
                (b"GET /e| HTTP/1.1\r\n\r\n", BodyFraming::Length(0)),
            ];
            let (messages, targets) = passed(&requests, size);
            let expected: [&[u8]; 8] = [
                requests[0].0,
                b"\r\nPOST /~~~~?~~~ HTTP/1.1\r\nContent-Length: 6\r\n\r\nGET /<",
                requests[2].0,
                requests[3].0,
                requests[4].0,
                requests[5].0,
                requests[6].0,
                b"GET /e~ HTTP/1.1\r\n\r\n",
            ];
            prop_assert_eq!(messages, expected.map(<[u8]>::to_vec).to_vec());
            let asked: [&[u8]; 8] =
                [b"/a", b"/<\"\xfc#?{>`", b"http://[::1]/", b"/c", b"/d", b"/f", b"/g", b"/e|"];
            prop_assert_eq!(targets, asked.map(<[u8]>::to_vec).to_vec());
        }

        #[test]
        fn a_judge_who_reads_another_body_is_the_last_to_be_asked(length in 0_u64..9) {
            let mut gate = Gate::default();
            let mut bytes = b"PUT / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n".to_vec();
            let passed = gate.pass(&mut bytes);
            prop_assert!(gate.take_target().is_some());
            gate.judged(BodyFraming::Length(length));
            gate.answered();
            gate.pass(&mut bytes[passed..]);
            prop_assert_eq!(gate.take_target().is_some(), length == 3);
        }

        #[test]
        fn any_bytes_pass_or_wait(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut gate = Gate::default();
            let passed = gate.pass(&mut bytes);
            prop_assert!(passed == bytes.len() || matches!(gate.place, Place::Judged | Place::Whole));
        }
    }
}
