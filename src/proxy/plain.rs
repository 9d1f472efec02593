//! The short way of plain requests: `GET` and `HEAD` without a body, an upgrade or anything else
//! unusual.
//!
//! Most requests are plain, and hyper's way is long for them: for each it fills a header map, and
//! makes a service's future, a response and another map. Read and answered here, they cost 40 %
//! fewer instructions (44 % with a browser's headers), and an idle connection holds no buffer (1.1
//! KiB in all). A request that is not plain beyond doubt, a wrong one above all, is left to hyper
//! **untouched**: its bytes are handed over with the connection, which stays there. So this file
//! refuses nothing, and judges nothing otherwise than hyper would; both use the same parser.
//!
//! State: owned by the connection's task. Dropped, the claim is given back and the connection to
//! the app is closed. The order that matters: what counts a request ends before the last part of
//! its answer is written, so that a client that has the answer finds it counted. The connection's
//! turn ends after that.

use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use tokio::io::AsyncReadExt;

use self::passing::{Rest, give_back};
use self::request::{MOST_FIELDS, Plain};
use super::answer::{self, Turn};
use super::attempts::{Answered, Attempts, ForwardedRequest, Kept, NoAnswer};
use super::clock;
use super::connection::ClientConnection;
use super::crowd::Guest;
use super::extras::Extras;
use super::fault::Fault;
use super::here::{Routed, ServiceHere};
use super::pieces::Pieces;
use super::settings::Settings;
use super::stayer::StayerKind;
use super::sticky::Wish;
use super::stream::ClientStream;
use super::ticket::Ticket;
use super::upstream::exchange::Incoming;
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::LocalTarget;
use super::worker::Worker;
use crate::http1::fields;
use crate::http1::head::{self, Fields, Framing, Room};

mod passing;
#[cfg(not(any(test, fuzzing)))]
mod request;
#[cfg(any(test, fuzzing))]
pub(super) mod request;

/// A head that is not complete after this many bytes is left to hyper.
const LONGEST: usize = 16 * 1024;

/// The field that tells a browser to stay with TLS.
const HSTS: &[u8] = b"strict-transport-security";

/// A connection that goes on with hyper, and the bytes that were read and not used.
pub(super) type Other<S> = (S, Vec<u8>);

/// Serves `stream` as long as its requests are plain. Returns it once another kind has come.
pub(super) fn serve<'a, S: ClientStream>(
    worker: &'a Rc<Worker>,
    client: &'a Rc<ClientConnection>,
    stream: S,
) -> impl Future<Output = Option<Other<S>>> {
    let mut way = ShortWay { worker, client, stream, input: Vec::new() };
    async move {
        loop {
            match way.next().await {
                Next::Plain(request) => {
                    if !in_a_box(way.answer(request)).await {
                        break;
                    }
                }
                Next::Other => return Some((way.stream, way.input)),
                Next::Over => break,
            }
        }
        way.stream.farewell();
        None
    }
}

/// The future of a request under way, apart from its connection: an idle one has no room for it.
/// glibc keeps rooms of up to 1,032 bytes at hand; for a larger one it would have to search.
fn in_a_box<F>(request: F) -> Pin<Box<F>> {
    const { assert!(size_of::<F>() <= 1032) };
    Box::pin(request)
}

/// A client's connection on the short way.
struct ShortWay<'a, S> {
    worker: &'a Rc<Worker>,
    client: &'a Rc<ClientConnection>,
    stream: S,
    /// Received and not yet used. Without memory while it is empty.
    input: Vec<u8>,
}

/// What a client sends next.
enum Next {
    Plain(Request),
    /// A request for hyper.
    Other,
    /// Nothing: the connection is over.
    Over,
}

/// A plain request.
struct Request {
    /// As the app gets it.
    head: Vec<u8>,
    to_head: bool,
    /// The client wants the connection closed after the answer.
    close: bool,
    /// Whom it counts for, if it may name another client than the peer.
    guest: Option<Rc<Guest>>,
    service: Rc<ServiceHere>,
    /// The member of a set that it is for.
    wish: Option<Wish>,
    /// What only some configurations want of it.
    extras: Option<Box<Extras>>,
}

impl<S: ClientStream> ShortWay<'_, S> {
    /// Waits for the next request.
    async fn next(&mut self) -> Next {
        if !self.input.is_empty() {
            self.client.note_read();
        }
        let mut begins = true;
        poll_fn(|cx| {
            loop {
                if !self.input.is_empty()
                    && let Some(next) = self.understand()
                {
                    return Poll::Ready(next);
                }
                // Nearly every client sends the next request when it has the answer. To ask whether
                // something is there costs less than a read that finds nothing.
                let waits = std::mem::take(&mut begins)
                    && self.input.is_empty()
                    && self.stream.poll_readable(cx).is_pending();
                match if waits { Poll::Pending } else { self.poll_read(cx) } {
                    Poll::Ready(Ok(1..)) => self.client.note_read(),
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Over),
                    // A head that has begun to come is waited for. Its answer then says that it is
                    // the last.
                    Poll::Pending
                        if self.client.is_to_close()
                            && self.input.is_empty()
                            && !self.stream.has_arrived() =>
                    {
                        return Poll::Ready(Next::Over);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Reads once, behind what is there, into a buffer of the thread's: an idle connection holds
    /// none.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = self.worker.spares.head();
        }
        let read = pin!(self.stream.read_buf(&mut self.input)).poll(cx);
        if self.input.is_empty() {
            self.worker.spares.keep_head(std::mem::take(&mut self.input));
        }
        read
    }

    /// Ready once the client has gone. What it sends before that is kept for the next request; from
    /// then on nothing more is read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.input.is_empty() || self.stream.poll_readable(cx).is_pending() {
            return Poll::Pending;
        }
        match self.poll_read(cx) {
            Poll::Pending | Poll::Ready(Ok(1..)) => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
        }
    }

    /// Takes a request off the input. `None`: it is not complete yet.
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
        let here = &self.worker.here;
        let own = here.look();
        let Some(plain) = Plain::of(&request).filter(|plain| plain.fits(length, &own.settings, self.client))
        else {
            return Some(Next::Other);
        };
        // One that goes to no app is answered on the long way.
        let routed = here.route(own, self.client, || Some(plain.host), plain.target.as_bytes());
        let Ok(Routed { service, cut }) = routed else {
            return Some(Next::Other);
        };
        let mut head = self.worker.spares.head();
        let extras = match &service.settings.wanted {
            None => None,
            Some(wanted) if wanted.is_long() => {
                self.worker.spares.keep_head(head);
                return Some(Next::Other);
            }
            Some(wanted) => {
                let peer = self.client.peer;
                let balancer = self.client.balancer();
                let knows = |token: &[u8], proxied| {
                    let (peer, proxied) = (balancer.unwrap_or(peer), proxied || balancer.is_some());
                    self.worker.reserved.knows(peer, token, proxied)
                };
                Some(plain.begin(wanted, &service.settings, peer, knows))
            }
        };
        plain.write(&mut head, self.client, &service.settings, cut, extras.as_deref());
        let (to_head, close) = (plain.to_head, plain.close);
        let guest = plain.is_forwarded.then(|| service.named_guest(self.client, || plain.pairs()));
        let sticky = service.settings.sticky.as_ref();
        let wish = sticky.map(|rule| {
            rule.wish(plain.pairs(), || guest.as_ref().map_or(self.client.peer.ip(), |guest| guest.ip()))
        });
        self.consume(length);
        Some(Next::Plain(Request { head, to_head, close, guest, service, wish, extras }))
    }

    fn consume(&mut self, length: usize) {
        if length < self.input.len() {
            self.input.drain(..length);
        } else {
            self.worker.spares.keep_head(std::mem::take(&mut self.input));
        }
    }

    /// Answers a request. Returns whether the connection goes on.
    ///
    /// What is asked and what is delivered share the room of a request under way, with their large
    /// parts in boxes.
    #[expect(clippy::manual_async_fn, reason = "an async function would have the request twice")]
    fn answer(&mut self, mut request: Request) -> impl Future<Output = bool> {
        async move {
            let turn = Turn::new(self.client.clone());
            let Some(answer) = self.ask(&mut request).await else { return false };
            let goes_on = self.deliver(answer).await;
            drop(turn);
            goes_on
        }
    }

    /// Sends the client its answer. Returns whether the connection goes on.
    async fn deliver(&mut self, answer: Answer) -> bool {
        let Answer { mut pieces, rest, close } = answer;
        let mut written = self.write(&mut pieces).await.is_ok();
        if written && let Some(rest) = rest {
            written = if rest.chunked {
                Box::pin(self.stream(*rest, &mut pieces)).await
            } else {
                Box::pin(self.copy(*rest)).await
            };
        }
        self.worker.spares.keep_head(pieces.bytes);
        written && !close
    }

    /// Waits for an answer. `None`: the client has gone.
    ///
    /// While it waits it holds the request by one reference, and no copies of its parts.
    async fn ask(&mut self, asked: &mut Request) -> Option<Answer> {
        let (head, guest, extras) =
            (std::mem::take(&mut asked.head), asked.guest.take(), asked.extras.take());
        let asked = &*asked;
        let socket = &self.client.socket;
        socket.limit_sending(asked.service.settings.send_timeout);
        socket.prepare_sending(self.stream.tcp());
        let mut ticket = Ticket::new(asked.service.clone(), extras);
        let guest = guest.unwrap_or_else(|| asked.service.guest(self.client));
        if let Err(fault) = ticket.admit(guest) {
            let refused = Refused { fault, at: None, lines: Vec::new() };
            return Some(self.refuse(asked, refused, &ticket));
        }
        let mut outgoing = Outgoing::bodyless(head);
        let (to_head, extras) = (asked.to_head, ticket.extras());
        let (worker, lines) = (self.worker, Vec::new());
        let mut request = WrittenRequest::<S> { of: PhantomData, to_head, worker, lines, extras };
        let outcome = {
            let (client, exchange) = (&**self.client, self.client.exchange());
            let (service, wish) = (&*asked.service, &asked.wish);
            let attempts = Attempts { worker: self.worker, service, client, exchange, wish };
            let mut exchange = pin!(attempts.exchange(&mut request, &mut outgoing, true));
            poll_fn(|cx| match exchange.as_mut().poll(cx) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending => self.poll_gone(cx).map(|()| None),
            })
            .await
        };
        let mut lines = request.lines;
        let (fault, at) = match outcome? {
            Ok(answered) if answered.head.status != StatusCode::SWITCHING_PROTOCOLS => {
                let settings = &asked.service.settings;
                let close = asked.close || self.is_last(settings);
                if settings.adds_fields {
                    self.add_fields(&mut lines, settings, &ticket, asked.wish, &answered.claim.local);
                }
                return Some(self.pass(answered, settings, outgoing, lines, close, ticket));
            }
            Ok(answered) => {
                let fault = Fault::Invalid("it switched protocols although nobody asked for it");
                (fault, Some(answered.claim.local.clone()))
            }
            Err(NoAnswer::Fault { fault, at }) => (fault, at),
            Err(NoAnswer::Client { .. }) => return None,
        };
        Some(self.refuse(asked, Refused { fault, at, lines }, &ticket))
    }

    /// Adds portok's own fields to the head of an answer of the app's.
    #[inline(never)]
    fn add_fields(
        &self,
        lines: &mut Vec<u8>,
        settings: &Settings,
        ticket: &Ticket,
        wish: Option<Wish>,
        local: &LocalTarget,
    ) {
        ticket.add_fields(lines, wish, local, self.client.scheme());
        if let Some(hsts) = self.hsts(settings)
            && !has_field(lines, HSTS)
        {
            fields::line(lines, HSTS, hsts.as_bytes());
        }
    }

    /// What the client's browser is told of TLS, over TLS alone.
    fn hsts<'s>(&self, settings: &'s Settings) -> Option<&'s HeaderValue> {
        settings.edge.as_ref().and_then(|edge| edge.hsts.as_ref()).filter(|_| self.client.shown().is_some())
    }

    /// Whether the connection ends with the answer that is due, even if the client would keep it.
    fn is_last(&self, settings: &Settings) -> bool {
        self.client.is_to_close() || self.worker.is_draining() || self.client.is_last(settings)
    }

    /// An answer of portok's own.
    fn refuse(&self, asked: &Request, refused: Refused, ticket: &Ticket) -> Answer {
        let Refused { fault, at, lines } = refused;
        let settings = &asked.service.settings;
        let close = asked.close || self.is_last(settings);
        let mut response = ticket.refuse(&fault, at.as_deref(), close);
        if let (Some(edge), Some(_)) = (&settings.edge, self.client.shown()) {
            edge.tell(response.headers_mut());
        }
        Answer { pieces: refusal(lines, &response, asked.to_head), rest: None, close }
    }

    /// The app's answer, whose head is `lines`, with as much of it as has come.
    // Measured: a call of its own costs a plain request a hundred instructions more.
    #[inline(always)]
    fn pass(
        &self,
        answered: Answered,
        settings: &Settings,
        outgoing: Outgoing,
        mut lines: Vec<u8>,
        close: bool,
        ticket: Ticket,
    ) -> Answer {
        let Answered { head, connection, mut claim } = answered;
        ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        let (sent, unsent) = match outgoing.is_done() {
            true => (outgoing.into_buffer(), None),
            false => (Vec::new(), Some(outgoing)),
        };
        let chunked = matches!(head.framing, Framing::Chunked | Framing::Eof);
        write_ending(&mut lines, chunked, head.dated, close);
        let keep_alive = head.keep_alive && settings.app.upstream.keepalive;
        let mut incoming = Incoming::new(connection, unsent, head.framing, keep_alive);
        head.end_of_lines();
        let end = lines.len();
        let rest = match incoming.take_whole_into(&mut lines) {
            Some(over) => {
                give_back(&claim, over);
                ticket.passed_out(lines.len() - end);
                ticket.finish();
                None
            }
            None => {
                incoming.take_arrived_into(&mut lines);
                ticket.passed_out(lines.len() - end);
                if settings.is_impatient
                    && let Some(patience) = self.client.exchange().patience(settings)
                {
                    incoming.wait_with(patience);
                }
                // A head of lines ends where its fields do.
                if chunked && is_event_stream(&lines) {
                    // It may last for ever: the next one that waits need not wait for it.
                    claim.pass = None;
                    let staying = self.client.stay(
                        &self.worker.stayers,
                        &claim,
                        StayerKind::EventStream,
                        path_of(&sent),
                    );
                    incoming.stay(Box::new(staying));
                    self.client.socket.limit_sending(0);
                    self.client.socket.prepare_sending(self.stream.tcp());
                }
                Some(Box::new(Rest { incoming, chunked, claim, ticket }))
            }
        };
        if sent.capacity() > 0 {
            self.worker.spares.keep_head(sent);
        }
        Answer { pieces: Pieces::new(lines), rest, close }
    }
}

/// A request that gets no answer of the app's, and why.
struct Refused {
    fault: Fault,
    /// The target that was asked, if one was.
    at: Option<Rc<LocalTarget>>,
    /// Where its answer is written to.
    lines: Vec<u8>,
}

/// What is written to the client.
struct Answer {
    pieces: Pieces,
    /// What is still to come behind `pieces`.
    rest: Option<Box<Rest>>,
    /// The connection ends with it.
    close: bool,
}

/// Whether a head, as it is written to the client, has a field of this name.
fn has_field(head: &[u8], name: &[u8]) -> bool {
    let mut lines = head.split(|&byte| byte == b'\n');
    lines.any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(b":")))
}

/// The path that a head asks for, as it was written to the app.
fn path_of(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b' ').nth(1).unwrap_or_default()
}

/// Whether a head, as it is written to the client, is that of an event stream.
fn is_event_stream(head: &[u8]) -> bool {
    let types = head.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"content-type: "));
    types.into_iter().any(|content_type| answer::is_event_stream(Some(content_type)))
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

/// A request whose head is written already.
///
/// It knows the client's stream by its type, so that what sends it is compiled for each kind of
/// stream: with one caller the compiler unfolds it, with two it does not, and a request over plain
/// TCP would pay for TLS.
struct WrittenRequest<'a, S> {
    of: PhantomData<fn() -> S>,
    to_head: bool,
    worker: &'a Worker,
    lines: Vec<u8>,
    extras: Option<&'a Extras>,
}

impl<S> Room for WrittenRequest<'_, S> {
    fn lines(&mut self) -> &mut Vec<u8> {
        if self.lines.capacity() == 0 {
            self.lines = self.worker.spares.head();
        }
        &mut self.lines
    }
}

impl<S> ForwardedRequest for WrittenRequest<'_, S> {
    fn to_head(&self) -> bool {
        self.to_head
    }

    fn write_head(&mut self, _: &mut Vec<u8>, _: SocketAddr) {
        if let Some(extras) = self.extras {
            extras.sent();
        }
    }

    fn tried_again(&mut self) {
        if let Some(extras) = self.extras {
            extras.tried_again();
        }
    }

    fn kept(&self) -> Kept {
        Kept { head: 0, sends_body: false }
    }

    fn fields(&mut self) -> Fields<'_> {
        Fields::Lines(self)
    }
}
