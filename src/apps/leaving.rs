//! An app that is removed: it begins nothing new, its requests finish within `drain.period`, it is
//! stopped by the ladder, and its record is set aside.
//!
//! Its routes are another's or nobody's by then. Of targets, which another program runs, nothing is
//! stopped: their driver sets its record aside at once, and ends with the drain; where it has
//! fallen, that is done in its place.
//!
//! The one ordering that matters: the record is set aside after the last process is gone, so that
//! the next daemon finds it where this one is killed or leaves on the way.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::means::{Managed, Owner};
use super::targets;
use crate::config::AppConfig;
use crate::proxy::Service;
use crate::release::End;
use crate::release::records::Records;

/// How often it is looked whether requests are still in flight.
const LOOK: Duration = Duration::from_millis(20);

/// How long the last write of the record may take.
const LAST_RECORD: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) managed: Managed,
    pub(super) service: Arc<Service>,
    /// Kept: without it the coordinator would end at once.
    pub(super) config: watch::Sender<Arc<AppConfig>>,
}

/// An app with targets that is removed. Another one of its name may run already.
#[derive(Debug)]
pub(super) struct LeavingSet {
    pub(super) targets: targets::Handle,
    pub(super) service: Arc<Service>,
    pub(super) config: Arc<AppConfig>,
    /// Cancelled once nothing is done with its record any more: another driver may have it then.
    pub(super) recorded: CancellationToken,
}

impl LeavingSet {
    /// Lets the app go.
    pub(super) fn go(&self, records: Records) -> impl Future<Output = ()> + Send + 'static {
        let (targets, name) = (self.targets.clone(), self.config.name.clone());
        let recorded = self.recorded.clone().drop_guard();
        async move {
            let has_driver = targets.remove().await;
            targets.recorded().cancelled().await;
            if !has_driver {
                let app = name.clone();
                let aside = tokio::task::spawn_blocking(move || records.set_targets_aside(&app)).await;
                if let Err(error) = aside.unwrap_or_else(|error| Err(io::Error::other(error))) {
                    tracing::error!(app = name, "{error}");
                }
            }
            drop(recorded);
            targets.ended().await;
            tracing::info!(app = name, "app `{name}` is gone");
        }
    }
}

impl Leaving {
    /// Stops the app, and sets the record of `owner` aside. `alone` is cancelled once no
    /// predecessor serves requests of it.
    pub(super) fn stop(
        &self,
        owner: Owner,
        records: Records,
        alone: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Managed { handle, recorded, ended, .. } = &self.managed;
        let (handle, recorded, mut ended) = (handle.clone(), recorded.clone(), ended.clone());
        let (name, period) = {
            let config = self.config.borrow();
            (config.name.clone(), config.drain.period)
        };
        async move {
            handle.shut_down().await;
            let drained = async {
                alone.cancelled().await;
                while handle.in_flight() > 0 {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let mut has_ended = ended.clone();
            tokio::select! {
                _end = has_ended.wait_for(Option::is_some) => {}
                drained = tokio::time::timeout(period, drained) => if drained.is_err() {
                    tracing::warn!(
                        app = name,
                        "app `{name}`: requests are still in flight after drain.period ({period:?})"
                    );
                }
            }
            let _ended = handle.stop_all().await;
            let end = ended.wait_for(Option::is_some).await.map_or(End::Fell, |end| end.unwrap_or(End::Fell));
            if end != End::Stopped {
                let why =
                    if end == End::Left { "portokd leaves" } else { "its coordinator ended by a fault" };
                tracing::warn!(
                    app = name,
                    "app `{name}`: {why}; the next start of portokd stops what is left of it"
                );
                return;
            }
            if tokio::time::timeout(LAST_RECORD, recorded.cancelled()).await.is_err() {
                tracing::error!(
                    app = name,
                    "app `{name}`: its last record was not written within {LAST_RECORD:?}"
                );
                return;
            }
            let aside = tokio::task::spawn_blocking(move || records.set_aside(owner.as_deref()));
            match aside.await {
                Ok(Ok(())) => {
                    tracing::info!(
                        app = name,
                        "app `{name}` is gone: it is stopped, and its record set aside"
                    );
                }
                Ok(Err(error)) => tracing::error!(app = name, "{error}"),
                Err(error) => {
                    tracing::error!(app = name, "app `{name}`: its record was not set aside: {error}")
                }
            }
        }
    }
}
