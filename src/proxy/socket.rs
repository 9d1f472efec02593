//! A client's stream as hyper drives it, and what is learned on the way.
//!
//! State: [`SocketState`], shared by the socket, which hyper owns, and the state of the client's
//! connection.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::clock;
use super::gate::{BodyFraming, Gate};
use super::stream::ClientStream;

/// Writes up to this size are put together here instead of by the kernel.
const SMALL: usize = 512;

/// What the socket learns. Atomics, because hyper wants its sockets to be `Send`; only one thread
/// uses them.
#[derive(Debug, Default)]
pub(super) struct SocketState {
    /// When the first byte came since the last answer; 0: not yet.
    pub(super) first_read: AtomicU64,
    /// Whether a write waits for the client.
    pub(super) blocked: AtomicBool,
    pub(super) linger: AtomicBool,
    /// For how many milliseconds the client may take nothing of what is sent to it (0: without
    /// limit): as it should be, and as the kernel was last told.
    send_timeout: AtomicU32,
    told_send_timeout: AtomicU32,
    /// Made once hyper drives the socket, and in a box, because most connections never get there.
    gate: OnceLock<Box<Mutex<Gate>>>,
    /// hyper has asked for more, and was not given what is there.
    waits: AtomicBool,
    /// A polite close is near: a read that finds nothing asks the kernel, and notes in `arrived`
    /// whether it has something.
    closing: AtomicBool,
    arrived: AtomicBool,
}

impl SocketState {
    /// The state of a socket that has inherited `send_timeout`.
    pub(super) fn new(send_timeout: u32) -> Self {
        let [meant, told] = [send_timeout; 2].map(AtomicU32::new);
        Self { send_timeout: meant, told_send_timeout: told, ..Self::default() }
    }

    /// The state of a stream of HTTP/2, whose request asks for `target`. Nothing is read from it, or
    /// written to it.
    pub(super) fn of_stream(send_timeout: u32, target: Vec<u8>) -> Self {
        let state = Self::new(send_timeout);
        state.gate.get_or_init(|| Box::new(Mutex::new(Gate::behind(target))));
        state
    }

    /// For how many milliseconds the client may take nothing of what is sent to it (0: without
    /// limit).
    pub(super) fn send_timeout(&self) -> u32 {
        self.send_timeout.load(Relaxed)
    }

    /// From the next write on, the client may take nothing for `send_timeout` milliseconds (0:
    /// without limit).
    pub(super) fn limit_sending(&self, send_timeout: u32) {
        self.send_timeout.store(send_timeout, Relaxed);
    }

    /// Tells the kernel how long the client may take nothing, if that has changed.
    pub(super) fn prepare_sending(&self, stream: &TcpStream) {
        let wanted = self.send_timeout.load(Relaxed);
        if wanted != self.told_send_timeout.load(Relaxed) {
            self.tell_send_timeout(stream, wanted);
        }
    }

    #[cold]
    fn tell_send_timeout(&self, stream: &TcpStream, wanted: u32) {
        let time = Duration::from_millis(wanted.into());
        // If the connection is gone already, the next write fails.
        let _ = SockRef::from(stream).set_tcp_user_timeout((wanted > 0).then_some(time));
        self.told_send_timeout.store(wanted, Relaxed);
    }

    pub(super) fn note_read(&self) {
        if self.first_read.load(Relaxed) == 0 {
            self.first_read.store(clock::now(), Relaxed);
        }
    }

    /// Has reads that find nothing ask the kernel too. Returns true the first time.
    pub(super) fn ask_the_kernel(&self) -> bool {
        !self.closing.swap(true, Relaxed)
    }

    /// Whether the kernel had something when it was asked. Said once.
    pub(super) fn take_arrived(&self) -> bool {
        self.arrived.swap(false, Relaxed)
    }

    /// Whether hyper drives it.
    pub(super) fn is_hypers(&self) -> bool {
        self.gate.get().is_some()
    }

    /// The target of the request whose head hyper has just read. `None`: the gate did not
    /// understand it.
    pub(super) fn take_target(&self) -> Option<Vec<u8>> {
        self.gate().take_target()
    }

    /// Takes back the memory of a target.
    pub(super) fn give_back(&self, target: Vec<u8>) {
        self.gate().give_back(target);
    }

    /// Notes which body that request has. Returns true if hyper has to be woken.
    pub(super) fn judged(&self, body: BodyFraming) -> bool {
        self.gate().judged(body);
        self.waits.swap(false, Relaxed)
    }

    /// Notes that the request is answered. Returns true if hyper has to be woken.
    pub(super) fn answered(&self) -> bool {
        self.gate().answered();
        self.waits.swap(false, Relaxed)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A send timeout as it is kept: in milliseconds, 0 for none.
pub(super) fn send_timeout_of(time: Option<Duration>) -> u32 {
    time.map_or(0, |time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}

/// Where the stream of a client that still sends is left, once hyper is done with it.
#[derive(Debug)]
pub(super) struct Left<S>(Arc<Mutex<Option<S>>>);

impl<S> Left<S> {
    /// The stream, if it was left.
    pub(super) fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The client's stream as hyper drives it.
#[derive(Debug)]
pub(super) struct Socket<S> {
    stream: Option<S>,
    /// Was read, and not yet given to hyper.
    early: BytesMut,
    state: Arc<SocketState>,
    left: Left<S>,
}

impl<S: ClientStream> Socket<S> {
    /// Also returns where the stream may be left.
    pub(super) fn new(stream: S, early: &[u8], state: Arc<SocketState>) -> (Self, Left<S>) {
        state.gate.get_or_init(Box::default);
        let left = Arc::new(Mutex::new(None));
        (Self { stream: Some(stream), early: early.into(), state, left: Left(left.clone()) }, Left(left))
    }

    /// The socket itself and the early bytes that hyper left, for the tunnel that it has become.
    pub(super) fn into_stream(mut self) -> io::Result<(S, Bytes)> {
        Ok((self.stream.take().ok_or_else(closed)?, std::mem::take(&mut self.early).freeze()))
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(closed)
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        if self.state.linger.load(Relaxed) {
            *self.left.0.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
        }
    }
}

impl<S: ClientStream> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            let before = buf.filled().len();
            let read = self.stream()?.poll_read(cx, buf);
            if read.is_pending() && self.state.closing.load(Relaxed) {
                let arrived = self.stream.as_ref().is_some_and(S::has_arrived);
                self.state.arrived.store(arrived, Relaxed);
            }
            ready!(read)?;
            let came = &mut buf.filled_mut()[before..];
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed = self.state.gate().pass(came);
            if passed < came.len() {
                self.early.extend_from_slice(&came[passed..]);
            }
            buf.set_filled(before + passed);
            self.given(passed)
        } else {
            let Self { early, state, .. } = &mut *self;
            let room = buf.remaining().min(early.len());
            let passed = state.gate().pass(&mut early[..room]);
            buf.put_slice(&early.split_to(passed));
            if early.is_empty() {
                // An idle connection holds no buffer.
                *early = BytesMut::new();
            }
            self.given(passed)
        }
    }
}

impl<S: ClientStream> Socket<S> {
    /// Notes that hyper got `count` bytes. With none it has to wait, although some are there.
    fn given(&self, count: usize) -> Poll<io::Result<()>> {
        if count == 0 {
            self.state.waits.store(true, Relaxed);
            return Poll::Pending;
        }
        self.state.note_read();
        Poll::Ready(Ok(()))
    }

    fn prepare(&self) {
        if let Some(stream) = &self.stream {
            self.state.prepare_sending(stream.tcp());
        }
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.state.blocked.store(written.is_pending(), Relaxed);
        written
    }
}

impl<S: ClientStream> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.prepare();
        let written = self.stream()?.poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Copying a few bytes is cheaper than having the kernel gather them.
        let mut small = [0; SMALL];
        let mut length = 0;
        for buf in bufs {
            let Some(room) = small.get_mut(length..length + buf.len()) else {
                self.prepare();
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(cx);
        self.note(flushed)
    }

    /// The stream is dropped right after, which ends this side too; if it lingers, that is where
    /// this side is ended.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, state, .. } = &mut *self;
        if let (Some(stream), false) = (stream, state.linger.load(Relaxed)) {
            stream.farewell();
        }
        Poll::Ready(Ok(()))
    }
}
