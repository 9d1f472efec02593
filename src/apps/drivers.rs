//! What drives an app, of whichever kind: what all of them are told and asked together.

use std::net::SocketAddr;

use super::targets;
use crate::release;
use crate::wire::{Ended, ErrorBody};

/// The driver of one app.
#[derive(Debug, Clone)]
pub(super) enum Driver {
    /// Its coordinator.
    Releases(release::Handle),
    /// That of its set of targets.
    Targets(targets::Handle),
}

impl Driver {
    /// Waits until it has acted on what a first probe found.
    pub(super) async fn first_probe(&self) {
        match self {
            Self::Releases(app) => {
                app.first_probe().await;
                app.beat().await;
            }
            Self::Targets(app) => app.first_probe().await,
        }
    }

    pub(super) async fn booted(&self) {
        if let Self::Releases(app) = self {
            app.booted().await;
        }
    }

    pub(super) async fn beat(&self) {
        match self {
            Self::Releases(app) => app.beat().await,
            Self::Targets(app) => app.pulse().await,
        }
    }

    pub(super) async fn changed(&mut self) -> bool {
        match self {
            Self::Releases(app) => app.changed().await,
            Self::Targets(app) => app.changed().await,
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        match self {
            Self::Releases(app) => app.in_flight(),
            Self::Targets(app) => app.inflight(),
        }
    }

    pub(super) async fn may_freeze(&self) -> Result<(), ErrorBody> {
        match self {
            Self::Releases(app) => app.may_freeze().await,
            Self::Targets(app) => app.may_freeze().await,
        }
    }

    pub(super) async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        match self {
            Self::Releases(app) => app.freeze(interrupt).await,
            Self::Targets(app) => app.freeze(interrupt).await,
        }
    }

    pub(super) async fn thaw(&self) {
        match self {
            Self::Releases(app) => app.thaw().await,
            Self::Targets(app) => app.thaw().await,
        }
    }

    pub(super) async fn leave(&self, successor: Option<SocketAddr>) {
        match self {
            Self::Releases(app) => app.leave(successor).await,
            Self::Targets(app) => app.leave().await,
        }
    }

    pub(super) async fn shut_down(&self) {
        match self {
            Self::Releases(app) => app.shut_down().await,
            Self::Targets(app) => app.shut_down().await,
        }
    }

    /// Gives back how each process ended. Of targets nothing is stopped here.
    pub(super) async fn stop_all(&self) -> Vec<Ended> {
        match self {
            Self::Releases(app) => app.stop_all().await,
            Self::Targets(app) => {
                app.stop().await;
                Vec::new()
            }
        }
    }

    /// Of targets nothing is stopped here.
    pub(super) async fn kill_all(&self) {
        if let Self::Releases(app) = self {
            app.kill_all().await;
        }
    }
}
