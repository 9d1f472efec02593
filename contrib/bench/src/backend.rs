//! A backend so cheap that the proxy is what is measured: one thread, no header map, answers made beforehand.
//!
//! It listens on `$PORT` (0: any free one) and prints the port. `/10k` and `/1m` give that much, `/slow/N` waits N milliseconds,
//! everything else gives 12 bytes once the request's body has arrived; an `Upgrade` makes an echo. `$BENCH_FIRST`
//! names a file that is told the microseconds from the first good answer to `/health` until the first other request.
//! It ends when its standard input does (`--until-eof`), or by a signal.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    /// Received and not yet understood.
    input: Vec<u8>,
    /// What of a request's body is still to come.
    body: usize,
    output: Output,
    close: bool,
    echo: bool,
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    at: usize,
    shared: Option<(&'static [u8], usize)>,
}

struct Answers {
    small: &'static [u8],
    medium: &'static [u8],
    large: &'static [u8],
}

fn answer(length: usize, text: &str) -> &'static [u8] {
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n")
            .into_bytes();
    bytes.extend(text.bytes().cycle().take(length));
    bytes.leak()
}

#[derive(Default)]
struct First {
    file: Option<String>,
    healthy: Option<Instant>,
    told: bool,
}

impl First {
    fn note(&mut self, path: &[u8]) {
        let Some(file) = &self.file else { return };
        if path.starts_with(b"/health") {
            self.healthy.get_or_insert_with(Instant::now);
        } else if let (Some(healthy), false) = (self.healthy, self.told) {
            self.told = true;
            let line = format!("{}\n", healthy.elapsed().as_micros());
            let told = std::fs::OpenOptions::new().append(true).create(true).open(file);
            let _lost = told.and_then(|mut file| file.write_all(line.as_bytes()));
        }
    }
}

/// Serves until told to end.
pub fn run(port: u16, until_eof: bool) -> io::Result<()> {
    if until_eof {
        std::thread::spawn(|| {
            let _ended = io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
    }
    let answers = Answers {
        small: answer(12, "hello world\n"),
        medium: answer(10 * 1024, "0123456789abcdef"),
        large: answer(1 << 20, "0123456789abcdef"),
    };
    let mut first = First { file: std::env::var("BENCH_FIRST").ok(), ..First::default() };
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port).into())?;
    println!("{}", listener.local_addr()?.port());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    // In the order in which they end: all requests of one run wait for the same time.
    let mut slow: VecDeque<(Instant, usize)> = VecDeque::new();
    loop {
        let wait = slow.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, wait.map(|wait| wait + Duration::from_micros(100))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _slower = stream.set_nodelay(true);
                    let slot = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    poll.registry().register(
                        &mut stream,
                        Token(slot),
                        Interest::READABLE | Interest::WRITABLE,
                    )?;
                    let output = Output::default();
                    connections[slot] = Some(Connection {
                        stream,
                        input: Vec::new(),
                        body: 0,
                        output,
                        close: false,
                        echo: false,
                    });
                }
                continue;
            }
            let slot = event.token().0;
            let Some(connection) = connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            match connection.drive(&answers, &mut first, &mut buffer) {
                Ok(Next::Wait) => {}
                Ok(Next::Slow(pause)) => slow.push_back((Instant::now() + pause, slot)),
                Ok(Next::End) | Err(_) => {
                    connections[slot] = None;
                    free.push(slot);
                }
            }
        }
        while slow.front().is_some_and(|(until, _)| *until <= Instant::now()) {
            let Some((_, slot)) = slow.pop_front() else { break };
            let Some(connection) = connections[slot].as_mut() else { continue };
            connection.output.bytes.extend_from_slice(answers.small);
            if connection.drive(&answers, &mut first, &mut buffer).is_err() {
                connections[slot] = None;
                free.push(slot);
            }
        }
    }
}

enum Next {
    Wait,
    Slow(Duration),
    End,
}

impl Connection {
    fn drive(&mut self, answers: &Answers, first: &mut First, buffer: &mut [u8]) -> io::Result<Next> {
        loop {
            if !self.flush()? {
                return Ok(Next::Wait);
            }
            if self.close {
                return Ok(Next::End);
            }
            if let Some(next) = self.understand(answers, first) {
                match next {
                    Next::Wait => continue,
                    other => return Ok(other),
                }
            }
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Next::End),
                Ok(count) if self.echo => self.output.bytes.extend_from_slice(&buffer[..count]),
                Ok(count) => {
                    // A body is counted, not kept.
                    let of_body = if self.input.is_empty() { self.body.min(count) } else { 0 };
                    self.body -= of_body;
                    self.input.extend_from_slice(&buffer[of_body..count]);
                    if of_body > 0 && self.body == 0 {
                        self.output.shared = Some((answers.small, 0));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Wait),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether everything was written.
    fn flush(&mut self) -> io::Result<bool> {
        loop {
            let output = &mut self.output;
            let rest = match &output.shared {
                Some((bytes, at)) => &bytes[*at..],
                None => &output.bytes[output.at..],
            };
            if rest.is_empty() {
                *output = Output { bytes: std::mem::take(&mut output.bytes), ..Output::default() };
                output.bytes.clear();
                return Ok(true);
            }
            match self.stream.write(rest) {
                Ok(count) => match &mut output.shared {
                    Some((_, at)) => *at += count,
                    None => output.at += count,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one request off the input, when it is whole. `Wait`: its answer is to be written.
    fn understand(&mut self, answers: &Answers, first: &mut First) -> Option<Next> {
        if self.body > 0 || self.echo {
            return None;
        }
        let end = self.input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = self.input[..end].to_ascii_lowercase();
        let path = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        first.note(path);
        self.close = contains(&head, b"\nconnection: close");
        let length = after(&head, b"\ncontent-length: ").unwrap_or(0);
        let upgrade = contains(&head, b"\nupgrade: ");
        let of_body = (self.input.len() - end).min(length);
        self.body = length - of_body;
        self.input.drain(..end + of_body);
        if upgrade {
            let accepted =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            self.output.bytes.extend_from_slice(accepted);
            self.echo = true;
        } else if self.body > 0 {
            return None;
        } else if let Some(pause) = path.strip_prefix(b"/slow/").and_then(number) {
            return Some(Next::Slow(Duration::from_millis(pause as u64)));
        } else {
            let bytes = match path {
                b"/10k" => answers.medium,
                b"/1m" => answers.large,
                _ => answers.small,
            };
            self.output.shared = Some((bytes, 0));
        }
        Some(Next::Wait)
    }
}

fn contains(head: &[u8], what: &[u8]) -> bool {
    head.windows(what.len()).any(|window| window == what)
}

fn after(head: &[u8], what: &[u8]) -> Option<usize> {
    let at = head.windows(what.len()).position(|window| window == what)? + what.len();
    number(&head[at..])
}

fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}
