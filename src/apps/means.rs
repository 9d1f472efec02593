//! What every app of a daemon is made with, and the making of a managed one.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::config::AppConfig;
use crate::health::Prober;
use crate::proxy::{Board, Counters, RouteWriter, Service};
use crate::release::records::Records;
use crate::release::store::{Found, Store};
use crate::release::{self, Coordinator, End, Traffic, Turns};
use crate::supervisor::{Common, Supervisor, new_mark};
use crate::wire::HookEvent;

/// Tells the hooks of an app, which its configuration names, of an event; must not block.
pub type Notify = Arc<dyn Fn(HookEvent, watch::Receiver<Arc<AppConfig>>) + Send + Sync>;

/// Whose a record is: of an app of several by its name, or of the one app.
pub(super) type Owner = Option<String>;

/// See the module.
pub(super) struct Means {
    /// The instance's name.
    pub(super) instance: String,
    /// What all apps' processes share.
    pub(super) common: Arc<Common>,
    pub(super) board: Arc<Board>,
    pub(super) counters: Arc<Counters>,
    pub(super) records: Records,
    /// Where the probes of all targets have their turns.
    pub(super) prober: Prober,
    pub(super) notify: Notify,
    /// Do not continue what the records say (`portok run`).
    pub(super) fresh: bool,
    /// Cancelled once no predecessor serves requests any more.
    pub(super) alone: CancellationToken,
    /// Where an app of several gets its turn to start its first release.
    pub(super) turns: Option<Turns>,
}

/// A managed app: its coordinator, seen from here.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) handle: release::Handle,
    pub(super) supervisor: Arc<Supervisor>,
    /// Cancelled once nothing is written into its record any more.
    pub(super) recorded: CancellationToken,
    /// How the coordinator ended; `None`: it runs.
    pub(super) ended: watch::Receiver<Option<End>>,
}

/// A coordinator that does not run yet.
pub(super) struct Prepared {
    coordinator: Coordinator,
    ended: watch::Sender<Option<End>>,
    /// Names the app in each line of the log, where there are several.
    span: Span,
}

impl Means {
    /// Tells the hooks of an app. Each event is given the names of the instance and the app.
    pub(super) fn notify_of(
        &self,
        owner: &Owner,
        config: watch::Receiver<Arc<AppConfig>>,
    ) -> Box<dyn Fn(HookEvent) + Send> {
        let (tell, instance, app) = (Arc::clone(&self.notify), self.instance.clone(), owner.clone());
        Box::new(move |event: HookEvent| {
            let event = HookEvent { instance: instance.clone(), app: app.clone(), ..event };
            tell(event, config.clone());
        })
    }

    /// Makes the coordinator of the app that owns the record `opened`. Nothing happens before it
    /// runs.
    ///
    /// # Errors
    /// The kernel's random numbers cannot be read.
    pub(super) fn manage(
        &self,
        owner: &Owner,
        config: watch::Receiver<Arc<AppConfig>>,
        (service, route): (&Arc<Service>, RouteWriter),
        (store, found): (Store, Found),
        turns: Option<Turns>,
    ) -> io::Result<(Managed, Prepared)> {
        let mark = found.mark.clone().map_or_else(new_mark, Ok)?;
        let supervisor = Arc::new(Supervisor::for_app(&self.common, mark, owner.clone())?);
        let recorded = store.gone();
        let notify = self.notify_of(owner, config.clone());
        let parts = release::Parts {
            config,
            supervisor: Arc::clone(&supervisor),
            traffic: Traffic::new(route, Arc::clone(service.counters()), self.alone.clone()),
            store,
            found,
            notify,
            fresh: self.fresh,
            turns,
        };
        let (coordinator, handle) = Coordinator::new(parts);
        let (ends, ended) = watch::channel(None);
        let managed = Managed { handle, supervisor, recorded, ended };
        // At the level of errors, so that no filter takes the name from a line that it lets
        // through.
        let span = owner.as_ref().map_or_else(Span::none, |app| tracing::error_span!("app", app = %app));
        Ok((managed, Prepared { coordinator, ended: ends, span }))
    }
}

impl Prepared {
    /// Drives the app until all of it is stopped or left, or the coordinator falls. Notes which it
    /// was.
    pub(super) async fn run(self) {
        let Self { coordinator, ended, span } = self;
        let end = tokio::spawn(coordinator.run().instrument(span)).await;
        ended.send_replace(Some(end.unwrap_or(End::Fell)));
    }
}

impl Managed {
    /// Whether the coordinator ended by a fault of its own.
    pub(super) fn has_fallen(&self) -> bool {
        *self.ended.borrow() == Some(End::Fell)
    }
}
