//! A raw, blocking client of HTTP/2: it sends exactly the frames of a test, and reads frames back.

use std::io;
use std::net::SocketAddr;

use super::hpack::{Decoder, Field};
use crate::corpus::case::bytes;
use crate::harness::Conn;

/// What a client begins with (RFC 9113, 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// `END_STREAM`, and `ACK` of settings and pings.
pub(crate) const END: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;
/// A whole head, with nothing behind it.
pub(crate) const ALONE: u8 = END | END_HEADERS;

/// Error codes (RFC 9113, 7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

// ---- frames ----

/// A frame of any kind.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn data(stream: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

pub(crate) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &block(fields))
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let values = values.iter().map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat());
    frame(SETTINGS, 0, 0, &values.collect::<Vec<_>>().concat())
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// The head of a plain request for `/x`, with more fields behind it.
pub(crate) fn plain<'a>(method: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let first = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", "/x")];
    [&first, more].concat()
}

/// A plain request.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    headers(stream, ALONE, &plain("GET", &[]))
}

/// The head of a request with a body.
pub(crate) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    headers(stream, END_HEADERS, &plain("POST", more))
}

/// A header block of literals that are kept in no table. A character of a text is a byte.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let literals = fields.iter().map(|(name, value)| [&[0], &*string(name), &*string(value)].concat());
    literals.collect::<Vec<_>>().concat()
}

/// A string that is not packed (RFC 7541, 5.2).
pub(crate) fn string(text: &str) -> Vec<u8> {
    let text = bytes(text);
    let mut out = integer(text.len(), 7);
    out.extend(text);
    out
}

/// An integer whose first byte has so many bits of it (RFC 7541, 5.1).
pub(crate) fn integer(value: usize, bits: u8) -> Vec<u8> {
    let full = (1_usize << bits) - 1;
    if value < full {
        return vec![value as u8];
    }
    let (mut out, mut rest) = (vec![full as u8], value - full);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

// ---- the client ----

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    conn: Conn,
    decoder: Decoder,
    /// The code of the last `GOAWAY` that came.
    pub(crate) told: Option<u32>,
    /// Nothing came for too long.
    pub(crate) late: bool,
}

/// A frame that came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Came {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
    /// Those of a whole head.
    pub(crate) fields: Vec<Field>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
}

/// Why there is no whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection ended, with this code of a `GOAWAY`.
    Ended(Option<u32>),
}

impl Came {
    /// The number at this place of its payload.
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    fn is_last(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END != 0
    }
}

impl Told {
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    pub(crate) fn status(&self) -> u16 {
        self.value(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl Client {
    /// A connection that has said nothing yet.
    pub(crate) fn silent(conn: Conn) -> Self {
        Self { conn, decoder: Decoder::default(), told: None, late: false }
    }

    /// A connection that has begun.
    pub(crate) fn over(conn: Conn) -> Self {
        let mut client = Self::silent(conn);
        client.send(&[PREFACE, &settings(&[])].concat());
        client
    }

    /// A connection with prior knowledge.
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::over(Conn::tcp(addr).expect("the daemon listens"))
    }

    /// Sends `bytes` as they are. The other side may have ended the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.try_send(bytes);
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.conn.send(bytes)
    }

    /// The next frame; `None`: the connection has ended. Takes settings, answers pings, and puts
    /// heads together.
    pub(crate) fn next(&mut self) -> Option<Came> {
        let mut came = self.raw()?;
        match came.kind {
            SETTINGS if came.flags & END == 0 => self.send(&frame(SETTINGS, END, 0, &[])),
            PING if came.flags & END == 0 => self.send(&frame(PING, END, 0, &came.payload)),
            GOAWAY => self.told = Some(came.number(4)),
            HEADERS => {
                assert_eq!(came.flags & (PADDED | PRIORITIZED), 0, "portok sends none: {came:?}");
                while came.flags & END_HEADERS == 0 {
                    let more = self.raw()?;
                    assert_eq!((more.kind, more.stream), (CONTINUATION, came.stream), "{more:?}");
                    came.payload.extend(&more.payload);
                    came.flags |= more.flags & END_HEADERS;
                }
                came.fields = self.decoder.block(&came.payload);
            }
            PUSH_PROMISE | PRIORITY => panic!("portok sends none: {came:?}"),
            _ => (),
        }
        Some(came)
    }

    fn raw(&mut self) -> Option<Came> {
        let head = self.exactly(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.exactly(length)?;
        Some(Came { kind: head[3], flags: head[4], stream, payload, fields: Vec::new() })
    }

    /// So many bytes; `None`: the connection has ended, or is silent.
    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let read = self.conn.exactly(length);
        let silent = |kind| matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        self.late |= read.as_ref().is_err_and(|error| silent(error.kind()));
        read.ok()
    }

    /// Reads until a frame of that kind has come; `None`: the connection has ended.
    pub(crate) fn until(&mut self, kind: u8) -> Option<Came> {
        loop {
            let came = self.next()?;
            if came.kind == kind && !(kind == SETTINGS && came.flags & END != 0) {
                return Some(came);
            }
        }
    }

    /// Reads until the connection has ended. Returns the code of its `GOAWAY`.
    pub(crate) fn end(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        self.told
    }

    /// Waits until all that was sent has been taken up.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        self.send(&frame(PING, 0, 0, b"settled?"));
        loop {
            let came = self.next().expect("the connection goes on");
            if came.kind == PING && came.payload == b"settled?" {
                return;
            }
        }
    }

    /// The whole answer on a stream, interim ones left out. What comes on others is passed over.
    pub(crate) fn answer(&mut self, stream: u32) -> Result<Told, Stopped> {
        let mut told = Told::default();
        loop {
            let Some(came) = self.next() else { return Err(Stopped::Ended(self.told)) };
            if came.stream != stream {
                continue;
            }
            match came.kind {
                RST_STREAM => return Err(Stopped::Reset(came.number(0))),
                DATA => told.body.extend(&came.payload),
                HEADERS if told.fields.is_empty() => {
                    let is_interim = came.fields.first().is_some_and(|(_, status)| status.starts_with('1'));
                    if !is_interim {
                        told.fields.clone_from(&came.fields);
                    }
                }
                HEADERS => told.trailers.clone_from(&came.fields),
                _ => (),
            }
            if came.is_last() {
                return Ok(told);
            }
        }
    }

    /// Sends a plain request, and returns its answer.
    pub(crate) fn ask(&mut self, stream: u32, path: &str) -> Result<Told, Stopped> {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
        self.send(&headers(stream, ALONE, &fields));
        self.answer(stream)
    }
}
