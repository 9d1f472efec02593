//! The apps of a daemon: how they begin, and what all of them are told together.
//!
//! [`Apps`] is the daemon's face to their fate: freeze, leave, stop. Each app has a coordinator of
//! its own, which decides everything about it and owns its state; nothing is decided here. Today
//! there is one app, so every call goes to its coordinator.
//!
//! [`Apps`] is cheap to clone, and dropping it changes nothing. [`Coordinators`] are the tasks:
//! they end after [`Apps::stop_all`] or [`Apps::leave`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::release::{self, Coordinator};
use crate::supervisor::Common;
use crate::wire::{Code, ErrorBody};

mod app;
mod boot;

pub use app::App;
pub use boot::Parts;

/// How many apps a refusal names.
const MOST_NAMED: usize = 20;

/// Which apps there are.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Whether the instance has several apps: then each request to one names it.
    several: bool,
    apps: BTreeMap<String, App>,
}

/// The apps, for the rest of the daemon.
#[derive(Debug, Clone)]
pub struct Apps {
    app: release::Handle,
    known: watch::Receiver<Arc<Known>>,
    common: Arc<Common>,
}

/// The apps' coordinators before they run.
pub struct Waiting {
    coordinator: Coordinator,
}

/// The running coordinators.
#[derive(Debug)]
pub struct Coordinators {
    task: tokio::task::JoinHandle<()>,
}

impl Waiting {
    /// Lets them run: what the records name is taken over or made live again from here on.
    pub fn run(self) -> Coordinators {
        Coordinators { task: tokio::spawn(self.coordinator.run()) }
    }
}

impl Coordinators {
    /// Waits until all have ended.
    pub async fn ended(self) {
        let _panicked = self.task.await;
    }
}

impl Apps {
    /// The app that a request is for: the one that it names; without a name, the one that there
    /// is.
    ///
    /// # Errors
    /// `app_required`: there are several, and none was named. `no_such_app`.
    pub fn find(&self, name: Option<&str>) -> Result<App, ErrorBody> {
        let known = self.known.borrow();
        let found = match name {
            Some(name) => known.apps.get(name),
            None if known.several => return Err(required(&known)),
            None => known.apps.values().next(),
        };
        found.cloned().ok_or_else(|| no_such(name.unwrap_or_default(), &known))
    }

    /// All apps, in the order of the bytes of their names.
    pub fn list(&self) -> Vec<App> {
        self.known.borrow().apps.values().cloned().collect()
    }

    /// Whether the instance has several apps (it may be none at the moment), so that a request to
    /// one of them names it.
    pub fn has_several(&self) -> bool {
        self.known.borrow().several
    }

    /// The app of a daemon that has one.
    pub fn only(&self) -> &release::Handle {
        &self.app
    }

    /// Waits until a first probe has shown whether an unmanaged app can be live, so that a daemon
    /// in front of a healthy app never answers 503 at its start. No longer than `within`.
    pub async fn ready_to_serve(&self, within: Duration) {
        let known = async {
            self.app.first_probe().await;
            // The coordinator has acted on what the probe found.
            self.app.beat().await;
        };
        let _unanswered = tokio::time::timeout(within, known).await;
    }

    /// As [`release::Handle::booted`], for all.
    pub async fn booted(&self) {
        self.app.booted().await;
    }

    /// Waits until every coordinator has received a message sent now. Cancel safe.
    pub async fn beat(&self) {
        self.app.beat().await;
    }

    /// Waits for the next snapshot of any app; false if there will be none.
    pub async fn changed(&mut self) -> bool {
        self.app.changed().await
    }

    /// Requests in flight on all targets.
    pub fn inflight(&self) -> u64 {
        let status = self.app.status();
        let targets = [status.live, status.candidate, status.previous];
        targets.iter().flatten().map(|target| target.inflight).sum()
    }

    /// As [`release::Handle::may_freeze`], for all.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn may_freeze(&self) -> Result<(), ErrorBody> {
        self.app.may_freeze().await
    }

    /// As [`release::Handle::freeze`], for all or none.
    ///
    /// # Errors
    /// The first refusal; nothing has changed then.
    pub async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        self.app.freeze(interrupt).await
    }

    /// Lets all go on as if they had never stood still.
    pub async fn thaw(&self) {
        self.app.thaw().await;
    }

    /// Leaves what the apps print in their pipes, for a successor to read; `false` reads it again.
    pub fn hush(&self, hushed: bool) {
        self.common.hush(hushed);
    }

    /// Puts back what a successor may have replaced that did not take over.
    pub fn restore(&self) {
        self.common.restore();
    }

    /// Ends the coordinators and leaves all processes as they are.
    pub async fn leave(&self) {
        self.app.leave().await;
    }

    /// Waits until a coordinator has ended. Before the daemon's own end, none should.
    pub async fn lost(&self) {
        self.app.ended().await;
    }

    /// Begins nothing new from now on; gives up what is under way and has not switched.
    pub async fn shut_down(&self) {
        self.app.shut_down().await;
    }

    /// Stops every process group by the ladder. Waits until nothing is left and the last records
    /// are written.
    pub async fn stop_all(&self) {
        self.app.stop_all().await;
    }

    /// Sends SIGKILL to what [`Apps::stop_all`] is still stopping.
    pub async fn kill_all(&self) {
        self.app.kill_all().await;
    }
}

/// The refusal of a request that names none of several apps.
fn required(known: &Known) -> ErrorBody {
    let message = format!("there are several apps, and the request names none: {}", named(known));
    ErrorBody::new(Code::AppRequired, "App required", message)
        .with_hint("name one: --app NAME, or ?app=NAME over the API")
}

/// The refusal of a request for an app that is not there.
fn no_such(name: &str, known: &Known) -> ErrorBody {
    let message = format!("there is no app `{name}`; there is: {}", named(known));
    ErrorBody::new(Code::NoSuchApp, "No such app", message).with_hint("portok apps shows those that are")
}

/// The names of the apps, for messages.
fn named(known: &Known) -> String {
    let names: Vec<_> = known.apps.keys().take(MOST_NAMED).map(String::as_str).collect();
    match known.apps.len() {
        0 => "none".to_owned(),
        count if count > MOST_NAMED => format!("{} and {} more", names.join(", "), count - MOST_NAMED),
        _ => names.join(", "),
    }
}
