//! Reads messages of HTTP/1.1 as strictly as the grammar allows, at both ends of portok: what
//! portok writes must leave no choice to anybody.

use std::io::{self, Read};

use super::case::{bytes, text};
use crate::harness::http::{find, uninterrupted};

/// No head that portok writes is longer.
const LONGEST_HEAD: usize = 256 * 1024;

/// A connection, read message by message.
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    Unknown,
}

/// A head: its first line, and its fields as they stand there.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) framing: Framing,
}

/// What follows a head.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    /// The lines of its trailer.
    pub(crate) trailers: Vec<u8>,
}

/// Why there is no whole message.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The connection ended between two messages.
    Ended,
    /// It ended within one, of which this had come.
    Midway(Vec<u8>),
    /// What came is no message.
    Wrong { why: &'static str, bytes: Vec<u8> },
    /// Nothing came for too long.
    Late,
}

impl Head {
    /// The values of a field.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = move |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str())
    }

    fn read(bytes: Vec<u8>) -> Result<Self, Stopped> {
        let read = text(&bytes[..bytes.len() - 4]);
        let mut lines = read.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        match fields_of(&first, lines) {
            Ok((fields, framing)) => Ok(Self { bytes, first, fields, framing }),
            Err(why) => Err(Stopped::Wrong { why, bytes }),
        }
    }
}

/// Names and values, in their order.
type Fields = Vec<(String, String)>;

/// Reads the fields, and how the body ends.
fn fields_of<'a>(
    first: &str,
    lines: impl Iterator<Item = &'a str>,
) -> Result<(Fields, Framing), &'static str> {
    let is_clean = |text: &str| text.chars().all(|byte| byte == '\t' || !byte.is_ascii_control());
    if first.is_empty() || !is_clean(first) {
        return Err("the first line");
    }
    let (mut fields, mut framing) = (Vec::new(), Framing::Unknown);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        let is_token = |byte: char| byte.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.chars().all(is_token) || !is_clean(value) {
            return Err("a field");
        }
        let value = value.trim_matches([' ', '\t']);
        let told = match &*name.to_ascii_lowercase() {
            "content-length" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                Framing::Length(value.parse().map_err(|_| "a length")?)
            }
            "transfer-encoding" if value == "chunked" => Framing::Chunked,
            "content-length" | "transfer-encoding" => return Err("a framing that is not plain"),
            _ => Framing::Unknown,
        };
        if told != Framing::Unknown && std::mem::replace(&mut framing, told) != Framing::Unknown {
            return Err("two framings");
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    Ok((fields, framing))
}

impl<S: Read> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next head.
    pub(crate) fn head(&mut self) -> Result<Head, Stopped> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Head::read(self.buffer.drain(..end + 4).collect());
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(wrong("a head without end", &self.buffer));
            }
            if !self.fill()? {
                let bytes = std::mem::take(&mut self.buffer);
                return Err(if bytes.is_empty() { Stopped::Ended } else { Stopped::Midway(bytes) });
            }
        }
    }

    /// The body behind a head; `Unknown`: until the end of the connection.
    pub(crate) fn body(&mut self, head: &Head, framing: Framing) -> Result<Body, Stopped> {
        let mut body = Body::default();
        let read = match framing {
            Framing::None => Ok(true),
            Framing::Length(length) => self.take(length, &mut body.bytes),
            Framing::Chunked => self.chunks(&mut body),
            Framing::Unknown => self.rest().map(|rest| {
                body.bytes = rest;
                true
            }),
        };
        if read? { Ok(body) } else { Err(Stopped::Midway([&head.bytes[..], &body.bytes].concat())) }
    }

    /// Everything until the end of the connection.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, Stopped> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads chunks. Returns whether all of them came.
    fn chunks(&mut self, body: &mut Body) -> Result<bool, Stopped> {
        loop {
            let Some(line) = self.line()? else { return Ok(false) };
            let is_plain = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
            let size = usize::from_str_radix(&line, 16).ok().filter(|_| is_plain);
            match size.ok_or_else(|| wrong("a chunk's size", line.as_bytes()))? {
                0 => break,
                size if self.take(size, &mut body.bytes)? => (),
                _ => return Ok(false),
            }
            match self.line()? {
                Some(line) if line.is_empty() => (),
                Some(line) => return Err(wrong("a chunk's end", line.as_bytes())),
                None => return Ok(false),
            }
        }
        loop {
            match self.line()? {
                Some(line) if line.is_empty() => return Ok(true),
                Some(line) => body.trailers.extend([&bytes(&line)[..], b"\r\n"].concat()),
                None => return Ok(false),
            }
        }
    }

    /// A line without its end, which is a carriage return and a line feed.
    fn line(&mut self) -> Result<Option<String>, Stopped> {
        loop {
            if let Some(end) = find(&self.buffer, b"\n") {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return match line.strip_suffix(b"\r\n") {
                    Some(line) if !line.contains(&b'\r') => Ok(Some(text(line))),
                    _ => Err(wrong("a line's end", &line)),
                };
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Adds the next `length` bytes to `to`. Returns whether all of them came.
    fn take(&mut self, length: usize, to: &mut Vec<u8>) -> Result<bool, Stopped> {
        let mut goes_on = true;
        while goes_on && self.buffer.len() < length {
            goes_on = self.fill()?;
        }
        let there = self.buffer.len().min(length);
        to.extend(self.buffer.drain(..there));
        Ok(there == length)
    }

    /// Reads once. Returns whether the connection goes on.
    fn fill(&mut self) -> Result<bool, Stopped> {
        let mut part = [0; 16 * 1024];
        match uninterrupted(|| self.stream.read(&mut part)) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(Stopped::Late)
            }
            // A reset.
            Err(_) => Ok(false),
        }
    }
}

fn wrong(why: &'static str, bytes: &[u8]) -> Stopped {
    Stopped::Wrong { why, bytes: bytes.to_vec() }
}
