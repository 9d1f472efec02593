//! The answer of an app that speaks HTTP/2, on its way to the client.

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::{Forward, respond, whole};
use crate::proxy::answer::{self, Body, UnderWay};
use crate::proxy::attempts::Streamed;
use crate::proxy::stayer::StayerKind;
use crate::proxy::upstream::h2c::body::Incoming;
use crate::proxy::upstream::outgoing::Outgoing;

impl Forward<'_> {
    /// Passes the answer on. `path`: what was asked for.
    pub(super) fn answer_streamed(
        mut self,
        streamed: Streamed,
        outgoing: Outgoing,
        path: &[u8],
    ) -> Response<Body> {
        let Streamed { mut head, rest, mut claim } = streamed;
        self.tell(&mut head, &claim);
        self.ticket.leave_tunnels();
        self.ticket.answered(head.status.as_u16(), Some(&claim.local.target));
        if let Some(extras) = self.ticket.extras() {
            extras.passed(outgoing.taken(self.service.settings.config.proxy.max_body), 0);
        }
        let mut incoming = Incoming::new(rest, outgoing, head.framing);
        if incoming.is_over() {
            let close = incoming.over().unread;
            if close {
                self.turn.linger();
            }
            let under_way = UnderWay { claim: Some(claim), ticket: self.ticket };
            let body = whole(&head, Bytes::new(), self.turn).hold(under_way);
            let mut response = respond(head, body);
            if close {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return response;
        }
        if let Some(patience) = self.turn.exchange().patience(&self.service.settings) {
            incoming.wait_with(patience);
        }
        let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if answer::is_event_stream(content_type) {
            self.turn.limit_sending(0);
            // It may last for ever: the next one that waits need not wait for it.
            claim.pass = None;
            let kind = StayerKind::EventStream;
            let staying = self.turn.client().stay(&self.worker.stayers, &claim, kind, path);
            incoming.stay(Box::new(staying));
        }
        let under_way = UnderWay { claim: Some(claim), ticket: self.ticket };
        respond(head, Body::streamed(incoming, self.turn).hold(under_way))
    }
}
