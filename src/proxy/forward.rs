//! The way of one request that hyper has read: judged, given a target, sent, answered.
//!
//! State: owned by the request; what outlives it goes into the answer's body or the tunnel. Dropped
//! (the client has gone), the claim is given back and the connection to the app is closed; that is
//! no error of the proxy. The order that matters: a target is claimed before a connection is
//! opened, and the client's body is touched only once there is a connection, so that `100 Continue`
//! promises nothing that cannot be kept.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;

use super::answer::{self, Body, Turn, UnderWay};
use super::attempts::{Answered, Attempts, ForwardedRequest, Kept, NoAnswer};
use super::connection::ClientConnection;
use super::edge::Edge;
use super::extras::{self, Asked, Extras, Wanted};
use super::fault::Fault;
use super::headers;
use super::here::{Aside, Routed, ServiceHere};
use super::judge::{Facts, judge};
use super::stayer::StayerKind;
use super::stayers::Staying;
use super::sticky::{self, Wish};
use super::ticket::Ticket;
use super::tunnel::{Tunnel, TunnelSlot};
use super::upstream::exchange;
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::{Claim, LocalTarget};
use super::waits::Patience;
use super::worker::Worker;
use crate::http1::head::{Fields, Framing, Head};
use crate::http1::host::compared;
use crate::http1::target::RequestTarget;

mod streamed;

/// Answers one request of a client over a stream `S`. A tunnel that comes of it is left in `slot`.
///
/// Not an `async fn`: that would move the request once more.
#[expect(
    clippy::extra_unused_type_parameters,
    reason = "compiled for each, it is unfolded in its one caller"
)]
pub(super) fn forward<S>(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    request: Request<Incoming>,
    slot: &TunnelSlot,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    let (mut parts, body) = request.into_parts();
    async move {
        let turn = Turn::new(client.clone());
        let raw = client.socket.take_target();
        let (target, facts) = match judge(&parts, raw.as_deref()) {
            Ok(judged) => judged,
            Err(status) => {
                if exchange::has_body(&body) {
                    turn.linger();
                }
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    let own = worker.here.look();
                    let accept = parts.headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
                    let pages = extras::takes_html(accept).then_some(&*own.settings.app.errors.pages);
                    let verbose = own.settings.config.log.verbose_errors;
                    let answer = Fault::Method.answer(verbose, true, 0, pages);
                    return Ok(answer.map(|text| Body::whole(text, turn)));
                }
                return Ok(answer::bare(status, turn));
            }
        };
        turn.client().judged(facts.body());
        let own = worker.here.look();
        let host = || host_of(&parts, &target);
        let unread = || facts.chunked || exchange::has_body(&body);
        let pings = matches!(parts.method, Method::GET | Method::HEAD);
        let said = match &own.settings.edge {
            _ if pings && own.settings.is_ping(host, target.path) => Some(answer::PRESENT),
            Some(edge) => edge.proof(target.path, client.shown()).map(Bytes::from),
            None => None,
        };
        if let Some(said) = said {
            if unread() {
                turn.linger();
            }
            return Ok(answer::plain_text(said, unread()).map(|text| Body::whole(text, turn)));
        }
        if let Some(edge) = &own.settings.edge
            && let Some(elsewhere) = elsewhere(edge, &own, client, host(), &parts.headers)
        {
            let extras = extras_of(worker, client, &own, &parts, &target);
            let forward = Forward::new(worker, own.clone(), turn, slot, extras);
            return Ok(match elsewhere {
                Elsewhere::AnotherConnection => forward.refuse(&Fault::Misdirected, None, true),
                Elsewhere::Encrypted(status, to) => forward.redirect(status, &to, target.path, unread()),
            });
        }
        if is_reserved(&own, client, host, target.path) {
            let mut request = Request::from_parts(parts, body);
            let (listener, peer) = (*client.listener(), client.balancer().unwrap_or(client.peer));
            if client.balancer().is_some() {
                // It has come through another proxy, as one that says so has.
                request.headers_mut().insert(header::FORWARDED, HeaderValue::from_static("for=unknown"));
            }
            let answer = worker.reserved.answer(listener, peer, request);
            return Ok(answer.await.map(|body| Body::reserved(body, turn)));
        }
        let routed = worker.here.route(own, client, host, target.path);
        let forward = |service: Rc<ServiceHere>| {
            let extras = extras_of(worker, client, &service, &parts, &target);
            Forward::new(worker, service, turn, slot, extras)
        };
        let response = match routed {
            Ok(Routed { service, cut }) => forward(service).run(&mut parts, body, target, cut, facts).await,
            Err(Aside::NoRoute(own)) => {
                let status = own.settings.no_route_status;
                forward(own).refuse(&Fault::NoRoute(status), None, unread())
            }
            Err(Aside::Redirect(service, to)) => {
                forward(service).redirect(StatusCode::PERMANENT_REDIRECT, &to, target.path, unread())
            }
        };
        raw.into_iter().for_each(|raw| client.socket.give_back(raw));
        Ok(response)
    }
}

/// One request on its way.
struct Forward<'s> {
    worker: &'s Worker,
    service: Rc<ServiceHere>,
    turn: Turn,
    ticket: Ticket,
    slot: &'s TunnelSlot,
    /// The member of a set that it is for.
    wish: Option<Wish>,
}

impl<'s> Forward<'s> {
    fn new(
        worker: &'s Worker,
        service: Rc<ServiceHere>,
        turn: Turn,
        slot: &'s TunnelSlot,
        extras: Option<Box<Extras>>,
    ) -> Self {
        // For every answer: a client that does not read must not hold the view for ever.
        turn.limit_sending(service.settings.send_timeout);
        let ticket = Ticket::new(service.clone(), extras);
        Self { worker, service, turn, ticket, slot, wish: None }
    }

    /// Asks the app, which does not get `cut` bytes at the beginning of the path.
    #[expect(clippy::manual_async_fn, reason = "an async function would have its arguments twice")]
    fn run(
        mut self,
        parts: &mut Parts,
        body: Incoming,
        target: RequestTarget<'_>,
        cut: usize,
        facts: Facts,
    ) -> impl Future<Output = Response<Body>> {
        async move {
            let allowed = &self.service.settings.config.proxy.upgrades;
            let upgrade = if facts.upgrade { upgrade_of(parts, allowed) } else { None };
            let limit = self.service.settings.config.proxy.max_body;
            if self.service.settings.is_h2c && upgrade.is_some() {
                let fault =
                    Fault::Invalid("an app of HTTP/2 (upstream.protocol) switches to no other protocol");
                return self.refuse(&fault, None, exchange::has_body(&body));
            }
            let Facts { length, chunked, .. } = facts;
            let has_body = chunked || exchange::has_body(&body);
            if !chunked && length.is_some_and(|length| limit.is_some_and(|limit| length > limit)) {
                return self.refuse(&Fault::BodyTooLarge, None, has_body);
            }
            if let Err(fault) = self.admit(parts, facts.is_forwarded, upgrade.is_some()) {
                return self.refuse(&fault, None, has_body);
            }
            let mut outgoing = Outgoing::new(self.worker.spares.head(), body, chunked, limit);
            if let (true, Some(time)) = (has_body, self.service.settings.app.limits.body_timeout) {
                outgoing.wait_with(Patience::new(self.turn.exchange().waits().clone(), Some(time)));
            }
            let replayable = !has_body && is_idempotent(&parts.method);
            let offered = upgrade.as_ref().map(|upgrade| &*upgrade.offered);
            let mut request =
                HyperRequest { forward: &self, parts, target, cut, facts: &facts, upgrade: offered };
            let (service, client, exchange) = (&*self.service, self.turn.client(), self.turn.exchange());
            let path = Attempts { worker: self.worker, service, client, exchange, wish: &self.wish };
            if service.settings.is_h2c {
                let answered =
                    Box::pin(path.exchange_streamed(&mut request, &mut outgoing, replayable)).await;
                return match answered {
                    Ok(streamed) => self.answer_streamed(streamed, outgoing, target.path),
                    Err(no_answer) => self.without_answer(no_answer, &outgoing),
                };
            }
            match path.exchange(&mut request, &mut outgoing, replayable).await {
                Ok(answered) if answered.head.status == StatusCode::SWITCHING_PROTOCOLS => {
                    self.tunnel(answered, upgrade, &outgoing, target.path)
                }
                Ok(answered) => self.answer(answered, outgoing, target.path),
                Err(no_answer) => self.without_answer(no_answer, &outgoing),
            }
        }
    }

    /// Answers a request that got no answer of the app's.
    fn without_answer(self, no_answer: NoAnswer, outgoing: &Outgoing) -> Response<Body> {
        match no_answer {
            NoAnswer::Fault { fault, at } => self.refuse(&fault, at.as_deref(), outgoing.has_body_left()),
            NoAnswer::Client { gone } => {
                if !gone {
                    self.turn.linger();
                    self.ticket.answered(StatusCode::BAD_REQUEST.as_u16(), None);
                }
                answer::bare(StatusCode::BAD_REQUEST, self.turn)
            }
        }
    }

    /// Counts the request for its client, and with `upgrade` among the tunnels. Fails when a limit
    /// is full.
    fn admit(&mut self, parts: &Parts, is_forwarded: bool, upgrade: bool) -> Result<(), Fault> {
        let client = self.turn.client();
        let fields =
            || parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let guest = match is_forwarded {
            true => self.service.named_guest(client, fields),
            false => self.service.guest(client),
        };
        self.wish = self.service.settings.sticky.as_ref().map(|rule| rule.wish(fields(), || guest.ip()));
        self.ticket.admit(guest)?;
        if upgrade { self.ticket.reserve_tunnel() } else { Ok(()) }
    }

    /// Adds what portok tells the client: see [`Ticket::fields`].
    fn tell(&self, head: &mut Head, claim: &Claim) {
        if self.service.settings.adds_fields {
            for (name, value) in self.ticket.fields(self.wish, &claim.local, self.turn.client().scheme()) {
                if extras::replaces(&name) {
                    head.headers.remove(&name);
                }
                head.headers.append(name, value);
            }
        }
    }

    /// Passes the app's answer on. `path`: what was asked for.
    fn answer(mut self, answered: Answered, outgoing: Outgoing, path: &[u8]) -> Response<Body> {
        let Answered { mut head, connection, claim } = answered;
        self.tell(&mut head, &claim);
        self.ticket.leave_tunnels();
        self.ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        if let Some(extras) = self.ticket.extras() {
            extras.passed(outgoing.taken(self.service.settings.config.proxy.max_body), 0);
        }
        let rest = if outgoing.is_done() {
            self.worker.spares.keep_head(outgoing.into_buffer());
            None
        } else {
            Some(outgoing)
        };
        let keep_alive = head.keep_alive && self.service.settings.app.upstream.keepalive;
        let mut incoming = exchange::Incoming::new(connection, rest, head.framing, keep_alive);
        if let Some(patience) = self.turn.exchange().patience(&self.service.settings) {
            incoming.wait_with(patience);
        }
        let mut under_way = UnderWay { claim: Some(claim), ticket: self.ticket };
        let mut close = false;
        let body = match incoming.take_whole() {
            Some((bytes, over)) => {
                close = over.unread;
                if close {
                    self.turn.linger();
                }
                if let (Some(connection), Some(claim)) = (over.connection, &under_way.claim) {
                    claim.local.give_back(connection);
                }
                under_way.ticket.passed_out(bytes.len());
                whole(&head, bytes, self.turn)
            }
            None => {
                if let Some(claim) = &mut under_way.claim
                    && let Some(staying) = stay(self.worker, &self.turn, &head, claim, path)
                {
                    incoming.stay(staying);
                }
                Body::app(incoming, self.turn)
            }
        };
        let mut response = respond(head, body.hold(under_way));
        if close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Passes a 101 on, and leaves the tunnel for the connection's task. `path`: what was asked
    /// for.
    fn tunnel(
        mut self,
        answered: Answered,
        upgrade: Option<Upgrade>,
        outgoing: &Outgoing,
        path: &[u8],
    ) -> Response<Body> {
        let Answered { mut head, mut connection, mut claim } = answered;
        let named = head.upgrade.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let kind = StayerKind::of_tunnel(named);
        let fits = |upgrade: &Upgrade| outgoing.is_done() && headers::is_offered(named, &upgrade.offered);
        let Some(Upgrade { upgraded, .. }) = upgrade.filter(fits) else {
            let fault = Fault::Invalid("it switched to a protocol that was not offered, or too early");
            return self.refuse(&fault, Some(&claim.local), outgoing.has_body_left());
        };
        self.tell(&mut head, &claim);
        self.ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        self.ticket.become_tunnel();
        self.turn.limit_sending(0);
        connection.become_tunnel();
        claim.pass = None;
        let staying = self.turn.client().stay(&self.worker.stayers, &claim, kind, path);
        let under_way = UnderWay { claim: Some(claim), ticket: self.ticket };
        self.slot.set(Some(Box::new(Tunnel { upgraded, app: connection, under_way, staying })));
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
    fn refuse(self, fault: &Fault, at: Option<&LocalTarget>, unread: bool) -> Response<Body> {
        if unread {
            self.turn.linger();
        }
        let response = self.ticket.refuse(fault, at, unread);
        self.answer_itself(response)
    }

    /// Sends the client elsewhere: to `to`, with the target of its request.
    fn redirect(self, status: StatusCode, to: &str, target: &[u8], unread: bool) -> Response<Body> {
        if unread {
            self.turn.linger();
        }
        let Some(location) = answer::location(to, target) else {
            self.ticket.answered(StatusCode::BAD_REQUEST.as_u16(), None);
            return answer::bare(StatusCode::BAD_REQUEST, self.turn);
        };
        let response = answer::redirect(status, location, unread);
        self.ticket.answered(response.status().as_u16(), None);
        self.answer_itself(response)
    }

    /// An answer of portok's own, already counted.
    fn answer_itself(self, response: Response<Bytes>) -> Response<Body> {
        let under_way = UnderWay { claim: None, ticket: self.ticket };
        response.map(|text| Body::whole(text, self.turn).hold(under_way))
    }
}

/// A request as hyper read it.
struct HyperRequest<'a> {
    forward: &'a Forward<'a>,
    parts: &'a mut Parts,
    target: RequestTarget<'a>,
    /// How many bytes at the beginning of the path the app does not get.
    cut: usize,
    facts: &'a Facts,
    upgrade: Option<&'a [u8]>,
}

impl ForwardedRequest for HyperRequest<'_> {
    fn to_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    fn write_head(&mut self, out: &mut Vec<u8>, target: SocketAddr) {
        let Forward { service, turn, .. } = self.forward;
        let settings = &service.settings;
        let (client, Parts { method, headers, .. }) = (turn.client(), &*self.parts);
        let (taken, path) = headers::cut_prefix(self.target.path, self.cut);
        let context = headers::Context {
            peer: client.peer_text(),
            scheme: client.scheme(),
            // See `plain::request`.
            trusted: self.facts.is_forwarded && settings.trusts(client.peer.ip()),
            forwarded: settings.config.proxy.forwarded,
            target,
            chunked: self.facts.chunked,
            upgrade: self.upgrade,
            trailers: self.facts.trailers,
            keep_alive: settings.app.upstream.keepalive,
            taken,
        };
        let head = headers::RequestHead {
            method: method.as_str(),
            target: path,
            authority: self.target.authority,
            host: host_field(headers),
            nominated: &self.facts.nominated,
            fields: || headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
        };
        match self.forward.ticket.extras() {
            None => sticky::write_head(out, head, &context, settings.sticky.as_ref()),
            Some(extras) => {
                extras.sent();
                let by = (&*settings.config, settings.sticky.as_ref());
                extras.write_head(out, head, &context, by, client.peer);
            }
        }
        // The request's fields are done with. Their memory takes the answer's.
        self.parts.headers.clear();
    }

    fn tried_again(&mut self) {
        if let Some(extras) = self.forward.ticket.extras() {
            extras.tried_again();
        }
    }

    fn kept(&self) -> Kept {
        let Parts { headers, .. } = &*self.parts;
        let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let head = self.target.path.len() + fields.sum::<usize>();
        Kept { head, sends_body: !headers.contains_key(header::EXPECT) }
    }

    fn fields(&mut self) -> Fields<'_> {
        Fields::Map(&mut self.parts.headers)
    }
}

/// What only some configurations want of a request.
#[inline]
fn extras_of(
    worker: &Worker,
    client: &ClientConnection,
    service: &ServiceHere,
    parts: &Parts,
    target: &RequestTarget<'_>,
) -> Option<Box<Extras>> {
    let wanted = service.settings.wanted.as_ref()?;
    Some(begin_extras(wanted, worker, client, service, parts, target))
}

/// Begins what is `wanted` of a request.
#[inline(never)]
fn begin_extras(
    wanted: &Wanted,
    worker: &Worker,
    client: &ClientConnection,
    service: &ServiceHere,
    parts: &Parts,
    target: &RequestTarget<'_>,
) -> Box<Extras> {
    let asked = Asked {
        method: parts.method.as_str(),
        host: host_of(parts, target),
        target: target.path,
        proto: match parts.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        fields: || parts.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
    };
    let (peer, is_behind) = (client.balancer().unwrap_or(client.peer), client.balancer().is_some());
    let knows = |token: &[u8], proxied| worker.reserved.knows(peer, token, proxied || is_behind);
    let by = (&*service.settings.config, service.settings.tiers.as_ref());
    wanted.begin(by, client.peer, &asked, knows)
}

/// Where a request belongs instead, as TLS has it.
enum Elsewhere {
    /// On a connection whose certificate is for its host.
    AnotherConnection,
    /// Where it is encrypted: with this status, at this address.
    Encrypted(StatusCode, String),
}

/// Where a request belongs instead; `None`: it is served.
#[inline(never)]
fn elsewhere(
    edge: &Edge,
    own: &ServiceHere,
    client: &ClientConnection,
    host: Option<&[u8]>,
    headers: &HeaderMap,
) -> Option<Elsewhere> {
    if let Some(shown) = client.shown() {
        let is_misdirected = host.is_some_and(|host| !shown.allows(host));
        return is_misdirected.then_some(Elsewhere::AnotherConnection);
    }
    // An app's own address is nobody's way to the others.
    if !client.listener().is_of_the_instance() {
        return None;
    }
    let trusted = &own.settings.config.proxy.trusted;
    let (status, to) = edge.elsewhere(host, headers, client.peer.ip(), trusted)?;
    Some(Elsewhere::Encrypted(status, to))
}

/// Whether a request is for the admin API: with several apps at the instance's listeners alone, and
/// on the hosts of `admin.hosts` where there are any.
fn is_reserved<'h>(
    own: &ServiceHere,
    client: &ClientConnection,
    host: impl FnOnce() -> Option<&'h [u8]>,
    path: &[u8],
) -> bool {
    let admin = &own.settings.config.admin;
    if !own.settings.is_under_prefix(path) {
        return false;
    }
    if !own.is_of_several() {
        return true;
    }
    let is_named = |host: &[u8]| {
        let host = compared(host);
        admin.hosts.iter().any(|name| name.as_bytes() == &*host)
    };
    client.listener().is_of_the_instance() && (admin.hosts.is_empty() || host().is_some_and(is_named))
}

/// The host that a request is for: that of an absolute target, else of `Host`.
fn host_of<'a>(parts: &'a Parts, target: &RequestTarget<'a>) -> Option<&'a [u8]> {
    target.authority.or_else(|| host_field(&parts.headers))
}

/// Nearly always the first field: found sooner than looked up.
fn host_field(headers: &HeaderMap) -> Option<&[u8]> {
    headers.iter().find(|(name, _)| *name == header::HOST).map(|(_, value)| value.as_bytes())
}

/// A body that has arrived whole. If there is none, the length that the head tells is passed on.
fn whole(head: &Head, bytes: Bytes, turn: Turn) -> Body {
    let told = (head.framing == Framing::None).then(|| answer::told_length(&head.headers)).flatten();
    match told {
        Some(length) if length > 0 => Body::told(length, turn),
        _ => Body::whole(bytes, turn),
    }
}

/// How a client stays that gets an event stream of `claim`; `None`: the answer is none.
#[inline(never)]
fn stay(worker: &Worker, turn: &Turn, head: &Head, claim: &mut Claim, path: &[u8]) -> Option<Box<Staying>> {
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !answer::is_event_stream(content_type) {
        return None;
    }
    turn.limit_sending(0);
    // It may last for ever: the next one that waits need not wait for it.
    claim.pass = None;
    Some(Box::new(turn.client().stay(&worker.stayers, claim, StayerKind::EventStream, path)))
}

fn respond(head: Head, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    // A new answer's map holds no memory: the glue that would look for some is left out.
    std::mem::forget(std::mem::replace(response.headers_mut(), head.headers));
    if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
        response.extensions_mut().insert(reason);
    }
    response
}

/// A request that asks for another protocol.
struct Upgrade {
    /// The client's side of the tunnel, when hyper lets go of it.
    upgraded: OnUpgrade,
    /// The protocols that the app may switch to.
    offered: Vec<u8>,
}

/// The upgrade that a request asks for, if it names a protocol that is `allowed`.
fn upgrade_of(request: &mut Parts, allowed: &[String]) -> Option<Upgrade> {
    let offered = headers::offered(&request.headers, allowed)?;
    Some(Upgrade { upgraded: request.extensions.remove()?, offered })
}

/// Whether sending a request twice does what sending it once does (RFC 9110, 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}
