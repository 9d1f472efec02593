//! Whether the addresses of several apps fit together: no app has a target where portok itself
//! listens, or its requests would go in a circle. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::AppConfig;
use super::address::takes;

/// Where portok listens and where apps have targets, as far as it is accepted.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    listeners: Addresses,
    targets: Addresses,
}

/// Addresses by port, each with the app whose it is; `None`: the instance's.
type Addresses = BTreeMap<u16, Vec<(SocketAddr, Option<Arc<AppConfig>>)>>;

impl Accepted {
    /// An instance that listens at these addresses and has no app.
    pub(super) fn instance(listen: &[SocketAddr]) -> Self {
        let mut accepted = Self::default();
        add(&mut accepted.listeners, listen, None);
        accepted
    }

    /// Accepts an app.
    pub(super) fn add(&mut self, app: &Arc<AppConfig>) {
        add(&mut self.listeners, &app.routes.listen, Some(app));
        add(&mut self.targets, app.targets.iter().flatten(), Some(app));
    }

    /// What was expected instead of the app's targets. `None`: portok listens at none of them.
    pub(super) fn instead_of_targets(&self, app: &AppConfig) -> Option<String> {
        app.targets.iter().flatten().find_map(|target| {
            let of_others = find(&self.listeners, target.port(), |own| takes(own, *target, &[]));
            let is_own = || app.routes.listen.iter().any(|own| takes(*own, *target, &[]));
            let whose = of_others.or_else(|| is_own().then_some(Some(app)))?;
            Some(format!("addresses other than {target}, where portok itself listens ({})", called(whose)))
        })
    }

    /// What was expected instead of the addresses where the app listens. `None`: none of them is
    /// another app's target.
    pub(super) fn instead_of_listen(&self, app: &AppConfig) -> Option<String> {
        app.routes.listen.iter().find_map(|own| {
            let whose = find(&self.targets, own.port(), |target| takes(*own, target, &[]))?;
            Some(format!(
                "addresses other than {own}, which takes the requests to a target ({})",
                called(whose)
            ))
        })
    }
}

fn add<'a>(
    addresses: &mut Addresses,
    new: impl IntoIterator<Item = &'a SocketAddr>,
    whose: Option<&Arc<AppConfig>>,
) {
    for address in new {
        addresses.entry(address.port()).or_default().push((*address, whose.cloned()));
    }
}

/// Whose the first of the addresses with this port is that is looked for.
fn find(addresses: &Addresses, port: u16, is_it: impl Fn(SocketAddr) -> bool) -> Option<Option<&AppConfig>> {
    let (_, whose) = addresses.get(&port)?.iter().find(|(address, _)| is_it(*address))?;
    Some(whose.as_deref())
}

/// Whose an address is, with the place, for a message.
fn called(whose: Option<&AppConfig>) -> String {
    whose.map_or_else(|| "listen".to_owned(), |app| format!("the app {}, {}", app.name, app.place))
}
