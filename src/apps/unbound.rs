//! The addresses of their own that apps have and that cannot be bound. The daemon owns the list,
//! and tries again; here it is told whose trouble each is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::claims::{InForce, Spot};

/// Addresses that cannot be bound, each with the reason.
pub type Failures = BTreeMap<SocketAddr, String>;

/// See the module.
#[derive(Debug)]
pub(super) struct Unbound {
    failures: watch::Receiver<Failures>,
    /// What was logged, by address and app.
    told: BTreeMap<(SocketAddr, Arc<str>), String>,
}

impl Unbound {
    pub(super) fn new(failures: watch::Receiver<Failures>) -> Self {
        Self { failures, told: BTreeMap::new() }
    }

    /// Waits until others fail. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.failures.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Why some of these addresses cannot be bound.
    pub(super) fn why(&self, addresses: &[SocketAddr]) -> Vec<String> {
        let failures = self.failures.borrow();
        addresses.iter().filter_map(|addr| failures.get(addr).cloned()).collect()
    }

    /// Logs what has begun to fail, and what does not fail any more, with the app that has it.
    pub(super) fn tell(&mut self, in_force: &InForce) {
        let failures = self.failures.borrow();
        let whose = |addr: SocketAddr| in_force.get(&Spot::At(addr)).cloned();
        let now: BTreeMap<_, _> =
            failures.iter().filter_map(|(addr, why)| Some(((*addr, whose(*addr)?), why.clone()))).collect();
        for (whose, why) in &now {
            if self.told.get(whose) != Some(why) {
                tracing::error!(app = &*whose.1, "app `{}`: {why}", whose.1);
            }
        }
        for (addr, app) in self.told.keys().filter(|whose| !now.contains_key(*whose)) {
            if whose(*addr).as_ref() == Some(app) {
                tracing::info!(
                    app = &**app,
                    "app `{app}`: {addr} could not be bound before, and is listened on now"
                );
            }
        }
        self.told = now;
    }
}
