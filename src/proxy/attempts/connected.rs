//! A client's connection that goes to an app as it is: its way to a connection there.
//!
//! Nothing of it is sent before there is one, so each refusal may be followed by another try.

use std::cell::Cell;
use std::net::SocketAddr;

use http::HeaderMap;

use super::again::Again;
use super::{Attempts, ForwardedRequest, Kept, NoAnswer, Opened};
use crate::http1::head::Fields;
use crate::proxy::extras::Extras;
use crate::proxy::fault::Fault;
use crate::proxy::upstream::connection::Connection;
use crate::proxy::upstream::outgoing::Outgoing;
use crate::proxy::upstream::pool::Claim;

/// A connection to an app, and the claim that it was made under.
pub(in crate::proxy) struct Connected {
    pub(in crate::proxy) connection: Connection,
    pub(in crate::proxy) claim: Claim,
}

/// What a request would be: the connection, of which nothing is read meanwhile.
struct Whole<'e> {
    extras: Option<&'e Extras>,
    approach: &'e Approach,
    none: HeaderMap,
}

/// A connection on its way to an app.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Approach {
    /// The bytes that have been read of it.
    pub(in crate::proxy) early: usize,
    /// Whether it has been held.
    pub(in crate::proxy) was_held: Cell<bool>,
}

impl ForwardedRequest for Whole<'_> {
    fn to_head(&self) -> bool {
        false
    }

    fn write_head(&mut self, _out: &mut Vec<u8>, _target: SocketAddr) {}

    fn tried_again(&mut self) {
        if let Some(extras) = self.extras {
            extras.tried_again();
        }
    }

    fn kept(&self) -> Kept {
        self.approach.was_held.set(true);
        Kept { head: self.approach.early, sends_body: false }
    }

    fn fields(&mut self) -> Fields<'_> {
        Fields::Map(&mut self.none)
    }
}

impl Attempts<'_> {
    /// Connects to a target. A refused connection goes on to the next one of a set, or waits for the
    /// one target, as a request does.
    pub(in crate::proxy) async fn connect(
        &self,
        extras: Option<&Extras>,
        approach: &Approach,
    ) -> Result<Connected, NoAnswer> {
        let mut times = self.times();
        let mut again: Option<Box<Again>> = None;
        let mut outgoing = Outgoing::bodyless(Vec::new());
        let mut whole = Whole { extras, approach, none: HeaderMap::new() };
        loop {
            let mut claim = match self.claim(&mut again, &whole, &mut outgoing, &mut times) {
                Ok(claim) => claim,
                Err(claiming) => claiming.await?,
            };
            let unopened = match self.open(&claim, true, times.connect_by).await {
                Opened::Connection(connection) => {
                    self.service.counts().socket_created();
                    // It may stay for long: it is no part of what is let go at a time any more.
                    claim.pass = None;
                    if let Some(trial) = again.and_then(|mut again| again.trial()) {
                        trial.passed();
                    }
                    return Ok(Connected { connection, claim });
                }
                Opened::Full => return Err(Fault::UpstreamFull.into()),
                unopened => unopened,
            };
            let (local, again) = (claim.local.clone(), again.get_or_insert_default());
            drop(claim);
            self.go_on(again, &local, unopened, (times.connect_by, times.whole_by)).await?;
            whole.tried_again();
            if local.is_member() {
                times = self.times_again(times);
            }
        }
    }
}
