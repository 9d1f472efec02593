//! One app of Redis as others see it: what its list says, and how its targets are.
//!
//! A [`Hosted`] is what the list said at one moment; where the list changes, another one takes its
//! place. Its targets are shared with the data plane.

use std::sync::Arc;

use super::probes::{Probed, Verdict};
use super::targets::{Targets, health_of};
use crate::config::AppRoutes;
use crate::proxy::{ServiceCounters, Target};
use crate::redis::Frontend;
use crate::release;
use crate::wire::{self, Phase, TargetState};

/// See the module.
#[derive(Debug)]
pub(super) struct Hosted {
    name: String,
    frontend: Arc<Frontend>,
    /// In the order of the list.
    targets: Targets,
    /// The counters of all apps of Redis together.
    counters: Arc<ServiceCounters>,
    /// What the probes of its targets say; `None`: there are none.
    probed: Option<Probed>,
}

impl Hosted {
    pub(super) fn new(
        frontend: Arc<Frontend>,
        targets: Targets,
        counters: Arc<ServiceCounters>,
        probed: Option<Probed>,
    ) -> Self {
        Self { name: frontend.app(), frontend, targets, counters, probed }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its list says.
    pub(super) fn frontend(&self) -> &Arc<Frontend> {
        &self.frontend
    }

    /// The requests that its list is for.
    pub(super) fn routes(&self) -> AppRoutes {
        AppRoutes { hosts: vec![self.frontend.hosts().clone()], ..AppRoutes::default() }
    }

    /// Its targets, each with whether it is out.
    fn targets(&self) -> impl Iterator<Item = (&Arc<Target>, bool)> {
        let out = self.verdict().out;
        let is_out = move |place, target: &Target| out.contains(&place) || target.is_out(&self.counters);
        self.targets.iter().enumerate().map(move |(place, target)| (target, is_out(place, target)))
    }

    fn verdict(&self) -> Verdict {
        let probed = self.probed.as_ref();
        probed.map(|probed| probed.verdict(self.frontend.targets())).unwrap_or_default()
    }

    /// Its phase: without probes all is well with it.
    pub(super) fn phase(&self) -> Phase {
        if self.verdict().is_unhealthy { Phase::Unhealthy } else { Phase::Settled }
    }

    /// How many targets get requests, and how many the list has.
    pub(super) fn replicas(&self) -> wire::Replicas {
        let ready = self.targets().filter(|(_, is_out)| !is_out).count();
        wire::Replicas { ready, wanted: self.targets.len() }
    }

    /// The app's part of `status`.
    pub(super) fn status(&self) -> wire::Status {
        let targets = self.targets().map(|(target, is_out)| wire::TargetStatus {
            address: target.addr().to_string(),
            state: if is_out { TargetState::Ejected } else { TargetState::Ready },
            inflight: target.inflight(),
            last_error: self.probed.as_ref().and_then(|probed| probed.error(target.addr())),
        });
        wire::Status {
            active_port: self.targets.first().map(|target| target.addr().port()),
            phase: self.phase(),
            targets: targets.collect(),
            ..release::empty_status()
        }
    }

    /// How it is now: with `redis.probe` its targets that get requests are asked. Without, nobody
    /// asks them, and they count as healthy.
    pub(super) async fn health(&self) -> wire::Health {
        let Some(probed) = &self.probed else {
            let port = self.targets.first().map(|target| target.addr().port());
            let (status, latency_ms, error, replicas) = (None, None, None, None);
            return wire::Health { healthy: true, port, status, latency_ms, error, replicas, idle: false };
        };
        let serving = self.targets().filter(|(_, is_out)| !is_out).map(|(target, _)| (target.addr(), true));
        health_of(probed.prober(), &probed.config(), &serving.collect::<Vec<_>>()).await
    }
}
