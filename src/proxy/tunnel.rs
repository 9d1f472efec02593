//! A tunnel: after the app's 101, bytes go both ways until both sides have ended.
//!
//! Owned by the task of the client's connection. The claim and the ticket are held until its end.
//! When one side ends, the end is passed on and the other direction goes on (half-close). Buffers
//! are taken from the thread only while bytes move. Dropped, both connections are closed.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::UnderWay;
use super::board::Service;
use super::client_exchange::ClientExchange;
use super::extras::Extras;
use super::socket::Socket;
use super::spares::BufferSize;
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
        let Self { upgraded, app, under_way } = self;
        let _counted = under_way.claim.as_ref().map(|claim| claim.local.target.tunnel());
        let Ok(upgraded) = upgraded.await else { return };
        let Ok(upgraded) = upgraded.downcast::<TokioIo<Socket<S>>>() else { return };
        let Ok((stream, rest)) = upgraded.io.into_inner().into_stream() else { return };
        let early =
            if rest.is_empty() { upgraded.read_buf } else { [upgraded.read_buf, rest].concat().into() };
        pass(worker, exchange, (stream, early), app, under_way.ticket.extras()).await;
    }
}

/// Moves bytes between a client, of whom `early` has come, and `app` until both sides have ended or
/// one broke.
async fn pass<C: AsyncRead + AsyncWrite + Unpin>(
    worker: &Worker,
    exchange: &ClientExchange,
    (mut client, early): (C, Bytes),
    mut app: Connection,
    extras: Option<&Extras>,
) {
    let mut up = Direction(State::Early(early));
    let mut down = Direction(State::Early(app.buf.split().freeze()));
    let note = |from_client, to_client| {
        if let Some(extras) = extras {
            extras.passed(from_client, to_client);
        }
    };
    let moved = poll_fn(|cx| {
        let up = up.poll(cx, (&mut client, &mut app.stream), worker, exchange, |bytes| note(bytes, 0))?;
        let down = down.poll(cx, (&mut app.stream, &mut client), worker, exchange, |bytes| note(0, bytes))?;
        if down.is_ready() {
            exchange.note_app_ended();
        }
        if up.is_ready() && down.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
    })
    .await;
    if let Err(error) = moved {
        tracing::debug!(%error, "a tunnel broke");
    }
}

/// One way through a tunnel.
struct Direction(State);

enum State {
    /// Bytes that came right behind the heads.
    Early(Bytes),
    Reading,
    Writing {
        buffer: Box<[u8]>,
        at: usize,
        end: usize,
    },
    Ending,
    Ended,
}

impl Direction {
    fn poll<F: AsyncRead + Unpin, T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut F, &mut T),
        worker: &Worker,
        exchange: &ClientExchange,
        passed: impl Fn(u64),
    ) -> Poll<io::Result<()>> {
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        let state = &mut self.0;
        loop {
            match state {
                State::Early(bytes) => {
                    while bytes.has_remaining() {
                        let written = ready!(to.as_mut().poll_write(cx, bytes))?;
                        passed(written as u64);
                        bytes.advance(written);
                    }
                    ready!(to.as_mut().poll_flush(cx))?;
                    *state = State::Reading;
                }
                State::Reading => {
                    let mut buffer = worker.spares.buffer(BufferSize::Usual);
                    let mut read = ReadBuf::new(&mut buffer);
                    let outcome = from.as_mut().poll_read(cx, &mut read);
                    let end = read.filled().len();
                    match outcome {
                        Poll::Ready(Ok(())) if end > 0 => {
                            exchange.note_moved();
                            passed(end as u64);
                            *state = State::Writing { buffer, at: 0, end };
                        }
                        outcome => {
                            worker.spares.keep(buffer);
                            ready!(outcome)?;
                            *state = State::Ending;
                        }
                    }
                }
                State::Writing { buffer, at, end } => {
                    while at < end {
                        *at += ready!(to.as_mut().poll_write(cx, &buffer[*at..*end]))?;
                    }
                    ready!(to.as_mut().poll_flush(cx))?;
                    worker.spares.keep(std::mem::take(buffer));
                    *state = State::Reading;
                }
                State::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx))?;
                    *state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
