//! One request's way to the head of an answer of an app that speaks HTTP/2.
//!
//! The rules are those of HTTP/1.1 but for one more: a request that the app has certainly not
//! looked at is sent again, whatever its method, because there was no first time.

use std::rc::Rc;

use bytes::Bytes;

use super::again::Again;
use super::{Attempts, ForwardedRequest, NoAnswer, Opened, Sent, no_answer};
use crate::http1::head::Head;
use crate::proxy::fault::Fault;
use crate::proxy::upstream::exchange::Failed;
use crate::proxy::upstream::h2c::exchange::{Exchange, Rest};
use crate::proxy::upstream::h2c::links::{Place, Unopened};
use crate::proxy::upstream::h2c::request_of;
use crate::proxy::upstream::outgoing::Outgoing;
use crate::proxy::upstream::pool::{Claim, LocalTarget};

/// An answer's head, with what its body comes from and the claim that it was sent under.
pub(in crate::proxy) struct Streamed {
    pub(in crate::proxy) head: Head,
    pub(in crate::proxy) rest: Rest,
    pub(in crate::proxy) claim: Claim,
}

/// The outcome of an attempt to get a place on a connection.
enum Placed {
    Place(Place),
    NotHttp2,
    Unopened(Opened),
}

/// Why an exchange gave no head.
struct Lost {
    failed: Failed,
    /// The app has certainly not looked at the request, and all of it is there again.
    is_unprocessed: bool,
    /// It was on a connection that had carried another one.
    is_kept: bool,
}

impl Attempts<'_> {
    /// As [`Attempts::exchange`], over a stream.
    pub(in crate::proxy) async fn exchange_streamed<A: ForwardedRequest>(
        &self,
        request: &mut A,
        outgoing: &mut Outgoing,
        replayable: bool,
    ) -> Result<Streamed, NoAnswer> {
        let upstream = &self.service.settings.app.upstream;
        // The last in a box: a request's future has room for all that it may need, and this is rare.
        let (mut times, mut again) = (self.times(), None::<Box<Again>>);
        let (mut head, mut retried) = (Bytes::new(), false);
        loop {
            let mut claim = match self.claim(&mut again, request, outgoing, &mut times) {
                Ok(claim) => claim,
                Err(claiming) => claiming.await?,
            };
            let fresh = retried || !upstream.keepalive;
            let at_hand = match fresh {
                true => None,
                false => claim.local.links().at_hand(|| claim.local.try_right(upstream)),
            };
            let placed = match at_hand {
                Some(place) => Placed::Place(place),
                // In a box, because it is rare and large.
                None => Box::pin(self.place(&claim, fresh, times.connect_by)).await,
            };
            let place = match placed {
                Placed::Place(place) => place,
                Placed::NotHttp2 => {
                    let fault = Fault::Invalid("it does not speak HTTP/2 (upstream.protocol)");
                    return Err(NoAnswer::from(fault).at(&claim.local));
                }
                Placed::Unopened(Opened::Full) => return Err(Fault::UpstreamFull.into()),
                Placed::Unopened(unopened) => {
                    let (local, again) = (claim.local.clone(), again.get_or_insert_default());
                    drop(claim);
                    Box::pin(self.go_on(again, &local, unopened, (times.connect_by, times.whole_by))).await?;
                    request.tried_again();
                    if local.is_member() {
                        times = self.times_again(times);
                    }
                    continue;
                }
            };
            if place.is_new {
                self.service.counts().socket_created();
            }
            if head.is_empty() {
                request.write_head(outgoing.head(), claim.local.target.addr());
                head = Bytes::copy_from_slice(outgoing.head());
                outgoing.head().clear();
            }
            let lost = match self.converse_streamed(request, outgoing, &head, place).await? {
                Ok((head, rest)) => {
                    if let Some(again) = &mut again {
                        claim.pass = again.held.pass.take();
                    }
                    if claim.local.is_member() {
                        self.heed(request, &head, &claim.local, again);
                    }
                    return Ok(Streamed { head, rest, claim });
                }
                Err(lost) => lost,
            };
            let again = again.get_or_insert_default();
            if lost.is_unprocessed {
                Box::pin(self.again_elsewhere(again, claim, lost.failed)).await?;
            } else {
                // A part of the body may have been sent, and it is not known what became of it.
                let sent = Sent { kept: lost.is_kept, untouched: false, replayable };
                let by = (&claim.local, times.whole_by);
                let may = !retried && Box::pin(self.may_go_again(&lost.failed, sent, again, by)).await;
                again.opened = None;
                if !may {
                    return Err(no_answer(lost.failed).at(&claim.local));
                }
                retried = true;
            }
            request.tried_again();
            times = self.times_again(times);
        }
    }

    /// Waits for the right to a stream, and then for a place on a connection.
    async fn place(&self, claim: &Claim, fresh: bool, connect_by: u64) -> Placed {
        let (exchange, upstream) = (self.exchange, &self.service.settings.app.upstream);
        let local = &claim.local;
        let permit = match local.try_right(upstream) {
            Some(permit) => Some(permit),
            None => exchange.until(connect_by, local.right(upstream)).await,
        };
        let Some(permit) = permit else { return Placed::Unopened(Opened::Full) };
        let place = local.links().place(local.target.addr(), permit, fresh, (upstream, self.whose()));
        match exchange.until(connect_by, place).await {
            Some(Ok(place)) => Placed::Place(place),
            Some(Err(Unopened::Io(error))) => Placed::Unopened(Opened::Refused(error)),
            Some(Err(Unopened::NotHttp2(error))) => {
                tracing::debug!(addr = %local.target.addr(), "the app does not speak HTTP/2: {error}");
                Placed::NotHttp2
            }
            None => Placed::Unopened(Opened::Late),
        }
    }

    /// Sends over one stream and waits for the head.
    async fn converse_streamed<A: ForwardedRequest>(
        &self,
        request: &A,
        outgoing: &mut Outgoing,
        head: &Bytes,
        place: Place,
    ) -> Result<Result<(Head, Rest), Lost>, NoAnswer> {
        // Its target is none that HTTP/2 can carry.
        let message = request_of(head).ok_or(NoAnswer::Client { gone: false })?;
        let (to_head, most_fields) = (request.to_head(), self.service.settings.config.limits.headers);
        let is_kept = place.is_kept;
        let mut exchange = match Exchange::begin(place, message, outgoing, to_head, most_fields) {
            Ok(exchange) => exchange,
            // Nothing was sent, and nothing taken.
            Err(error) => {
                let failed = Failed::Reset { error, answered: false };
                return Ok(Err(Lost { failed, is_unprocessed: true, is_kept }));
            }
        };
        let outcome = self.converse_in_time(&mut exchange).await;
        self.exchange.set_deadline(crate::proxy::clock::NEVER);
        Ok(match outcome {
            Ok((head, body)) => Ok((head, exchange.into_rest(body))),
            Err(failed) => {
                let is_unprocessed = exchange.take_back();
                Err(Lost { failed, is_unprocessed, is_kept })
            }
        })
    }

    /// After a stream that the app did not take: the request goes on to the next member of the set,
    /// or to the one target again.
    async fn again_elsewhere(&self, again: &mut Again, claim: Claim, failed: Failed) -> Result<(), NoAnswer> {
        let local: Rc<LocalTarget> = claim.local.clone();
        drop(claim);
        let most = self.service.settings.app.upstream.retries;
        let Failed::Reset { error, .. } = failed else { return Err(no_answer(failed).at(&local)) };
        let is_second = again.has_counted();
        if again.count(Some(error), most).is_err() {
            return Err(NoAnswer::from(again.in_the_end()).at(&local));
        }
        if local.is_member() {
            // What it has refused says nothing of what it is worth.
            drop(again.leave(&local));
        } else if is_second {
            again.wait().await;
        }
        Ok(())
    }
}
