//! One exchange with the app over one connection: the request goes out while the answer comes in.
//!
//! State: the connection and the unsent rest of the request, owned by whoever waits for the head,
//! and then by the body of the answer. An answer that begins before the request is sent whole is
//! passed on at once, and both go on side by side. Once the answer is complete, nothing more of the
//! request is taken. Dropped before its end, the connection is closed, never pooled.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::connection::Connection;
use super::outgoing::{Outgoing, Stopped};
use crate::http1::chunked::{Chunked, Piece};
use crate::http1::head::{self, Fields, Framing, Head, Invalid, MAX_HEAD, MAX_INTERIM, Parsed};
use crate::proxy::parting::Order;
use crate::proxy::stayers::Staying;
use crate::proxy::waits::Patience;

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::proxy) enum Failed {
    /// The client's body broke off, or its framing is wrong.
    Client(hyper::Error),
    /// The client's body is longer than the limit.
    TooLarge,
    /// The client sends nothing more of its body.
    Late,
    /// The connection broke. `answered`: a part of the answer had come.
    Reset { error: io::Error, answered: bool },
    /// The answer cannot be read.
    Invalid(Invalid),
    /// Something took longer than this key allows.
    Timeout(&'static str),
}

impl From<Stopped> for Failed {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Client(error) => Self::Client(error),
            Stopped::TooLarge => Self::TooLarge,
            Stopped::Late => Self::Late,
            Stopped::App(error) => Self::Reset { error, answered: false },
        }
    }
}

/// A request of which the answer's head is waited for.
pub(in crate::proxy) trait Conversation {
    /// What comes of it.
    type Answer;

    /// Sends, and waits for the answer's head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Answer, Failed>>;

    /// A number that changes whenever more of the request is sent.
    fn written(&self) -> u64;

    /// A number that changes whenever more of the answer comes; 0: nothing has come.
    fn progress(&self) -> usize;
}

/// A request on its way over a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Exchange<'a> {
    pub(in crate::proxy) connection: &'a mut Connection,
    pub(in crate::proxy) outgoing: &'a mut Outgoing,
    /// Whether it answers `HEAD`.
    pub(in crate::proxy) to_head: bool,
    /// Where the answer's fields go.
    pub(in crate::proxy) fields: Fields<'a>,
    /// How many fields the answer's head may have.
    most_fields: usize,
    sent: Option<Sent>,
    interim: u32,
}

/// How sending ended.
#[derive(Debug)]
enum Sent {
    Whole,
    Broken(io::Error),
}

impl<'a> Exchange<'a> {
    pub(in crate::proxy) fn new(
        connection: &'a mut Connection,
        outgoing: &'a mut Outgoing,
        to_head: bool,
        fields: Fields<'a>,
        most_fields: usize,
    ) -> Self {
        Self { connection, outgoing, to_head, fields, most_fields, sent: None, interim: 0 }
    }

    /// Sends, and waits for the answer's head. After an error the connection is of no use any more.
    pub(in crate::proxy) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failed>> {
        if self.sent.is_none() {
            self.outgoing.prime(cx)?;
            match self.outgoing.poll_send(cx, &mut self.connection.stream) {
                Poll::Pending => (),
                Poll::Ready(Ok(())) => {
                    self.sent = Some(Sent::Whole);
                    // There is hardly ever an answer yet. To ask whether something is there costs
                    // less than a read that finds nothing.
                    if self.connection.stream.poll_read_ready(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                // The app may have answered before it stopped reading.
                Poll::Ready(Err(Stopped::App(error))) => self.sent = Some(Sent::Broken(error)),
                Poll::Ready(Err(stopped)) => return Poll::Ready(Err(stopped.into())),
            }
        }
        loop {
            let filled = ready!(self.connection.poll_fill(cx));
            if !matches!(filled, Ok(1..)) {
                return Poll::Ready(Err(self.broken(filled)));
            }
            while !self.connection.buf.is_empty() {
                let buf = &mut self.connection.buf;
                match head::parse(buf, self.to_head, self.most_fields, &mut self.fields)
                    .map_err(Failed::Invalid)?
                {
                    Parsed::Partial => break,
                    Parsed::Interim if self.interim >= MAX_INTERIM => {
                        return Poll::Ready(Err(Failed::Invalid(Invalid("too many interim answers"))));
                    }
                    Parsed::Interim => self.interim += 1,
                    Parsed::Head(head) => return Poll::Ready(Ok(head)),
                }
            }
        }
    }

    /// Why a connection gives nothing more.
    fn broken(&mut self, filled: io::Result<usize>) -> Failed {
        let answered = self.interim > 0 || !self.connection.buf.is_empty();
        let error = match (self.sent.take(), filled) {
            (Some(Sent::Broken(error)), _) | (_, Err(error)) => error,
            (_, Ok(_)) => io::Error::new(io::ErrorKind::UnexpectedEof, "the app closed the connection"),
        };
        Failed::Reset { error, answered }
    }
}

impl Conversation for Exchange<'_> {
    type Answer = Head;

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failed>> {
        Exchange::poll_head(self, cx)
    }

    fn written(&self) -> u64 {
        self.outgoing.written()
    }

    fn progress(&self) -> usize {
        self.connection.buf.len() + self.interim as usize * (MAX_HEAD + 1)
    }
}

/// The body of an answer while it comes in, and the rest of the request while it goes out.
#[derive(Debug)]
pub(in crate::proxy) struct Incoming {
    /// `None` once the body is over or broken.
    connection: Option<Connection>,
    /// The rest of the request. `None` once it is sent, or the app takes no more of it.
    outgoing: Option<Outgoing>,
    framing: Framing,
    chunked: Chunked,
    keep_alive: bool,
    /// How long the app may be silent. `None`: without limit.
    patience: Option<Patience>,
    /// Of an event stream: whether it is to end.
    staying: Option<Box<Staying>>,
}

/// What a body leaves behind when it is over.
#[derive(Debug)]
pub(in crate::proxy) struct Over {
    /// The connection, when it can carry another exchange.
    pub(in crate::proxy) connection: Option<Connection>,
    /// Whether the client still has something to send that nobody takes.
    pub(in crate::proxy) unread: bool,
}

/// A step of a body.
#[derive(Debug)]
pub(in crate::proxy) enum Step {
    Frame(Frame<Bytes>),
    Over(Over),
}

impl Incoming {
    /// The body behind a head; `outgoing` is what is left of the request.
    pub(in crate::proxy) fn new(
        connection: Connection,
        outgoing: Option<Outgoing>,
        framing: Framing,
        keep_alive: bool,
    ) -> Self {
        let (chunked, patience, staying) = (Chunked::Size, None, None);
        Self { connection: Some(connection), outgoing, framing, chunked, keep_alive, patience, staying }
    }

    /// It is an event stream: it stays until it ends or `staying` says so.
    pub(in crate::proxy) fn stay(&mut self, staying: Box<Staying>) {
        self.staying = Some(staying);
    }

    /// Waits no longer than `patience` for the app, from now on.
    pub(in crate::proxy) fn wait_with(&mut self, patience: Patience) {
        self.patience = Some(patience);
    }

    /// The whole body and what it leaves, if all of it has come with the head.
    pub(in crate::proxy) fn take_whole(&mut self) -> Option<(Bytes, Over)> {
        let length = self.whole()?;
        if self.awaits_end() {
            return None;
        }
        let body = self.connection.as_mut()?.buf.split_to(length).freeze();
        Some((body, self.over()))
    }

    /// Adds the whole body to `out` in the same case, so that the connection's buffer is used
    /// again.
    pub(in crate::proxy) fn take_whole_into(&mut self, out: &mut Vec<u8>) -> Option<Over> {
        let length = self.whole()?;
        let buf = &mut self.connection.as_mut()?.buf;
        out.extend_from_slice(&buf[..length]);
        buf.advance(length);
        Some(self.over())
    }

    /// Adds to `out` what has come of a body whose length is told.
    pub(in crate::proxy) fn take_arrived_into(&mut self, out: &mut Vec<u8>) {
        if let (Some(connection), Framing::Length(left)) = (&mut self.connection, &mut self.framing) {
            let take = usize::try_from(*left).unwrap_or(usize::MAX).min(connection.buf.len());
            out.extend_from_slice(&connection.buf[..take]);
            connection.buf.advance(take);
            *left -= take as u64;
        }
    }

    /// Reads the next part of a body whose length is told straight into `buffer`. Nothing of the
    /// body may be left in the connection's buffer. Zero: the body is over.
    pub(in crate::proxy) fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Failed>> {
        self.poll_outgoing(cx)?;
        let (Some(connection), Framing::Length(left @ 1..)) = (&mut self.connection, &mut self.framing)
        else {
            return Poll::Ready(Ok(0));
        };
        let mut read = ReadBuf::new(buffer);
        let outcome = match Pin::new(&mut connection.stream).poll_read(cx, &mut read) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => return waited(self.patience.as_ref()),
        };
        came(self.patience.as_ref());
        let count = read.filled().len() as u64;
        if let Err(error) = outcome {
            return Poll::Ready(Err(Failed::Reset { error, answered: true }));
        }
        if count == 0 {
            return Poll::Ready(Err(too_early()));
        }
        // Bytes nobody asked for: what follows cannot be told apart from the next answer.
        self.keep_alive &= count <= *left;
        let count = count.min(*left);
        *left -= count;
        Poll::Ready(Ok(usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// Copies what has come of a body whose length is told, except its last `kept` bytes, and
    /// leaves it in the kernel. Zero: only those last bytes are still to come.
    pub(in crate::proxy) fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        kept: usize,
    ) -> Poll<Result<usize, Failed>> {
        self.poll_outgoing(cx)?;
        let (Some(connection), Framing::Length(left)) = (&mut self.connection, self.framing) else {
            return Poll::Ready(Ok(0));
        };
        let most = usize::try_from(left.saturating_sub(kept as u64)).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut there = ReadBuf::new(&mut buffer[..most]);
        let outcome = match connection.stream.poll_peek(cx, &mut there) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => return waited(self.patience.as_ref()),
        };
        came(self.patience.as_ref());
        Poll::Ready(match outcome {
            Ok(0) => Err(too_early()),
            Ok(count) => Ok(count),
            Err(error) => Err(Failed::Reset { error, answered: true }),
        })
    }

    /// Drops the next `count` bytes of the body, which [`Self::poll_peek`] has shown.
    pub(in crate::proxy) fn skip(&mut self, count: usize) -> Result<(), Failed> {
        let (Some(connection), Framing::Length(left)) = (&mut self.connection, &mut self.framing) else {
            return Ok(());
        };
        let skipped = connection.skip(count).map_err(|error| Failed::Reset { error, answered: true })?;
        if skipped != count {
            return Err(too_early());
        }
        *left = left.saturating_sub(count as u64);
        Ok(())
    }

    /// The length of the body, if all of it has come.
    fn whole(&self) -> Option<usize> {
        let length = match self.framing {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).ok()?,
            Framing::Chunked | Framing::Eof => return None,
        };
        (length <= self.connection.as_ref()?.buf.len()).then_some(length)
    }

    /// The next part of the body.
    pub(in crate::proxy) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Failed>> {
        self.poll_outgoing(cx)?;
        loop {
            if self.staying.is_some() && self.leaves(cx)? {
                return Poll::Ready(Ok(Step::Over(self.over())));
            }
            match self.decode()? {
                Decoded::Frame(frame) => {
                    if let (Some(staying), Some(data)) = (&self.staying, frame.data_ref()) {
                        staying.moved(data.len());
                    }
                    return Poll::Ready(Ok(Step::Frame(frame)));
                }
                Decoded::Over if self.awaits_end() => return Poll::Pending,
                Decoded::Over => return Poll::Ready(Ok(Step::Over(self.over()))),
                Decoded::More => (),
            }
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(Ok(Step::Over(self.over())));
            };
            let Poll::Ready(filled) = connection.poll_fill(cx) else {
                return waited(self.patience.as_ref());
            };
            came(self.patience.as_ref());
            match filled {
                Ok(1..) => (),
                Ok(0) if self.framing == Framing::Eof => return Poll::Ready(Ok(Step::Over(self.over()))),
                Ok(0) => return Poll::Ready(Err(too_early())),
                Err(error) => return Poll::Ready(Err(Failed::Reset { error, answered: true })),
            }
        }
    }

    /// Whether an event stream is to end here: it is its turn to leave, and no chunk is under way.
    /// The app is asked for nothing more.
    #[inline(never)]
    fn leaves(&mut self, cx: &Context<'_>) -> Result<bool, Failed> {
        let order = self.staying.as_ref().map_or(Order::Stay, |staying| staying.order(cx.waker()));
        let between_chunks = match self.framing {
            Framing::Chunked => matches!(self.chunked, Chunked::Size | Chunked::DataEnd),
            Framing::Eof => true,
            Framing::None | Framing::Length(_) => false,
        };
        let leaves = order != Order::Stay && between_chunks;
        self.keep_alive &= !leaves;
        if order == Order::Cut && !leaves { Err(Failed::Timeout("drain.tunnels")) } else { Ok(leaves) }
    }

    /// How much is left, if that is known.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::None => SizeHint::with_exact(0),
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunked | Framing::Eof => SizeHint::default(),
        }
    }

    /// Whether the app has all of the request and only the client's end of it is still to come. The
    /// answer ends behind that: a stream of HTTP/2 that is answered before its end is reset, and not
    /// every client takes the answer then. Has been polled before.
    fn awaits_end(&self) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::lacks_its_end_alone)
    }

    /// Whether nothing more is to come: the last byte was given, as far as the framing has told by
    /// now, and the request has ended.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        if self.awaits_end() {
            return false;
        }
        match self.framing {
            Framing::None | Framing::Length(0) => true,
            Framing::Chunked => self.chunked == Chunked::Done,
            Framing::Length(_) | Framing::Eof => false,
        }
    }

    /// Ends the body.
    #[inline(always)]
    pub(in crate::proxy) fn over(&mut self) -> Over {
        let unread = self.outgoing.take().is_some_and(|outgoing| !outgoing.is_done());
        // Bytes nobody asked for: what follows cannot be told apart from the next answer.
        let keep = |connection: &Connection| self.keep_alive && !unread && connection.buf.is_empty();
        Over { connection: self.connection.take().filter(keep), unread }
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Result<(), Failed> {
        let (Some(outgoing), Some(connection)) = (&mut self.outgoing, &mut self.connection) else {
            return Ok(());
        };
        match outgoing.poll_send(cx, &mut connection.stream) {
            Poll::Pending => (),
            // Its client never says so, but the request is over.
            Poll::Ready(Err(Stopped::Late)) if outgoing.lacks_its_end_alone() => self.outgoing = None,
            Poll::Ready(Ok(())) => self.outgoing = None,
            // The app does not want the rest. Its answer still counts.
            Poll::Ready(Err(Stopped::App(_))) => self.keep_alive = false,
            Poll::Ready(Err(stopped)) => return Err(stopped.into()),
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<Decoded, Failed> {
        let Some(connection) = &mut self.connection else { return Ok(Decoded::Over) };
        let buf = &mut connection.buf;
        Ok(match &mut self.framing {
            Framing::None | Framing::Length(0) => Decoded::Over,
            Framing::Chunked => match self.chunked.decode(buf).map_err(Failed::Invalid)? {
                Piece::Partial => Decoded::More,
                Piece::Data(data) => Decoded::Frame(Frame::data(data)),
                Piece::Trailers(trailers) => Decoded::Frame(Frame::trailers(trailers)),
                Piece::End => Decoded::Over,
            },
            _ if buf.is_empty() => Decoded::More,
            Framing::Eof => Decoded::Frame(Frame::data(buf.split().freeze())),
            Framing::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= take as u64;
                Decoded::Frame(Frame::data(buf.split_to(take).freeze()))
            }
        })
    }
}

/// The outcome when nothing has come of the answer: pending, unless that has taken too long.
pub(super) fn waited<T>(patience: Option<&Patience>) -> Poll<Result<T, Failed>> {
    match patience.and_then(Patience::answer_is_late) {
        Some(what) => Poll::Ready(Err(Failed::Timeout(what))),
        None => Poll::Pending,
    }
}

/// Notes that a part of the answer has come.
pub(super) fn came(patience: Option<&Patience>) {
    if let Some(patience) = patience {
        patience.answer_came();
    }
}

fn too_early() -> Failed {
    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the app ended the answer too early");
    Failed::Reset { error, answered: true }
}

enum Decoded {
    Frame(Frame<Bytes>),
    Over,
    More,
}

/// Whether a request has a body that is not over yet.
pub(in crate::proxy) fn has_body(body: &hyper::body::Incoming) -> bool {
    !body.is_end_stream()
}

/// Lets a whole exchange be waited for.
pub(in crate::proxy) struct PollHead<'a, 'b>(pub(in crate::proxy) &'b mut Exchange<'a>);

impl Future for PollHead<'_, '_> {
    type Output = Result<Head, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_head(cx)
    }
}
