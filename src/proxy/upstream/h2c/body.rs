//! The body of an answer while it comes in over a stream, and the rest of the request while it goes
//! out.
//!
//! What is given on is given back to the app's window at once; what nobody takes stays in the
//! window, which is small. Once the answer is complete, nothing more of the request is taken.
//! Dropped before its end, the stream is reset (CANCEL).

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Frame, SizeHint};

use super::exchange::{Rest, Sending, failed};
use super::links::Place;
use crate::http1::fields::is_forbidden_trailer;
use crate::http1::head::Framing;
use crate::proxy::parting::Order;
use crate::proxy::stayers::Staying;
use crate::proxy::upstream::exchange::{Failed, Over, Step, came, waited};
use crate::proxy::upstream::outgoing::{Outgoing, Stopped};
use crate::proxy::waits::Patience;

/// See the module.
pub(in crate::proxy) struct Incoming {
    /// `None` once the body is over or broken. In this order: the place is free once the stream is
    /// over.
    stream: Option<(RecvStream, Sending, Place)>,
    outgoing: Outgoing,
    /// How much is still to come, if that was told.
    left: Option<u64>,
    /// All of its data has come.
    only_trailers: bool,
    /// How long the app may be silent. `None`: without limit.
    patience: Option<Patience>,
    /// Of an event stream: whether it is to end.
    staying: Option<Box<Staying>>,
}

impl Incoming {
    /// The body behind a head; `outgoing` is what is left of the request.
    pub(in crate::proxy) fn new(rest: Rest, outgoing: Outgoing, framing: Framing) -> Self {
        let Rest { place, sending, body } = rest;
        let left = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Eof => None,
        };
        let stream = Some((body, sending, place));
        Self { stream, outgoing, left, only_trailers: false, patience: None, staying: None }
    }

    /// It is an event stream: it stays until it ends or `staying` says so.
    pub(in crate::proxy) fn stay(&mut self, staying: Box<Staying>) {
        self.staying = Some(staying);
    }

    /// Waits no longer than `patience` for the app, from now on.
    pub(in crate::proxy) fn wait_with(&mut self, patience: Patience) {
        self.patience = Some(patience);
    }

    /// The next part of the body.
    pub(in crate::proxy) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Failed>> {
        let order = self.staying.as_ref().map_or(Order::Stay, |staying| staying.order(cx.waker()));
        let Some((body, sending, _)) = &mut self.stream else { return Poll::Ready(Ok(self.end())) };
        // Between two parts of an event stream is a good place to leave.
        if order != Order::Stay {
            return Poll::Ready(Ok(self.end()));
        }
        match sending.poll(cx, &mut self.outgoing) {
            // The app does not want the rest. Its answer still counts.
            Poll::Pending | Poll::Ready(Ok(()) | Err(Stopped::App(_))) => {}
            Poll::Ready(Err(stopped)) => return Poll::Ready(Err(stopped.into())),
        }
        let is_complete = self.left == Some(0);
        let step = match next(cx, body, &mut self.only_trailers) {
            Poll::Ready(step) => step,
            Poll::Pending => return waited(self.patience.as_ref()),
        };
        came(self.patience.as_ref());
        match step {
            Ok(Some(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let length = data.len();
                    self.left = self.left.map(|left| left.saturating_sub(length as u64));
                    self.staying.iter().for_each(|staying| staying.moved(length));
                }
                Poll::Ready(Ok(Step::Frame(frame)))
            }
            Ok(None) => Poll::Ready(Ok(self.end())),
            // RFC 9113, 8.1: its answer is whole, and the rest of the request is not wanted.
            Err(error)
                if is_complete
                    || self.left.is_none()
                        && error.is_remote()
                        && error.reason() == Some(Reason::NO_ERROR) =>
            {
                Poll::Ready(Ok(self.end()))
            }
            Err(error) => Poll::Ready(Err(failed(error, true))),
        }
    }

    /// How much is left, if that is known.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// Whether the last byte was given, and no trailers follow.
    pub(in crate::proxy) fn is_over(&self) -> bool {
        self.stream.as_ref().is_none_or(|(body, ..)| body.is_end_stream())
    }

    /// Ends the body.
    pub(in crate::proxy) fn over(&mut self) -> Over {
        let unread = self.stream.take().is_some_and(|(_, sending, _)| !sending.is_over())
            && self.outgoing.has_body_left();
        Over { connection: None, unread }
    }

    fn end(&mut self) -> Step {
        Step::Over(self.over())
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The next frame of `body`; `None`: its end.
fn next(
    cx: &mut Context<'_>,
    body: &mut RecvStream,
    only_trailers: &mut bool,
) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
    if !*only_trailers {
        match ready!(body.poll_data(cx)) {
            Some(Ok(data)) => {
                body.flow_control().release_capacity(data.len())?;
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => *only_trailers = true,
        }
    }
    let Some(mut trailers) = ready!(body.poll_trailers(cx))? else { return Poll::Ready(Ok(None)) };
    while let Some(name) = trailers.keys().find(|name| is_forbidden_trailer(name)).cloned() {
        trailers.remove(name);
    }
    Poll::Ready(Ok(Some(Frame::trailers(trailers))))
}
