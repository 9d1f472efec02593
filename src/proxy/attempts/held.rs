//! How a request waits for an app that takes none for now.
//!
//! Nothing wakes it but what it waits for, the end of its time, or its client: a client that goes
//! away ends the request's future, and with it the wait. Of the client's body only the first parts
//! are read, because its end may be all that tells that the client has gone.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::again::Waited;
use super::{Attempts, ForwardedRequest, Kept, NoAnswer};
use crate::proxy::clock;
use crate::proxy::fault::Fault;
use crate::proxy::upstream::exchange::Failed;
use crate::proxy::upstream::outgoing::Outgoing;

/// How much longer than its time a request waits, so that a pause of that length, which begins
/// before the request comes and is ended by another clock, ends before it.
const GRACE: Duration = Duration::from_millis(500);

impl Attempts<'_> {
    /// Waits until the request is let go, or need not wait any more.
    pub(super) async fn hold<A: ForwardedRequest>(
        &self,
        held: &mut Waited,
        request: &A,
        outgoing: &mut Outgoing,
    ) -> Result<(), NoAnswer> {
        let (here, exchange, service) = (&self.worker.here, self.exchange, self.service.service());
        let hold = &self.service.settings.app.hold;
        held.pass = None;
        let until = *held.until.get_or_insert_with(|| clock::after(hold.max_time.saturating_add(GRACE)));
        let Kept { head, sends_body } = request.kept();
        let bytes = head + outgoing.kept();
        let mut room = here.room(bytes as u64).ok_or(Fault::HoldFull)?;
        let queue = here.queue(service);
        let waiter = queue.join(held.place, hold.max_requests).ok_or(Fault::HoldFull)?;
        held.place = Some(waiter.place());
        exchange.rest();
        exchange.set_deadline(until);
        here.let_go(service, &queue);
        let went = poll_fn(|cx| {
            if let Poll::Ready(pass) = waiter.poll(cx) {
                return Poll::Ready(Ok(pass));
            }
            if exchange.is_overdue() {
                return Poll::Ready(Err(Fault::HeldTooLong.into()));
            }
            if !sends_body {
                return Poll::Pending;
            }
            match outgoing.read_ahead(cx) {
                Ok(read) if room.grow(read as u64) => Poll::Pending,
                Ok(_) => Poll::Ready(Err(Fault::HoldFull.into())),
                Err(stopped) => Poll::Ready(Err(super::no_answer(Failed::from(stopped)))),
            }
        })
        .await;
        exchange.set_deadline(clock::NEVER);
        held.pass = went?;
        Ok(())
    }
}
