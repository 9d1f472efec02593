//! Writes a request: its head, then its body as it comes from the client.
//!
//! Owned by the exchange, not by a connection: what was not sent over one can be sent over another.
//! Small requests go out in one write. Dropped half-way, the connection that it wrote to is of no
//! use any more.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::proxy::pieces::Pieces;
use crate::proxy::waits::Patience;

mod parts;

pub(in crate::proxy) use self::parts::Part;

/// Why writing stopped.
#[derive(Debug)]
pub(in crate::proxy) enum Stopped {
    /// The client's body broke off, or its framing is wrong.
    Client(hyper::Error),
    /// The body is longer than the limit.
    TooLarge,
    /// The client sends nothing more of the body.
    Late,
    /// The app does not take the request.
    App(io::Error),
}

/// A request on its way to the app.
#[derive(Debug)]
pub(in crate::proxy) struct Outgoing {
    /// The head, later a part of the body with the framing around it.
    pieces: Pieces,
    body: Option<Incoming>,
    chunked: bool,
    /// How much of the body may still come.
    allowed: u64,
    /// How much was written.
    written: u64,
    /// How long a part of the body is waited for.
    patience: Option<Patience>,
    /// What was read of the body before there was anybody to send it to. In a box, because hardly
    /// any request has it.
    ahead: Option<Box<Ahead>>,
}

/// The first parts of a body; `None`: its end.
#[derive(Debug, Default)]
struct Ahead(VecDeque<Option<Frame<Bytes>>>);

/// How many parts of a body are read ahead. hyper reads one more.
const AHEAD: usize = 2;

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(patience) = &self.patience {
            patience.body_came();
        }
    }
}

impl Outgoing {
    /// A request of `head` alone.
    pub(in crate::proxy) fn bodyless(head: Vec<u8>) -> Self {
        let pieces = Pieces::new(head);
        Self { pieces, body: None, chunked: false, allowed: 0, written: 0, patience: None, ahead: None }
    }

    /// A request of `head` and `body`. A body that is over already is none.
    pub(in crate::proxy) fn new(head: Vec<u8>, body: Incoming, chunked: bool, limit: Option<u64>) -> Self {
        let body = (chunked || !body.is_end_stream()).then_some(body);
        let allowed = limit.unwrap_or(u64::MAX);
        let pieces = Pieces::new(head);
        Self { pieces, body, chunked, allowed, written: 0, patience: None, ahead: None }
    }

    /// Waits no longer than `patience` for each part of the body, from now on.
    pub(in crate::proxy) fn wait_with(&mut self, patience: Patience) {
        self.patience = Some(patience);
    }

    /// Where the head is written to, before anything is sent.
    pub(in crate::proxy) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.pieces.bytes
    }

    /// Whether everything was taken from the client and sent.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.body.is_none() && !self.pieces.is_pending()
    }

    /// Whether the client still has some of its body to send.
    pub(in crate::proxy) fn has_body_left(&self) -> bool {
        self.body.is_some()
    }

    /// How many bytes of the body have come, of which `limit` may come.
    pub(in crate::proxy) fn taken(&self, limit: Option<u64>) -> u64 {
        limit.unwrap_or(u64::MAX) - self.allowed
    }

    /// Whether nothing of it was sent.
    pub(in crate::proxy) fn is_untouched(&self) -> bool {
        self.written == 0
    }

    pub(in crate::proxy) fn written(&self) -> u64 {
        self.written
    }

    /// Begins again with the head. Only for a request without a body, or of which nothing was sent.
    pub(in crate::proxy) fn rewind(&mut self) {
        self.pieces.rewind();
        self.written = 0;
    }

    /// The head's memory, for the next request.
    pub(in crate::proxy) fn into_buffer(mut self) -> Vec<u8> {
        std::mem::take(&mut self.pieces.bytes)
    }

    /// Reads the first parts of the body although nobody takes them yet: so it is learned that the
    /// client broke off. Returns how many bytes were read.
    pub(in crate::proxy) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<usize, Stopped> {
        let Some(body) = &mut self.body else { return Ok(0) };
        let Ahead(ahead) = &mut **self.ahead.get_or_insert_default();
        let mut read = 0;
        while ahead.len() < AHEAD && ahead.back().is_none_or(Option::is_some) {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Err(Stopped::Client(error));
                }
                Poll::Ready(frame) => {
                    let frame = frame.and_then(Result::ok);
                    read += frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                    ahead.push_back(frame);
                }
            }
        }
        Ok(read)
    }

    /// The bytes that it has in memory.
    pub(in crate::proxy) fn kept(&self) -> usize {
        let ahead = self.ahead.iter().flat_map(|ahead| ahead.0.iter().flatten());
        let ahead: usize = ahead.filter_map(Frame::data_ref).map(Bytes::len).sum();
        self.pieces.bytes.len() + self.pieces.payload.len() + ahead
    }

    /// Takes the first part of the body if it has come already. So it goes out with the head, and a
    /// body that is wrong from its first byte reaches nobody.
    pub(in crate::proxy) fn prime(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        if !self.is_untouched() || self.pieces.payload.has_remaining() {
            return Ok(());
        }
        match self.poll_body(cx) {
            Poll::Ready(Err(stopped)) => Err(stopped),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Writes until everything is sent (ready), or the app takes no more or the client has no more
    /// for now (pending).
    pub(in crate::proxy) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TcpStream,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            while self.pieces.is_pending() {
                let sent = ready!(self.pieces.poll_write(cx, to)).map_err(Stopped::App)?;
                self.written += sent as u64;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            self.pieces.clear();
            ready!(self.poll_body(cx))?;
        }
    }

    /// Takes the next part of the body behind what is pending.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        if self.body.is_none() {
            return Poll::Ready(Ok(()));
        }
        let Some(frame) = ready!(self.poll_frame(cx))? else {
            self.body = None;
            if self.chunked {
                self.pieces.bytes.extend_from_slice(b"0\r\n\r\n");
            }
            return Poll::Ready(Ok(()));
        };
        let over = self.is_at_end() && !self.chunked;
        let taken = self.take(frame);
        if over {
            self.body = None;
        }
        Poll::Ready(taken)
    }

    /// The next frame of the body, from what was read ahead or from the client; `None`: its end.
    #[inline(always)] // it has a caller for each way of framing, and each part passes
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Stopped>> {
        let polled = match self.ahead.as_mut().and_then(|ahead| ahead.0.pop_front()) {
            Some(frame) => Poll::Ready(frame.map(Ok)),
            None => match &mut self.body {
                Some(body) => Pin::new(body).poll_frame(cx),
                None => Poll::Ready(None),
            },
        };
        let Poll::Ready(frame) = polled else {
            return match &self.patience {
                Some(patience) if patience.body_is_late() => Poll::Ready(Err(Stopped::Late)),
                _ => Poll::Pending,
            };
        };
        if let Some(patience) = &self.patience {
            patience.body_came();
        }
        match frame {
            Some(Ok(frame)) => Poll::Ready(Ok(Some(frame))),
            Some(Err(error)) => {
                self.body = None;
                Poll::Ready(Err(Stopped::Client(error)))
            }
            None => Poll::Ready(Ok(None)),
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Stopped> {
        let frame = match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.allowed = self.allowed.checked_sub(length).ok_or(Stopped::TooLarge)?;
                if self.chunked && length > 0 {
                    write!(self.pieces.bytes, "{length:x}\r\n").map_err(Stopped::App)?;
                    self.pieces.tail = b"\r\n";
                }
                self.pieces.payload = data;
                return Ok(());
            }
            Err(frame) => frame,
        };
        if let (true, Ok(trailers)) = (self.chunked, frame.into_trailers()) {
            self.pieces.bytes.extend_from_slice(b"0\r\n");
            for (name, value) in &trailers {
                if !crate::http1::fields::is_forbidden_trailer(name) {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        self.pieces.bytes.extend_from_slice(part);
                    }
                }
            }
            self.pieces.bytes.extend_from_slice(b"\r\n");
            self.body = None;
        }
        Ok(())
    }
}
