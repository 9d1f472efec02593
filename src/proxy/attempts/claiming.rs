//! How a request claims a target, and until when it may wait.

use std::pin::Pin;

use super::again::Again;
use super::{Attempts, ForwardedRequest, NoAnswer};
use crate::proxy::clock;
use crate::proxy::fault::Fault;
use crate::proxy::here::NoClaim;
use crate::proxy::upstream::outgoing::Outgoing;
use crate::proxy::upstream::pool::Claim;

/// Until when the waits of one request may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The wait for this connection.
    pub(super) connect_by: u64,
    /// The whole exchange.
    pub(super) whole_by: u64,
}

impl Attempts<'_> {
    /// The times of a request that begins now.
    pub(super) fn times(&self) -> Times {
        let upstream = &self.service.settings.app.upstream;
        let whole_by = upstream.timeout.map_or(clock::NEVER, |time| self.exchange.waits().begin(time));
        self.times_again(Times { connect_by: 0, whole_by })
    }

    /// The same for a further try.
    pub(super) fn times_again(&self, times: Times) -> Times {
        let connect_timeout = self.service.settings.app.upstream.connect_timeout;
        Times { connect_by: clock::after(connect_timeout).min(times.whole_by), ..times }
    }

    /// Claims a target: at once where that is the first time and brings one, else in a box.
    #[inline(always)] // in a future of its own it would be kept twice
    pub(super) fn claim<'c, A: ForwardedRequest>(
        &'c self,
        again: &'c mut Option<Box<Again>>,
        request: &'c A,
        outgoing: &'c mut Outgoing,
        times: &'c mut Times,
    ) -> Result<Claim, Pin<Box<impl Future<Output = Result<Claim, NoAnswer>> + 'c>>> {
        let why_not = match again {
            Some(_) => None,
            None => match self.worker.here.claim(self.service, self.client, *self.wish) {
                Ok(claim) => return Ok(claim),
                Err(why_not) => Some(why_not),
            },
        };
        let again = &mut **again.get_or_insert_default();
        Err(Box::pin(self.claim_at_length(why_not, again, request, outgoing, times)))
    }

    /// Claims a target for a request whose first claim brought nothing, and why, or that is tried
    /// again. It may be held meanwhile.
    async fn claim_at_length<A: ForwardedRequest>(
        &self,
        mut first: Option<NoClaim>,
        again: &mut Again,
        request: &A,
        outgoing: &mut Outgoing,
        times: &mut Times,
    ) -> Result<Claim, NoAnswer> {
        loop {
            let claimed = match first.take() {
                Some(why_not) => Err(why_not),
                None => {
                    let latest = self.worker.here.look_again(self.service);
                    let passes = again.held.pass.is_some();
                    self.worker.here.claim_anew(&latest, self.client, &again.tried, passes, *self.wish)
                }
            };
            match claimed {
                Ok(claim) => return Ok(claim),
                Err(NoClaim::Trial(trial)) => return Ok(again.try_out(*trial)),
                Err(NoClaim::Held) => {
                    self.hold(&mut again.held, request, outgoing).await?;
                    // What the app may take begins now.
                    *times = self.times();
                }
                Err(NoClaim::Maintenance(answer)) => return Err(Fault::Maintenance(answer).into()),
                Err(NoClaim::Near) if clock::now() < times.connect_by => again.wait().await,
                // All have been tried, and each may be tried once more.
                Err(NoClaim::Near | NoClaim::Empty) if again.has_tried() => again.begin_anew().await,
                Err(NoClaim::Near | NoClaim::Empty) => return Err(Fault::NoLiveTarget.into()),
            }
        }
    }
}
