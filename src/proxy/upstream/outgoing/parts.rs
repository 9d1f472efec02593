//! A request's body part by part, for a side that frames it otherwise than HTTP/1.1 does.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::{Ahead, Outgoing, Stopped};

/// A part of a request's body.
#[derive(Debug, Clone)]
pub(in crate::proxy) enum Part {
    Data(Bytes),
    /// The last part.
    Trailers(HeaderMap),
    End,
}

impl Outgoing {
    /// The next part of the body.
    pub(in crate::proxy) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Stopped>> {
        loop {
            let Some(frame) = ready!(self.poll_frame(cx))? else {
                self.body = None;
                return Poll::Ready(Ok(Part::End));
            };
            let frame = match frame.into_data() {
                Ok(data) => {
                    let allowed = self.allowed.checked_sub(data.len() as u64);
                    self.allowed = allowed.ok_or(Stopped::TooLarge)?;
                    if self.is_at_end() {
                        self.body = None;
                    }
                    return Poll::Ready(Ok(Part::Data(data)));
                }
                Err(frame) => frame,
            };
            // A frame of another kind says nothing that is known.
            if let Ok(mut trailers) = frame.into_trailers() {
                self.body = None;
                let forbidden = |name: &&http::HeaderName| crate::http1::fields::is_forbidden_trailer(name);
                let forbidden: Vec<_> = trailers.keys().filter(forbidden).cloned().collect();
                for name in forbidden {
                    trailers.remove(name);
                }
                return Poll::Ready(Ok(Part::Trailers(trailers)));
            }
        }
    }

    /// Whether no part but the end is left, as far as that is known.
    pub(in crate::proxy) fn is_at_end(&self) -> bool {
        self.ahead.as_ref().is_none_or(|ahead| ahead.0.is_empty())
            && self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    /// Whether all of a body whose length is told has come and gone, but not its end: a client of
    /// HTTP/2 may tell that by itself, a moment later.
    pub(in crate::proxy) fn lacks_its_end_alone(&self) -> bool {
        let is_all_here = |body: &Incoming| body.size_hint().exact() == Some(0);
        !self.chunked && !self.pieces.is_pending() && self.body.as_ref().is_some_and(is_all_here)
    }

    /// Takes back parts that [`Self::poll_part`] has given, all of them.
    pub(in crate::proxy) fn put_back(&mut self, parts: Vec<Part>) {
        let rest = self.ahead.take().map(|ahead| ahead.0).unwrap_or_default();
        let mut ahead = VecDeque::with_capacity(parts.len() + rest.len());
        for part in parts {
            match part {
                Part::Data(data) => {
                    self.allowed += data.len() as u64;
                    ahead.push_back(Some(Frame::data(data)));
                }
                Part::Trailers(trailers) => ahead.push_back(Some(Frame::trailers(trailers))),
                // Where nothing follows, it is the end.
                Part::End => {}
            }
        }
        ahead.extend(rest);
        self.ahead = Some(Box::new(Ahead(ahead)));
    }
}
