//! The path of one request: judged, given a target, sent, answered.
//!
//! State: owned by the request; what must outlive it goes into the answer's body or the tunnel. Dropped (the client
//! went away), the claim is given back and the connection to the app is closed; that is no error of the
//! proxy. The order that matters: a target is claimed before anything is connected, and the client's body is
//! touched only when a connection is there, so that `100 Continue` promises nothing that cannot be kept.

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;

use super::answer::{self, Body, Fault, Held, Turn};
use super::client::Record;
use super::clock;
use super::headers;
use super::tunnel::Tunnel;
use super::upstream::connection::Connection;
use super::upstream::exchange::{self, Exchange, Failed, PollHead};
use super::upstream::head::{Framing, Head};
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::{self, Claim, Slot};
use super::worker::{REFUSED_PAUSE, Settings, Ticket, Worker, trusts};

/// Answers one request of a client.
pub(super) async fn forward(
    worker: Rc<Worker>,
    record: Rc<Record>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let turn = Turn::new(record);
    if let Err(status) = judge(&request) {
        if exchange::has_body(request.body()) {
            turn.record().linger();
        }
        return Ok(answer::bare(status, turn));
    }
    let settings = worker.settings();
    let admin = &settings.config.admin;
    if admin.public && request.uri().path().starts_with(&admin.prefix) {
        let answer = worker.reserved.answer(turn.record().peer, request);
        return Ok(answer.await.map(|body| Body::reserved(body, turn)));
    }
    let ticket = Ticket::new(worker.clone(), settings.config.proxy.fast_path);
    Ok(Forward { worker, settings, turn, ticket }.run(request).await)
}

/// What hyper lets pass although it can be understood in two ways (RFC 9112, 3.2, 6.1), and `CONNECT`.
fn judge(request: &Request<Incoming>) -> Result<(), StatusCode> {
    if request.method() == Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    let hosts_fit = hosts.next().is_none() && (host.is_some() || request.version() < Version::HTTP_11);
    let host_fits = host.is_none_or(|host| host.as_bytes().iter().all(|&byte| is_host_byte(byte)));
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding_fits = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let uri = request.uri();
    let asterisk = uri.path() == "*" && request.method() != Method::OPTIONS;
    // A target of a host alone, or with a user's name in it, is none that an app could be asked for.
    let target_fits = !asterisk
        && match uri.authority() {
            None => uri.path_and_query().is_some(),
            Some(authority) => uri.scheme().is_some() && !authority.as_str().contains('@'),
        };
    let fits = hosts_fit && host_fits && coding_fits && codings.next().is_none() && target_fits;
    if fits { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
}

/// Bytes of a host and port (RFC 3986, 3.2.2).
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

/// Why a request got no answer of the app's.
enum Ended {
    Fault(Fault),
    /// The client's own doing: it broke off (`gone`), or sent what is no body.
    Client {
        gone: bool,
    },
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One request on its way.
struct Forward {
    worker: Rc<Worker>,
    settings: Rc<Settings>,
    turn: Turn,
    ticket: Ticket,
}

/// An answer's head with everything that belongs to it.
struct Answered {
    head: Head,
    connection: Connection,
    claim: Claim,
}

impl Forward {
    async fn run(self, mut request: Request<Incoming>) -> Response<Body> {
        let upgrade = upgrade_of(&mut request);
        let (mut parts, body) = request.into_parts();
        let limit = self.settings.config.proxy.max_body;
        let length = answer::told_length(&parts.headers);
        let chunked = parts.headers.contains_key(header::TRANSFER_ENCODING);
        let has_body = chunked || exchange::has_body(&body);
        if !chunked && length.is_some_and(|length| limit.is_some_and(|limit| length > limit)) {
            return self.refuse(&Fault::BodyTooLarge, has_body);
        }
        let mut outgoing = Outgoing::new(self.worker.head_buffer(), body, chunked, limit);
        let replayable = !has_body && is_idempotent(&parts.method);
        let outcome = self.exchange(&mut parts, &mut outgoing, chunked, upgrade.is_some(), replayable).await;
        match outcome {
            Ok(answered) if answered.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                self.tunnel(answered, upgrade, &outgoing)
            }
            Ok(answered) => self.answer(answered, outgoing),
            Err(Ended::Fault(fault)) => self.refuse(&fault, outgoing.has_body_left()),
            Err(Ended::Client { gone }) => {
                if !gone {
                    self.turn.record().linger();
                    self.ticket.answered(StatusCode::BAD_REQUEST.as_u16(), None);
                }
                answer::bare(StatusCode::BAD_REQUEST, self.turn)
            }
        }
    }

    /// Sends the request until there is an answer's head, over as many connections as the rules allow.
    async fn exchange(
        &self,
        parts: &mut Parts,
        outgoing: &mut Outgoing,
        chunked: bool,
        upgrade: bool,
        replayable: bool,
    ) -> Result<Answered, Ended> {
        let (record, upstream) = (self.turn.record(), &self.settings.config.upstream);
        let mut connect_by = clock::after(upstream.connect_timeout);
        let mut refused = Refused { pause: REFUSED_PAUSE.0, last: None };
        let (mut written, mut retried) = (false, false);
        loop {
            let Some(claim) = self.worker.claim(record, self.settings.config.drain.affinity) else {
                if clock::now() >= connect_by || !self.worker.switchboard.next_is_near() {
                    return Err(Fault::NoLiveTarget.into());
                }
                Box::pin(refused.wait()).await;
                continue;
            };
            let fresh = retried || !upstream.keepalive;
            let slot = match claim.local.try_take(fresh, upstream) {
                Some(slot) => Some(slot),
                None => Box::pin(record.until(connect_by, claim.local.wait(fresh, upstream))).await,
            };
            let opened = match slot {
                None => return Err(Fault::Timeout("all of upstream.max_connections are in use").into()),
                Some(Slot::Kept(connection)) => Ok(connection),
                Some(Slot::Fresh(permit)) => {
                    let open = Connection::open(claim.local.target.addr(), permit, upstream);
                    match Box::pin(record.until(connect_by, open)).await {
                        Some(opened) => opened,
                        None => return Err(refused.in_the_end().into()),
                    }
                }
            };
            let mut connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    // It may be started again, then at another address: look at the switchboard again.
                    drop(claim);
                    record.pinned.take();
                    Box::pin(refused.pause(error, connect_by)).await?;
                    continue;
                }
            };
            if !connection.reused {
                self.worker.shard().socket_created();
            }
            if !written {
                written = true;
                self.write_head(parts, outgoing, chunked, upgrade, &claim);
            }
            match self.converse(parts, outgoing, &mut connection).await {
                Ok(head) => return Ok(Answered { head, connection, claim }),
                Err(Failed::Reset { answered: false, .. })
                    if connection.reused && !retried && (replayable || outgoing.is_untouched()) =>
                {
                    retried = true;
                    connect_by = clock::after(upstream.connect_timeout);
                    outgoing.rewind();
                }
                Err(failed) => return Err(ended(failed)),
            }
        }
    }

    fn write_head(
        &self,
        parts: &mut Parts,
        outgoing: &mut Outgoing,
        chunked: bool,
        upgrade: bool,
        claim: &Claim,
    ) {
        let record = self.turn.record();
        let context = headers::Context {
            peer: record.peer_text(),
            trusted: trusts(&self.settings, record),
            forwarded: self.settings.config.proxy.forwarded,
            target: claim.local.target.addr(),
            chunked,
            upgrade,
            keep_alive: self.settings.config.upstream.keepalive,
        };
        headers::write_head(outgoing.head(), parts, &context);
        // From here on only their memory is of use: the answer's fields go there.
        parts.headers.clear();
    }

    /// Sends over one connection and waits for the head. The time for the answer begins anew while the
    /// request is still moving.
    async fn converse(
        &self,
        parts: &mut Parts,
        outgoing: &mut Outgoing,
        connection: &mut Connection,
    ) -> Result<Head, Failed> {
        let to_head = parts.method == Method::HEAD;
        let Some(timeout) = self.settings.config.upstream.response_timeout else {
            let head = PollHead(&mut Exchange::new(connection, outgoing, to_head, &mut parts.headers)).await;
            return head;
        };
        let record = self.turn.record();
        let mut exchange = Exchange::new(connection, outgoing, to_head, &mut parts.headers);
        loop {
            let before = exchange.outgoing.written();
            match record.until(clock::after(timeout), PollHead(&mut exchange)).await {
                Some(head) => return head,
                None if exchange.outgoing.written() > before => (),
                None => return Err(Failed::Timeout),
            }
        }
    }

    /// Passes the app's answer on.
    fn answer(self, answered: Answered, outgoing: Outgoing) -> Response<Body> {
        let Answered { head, connection, claim } = answered;
        self.ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        let rest = if outgoing.is_done() {
            self.worker.keep_head_buffer(outgoing.into_buffer());
            None
        } else {
            Some(outgoing)
        };
        let keep_alive = head.keep_alive && self.settings.config.upstream.keepalive;
        let mut incoming = exchange::Incoming::new(connection, rest, head.framing, keep_alive);
        let held = Held { claim: Some(claim), ticket: self.ticket };
        let mut close = false;
        let body = match incoming.take_whole() {
            Some((bytes, over)) => {
                close = over.unread;
                if close {
                    self.turn.record().linger();
                }
                if let (Some(connection), Some(claim)) = (over.connection, &held.claim) {
                    claim.local.give_back(connection);
                }
                whole(&head, bytes, self.turn)
            }
            None => Body::app(incoming, self.turn),
        };
        let mut response = respond(head, body.hold(held));
        if close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Passes a 101 on and leaves the tunnel for the connection's task.
    fn tunnel(self, answered: Answered, upgrade: Option<OnUpgrade>, outgoing: &Outgoing) -> Response<Body> {
        let Answered { head, connection, claim } = answered;
        let Some(client) = upgrade.filter(|_| outgoing.is_done()) else {
            let fault = Fault::Invalid("it switched protocols although nobody asked for it, or too early");
            return self.refuse(&fault, outgoing.has_body_left());
        };
        self.ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        let held = Held { claim: Some(claim), ticket: self.ticket };
        self.turn.record().tunnel.replace(Some(Tunnel { client, app: connection, held }));
        let protocol = head.upgrade.clone();
        let mut response = respond(head, Body::whole(Bytes::new(), self.turn));
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(header::UPGRADE, protocol);
        }
        response
    }

    /// Answers with an error of portok's own.
    fn refuse(self, fault: &Fault, unread: bool) -> Response<Body> {
        let cause = fault.cause();
        tracing::debug!(code = fault.code(), %cause, "a request got no answer of the app's");
        if unread {
            self.turn.record().linger();
        }
        self.ticket.failed(fault.code(), cause);
        let response = fault.answer(self.turn, self.settings.config.log.verbose_errors, unread);
        self.ticket.answered(response.status().as_u16(), None);
        response.map(|body| body.hold(Held { claim: None, ticket: self.ticket }))
    }
}

/// Connections that were refused so far.
struct Refused {
    /// How long the app is left alone before the next try.
    pause: Duration,
    last: Option<io::Error>,
}

impl Refused {
    /// Waits a moment; an error once another try makes no sense any more.
    async fn pause(&mut self, error: io::Error, until: u64) -> Result<(), Fault> {
        if clock::now() >= until || !pool::is_transient(&error) {
            return Err(Fault::Refused(error));
        }
        self.wait().await;
        self.last = Some(error);
        Ok(())
    }

    /// Waits a moment, the next time longer.
    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(REFUSED_PAUSE.1);
    }

    /// What a connection that did not come about in time was: refused all the while, or not answered.
    fn in_the_end(self) -> Fault {
        self.last.map_or(Fault::Timeout("upstream.connect_timeout"), Fault::Refused)
    }
}

fn ended(failed: Failed) -> Ended {
    match failed {
        Failed::Client(error) => Ended::Client { gone: is_gone(&error) },
        Failed::TooLarge => Fault::BodyTooLarge.into(),
        Failed::Reset { error, .. } => Fault::Reset(error).into(),
        Failed::Invalid(invalid) => Fault::Invalid(invalid.0).into(),
        Failed::Timeout => Fault::Timeout("upstream.response_timeout").into(),
    }
}

/// Whether a request's body failed because nobody sends it any more.
fn is_gone(error: &hyper::Error) -> bool {
    use io::ErrorKind as Kind;
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let broke = |kind| matches!(kind, Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe);
    error.is_incomplete_message() || cause.is_some_and(|cause| broke(cause.kind()))
}

/// A body that has arrived whole; where there is none, the length that the head tells goes on.
fn whole(head: &Head, bytes: Bytes, turn: Turn) -> Body {
    match answer::told_length(&head.headers) {
        Some(length) if head.framing == Framing::None && length > 0 => Body::told(length, turn),
        _ => Body::whole(bytes, turn),
    }
}

fn respond(head: Head, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
        response.extensions_mut().insert(reason);
    }
    response
}

/// The client's side of a tunnel, when the request asks for one (RFC 9110, 7.8).
fn upgrade_of(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let headers = request.headers();
    let asked = request.version() == Version::HTTP_11
        && headers.contains_key(header::UPGRADE)
        && headers::has_token(headers, &header::CONNECTION, b"upgrade");
    asked.then(|| hyper::upgrade::on(request))
}

/// Whether sending it twice does what sending it once does (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
