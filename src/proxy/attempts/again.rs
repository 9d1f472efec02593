//! What a request that its first claim brought no answer keeps for the next one: the members of a
//! set that it has tried, how long it pauses, how it waited for the app, why it was refused last.
//!
//! Owned by the request. Most requests have none.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::balance::Trial;
use crate::proxy::board::Now;
use crate::proxy::clock;
use crate::proxy::fault::Fault;
use crate::proxy::hold::{Pass, Place};
use crate::proxy::upstream::connection::Connection;
use crate::proxy::upstream::pool::{self, Claim, LocalTarget};

/// How long a refused connection is left alone before it is tried again: at first, and at the most.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// See the module.
pub(super) struct Again {
    /// The members that it has tried in vain.
    pub(super) tried: Vec<Rc<LocalTarget>>,
    /// How often it went on to another member.
    retries: u32,
    /// It tries a member that was out.
    trial: Option<Trial>,
    /// How long the app is left alone before the next try.
    pause: Duration,
    last: Option<io::Error>,
    /// A connection that was opened to see whether this target lives.
    pub(super) opened: Option<(Rc<LocalTarget>, Connection)>,
    /// Where requests went when a member refused it first, if the end of a member is learned of.
    refused_of: Option<Arc<Now>>,
    /// Until when it waits for what becomes of members that refuse it.
    news_by: Option<u64>,
    /// How it waited for the app, if it did.
    pub(super) held: Waited,
}

/// How a request waited for an app that took none.
#[derive(Default)]
pub(super) struct Waited {
    /// It was let go.
    pub(super) pass: Option<Pass>,
    /// Where it stood.
    pub(super) place: Option<Place>,
    /// Until when it may wait in all.
    pub(super) until: Option<u64>,
}

impl Default for Again {
    fn default() -> Self {
        Self {
            tried: Vec::new(),
            retries: 0,
            trial: None,
            pause: REFUSED_PAUSE.0,
            last: None,
            opened: None,
            refused_of: None,
            news_by: None,
            held: Waited::default(),
        }
    }
}

impl Again {
    /// Goes to a member that was out.
    pub(super) fn try_out(&mut self, (claim, trial): (Claim, Trial)) -> Claim {
        self.trial = Some(trial);
        claim
    }

    /// The trial that the request is.
    pub(super) fn trial(&mut self) -> Option<Trial> {
        self.trial.take()
    }

    /// It leaves the member without a verdict.
    pub(super) fn leave_trial(&mut self) {
        self.trial = None;
    }

    /// Leaves `local` for the others; with the trial that it was.
    pub(super) fn leave(&mut self, local: &Rc<LocalTarget>) -> Option<Trial> {
        self.tried.push(local.clone());
        self.trial.take()
    }

    /// A connection to `local` that is there already; a `fresh` one has carried nothing yet.
    #[cold]
    pub(super) fn at_hand(&mut self, local: &Rc<LocalTarget>, fresh: bool) -> Option<Connection> {
        match self.opened.take() {
            Some((at, connection)) if Rc::ptr_eq(&at, local) => Some(connection),
            _ => local.try_kept(fresh),
        }
    }

    /// Whether it has tried members in vain.
    pub(super) fn has_tried(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Whether it has counted a try.
    pub(super) fn has_counted(&self) -> bool {
        self.retries > 0
    }

    /// Counts another try of which nothing was sent, because of `error` or lateness. Fails when
    /// there were `most`.
    pub(super) fn count(&mut self, error: Option<io::Error>, most: u32) -> Result<(), ()> {
        self.last = error;
        let more = self.retries < most;
        self.retries += 1;
        if more { Ok(()) } else { Err(()) }
    }

    /// A member of what `now` says has refused it.
    pub(super) fn refused_of(&mut self, now: &Arc<Now>) {
        let is_watched = match &**now {
            Now::Spread(spread) => spread.is_watched(),
            // It is known already that there is no set any more.
            _ => true,
        };
        if is_watched && self.refused_of.is_none() {
            self.refused_of = Some(Arc::clone(now));
        }
    }

    /// It has been refused too often: waits until requests go elsewhere than where it was refused
    /// first, as `latest` says, and begins anew there. False where that is not to be expected, or
    /// takes longer than `time`.
    pub(super) async fn news(&mut self, time: Duration, latest: impl Fn() -> Arc<Now>) -> bool {
        let Some(before) = self.refused_of.take() else { return false };
        let by = *self.news_by.get_or_insert_with(|| clock::after(time));
        while Arc::ptr_eq(&before, &latest()) {
            if clock::now() >= by {
                return false;
            }
            self.wait().await;
        }
        self.tried.clear();
        self.retries = 0;
        true
    }

    /// Begins with the first member again, after a moment.
    pub(super) async fn begin_anew(&mut self) {
        self.tried.clear();
        self.wait().await;
    }

    /// Waits a moment before another try. Fails when time is up, or when another try would end the
    /// same way.
    pub(super) async fn pause(&mut self, error: io::Error, until: u64) -> Result<(), Fault> {
        if clock::now() >= until || !pool::is_transient(&error) {
            return Err(Fault::of_connect(error));
        }
        self.wait().await;
        self.last = Some(error);
        Ok(())
    }

    /// Waits a moment, and the next time a longer one.
    pub(super) async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(REFUSED_PAUSE.1);
    }

    /// Why no connection came about in time: it was refused each time, or not answered.
    pub(super) fn in_the_end(&mut self) -> Fault {
        self.last.take().map_or(Fault::Timeout("upstream.connect_timeout"), Fault::of_connect)
    }
}
