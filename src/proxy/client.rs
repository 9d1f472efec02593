//! One client connection: its record, its socket, and the task that serves it.
//!
//! A connection begins on the short way of [`plain`] requests and goes on with hyper once another kind has come.
//!
//! State: a [`Record`] per connection, owned by its task and known to its thread's [`Worker`], which looks at all
//! of them once a tick and gives orders: close politely, or cut. It ends when the client, [`plain`] or hyper is done with
//! it and, after an upgrade, when the tunnel is. The task dropped, everything it holds is dropped: the
//! claim is given back, an unfinished connection to the app is closed.
//!
//! What is waited for and since when is kept in plain cells; no request sets a timer. The order that matters: a
//! connection is closed politely only after the kernel was asked whether a request has arrived, so that the moment in
//! which one is lost is as short as it can be.

use std::cell::{Cell, OnceCell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::clock;
use super::forward;
use super::headers;
use super::plain;
use super::tunnel::Tunnel;
use super::upstream::pool::Pinned;
use super::worker::{Settings, Worker};
use crate::config::Affinity;

/// The smallest buffers a connection may grow to, whatever the limit of a head.
const BUFFER: usize = 128 * 1024;

/// Writes up to this size are put together here and not by the kernel.
const SMALL: usize = 512;

/// How much, and how long, a client may still send after its answer before the connection is closed.
const LINGER: (usize, std::time::Duration) = (4 << 20, std::time::Duration::from_secs(5));

/// What a connection does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for a head, its first or (`idle`) a further one.
    Waiting { since: u64, idle: bool },
    /// A request is answered.
    Busy,
    /// It has become a tunnel.
    Tunnel,
}

/// What its thread wants a connection to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    None,
    /// Close when nothing is under way.
    Close,
    /// Close now.
    Cut,
}

/// What is known about one client connection; belongs to its thread.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) peer: SocketAddr,
    peer_text: OnceCell<String>,
    socket: Arc<SocketState>,
    phase: Cell<Phase>,
    order: Cell<Order>,
    closing_since: Cell<u64>,
    /// When the wait of the exchange under way ends.
    deadline: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    pub(super) pinned: RefCell<Option<Pinned>>,
    /// Left by the exchange that became a tunnel.
    pub(super) tunnel: RefCell<Option<Tunnel>>,
    /// The tunnel's target, once the app has ended its side.
    pub(super) app_ended: RefCell<Option<Arc<super::Target>>>,
    /// Its place among the thread's connections.
    pub(super) index: Cell<usize>,
}

impl Record {
    fn new(peer: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            peer: headers::canonical(peer),
            peer_text: OnceCell::new(),
            socket: Arc::default(),
            phase: Cell::new(Phase::Waiting { since: clock::now(), idle: false }),
            order: Cell::new(Order::None),
            closing_since: Cell::new(clock::NEVER),
            deadline: Cell::new(clock::NEVER),
            waker: RefCell::default(),
            pinned: RefCell::default(),
            tunnel: RefCell::default(),
            app_ended: RefCell::default(),
            index: Cell::new(0),
        })
    }

    /// The client's address as it is shown to the app.
    pub(super) fn peer_text(&self) -> &str {
        self.peer_text.get_or_init(|| headers::text_of(self.peer.ip()))
    }

    /// A head is complete: no client timeout runs until the answer is given.
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Busy);
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.phase.get() == Phase::Tunnel
    }

    /// The answer is given: the next head may come.
    pub(super) fn end(&self) {
        self.deadline.set(clock::NEVER);
        self.socket.first_read.store(0, Relaxed);
        self.phase.set(Phase::Waiting { since: clock::now(), idle: true });
    }

    /// Something of the next request has come.
    pub(super) fn note_read(&self) {
        self.socket.note_read();
    }

    /// Whether the connection is to end when nothing is under way.
    pub(super) fn is_to_close(&self) -> bool {
        self.order.get() != Order::None
    }

    /// The client sends something nobody will read: closing at once would take the answer from it.
    pub(super) fn linger(&self) {
        self.socket.linger.store(true, Relaxed);
    }

    /// When the exchange under way stops waiting; seen by [`Record::is_overdue`].
    pub(super) fn set_deadline(&self, deadline: u64) {
        self.deadline.set(deadline);
    }

    pub(super) fn is_overdue(&self) -> bool {
        clock::now() >= self.deadline.get()
    }

    /// Waits for `future`, but not longer than until `deadline`.
    pub(super) async fn until<F: Future>(&self, deadline: u64, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        self.set_deadline(deadline);
        let output = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.set_deadline(clock::NEVER);
        output
    }

    /// Looks whether time has run out. `draining`: the thread stops.
    pub(super) fn sweep(&self, settings: &Settings, draining: bool) {
        if self.is_overdue() {
            self.wake();
        }
        if let Some(target) = &*self.app_ended.borrow()
            && target.is_closed()
        {
            self.order(Order::Cut);
        }
        let by_request = settings.config.drain.affinity == Affinity::Request;
        self.pinned.borrow_mut().take_if(|pinned| by_request || pinned.local.target.is_closed());
        let now = clock::now();
        match self.phase.get() {
            // While the thread stops, an answer's head says that it is the last. One whose head is out already said that
            // another may come: the connection is closed when none does.
            Phase::Tunnel | Phase::Busy => (),
            // An answer is still on its way to a slow client.
            Phase::Waiting { .. } if self.socket.blocked.load(Relaxed) => (),
            Phase::Waiting { since, idle } => {
                let first = self.socket.first_read.load(Relaxed);
                let late = |since: u64, limit: u64| now >= since.saturating_add(limit);
                if first > 0 || !idle {
                    let since = if first > 0 { first } else { since };
                    if late(since, settings.header_timeout) {
                        self.order(Order::Cut);
                    }
                }
                // What arrived before the last tick has been read by now.
                if first == 0 && draining && late(since, clock::millis(clock::TICK) * 2) {
                    self.order(Order::Close);
                }
                if first == 0 && idle && late(since, settings.idle_timeout) {
                    self.order(Order::Close);
                }
                if late(self.closing_since.get(), settings.header_timeout) {
                    self.order(Order::Cut);
                }
            }
        }
    }

    fn order(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
            self.closing_since.set(clock::now());
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Remembers who runs the connection.
    fn watch(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

/// What the socket itself learns; shared with hyper, which wants its sockets to be `Send`.
#[derive(Debug, Default)]
struct SocketState {
    /// When the first byte came since the last answer; 0: not yet.
    first_read: AtomicU64,
    /// Whether a write waits for the client.
    blocked: AtomicBool,
    linger: AtomicBool,
    left: Mutex<Option<TcpStream>>,
    /// A polite close is near: who finds nothing to read looks again, and says in `arrived` what is there.
    closing: AtomicBool,
    arrived: AtomicBool,
}

/// Whether something is there to be read. The runtime knows that only since it last waited for events, and the thread may have
/// been kept from running since then.
pub(super) fn has_arrived(stream: &TcpStream) -> bool {
    matches!(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]), Ok(1..))
}

impl SocketState {
    fn note_read(&self) {
        if self.first_read.load(Relaxed) == 0 {
            self.first_read.store(clock::now(), Relaxed);
        }
    }
}

/// The client's socket as hyper drives it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Option<TcpStream>,
    /// Read before hyper had it.
    early: Bytes,
    state: Arc<SocketState>,
}

impl Socket {
    /// The socket itself and what hyper left of the early bytes, for the tunnel it has become.
    pub(super) fn into_stream(mut self) -> io::Result<(TcpStream, Bytes)> {
        Ok((self.stream.take().ok_or_else(closed)?, std::mem::take(&mut self.early)))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(closed)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.state.linger.load(Relaxed) {
            *self.state.left.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            let read = self.stream()?.poll_read(cx, buf);
            if read.is_pending() && self.state.closing.load(Relaxed) {
                let arrived = self.stream.as_ref().is_some_and(has_arrived);
                self.state.arrived.store(arrived, Relaxed);
            }
            ready!(read)?;
        } else {
            let room = buf.remaining().min(self.early.len());
            buf.put_slice(&self.early.split_to(room));
        }
        self.state.note_read();
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.state.blocked.store(written.is_pending(), Relaxed);
        written
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A copy of a few bytes is cheaper than what the kernel does to gather them.
        let mut small = [0; SMALL];
        let mut length = 0;
        for buf in bufs {
            let Some(room) = small.get_mut(length..length + buf.len()) else {
                let written = self.stream()?.poll_write_vectored(cx, bufs);
                return self.note(written);
            };
            room.copy_from_slice(buf);
            length += buf.len();
        }
        self.poll_write(cx, &small[..length])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nothing: the socket is closed right after, which says the same; where it is not, the one who lingers
    /// says it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves `stream` until it ends. The caller spawns it on the worker's thread.
pub(super) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let record = Record::new(peer);
    let _listed = worker.list(&record);
    let other = uncut(&record, pin!(plain::serve(&worker, &record, stream))).await.flatten();
    if let Some((stream, early)) = other {
        // In a box of its own: hyper's state is large, and most connections never need it.
        Box::pin(go_on(&worker, &record, stream, early.into())).await;
    }
}

/// Runs `future` to its end, unless the connection is cut before.
async fn uncut<F: Future>(record: &Record, mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        record.watch(cx.waker());
        if record.order.get() == Order::Cut { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }
    })
    .await
}

/// Serves what is no plain request, and everything behind it.
async fn go_on(worker: &Rc<Worker>, record: &Rc<Record>, stream: TcpStream, early: Bytes) {
    if http(worker, record, stream, early).await == Ended::ByUs {
        return;
    }
    let tunnel = record.tunnel.borrow_mut().take();
    if let Some(tunnel) = tunnel {
        record.phase.set(Phase::Tunnel);
        worker.tunnelled();
        uncut(record, pin!(tunnel.run(worker, record))).await;
        return;
    }
    let left = record.socket.left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut stream) = left {
        // Whatever comes of it, the answer had its chance.
        let _ = tokio::time::timeout(LINGER.1, discard(&mut stream)).await;
    }
}

#[derive(PartialEq, Eq)]
enum Ended {
    ByItself,
    ByUs,
}

/// Runs hyper over the connection.
async fn http(worker: &Rc<Worker>, record: &Rc<Record>, stream: TcpStream, early: Bytes) -> Ended {
    let settings = worker.settings();
    let head = settings.config.proxy.max_header_size;
    let mut builder = http1::Builder::new();
    builder.max_header_size(head).max_buf_size(head.max(BUFFER)).keep_alive(!worker.is_draining());
    let service = {
        let (worker, record) = (worker.clone(), record.clone());
        service_fn(move |request| {
            let (worker, record) = (worker.clone(), record.clone());
            async move {
                let mut answer = forward::forward(worker.clone(), record, request).await?;
                if worker.is_draining() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let socket = Socket { stream: Some(stream), early, state: record.socket.clone() };
    drop(settings);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let state = &record.socket;
    let mut told = false;
    poll_fn(|cx| {
        record.watch(cx.waker());
        loop {
            if record.order.get() == Order::Cut {
                return Poll::Ready(Ended::ByUs);
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if ended.is_err_and(|error| error.is_parse()) {
                    record.linger();
                }
                return Poll::Ready(Ended::ByItself);
            }
            if told || record.order.get() != Order::Close {
                return Poll::Pending;
            }
            if !state.closing.swap(true, Relaxed) {
                continue;
            }
            if state.arrived.swap(false, Relaxed) {
                return Poll::Pending;
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

/// Ends this side, then reads and forgets what the client still sends: a socket closed with unread bytes takes
/// the answer along.
async fn discard(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut buf = vec![0; 16 * 1024];
    let mut total = 0;
    while let Ok(read @ 1..) = stream.read(&mut buf).await {
        total += read;
        if total > LINGER.0 {
            return;
        }
    }
}
