//! How the rest of an answer reaches the client of a plain request.
//!
//! State: owned by the request. Dropped, the claim is given back and the connection to the app is
//! closed. The order that matters: the claim and the ticket end before the last part is written, so
//! that a client that has the whole answer finds it counted.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::super::attempts::{NoAnswer, no_answer};
use super::super::pieces::Pieces;
use super::super::spares::BufferSize;
use super::super::stream::ClientStream;
use super::super::ticket::Ticket;
use super::super::upstream::exchange::{self, Failed, Incoming, Step};
use super::super::upstream::pool::Claim;
use super::ShortWay;

/// Parts of an answer up to this size are put together. Larger ones are written from where they
/// were read.
const SMALL: usize = 8 * 1024;

/// About how much is put together at most.
const BATCH: usize = 16 * 1024;

/// The part of an app's answer that has not arrived yet, and what counts it.
pub(super) struct Rest {
    pub(super) incoming: Incoming,
    pub(super) chunked: bool,
    pub(super) claim: Claim,
    pub(super) ticket: Ticket,
}

impl<S: ClientStream> ShortWay<'_, S> {
    /// Copies the rest of an answer whose length is told. Returns whether all of it was.
    ///
    /// Bytes move through the thread's buffers, each held only while they move: a buffer for each
    /// part was a fifth of the CPU of 1 MiB, most of it for memory that went back to the kernel and
    /// came again. A client that takes a whole buffer at once gets the next parts by
    /// [`Self::copy_large`], which saves a quarter of the CPU of 1 MiB, in wake-ups at both ends. A
    /// client that has to be waited for holds no more than a usual buffer.
    pub(super) async fn copy(&mut self, rest: Rest) -> bool {
        let Rest { mut incoming, claim, ticket, .. } = rest;
        let mut held = Some((claim, ticket));
        loop {
            let part = poll_fn(|cx| {
                let mut buffer = self.worker.spares.buffer(BufferSize::Usual);
                match incoming.poll_copy(cx, &mut buffer) {
                    Poll::Ready(Ok(length)) => return Poll::Ready(Some(Ok((buffer, length)))),
                    Poll::Ready(Err(failed)) => return Poll::Ready(Some(Err(failed))),
                    Poll::Pending => self.worker.spares.keep(buffer),
                }
                self.poll_gone(cx).map(|()| None)
            });
            let (buffer, length) = match part.await {
                None => return false,
                Some(Ok(part)) => part,
                Some(Err(failed)) => return broke(failed, held.as_ref()),
            };
            if let Some((_, ticket)) = &held {
                ticket.passed_out(length);
            }
            if incoming.is_over()
                && let Some((claim, ticket)) = held.take()
            {
                ticket.finish();
                give_back(&claim, incoming.over());
            }
            let written = self.write_part(&buffer[..length]).await;
            let was_full = length == buffer.len();
            self.worker.spares.keep(buffer);
            let Ok(at_once) = written else { return false };
            if held.is_none() {
                return true;
            }
            if at_once && was_full {
                match self.copy_large(&mut incoming, held.as_ref()).await {
                    Copied::Waiting => (),
                    Copied::Over => return false,
                    Copied::Failed(failed) => return broke(failed, held.as_ref()),
                }
            }
        }
    }

    /// Copies through a large buffer as long as the client takes all of it at once, except for the
    /// last part. What the client does not take stays in the kernel: a client that stops reading
    /// holds no buffer.
    async fn copy_large(&mut self, incoming: &mut Incoming, held: Option<&(Claim, Ticket)>) -> Copied {
        loop {
            // Other connections have their turn in between.
            tokio::task::yield_now().await;
            let step = poll_fn(|cx| {
                let mut buffer = self.worker.spares.buffer(BufferSize::Large);
                let step = match incoming.poll_peek(cx, &mut buffer, BufferSize::Usual.length()) {
                    Poll::Ready(Ok(0)) => Poll::Ready(Some(Copied::Waiting)),
                    Poll::Ready(Ok(length)) => {
                        let written = Pin::new(&mut self.stream).poll_write(cx, &buffer[..length]);
                        if let (Poll::Ready(Ok(count)), Some((_, ticket))) = (&written, held) {
                            ticket.passed_out(*count);
                        }
                        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
                        Poll::Ready(match taken(written, length, incoming) {
                            None if flushed.is_pending() => Some(Copied::Waiting),
                            copied => copied,
                        })
                    }
                    Poll::Ready(Err(failed)) => Poll::Ready(Some(Copied::Failed(failed))),
                    Poll::Pending => self.poll_gone(cx).map(|()| Some(Copied::Over)),
                };
                self.worker.spares.keep(buffer);
                step
            });
            if let Some(copied) = step.await {
                return copied;
            }
        }
    }

    /// Writes all of `bytes`. Returns whether the client took them at once.
    async fn write_part(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        let mut at_once = true;
        poll_fn(|cx| {
            while !bytes.is_empty() {
                let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
                at_once &= written.is_ready();
                match ready!(written)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    count => bytes = &bytes[count..],
                }
            }
            let flushed = Pin::new(&mut self.stream).poll_flush(cx);
            at_once &= flushed.is_ready();
            ready!(flushed)?;
            Poll::Ready(Ok(at_once))
        })
        .await
    }

    /// Passes the rest of an answer on in chunks. Returns whether all of it was.
    pub(super) async fn stream(&mut self, rest: Rest, pieces: &mut Pieces) -> bool {
        let Rest { mut incoming, claim, ticket, .. } = rest;
        let mut held = Some((claim, ticket));
        loop {
            let filled = poll_fn(|cx| match poll_fill(cx, &mut incoming, pieces, held.as_ref()) {
                Poll::Ready(filled) => Poll::Ready(Some(filled)),
                Poll::Pending => self.poll_gone(cx).map(|()| None),
            });
            let Some(filled) = filled.await else { return false };
            let failed = match filled {
                Filled::Part => None,
                Filled::Last(over) => {
                    if let Some((claim, ticket)) = held.take() {
                        ticket.finish();
                        give_back(&claim, over);
                    }
                    None
                }
                Filled::Broken(failed) => Some(failed),
            };
            let written = self.write(pieces).await.is_ok();
            if let Some(failed) = failed {
                return broke(failed, held.as_ref());
            }
            if !written || held.is_none() {
                return written;
            }
        }
    }

    /// Writes all of `pieces`.
    pub(super) async fn write(&mut self, pieces: &mut Pieces) -> io::Result<()> {
        poll_fn(|cx| {
            while pieces.is_pending() {
                ready!(pieces.poll_write(cx, &mut self.stream))?;
            }
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            pieces.clear();
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Why copying through a large buffer ends.
enum Copied {
    /// The client takes no more for now, or only the last part is left.
    Waiting,
    /// The client has gone.
    Over,
    Failed(Failed),
}

/// Drops from the kernel what a client has taken (`written`) of `length` bytes. `None`: it took all
/// of them, and the next ones may follow.
fn taken(written: Poll<io::Result<usize>>, length: usize, incoming: &mut Incoming) -> Option<Copied> {
    let count = match written {
        Poll::Ready(Ok(count @ 1..)) => count,
        Poll::Ready(Ok(0) | Err(_)) => return Some(Copied::Over),
        Poll::Pending => return Some(Copied::Waiting),
    };
    match incoming.skip(count) {
        Ok(()) => (count < length).then_some(Copied::Waiting),
        Err(failed) => Some(Copied::Failed(failed)),
    }
}

/// Gives the connection of an answer that is over back to its target.
pub(super) fn give_back(claim: &Claim, over: exchange::Over) {
    if let Some(connection) = over.connection {
        claim.local.give_back(connection);
    }
}

/// Notes why an answer broke off. Returns false: the connection ends with it.
fn broke(failed: Failed, held: Option<&(Claim, Ticket)>) -> bool {
    if let (NoAnswer::Fault { fault, .. }, Some((_, ticket))) = (no_answer(failed), held) {
        ticket.broke(&fault);
    }
    false
}

/// What is to be written of an answer in chunks.
enum Filled {
    /// What has come, and more will.
    Part,
    /// The end is among it. What the body leaves.
    Last(exchange::Over),
    /// What has come before this. Asked again, a connection that was reset says that it has ended.
    Broken(Failed),
}

/// Takes what has come of the answer, to be written at once in chunks. Pending while nothing has
/// come.
fn poll_fill(
    cx: &mut Context<'_>,
    incoming: &mut Incoming,
    pieces: &mut Pieces,
    held: Option<&(Claim, Ticket)>,
) -> Poll<Filled> {
    while pieces.payload.is_empty() && pieces.bytes.len() < BATCH {
        let step = match incoming.poll_step(cx) {
            // What came before a pause goes out first.
            Poll::Pending if pieces.is_pending() => break,
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(failed)) => return Poll::Ready(Filled::Broken(failed)),
            Poll::Ready(Ok(step)) => step,
        };
        match step {
            Step::Frame(frame) => {
                // Trailers are for clients that ask for them, and their requests are not plain.
                if let Ok(data) = frame.into_data() {
                    if let Some((_, ticket)) = held {
                        ticket.passed_out(data.len());
                    }
                    add_chunk(pieces, data);
                }
            }
            Step::Over(over) => {
                pieces.bytes.extend_from_slice(b"0\r\n\r\n");
                return Poll::Ready(Filled::Last(over));
            }
        }
    }
    Poll::Ready(Filled::Part)
}

/// Adds a part of the body as one chunk.
fn add_chunk(pieces: &mut Pieces, data: Bytes) {
    let (mut digits, mut at, mut left) = ([0; 16], 16, data.len());
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
    }
    pieces.bytes.extend_from_slice(&digits[at..]);
    pieces.bytes.extend_from_slice(b"\r\n");
    if data.len() > SMALL {
        (pieces.payload, pieces.tail) = (data, b"\r\n");
    } else {
        pieces.bytes.extend_from_slice(&data);
        pieces.bytes.extend_from_slice(b"\r\n");
    }
}
