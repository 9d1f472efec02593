//! A tunnel: after the app's 101, bytes go both ways until both sides have ended.
//!
//! Owned by the task of the client's connection. The claim and the ticket are held until its end.
//! When one side ends, the end is passed on and the other direction goes on (half-close). Buffers
//! are taken from the thread only while bytes move. Dropped, both connections are closed.
//!
//! A WebSocket whose target is on its way out is ended between two frames of the app: the client
//! gets a close frame of portok's own, its answer to that goes to the app, and whatever the app
//! still sends goes nowhere.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::answer::UnderWay;
use super::board::Service;
use super::client_exchange::ClientExchange;
use super::extras::Extras;
use super::frames::{CLOSE_1012, Frames};
use super::parting::Order;
use super::socket::Socket;
use super::spares::BufferSize;
use super::stayer::StayerKind;
use super::stayers::Staying;
use super::stream::ClientStream;
use super::target::Target;
use super::upstream::connection::Connection;
use super::worker::Worker;

/// Where a request that became a tunnel leaves it for the task of its client's connection. In a
/// box, because few do.
pub(super) type TunnelSlot = Cell<Option<Box<Tunnel>>>;

/// A tunnel that opens once the 101 is written.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The client's side, when hyper lets go of it.
    pub(super) upgraded: OnUpgrade,
    pub(super) app: Connection,
    pub(super) under_way: UnderWay,
    pub(super) staying: Staying,
}

impl Tunnel {
    /// The app at its other end.
    pub(super) fn service(&self) -> &Arc<Service> {
        self.under_way.ticket.service()
    }

    /// The target there.
    pub(super) fn target(&self) -> Option<Arc<Target>> {
        self.under_way.claim.as_ref().map(|claim| claim.local.target.clone())
    }

    /// Moves bytes until both sides have ended or one broke. `S`: the client's stream, which hyper
    /// drove.
    pub(super) async fn run<S: ClientStream>(self, worker: &Worker, exchange: &ClientExchange) {
        let Self { upgraded, app, under_way, staying } = self;
        let _counted = under_way.claim.as_ref().map(|claim| claim.local.target.tunnel());
        let Ok(upgraded) = upgraded.await else { return };
        let Ok(upgraded) = upgraded.downcast::<TokioIo<Socket<S>>>() else { return };
        let Ok((stream, rest)) = upgraded.io.into_inner().into_stream() else { return };
        let early =
            if rest.is_empty() { upgraded.read_buf } else { [upgraded.read_buf, rest].concat().into() };
        let extras = under_way.ticket.extras();
        let passage = Passage { worker, exchange, staying: &staying, extras };
        let (mut stream, mut app) = (stream, app);
        pass((&mut stream, early), &mut app, &passage).await;
    }

    /// The same over a stream of HTTP/2, whose bytes go through hyper.
    pub(super) async fn run_in_stream(self, worker: &Worker, exchange: &ClientExchange) {
        let Self { upgraded, app, under_way, staying } = self;
        let _counted = under_way.claim.as_ref().map(|claim| claim.local.target.tunnel());
        let Ok(upgraded) = upgraded.await else { return };
        let extras = under_way.ticket.extras();
        let passage = Passage { worker, exchange, staying: &staying, extras };
        let (mut stream, mut app) = (TokioIo::new(upgraded), app);
        pass((&mut stream, Bytes::new()), &mut app, &passage).await;
    }
}

/// Moves bytes between a client that has a connection to `app` of its own, and that, as a tunnel
/// does. `early` has come from it already.
pub(super) async fn carry(
    (worker, exchange): (&Worker, &ClientExchange),
    (stream, early): (TcpStream, Bytes),
    app: Connection,
    (under_way, staying): (UnderWay, Staying),
) {
    let _counted = under_way.claim.as_ref().map(|claim| claim.local.target.tunnel());
    let extras = under_way.ticket.extras();
    let passage = Passage { worker, exchange, staying: &staying, extras };
    let mut ends = Ends { client: stream, app, are_whole: false };
    ends.are_whole = pass((&mut ends.client, early), &mut ends.app, &passage).await;
}

/// The two ends of a connection that goes to an app as it is. Whatever ends it before both sides have
/// ended, neither takes what it has got for all of it: both are reset.
struct Ends {
    client: TcpStream,
    app: Connection,
    are_whole: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.are_whole {
            return;
        }
        for end in [&self.client, &self.app.stream] {
            let _is_gone = SockRef::from(end).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Moves bytes between a client, of whom `early` has come, and `app` until both sides have ended,
/// one broke, or the time of the one who is `staying` is over. Returns whether both have ended.
async fn pass<C: AsyncRead + AsyncWrite + Unpin>(
    (client, early): (&mut C, Bytes),
    app: &mut Connection,
    passage: &Passage<'_>,
) -> bool {
    let frames = (passage.staying.kind() == StayerKind::WebSocket).then(Frames::default);
    let from_app = app.buf.split().freeze();
    let mut up = Direction::new(early, None);
    let mut down = Direction::new(from_app, frames);
    let moved = poll_fn(|cx| {
        match passage.staying.order(cx.waker()) {
            Order::Stay => (),
            Order::Leave => down.say_goodbye(),
            Order::Cut => return Poll::Ready(Err(io::Error::other("drain.tunnels is over"))),
        }
        let up = up.poll(cx, (&mut *client, &mut app.stream), passage, |bytes| passage.note(bytes, 0))?;
        let down = down.poll(cx, (&mut app.stream, &mut *client), passage, |bytes| passage.note(0, bytes))?;
        if down.is_ready() {
            passage.exchange.note_app_ended();
        }
        if up.is_ready() && down.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    })
    .await;
    if let Err(error) = &moved {
        tracing::debug!(%error, "a tunnel broke");
    }
    moved.is_ok()
}

/// What both ways through a tunnel have in common.
struct Passage<'a> {
    worker: &'a Worker,
    exchange: &'a ClientExchange,
    staying: &'a Staying,
    extras: Option<&'a Extras>,
}

impl Passage<'_> {
    /// Notes bytes that have passed.
    fn note(&self, from_client: usize, to_client: usize) {
        self.staying.moved(from_client + to_client);
        if let Some(extras) = self.extras {
            extras.passed(from_client as u64, to_client as u64);
        }
    }
}

/// One way through a tunnel.
struct Direction {
    state: State,
    /// Where the frames of a WebSocket end.
    frames: Option<Frames>,
    /// A close frame of portok's own is the last that goes this way.
    leaves: bool,
}

enum State {
    /// Bytes that came right behind the heads.
    Early(Bytes),
    Reading,
    Writing {
        buffer: Box<[u8]>,
        at: usize,
        end: usize,
    },
    /// So much of a close frame has gone.
    Goodbye(usize),
    /// Whatever still comes goes nowhere: nothing follows a close frame.
    Discarding,
    Ending,
    Ended,
}

impl Direction {
    fn new(early: Bytes, mut frames: Option<Frames>) -> Self {
        if let Some(frames) = &mut frames {
            frames.pass(&early);
        }
        Self { state: State::Early(early), frames, leaves: false }
    }

    /// From now on a frame is the last that goes this way, and a close frame follows it.
    fn say_goodbye(&mut self) {
        self.leaves = self.frames.is_some();
    }

    /// Whether it is the moment for a close frame.
    fn is_to_close(&self) -> bool {
        let may_close = |frames: &Frames| frames.is_at_border() && !frames.has_closed();
        self.leaves && self.frames.as_ref().is_some_and(may_close)
    }

    /// How many of the `bytes` that have been read go on.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        match &mut self.frames {
            Some(frames) if self.leaves && !frames.is_at_border() => frames.pass_to_border(bytes),
            Some(frames) => {
                frames.pass(bytes);
                bytes.len()
            }
            None => bytes.len(),
        }
    }

    fn poll<F: AsyncRead + Unpin, T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut F, &mut T),
        passage: &Passage<'_>,
        passed: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        let spares = &passage.worker.spares;
        loop {
            let closes = self.is_to_close();
            match &mut self.state {
                State::Early(bytes) => {
                    while bytes.has_remaining() {
                        let written = ready!(to.as_mut().poll_write(cx, bytes))?;
                        passed(written);
                        bytes.advance(written);
                    }
                    ready!(to.as_mut().poll_flush(cx))?;
                    self.state = State::Reading;
                }
                State::Reading if closes => self.state = State::Goodbye(0),
                State::Reading | State::Discarding => {
                    let mut buffer = spares.buffer(BufferSize::Usual);
                    let mut read = ReadBuf::new(&mut buffer);
                    let outcome = from.as_mut().poll_read(cx, &mut read);
                    let end = read.filled().len();
                    match outcome {
                        Poll::Ready(Ok(())) if end > 0 => {
                            passage.exchange.note_moved();
                            if matches!(self.state, State::Discarding) {
                                spares.keep(buffer);
                                continue;
                            }
                            let end = self.follow(&buffer[..end]);
                            passed(end);
                            self.state = State::Writing { buffer, at: 0, end };
                        }
                        outcome => {
                            spares.keep(buffer);
                            ready!(outcome)?;
                            self.state = State::Ending;
                        }
                    }
                }
                State::Writing { buffer, at, end } => {
                    while at < end {
                        *at += ready!(to.as_mut().poll_write(cx, &buffer[*at..*end]))?;
                    }
                    ready!(to.as_mut().poll_flush(cx))?;
                    spares.keep(std::mem::take(buffer));
                    self.state = State::Reading;
                }
                State::Goodbye(at) => {
                    while *at < CLOSE_1012.len() {
                        *at += ready!(to.as_mut().poll_write(cx, &CLOSE_1012[*at..]))?;
                    }
                    ready!(to.as_mut().poll_flush(cx))?;
                    self.state = State::Discarding;
                }
                State::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
