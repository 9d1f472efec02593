//! What is told of Redis: in the status always, in the log once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::guard::{Held, LOOKS};
use super::lines::Lines;
use super::list::{Frontend, Malformed};
use super::table::{Count, Table};
use crate::wire::{HeldRemoval, MalformedList, RedisStatus, rfc3339};

/// The most malformed lists that the status has, and that the log is told of at a time.
const SHOWN: usize = 100;

/// How many of the hosts that are removed the log names.
const NAMED: usize = 5;

/// Tells of one server.
#[derive(Debug)]
pub(super) struct Voice {
    status: watch::Sender<Arc<RedisStatus>>,
    /// What the log has been told.
    malformed: BTreeMap<String, Malformed>,
    /// Malformed lists that are only counted.
    beyond: usize,
    void: BTreeMap<String, &'static str>,
    refusal: Option<String>,
    /// Of the server itself: it may come and go.
    of_connection: Lines,
    /// Of what it holds, which anybody may change again and again.
    of_lists: Lines,
}

impl Voice {
    /// Nothing is known of the server yet, and a table of so many hosts is in force.
    pub(super) fn new(url: String, hosts: usize) -> (Self, watch::Receiver<Arc<RedisStatus>>) {
        let status = RedisStatus {
            url,
            connected: false,
            since: rfc3339(SystemTime::now()),
            error: None,
            hosts,
            left_out: 0,
            malformed: 0,
            malformed_lists: Vec::new(),
            held: None,
            long_pass_ms: None,
        };
        let (status, receiver) = watch::channel(Arc::new(status));
        let voice = Self {
            status,
            malformed: BTreeMap::new(),
            beyond: 0,
            void: BTreeMap::new(),
            refusal: None,
            of_connection: Lines::new(10, Duration::from_secs(60)),
            of_lists: Lines::new(2 * u32::try_from(SHOWN).unwrap_or(u32::MAX), Duration::from_secs(1)),
        };
        (voice, receiver)
    }

    /// Another server is asked from now on.
    pub(super) fn asks(&self, url: &str) {
        if self.status.borrow().url != url {
            self.change(|status| {
                status.url = url.to_owned();
                status.connected = false;
                status.since = rfc3339(SystemTime::now());
            });
        }
    }

    /// There is no connection, for this reason.
    pub(super) fn away(&mut self, reason: &str) {
        let status = Arc::clone(&self.status.borrow());
        let (url, hosts) = (&status.url, status.hosts);
        if (status.connected || status.error.as_deref() != Some(reason))
            && let Some(more) = self.of_connection.next(Instant::now())
        {
            warn!("redis: {url}: {reason}; the last table stays in force, {hosts} hosts{more}");
        }
        self.change(|new| {
            if status.connected {
                new.since = rfc3339(SystemTime::now());
            }
            new.connected = false;
            new.error = Some(reason.to_owned());
        });
    }

    /// The server answers, and a pass has come to its end.
    pub(super) fn present(&mut self) {
        let status = Arc::clone(&self.status.borrow());
        if status.connected {
            return;
        }
        if let Some(more) = self.of_connection.next(Instant::now()) {
            info!("redis: {}: connected, {} hosts{more}", status.url, status.hosts);
        }
        self.change(|status| {
            status.since = rfc3339(SystemTime::now());
            status.connected = true;
            status.error = None;
        });
    }

    /// A pass has been under way for so long, which is longer than `redis.refresh`.
    pub(super) fn passes(&mut self, time: Duration, refresh: Duration) {
        let known = self.status.borrow().long_pass_ms.map(Duration::from_millis);
        if known.is_none()
            && let Some(more) = self.of_connection.next(Instant::now())
        {
            let refresh = humantime::format_duration(refresh);
            warn!(
                "redis: a pass over all keys takes longer than redis.refresh ({refresh}): a change is in force \
                 as much later; it would be shorter with fewer keys beside the lists{more}"
            );
        }
        // Every step of a pass comes here.
        if known.is_none_or(|known| time > 2 * known) {
            self.pass_lasts(time);
        }
    }

    /// A pass has come to its end; `long`: after so long, which is longer than `redis.refresh`.
    pub(super) fn passed(&mut self, long: Option<Duration>, refresh: Duration) {
        match long {
            Some(time) => {
                self.passes(time, refresh);
                self.pass_lasts(time);
            }
            None if self.status.borrow().long_pass_ms.is_some() => {
                if let Some(more) = self.of_connection.next(Instant::now()) {
                    info!("redis: a pass over all keys is short again{more}");
                }
                self.change(|status| status.long_pass_ms = None);
            }
            None => {}
        }
    }

    fn pass_lasts(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.change(|status| status.long_pass_ms = Some(millis));
    }

    /// These hosts are in force no more.
    pub(super) fn removed(&self, hosts: &[Arc<Frontend>]) {
        if hosts.is_empty() {
            return;
        }
        let first: Vec<_> = hosts.iter().take(NAMED).map(|one| one.hosts().to_string()).collect();
        let more = if hosts.len() > NAMED { ", ..." } else { "" };
        info!("redis: {} hosts are removed: {}{more}", hosts.len(), first.join(", "));
    }

    /// A pass found this, and this table is in force after it.
    pub(super) fn looked(
        &mut self,
        malformed: BTreeMap<String, Malformed>,
        beyond: Count,
        held: Option<&Held>,
        table: &Table,
    ) {
        let (left_out, hosts) = (beyond.hosts, table.len());
        self.log_malformed(&malformed, beyond.malformed, table);
        self.malformed = malformed;
        self.log_held(held);
        if left_out > 0 && self.status.borrow().left_out == 0 {
            warn!("redis: there is no room for {left_out} hosts beside the {hosts} in force");
        }
        // First those of hosts that are in force, whatever else there is.
        let (known, others): (Vec<_>, Vec<_>) =
            self.malformed.iter().partition(|(key, _)| table.of_key(key).is_some());
        let lists = known.into_iter().chain(others).take(SHOWN);
        let lists =
            lists.map(|(host, reason)| MalformedList { host: host.clone(), reason: reason.to_string() });
        let lists = lists.collect();
        self.change(|status| {
            status.hosts = hosts;
            status.left_out = left_out;
            status.malformed = self.malformed.len() + beyond.malformed;
            status.malformed_lists = lists;
            status.held = held.map(|held| HeldRemoval {
                hosts: held.hosts(),
                of: held.of(),
                looks: held.looks(),
                needed: LOOKS,
            });
        });
    }

    /// So many hosts are in force, because the bounds have changed.
    pub(super) fn bounded(&self, hosts: usize) {
        self.change(|status| status.hosts = hosts);
    }

    /// These sets of marks count for nothing, by their keys, for these reasons.
    pub(super) fn void(&mut self, sets: &BTreeMap<String, &'static str>) {
        for (key, why) in sets.iter().filter(|(key, _)| !self.void.contains_key(*key)).take(SHOWN) {
            if let Some(more) = self.of_lists.next(Instant::now()) {
                warn!("redis: dead:{} is ignored: {why}{more}", key.escape_debug());
            }
        }
        self.void.clone_from(sets);
    }

    /// The server serves lists but refuses something else, which `what` is missing for.
    pub(super) fn refuses(&mut self, what: &str, reason: String) {
        if self.refusal.as_ref() != Some(&reason) {
            if let Some(more) = self.of_connection.next(Instant::now()) {
                warn!("redis: {what}: {reason}{more}");
            }
            self.refusal = Some(reason);
        }
    }

    /// Tells of these, and of so many more. A host stays as it was where `table` has it; a bound
    /// that is narrower than it was has taken it out.
    fn log_malformed(&mut self, malformed: &BTreeMap<String, Malformed>, beyond: usize, table: &Table) {
        let (known, lines) = (&self.malformed, &mut self.of_lists);
        let mut new = malformed.iter().filter(|(key, reason)| known.get(*key) != Some(reason));
        for (key, reason) in new.by_ref().take(SHOWN) {
            if let Some(more) = lines.next(Instant::now()) {
                let (name, is_served) = (key.escape_debug(), table.of_key(key).is_some());
                let what = if is_served { "leaves its host as it was" } else { "its host is not served" };
                warn!("redis: frontend:{name} is malformed and {what}: {reason}{more}");
            }
        }
        let more = new.count() + beyond.saturating_sub(self.beyond);
        if more > 0
            && let Some(left_out) = lines.next(Instant::now())
        {
            warn!("redis: {more} more lists are malformed{left_out}");
        }
        self.beyond = beyond;
    }

    fn log_held(&self, held: Option<&Held>) {
        let was_held = self.status.borrow().held.is_some();
        match held {
            Some(held) if !was_held => warn!(
                "redis: {} of {} hosts are gone: none is removed until Redis has said so {LOOKS} times, a minute apart",
                held.hosts(),
                held.of()
            ),
            None if was_held => info!("redis: no removal is held back any more"),
            _ => {}
        }
    }

    fn change(&self, change: impl FnOnce(&mut RedisStatus)) {
        self.status.send_if_modified(|status| {
            let mut new = RedisStatus::clone(status);
            change(&mut new);
            let differs = new != **status;
            if differs {
                *status = Arc::new(new);
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pass_is_shown_until_one_is_short() {
        let (mut voice, status) = Voice::new("redis://h".to_owned(), 0);
        let shown = || status.borrow().long_pass_ms;
        let (seconds, refresh) = (Duration::from_secs, Duration::from_secs(1));
        voice.passed(None, refresh);
        assert_eq!(shown(), None);
        for (time, millis) in [(2, 2000), (3, 2000), (5, 5000)] {
            voice.passes(seconds(time), refresh);
            assert_eq!(shown(), Some(millis), "{time}");
        }
        voice.passed(Some(seconds(4)), refresh);
        assert_eq!(shown(), Some(4000));
        voice.passed(None, refresh);
        assert_eq!(shown(), None);
    }
}
