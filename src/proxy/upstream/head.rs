//! Reads the head of a response (RFC 9112): pure, strict, whatever the pieces it arrives in.
//!
//! What could be understood in two ways is [`Invalid`]: differing lengths, a length beside a transfer
//! coding, another coding than `chunked`, folded lines. The judgement is the same wherever the fields go.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::proxy::headers::{self, Kind};

/// The longest head of a response, and the longest trailer, in bytes.
pub(in crate::proxy) const MAX_HEAD: usize = 64 * 1024;

/// The most fields of a head or trailer.
pub(in crate::proxy) const MAX_FIELDS: usize = 128;

/// Why a response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::proxy) struct Invalid(pub(in crate::proxy) &'static str);

/// How long the body is (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Framing {
    /// There is none, whatever the head says.
    None,
    /// This many bytes.
    Length(u64),
    /// It says so itself.
    Chunked,
    /// Until the connection ends.
    Eof,
}

/// Where the fields of an answer go, when its head is complete.
pub(in crate::proxy) enum Fields<'a> {
    /// Into an empty map, whose memory is used.
    Map(&'a mut HeaderMap),
    /// As bytes, with the status line before them and without the empty line behind: 2k instructions less
    /// than a map that is filled and written down again.
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

/// Gives the buffer for lines when they are there: who waits for an answer holds none.
pub(in crate::proxy) trait Room {
    fn lines(&mut self) -> &mut Vec<u8>;
}

/// The head of a response, without what concerns only the connection it came over.
#[derive(Debug)]
pub(in crate::proxy) struct Head {
    pub(in crate::proxy) status: StatusCode,
    /// The reason phrase, where it is not the usual one. Not told beside lines.
    pub(in crate::proxy) reason: Option<Bytes>,
    /// Empty beside lines.
    pub(in crate::proxy) headers: HeaderMap,
    pub(in crate::proxy) framing: Framing,
    /// Whether the connection may carry another exchange.
    pub(in crate::proxy) keep_alive: bool,
    /// Whether it says when it was made.
    pub(in crate::proxy) dated: bool,
    /// What `Upgrade` said, for a 101.
    pub(in crate::proxy) upgrade: Option<HeaderValue>,
}

/// What a look at the received bytes gave.
#[derive(Debug)]
pub(in crate::proxy) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// An interim answer (1xx but 101), taken off and of no further interest.
    Interim,
    /// The answer's head, taken off.
    Head(Head),
}

/// Takes a head from the front of `buf`. `to_head`: it answers a `HEAD` request.
pub(in crate::proxy) fn parse(
    buf: &mut BytesMut,
    to_head: bool,
    fields: &mut Fields<'_>,
) -> Result<Parsed, Invalid> {
    let mut room = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parser = httparse::ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, buf, &mut room);
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
    let (framing, keep_alive) = draft.finish(to_head)?;
    let mut head = Head {
        status,
        reason: None,
        headers: HeaderMap::new(),
        framing,
        keep_alive,
        dated: draft.dated,
        upgrade: draft.upgrade.take(),
    };
    match fields {
        Fields::Lines(room) => {
            let out = room.lines();
            status_line(out, status, response.reason);
            for field in &*response.headers {
                if draft.passes(field.name.as_bytes()) {
                    headers::field(out, field.name.as_bytes(), field.value);
                }
            }
            buf.advance(length);
        }
        Fields::Map(map) => {
            let start = buf.as_ptr().addr();
            let given = response.reason.unwrap_or("");
            // Where no phrase is usual an empty one is told too: hyper would make one up.
            let is_told = status.canonical_reason().is_none_or(|usual| !given.is_empty() && given != usual);
            let reason = is_told.then_some(given);
            let reason = reason.map(|reason| Span::of(start, reason.as_bytes())).transpose()?;
            let mut places = [Place::default(); MAX_FIELDS];
            let mut count = 0;
            for field in &*response.headers {
                if draft.passes(field.name.as_bytes()) {
                    let (name, value) = (field.name.as_bytes(), field.value);
                    places[count] = Place { name: Span::of(start, name)?, value: Span::of(start, value)? };
                    count += 1;
                }
            }
            let bytes = buf.split_to(length).freeze();
            head.headers = std::mem::take(map);
            head.headers.reserve(count);
            for place in &places[..count] {
                let name = HeaderName::from_bytes(&bytes[place.name.range()])
                    .map_err(|_| Invalid("a field has no valid name"))?;
                head.headers.append(name, value_of(bytes.slice(place.value.range()))?);
            }
            head.reason = reason.map(|reason| bytes.slice(reason.range()));
        }
    }
    Ok(Parsed::Head(head))
}

fn value_of(bytes: Bytes) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_maybe_shared(bytes).map_err(|_| Invalid("a field has no valid value"))
}

/// Writes the line that an answer begins with; without a phrase it gets the usual one.
pub(in crate::proxy) fn status_line(out: &mut Vec<u8>, status: StatusCode, reason: Option<&str>) {
    let reason = reason.filter(|reason| !reason.is_empty()).or(status.canonical_reason()).unwrap_or("");
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Where in the head a field's name and value stand. Small, because many are made at once: no place in a head of
/// [`MAX_HEAD`] bytes is beyond its range.
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
    /// Of `part`, which lies in the head that begins at `start`.
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
struct Draft {
    minor: u8,
    status: StatusCode,
    length: Option<u64>,
    /// Whether the one length that passes has passed.
    told: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    dated: bool,
    /// Fields named in `Connection`.
    nominated: Vec<HeaderName>,
    upgrade: Option<HeaderValue>,
}

impl Draft {
    fn new(minor: u8, status: StatusCode) -> Self {
        let (length, nominated, upgrade) = (None, Vec::new(), None);
        let (told, chunked, close, keep_alive, dated) = (false, false, false, false, false);
        Self { minor, status, length, told, chunked, close, keep_alive, dated, nominated, upgrade }
    }

    /// Takes a field into account. httparse has judged its bytes.
    fn look_at(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        match Kind::of(name) {
            Kind::Connection => {
                for token in headers::tokens(value) {
                    match token {
                        token if token.eq_ignore_ascii_case(b"close") => self.close = true,
                        token if token.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                        token => self.nominated.extend(headers::nominated(token)),
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
                let length = headers::decimal(value).ok_or(Invalid("content-length is not a number"))?;
                if self.length.is_some_and(|known| known != length) {
                    return Err(Invalid("two differing content-lengths"));
                }
                self.length = Some(length);
            }
            Kind::Upgrade => self.upgrade = Some(value_of(Bytes::copy_from_slice(value))?),
            Kind::Date => self.dated = true,
            _ => (),
        }
        Ok(())
    }

    /// Whether the field goes on to the client; of several lengths that are the same, the first.
    fn passes(&mut self, name: &[u8]) -> bool {
        let kind = Kind::of(name);
        if kind == Kind::ContentLength {
            let bodyless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::SWITCHING_PROTOCOLS);
            return !std::mem::replace(&mut self.told, true) && !bodyless;
        }
        !kind.is_hop_by_hop() && !headers::is_among(&self.nominated, name)
    }

    fn finish(&mut self, to_head: bool) -> Result<(Framing, bool), Invalid> {
        if self.chunked && self.length.is_some() {
            return Err(Invalid("content-length beside transfer-encoding"));
        }
        if self.chunked && self.minor == 0 {
            return Err(Invalid("transfer-encoding in an HTTP/1.0 answer"));
        }
        if headers::is_among(&self.nominated, b"date") {
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
        Ok((framing, keep_alive))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses what arrives in `parts`, behind interim answers: the head and what is left over.
    fn read<'a>(
        parts: impl IntoIterator<Item = &'a [u8]>,
        to_head: bool,
    ) -> Result<Option<(Head, Vec<u8>)>, Invalid> {
        let (mut buf, mut map, mut got) = (BytesMut::new(), HeaderMap::new(), None);
        for part in parts {
            buf.extend_from_slice(part);
            while got.is_none() && !buf.is_empty() {
                match parse(&mut buf, to_head, &mut Fields::Map(&mut map))? {
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
