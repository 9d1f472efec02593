//! The probes of all targets that lists in Redis name (`redis.probe`).
//!
//! There may be very many targets, so one task probes all of them, and not all at a time: each
//! probe begins [`PACE`] after the one before it, and has a place among those of the daemon
//! ([`Prober`]). With more addresses than that allows, a round takes longer than `health.interval`.
//!
//! State: the [`Book`], which the task and the handles share behind a lock that is held for
//! moments. The task ends when [`Probes`] is dropped; the connections of its probes end with it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::book::Book;
use super::targets::{after, may_be_out};
use crate::config::{AppConfig, Hosts};
use crate::health::{Event, Place, Probe, Prober, Unable, UnderWay};
use crate::wire::ProbeReport;

mod book;

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
    prober: Prober,
}

#[derive(Debug)]
struct State {
    book: Book,
    config: Arc<AppConfig>,
}

impl Probes {
    /// Begins with no address; `config` says how they are probed.
    pub(super) fn start(config: Arc<AppConfig>, prober: Prober) -> Self {
        let state = Mutex::new(State { book: Book::default(), config });
        let shared = Arc::new(Shared { state, due: Notify::new(), turned: Notify::new(), prober });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { seen: Probed(shared), _task: AbortOnDropHandle::new(task) }
    }

    /// What they say.
    pub(super) fn seen(&self) -> &Probed {
        &self.seen
    }

    /// They are made by another configuration from now on.
    pub(super) fn configure(&self, config: Arc<AppConfig>) {
        let State { book, config: in_force } = &mut *self.seen.0.state();
        book.hasten(after(Instant::now().into_std(), config.probe_interval()));
        *in_force = config;
        self.seen.0.due.notify_one();
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

    /// Where they have their turns.
    pub(super) fn prober(&self) -> &Prober {
        &self.0.prober
    }
}

impl Shared {
    /// Plain values, whole at every moment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address, and when its probe was begun.
type Begun = (SocketAddr, Instant);

async fn run(shared: Arc<Shared>) {
    let mut under_way = UnderWay::new(shared.prober.clone());
    let (mut next_begin, mut turn) = (Instant::now(), None);
    loop {
        let begun = begin(&shared, &mut under_way, &mut next_begin, turn.take());
        let wake = begun.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            event = under_way.next() => match event {
                Event::Turn(place) => turn = Some(place),
                Event::Ended(begun, outcome) => end(&shared, begun, outcome),
                Event::Fell(error) => {
                    tracing::error!("a probe ended by a fault of portok: {error}");
                    let State { book, config } = &mut *shared.state();
                    book.all_again(after(Instant::now().into_std(), config.probe_interval()));
                }
            },
            () = shared.due.notified() => {}
            () = sleep_until(wake) => {}
        }
    }
}

/// Begins the probes that are due, as far as there are places for them; `turn` is one. Returns when
/// the next one may be begun; `None`: only when there is a place, or another address.
fn begin(
    shared: &Shared,
    under_way: &mut UnderWay<Begun>,
    next_begin: &mut Instant,
    mut turn: Option<Place>,
) -> Option<Instant> {
    let now = Instant::now();
    // What was not begun in time is not made up for.
    *next_begin = (*next_begin).max(now - PACE);
    let mut state = shared.state();
    while *next_begin <= now && state.book.next_due().is_some_and(|due| due <= now.into_std()) {
        let place = turn.take().or_else(|| under_way.place())?;
        let Some(addr) = state.book.next(now.into_std()) else { break };
        under_way.begin(place, (addr, now), Probe::of(&state.config, addr, None));
        *next_begin += PACE;
    }
    let due = state.book.next_due().filter(|_| !under_way.waits())?;
    Some((*next_begin).max(due.into()))
}

/// Notes what came of a probe.
fn end(shared: &Shared, (addr, begun): Begun, outcome: Result<ProbeReport, Unable>) {
    let State { book, config } = &mut *shared.state();
    let interval = config.probe_interval();
    match outcome {
        Ok(report) => {
            book.probed(addr, report.complaint(), config.probes_to_fail());
            book.again(addr, after(begun.into_std(), interval));
        }
        // That says nothing of the target.
        Err(_) => book.again(addr, after(Instant::now().into_std(), interval)),
    }
    if book.has_turned() {
        shared.turned.notify_one();
    }
}

#[cfg(test)]
mod tests;
