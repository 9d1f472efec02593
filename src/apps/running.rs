//! One app that runs: its service on the board, its configuration in force, and what answers its
//! requests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::app::{App, Facts, Kind};
use super::claims::{Claim, InForce, Origin, Standing, has_all, held};
use super::drivers::Driver;
use super::means::Managed;
use super::restarts::Restarts;
use super::targets;
use super::unbound::Unbound;
use crate::config::{AppConfig, AppRoutes};
use crate::proxy::{Destination, Handling, Service};
use crate::wire::{AppSource, Phase};

/// See the module.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) service: Arc<Service>,
    pub(super) config: watch::Sender<Arc<AppConfig>>,
    pub(super) body: Body,
    pub(super) origin: Origin,
    /// Why it is not as it should be: its file is refused, or gone. Then its routes are another
    /// app's for the asking where it has no configuration.
    pub(super) trouble: Option<Trouble>,
    /// The addresses that it had for itself before. Connections that came there are still its.
    pub(super) left: BTreeSet<SocketAddr>,
    /// The faults of what drives it.
    pub(super) restarts: Restarts,
}

/// What keeps an app from being what is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its file is refused: it stays as it was.
    Refused(String),
    /// Nothing configures it any more.
    Gone(String),
}

/// What answers the requests of an app.
#[derive(Debug)]
pub(super) enum Body {
    Managed(Managed),
    Targets(Driven),
    Redirect,
}

/// A set of targets: its driver, seen from here.
#[derive(Debug)]
pub(super) struct Driven {
    pub(super) handle: targets::Handle,
    /// Cancelled when the driver has ended by a fault.
    pub(super) fell: CancellationToken,
}

/// What an app is, by its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Managed,
    Targets,
    Redirect,
}

impl Nature {
    pub(super) fn of(config: &AppConfig) -> Self {
        match (&config.redirect, &config.targets) {
            (Some(_), _) => Self::Redirect,
            (None, Some(_)) => Self::Targets,
            (None, None) => Self::Managed,
        }
    }
}

impl Trouble {
    fn text(&self) -> &str {
        match self {
            Self::Refused(why) | Self::Gone(why) => why,
        }
    }
}

impl Body {
    /// What drives the app, for messages, where that has ended by a fault.
    pub(super) fn fallen(&self) -> Option<&'static str> {
        match self {
            Self::Managed(managed) => managed.has_fallen().then_some("coordinator"),
            Self::Targets(driven) => driven.fell.is_cancelled().then_some("set of targets"),
            Self::Redirect => None,
        }
    }
}

impl Running {
    pub(super) fn new(
        service: Arc<Service>,
        config: watch::Sender<Arc<AppConfig>>,
        body: Body,
        origin: Origin,
    ) -> Self {
        Self {
            service,
            config,
            body,
            origin,
            trouble: None,
            left: BTreeSet::new(),
            restarts: Restarts::default(),
        }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<AppConfig> {
        Arc::clone(&self.config.borrow())
    }

    pub(super) fn nature(&self) -> Nature {
        match self.body {
            Body::Managed(_) => Nature::Managed,
            Body::Targets(_) => Nature::Targets,
            Body::Redirect => Nature::Redirect,
        }
    }

    fn kind(&self) -> Kind {
        match &self.body {
            Body::Managed(managed) => Kind::Managed(managed.handle.clone()),
            Body::Targets(driven) => Kind::Targets(driven.handle.clone()),
            Body::Redirect => Kind::Redirect,
        }
    }

    /// What drives it, and its name.
    pub(super) fn driver(&self) -> Option<(String, Driver)> {
        let driver = match &self.body {
            Body::Managed(managed) => Driver::Releases(managed.handle.clone()),
            Body::Targets(driven) => Driver::Targets(driven.handle.clone()),
            Body::Redirect => return None,
        };
        Some((self.config.borrow().name.clone(), driver))
    }

    /// Where its routes lead.
    pub(super) fn destination(&self) -> Destination {
        let config = self.config.borrow();
        let how = match &config.redirect {
            Some(to) => Handling::Redirect(to.as_str().into()),
            None if config.routes.strip_prefix => Handling::StripPrefix,
            None => Handling::Pass,
        };
        Destination { service: Arc::clone(&self.service), how }
    }

    /// Whether it can answer.
    pub(super) fn is_healthy(&self) -> bool {
        let phase = match &self.body {
            Body::Managed(managed) => managed.handle.phase(),
            Body::Targets(driven) => driven.handle.phase(),
            Body::Redirect => Phase::Settled,
        };
        matches!(phase, Phase::Watching | Phase::Settled | Phase::Unstable | Phase::Degraded | Phase::Idle)
    }

    /// What it claims.
    pub(super) fn claim(&self) -> Claim {
        let standing = match &self.trouble {
            Some(Trouble::Gone(_)) => Standing::Gone,
            _ if self.is_healthy() => Standing::Healthy,
            _ => Standing::Waiting,
        };
        Claim { config: self.config(), origin: self.origin, standing }
    }

    /// It as others see it; `more`: what else is wrong, such as why it does not get some of its
    /// routes. Without `in_force` it has all that it claims.
    pub(super) fn seen(&self, in_force: Option<&InForce>, more: &[&str], unbound: &Unbound) -> App {
        let config = self.config();
        let routes = in_force.filter(|routes| !has_all(&config, routes)).map(|routes| held(&config, routes));
        let listen = &routes.as_ref().unwrap_or(&config.routes).listen;
        let (unbound, down) = (unbound.why(listen), self.restarts.error());
        let troubles = self.trouble.iter().map(Trouble::text).chain(more.iter().copied());
        let troubles = troubles.chain(unbound.iter().map(String::as_str)).chain(down.as_deref());
        let troubles: Vec<_> = troubles.collect();
        App::new(Facts {
            counters: Arc::clone(self.service.counters()),
            kind: self.kind(),
            routes,
            stale: self.trouble.as_ref().map(|trouble| trouble.text().to_owned()),
            error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            source: AppSource::File,
            config,
            leaves: false,
            down: self.restarts.is_down(),
        })
    }
}

/// The configuration of an app whose own is not there: what stands for every app, and no route.
pub(super) fn without_configuration(of_all: &AppConfig, name: &str) -> Arc<AppConfig> {
    let routes = AppRoutes { hosts: Vec::new(), listen: Vec::new(), ..AppRoutes::default() };
    Arc::new(AppConfig { name: name.to_owned(), place: String::new(), routes, ..of_all.clone() })
}
