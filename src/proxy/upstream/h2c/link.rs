//! One connection to an app over HTTP/2, and the place of a request on it.
//!
//! State: owned by the list of its thread and by the requests on it. A task of its own drives it.
//! That ends when the app closes the connection, or, with a farewell, once neither list nor
//! requests hold the link any more. A [`Place`] that is dropped before its exchange is over resets
//! the stream (CANCEL) by dropping h2's handles.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::config::Upstream;
use crate::http1::head::MAX_HEAD;
use crate::proxy::clock;
use crate::proxy::target::Permit;
use crate::proxy::upstream::connection;
use crate::proxy_header::Introduction;

/// How many streams a connection carries at most, however many more the app would take.
const MOST_STREAMS: usize = 100;

/// What the app may send of one answer that nobody takes. A connection has room for that of all its
/// streams, so that one client that does not read keeps no other from its answer.
const WINDOW: u32 = 65_535;

/// How much of a request's body waits for its connection.
const SEND_BUFFER: usize = 64 * 1024;

/// The app has not told yet how many streams it takes. No app says this number.
const UNTOLD: usize = usize::MAX - 1;

/// See the module.
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
}

/// What the driver and the requests know of a link.
#[derive(Debug)]
struct State {
    /// How many streams the app takes.
    most: Cell<usize>,
    streams: Cell<usize>,
    /// Whether it has carried an exchange.
    is_used: Cell<bool>,
    idle_since: Cell<u64>,
    /// The connection has ended, and why.
    end: RefCell<Option<Result<(), h2::Error>>>,
    /// Rings when any of that has changed.
    changed: Rc<Notify>,
}

/// Why no link came about.
#[derive(Debug)]
pub(in crate::proxy) enum Unopened {
    /// There is no connection, or none that stays.
    Io(io::Error),
    /// Whoever answers does not speak HTTP/2.
    NotHttp2(h2::Error),
}

impl Link {
    /// Connects, and waits for the app's settings; the caller has the deadline. `changed` rings
    /// whenever there may be more room on it, or it is over.
    pub(super) async fn open(
        addr: SocketAddr,
        (settings, whose): (&Upstream, Option<Introduction>),
        changed: Rc<Notify>,
    ) -> Result<Rc<Self>, Unopened> {
        let stream = connection::connect(addr, settings, whose).await.map_err(Unopened::Io)?;
        let handshake = Builder::new()
            .enable_push(false)
            .initial_max_send_streams(UNTOLD)
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * MOST_STREAMS as u32)
            .max_header_list_size(MAX_HEAD as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(stream);
        let (sender, connection) = handshake.await.map_err(Unopened::of)?;
        let state = Rc::new(State {
            most: Cell::new(UNTOLD),
            streams: Cell::new(0),
            is_used: Cell::new(false),
            idle_since: Cell::new(clock::uptime()),
            end: RefCell::default(),
            changed,
        });
        tokio::task::spawn_local(drive(connection, state.clone()));
        let link = Rc::new(Self { sender, state });
        link.told().await?;
        Ok(link)
    }

    /// Waits for the app's settings.
    async fn told(&self) -> Result<(), Unopened> {
        loop {
            let changed = self.state.changed.notified();
            if let Some(end) = self.state.end.take() {
                return Err(end.map_or_else(Unopened::of, |()| Unopened::Io(closed())));
            }
            if self.state.most.get() != UNTOLD {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Whether the app takes further streams on it, now or once others have ended.
    pub(super) fn is_open(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        let failed = matches!(self.sender.clone().poll_ready(&mut nobody), Poll::Ready(Err(_)));
        self.state.end.borrow().is_none() && !failed
    }

    /// Whether there is room for one more stream.
    pub(super) fn has_room(&self) -> bool {
        self.state.streams.get() < self.state.most.get().min(MOST_STREAMS)
    }

    /// Since when nothing is on it; `None`: something is.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.state.streams.get() == 0).then(|| self.state.idle_since.get())
    }

    /// Takes a place on it; there has to be room.
    pub(super) fn place(self: &Rc<Self>, permit: Permit, is_new: bool) -> Place {
        let State { streams, is_used, .. } = &*self.state;
        streams.set(streams.get() + 1);
        Place { link: self.clone(), is_kept: is_used.replace(true), is_new, _permit: permit }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Moves the frames of a connection, until its end.
async fn drive(mut connection: Connection<TcpStream, Bytes>, state: Rc<State>) {
    let end = poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        let most = connection.max_concurrent_send_streams();
        if state.most.replace(most) != most {
            state.changed.notify_waiters();
        }
        polled
    })
    .await;
    state.end.replace(Some(end));
    state.changed.notify_waiters();
}

/// The place of one request on a link, and its part of `upstream.max_connections`.
#[derive(Debug)]
pub(in crate::proxy) struct Place {
    link: Rc<Link>,
    /// The link has carried an exchange before.
    pub(in crate::proxy) is_kept: bool,
    /// The link was opened for this place.
    pub(in crate::proxy) is_new: bool,
    _permit: Permit,
}

impl Place {
    /// Begins the stream. `end`: the request is its head alone.
    pub(super) fn begin(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.link.sender.clone().send_request(request, end)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let State { streams, idle_since, changed, .. } = &*self.link.state;
        streams.set(streams.get() - 1);
        idle_since.set(clock::uptime());
        changed.notify_one();
    }
}

impl Unopened {
    fn of(error: h2::Error) -> Self {
        if !error.is_io() {
            return Self::NotHttp2(error);
        }
        Self::Io(error.into_io().unwrap_or_else(closed))
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the app closed the connection before it told its settings")
}
