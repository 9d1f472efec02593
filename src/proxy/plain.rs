//! The short way of plain requests: `GET` and `HEAD` without a body, an upgrade or anything else unusual.
//!
//! Most requests are plain, and hyper's way is long for them: it fills a header map, and makes a service's future, a
//! response and another map for each. Read and answered here they cost 40 % fewer instructions (44 % with a browser's
//! headers), and an idle connection keeps no buffers (1.1 KiB in all). Whatever is not plain beyond
//! doubt, errors above all, is left to hyper **untouched**: its bytes are handed over with the connection, which stays
//! there. So this file refuses nothing and judges nothing that hyper would judge otherwise; both use the same parser.
//!
//! State: owned by the connection's task. Dropped, the claim is given back and the connection to the app is closed. The
//! order that matters: what counts a request ends before the last part of its answer is written, so that whoever has the
//! answer finds it counted; the connection's turn ends after it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use self::request::{MOST_FIELDS, Plain};
use super::answer::{self, Fault, Turn};
use super::attempts::{self, Answered, Ask, Attempts, Ended};
use super::clock;
use super::crowd::Guest;
use super::pieces::Pieces;
use super::record::Record;
use super::socket;
use super::upstream::exchange::{self, Failed, Incoming, Step};
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::{Claim, Local};
use super::worker::{BufferSize, Settings, Ticket, Worker};
use crate::http1::fields;
use crate::http1::head::{self, Fields, Framing, Room};

mod request;

/// A head that is not complete after so many bytes is hyper's.
const LONGEST: usize = 16 * 1024;

/// Parts of an answer up to this size are put together; larger ones are written from where they were read.
const SMALL: usize = 8 * 1024;

/// How much is put together at most, about.
const BATCH: usize = 16 * 1024;

/// A connection that has to go on with hyper, with what was read and not used.
pub(super) type Other = (TcpStream, Vec<u8>);

/// Serves `stream` as long as its requests are plain.
pub(super) fn serve<'a>(
    worker: &'a Rc<Worker>,
    record: &'a Rc<Record>,
    stream: TcpStream,
) -> impl Future<Output = Option<Other>> {
    let mut client = Client { worker, record, stream, input: Vec::new() };
    async move {
        loop {
            match client.next().await {
                Next::Plain(request) => {
                    // In a box, so that a connection that waits has no room for it: 1 KiB, for 0.4k of 9.4k instructions.
                    if !Box::pin(client.answer(request)).await {
                        return None;
                    }
                }
                Next::Other => return Some((client.stream, client.input)),
                Next::Over => return None,
            }
        }
    }
}

/// A client's connection.
struct Client<'a> {
    worker: &'a Rc<Worker>,
    record: &'a Rc<Record>,
    stream: TcpStream,
    /// Received and not yet used. Without memory while it is empty.
    input: Vec<u8>,
}

/// What comes next from a client.
enum Next {
    Plain(Request),
    /// Something for hyper.
    Other,
    /// Nothing: the connection is over.
    Over,
}

/// A plain request.
struct Request {
    /// As the app gets it.
    head: Vec<u8>,
    to_head: bool,
    /// The client wants the connection closed behind the answer.
    close: bool,
    /// Whom it counts for, where that may be somebody else than the peer.
    guest: Option<Rc<Guest>>,
    settings: Rc<Settings>,
}

impl Client<'_> {
    /// Waits for the next request.
    async fn next(&mut self) -> Next {
        if !self.input.is_empty() {
            self.record.note_read();
        }
        poll_fn(|cx| {
            loop {
                if !self.input.is_empty()
                    && let Some(next) = self.understand()
                {
                    return Poll::Ready(next);
                }
                match self.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => self.record.note_read(),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Over),
                    // A head that has begun to come is waited for: its answer says that it is the last.
                    Poll::Pending
                        if self.record.is_to_close()
                            && self.input.is_empty()
                            && !socket::has_arrived(&self.stream) =>
                    {
                        return Poll::Ready(Next::Over);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Reads once behind what is there, into a buffer of the thread's: a connection that waits holds none.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = self.worker.head_buffer();
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        if self.input.is_empty() {
            self.worker.keep_head_buffer(std::mem::take(&mut self.input));
        }
        read
    }

    /// Ready when the client has gone. What it sends beforehand is kept for the next request, and then nothing more is
    /// read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() || matches!(self.stream.poll_read_ready(cx), Poll::Pending) {
            return Poll::Pending;
        }
        match self.poll_read(cx) {
            Poll::Pending | Poll::Ready(Ok(1..)) => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        }
    }

    /// Takes a request off the input; `None` while it is not whole.
    fn understand(&mut self) -> Option<Next> {
        let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let parsed = parser.parse_request_with_uninit_headers(&mut request, &self.input, &mut room);
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.input.len() < LONGEST => return None,
            Ok(httparse::Status::Partial) | Err(_) => return Some(Next::Other),
        };
        let settings = self.worker.settings();
        let Some(plain) = Plain::of(&request).filter(|plain| plain.fits(length, &settings)) else {
            return Some(Next::Other);
        };
        let mut head = self.worker.head_buffer();
        plain.write(&mut head, self.record, &settings);
        let (to_head, close) = (plain.to_head, plain.close);
        let guest =
            plain.is_forwarded.then(|| self.worker.named_guest(self.record, &settings, || plain.pairs()));
        self.consume(length);
        Some(Next::Plain(Request { head, to_head, close, guest, settings }))
    }

    fn consume(&mut self, length: usize) {
        if length < self.input.len() {
            self.input.drain(..length);
        } else {
            self.worker.keep_head_buffer(std::mem::take(&mut self.input));
        }
    }

    /// Answers; whether the connection goes on.
    async fn answer(&mut self, request: Request) -> bool {
        let turn = Turn::new(self.record.clone());
        // A future of its own, and what is large in a box: this is what every idle connection has room for.
        let Some(Answer { mut pieces, rest, close }) = self.ask(request).await else { return false };
        let mut written = self.write(&mut pieces).await.is_ok();
        if written && let Some(rest) = rest {
            written = if rest.chunked {
                Box::pin(self.stream(*rest, &mut pieces)).await
            } else {
                Box::pin(self.copy(*rest)).await
            };
        }
        self.worker.keep_head_buffer(pieces.bytes);
        drop(turn);
        written && !close
    }

    /// Waits for an answer; `None` when the client has gone.
    async fn ask(&mut self, request: Request) -> Option<Answer> {
        let Request { head, to_head, close, guest, settings } = request;
        let socket = &self.record.socket;
        socket.limit_sending(settings.send_timeout);
        socket.prepare_sending(&self.stream);
        let mut ticket = Ticket::new(self.worker.clone(), settings.config.proxy.fast_path);
        if let Err(fault) = ticket.admit(guest.unwrap_or_else(|| self.record.guest().clone()), &settings) {
            let refused = Refused { fault, at: None, lines: Vec::new(), to_head, close };
            return Some(self.refuse(refused, &ticket, &settings));
        }
        let mut outgoing = Outgoing::bodyless(head);
        let mut asked = Asking { to_head, worker: self.worker, lines: Vec::new() };
        let outcome = {
            let attempts = Attempts { worker: self.worker, settings: &settings, record: self.record };
            let mut exchange = pin!(attempts.exchange(&mut asked, &mut outgoing, true));
            poll_fn(|cx| match exchange.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => self.poll_gone(cx).map(|()| None),
            })
            .await
        };
        let lines = asked.lines;
        let (fault, at) = match outcome? {
            Ok(answered) if answered.head.status != StatusCode::SWITCHING_PROTOCOLS => {
                let close = close || self.is_last(&settings);
                return Some(self.pass(answered, &settings, outgoing, lines, close, ticket));
            }
            Ok(answered) => {
                let fault = Fault::Invalid("it switched protocols although nobody asked for it");
                (fault, Some(answered.claim.local.clone()))
            }
            Err(Ended::Fault { fault, at }) => (fault, at),
            Err(Ended::Client { .. }) => return None,
        };
        let refused = Refused { fault, at, lines, to_head, close };
        Some(self.refuse(refused, &ticket, &settings))
    }

    /// Whether the connection ends with the answer that is due, whatever the client wants.
    fn is_last(&self, settings: &Settings) -> bool {
        self.record.is_to_close() || self.worker.is_draining() || self.record.is_last(settings)
    }

    /// An answer of portok's own.
    fn refuse(&self, refused: Refused, ticket: &Ticket, settings: &Settings) -> Answer {
        let Refused { fault, at, lines, to_head, close } = refused;
        let close = close || self.is_last(settings);
        let response = ticket.refuse(&fault, at.as_deref(), settings, close);
        Answer { pieces: refusal(lines, &response, to_head), rest: None, close }
    }

    /// The app's answer, whose head is `lines`, with as much of it as has come.
    fn pass(
        &self,
        answered: Answered,
        settings: &Settings,
        outgoing: Outgoing,
        mut lines: Vec<u8>,
        close: bool,
        ticket: Ticket,
    ) -> Answer {
        let Answered { head, connection, claim } = answered;
        ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        let unsent = if outgoing.is_done() {
            self.worker.keep_head_buffer(outgoing.into_buffer());
            None
        } else {
            Some(outgoing)
        };
        let chunked = matches!(head.framing, Framing::Chunked | Framing::Eof);
        write_ending(&mut lines, chunked, head.dated, close);
        let keep_alive = head.keep_alive && settings.config.upstream.keepalive;
        let mut incoming = Incoming::new(connection, unsent, head.framing, keep_alive);
        let rest = match incoming.take_whole_into(&mut lines) {
            Some(over) => {
                give_back(&claim, over);
                ticket.finish();
                None
            }
            None => {
                incoming.take_arrived_into(&mut lines);
                if settings.is_impatient
                    && let Some(patience) = self.record.patience(settings)
                {
                    incoming.wait_with(patience);
                }
                // A head of lines ends where its fields do.
                if chunked && is_event_stream(&lines) {
                    self.record.socket.limit_sending(0);
                    self.record.socket.prepare_sending(&self.stream);
                }
                Some(Box::new(Rest { incoming, chunked, claim, ticket }))
            }
        };
        Answer { pieces: Pieces::new(lines), rest, close }
    }

    /// Copies the rest of an answer whose length is told; whether all of it was. The thread's buffers are read into and
    /// written from, each held only while bytes move: a buffer for each part was a fifth of the CPU of 1 MiB, most of it for
    /// memory that went back to the kernel and came again.
    ///
    /// A client that takes a whole buffer at once gets the next parts by [`Self::copy_large`]: a quarter of the CPU of 1 MiB,
    /// which goes into wake-ups at both ends. One that has to be waited for holds no more than a usual buffer.
    async fn copy(&mut self, rest: Rest) -> bool {
        let Rest { mut incoming, claim, ticket, .. } = rest;
        let mut held = Some((claim, ticket));
        loop {
            let part = poll_fn(|cx| {
                let mut buffer = self.worker.buffer(BufferSize::Usual);
                match incoming.poll_copy(cx, &mut buffer) {
                    Poll::Ready(Ok(length)) => return Poll::Ready(Some(Ok((buffer, length)))),
                    Poll::Ready(Err(failed)) => return Poll::Ready(Some(Err(failed))),
                    Poll::Pending => self.worker.keep_buffer(buffer),
                }
                self.poll_gone(cx).map(|()| None)
            });
            let (buffer, length) = match part.await {
                None => return false,
                Some(Ok(part)) => part,
                Some(Err(failed)) => return broke(failed, held.as_ref()),
            };
            if incoming.is_over()
                && let Some((claim, ticket)) = held.take()
            {
                ticket.finish();
                give_back(&claim, incoming.over());
            }
            let written = self.write_part(&buffer[..length]).await;
            let was_full = length == buffer.len();
            self.worker.keep_buffer(buffer);
            let Ok(at_once) = written else { return false };
            if held.is_none() {
                return true;
            }
            if at_once && was_full {
                match self.copy_large(&mut incoming).await {
                    Copied::Waiting => (),
                    Copied::Over => return false,
                    Copied::Failed(failed) => return broke(failed, held.as_ref()),
                }
            }
        }
    }

    /// Copies through a large buffer as long as the client takes all there is at once, but for the last part. What it does not
    /// take stays in the kernel: a client that stops reading holds nothing of it.
    async fn copy_large(&mut self, incoming: &mut Incoming) -> Copied {
        loop {
            // Others have their turn after so much.
            tokio::task::yield_now().await;
            let step = poll_fn(|cx| {
                let mut buffer = self.worker.buffer(BufferSize::Large);
                let step = match incoming.poll_peek(cx, &mut buffer, BufferSize::Usual.length()) {
                    Poll::Ready(Ok(0)) => Poll::Ready(Some(Copied::Waiting)),
                    Poll::Ready(Ok(length)) => {
                        let written = Pin::new(&mut self.stream).poll_write(cx, &buffer[..length]);
                        Poll::Ready(taken(written, length, incoming))
                    }
                    Poll::Ready(Err(failed)) => Poll::Ready(Some(Copied::Failed(failed))),
                    Poll::Pending => self.poll_gone(cx).map(|()| Some(Copied::Over)),
                };
                self.worker.keep_buffer(buffer);
                step
            });
            if let Some(copied) = step.await {
                return copied;
            }
        }
    }

    /// Writes all of `bytes`; whether nothing had to be waited for.
    async fn write_part(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        let mut at_once = true;
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
                at_once &= written.is_ready();
                match ready!(written)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => bytes = &bytes[count..],
                }
            }
            Poll::Ready(Ok(at_once))
        })
        .await
    }

    /// Passes the rest of an answer on in chunks; whether all of it was.
    async fn stream(&mut self, rest: Rest, pieces: &mut Pieces) -> bool {
        let Rest { mut incoming, claim, ticket, .. } = rest;
        let mut held = Some((claim, ticket));
        loop {
            let filled = poll_fn(|cx| match poll_fill(cx, &mut incoming, pieces) {
                Poll::Ready(filled) => Poll::Ready(Some(filled)),
                Poll::Pending => self.poll_gone(cx).map(|()| None),
            });
            let over = match filled.await {
                None => return false,
                Some(Ok(over)) => over,
                Some(Err(failed)) => return broke(failed, held.as_ref()),
            };
            let ended = over.is_some();
            if let Some(over) = over
                && let Some((claim, ticket)) = held.take()
            {
                ticket.finish();
                give_back(&claim, over);
            }
            if self.write(pieces).await.is_err() {
                return false;
            }
            if ended {
                return true;
            }
        }
    }

    async fn write(&mut self, pieces: &mut Pieces) -> io::Result<()> {
        poll_fn(|cx| {
            while pieces.is_pending() {
                ready!(pieces.poll_write(cx, &mut self.stream))?;
            }
            pieces.clear();
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// A request that gets no answer of the app's.
struct Refused {
    fault: Fault,
    /// Whose target was asked.
    at: Option<Rc<Local>>,
    /// Where its answer is written to.
    lines: Vec<u8>,
    to_head: bool,
    close: bool,
}

/// Why a large buffer is of no more use.
enum Copied {
    /// The client takes no more for now, or little is left.
    Waiting,
    /// The client has gone.
    Over,
    Failed(Failed),
}

/// What it means that a client has `written` of `length` bytes that are still in the kernel; `None`: the next ones may follow.
fn taken(written: Poll<io::Result<usize>>, length: usize, incoming: &mut Incoming) -> Option<Copied> {
    let count = match written {
        Poll::Ready(Ok(count @ 1..)) => count,
        Poll::Ready(Ok(0) | Err(_)) => return Some(Copied::Over),
        Poll::Pending => return Some(Copied::Waiting),
    };
    match incoming.skip(count) {
        Ok(()) => (count < length).then_some(Copied::Waiting),
        Err(failed) => Some(Copied::Failed(failed)),
    }
}

/// What is written to the client.
struct Answer {
    pieces: Pieces,
    /// What is still to come behind `pieces`.
    rest: Option<Box<Rest>>,
    /// The connection ends with it.
    close: bool,
}

/// What has not arrived yet of an app's answer, and what counts it.
struct Rest {
    incoming: Incoming,
    chunked: bool,
    claim: Claim,
    ticket: Ticket,
}

/// Whether a head, as it is written to the client, is that of an event stream.
fn is_event_stream(head: &[u8]) -> bool {
    let types = head.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"content-type: "));
    types.into_iter().any(|content_type| answer::is_event_stream(Some(content_type)))
}

fn give_back(claim: &Claim, over: exchange::Over) {
    if let Some(connection) = over.connection {
        claim.local.give_back(connection);
    }
}

/// Notes why an answer broke off, which ends the connection: false.
fn broke(failed: Failed, held: Option<&(Claim, Ticket)>) -> bool {
    if let (Ended::Fault { fault, .. }, Some((_, ticket))) = (attempts::ended(failed), held) {
        ticket.broke(&fault);
    }
    false
}

/// Takes what there is of the answer, to be written at once in chunks; with what the body leaves, when it is over. Pending
/// while there is nothing.
fn poll_fill(
    cx: &mut Context<'_>,
    incoming: &mut Incoming,
    pieces: &mut Pieces,
) -> Poll<Result<Option<exchange::Over>, Failed>> {
    while pieces.payload.is_empty() && pieces.bytes.len() < BATCH {
        let step = match incoming.poll_step(cx) {
            // What came before an error, or before a pause, goes first; an error comes again.
            Poll::Pending | Poll::Ready(Err(_)) if pieces.is_pending() => break,
            step => ready!(step)?,
        };
        match step {
            Step::Frame(frame) => {
                // Only a client that asks for trailers gets them, and its requests are not plain.
                if let Ok(data) = frame.into_data() {
                    add_chunk(pieces, data);
                }
            }
            Step::Over(over) => {
                pieces.bytes.extend_from_slice(b"0\r\n\r\n");
                return Poll::Ready(Ok(Some(over)));
            }
        }
    }
    Poll::Ready(Ok(None))
}

/// Adds a part of the body as a chunk.
fn add_chunk(pieces: &mut Pieces, data: Bytes) {
    let (mut digits, mut at, mut left) = ([0; 16], 16, data.len());
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    pieces.bytes.extend_from_slice(&digits[at..]);
    pieces.bytes.extend_from_slice(b"\r\n");
    if data.len() > SMALL {
        (pieces.payload, pieces.tail) = (data, b"\r\n");
    } else {
        pieces.bytes.extend_from_slice(&data);
        pieces.bytes.extend_from_slice(b"\r\n");
    }
}

/// Writes the fields that portok adds to an answer, and the empty line.
fn write_ending(out: &mut Vec<u8>, chunked: bool, dated: bool, close: bool) {
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if !dated {
        fields::line(out, b"date", &clock::date());
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// An answer of portok's own.
fn refusal(mut lines: Vec<u8>, response: &Response<Bytes>, to_head: bool) -> Pieces {
    let out = &mut lines;
    out.clear();
    head::status_line(out, response.status(), None);
    for (name, value) in response.headers() {
        fields::line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    fields::line(out, b"content-length", response.body().len().to_string().as_bytes());
    write_ending(out, false, false, false);
    if !to_head {
        out.extend_from_slice(response.body());
    }
    Pieces::new(lines)
}

/// What goes out: a head that is written already.
struct Asking<'a> {
    to_head: bool,
    worker: &'a Worker,
    lines: Vec<u8>,
}

impl Room for Asking<'_> {
    fn lines(&mut self) -> &mut Vec<u8> {
        if self.lines.capacity() == 0 {
            self.lines = self.worker.head_buffer();
        }
        &mut self.lines
    }
}

impl Ask for Asking<'_> {
    fn to_head(&self) -> bool {
        self.to_head
    }

    fn write_head(&mut self, _: &mut Vec<u8>, _: SocketAddr) {}

    fn fields(&mut self) -> Fields<'_> {
        Fields::Lines(self)
    }
}
