//! How the apps begin: from their records, with a supervisor each.
//!
//! The ordering that matters: the pipes that belong to no recorded run of any app are removed
//! before anything is started. Each app's own boot follows when its coordinator runs.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::app::{App, Kind, Known as KnownApp};
use super::{Apps, Known, Waiting};
use crate::config::AppConfig;
use crate::proxy::{RouteWriter, ServiceCounters};
use crate::release::store::{Found, Store};
use crate::release::{self, Coordinator, Traffic};
use crate::supervisor::{Common, Supervisor, new_mark};
use crate::wire::{AppSource, HookEvent};

/// What the apps need to begin.
pub struct Parts {
    /// The app's configuration in force.
    pub config: watch::Receiver<Arc<AppConfig>>,
    /// What all apps' processes share.
    pub common: Arc<Common>,
    /// Makes targets.
    pub counters: Arc<ServiceCounters>,
    /// Points the app's requests at them.
    pub route: RouteWriter,
    /// Keeps the app's record.
    pub store: Store,
    /// What the store found.
    pub found: Found,
    /// Tells the hooks; must not block.
    pub notify: Box<dyn Fn(HookEvent) + Send>,
    /// Do not continue what the records say (`portok run`).
    pub fresh: bool,
    /// Cancelled once no predecessor serves requests any more.
    pub alone: CancellationToken,
}

impl Apps {
    /// Makes the apps' coordinators. Nothing is started before they run.
    ///
    /// # Errors
    /// The kernel's random numbers cannot be read.
    pub fn boot(parts: Parts) -> io::Result<(Self, Waiting)> {
        let Parts { config, common, counters, route, store, found, notify, fresh, alone } = parts;
        let recorded: Vec<_> = found.record.runs.iter().map(|run| run.identity.clone()).collect();
        common.remove_pipes_but(&recorded);
        let mark = found.mark.clone().map_or_else(new_mark, Ok)?;
        let supervisor = Arc::new(Supervisor::for_app(&common, mark, None)?);
        let first = Arc::clone(&config.borrow());
        let traffic = Traffic::new(route, Arc::clone(&counters), alone);
        let parts = release::Parts { config, supervisor, traffic, store, found, notify, fresh };
        let (coordinator, app) = Coordinator::new(parts);
        let known = App::new(KnownApp {
            routes: first.routes.clone(),
            config: first,
            counters,
            kind: Kind::Managed(app.clone()),
            error: None,
            source: AppSource::File,
        });
        let apps = [(known.name().to_owned(), known)].into();
        let (_sender, known) = watch::channel(Arc::new(Known { several: false, apps }));
        Ok((Self { app, known, common }, Waiting { coordinator }))
    }
}
