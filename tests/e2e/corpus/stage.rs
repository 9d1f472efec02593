//! A daemon between a raw client and a raw app, and what both entries of the corpus ask of it: that
//! another client gets its own answer, and that the app sees nothing that it must not see.

use std::io::Write;
use std::net::TcpStream;

use super::case::{self, shown};
use super::message::{Body, Framing, Head, Reader, Stopped};
use super::recorder::{Event, Recorder};
use crate::harness::wait::DEADLINE;
use crate::harness::{Daemon, World};

/// A request on a connection that goes on, as the client sends it and as the app sees it.
pub(crate) const AFTER: (&str, &str) =
    ("GET /after HTTP/1.1\r\nhost: a\r\n\r\n", "GET /after HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n");

/// A daemon with the recorder as its app.
pub(crate) struct Stage<'w> {
    pub(crate) daemon: Daemon<'w>,
    pub(crate) recorder: Recorder,
    asked: usize,
    /// What the app may see of requests that broke off, sooner or later.
    broken: Vec<Vec<u8>>,
}

impl<'w> Stage<'w> {
    pub(crate) fn start(world: &'w World) -> Self {
        let recorder = Recorder::start();
        // One thread, so that all requests share the kept connections. The client is a stranger.
        let conf = world
            .conf()
            .set("app.target", i64::from(recorder.addr.port()))
            .set("proxy.threads", 1)
            .set("proxy.trusted", vec!["192.0.2.0/24"])
            .set("upstream.idle_timeout", "60s");
        let daemon = world.start(&conf);
        daemon.wait_until("the app is healthy", |status| status.live.is_some());
        let mut stage = Self { daemon, recorder, asked: 0, broken: Vec::new() };
        stage.ask_as_another().expect("the daemon serves");
        stage
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.daemon.addr).expect("the daemon listens");
        stream.set_nodelay(true).expect("an open socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("an open socket");
        stream
    }

    /// Another client asks for something else and must get its own answer. Returns what the app saw
    /// before that, and the connection over which it was asked.
    pub(crate) fn ask_as_another(&mut self) -> Result<(Vec<Event>, usize), String> {
        self.asked += 1;
        let target = format!("/other/{}", self.asked);
        let mut reader = Reader::new(self.connect());
        write!(reader.stream, "GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")
            .map_err(|error| error.to_string())?;
        let (head, body) =
            answer(&mut reader, false).map_err(|stopped| format!("another client: {stopped:?}"))?;
        let (status, body) = (status_of(&head), case::text(&body.bytes));
        if status != 200 || body != format!("GET {target}") {
            return Err(format!("another client asked for {target} and got {status} {body:?}"));
        }
        Ok(self.recorder.until(&target))
    }

    /// Notes what the app may see of a request that breaks off.
    pub(crate) fn may_break(&mut self, request: Vec<u8>) {
        self.broken.push(request);
    }

    /// The whole requests among `events`, with their connections. Fails for anything that the app
    /// must not see.
    pub(crate) fn whole(&self, events: Vec<Event>) -> Result<Vec<(usize, Vec<u8>)>, String> {
        let mut whole = Vec::new();
        for event in events {
            match event {
                Event::Request { bytes, connection, .. } => whole.push((connection, bytes)),
                Event::Broken(bytes) if self.broken.iter().any(|known| known.starts_with(&bytes)) => (),
                Event::Broken(bytes) => {
                    return Err(format!("the app saw a part of a request: {}", shown(&bytes)));
                }
                Event::Wrong { why, bytes } => return Err(format!("the app saw {why}: {}", shown(&bytes))),
            }
        }
        Ok(whole)
    }
}

/// The head of an answer, interim ones left out.
pub(crate) fn head(reader: &mut Reader<TcpStream>) -> Result<Head, Stopped> {
    loop {
        let head = reader.head()?;
        if !matches!(status_of(&head), 100..=199) {
            return Ok(head);
        }
    }
}

/// How the body behind the head of an answer ends.
pub(crate) fn framing_of(head: &Head, to_head: bool) -> Framing {
    if to_head || matches!(status_of(head), 204 | 304) { Framing::None } else { head.framing }
}

/// A whole answer.
pub(crate) fn answer(reader: &mut Reader<TcpStream>, to_head: bool) -> Result<(Head, Body), Stopped> {
    let head = head(reader)?;
    let body = reader.body(&head, framing_of(&head, to_head))?;
    Ok((head, body))
}

/// Asks for something else on the same connection, and returns the answer's body.
pub(crate) fn goes_on(reader: &mut Reader<TcpStream>) -> Result<Vec<u8>, String> {
    let sent = reader.stream.write_all(AFTER.0.as_bytes());
    sent.map_err(|error| format!("it does not go on: {error}"))?;
    let (head, body) = answer(reader, false).map_err(|stopped| format!("it does not go on: {stopped:?}"))?;
    match status_of(&head) {
        200 => Ok(body.bytes),
        status => Err(format!("the request after it got {status} {}", shown(&body.bytes))),
    }
}

/// Asserts that the connection has ended and that nothing more came.
pub(crate) fn ends(reader: &mut Reader<TcpStream>) -> Result<(), String> {
    match reader.rest() {
        Ok(rest) if rest.is_empty() => Ok(()),
        Ok(rest) => Err(format!("more came: {}", shown(&rest))),
        Err(stopped) => Err(format!("it is not closed: {stopped:?}")),
    }
}

/// The status in the first line of an answer; 0 if it is none.
pub(crate) fn status_of(head: &Head) -> u16 {
    let rest = head.first.strip_prefix("HTTP/1.1 ").or_else(|| head.first.strip_prefix("HTTP/1.0 "));
    rest.and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The bytes as they are written: at once, or the first ones in pieces of seven bytes and the rest
/// of a long message in larger ones.
pub(crate) fn pieces(bytes: &[u8], small: bool) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = if small { bytes.split_at(bytes.len().min(1_000)) } else { (&bytes[..0], bytes) };
    first.chunks(7).chain(rest.chunks(if small { 4 * 1024 } else { rest.len().max(1) }))
}
