//! The bytes of a connection of HTTP/2 as hyper reads and writes them. Where frames begin and end
//! is followed in both directions, nothing else of them is looked at.
//!
//! State: [`Watch`], shared by the stream that hyper owns, the connection's task and the streams.
//! Where hyper's part of a connection ends before its client's, the stream is left for last words.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flood::{Flood, FrameHeader};
use crate::proxy::clock;
use crate::proxy::connection::ClientConnection;
use crate::proxy::stream::ClientStream;

/// The length of what a client sends before its first frame (RFC 9113, 3.4).
const PREFACE: u32 = 24;

/// How much is read before the streams that have begun have their turn.
const MOST_A_TURN: usize = 64 << 10;

/// Codes (RFC 9113, 7).
const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What is known of a connection's frames.
#[derive(Debug)]
pub(super) struct Watch {
    client: Rc<ClientConnection>,
    incoming: RefCell<Frames>,
    outgoing: RefCell<Frames>,
    flood: RefCell<Flood>,
    /// The client is sent away with this code.
    sent_away: Cell<Option<u32>>,
    /// The stream is to be left.
    leaves: Cell<bool>,
    /// The client goes: it has ended its side, or said that it will.
    goes: Cell<bool>,
    /// The client has said how it speaks.
    settled: Cell<bool>,
    /// The last stream that the client began.
    last_stream: Cell<u32>,
    /// What was read in this turn.
    read: Cell<usize>,
}

impl Watch {
    pub(super) fn new(client: Rc<ClientConnection>) -> Self {
        Self {
            client,
            incoming: RefCell::new(Frames::behind(PREFACE)),
            outgoing: RefCell::default(),
            flood: RefCell::default(),
            sent_away: Cell::new(None),
            leaves: Cell::new(false),
            goes: Cell::new(false),
            settled: Cell::new(false),
            last_stream: Cell::new(0),
            read: Cell::new(0),
        }
    }

    /// hyper may read again.
    pub(super) fn begin_turn(&self) {
        self.read.set(0);
    }

    /// Whether the client is sent away: it only keeps portok busy, or does not begin with settings,
    /// which hyper would not mind (RFC 9113, 3.4).
    pub(super) fn sends_away(&self) -> bool {
        self.sent_away().is_some()
    }

    /// The code with which it is sent away.
    pub(super) fn sent_away(&self) -> Option<u32> {
        self.sent_away.get()
    }

    /// hyper has sent the client away: the stream is left.
    pub(super) fn leave(&self) {
        self.leaves.set(true);
    }

    /// hyper is done with the connection. Where neither the client nor portok wanted to go, it could
    /// not go on after a request (`CONNECT` with a length), and has not told the client.
    pub(super) fn is_done(&self, told: bool) {
        if !told && !self.goes.get() {
            self.send_away(PROTOCOL_ERROR);
        }
    }

    /// A stream has begun.
    pub(super) fn stream_began(&self) {
        self.flood.borrow_mut().begun(second());
    }

    /// The client has reset a stream before its answer's head.
    pub(super) fn stream_was_reset(&self) {
        if self.flood.borrow_mut().reset(second()) {
            self.send_away(ENHANCE_YOUR_CALM);
            self.client.exchange().wake();
        }
    }

    /// Follows what the client sends.
    fn came(&self, bytes: &[u8]) {
        self.incoming.borrow_mut().pass(bytes, |header| self.frame_came(header));
    }

    fn frame_came(&self, header: FrameHeader) {
        if !self.settled.get() && !header.is_settings() {
            return self.send_away(PROTOCOL_ERROR);
        }
        match header.kind {
            FrameHeader::HEADERS => self.last_stream.set(self.last_stream.get().max(header.stream)),
            FrameHeader::GOAWAY => self.goes.set(true),
            // It is there, and takes what it is sent.
            FrameHeader::WINDOW_UPDATE => self.client.is_there(),
            FrameHeader::SETTINGS if !self.settled.replace(true) => self.client.is_there(),
            _ => (),
        }
        if self.flood.borrow_mut().frame(header, second()) {
            self.send_away(ENHANCE_YOUR_CALM);
        }
    }

    fn send_away(&self, code: u32) {
        self.sent_away.set(self.sent_away.get().or(Some(code)));
        self.leaves.set(true);
    }

    /// GOAWAY (RFC 9113, 6.8) for a client that is sent away, where a frame may follow.
    fn last_words(&self) -> Vec<u8> {
        let Some(code) = self.sent_away.get() else { return Vec::new() };
        let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame[9..13].copy_from_slice(&self.last_stream.get().to_be_bytes());
        frame[13..].copy_from_slice(&code.to_be_bytes());
        if self.outgoing.borrow().is_at_border() { frame.into() } else { Vec::new() }
    }
}

fn second() -> u64 {
    clock::now() / 1000
}

/// Where a direction stands among its frames.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; 9],
    /// So much of the header has passed.
    have: usize,
    /// So much of the payload is still to pass.
    left: u32,
}

impl Frames {
    /// The first frame comes behind so many bytes.
    fn behind(left: u32) -> Self {
        Self { left, ..Self::default() }
    }

    fn is_at_border(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Follows `bytes`, and tells of each frame whose header is complete.
    fn pass(&mut self, mut bytes: &[u8], mut tell: impl FnMut(FrameHeader)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let length = bytes.len().min(self.left as usize);
                bytes = &bytes[length..];
                // At most what is left.
                self.left -= length as u32;
                continue;
            }
            let length = bytes.len().min(self.header.len() - self.have);
            self.header[self.have..self.have + length].copy_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            self.have += length;
            if self.have == self.header.len() {
                let header = FrameHeader::of(self.header);
                (self.have, self.left) = (0, header.length);
                tell(header);
            }
        }
    }
}

/// A stream that hyper is done with.
pub(super) struct Left {
    pub(super) stream: Box<dyn ClientStream>,
    /// What hyper has not said.
    pub(super) last_words: Vec<u8>,
}

/// The client's stream as hyper drives it.
pub(super) struct Wire {
    stream: Option<Box<dyn ClientStream>>,
    /// Was read, and not yet given to hyper.
    early: Bytes,
    watch: Rc<Watch>,
    left: Rc<Cell<Option<Left>>>,
}

impl Wire {
    /// Also returns where the stream may be left.
    pub(super) fn new(
        stream: Box<dyn ClientStream>,
        early: Vec<u8>,
        watch: Rc<Watch>,
    ) -> (Self, Rc<Cell<Option<Left>>>) {
        let left = Rc::new(Cell::new(None));
        (Self { stream: Some(stream), early: early.into(), watch, left: left.clone() }, left)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Box<dyn ClientStream>>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Notes whether the client takes what is written.
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.watch.client.socket.blocked.store(written.is_pending(), Relaxed);
        written
    }

    fn prepare(&self) {
        if let Some(stream) = &self.stream {
            self.watch.client.socket.prepare_sending(stream.tcp());
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.watch.leaves.get()
            && let Some(stream) = self.stream.take()
        {
            let last_words = self.watch.last_words();
            self.left.set(Some(Left { stream, last_words }));
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.watch.sends_away() {
            return Poll::Pending;
        }
        if self.watch.read.get() >= MOST_A_TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(self.stream()?.poll_read(cx, buf))?;
        } else {
            let length = buf.remaining().min(self.early.len());
            buf.put_slice(&self.early[..length]);
            self.early.advance(length);
        }
        let came = &buf.filled()[before..];
        self.watch.read.set(self.watch.read.get() + came.len());
        self.watch.goes.set(self.watch.goes.get() || came.is_empty());
        self.watch.came(came);
        if self.watch.sends_away() {
            // hyper would begin what came with it.
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.prepare();
        let written = self.stream()?.poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.watch.outgoing.borrow_mut().pass(&bytes[..count], |_| ());
        }
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.prepare();
        let written = self.stream()?.poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(mut count)) = written {
            let mut outgoing = self.watch.outgoing.borrow_mut();
            for part in parts {
                let length = count.min(part.len());
                outgoing.pass(&part[..length], |_| ());
                count -= length;
            }
        }
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(cx);
        self.note(flushed)
    }

    /// The stream is dropped right after, which ends this side too.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(stream) = &mut self.stream {
            stream.farewell();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_their_bytes_come() {
        let mut bytes = vec![b'x'; PREFACE as usize];
        for (length, kind) in [(0_u8, 4_u8), (3, 0), (8, 6), (0, 9)] {
            bytes.extend([0, 0, length, kind, 0, 0, 0, 0, 1]);
            bytes.extend(vec![6; length.into()]);
        }
        for size in 1..=bytes.len() {
            let (mut frames, mut kinds) = (Frames::behind(PREFACE), Vec::new());
            for piece in bytes.chunks(size) {
                frames.pass(piece, |header| kinds.push((header.kind, header.length)));
            }
            assert_eq!(kinds, [(4, 0), (0, 3), (6, 8), (9, 0)], "in pieces of {size}");
            assert!(frames.is_at_border());
            frames.pass(&[0], |_| ());
            assert!(!frames.is_at_border());
        }
    }
}
