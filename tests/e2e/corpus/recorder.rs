//! The app behind the corpus: it records each request that reaches it, judges it strictly, and
//! answers with the request's line, or with the bytes that it was told to give to `/case`.
//!
//! A thread accepts, and each connection has a thread; they end with the daemon's connections and
//! with the [`Recorder`]. A request is recorded before it is answered, so that a client that has
//! its answer finds it recorded.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use super::message::{Framing, Head, Reader, Stopped};
use crate::harness::wait::DEADLINE;

/// The path whose answer is told.
pub(crate) const TOLD: &str = "/case";

/// The recording app.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    events: Receiver<Event>,
    shared: Arc<Shared>,
}

/// What happened at the app.
#[derive(Debug)]
pub(crate) enum Event {
    /// A whole request: head, body without chunks, the lines of its trailer.
    Request { connection: usize, target: String, bytes: Vec<u8> },
    /// A request that broke off, and what had come of it.
    Broken(Vec<u8>),
    /// Bytes that are no request.
    Wrong { why: &'static str, bytes: Vec<u8> },
}

/// What is answered to a request for `/case`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Each part is a write of its own.
    pub(crate) parts: Vec<Vec<u8>>,
    /// Before the body was read.
    pub(crate) early: bool,
    /// The connection is closed behind it.
    pub(crate) closes: bool,
    /// It is reset.
    pub(crate) resets: bool,
}

struct Shared {
    told: Mutex<Told>,
    streams: Mutex<HashMap<usize, TcpStream>>,
    events: SyncSender<Event>,
    ended: Mutex<bool>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (sender, events) = mpsc::sync_channel(10_000);
        let shared = Arc::new(Shared {
            told: Mutex::default(),
            streams: Mutex::default(),
            events: sender,
            ended: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                if *accepting.ended.lock().unwrap() {
                    return;
                }
                let (Ok(stream), shared) = (stream, accepting.clone()) else { continue };
                std::thread::spawn(move || shared.serve(stream, connection));
            }
        });
        Self { addr, events, shared }
    }

    /// Sets what is answered to requests for `/case` from now on.
    pub(crate) fn tell(&self, told: Told) {
        *self.shared.told.lock().unwrap() = told;
    }

    /// Sends `bytes` over a connection that is idle.
    pub(crate) fn send(&self, connection: usize, bytes: &[u8]) {
        let streams = self.shared.streams.lock().unwrap();
        let mut stream = streams.get(&connection).expect("the connection is open");
        stream.write_all(bytes).expect("the daemon's side is open");
    }

    /// What happened until the request for `target`, and the connection over which that came.
    #[track_caller]
    pub(crate) fn until(&self, target: &str) -> (Vec<Event>, usize) {
        let mut events = Vec::new();
        loop {
            let event = self.events.recv_timeout(DEADLINE);
            match event.unwrap_or_else(|_| panic!("{target} never came, but {events:#?}")) {
                Event::Request { target: other, connection, .. } if other == target => {
                    return (events, connection);
                }
                event => events.push(event),
            }
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Ok(mut ended) = self.shared.ended.lock() {
            *ended = true;
        }
        let _wakes = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, connection: usize) {
        stream.set_nodelay(true).expect("an open socket");
        let known = stream.try_clone().expect("a descriptor");
        self.streams.lock().unwrap().insert(connection, known);
        let mut reader = Reader::new(stream);
        loop {
            match self.exchange(&mut reader, connection) {
                Ok(true) => (),
                Ok(false) | Err(Stopped::Ended | Stopped::Late) => break,
                Err(Stopped::Midway(bytes)) => {
                    self.note(Event::Broken(bytes));
                    break;
                }
                Err(Stopped::Wrong { why, bytes }) => {
                    self.note(Event::Wrong { why, bytes });
                    break;
                }
            }
        }
        // The last descriptor of it: with the reader the connection is closed.
        self.streams.lock().unwrap().remove(&connection);
    }

    /// Nobody listens once the test has failed.
    fn note(&self, event: Event) {
        let _sent = self.events.send(event);
    }

    /// One request and its answer. Returns whether the connection goes on.
    fn exchange(&self, reader: &mut Reader<TcpStream>, connection: usize) -> Result<bool, Stopped> {
        let head = reader.head()?;
        let line = head.first.clone();
        let (method, target) = match judge(&head) {
            Ok(named) => named,
            Err(why) => return Err(Stopped::Wrong { why, bytes: head.bytes }),
        };
        let told = if target == TOLD { Some(self.told.lock().unwrap().clone()) } else { None };
        let framing = match head.framing {
            Framing::Unknown => Framing::None,
            told => told,
        };
        let is_early = told.as_ref().is_some_and(|told| told.early);
        let mut bytes = head.bytes.clone();
        if !is_early {
            let body = reader.body(&head, framing)?;
            bytes.extend(body.bytes);
            bytes.extend(body.trailers);
        }
        if target != "/health" {
            self.note(Event::Request { connection, target: target.to_owned(), bytes });
        }
        let Some(told) = told else {
            let named = line.rsplit_once(' ').map_or("", |(named, _)| named);
            let named = super::case::bytes(named);
            let mut answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", named.len()).into_bytes();
            if method != "HEAD" {
                answer.extend(named);
            }
            return Ok(reader.stream.write_all(&answer).is_ok());
        };
        let written = told.parts.iter().all(|part| reader.stream.write_all(part).is_ok());
        if told.resets {
            let socket = SockRef::from(&reader.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
        }
        if is_early {
            // What still comes is the rest of the body.
            reader.rest()?;
        }
        Ok(written && !told.closes && !told.resets && !is_early)
    }
}

/// Judges a request's head beyond what [`Reader::head`] has judged. Returns its method and target.
fn judge(head: &Head) -> Result<(&str, &str), &'static str> {
    let mut parts = head.first.split(' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some("HTTP/1.1"), None) = (method, target, version, parts.next()) else {
        return Err("the request's line");
    };
    if method.is_empty() || target.is_empty() {
        return Err("the request's line");
    }
    if head.values("host").count() != 1 {
        return Err("not one host");
    }
    let connection: Vec<_> = head.values("connection").collect();
    if !matches!(connection[..], [] | ["te" | "upgrade" | "close" | "te, close"]) {
        return Err("connection");
    }
    if head.values("upgrade").any(|protocol| protocol != "websocket") {
        return Err("upgrade");
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings", "expect"] {
        if head.values(name).next().is_some() {
            return Err("a field of the client's connection");
        }
    }
    Ok((method, target))
}
