//! One exchange over a stream: the request goes out while the answer comes in.
//!
//! State: the place on a connection, the stream's two halves and what is left of the request, owned
//! by whoever waits for the head, and then by the body of the answer. Dropped before its end, the
//! stream is reset (CANCEL).
//!
//! What was sent of a body is remembered up to [`REMEMBERED`] bytes until the head has come: a
//! request that the app certainly has not looked at (REFUSED_STREAM, or a GOAWAY that leaves it out)
//! can then be sent again, whatever its method.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Request;

use super::links::Place;
use super::message;
use crate::http1::head::{Head, Invalid, MAX_INTERIM};
use crate::proxy::upstream::exchange::{Conversation, Failed};
use crate::proxy::upstream::outgoing::{Outgoing, Part, Stopped};

/// How much of a body is remembered, in bytes.
const REMEMBERED: usize = 64 * 1024;

/// A request on its way over a stream.
pub(in crate::proxy) struct Exchange<'a> {
    outgoing: &'a mut Outgoing,
    sending: Sending,
    answer: ResponseFuture,
    to_head: bool,
    most_fields: usize,
    interim: u32,
    /// The app has certainly done nothing with the request.
    is_unprocessed: bool,
    // Dropped last: the stream is over then.
    place: Place,
}

/// What is left when a head has come.
pub(in crate::proxy) struct Rest {
    pub(super) place: Place,
    pub(super) sending: Sending,
    pub(super) body: RecvStream,
}

impl<'a> Exchange<'a> {
    /// Begins the stream of a request, whose head is `request`, in `place`. Fails where the
    /// connection takes none any more; nothing is sent then.
    pub(in crate::proxy) fn begin(
        place: Place,
        request: Request<()>,
        outgoing: &'a mut Outgoing,
        to_head: bool,
        most_fields: usize,
    ) -> Result<Self, io::Error> {
        let end = outgoing.is_at_end();
        let (answer, stream) = place.begin(request, end).map_err(io::Error::other)?;
        let sending = Sending::new((!end).then_some(stream));
        let (interim, is_unprocessed) = (0, false);
        Ok(Self { outgoing, sending, answer, to_head, most_fields, interim, is_unprocessed, place })
    }

    /// Ends one that has failed. Whether the app has certainly done nothing with the request, and
    /// all of it that was taken from the client is there again.
    pub(in crate::proxy) fn take_back(mut self) -> bool {
        self.is_unprocessed && self.sending.put_back(self.outgoing)
    }

    /// What is left behind a head whose body is `body`.
    pub(in crate::proxy) fn into_rest(mut self, body: RecvStream) -> Rest {
        self.sending.forget();
        Rest { place: self.place, sending: self.sending, body }
    }

    fn failed(&mut self, error: h2::Error) -> Failed {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        self.is_unprocessed = error.is_remote() && (refused || error.is_go_away());
        failed(error, self.interim > 0)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Head, RecvStream), Failed>> {
        // An error is found again by the answer itself.
        while let Poll::Ready(Some(Ok(_))) = self.answer.poll_informational(cx) {
            if self.interim >= MAX_INTERIM {
                return Poll::Ready(Err(Failed::Invalid(Invalid("too many interim answers"))));
            }
            self.interim += 1;
        }
        let (parts, body) = match ready!(Pin::new(&mut self.answer).poll(cx)) {
            Ok(answer) => answer.into_parts(),
            Err(error) => return Poll::Ready(Err(self.failed(error))),
        };
        let head = message::head(parts, self.to_head, body.is_end_stream(), self.most_fields);
        Poll::Ready(head.map(|head| (head, body)).map_err(Failed::Invalid))
    }
}

impl Conversation for Exchange<'_> {
    type Answer = (Head, RecvStream);

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Answer, Failed>> {
        // What the app does not take is learned with its answer.
        if let Poll::Ready(Err(stopped)) = self.sending.poll(cx, self.outgoing)
            && !matches!(stopped, Stopped::App(_))
        {
            return Poll::Ready(Err(stopped.into()));
        }
        self.poll_answer(cx)
    }

    fn written(&self) -> u64 {
        self.sending.moved
    }

    fn progress(&self) -> usize {
        self.interim as usize
    }
}

/// The request's body on its way out.
pub(super) struct Sending {
    /// `None`: all is sent, or the app takes no more.
    stream: Option<SendStream<Bytes>>,
    /// Taken from the client and not yet sent.
    pending: Bytes,
    taken: Taken,
    /// Grows with every part that is sent.
    moved: u64,
}

impl Sending {
    /// `None`: the request is its head alone.
    fn new(stream: Option<SendStream<Bytes>>) -> Self {
        let taken = Taken { parts: Some(Vec::new()), bytes: 0 };
        Self { stream, pending: Bytes::new(), taken, moved: 1 }
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_over(&self) -> bool {
        self.stream.is_none()
    }

    /// Sends until everything is sent (ready), or the app takes no more for now or the client has
    /// no more (pending).
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, from: &mut Outgoing) -> Poll<Result<(), Stopped>> {
        loop {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
            while !self.pending.is_empty() {
                stream.reserve_capacity(self.pending.len());
                let room = stream.capacity().min(self.pending.len());
                if room == 0 {
                    match ready!(stream.poll_capacity(cx)) {
                        Some(Ok(_)) => continue,
                        gone => return Poll::Ready(Err(self.gave_up(gone.and_then(Result::err)))),
                    }
                }
                let part = self.pending.split_to(room);
                let is_last = self.pending.is_empty() && from.is_at_end();
                self.moved += 1;
                if let Err(error) = stream.send_data(part, is_last) {
                    return Poll::Ready(Err(self.gave_up(Some(error))));
                }
                if is_last {
                    self.stream = None;
                    return Poll::Ready(Ok(()));
                }
            }
            let part = ready!(from.poll_part(cx))?;
            self.taken.note(&part);
            let sent = match part {
                Part::Data(data) => {
                    self.pending = data;
                    continue;
                }
                Part::Trailers(trailers) => stream.send_trailers(trailers),
                Part::End => stream.send_data(Bytes::new(), true),
            };
            self.moved += 1;
            if let Err(error) = sent {
                return Poll::Ready(Err(self.gave_up(Some(error))));
            }
            self.stream = None;
        }
    }

    /// What was sent is not needed any more.
    fn forget(&mut self) {
        self.taken.parts = None;
    }

    /// Gives back to `from` what was taken of it. False: it is not there any more.
    fn put_back(&mut self, from: &mut Outgoing) -> bool {
        let Some(taken) = self.taken.parts.take() else { return false };
        from.put_back(taken);
        true
    }

    /// The app takes no more of it.
    fn gave_up(&mut self, error: Option<h2::Error>) -> Stopped {
        self.stream = None;
        self.pending = Bytes::new();
        Stopped::App(error.map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::other))
    }
}

/// What was taken from the client so far.
struct Taken {
    /// `None`: it is not remembered.
    parts: Option<Vec<Part>>,
    bytes: usize,
}

impl Taken {
    fn note(&mut self, part: &Part) {
        if let Part::Data(data) = part {
            self.bytes += data.len();
        }
        if self.bytes > REMEMBERED {
            self.parts = None;
        }
        if let Some(parts) = &mut self.parts {
            parts.push(part.clone());
        }
    }
}

/// Why a stream gives no answer, or no more of it. `answered`: a part of the answer had come.
pub(super) fn failed(error: h2::Error, answered: bool) -> Failed {
    if error.is_library() {
        return Failed::Invalid(Invalid("it breaks the rules of HTTP/2"));
    }
    let what = format!("the app ended the stream: {error}");
    let error = match error.into_io() {
        Some(error) => error,
        None => io::Error::new(io::ErrorKind::ConnectionReset, what),
    };
    Failed::Reset { error, answered }
}
