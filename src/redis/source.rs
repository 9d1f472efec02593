//! The task that owns the connection: reads the lists again and again, and publishes what they say.
//!
//! A look asks first whether anything has changed at all ([`Link::state`]), and only then goes
//! through the lists. That is polling on purpose: it sees a flush and a restored database as it
//! sees a single change, and needs nothing of the server's configuration. The server goes through
//! all lists in any case; it tells only those steps of a pass that say something else than in the
//! one before ([`Steps`]).
//!
//! A pass takes as long as its server needs: each of its steps has a deadline, and their number a
//! bound. Marks are heard, written and ended between them.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::bounds::Bounds;
use super::dead::{Marks, Sets};
use super::guard::Guard;
use super::link::{DeadSet, Failure, Found, Link, State};
use super::list::Malformed;
use super::steps::Steps;
use super::table::{Changes, Look, Looked, Said, Table};
use super::voice::Voice;
use super::{Mark, Routes, Settings};
use crate::config::NoHosts;

/// Before the first further attempt to connect, and the longest time between two.
const DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A connection that has served for so long is followed by another one at once.
const STEADY: Duration = Duration::from_secs(10);

/// So often a pass is made again whose removals may come from a flush in its midst.
const MOST_AGAIN: u32 = 2;

/// The most steps of a pass: those of some 250 million keys. A server that never comes to an end of
/// its keys is none that a pass can be made over.
const MOST_STEPS: usize = 1_000_000;

/// A pass that takes at least so long, and longer than `redis.refresh`, is told of...
const LONG_PASS: Duration = Duration::from_secs(1);

/// ...and so long where all lists are read for the first time.
const LONG_FIRST_PASS: Duration = Duration::from_secs(10);

/// The longest pause after a pass that leaves `redis.refresh` none.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How much of what came up during a step of a pass is done before the next one.
const BETWEEN_STEPS: usize = 100;

/// A pass is made at least so often, whatever the server says of changes.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// How long marks are collected before they are published.
const TOGETHER: Duration = Duration::from_millis(20);

/// The ways in and out of the task.
pub(super) struct Ways {
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) marks_of_ours: mpsc::Receiver<Mark>,
    pub(super) routes: watch::Sender<Routes>,
    pub(super) voice: Voice,
    pub(super) stop: CancellationToken,
}

/// What the task has.
pub(super) struct Source {
    ways: Ways,
    bounds: Bounds,
    table: Arc<Table>,
    /// What the last pass was told, within the bounds.
    steps: Arc<Steps>,
    /// Whether the table is what they say, but for what the guard holds.
    is_in_force: bool,
    marks: Marks,
    guard: Guard,
    /// When the marks are to be published.
    publish_at: Option<Instant>,
}

/// Why a connection is left.
enum End {
    /// The source is to end.
    Stopped,
    /// The settings have changed.
    Changed,
    /// It is broken.
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Which bounds hold now.
pub(super) fn bounds(settings: &Settings) -> Bounds {
    let (allow, file) = (settings.redis.allow.clone(), settings.file.clone());
    Bounds { allow, file, listen: settings.listen.clone(), local: local_addresses() }
}

fn local_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let mut addresses: Vec<_> = interfaces.filter_map(|interface| address(interface.address?)).collect();
    addresses.sort_unstable();
    addresses
}

impl Source {
    /// A source with `table` in force, whose lists are within `bounds`.
    pub(super) fn new(ways: Ways, table: Arc<Table>, bounds: Bounds) -> Self {
        let (steps, marks, guard) = (Arc::default(), Marks::default(), Guard::default());
        Self { ways, bounds, table, steps, is_in_force: false, marks, guard, publish_at: None }
    }

    /// Reads until it is stopped.
    pub(super) async fn run(mut self) {
        let mut delay = DELAYS.0;
        loop {
            self.take_settings();
            let mut looked_at = None;
            match self.connect_and_read(&mut looked_at).await {
                End::Stopped => return,
                End::Changed => delay = DELAYS.0,
                End::Failed(failure) => {
                    self.ways.voice.away(&failure.to_string());
                    // Else a server that drops every connection were asked again at once.
                    if looked_at.is_some_and(|at| at.elapsed() >= STEADY) {
                        delay = DELAYS.0;
                    }
                    match self.wait(None, Instant::now() + delay).await {
                        Err(End::Stopped) => return,
                        Err(_) => delay = DELAYS.0,
                        Ok(()) => delay = (delay * 2).min(DELAYS.1),
                    }
                }
            }
        }
    }

    /// What the settings say now, for all that follows.
    fn take_settings(&mut self) {
        let settings = self.ways.settings.borrow_and_update().clone();
        self.ways.voice.asks(&settings.redis.server.to_string());
        self.take_bounds(&settings);
    }

    /// Where other bounds hold than before, what they forbid is taken out of the table.
    fn take_bounds(&mut self, settings: &Settings) {
        let bounds = bounds(settings);
        if bounds == self.bounds {
            return;
        }
        self.bounds = bounds;
        (self.steps, self.is_in_force) = (Arc::default(), false);
        // What they forbid is not gone from Redis.
        self.guard = Guard::default();
        let within = self.table.within(&self.bounds);
        if within.len() < self.table.len() {
            self.table = Arc::new(within);
            self.ways.voice.bounded(self.table.len());
            self.publish();
        }
    }

    async fn connect_and_read(&mut self, looked_at: &mut Option<Instant>) -> End {
        match self.read_all(looked_at).await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    /// Connects and reads until something ends it.
    async fn read_all(&mut self, looked_at: &mut Option<Instant>) -> Result<std::convert::Infallible, End> {
        let settings = self.ways.settings.borrow().clone();
        let server = &settings.redis.server;
        let mut link = self.unless_ended(Link::open(server)).await?;
        if let Some(failure) = link.deaf() {
            self.ways.voice.refuses("no messages of dead targets", failure.to_string());
        }
        let mut known = None;
        let mut passed_at: Option<Instant> = None;
        loop {
            let begin = Instant::now();
            let state = self.unless_ended(link.state(server.database)).await?;
            let is_recent = passed_at.is_some_and(|at| at.elapsed() < AT_LEAST_EVERY);
            let is_same = state.is_some() && state == known && is_recent && self.guard.held().is_none();
            let refresh = settings.redis.refresh;
            if !is_same {
                known = self.pass(&mut link, &settings, state).await?;
                self.ways.voice.present();
                passed_at = Some(begin);
                looked_at.get_or_insert(begin);
            }
            self.wait(Some(&mut link), next_look(begin, Instant::now(), refresh)).await?;
        }
    }

    /// One pass over all lists, and what comes of it; `state` is that of the database. Returns the
    /// state that the pass has seen.
    async fn pass(
        &mut self,
        link: &mut Link,
        settings: &Settings,
        mut state: Option<State>,
    ) -> Result<Option<State>, End> {
        self.take_bounds(settings);
        let mut again = 0;
        loop {
            let (steps, sets) = self.scan(link, settings).await?;
            let changes_nothing =
                self.is_in_force && self.guard.held().is_none() && steps.say_the_same_as(&self.steps);
            self.is_in_force = changes_nothing;
            self.steps = Arc::new(steps);
            if changes_nothing {
                self.take_marks(&sets);
                return Ok(state);
            }
            let (before, steps) = (Arc::clone(&self.table), Arc::clone(&self.steps));
            let (looked, removes) = apart(move || look(&steps, &before)).await?;
            if removes && again < MOST_AGAIN {
                let now = self.unless_ended(link.state(settings.redis.server.database)).await?;
                let is_whole = match (&state, &now) {
                    (Some(before), Some(now)) => !now.is_another_than(before),
                    // Then a second pass has to say it.
                    _ => again > 0,
                };
                if !is_whole {
                    (state, again) = (now, again + 1);
                    continue;
                }
            }
            let (guard, before) = (std::mem::take(&mut self.guard), Arc::clone(&self.table));
            let judged = apart(move || judge(looked, &before, guard)).await?;
            self.take_over(judged);
            self.is_in_force = true;
            self.take_marks(&sets);
            return Ok(state);
        }
    }

    /// Goes through all lists once.
    async fn scan(&mut self, link: &mut Link, settings: &Settings) -> Result<(Steps, Sets), End> {
        let (mut steps, mut sets) = (Steps::default(), Sets::default());
        let (begin, refresh) = (Instant::now(), settings.redis.refresh);
        let long = refresh.max(if self.steps.is_empty() { LONG_FIRST_PASS } else { LONG_PASS });
        let mut cursor = "0".to_owned();
        for _ in 0..MOST_STEPS {
            let known = steps.digest(&cursor, &self.steps).map(str::to_owned);
            let asking = link.look(&cursor, &settings.redis.prefix, known.as_deref());
            let step = self.unless_ended(asking).await?;
            match step.lists() {
                Some(lists) => {
                    let lists = lists.map(|found| Ok(said(found?, &self.table, &self.bounds)));
                    steps.add::<Failure>(cursor, step.digest.clone(), lists, &self.table)?;
                }
                // The server was told its digest.
                None => drop(steps.add_known(cursor, &self.steps)),
            }
            for set in step.sets() {
                let DeadSet { host, ttl, indexes } = set?;
                sets.add(text(host), ttl, indexes, &self.table);
            }
            cursor = step.cursor;
            let too_long = Some(begin.elapsed()).filter(|time| *time > long);
            if cursor == "0" {
                self.ways.voice.passed(too_long, refresh);
                return Ok((steps, sets));
            }
            if let Some(time) = too_long {
                self.ways.voice.passes(time, refresh);
            }
            self.attend(link).await?;
        }
        Err(Failure::new(format!("a pass over all keys has no end after {MOST_STEPS} steps")).into())
    }

    /// Puts in force what a pass has found.
    fn take_over(&mut self, judged: Judged) {
        let Judged { looked: Looked { table, malformed, beyond }, changes, guard } = judged;
        let Changes { set, removed } = changes;
        self.guard = guard;
        if !(set.is_empty() && removed.is_empty()) {
            self.table = Arc::new(table);
            self.marks.forget(set.iter().chain(&removed));
        }
        self.ways.voice.removed(&removed);
        self.ways.voice.looked(malformed, beyond, self.guard.held(), &self.table);
    }

    /// These sets of marks are all that there are.
    fn take_marks(&mut self, sets: &Sets) {
        self.marks.read(sets, &self.table, Instant::now());
        self.ways.voice.void(&sets.void);
        self.publish();
    }

    /// Waits until `until`, and does meanwhile what comes up: messages of others, marks of ours,
    /// and marks that end. Without a connection nothing comes up but the end of marks.
    async fn wait(&mut self, mut link: Option<&mut Link>, until: Instant) -> Result<(), End> {
        loop {
            self.publish_what_is_due();
            if Instant::now() >= until {
                return Ok(());
            }
            let next = self.publish_at.into_iter().chain(self.marks.next_end()).fold(until, Instant::min);
            self.turn(&mut link, sleep_until(next.into())).await?;
        }
    }

    /// Does some of what has come up, without waiting.
    async fn attend(&mut self, link: &mut Link) -> Result<(), End> {
        let mut link = Some(link);
        for _ in 0..BETWEEN_STEPS {
            if !self.turn(&mut link, std::future::ready(())).await? {
                break;
            }
        }
        self.publish_what_is_due();
        Ok(())
    }

    /// Does the next thing that comes up before `over`. Whether there was one.
    async fn turn(
        &mut self,
        link: &mut Option<&mut Link>,
        over: impl Future<Output = ()>,
    ) -> Result<bool, End> {
        tokio::select! {
            biased;
            () = self.ways.stop.cancelled() => return Err(End::Stopped),
            _ = self.ways.settings.changed() => return Err(End::Changed),
            Some(mark) = self.ways.marks_of_ours.recv() => {
                if let Some(link) = link {
                    self.mark(link, &mark).await?;
                }
            }
            message = message(link) => self.hear(&message?),
            () = over => return Ok(false),
        }
        Ok(true)
    }

    fn publish_what_is_due(&mut self) {
        let now = Instant::now();
        if self.publish_at.into_iter().chain(self.marks.next_end()).any(|at| at <= now) {
            self.publish();
        }
    }

    fn hear(&mut self, message: &str) {
        let (now, ttl) = (Instant::now(), self.ways.settings.borrow().mark_for);
        self.marks.told(message, &self.table, now, ttl);
        self.publish_at.get_or_insert(now + TOGETHER);
    }

    /// Marks a target dead in Redis, if the list is still the one it was chosen from.
    async fn mark(&mut self, link: &mut Link, mark: &Mark) -> Result<(), End> {
        let Mark { frontend, index, ttl } = mark;
        if self.table.get(frontend.hosts()).is_none_or(|now| now != frontend) {
            return Ok(());
        }
        let prefix = self.ways.settings.borrow().redis.prefix.clone();
        let marking = link.mark(&prefix, frontend, *index, *ttl);
        if let Err(refusal) = self.unless_ended(marking).await? {
            self.ways.voice.refuses("no marks of dead targets", refusal.to_string());
        }
        Ok(())
    }

    /// What comes of `asking`, unless the source is to end or to begin anew.
    async fn unless_ended<T>(&mut self, asking: impl Future<Output = Result<T, Failure>>) -> Result<T, End> {
        let asking = pin!(asking);
        tokio::select! {
            biased;
            () = self.ways.stop.cancelled() => Err(End::Stopped),
            _ = self.ways.settings.changed() => Err(End::Changed),
            outcome = asking => Ok(outcome?),
        }
    }

    /// Publishes table and marks, where they differ from what is published.
    fn publish(&mut self) {
        self.publish_at = None;
        self.marks.expire(Instant::now());
        let out = self.marks.out(&self.table);
        let table = &self.table;
        self.ways.routes.send_if_modified(|routes| {
            let is_same_table = Arc::ptr_eq(&routes.table, table);
            if is_same_table && *routes.out == out {
                return false;
            }
            *routes = Routes { table: Arc::clone(table), out: Arc::new(out) };
            true
        });
    }
}

/// When the next look is due after one that began and ended then. Whoever writes to the server all
/// the time keeps it no busier with passes than it is without them.
fn next_look(begin: Instant, end: Instant, refresh: Duration) -> Instant {
    (begin + refresh).max(end + (end - begin).min(LONGEST_PAUSE))
}

/// What a pass has found, as it may be put in force.
struct Judged {
    looked: Looked,
    changes: Changes,
    guard: Guard,
}

/// What `work` returns, which may take its time: with very many hosts the control thread would
/// stand still for longer than it may.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(format!("the end of a pass has ended unexpectedly: {error}")))
}

/// What the steps of a pass after the one that made `before` have found, and whether any host is
/// gone.
fn look(steps: &Steps, before: &Arc<Table>) -> (Looked, bool) {
    let mut look = Look::new(Arc::clone(before));
    steps.lists().for_each(|said| look.take(said));
    let looked = look.finish(steps.beyond());
    let removes = before.iter().any(|one| looked.table.get(one.hosts()).is_none());
    (looked, removes)
}

/// What was found after `before`, with the hosts that have to stay.
fn judge(mut looked: Looked, before: &Arc<Table>, mut guard: Guard) -> Judged {
    let kept = guard.keeps(before, &looked.table, Instant::now());
    looked.keep(&kept, before);
    let changes = looked.table.changes_since(before);
    Judged { looked, changes, guard }
}

/// The next message, where there is a connection.
async fn message(link: &mut Option<&mut Link>) -> Result<String, Failure> {
    match link {
        Some(link) => link.message().await,
        None => std::future::pending().await,
    }
}

/// What a list says.
fn said(found: Found<'_>, before: &Table, bounds: &Bounds) -> Said {
    match found {
        Found::List { host, elements } => Said::of(&text(host), &elements, before, bounds),
        Found::NoList { host } => Said::malformed(text(host), Malformed::NoList),
        Found::LongKey { host } => Said::malformed(text(host), Malformed::Host(NoHosts)),
    }
}

/// What is no text is no host, and only shown.
fn text(host: &[u8]) -> String {
    String::from_utf8_lossy(host).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_followed_by_a_pause_as_long_as_itself() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let refresh = Duration::from_secs(1);
        for (end, next) in [(0, 1000), (500, 1000), (700, 1400), (2000, 4000), (60_000, 65_000)] {
            assert_eq!(next_look(begin, at(end), refresh), at(next), "{end}");
        }
    }
}
