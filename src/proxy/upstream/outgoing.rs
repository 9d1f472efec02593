//! Writes a request: its head, then its body as it comes from the client.
//!
//! Owned by the exchange, not by a connection: what was not sent over one can be sent over another. Small
//! requests go out in one write. Dropped in the middle, the connection it wrote to is of no use any more.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Why writing stopped.
#[derive(Debug)]
pub(in crate::proxy) enum Stopped {
    /// The client's body broke off, or its framing is wrong.
    Client(hyper::Error),
    /// The body is longer than the limit.
    TooLarge,
    /// The app does not take it.
    App(io::Error),
}

/// A request on its way to the app.
#[derive(Debug)]
pub(in crate::proxy) struct Outgoing {
    /// The head, later the framing around a part of the body; sent up to `at`.
    bytes: Vec<u8>,
    at: usize,
    /// The part of the body behind `bytes`, and what follows it.
    payload: Bytes,
    tail: &'static [u8],
    body: Option<Incoming>,
    chunked: bool,
    /// How much of the body may still come.
    allowed: u64,
    /// How much was written.
    written: u64,
}

impl Outgoing {
    /// `head` as it is; a body that is over already is none.
    pub(in crate::proxy) fn new(head: Vec<u8>, body: Incoming, chunked: bool, limit: Option<u64>) -> Self {
        let body = (chunked || !body.is_end_stream()).then_some(body);
        let (payload, tail) = (Bytes::new(), &b""[..]);
        Self {
            bytes: head,
            at: 0,
            payload,
            tail,
            body,
            chunked,
            allowed: limit.unwrap_or(u64::MAX),
            written: 0,
        }
    }

    /// Where the head is written to, before anything is sent.
    pub(in crate::proxy) fn head(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether everything was taken from the client and sent.
    pub(in crate::proxy) fn is_done(&self) -> bool {
        self.body.is_none() && !self.is_pending()
    }

    /// Whether the client's body was taken whole.
    pub(in crate::proxy) fn has_body_left(&self) -> bool {
        self.body.is_some()
    }

    /// Whether nothing of it was sent.
    pub(in crate::proxy) fn is_untouched(&self) -> bool {
        self.written == 0
    }

    pub(in crate::proxy) fn written(&self) -> u64 {
        self.written
    }

    /// Begins again with the head; only for a request without a body, or of which nothing was sent.
    pub(in crate::proxy) fn rewind(&mut self) {
        self.at = 0;
        self.written = 0;
    }

    /// The head's memory, for the next request.
    pub(in crate::proxy) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes the first part of the body where it is there already, so that it goes out with the head, and
    /// so that a body that is wrong from its first byte reaches nobody.
    pub(in crate::proxy) fn prime(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        if !self.is_untouched() || self.payload.has_remaining() {
            return Ok(());
        }
        match self.poll_body(cx) {
            Poll::Ready(Err(stopped)) => Err(stopped),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Writes until everything is sent (ready), the app takes no more, or the client has no more for now.
    pub(in crate::proxy) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut TcpStream,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            while self.is_pending() {
                ready!(self.poll_write(cx, to)).map_err(Stopped::App)?;
            }
            if self.body.is_none() {
                return Poll::Ready(Ok(()));
            }
            if self.at > 0 {
                self.bytes.clear();
                self.at = 0;
            }
            ready!(self.poll_body(cx))?;
        }
    }

    fn is_pending(&self) -> bool {
        self.at < self.bytes.len() || self.payload.has_remaining() || !self.tail.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Poll<io::Result<()>> {
        let first = &self.bytes[self.at..];
        let to = Pin::new(to);
        let mut sent = ready!(if self.payload.is_empty() && self.tail.is_empty() {
            to.poll_write(cx, first)
        } else {
            let parts = [IoSlice::new(first), IoSlice::new(&self.payload), IoSlice::new(self.tail)];
            to.poll_write_vectored(cx, &parts)
        })?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += sent as u64;
        let of_first = sent.min(first.len());
        self.at += of_first;
        sent -= of_first;
        let of_payload = sent.min(self.payload.len());
        self.payload.advance(of_payload);
        self.tail = &self.tail[sent - of_payload..];
        Poll::Ready(Ok(()))
    }

    /// Takes the next part of the body behind what is pending.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.body = None;
                return Poll::Ready(Err(Stopped::Client(error)));
            }
            None => {
                self.body = None;
                if self.chunked {
                    self.bytes.extend_from_slice(b"0\r\n\r\n");
                }
                return Poll::Ready(Ok(()));
            }
        };
        let over = body.is_end_stream() && !self.chunked;
        let taken = self.take(frame);
        if over {
            self.body = None;
        }
        Poll::Ready(taken)
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Stopped> {
        let frame = match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.allowed = self.allowed.checked_sub(length).ok_or(Stopped::TooLarge)?;
                if self.chunked && length > 0 {
                    write!(self.bytes, "{length:x}\r\n").map_err(Stopped::App)?;
                    self.tail = b"\r\n";
                }
                self.payload = data;
                return Ok(());
            }
            Err(frame) => frame,
        };
        if let (true, Ok(trailers)) = (self.chunked, frame.into_trailers()) {
            self.bytes.extend_from_slice(b"0\r\n");
            for (name, value) in &trailers {
                if !crate::proxy::headers::is_forbidden_trailer(name) {
                    for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                        self.bytes.extend_from_slice(part);
                    }
                }
            }
            self.bytes.extend_from_slice(b"\r\n");
            self.body = None;
        }
        Ok(())
    }
}
