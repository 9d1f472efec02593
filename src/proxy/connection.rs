//! The state of one client connection.
//!
//! A [`ClientConnection`] is owned by the connection's task. Its thread's worker lists it too, and
//! once a tick sweeps all of them: it looks whose time has run out, and orders them to close
//! politely or to be cut. What belongs to one request alone is its [`ClientExchange`]. It ends with
//! the task.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

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
    /// How clients speak to it.
    pub(super) scheme: Scheme,
    /// What accepted sockets inherit, in milliseconds.
    pub(super) send_timeout: u32,
    /// What the client of an encrypted connection was shown.
    shown: OnceCell<Choice>,
}

impl Door {
    /// That of connections to `listener`, which inherit `send_timeout`.
    pub(super) fn new(listener: ListenerId, send_timeout: u32) -> Self {
        let scheme = match listener {
            ListenerId::Tls(_) => Scheme::Https,
            ListenerId::Instance(_) | ListenerId::App(_) => Scheme::Http,
        };
        Self { listener, scheme, send_timeout, shown: OnceCell::new() }
    }

    /// The same for one connection alone.
    pub(super) fn of_its_own(&self) -> Self {
        Self::new(self.listener, self.send_timeout)
    }
}

/// The state of one client connection. It belongs to one thread.
#[derive(Debug)]
pub(super) struct ClientConnection {
    pub(super) peer: SocketAddr,
    door: Rc<Door>,
    peer_text: OnceCell<String>,
    visit: Visit,
    pub(super) socket: Arc<SocketState>,
    phase: Cell<Phase>,
    order: Cell<CloseOrder>,
    closing_since: Cell<u64>,
    /// How many requests it has had.
    served: Cell<u32>,
    /// The targets that its requests stay with (`drain.affinity`).
    pub(super) pins: Pins,
    /// The request of HTTP/1.1 that is under way, and the connection's task.
    exchange: ClientExchange,
    /// Its place among the thread's connections.
    pub(super) index: Cell<usize>,
}

impl ClientConnection {
    /// `peer` in its canonical form; `door`: by which it came in.
    pub(super) fn new(peer: SocketAddr, door: Rc<Door>, visit: Visit) -> Rc<Self> {
        Rc::new(Self {
            peer,
            peer_text: OnceCell::new(),
            visit,
            socket: Arc::new(SocketState::new(door.send_timeout)),
            door,
            phase: Cell::new(Phase::Waiting { since: clock::now(), idle: false }),
            order: Cell::new(CloseOrder::None),
            closing_since: Cell::new(clock::NEVER),
            served: Cell::new(0),
            pins: Pins::default(),
            exchange: ClientExchange::default(),
            index: Cell::new(0),
        })
    }

    /// The client's address as it is shown to the app.
    pub(super) fn peer_text(&self) -> &str {
        self.peer_text.get_or_init(|| headers::text_of(self.peer.ip()))
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
        self.visit.guest()
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
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase.get() == Phase::Tunnel
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
