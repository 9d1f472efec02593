//! The probes of all targets that lists in Redis name (`redis.probe`).
//!
//! There may be very many targets, so one task probes all of them, and not all at a time: at most
//! [`AT_A_TIME`] probes are under way, each begun [`PACE`] after the one before it. With more
//! addresses than that allows, a round takes longer than `health.interval`.
//!
//! State: the [`Book`], which the task and the handles share behind a lock that is held for moments.
//! The task ends when [`Probes`] is dropped; the connections of its probes end with it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::book::{Book, after};
use super::targets::{may_be_out, probe_of};
use crate::config::{AppConfig, Hosts};
use crate::health::Unable;
use crate::wire::ProbeReport;

mod book;

/// How many probes are under way at a time. Each has a socket.
const AT_A_TIME: usize = 256;

/// Between the beginnings of two probes. They are work for the thread that serves the admin API.
const PACE: Duration = Duration::from_millis(1);

/// The probes, for whoever has the lists.
#[derive(Debug)]
pub(super) struct Probes {
    seen: Probed,
    _task: AbortOnDropHandle<()>,
}

/// What the probes say. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Probed(Arc<Shared>);

/// What they say of the targets of one list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The places of those that are out, in order.
    pub(super) out: Box<[usize]>,
    /// More of them fail than may be out, so all serve.
    pub(super) is_unhealthy: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something may be due earlier than the task knows.
    due: Notify,
    /// An address has begun or ceased to fail.
    turned: Notify,
}

#[derive(Debug)]
struct State {
    book: Book,
    config: Arc<AppConfig>,
}

impl Probes {
    /// Begins with no address; `config` says how they are probed.
    pub(super) fn start(config: Arc<AppConfig>) -> Self {
        let state = Mutex::new(State { book: Book::default(), config });
        let shared = Arc::new(Shared { state, due: Notify::new(), turned: Notify::new() });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { seen: Probed(shared), _task: AbortOnDropHandle::new(task) }
    }

    /// What they say.
    pub(super) fn seen(&self) -> &Probed {
        &self.seen
    }

    /// They are made by another configuration from now on.
    pub(super) fn configure(&self, config: Arc<AppConfig>) {
        self.seen.0.state().config = config;
    }

    /// These hosts have `new` targets in the place of `former` ones.
    pub(super) fn replace(&self, hosts: &Hosts, former: &[SocketAddr], new: &[SocketAddr]) {
        let now = Instant::now().into_std();
        let mut state = self.seen.0.state();
        new.iter().for_each(|addr| state.book.add(hosts, *addr, now));
        for addr in former.iter().filter(|addr| !new.contains(addr)) {
            state.book.remove(hosts, *addr);
        }
        drop(state);
        self.seen.0.due.notify_one();
    }

    /// Waits until [`Probes::take_turned`] has any. Cancel safe.
    pub(super) async fn turned(&self) {
        while !self.seen.0.state().book.has_turned() {
            self.seen.0.turned.notified().await;
        }
    }

    /// The hosts of which an address has begun or ceased to fail since this was asked last.
    pub(super) fn take_turned(&self) -> HashSet<Hosts> {
        self.seen.0.state().book.turned()
    }
}

impl Probed {
    /// What the probes say of these targets. At most half of them are out.
    pub(super) fn verdict(&self, targets: &[SocketAddr]) -> Verdict {
        let state = self.0.state();
        let failures = state.config.probes_to_fail();
        let fails = |(_, addr): &(usize, &SocketAddr)| state.book.bad(**addr) >= failures;
        let failing: Box<[_]> = targets.iter().enumerate().filter(fails).map(|(place, _)| place).collect();
        if may_be_out(failing.len(), targets.len()) {
            Verdict { out: failing, is_unhealthy: false }
        } else {
            Verdict { out: Box::default(), is_unhealthy: true }
        }
    }

    /// Why the last probe of this address was bad.
    pub(super) fn error(&self, addr: SocketAddr) -> Option<String> {
        self.0.state().book.error(addr).map(str::to_owned)
    }

    /// How they are made.
    pub(super) fn config(&self) -> Arc<AppConfig> {
        Arc::clone(&self.0.state().config)
    }
}

impl Shared {
    /// Plain values, whole at every moment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address, when its probe was begun, and the outcome.
type Ended = (SocketAddr, Instant, Result<ProbeReport, Unable>);

async fn run(shared: Arc<Shared>) {
    let mut under_way: JoinSet<Ended> = JoinSet::new();
    let (mut next_begin, mut was_unable) = (Instant::now(), false);
    loop {
        let begun = begin(&shared, &mut under_way, &mut next_begin);
        let wake = begun.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            Some(ended) = under_way.join_next() => end(&shared, ended, &mut was_unable),
            () = shared.due.notified() => {}
            () = sleep_until(wake) => {}
        }
    }
}

/// Begins the probes that are due. Returns when the next one may be begun; `None`: only when another
/// one has ended, or there is another address.
fn begin(shared: &Shared, under_way: &mut JoinSet<Ended>, next_begin: &mut Instant) -> Option<Instant> {
    let now = Instant::now();
    // What was not begun in time is not made up for.
    *next_begin = (*next_begin).max(now - PACE);
    let mut state = shared.state();
    while under_way.len() < AT_A_TIME && *next_begin <= now {
        let Some(addr) = state.book.next(now.into_std()) else { break };
        let probe = probe_of(&state.config, addr);
        under_way.spawn(async move { (addr, now, probe.ask().await) });
        *next_begin += PACE;
    }
    let due = state.book.next_due().filter(|_| under_way.len() < AT_A_TIME)?;
    Some((*next_begin).max(due.into()))
}

/// Notes what came of a probe.
fn end(shared: &Shared, ended: Result<Ended, JoinError>, was_unable: &mut bool) {
    let mut state = shared.state();
    let State { book, config } = &mut *state;
    let (addr, begun, outcome) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            tracing::error!("a probe ended by a fault of portok: {error}");
            return book.all_again(after(Instant::now().into_std(), config.probe_interval()));
        }
    };
    match &outcome {
        Ok(report) => book.probed(addr, report.complaint(), config.probes_to_fail()),
        // That says nothing of the target.
        Err(unable) if !*was_unable => tracing::warn!("{unable}"),
        Err(_) => {}
    }
    *was_unable = outcome.is_err();
    book.again(addr, after(begun.into_std(), config.probe_interval()));
    if book.has_turned() {
        shared.turned.notify_one();
    }
}

#[cfg(test)]
mod tests;
