//! Routes from Redis, in hipache's layout: every list `frontend:<host>` is an app named
//! `redis:<host>`, and every set `dead:<host>` marks targets of it.
//!
//! What Redis holds is input from outside. It is bounded, guarded and, while Redis is away,
//! replaced by what it said last:
//!
//! - `list` reads one list or says why it is malformed, `bounds` which addresses it may name;
//! - `steps` remembers what each step of a pass over the keys said, `packed` reads it;
//! - `table` has all lists, and what changed from one table to the next;
//! - `guard` holds a removal of most hosts back;
//! - `dead` has the marks and their end;
//! - `store` and `keeper` keep the table on disk, for a start without Redis;
//! - `link` is the connection and what is asked over it, `source` the task that owns it and all
//!   state, `voice` what it tells log and status.
//!
//! # What a user of this module does
//!
//! It starts one [`Redis`] for an instance that has `[redis]`, and ends it. It waits for
//! [`Redis::routes`] to change, which is at once where a table was kept on disk: a [`Routes`] has
//! the whole table and the targets that are marked. The first time all of the table is new; from
//! then on [`Table::changes_since`] the one before says what to set and what to remove. A target
//! whose index is in [`Routes::out`] gets no requests. The table is complete, so versions may be
//! skipped. Where the user cannot reach a target, it says so with [`Marker::mark_dead`].
//!
//! When its configuration or its listeners change it calls [`Redis::reconfigure`]. The order of the
//! sources, files before Redis, is the user's: this module knows no other app.
//!
//! # What it needs of the server
//!
//! `INFO`, `EVAL`, and in it `SCAN` and `LRANGE`; for dead marks alone `SCARD`, `PTTL`, `SMEMBERS`,
//! `SUBSCRIBE`, `SADD`, `EXPIRE` and `PUBLISH`, without which lists are served all the same. The
//! keys are found by a scan, so they lie on one server and not in a cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

pub use self::bounds::Bounds;
pub use self::dead::Out;
pub use self::lines::Lines;
pub use self::list::{Frontend, Malformed};
pub use self::store::table_file;
pub use self::table::{Changes, Table};
use crate::config;
use crate::wire::RedisStatus;

mod bounds;
mod dead;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod keeper;
mod lines;
mod link;
mod list;
mod packed;
mod source;
mod steps;
mod store;
mod table;
mod voice;

#[cfg(test)]
mod tests;

/// The most marks that wait to be written. Further ones are dropped: whoever could not reach a
/// target then is about to find it out again.
const MARKS_WAITING: usize = 1024;

/// What is read, and by which rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[redis]`.
    pub redis: config::Redis,
    /// Where this portokd listens, for all its apps, with the ports that the kernel chose.
    pub listen: Vec<std::net::SocketAddr>,
    /// The file that has `[redis]`; it is named where a list needs another range of addresses.
    pub file: Option<PathBuf>,
    /// How long a mark counts that somebody else's message tells of.
    pub mark_for: Duration,
}

impl Settings {
    /// Whether Redis is asked the same by these: what holds for the apps, and who probes them,
    /// is not Redis's to know.
    fn ask_the_same_as(&self, other: &Self) -> bool {
        let without_app = |settings: &Self| {
            let config::Redis { server, prefix, refresh, allow, probe: _, app: _ } = settings.redis.clone();
            (server, prefix, refresh, allow, settings.listen.clone(), settings.mark_for)
        };
        without_app(self) == without_app(other)
    }
}

/// The routes in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routes {
    /// What the lists say.
    pub table: Arc<Table>,
    /// The targets that get no requests.
    pub out: Arc<Out>,
}

/// Redis as a source of routes, until [`Redis::end`]. When it is dropped it ends without keeping
/// its last table.
#[derive(Debug)]
pub struct Redis {
    settings: watch::Sender<Settings>,
    routes: watch::Receiver<Routes>,
    status: watch::Receiver<Arc<RedisStatus>>,
    marker: Marker,
    stop: DropGuard,
    source: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

/// Tells others of targets that cannot be reached.
#[derive(Debug, Clone)]
pub struct Marker(mpsc::Sender<Mark>);

/// A target that cannot be reached.
#[derive(Debug)]
struct Mark {
    frontend: Arc<Frontend>,
    index: usize,
    ttl: Duration,
}

impl Marker {
    /// Marks a target of this list dead for `ttl`, by its index among the list's targets, unless
    /// the list has changed since. Does not wait, and does nothing while Redis is away.
    pub fn mark_dead(&self, frontend: &Arc<Frontend>, index: usize, ttl: Duration) {
        let mark = Mark { frontend: Arc::clone(frontend), index, ttl };
        let _too_many_wait = self.0.try_send(mark);
    }
}

impl Redis {
    /// Starts with the table that is kept in `file`, if there is one: it is in force at once.
    pub async fn start(settings: Settings, file: &Path) -> Self {
        let bounds = source::bounds(&settings);
        let table = Arc::new(load(file.to_owned(), bounds.clone()).await);
        let (routes, routes_seen) = watch::channel(Routes { table: Arc::clone(&table), out: Arc::default() });
        let (voice, status) = voice::Voice::new(settings.redis.server.to_string(), table.len());
        let (settings, settings_seen) = watch::channel(settings);
        let (marker, marks_of_ours) = mpsc::channel(MARKS_WAITING);
        let keeper = keeper::keep(file.to_owned(), routes_seen.clone());
        let stop = CancellationToken::new();
        let ways = source::Ways { settings: settings_seen, marks_of_ours, routes, voice, stop: stop.clone() };
        Self {
            settings,
            routes: routes_seen,
            status,
            marker: Marker(marker),
            stop: stop.drop_guard(),
            source: tokio::spawn(source::Source::new(ways, table, bounds).run()),
            keeper,
        }
    }

    /// The routes in force, now and after every change.
    pub fn routes(&self) -> watch::Receiver<Routes> {
        self.routes.clone()
    }

    /// How it stands with the server.
    pub fn status(&self) -> Arc<RedisStatus> {
        Arc::clone(&self.status.borrow())
    }

    /// How it stands with the server, now and after every change.
    pub fn follow_status(&self) -> watch::Receiver<Arc<RedisStatus>> {
        self.status.clone()
    }

    /// What tells others of dead targets.
    pub fn marker(&self) -> Marker {
        self.marker.clone()
    }

    /// Goes on with other settings. The table in force stays, but for what they forbid, until the
    /// server has said what its lists are.
    pub fn reconfigure(&self, settings: Settings) {
        self.settings.send_if_modified(|now| {
            let differs = !now.ask_the_same_as(&settings);
            *now = settings;
            differs
        });
    }

    /// Ends, and keeps the last table on disk.
    pub async fn end(self) {
        drop(self.stop);
        for task in [self.source, self.keeper] {
            if let Err(error) = task.await {
                warn!("redis: a task has ended unexpectedly: {error}");
            }
        }
    }
}

async fn load(file: PathBuf, bounds: Bounds) -> Table {
    let shown = file.display().to_string();
    let (table, warning) = match spawn_blocking(move || store::load(&file, &bounds)).await {
        Ok(loaded) => loaded,
        Err(error) => (Table::default(), Some(format!("the table in {shown} was not read: {error}"))),
    };
    if let Some(warning) = warning {
        warn!("redis: {warning}");
    }
    if !table.is_empty() {
        info!("redis: {} hosts from {shown}, until Redis answers", table.len());
    }
    table
}
