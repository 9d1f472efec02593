//! One app as others see it: what the registry knows of it now, and the requests to it.
//!
//! An [`App`] is a snapshot, cheap to clone; what it says of releases and requests is read from
//! their owners at each call. What an app of its kind cannot do is refused here, in one place
//! ([`App::releases_or`]).

use std::sync::Arc;

use super::drivers::Driver;
use super::hosted::Hosted;
use super::targets;
use crate::config::{AppConfig, AppRoutes};
use crate::proxy::ServiceCounters;
use crate::release::orders::Order;
use crate::release::scale::Bounds;
use crate::release::{self, Attempt, Rollback};
use crate::wire::{self, AppSource, Code, ErrorBody, Phase};

/// One app.
#[derive(Debug, Clone)]
pub struct App(Arc<Facts>);

/// What the registry knows of an app.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) config: Arc<AppConfig>,
    pub(super) counters: Arc<ServiceCounters>,
    pub(super) kind: Kind,
    /// Which of the routes of its configuration are its own; `None`: all of them.
    pub(super) routes: Option<AppRoutes>,
    /// Why a newer configuration of it, or some of its routes, are not in force.
    pub(super) error: Option<String>,
    /// Why its configuration on disk is not the one in force.
    pub(super) stale: Option<String>,
    pub(super) source: AppSource,
    /// It is being removed.
    pub(super) leaves: bool,
    /// What drives it has ended by a fault and does not run yet.
    pub(super) down: bool,
}

/// What answers an app's requests.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Releases, which a coordinator drives.
    Managed(release::Handle),
    /// Targets that another program runs.
    Targets(targets::Handle),
    /// Targets that a list in Redis names.
    Redis(Arc<Hosted>),
    /// Portok itself: with the way to another host.
    Redirect,
    /// Nothing: its first configuration was refused.
    Absent,
}

impl App {
    pub(super) fn new(facts: Facts) -> Self {
        Self(Arc::new(facts))
    }

    /// Its name; of the one app of an instance: the instance's.
    pub fn name(&self) -> &str {
        match &self.0.kind {
            Kind::Redis(hosted) => hosted.name(),
            _ => &self.0.config.name,
        }
    }

    /// Its configuration in force.
    pub fn config(&self) -> &Arc<AppConfig> {
        &self.0.config
    }

    /// The counters of its requests.
    pub fn counters(&self) -> &Arc<ServiceCounters> {
        &self.0.counters
    }

    /// The routes that are in force: those of its configuration that no other app has.
    pub fn routes(&self) -> &AppRoutes {
        self.0.routes.as_ref().unwrap_or(&self.0.config.routes)
    }

    /// Why its newest configuration, or one of its routes, is not in force.
    pub fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// Why its configuration on disk is not the one in force. Of an app whose routes alone are not
    /// all its own, it is.
    pub fn stale(&self) -> Option<&str> {
        self.0.stale.as_deref()
    }

    /// The file that configures it, if one does.
    pub fn file(&self) -> Option<String> {
        let (file, _line) = self.0.config.place.rsplit_once(':')?;
        Some(file.to_owned())
    }

    /// Where it comes from.
    pub fn source(&self) -> AppSource {
        self.0.source
    }

    /// What its list in Redis is labelled with; `None`: it has no such list.
    pub fn label(&self) -> Option<&str> {
        Some(self.hosted()?.frontend().label())
    }

    /// Its coordinator, if it has one.
    pub(super) fn coordinator(&self) -> Option<&release::Handle> {
        match &self.0.kind {
            Kind::Managed(handle) => Some(handle),
            _ => None,
        }
    }

    /// Its set of targets, if it has one.
    pub(super) fn targets(&self) -> Option<&targets::Handle> {
        match &self.0.kind {
            Kind::Targets(handle) => Some(handle),
            _ => None,
        }
    }

    /// The app of Redis that it is.
    pub(super) fn hosted(&self) -> Option<&Arc<Hosted>> {
        match &self.0.kind {
            Kind::Redis(hosted) => Some(hosted),
            _ => None,
        }
    }

    /// What drives it, unless the app is only shown because it is being removed.
    pub(super) fn driver(&self) -> Option<Driver> {
        match &self.0.kind {
            _ if self.0.leaves => None,
            Kind::Managed(handle) => Some(Driver::Releases(handle.clone())),
            Kind::Targets(handle) => Some(Driver::Targets(handle.clone())),
            Kind::Redis(_) | Kind::Redirect | Kind::Absent => None,
        }
    }

    /// Whether what drives it has ended by a fault and does not run yet.
    pub(super) fn is_down(&self) -> bool {
        self.0.down
    }

    /// Refuses what nobody could carry out now.
    fn is_driven(&self) -> Result<(), ErrorBody> {
        if !self.is_down() {
            return Ok(());
        }
        let message = format!("app `{}`: {}", self.name(), self.error().unwrap_or_default());
        Err(ErrorBody::new(Code::Busy, "Busy", message).with_hint("try again in a moment"))
    }

    /// The coordinator for what only an app with releases can do; `cannot`: what other apps do not.
    fn releases_or(&self, cannot: &str) -> Result<&release::Handle, ErrorBody> {
        let name = self.name();
        let (why, hint) = match &self.0.kind {
            Kind::Managed(handle) => return Ok(handle),
            Kind::Targets(_) => (
                "it has targets that another program runs, and no releases".to_owned(),
                "portok switch PORT moves its traffic; so does an edit of its `targets`",
            ),
            Kind::Redis(_) => (
                "it is a list in Redis, whose targets another program runs".to_owned(),
                "an edit of that list moves its traffic",
            ),
            Kind::Redirect => (
                "it sends its clients to another host, and has no releases".to_owned(),
                "an edit of its `redirect` sends them elsewhere",
            ),
            Kind::Absent if self.source() == AppSource::Redis => {
                (self.error().unwrap_or("its list is malformed").to_owned(), "mend its list in Redis")
            }
            Kind::Absent => (
                format!("it is not configured: {}", self.error().unwrap_or("its file is not valid")),
                "mend its file, and it is loaded by itself",
            ),
        };
        let message = format!("app `{name}` {cannot}: {why}");
        Err(ErrorBody::new(Code::BadRequest, "Bad request", message).with_hint(hint))
    }

    // ---- what is ----

    /// Its phase.
    pub fn phase(&self) -> Phase {
        match &self.0.kind {
            Kind::Managed(handle) => handle.phase(),
            Kind::Targets(handle) => handle.phase(),
            Kind::Redis(hosted) => hosted.phase(),
            Kind::Redirect => Phase::Settled,
            Kind::Absent => Phase::Empty,
        }
    }

    /// How many of its processes or targets get requests; `None` where it has neither.
    pub fn replicas(&self) -> Option<wire::Replicas> {
        if let Some(targets) = self.targets() {
            return Some(targets.replicas());
        }
        if let Some(hosted) = self.hosted() {
            return Some(hosted.replicas());
        }
        let status = self.coordinator()?.status();
        let one = || wire::Replicas { ready: usize::from(status.active_port.is_some()), wanted: 1 };
        Some(status.replicas.unwrap_or_else(one))
    }

    /// As [`release::Handle::status`]: the app's part of `status`.
    pub fn status(&self) -> wire::Status {
        if let Some(targets) = self.targets() {
            return wire::Status { replicas: Some(targets.replicas()), ..targets.status() };
        }
        if let Some(hosted) = self.hosted() {
            return wire::Status { replicas: Some(hosted.replicas()), ..hosted.status() };
        }
        let own = || wire::Status { phase: self.phase(), ..release::empty_status() };
        self.coordinator().map_or_else(own, release::Handle::status)
    }

    /// As [`release::Handle::status_of_now`].
    pub async fn status_of_now(&self) -> wire::Status {
        match self.coordinator() {
            Some(handle) => handle.status_of_now().await,
            None => self.status(),
        }
    }

    /// Whether what serves is what its configuration says.
    pub fn app_in_force(&self) -> wire::AppInForce {
        if let Some(targets) = self.targets() {
            return targets.app_in_force();
        }
        let all = || wire::AppInForce { in_force: true, why: None };
        self.coordinator().map_or_else(all, release::Handle::app_in_force)
    }

    /// All attempts, newest first.
    pub fn releases(&self) -> Vec<wire::ReleaseRow> {
        self.coordinator().map(release::Handle::releases).unwrap_or_default()
    }

    /// As [`release::Handle::logs`].
    ///
    /// # Errors
    /// `not_found` for an unknown release, `bad_request` for an app that prints nothing here.
    pub fn logs(&self, asked: &wire::LogsRequest) -> Result<wire::Logs, ErrorBody> {
        self.releases_or("prints nothing that portok keeps")?.logs(asked)
    }

    /// Its replicas or targets as they are now. None of an app of Redis: there may be very many,
    /// which nobody here starts, and its status has them.
    pub(super) fn members(&self) -> Vec<release::Member> {
        match &self.0.kind {
            Kind::Managed(handle) => handle.members(),
            Kind::Targets(handle) => handle.members(),
            Kind::Redis(_) | Kind::Redirect | Kind::Absent => Vec::new(),
        }
    }

    /// The last probe of the live target.
    pub fn health(&self) -> wire::HealthMetrics {
        match &self.0.kind {
            Kind::Managed(handle) => handle.health(),
            Kind::Targets(handle) => handle.health(),
            // Portok itself answers, so nothing has to be well.
            Kind::Redirect => wire::HealthMetrics { active_port_ok: true, ..wire::HealthMetrics::default() },
            Kind::Redis(_) | Kind::Absent => wire::HealthMetrics::default(),
        }
    }

    /// Probes what serves now.
    pub async fn check_health(&self) -> wire::Health {
        let own = |healthy, error| wire::Health {
            healthy,
            port: None,
            status: None,
            latency_ms: None,
            error,
            replicas: None,
            idle: false,
        };
        match &self.0.kind {
            Kind::Managed(handle) => handle.check_health().await,
            Kind::Targets(handle) => handle.check_health().await,
            Kind::Redis(hosted) => hosted.health().await,
            Kind::Redirect => own(true, None),
            Kind::Absent => own(false, Some("nothing serves".to_owned())),
        }
    }

    // ---- what is asked for ----

    /// As [`release::Handle::deploy`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app without releases.
    pub async fn deploy(
        &self,
        request: wire::DeployRequest,
        strategy: Option<wire::DeployStrategy>,
        force: bool,
    ) -> Result<Attempt, ErrorBody> {
        let coordinator = self.releases_or("cannot be deployed")?;
        self.is_driven()?;
        coordinator.deploy(request, strategy, force).await
    }

    /// Moves traffic to these ports, as [`release::Handle::switch`] and
    /// [`targets::Handle::switch`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app whose requests go to no port, and for several ports of
    /// one that has no list of targets.
    pub async fn switch(&self, ports: &[u16]) -> Result<wire::Switched, ErrorBody> {
        self.is_driven()?;
        match (&self.0.kind, ports) {
            (Kind::Targets(handle), _) => handle.switch(ports).await,
            (_, [_, _, ..]) if self.config().app.command.is_some() => {
                let message =
                    format!("app `{}` has a command, so it can be switched to one port only", self.name());
                Err(ErrorBody::new(Code::BadRequest, "Bad request", message).with_hint(
                    "name one port; an app of several ports has no `command` in its configuration",
                ))
            }
            _ => {
                let switched = self.releases_or("cannot be switched")?.switch(ports).await?;
                Ok(wire::Switched { warning: self.left_behind(&switched), ..switched })
            }
        }
    }

    /// What whoever switched an app with a command to a port should know.
    fn left_behind(&self, switched: &wire::Switched) -> Option<String> {
        self.config().app.command.as_ref()?;
        let switch = switched.switch.as_ref()?;
        release::spec::unmanaged_port(switch.to_release.as_deref()?)?;
        let name = self.name();
        Some(format!(
            "app `{name}` has a command, and portok neither started what listens on port {} nor starts it \
             again; `portok rollback` goes back, `portok deploy` makes the command live again",
            switch.to
        ))
    }

    /// As [`release::Handle::rollback`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app without releases.
    pub async fn rollback(&self, asked: wire::RollbackRequest) -> Result<Rollback, ErrorBody> {
        let coordinator = self.releases_or("cannot be rolled back")?;
        self.is_driven()?;
        coordinator.rollback(asked).await
    }

    /// Has an operator's order obeyed, as [`release::Handle::order`] and
    /// [`targets::Handle::order`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app that nobody drives.
    pub async fn order(&self, order: Order, said: wire::Said) -> Result<wire::Ordered, ErrorBody> {
        self.is_driven()?;
        match &self.0.kind {
            Kind::Targets(handle) => handle.order(order, said).await,
            _ => self.releases_or("takes no orders")?.order(order, said).await,
        }
    }

    /// As [`release::Handle::scale`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app without processes.
    pub async fn scale(&self, bounds: Bounds, said: wire::Said) -> Result<wire::Scaled, ErrorBody> {
        let coordinator = self.releases_or("cannot be scaled")?;
        self.is_driven()?;
        coordinator.scale(bounds, said).await
    }

    /// As [`release::Handle::drains`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app without releases.
    pub async fn drains(&self, asked: wire::DrainRequest) -> Result<wire::Drain, ErrorBody> {
        let coordinator = self.releases_or("has no drain that portok ends")?;
        self.is_driven()?;
        coordinator.drains(asked).await
    }

    /// Whether an edit of its `[app]` waits for its deploy.
    pub fn has_pending_edit(&self) -> bool {
        self.coordinator().is_some_and(release::Handle::has_pending_edit)
    }

    /// As [`release::Handle::cancel`].
    ///
    /// # Errors
    /// Those, and `bad_request` for an app without releases.
    pub async fn cancel(&self) -> Result<wire::Accepted, ErrorBody> {
        let coordinator = self.releases_or("has nothing to cancel")?;
        self.is_driven()?;
        coordinator.cancel().await
    }
}
