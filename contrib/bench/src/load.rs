//! The load: a closed loop on one thread, some connections that each send, wait for the answer, and send again.
//!
//! Every answer is read to its end and its status looked at. It ends by itself, after a time or a number of requests,
//! and in any case ten seconds after its time.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::histogram::Histogram;

/// What to ask, of whom, and how.
#[derive(Debug, Clone)]
pub struct Load {
    pub port: u16,
    /// The host that is asked for.
    pub host: String,
    pub path: String,
    pub connections: usize,
    pub duration: Duration,
    /// Ends it too.
    pub requests: u64,
    /// The size of a POST's body; 0: it is a GET.
    pub body: usize,
    /// A new connection for each request.
    pub fresh: bool,
    /// The headers of a browser.
    pub browser: bool,
    /// The size of the messages through a tunnel; 0: none.
    pub message: usize,
    /// Tell the latencies of each moment too.
    pub moments: bool,
}

/// The host that is asked for where it does not matter.
pub const BENCH: &str = "bench.test";

/// How long a moment is.
pub const MOMENT: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub errors: u64,
    /// Answers with another status than 200.
    pub refused: u64,
    pub elapsed: Duration,
    pub latency: Histogram,
    /// When it began, in microseconds of the wall clock, and the latencies of what was answered in each moment since.
    pub began_us: u64,
    pub moments: Vec<Histogram>,
}

impl Outcome {
    pub fn to_json(&self) -> Value {
        let at = |share| self.latency.quantile(share) as f64 / 1e6;
        let moments: Vec<_> = self.moments.iter().map(Histogram::filled).collect();
        json!({
            "began_us": self.began_us, "moments": moments,
            "requests": self.requests, "errors": self.errors, "refused": self.refused,
            "seconds": self.elapsed.as_secs_f64(),
            "rps": self.requests as f64 / self.elapsed.as_secs_f64(),
            "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "max_ms": at(1.0),
        })
    }
}

/// What a browser sends with a page's request.
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; seen=1\r\n\
    Referer: http://bench.test/some/page?of=the&same=site\r\nUpgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n";

impl Load {
    fn request(&self) -> Vec<u8> {
        let method = if self.body > 0 { "POST" } else { "GET" };
        let mut text = format!("{method} {} HTTP/1.1\r\nHost: {}:8080\r\n", self.path, self.host);
        if self.browser {
            text.push_str(BROWSER);
        }
        if self.body > 0 {
            text.push_str(&format!("Content-Length: {}\r\n", self.body));
        }
        if self.fresh {
            text.push_str("Connection: close\r\n");
        }
        if self.message > 0 {
            text.push_str(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            );
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend(std::iter::repeat_n(b'x', self.body));
        bytes
    }

    /// Runs it.
    pub fn run(&self) -> io::Result<Outcome> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let (request, message) = (self.request(), vec![b'm'; self.message]);
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 256 * 1024];
        let mut outcome = Outcome::default();
        let mut clients = Vec::with_capacity(self.connections);
        for slot in 0..self.connections {
            clients.push(Client::connect(&poll, addr, slot)?);
        }
        let began = Instant::now();
        outcome.began_us = wall_clock();
        let (until, give_up) = (began + self.duration, began + self.duration + Duration::from_secs(10));
        let mut started = 0;
        let mut open = clients.len();
        while open > 0 && Instant::now() < give_up {
            match poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let slot = event.token().0;
                let client = &mut clients[slot];
                if client.over {
                    continue;
                }
                loop {
                    match client.drive(&request, &message, &mut buffer) {
                        Ok(Step::Wait) => break,
                        Ok(Step::Connected) => {}
                        Ok(Step::Ready) => {
                            if started >= self.requests || Instant::now() >= until {
                                client.over = true;
                                open -= 1;
                                break;
                            }
                            started += 1;
                            client.begin(self.message > 0);
                        }
                        Ok(Step::Answered { status, took }) => {
                            outcome.requests += 1;
                            outcome.refused += u64::from(status != 200 && self.message == 0);
                            outcome.latency.record(took);
                            if self.moments {
                                let moment = (began.elapsed().as_micros() / MOMENT.as_micros()) as usize;
                                if outcome.moments.len() <= moment {
                                    outcome.moments.resize_with(moment + 1, Histogram::default);
                                }
                                outcome.moments[moment].record(took);
                            }
                            if self.fresh || client.closed {
                                *client = Client::connect(&poll, addr, slot)?;
                                break;
                            }
                        }
                        Err(_) => {
                            outcome.errors += 1;
                            if Instant::now() >= until || outcome.errors > 100_000 {
                                client.over = true;
                                open -= 1;
                            } else {
                                *client = Client::connect(&poll, addr, slot)?;
                            }
                            break;
                        }
                    }
                }
            }
        }
        outcome.elapsed = began.elapsed();
        outcome.errors += open as u64;
        Ok(outcome)
    }
}

/// Microseconds since 1970: what two processes can compare.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// Opens `count` connections, asks once on each so that the proxy has served them, and calls `then` while they are idle.
pub fn idle<T>(port: u16, count: usize, then: impl FnOnce() -> T) -> io::Result<T> {
    let mut held = Vec::with_capacity(count);
    let mut buffer = [0; 4096];
    for _ in 0..count {
        let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.test\r\n\r\n")?;
        let count = stream.read(&mut buffer)?;
        if !buffer[..count].starts_with(b"HTTP/1.1 200 ") {
            return Err(io::Error::other("an answer that is not 200"));
        }
        held.push(stream);
    }
    Ok(then())
}

enum Step {
    Wait,
    Connected,
    Ready,
    Answered { status: u16, took: Duration },
}

enum State {
    Connecting,
    Ready,
    Sending {
        at: usize,
    },
    Head,
    Body {
        left: usize,
    },
    /// Through the tunnel.
    Talking {
        sent: usize,
        got: usize,
    },
}

struct Client {
    stream: TcpStream,
    state: State,
    input: Vec<u8>,
    began: Instant,
    status: u16,
    tunnel: bool,
    closed: bool,
    over: bool,
}

impl Client {
    fn connect(poll: &Poll, addr: SocketAddr, slot: usize) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(slot), interest)?;
        Ok(Self {
            stream,
            state: State::Connecting,
            input: Vec::new(),
            began: Instant::now(),
            status: 0,
            tunnel: false,
            closed: false,
            over: false,
        })
    }

    fn begin(&mut self, talk: bool) {
        // A new connection is part of the request's time.
        if !matches!(self.state, State::Ready) || self.status != 0 {
            self.began = Instant::now();
        }
        self.state =
            if talk && self.tunnel { State::Talking { sent: 0, got: 0 } } else { State::Sending { at: 0 } };
    }

    fn drive(&mut self, request: &[u8], message: &[u8], buffer: &mut [u8]) -> io::Result<Step> {
        loop {
            match &mut self.state {
                State::Connecting => {
                    if let Some(error) = self.stream.take_error()? {
                        return Err(error);
                    }
                    match self.stream.peer_addr() {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Step::Wait),
                        Err(error) => return Err(error),
                    }
                    self.stream.set_nodelay(true)?;
                    self.state = State::Ready;
                    return Ok(Step::Connected);
                }
                State::Ready => return Ok(Step::Ready),
                State::Sending { at } => {
                    while *at < request.len() {
                        match self.stream.write(&request[*at..]) {
                            Ok(count) => *at += count,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Wait),
                            Err(error) => return Err(error),
                        }
                    }
                    self.state = State::Head;
                }
                State::Head => {
                    let Some(count) = read(&mut self.stream, buffer)? else { return Ok(Step::Wait) };
                    self.input.extend_from_slice(&buffer[..count]);
                    let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let (status, length, closed) = understand(&self.input[..end + 4])?;
                    let got = self.input.len() - end - 4;
                    self.input.clear();
                    self.status = status;
                    self.closed = closed;
                    if status == 101 {
                        self.tunnel = true;
                        self.state = State::Talking { sent: 0, got: 0 };
                        self.began = Instant::now();
                        continue;
                    }
                    let left = length.checked_sub(got).ok_or(io::ErrorKind::InvalidData)?;
                    if left == 0 {
                        return Ok(self.answered());
                    }
                    self.state = State::Body { left };
                }
                State::Body { left } => {
                    let Some(count) = read(&mut self.stream, buffer)? else { return Ok(Step::Wait) };
                    *left = left.checked_sub(count).ok_or(io::ErrorKind::InvalidData)?;
                    if *left == 0 {
                        return Ok(self.answered());
                    }
                }
                State::Talking { sent, got } => {
                    while *sent < message.len() {
                        match self.stream.write(&message[*sent..]) {
                            Ok(count) => *sent += count,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                    let Some(count) = read(&mut self.stream, buffer)? else { return Ok(Step::Wait) };
                    *got += count;
                    if *got >= message.len() {
                        return Ok(self.answered());
                    }
                }
            }
        }
    }

    fn answered(&mut self) -> Step {
        self.state = State::Ready;
        Step::Answered { status: self.status, took: self.began.elapsed() }
    }
}

/// `None`: nothing there.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Status, length, and whether the connection ends.
fn understand(head: &[u8]) -> io::Result<(u16, usize, bool)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(head).map_err(|_| invalid())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(invalid)?;
    let status = status.parse().map_err(|_| invalid())?;
    let (mut length, mut closed) = (0, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| invalid())?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid());
        } else if name.eq_ignore_ascii_case("connection") {
            closed = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Ok((status, length, closed))
}
