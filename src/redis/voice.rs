//! What is told of Redis: in the status always, in the log once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{info, warn};

use super::guard::{Held, LOOKS};
use super::list::Malformed;
use crate::wire::{HeldRemoval, MalformedList, RedisStatus, rfc3339};

/// The most malformed lists that the status has, and that the log is told of at a time.
const SHOWN: usize = 100;

/// Tells of one server.
#[derive(Debug)]
pub(super) struct Voice {
    status: watch::Sender<Arc<RedisStatus>>,
    /// What the log has been told.
    malformed: BTreeMap<String, Malformed>,
    endless: BTreeSet<String>,
    refusal: Option<String>,
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
        };
        let (status, receiver) = watch::channel(Arc::new(status));
        let (malformed, endless) = (BTreeMap::new(), BTreeSet::new());
        (Self { status, malformed, endless, refusal: None }, receiver)
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
    pub(super) fn away(&self, reason: &str) {
        let (connected, error) = {
            let status = self.status.borrow();
            (status.connected, status.error.clone())
        };
        if connected || error.as_deref() != Some(reason) {
            let status = self.status.borrow();
            let (url, hosts) = (&status.url, status.hosts);
            warn!("redis: {url}: {reason}; the last table stays in force, {hosts} hosts");
        }
        self.change(|status| {
            if connected {
                status.since = rfc3339(SystemTime::now());
            }
            status.connected = false;
            status.error = Some(reason.to_owned());
        });
    }

    /// The server answers; `error` is why its lists say nothing as a whole.
    pub(super) fn present(&self, error: Option<String>) {
        let (connected, known) = {
            let status = self.status.borrow();
            (status.connected, status.error.clone())
        };
        if let Some(error) = error.as_ref().filter(|error| known.as_ref() != Some(error)) {
            warn!("redis: {}: {error}; the last table stays in force", self.status.borrow().url);
        }
        if connected && known == error {
            return;
        }
        if !connected {
            let status = self.status.borrow();
            info!("redis: {}: connected, {} hosts", status.url, status.hosts);
        }
        self.change(|status| {
            if !connected {
                status.since = rfc3339(SystemTime::now());
            }
            status.connected = true;
            status.error = error;
        });
    }

    /// A pass found this, and so many hosts are in force after it.
    pub(super) fn looked(
        &mut self,
        malformed: BTreeMap<String, Malformed>,
        left_out: usize,
        held: Option<&Held>,
        hosts: usize,
    ) {
        self.log_malformed(&malformed);
        self.malformed = malformed;
        self.log_held(held);
        if left_out > 0 && self.status.borrow().left_out == 0 {
            warn!("redis: there is no room for {left_out} hosts beside the {hosts} in force");
        }
        let lists = self.malformed.iter().take(SHOWN);
        let lists =
            lists.map(|(host, reason)| MalformedList { host: host.clone(), reason: reason.to_string() });
        let lists = lists.collect();
        self.change(|status| {
            status.hosts = hosts;
            status.left_out = left_out;
            status.malformed = self.malformed.len();
            status.malformed_lists = lists;
            status.held = held.map(|held| HeldRemoval {
                hosts: held.missing(),
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

    /// These sets of marks have no time to live.
    pub(super) fn endless(&mut self, keys: &[String]) {
        for key in keys.iter().filter(|key| !self.endless.contains(*key)).take(SHOWN) {
            warn!("redis: dead:{} is ignored: it has no time to live", key.escape_debug());
        }
        self.endless = keys.iter().cloned().collect();
    }

    /// The server serves lists but refuses something else, which `what` is missing for.
    pub(super) fn refuses(&mut self, what: &str, reason: String) {
        if self.refusal.as_ref() != Some(&reason) {
            warn!("redis: {what}: {reason}");
            self.refusal = Some(reason);
        }
    }

    fn log_malformed(&self, malformed: &BTreeMap<String, Malformed>) {
        let mut new = malformed.iter().filter(|(key, reason)| self.malformed.get(*key) != Some(reason));
        for (key, reason) in new.by_ref().take(SHOWN) {
            let key = key.escape_debug();
            warn!("redis: frontend:{key} is malformed and leaves its host as it was: {reason}");
        }
        let more = new.count();
        if more > 0 {
            warn!("redis: {more} more lists are malformed");
        }
    }

    fn log_held(&self, held: Option<&Held>) {
        let was_held = self.status.borrow().held.is_some();
        match held {
            Some(held) if !was_held => warn!(
                "redis: {} of {} hosts are gone: none is removed until Redis has said so {LOOKS} times, a minute apart",
                held.missing(),
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
