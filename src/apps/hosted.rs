//! One app of Redis as others see it: what its list says, and how its targets are.
//!
//! A [`Hosted`] is what the list said at one moment; where the list changes, another one takes its
//! place. Its targets are shared with the data plane.

use std::sync::Arc;

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
    targets: Box<[Arc<Target>]>,
    /// The counters of all apps of Redis together.
    counters: Arc<ServiceCounters>,
}

impl Hosted {
    pub(super) fn new(
        frontend: Arc<Frontend>,
        targets: &[Arc<Target>],
        counters: Arc<ServiceCounters>,
    ) -> Self {
        Self { name: frontend.app(), frontend, targets: targets.into(), counters }
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

    /// How many targets get requests, and how many the list has.
    pub(super) fn replicas(&self) -> wire::Replicas {
        let ready = self.targets.iter().filter(|target| !target.is_out(&self.counters)).count();
        wire::Replicas { ready, wanted: self.targets.len() }
    }

    /// Requests and tunnels in flight.
    pub(super) fn inflight(&self) -> u64 {
        self.targets.iter().map(|target| target.inflight()).sum()
    }

    /// The app's part of `status`.
    pub(super) fn status(&self) -> wire::Status {
        let targets = self.targets.iter().map(|target| {
            let is_out = target.is_out(&self.counters);
            wire::TargetStatus {
                address: target.addr().to_string(),
                state: if is_out { TargetState::Ejected } else { TargetState::Ready },
                inflight: target.inflight(),
                last_error: None,
            }
        });
        wire::Status {
            active_port: self.targets.first().map(|target| target.addr().port()),
            phase: Phase::Settled,
            targets: targets.collect(),
            ..release::empty_status()
        }
    }

    /// How it is: nobody probes its targets, so they count as healthy.
    pub(super) fn health(&self) -> wire::Health {
        let port = self.targets.first().map(|target| target.addr().port());
        wire::Health { healthy: true, port, status: None, latency_ms: None, error: None, replicas: None }
    }
}
