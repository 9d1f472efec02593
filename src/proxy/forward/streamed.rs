//! The answer of an app that speaks HTTP/2, on its way to the client.

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::{Forward, respond, stay, whole};
use crate::proxy::answer::{Body, UnderWay};
use crate::proxy::attempts::Streamed;
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
        if let Some(staying) = stay(self.worker, &self.turn, &head, &mut claim, path) {
            incoming.stay(staying);
        }
        let under_way = UnderWay { claim: Some(claim), ticket: self.ticket };
        respond(head, Body::streamed(incoming, self.turn).hold(under_way))
    }
}
