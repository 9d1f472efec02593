//! The state of one client connection.
//!
//! A [`ClientConnection`] is owned by the connection's task. Its thread's worker lists it too, and
//! once a tick sweeps all of them: it looks whose time has run out, and orders them to close
//! politely or to be cut. What belongs to one request alone is its [`ClientExchange`]. It ends with
//! the task.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, Waker};

use http::HeaderMap;

use super::address::{ListenerId, Scheme};
use super::board::Service;
use super::client_exchange::ClientExchange;
use super::clock;
use super::crowd::{Guest, Visit};
use super::gate;
use super::headers;
use super::pins::Pins;
use super::settings::Settings;
use super::socket::SocketState;
use super::stayer::StayerKind;
use super::stayers::{Stayers, Staying};
use super::target::Target;
use super::upstream::pool::Claim;
use crate::config::Affinity;
use crate::proxy_header::Introduction;
use crate::tls::Choice;

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Agrees with its client on how to encrypt.
    Greeting { since: u64 },
    /// Waits for a head; `idle`: not its first.
    Waiting { since: u64, idle: bool },
    /// Answers a request.
    Busy,
    /// Answers requests, each over a stream of its own.
    Streams,
    /// Is a tunnel.
    Tunnel,
}

/// How the thread wants the connection to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CloseOrder {
    None,
    /// Close when nothing is under way.
    Close,
    /// Close now.
    Cut,
}

/// What all connections of one listening socket have in common. One that is encrypted has a door of
/// its own.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: ListenerId,
    /// The address that clients are connected to.
    at: SocketAddr,
    /// How clients speak to it.
    pub(super) scheme: Scheme,
    /// What accepted sockets inherit, in milliseconds.
    pub(super) send_timeout: u32,
    /// What the client of an encrypted connection was shown.
    shown: OnceCell<Choice>,
    /// The peer that told by the PROXY protocol who the client is.
    balancer: Option<SocketAddr>,
}

impl Door {
    /// That of connections to `listener`, which is bound to `at`; they inherit `send_timeout`.
    pub(super) fn new(listener: ListenerId, at: SocketAddr, send_timeout: u32) -> Self {
        let scheme = match listener {
            ListenerId::Tls(_) => Scheme::Https,
            ListenerId::Instance(_) | ListenerId::App(_) => Scheme::Http,
        };
        Self { listener, at, scheme, send_timeout, shown: OnceCell::new(), balancer: None }
    }

    /// The same for one connection alone.
    pub(super) fn of_its_own(&self) -> Self {
        Self { balancer: self.balancer, ..Self::new(self.listener, self.at, self.send_timeout) }
    }

    /// The same for one connection, to this address of all that the listener has.
    pub(super) fn reached_at(&self, at: SocketAddr) -> Self {
        Self { at: headers::canonical(at), ..self.of_its_own() }
    }

    /// The same for one connection of a client whom `balancer` has told of.
    pub(super) fn behind(&self, balancer: SocketAddr) -> Self {
        Self { balancer: Some(balancer), ..self.of_its_own() }
    }
}

/// What a connection of HTTP/2, or one of its streams, has beside a connection of HTTP/1.1.
#[derive(Debug)]
enum Multiplex {
    Connection {
        /// Its streams that have not ended, and how many of them are tunnels.
        streams: Cell<u32>,
        tunnels: Cell<u32>,
    },
    Stream {
        of: Rc<ClientConnection>,
    },
}

/// The state of one client connection, or of one stream of HTTP/2, which is a connection of one
/// request. It belongs to one thread.
#[derive(Debug)]
pub(super) struct ClientConnection {
    /// The client's address: that of the socket, unless a balancer has told another.
    pub(super) peer: SocketAddr,
    door: Rc<Door>,
    peer_text: OnceCell<String>,
    /// `None`: a stream, whose connection has it.
    visit: Option<Visit>,
    pub(super) socket: Arc<SocketState>,
    phase: Cell<Phase>,
    order: Cell<CloseOrder>,
    closing_since: Cell<u64>,
    /// How many requests it has had.
    served: Cell<u32>,
    /// The targets that its requests stay with (`drain.affinity`).
    pins: Pins,
    /// Nothing: it speaks HTTP/1.1. In a box, because most do.
    multiplex: OnceCell<Box<Multiplex>>,
    /// The request of HTTP/1.1 that is under way, and the connection's task.
    exchange: ClientExchange,
    /// Its place among the thread's connections.
    pub(super) index: Cell<usize>,
}

impl ClientConnection {
    /// `peer` in its canonical form; `door`: by which it came in.
    pub(super) fn new(peer: SocketAddr, door: Rc<Door>, visit: Visit) -> Rc<Self> {
        let socket = SocketState::new(door.send_timeout);
        Rc::new(Self::made_of(peer, door, Some(visit), socket))
    }

    /// That of a stream of `connection` which asks for `target`.
    pub(super) fn of_stream(connection: &Rc<Self>, target: Vec<u8>) -> Rc<Self> {
        let socket = SocketState::of_stream(connection.door.send_timeout, target);
        let stream = Self::made_of(connection.peer, connection.door.clone(), None, socket);
        stream.multiplex.get_or_init(|| Box::new(Multiplex::Stream { of: connection.clone() }));
        connection.stream_began();
        Rc::new(stream)
    }

    fn made_of(peer: SocketAddr, door: Rc<Door>, visit: Option<Visit>, socket: SocketState) -> Self {
        Self {
            peer,
            peer_text: OnceCell::new(),
            visit,
            socket: Arc::new(socket),
            door,
            phase: Cell::new(Phase::Waiting { since: clock::now(), idle: false }),
            order: Cell::new(CloseOrder::None),
            closing_since: Cell::new(clock::NEVER),
            served: Cell::new(0),
            pins: Pins::default(),
            multiplex: OnceCell::new(),
            exchange: ClientExchange::default(),
            index: Cell::new(0),
        }
    }

    /// The address that the socket is connected to, where that is not the client's own.
    pub(super) fn balancer(&self) -> Option<SocketAddr> {
        self.door.balancer
    }

    /// The client's address as it is shown to the app.
    pub(super) fn peer_text(&self) -> &str {
        if let Some(text) = self.peer_text.get() {
            return text;
        }
        match self.connection() {
            Some(connection) => connection.peer_text(),
            None => self.peer_text.get_or_init(|| headers::text_of(self.peer.ip())),
        }
    }

    /// As an app is told of its client.
    pub(super) fn introduction(&self) -> Introduction {
        Introduction { client: self.peer, at: self.door.at }
    }

    /// The listener that it came to.
    pub(super) fn listener(&self) -> &ListenerId {
        &self.door.listener
    }

    /// How the client speaks to that listener.
    pub(super) fn scheme(&self) -> Scheme {
        self.door.scheme
    }

    /// Notes that its handshake begins.
    pub(super) fn greet(&self) {
        self.phase.set(Phase::Greeting { since: clock::now() });
    }

    /// Notes that its handshake is done, and what the client was shown. The first head is waited
    /// for from now on.
    pub(super) fn greeted(&self, shown: Choice) {
        let _there_is_one_handshake = self.door.shown.set(shown);
        self.phase.set(Phase::Waiting { since: clock::now(), idle: false });
    }

    /// What the client of an encrypted connection was shown.
    pub(super) fn shown(&self) -> Option<&Choice> {
        self.door.shown.get()
    }

    /// Its client, which has asked for `path`, stays with the target of `claim` for long.
    pub(super) fn stay(
        &self,
        stayers: &Rc<Stayers>,
        claim: &Claim,
        kind: StayerKind,
        path: &[u8],
    ) -> Staying {
        Staying::begin(stayers, &claim.local.target, kind, self.peer.ip(), path)
    }

    /// The guest of the peer's own address, in the crowd of the connections.
    pub(super) fn guest(&self) -> &Rc<Guest> {
        match &self.visit {
            Some(visit) => visit.guest(),
            None => self.connection().expect("what has no visit is a stream").guest(),
        }
    }

    /// The targets that its requests stay with (`drain.affinity`).
    pub(super) fn pins(&self) -> &Pins {
        self.connection().map_or(&self.pins, |connection| &connection.pins)
    }

    /// Adds what TLS asks for to the answer to an encrypted request.
    pub(super) fn tell(&self, settings: &Settings, headers: &mut HeaderMap) {
        if let (Some(edge), Some(_)) = (&settings.edge, self.shown()) {
            edge.tell(headers);
        }
    }

    /// The request of HTTP/1.1 that is under way.
    pub(super) fn exchange(&self) -> &ClientExchange {
        &self.exchange
    }

    /// Whether the request under way is the last that the connection may serve.
    pub(super) fn is_last(&self, settings: &Settings) -> bool {
        settings.config.limits.requests_per_connection.is_some_and(|most| self.served.get() >= most)
    }

    /// Notes a complete head: no client timeout runs until the answer is given.
    pub(super) fn begin(&self) {
        self.served.set(self.served.get().saturating_add(1));
        self.phase.set(Phase::Busy);
    }

    /// Notes that it is a tunnel to `service` now, at this target.
    pub(super) fn become_tunnel(&self, service: Arc<Service>, target: Option<Arc<Target>>) {
        self.exchange.become_tunnel(service, target);
        self.phase.set(Phase::Tunnel);
        if let Some(connection) = self.connection()
            && let Some(Multiplex::Connection { tunnels, .. }) = connection.multiplexed()
        {
            tunnels.set(tunnels.get() + 1);
        }
    }

    /// Whether it is a tunnel, or all that it carries are.
    pub(super) fn is_tunnel(&self) -> bool {
        match (self.phase.get(), self.multiplexed()) {
            (Phase::Tunnel, _) => true,
            (Phase::Streams, Some(Multiplex::Connection { streams, tunnels })) => streams == tunnels,
            _ => false,
        }
    }

    /// Tells the gate which body hyper's request has.
    pub(super) fn judged(&self, body: gate::BodyFraming) {
        if self.socket.judged(body) {
            self.exchange.wake();
        }
    }

    /// Notes that the answer is given: the next head may come.
    pub(super) fn end(&self) {
        if self.socket.is_hypers() && self.socket.answered() {
            self.exchange.wake();
        }
        self.exchange.end();
        self.socket.first_read.store(0, Relaxed);
        self.phase.set(Phase::Waiting { since: clock::now(), idle: true });
    }

    /// Notes that a part of the next request has come.
    pub(super) fn note_read(&self) {
        self.socket.note_read();
    }

    /// Whether it is to end as soon as nothing is under way.
    pub(super) fn is_to_close(&self) -> bool {
        self.order.get() != CloseOrder::None
    }

    /// Whether it is to end now.
    pub(super) fn is_cut(&self) -> bool {
        self.order.get() == CloseOrder::Cut
    }

    /// Keeps the socket open for a while after the answer, because the client still sends bytes
    /// that nobody will read: closing at once would take the answer from it.
    pub(super) fn linger(&self) {
        self.socket.linger.store(true, Relaxed);
    }

    /// Looks whether a time has run out, and gives the orders that follow. `quiet`, if the thread
    /// stops: a connection that has waited since then, or longer, is closed.
    pub(super) fn sweep(&self, settings: &Settings, quiet: Option<u64>) {
        if self.exchange.sweep(settings) {
            self.order(CloseOrder::Cut);
        }
        self.pins.retain(|stay| {
            !stay.is_closed() && stay.service().affinity(&settings.config) != Affinity::Request
        });
        let now = clock::now();
        let late = |since: u64, limit: u64| now >= since.saturating_add(limit);
        match self.phase.get() {
            // A client that is in the middle of it has a request to make.
            Phase::Greeting { since } if late(since, settings.header_timeout) => {
                self.order(CloseOrder::Cut);
            }
            Phase::Greeting { .. } => (),
            // While the thread stops, an answer's head says that it is the last. An answer whose
            // head went out before promised that another request may come: the connection is closed
            // when none does.
            Phase::Busy | Phase::Tunnel => (),
            // A polite end tells a client of HTTP/2 at once that it is to go elsewhere.
            Phase::Streams => {
                if quiet.is_some() {
                    self.order(CloseOrder::Close);
                }
            }
            // The answer is still on its way to a slow client.
            Phase::Waiting { .. } if self.socket.blocked.load(Relaxed) => (),
            Phase::Waiting { since, idle } => {
                let first = self.socket.first_read.load(Relaxed);
                if first > 0 || !idle {
                    let since = if first > 0 { first } else { since };
                    if late(since, settings.header_timeout) {
                        self.order(CloseOrder::Cut);
                    }
                }
                if first == 0 && quiet.is_some_and(|quiet| since <= quiet) {
                    self.order(CloseOrder::Close);
                }
                if first == 0 && idle && late(since, settings.idle_timeout) {
                    self.order(CloseOrder::Close);
                }
                if late(self.closing_since.get(), settings.header_timeout) {
                    self.order(CloseOrder::Cut);
                }
            }
        }
    }

    /// Runs `future` to its end, unless the connection is cut before.
    pub(super) async fn uncut<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| {
            self.watch(cx.waker());
            if self.is_cut() { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
        })
        .await
    }

    fn order(&self, order: CloseOrder) {
        if order > self.order.get() {
            self.order.set(order);
            self.closing_since.set(clock::now());
            self.exchange.wake();
        }
    }

    /// Remembers the task that runs the connection.
    pub(super) fn watch(&self, waker: &Waker) {
        self.exchange.watch(waker);
    }
}

// ---- HTTP/2 ----

impl ClientConnection {
    /// Notes that it speaks HTTP/2 from now on.
    pub(super) fn multiplex(&self) {
        let (streams, tunnels) = Default::default();
        self.multiplex.get_or_init(|| Box::new(Multiplex::Connection { streams, tunnels }));
    }

    fn multiplexed(&self) -> Option<&Multiplex> {
        self.multiplex.get().map(|own| &**own)
    }

    /// The connection whose stream it is; `None`: it is a connection itself.
    pub(super) fn connection(&self) -> Option<&Rc<Self>> {
        match self.multiplexed() {
            Some(Multiplex::Stream { of }) => Some(of),
            _ => None,
        }
    }

    /// How many of its streams have not ended.
    pub(super) fn streams(&self) -> u32 {
        match self.multiplexed() {
            Some(Multiplex::Connection { streams, .. }) => streams.get(),
            _ => 0,
        }
    }

    /// Notes that its client has said something that proves it there. A connection that carries no
    /// stream is idle from now on.
    pub(super) fn is_there(&self) {
        if matches!(self.phase.get(), Phase::Waiting { .. }) {
            self.phase.set(Phase::Waiting { since: clock::now(), idle: true });
        }
    }

    /// Has it end politely.
    pub(super) fn close(&self) {
        self.order(CloseOrder::Close);
    }

    /// The connection of a stream that may send for as long as it likes may do so too.
    pub(super) fn spare_connection(&self) {
        if let (0, Some(connection)) = (self.socket.send_timeout(), self.connection()) {
            connection.socket.limit_sending(0);
        }
    }

    fn stream_began(&self) {
        if let Some(Multiplex::Connection { streams, .. }) = self.multiplexed() {
            streams.set(streams.get() + 1);
        }
        self.served.set(self.served.get().saturating_add(1));
        self.phase.set(Phase::Streams);
    }

    fn stream_ended(&self, was_tunnel: bool) {
        if let Some(Multiplex::Connection { streams, tunnels }) = self.multiplexed() {
            streams.set(streams.get() - 1);
            tunnels.set(tunnels.get() - u32::from(was_tunnel));
            if streams.get() == 0 {
                self.phase.set(Phase::Waiting { since: clock::now(), idle: true });
            }
        }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.connection() {
            connection.stream_ended(self.phase.get() == Phase::Tunnel);
        }
    }
}
