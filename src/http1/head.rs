//! Reads the head of a response (RFC 9112). Pure and strict; the head may arrive in any pieces.
//!
//! What could be understood in two ways is [`Invalid`]: differing lengths, a length beside a
//! transfer coding, another coding than `chunked`, folded lines. It does not matter where the
//! fields go.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::fields::{self, Kind};

/// The longest head of a response, and the longest trailer, in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// How many interim answers may come before an answer.
pub(crate) const MAX_INTERIM: u32 = 64;

/// How many fields have room on the stack; the few heads with more get theirs from the heap.
const USUAL_FIELDS: usize = 128;

/// How many places are noted without an allocation. Fewer, because they are cleared each time.
const USUAL_PLACES: usize = 32;

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(pub(crate) &'static str);

/// How long the body is (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body, whatever the head says.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    Eof,
}

/// Where the fields of an answer go once its head is complete.
pub(crate) enum Fields<'a> {
    /// Into an empty map, whose memory is used.
    Map(&'a mut HeaderMap),
    /// As bytes, with the status line before them and without the empty line behind them. Costs 2k
    /// instructions less than filling a map and writing it again.
    Lines(&'a mut dyn Room),
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Map(_) => "Map",
            Self::Lines(_) => "Lines",
        })
    }
}

/// Gives the buffer for lines once they are there, so that a wait for an answer holds no buffer.
pub(crate) trait Room {
    fn lines(&mut self) -> &mut Vec<u8>;
}

/// The head of a response, without what concerns only the connection it came over.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// The reason phrase, where it is not the usual one. `None` if the fields went to lines.
    pub(crate) reason: Option<Bytes>,
    /// Empty if the fields went to lines.
    pub(crate) headers: HeaderMap,
    pub(crate) framing: Framing,
    /// Whether the connection may carry another exchange.
    pub(crate) keep_alive: bool,
    /// Whether it has a date.
    pub(crate) dated: bool,
    /// The value of a 101's `Upgrade`, its lines joined.
    pub(crate) upgrade: Option<HeaderValue>,
}

impl Head {
    /// Ends one whose fields went to lines. It holds no memory, and the glue that would look for
    /// some costs a plain request eighty instructions.
    #[inline]
    pub(crate) fn end_of_lines(self) {
        debug_assert!(self.reason.is_none() && self.headers.is_empty() && self.upgrade.is_none());
        std::mem::forget(self);
    }
}

/// What the received bytes are so far.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// An interim answer (1xx but 101). It is taken off the buffer.
    Interim,
    /// The answer's head. It is taken off the buffer.
    Head(Head),
}

/// Takes a head from the front of `buf`. `to_head`: it answers a `HEAD` request. `most`: how many
/// fields it may have.
pub(crate) fn parse(
    buf: &mut BytesMut,
    to_head: bool,
    most: usize,
    fields: &mut Fields<'_>,
) -> Result<Parsed, Invalid> {
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; USUAL_FIELDS];
    let mut more_room = Vec::new();
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let usual = &mut room[..most.min(USUAL_FIELDS)];
    let mut parsed = parser.parse_response_with_uninit_headers(&mut response, buf, usual);
    if parsed == Err(httparse::Error::TooManyHeaders) && most > USUAL_FIELDS {
        more_room.resize_with(most, MaybeUninit::uninit);
        parsed = parser.parse_response_with_uninit_headers(&mut response, buf, &mut more_room);
    }
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if buf.len() < MAX_HEAD => return Ok(Parsed::Partial),
        Ok(_) => return Err(Invalid("the head is too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(Invalid("the head has too many fields")),
        Err(_) => return Err(Invalid("the head cannot be read")),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(Invalid("the head has no status"));
    };
    let status =
        StatusCode::from_u16(status).map_err(|_| Invalid("the status is not a number from 100 to 999"))?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        buf.advance(length);
        return Ok(Parsed::Interim);
    }
    let mut draft = Draft::new(minor, status);
    for field in &*response.headers {
        draft.look_at(field.name.as_bytes(), field.value)?;
    }
    let mut head = draft.finish(to_head)?;
    match fields {
        Fields::Lines(room) => {
            let out = room.lines();
            status_line(out, status, response.reason);
            for field in &*response.headers {
                if draft.passes(field.name.as_bytes()) {
                    fields::field(out, field.name.as_bytes(), field.value);
                }
            }
            buf.advance(length);
        }
        Fields::Map(map) => {
            let start = buf.as_ptr().addr();
            let (mut usual, mut more) = ([Place::default(); USUAL_PLACES], Vec::new());
            let places = match response.headers.len() {
                count if count > USUAL_PLACES => {
                    more.resize(count, Place::default());
                    &mut more[..]
                }
                _ => &mut usual[..],
            };
            let reason = unusual_reason(status, response.reason, start)?;
            let count = note_places(places, response.headers, &mut draft, start)?;
            let bytes = buf.split_to(length).freeze();
            head.headers = std::mem::take(map);
            fill(&mut head.headers, &bytes, &places[..count])?;
            head.reason = reason.map(|reason| bytes.slice(reason.range()));
        }
    }
    Ok(Parsed::Head(head))
}

/// Where the reason phrase stands, if it is not the usual one. For a status without a usual phrase
/// that is also an empty one, because hyper would make one up.
fn unusual_reason(status: StatusCode, given: Option<&str>, start: usize) -> Result<Option<Span>, Invalid> {
    let given = given.unwrap_or("");
    let is_told = status.canonical_reason().is_none_or(|usual| !given.is_empty() && given != usual);
    is_told.then(|| Span::of(start, given.as_bytes())).transpose()
}

/// Notes where the fields that pass stand. Returns how many there are.
fn note_places(
    places: &mut [Place],
    fields: &[httparse::Header<'_>],
    draft: &mut Draft,
    start: usize,
) -> Result<usize, Invalid> {
    let mut count = 0;
    for field in fields {
        let (name, value) = (field.name.as_bytes(), field.value);
        if draft.passes(name) {
            places[count] = Place { name: Span::of(start, name)?, value: Span::of(start, value)? };
            count += 1;
        }
    }
    Ok(count)
}

/// Puts the noted fields into `map`.
fn fill(map: &mut HeaderMap, head: &Bytes, places: &[Place]) -> Result<(), Invalid> {
    map.reserve(places.len());
    for place in places {
        let name = HeaderName::from_bytes(&head[place.name.range()])
            .map_err(|_| Invalid("a field has no valid name"))?;
        map.append(name, value_of(head.slice(place.value.range()))?);
    }
    Ok(())
}

fn value_of(bytes: Bytes) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_maybe_shared(bytes).map_err(|_| Invalid("a field has no valid value"))
}

/// Writes the status line of an answer. Without a phrase it gets the usual one.
pub(crate) fn status_line(out: &mut Vec<u8>, status: StatusCode, reason: Option<&str>) {
    let reason = reason.filter(|reason| !reason.is_empty()).or(status.canonical_reason()).unwrap_or("");
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Where in the head a field's name and value stand. Small, because many are made at once; its
/// range is enough for a head of [`MAX_HEAD`] bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    name: Span,
    value: Span,
}

/// A part of the head.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    at: u16,
    length: u16,
}

impl Span {
    /// The span of `part` in the head that begins at `start`.
    fn of(start: usize, part: &[u8]) -> Result<Self, Invalid> {
        let narrow = |number: usize| u16::try_from(number).map_err(|_| Invalid("the head is too long"));
        // An empty part may lie anywhere.
        let at = if part.is_empty() { 0 } else { part.as_ptr().addr() - start };
        Ok(Self { at: narrow(at)?, length: narrow(part.len())? })
    }

    fn range(self) -> Range<usize> {
        let at = usize::from(self.at);
        at..at + usize::from(self.length)
    }
}

/// What the fields seen so far say about the message.
#[derive(Default)]
struct Draft {
    minor: u8,
    status: StatusCode,
    length: Option<u64>,
    /// Whether the one length that passes has passed.
    length_passed: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    dated: bool,
    /// Whether some of the fields do not pass.
    drops: bool,
    /// How many options `Connection` has.
    options: usize,
    /// Fields named in `Connection`.
    nominated: Vec<HeaderName>,
    /// What a 101 says in `Upgrade`.
    upgrade: Vec<u8>,
}

impl Draft {
    fn new(minor: u8, status: StatusCode) -> Self {
        Self { minor, status, ..Self::default() }
    }

    /// Takes a field into account. httparse has already judged its bytes.
    fn look_at(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let kind = Kind::of(name);
        self.drops |= kind.is_hop_by_hop();
        match kind {
            Kind::Connection => {
                for token in fields::tokens(value) {
                    self.options += 1;
                    if self.options > fields::MOST_OPTIONS {
                        return Err(Invalid("connection has too many options"));
                    }
                    match token {
                        token if token.eq_ignore_ascii_case(b"close") => self.close = true,
                        token if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        token => self.nominated.extend(fields::nominated(token)),
                    }
                }
            }
            Kind::TransferEncoding => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Invalid("another transfer coding than chunked"));
                }
                self.chunked = true;
            }
            Kind::ContentLength => {
                let length = fields::decimal(value).ok_or(Invalid("content-length is not a number"))?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(Invalid("two differing content-lengths"));
                }
                self.drops |= self.length.replace(length).is_some() || self.has_no_length();
            }
            Kind::Upgrade if self.status == StatusCode::SWITCHING_PROTOCOLS => {
                if !self.upgrade.is_empty() {
                    self.upgrade.extend_from_slice(b", ");
                }
                self.upgrade.extend_from_slice(value);
            }
            Kind::Date => self.dated = true,
            _ => (),
        }
        Ok(())
    }

    /// Whether the field goes on to the client. Of several equal lengths only the first one does.
    fn passes(&mut self, name: &[u8]) -> bool {
        if !self.drops {
            return true;
        }
        let kind = Kind::of(name);
        if kind == Kind::ContentLength {
            return !std::mem::replace(&mut self.length_passed, true) && !self.has_no_length();
        }
        !kind.is_hop_by_hop() && !fields::is_among(&self.nominated, name)
    }

    /// Whether an answer with this status has no length (RFC 9110, 8.6).
    fn has_no_length(&self) -> bool {
        matches!(self.status, StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS)
    }

    /// The head without its fields.
    fn finish(&mut self, to_head: bool) -> Result<Head, Invalid> {
        if self.chunked && self.length.is_some() {
            return Err(Invalid("content-length beside transfer-encoding"));
        }
        if self.chunked && self.minor == 0 {
            return Err(Invalid("transfer-encoding in an HTTP/1.0 answer"));
        }
        if fields::is_among(&self.nominated, b"date") {
            self.dated = false;
        }
        let bodyless = to_head
            || matches!(
                self.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS
            );
        let framing = match self.length {
            _ if bodyless => Framing::None,
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::Eof,
        };
        let keep_alive = !self.close && (self.minor == 1 || self.keep_alive) && framing != Framing::Eof;
        let upgrade = std::mem::take(&mut self.upgrade);
        Ok(Head {
            status: self.status,
            reason: None,
            headers: HeaderMap::new(),
            framing,
            keep_alive,
            dated: self.dated,
            upgrade: (!upgrade.is_empty()).then(|| value_of(upgrade.into())).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 256;

    /// Parses what arrives in `parts`, behind interim answers: the head and what is left over.
    fn read<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
        to_head: bool,
    ) -> Result<Option<(Head, Vec<u8>)>, Invalid> {
        let (mut buf, mut map, mut got) = (BytesMut::new(), HeaderMap::new(), None);
        for part in parts {
            buf.extend_from_slice(part);
            while got.is_none() && !buf.is_empty() {
                match parse(&mut buf, to_head, MOST, &mut Fields::Map(&mut map))? {
                    Parsed::Partial => break,
                    Parsed::Interim => (),
                    Parsed::Head(head) => got = Some(head),
                }
            }
        }
        Ok(got.map(|head| (head, buf.to_vec())))
    }

    fn whole(bytes: &str) -> Head {
        read([bytes.as_bytes()], false).unwrap().unwrap().0
    }

    #[test]
    fn framing_and_reuse_follow_the_head() {
        for (head, framing, keep_alive) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", Framing::Length(7), true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 7\r\nContent-Length: 7\r\n\r\n", Framing::Length(7), true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: a, Close\r\n\r\n",
                Framing::Length(7),
                false,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::Eof, false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Framing::Length(0), false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::None, true),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", Framing::None, true),
            ("HTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Framing::None, true),
        ] {
            let parsed = whole(head);
            assert_eq!((parsed.framing, parsed.keep_alive), (framing, keep_alive), "{head}");
            assert!(parsed.headers.get_all("content-length").iter().count() <= 1);
        }
        let (head, _) = read([&b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"[..]], true).unwrap().unwrap();
        assert_eq!((head.framing, head.headers["content-length"].as_bytes()), (Framing::None, &b"7"[..]));
    }

    #[test]
    fn as_many_fields_as_are_allowed_are_read_and_no_more() {
        let with = |count: usize| {
            let fields: String = (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
            read([format!("HTTP/1.1 204 No Content\r\n{fields}\r\n").as_bytes()], false)
        };
        for count in [0, 1, USUAL_PLACES, USUAL_PLACES + 1, USUAL_FIELDS, USUAL_FIELDS + 1, MOST] {
            let (head, _) = with(count).unwrap().unwrap();
            assert_eq!(head.headers.len(), count);
            assert!(count == 0 || head.headers[format!("x-{}", count - 1)] == (count - 1).to_string());
        }
        assert!(with(MOST + 1).is_err());
    }

    #[test]
    fn a_101_tells_all_that_it_names() {
        let head = whole("HTTP/1.1 101 S\r\nupgrade: websocket\r\nUpgrade: h2c\r\n\r\n");
        assert_eq!(head.upgrade.unwrap(), "websocket, h2c");
        assert_eq!(whole("HTTP/1.1 426 U\r\nupgrade: h2c\r\n\r\n").upgrade, None);
    }

    #[test]
    fn connection_has_a_bounded_number_of_options() {
        let with = |count: usize| {
            let options = vec!["close"; count].join(",");
            read([format!("HTTP/1.1 200 OK\r\nconnection: {options}\r\n\r\n").as_bytes()], false)
        };
        assert!(with(fields::MOST_OPTIONS).is_ok() && with(fields::MOST_OPTIONS + 1).is_err());
    }

    #[test]
    fn only_an_unusual_reason_is_kept() {
        assert_eq!(whole("HTTP/1.1 200 OK\r\n\r\n").reason, None);
        assert_eq!(whole("HTTP/1.1 200 \r\n\r\n").reason, None);
        assert_eq!(whole("HTTP/1.1 299 Odd one\r\n\r\n").reason.unwrap(), "Odd one");
    }

    fn head() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just("HTTP/1.1 200 OK\r\n"),
            Just("HTTP/1.1 404 Gone fishing\r\n"),
            Just("HTTP/1.0 200 OK\r\n"),
            Just("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n"),
            Just("HTTP/1.1 20 OK\r\n"),
        ];
        let field = prop_oneof![
            Just("content-length: 5\r\n"),
            Just("Content-Length: 6\r\n"),
            Just("transfer-encoding: chunked\r\n"),
            Just("connection: close, x-a\r\n"),
            Just("x-a:  b \r\n"),
            Just("x-a: c\r\n"),
            Just("x : y\r\n"),
            Just("x: y\r\n z\r\n"),
            Just("x: \x01\r\n"),
        ];
        let fields = proptest::collection::vec(field, 0..5);
        (line, fields, prop_oneof![Just("\r\n"), Just("\r\nhello"), Just("\n"), Just("")])
            .prop_map(|(line, fields, end)| format!("{line}{}{end}", fields.concat()).into_bytes())
    }

    fn shown(read: Result<Option<(Head, Vec<u8>)>, Invalid>) -> Result<Option<String>, ()> {
        read.map(|read| read.map(|read| format!("{read:?}"))).map_err(drop)
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in head(), size in 1_usize..40) {
            prop_assert_eq!(shown(read(bytes.chunks(size), false)), shown(read([&bytes[..]], false)));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&b"HTTP/1.1 200 OK\r\n"[..], &bytes].concat();
            let _ = read(bytes.chunks(7), false);
        }
    }
}
