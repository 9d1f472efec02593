//! Bytes on their way to a socket: a head or the framing of a part, then the part itself, then what
//! ends it.
//!
//! Owned by the sender. Small messages go out in one write, and large parts are never copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Sent up to `at`.
    pub(super) bytes: Vec<u8>,
    at: usize,
    /// What follows `bytes`, and what follows that.
    pub(super) payload: Bytes,
    pub(super) tail: &'static [u8],
}

impl Pieces {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Whether anything is left to write.
    pub(super) fn is_pending(&self) -> bool {
        self.at < self.bytes.len() || self.payload.has_remaining() || !self.tail.is_empty()
    }

    /// Makes room for the next part once nothing is left. From then on the former part's memory can
    /// be read into again.
    pub(super) fn clear(&mut self) {
        self.payload = Bytes::new();
        if self.at > 0 {
            self.bytes.clear();
            self.at = 0;
        }
    }

    /// Begins again with `bytes`. Only while nothing else was sent.
    pub(super) fn rewind(&mut self) {
        self.at = 0;
    }

    /// Writes once and returns the number of bytes, which is never zero.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<usize>> {
        let first = &self.bytes[self.at..];
        let to = Pin::new(to);
        let sent = ready!(if self.payload.is_empty() && self.tail.is_empty() {
            to.poll_write(cx, first)
        } else {
            let parts = [IoSlice::new(first), IoSlice::new(&self.payload), IoSlice::new(self.tail)];
            to.poll_write_vectored(cx, &parts)
        })?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_first = sent.min(first.len());
        self.at += of_first;
        let of_payload = (sent - of_first).min(self.payload.len());
        self.payload.advance(of_payload);
        self.tail = &self.tail[sent - of_first - of_payload..];
        Poll::Ready(Ok(sent))
    }
}
