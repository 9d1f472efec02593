//! A raw, blocking HTTP/1.1 client. It sends exactly the bytes of a test, and reads answers
//! strictly.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustls::{ClientConnection, HandshakeKind, ServerConnection, StreamOwned};
use serde_json::Value;

use super::wait::DEADLINE;

/// One connection to a server.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: Stream,
    /// Bytes that were read and not used yet.
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// The server's side of one.
    Served(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// The head of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Head {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers.iter().any(|(key, value)| {
            key.eq_ignore_ascii_case(name)
                && value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The version of the fixture app that answered.
    pub(crate) fn version(&self) -> &str {
        self.header("x-version").unwrap_or("none")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("not JSON ({error}): status {}, {}", self.status(), self.text()),
        }
    }

    /// Whether the connection can carry another request.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.head.has_token("connection", "close")
    }

    /// Panics unless the status is `status`, and returns the answer.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{:?}\n{}", self.head, self.text());
        self
    }

    /// Panics unless it is an error of the admin API with this status and code, and returns its
    /// body.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status(), status, "{:?}\n{}", self.head, self.text());
        let body = self.json();
        assert_eq!(body["code"], code, "{body:#}");
        for key in ["error", "message"] {
            assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing in {body:#}");
        }
        body
    }
}

impl Conn {
    pub(crate) fn tcp(addr: SocketAddr) -> io::Result<Self> {
        Self::from_tcp(TcpStream::connect_timeout(&addr, DEADLINE)?)
    }

    pub(crate) fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream: Stream::Tcp(stream), buffer: Vec::new() })
    }

    pub(crate) fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream: Stream::Unix(stream), buffer: Vec::new() })
    }

    /// A connection whose handshake is done.
    pub(crate) fn from_tls(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self { stream: Stream::Tls(Box::new(stream)), buffer: Vec::new() }
    }

    /// The same, of the server's side.
    pub(crate) fn from_tls_server(stream: StreamOwned<ServerConnection, TcpStream>) -> Self {
        Self { stream: Stream::Served(Box::new(stream)), buffer: Vec::new() }
    }

    /// What the handshake agreed on.
    #[track_caller]
    pub(crate) fn tls(&self) -> &ClientConnection {
        match &self.stream {
            Stream::Tls(stream) => &stream.conn,
            Stream::Tcp(_) | Stream::Unix(_) | Stream::Served(_) => panic!("no client's connection with TLS"),
        }
    }

    /// Whether a former session was taken up again.
    #[track_caller]
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends `bytes` as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Served(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Ends the sending direction only.
    pub(crate) fn finish_sending(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.write_tls(&mut stream.sock).map(|_| ())
            }
            Stream::Served(stream) => {
                stream.conn.send_close_notify();
                stream.conn.write_tls(&mut stream.sock).map(|_| ())
            }
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        self.send(&request_bytes(method, path, headers, body))?;
        self.answer(method)
    }

    /// Reads the answer to a request with `method`, final status only.
    pub(crate) fn answer(&mut self, method: &str) -> io::Result<Answer> {
        let head = loop {
            let head = self.head()?;
            if head.status >= 200 || head.status == 101 {
                break head;
            }
        };
        let body = self.body(method, &head)?;
        Ok(Answer { head, body })
    }

    /// Reads one head, informational ones included.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return parse_head(&head[..end]);
            }
            if self.fill()? == 0 {
                return Err(unexpected_end(&self.buffer, "the head of an answer"));
            }
        }
    }

    fn body(&mut self, method: &str, head: &Head) -> io::Result<Vec<u8>> {
        if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
            return Ok(Vec::new());
        }
        if head.has_token("transfer-encoding", "chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk()? {
                body.extend(chunk);
            }
            return Ok(body);
        }
        match head.header("content-length") {
            Some(length) => self.exactly(length.parse().map_err(io::Error::other)?),
            None => self.rest(),
        }
    }

    /// Reads one chunk of a chunked body; `None` after the last one, whose trailers are discarded.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)
            .map_err(|error| io::Error::other(format!("chunk size {line:?}: {error}")))?;
        if size == 0 {
            while !self.line()?.is_empty() {}
            return Ok(None);
        }
        let chunk = self.exactly(size)?;
        match self.line()?.as_str() {
            "" => Ok(Some(chunk)),
            other => Err(io::Error::other(format!("{other:?} after a chunk"))),
        }
    }

    /// Reads one line without its end.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\n") {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8(line).map_err(io::Error::other)?;
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if self.fill()? == 0 {
                return Err(unexpected_end(&self.buffer, "a line"));
            }
        }
    }

    /// Reads exactly `length` bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(unexpected_end(&self.buffer, "a body"));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads until the peer ends its direction.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut part = [0; 16 * 1024];
        let read = match &mut self.stream {
            Stream::Tcp(stream) => uninterrupted(|| stream.read(&mut part))?,
            Stream::Unix(stream) => uninterrupted(|| stream.read(&mut part))?,
            Stream::Tls(stream) => uninterrupted(|| stream.read(&mut part))?,
            Stream::Served(stream) => uninterrupted(|| stream.read(&mut part))?,
        };
        self.buffer.extend_from_slice(&part[..read]);
        Ok(read)
    }
}

/// Reads again after a signal: the kernel does not resume a read with a deadline (signal(7)).
pub(crate) fn uninterrupted<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The bytes of a request with `Host` and, if there is a body, `Content-Length`.
pub(crate) fn request_bytes(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        // The admin API accepts only known names in `Host`.
        let host = if path.starts_with("/__") { "localhost" } else { "app.test" };
        head.push_str(&format!("host: {host}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| first.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
    let headers = lines
        .map(|line| match line.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.trim().to_owned())),
            None => Err(io::Error::other(format!("not a header line: {line:?}"))),
        })
        .collect::<io::Result<_>>()?;
    Ok(Head { status, headers })
}

fn unexpected_end(buffer: &[u8], what: &str) -> io::Error {
    let read = String::from_utf8_lossy(&buffer[..buffer.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the peer closed within {what}, after {read:?}"))
}

/// The position of `needle` in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
