//! What a client is answered: the body of the app's answer, or an answer of portok's own.
//!
//! [`Body`] holds what must live until the last byte is handed on: the claim, the ticket, the
//! connection to the app. Dropped early (the client has gone), all of it is given back, and the
//! connection to the app is closed.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::ReservedBody;
use super::client_exchange::ClientExchange;
use super::connection::ClientConnection;
use super::fault::Fault;
use super::ticket::Ticket;
use super::upstream::exchange::{Failed, Incoming, Step};
use super::upstream::h2c;
use super::upstream::pool::Claim;
use crate::http1::fields::decimal;

/// A bare answer after which the connection is closed.
pub(super) fn bare(status: StatusCode, turn: Turn) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new(), turn));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Sends the client to `location`. Without a body, and for good.
pub(super) fn redirect(status: StatusCode, location: HeaderValue, close: bool) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response.headers_mut().insert(header::LOCATION, location);
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What says that portok itself is there.
pub(super) const PRESENT: Bytes = Bytes::from_static(b"OK\n");

/// A text of portok's own, for this moment. `close`: the connection ends with it.
pub(super) fn plain_text(text: Bytes, close: bool) -> Response<Bytes> {
    let mut response = Response::new(text);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Where a client is sent whose requests go to `to`, a scheme and an authority: with the target of
/// this one as the client wrote it. The request to a host as a whole (`*`) goes to the other host
/// as a whole.
pub(super) fn location(to: &str, target: &[u8]) -> Option<HeaderValue> {
    let (between, target) = match target {
        b"*" => ("", &b""[..]),
        [b'/', ..] => ("", target),
        _ => ("/", target),
    };
    HeaderValue::from_bytes(&[to.as_bytes(), between.as_bytes(), target].concat()).ok()
}

/// A client connection's turn to be answered. Once it is dropped the connection waits for its next
/// head.
#[derive(Debug)]
pub(super) struct Turn(Rc<ClientConnection>);

impl Turn {
    pub(super) fn new(client: Rc<ClientConnection>) -> Self {
        client.begin();
        Self(client)
    }

    pub(super) fn client(&self) -> &Rc<ClientConnection> {
        &self.0
    }

    /// The state of the request whose turn it is.
    pub(super) fn exchange(&self) -> &ClientExchange {
        self.0.exchange()
    }

    /// Keeps the client's socket open for a while after the answer, because the client still sends
    /// bytes that nobody will read.
    pub(super) fn linger(&self) {
        self.0.linger();
    }

    /// From the next write on, the client may take nothing for `send_timeout` milliseconds (0:
    /// without limit).
    pub(super) fn limit_sending(&self, send_timeout: u32) {
        self.0.socket.limit_sending(send_timeout);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What counts a request as under way until its answer is over.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) claim: Option<Claim>,
    pub(super) ticket: Ticket,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    kind: Kind,
    // Dropped in this order: first what counts the request, then the connection's turn.
    under_way: Option<UnderWay>,
    turn: Turn,
}

#[derive(Debug)]
enum Kind {
    Over,
    Whole(Bytes),
    /// No body, although the head tells a length (an answer to `HEAD`, a 304).
    Told(u64),
    App(Box<Incoming>),
    /// That of an app that speaks HTTP/2.
    Streamed(Box<h2c::body::Incoming>),
    Reserved(Box<ReservedBody>),
    /// The app's answer broke off. hyper learns of it one turn later, after it has written what
    /// came before.
    Broken(Option<io::Error>),
}

impl Body {
    /// A body of known bytes.
    pub(super) fn whole(bytes: Bytes, turn: Turn) -> Self {
        let kind = if bytes.is_empty() { Kind::Over } else { Kind::Whole(bytes) };
        Self { kind, under_way: None, turn }
    }

    /// No body, behind a head that tells a length.
    pub(super) fn told(length: u64, turn: Turn) -> Self {
        Self { kind: Kind::Told(length), under_way: None, turn }
    }

    /// The body of an app's answer.
    pub(super) fn app(incoming: Incoming, turn: Turn) -> Self {
        Self { kind: Kind::App(Box::new(incoming)), under_way: None, turn }
    }

    /// The body of the answer of an app that speaks HTTP/2.
    pub(super) fn streamed(incoming: h2c::body::Incoming, turn: Turn) -> Self {
        Self { kind: Kind::Streamed(Box::new(incoming)), under_way: None, turn }
    }

    /// The body of the control plane's answer.
    pub(super) fn reserved(body: ReservedBody, turn: Turn) -> Self {
        Self { kind: Kind::Reserved(Box::new(body)), under_way: None, turn }
    }

    /// Keeps `under_way` until the body is over.
    // Called in one place; measured: a call of its own copies the body once more.
    #[inline(always)]
    pub(super) fn hold(mut self, under_way: UnderWay) -> Self {
        if matches!(self.kind, Kind::Over | Kind::Told(_)) {
            under_way.ticket.finish();
        }
        self.under_way = Some(under_way);
        self
    }

    /// Drops the known bytes that it has. False: it has none.
    pub(super) fn silence(&mut self) -> bool {
        let has_some = matches!(self.kind, Kind::Whole(_));
        if has_some {
            self.finish(None);
        }
        has_some
    }

    fn finish(&mut self, incoming: Option<super::upstream::exchange::Over>) {
        self.kind = Kind::Over;
        if let Some(over) = incoming {
            if over.unread {
                self.turn.linger();
            }
            if let (Some(connection), Some(claim)) =
                (over.connection, self.under_way.as_ref().and_then(|h| h.claim.as_ref()))
            {
                claim.local.give_back(connection);
            }
        }
        if let Some(under_way) = self.under_way.take() {
            under_way.ticket.finish();
        }
    }

    fn fail(&mut self, failed: Failed) -> io::Error {
        let error = match failed {
            Failed::Client(error) => io::Error::other(error),
            Failed::TooLarge => self.broke(&Fault::BodyTooLarge),
            Failed::Late => self.broke(&Fault::BodyTimeout),
            Failed::Reset { error, .. } => self.broke(&Fault::Reset(error)),
            Failed::Invalid(invalid) => self.broke(&Fault::Invalid(invalid.0)),
            Failed::Timeout(what) => self.broke(&Fault::Timeout(what)),
        };
        let over = match &mut self.kind {
            Kind::App(incoming) => Some(incoming.over()),
            Kind::Streamed(incoming) => Some(incoming.over()),
            _ => None,
        };
        if over.is_some_and(|over| over.unread) {
            self.turn.linger();
        }
        self.under_way = None;
        error
    }

    /// The next frame of an answer that comes over HTTP/2.
    #[inline(never)]
    fn poll_streamed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Kind::Streamed(incoming) = &mut self.kind else { return Poll::Ready(None) };
        match ready!(incoming.poll_step(cx)) {
            Ok(Step::Frame(frame)) => {
                let over = incoming.is_over().then(|| incoming.over());
                if let (Some(under_way), Some(data)) = (&self.under_way, frame.data_ref()) {
                    under_way.ticket.passed_out(data.len());
                }
                if over.is_some() {
                    self.finish(over);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Step::Over(over)) => {
                self.finish(Some(over));
                Poll::Ready(None)
            }
            Err(failed) => {
                let error = self.fail(failed);
                self.kind = Kind::Broken(Some(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn broke(&self, fault: &Fault) -> io::Error {
        let under_way = self.under_way.as_ref();
        io::Error::other(under_way.map_or_else(|| fault.cause(), |under_way| under_way.ticket.broke(fault)))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Over | Kind::Told(_) => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                this.finish(None);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Reserved(body) => Pin::new(body).poll_frame(cx),
            Kind::Broken(error) => Poll::Ready(error.take().map(Err)),
            Kind::Streamed(_) => this.poll_streamed(cx),
            Kind::App(incoming) => match ready!(incoming.poll_step(cx)) {
                Ok(Step::Frame(frame)) => {
                    if let Some(under_way) = &this.under_way
                        && under_way.ticket.extras().is_some()
                        && let Some(data) = frame.data_ref()
                    {
                        under_way.ticket.passed_out(data.len());
                    }
                    if incoming.is_over() {
                        let over = incoming.over();
                        this.finish(Some(over));
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Ok(Step::Over(over)) => {
                    this.finish(Some(over));
                    Poll::Ready(None)
                }
                Err(failed) => {
                    let error = this.fail(failed);
                    this.kind = Kind::Broken(Some(error));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Over => true,
            Kind::Whole(_) | Kind::Told(_) | Kind::App(_) | Kind::Streamed(_) | Kind::Broken(_) => false,
            Kind::Reserved(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Over => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Told(length) => SizeHint::with_exact(*length),
            Kind::App(incoming) => incoming.size_hint(),
            Kind::Streamed(incoming) => incoming.size_hint(),
            Kind::Reserved(body) => body.size_hint(),
            Kind::Broken(_) => SizeHint::default(),
        }
    }
}

/// Whether this content type is that of event streams, which may be silent, or unread, for long.
pub(super) fn is_event_stream(content_type: Option<&[u8]>) -> bool {
    const KIND: &[u8] = b"text/event-stream";
    let kind = content_type.and_then(|value| value.get(..KIND.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// The length a head tells.
pub(super) fn told_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| decimal(value.as_bytes()))
}
