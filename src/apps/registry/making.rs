//! How apps are made: with a service on the board, and what drives them. Nothing of them runs
//! before the registry does ([`Registry::run_prepared`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::super::claims::Origin;
use super::super::leaving::Leaving;
use super::super::means::{Owner, Prepared};
use super::super::plan::Missing;
use super::super::running::{Body, Nature, Running, without_configuration};
use super::{Ended, Registry};
use crate::config::AppConfig;
use crate::release::records::Removed;
use crate::release::store::{Found, Store};

impl Registry {
    /// Notes that an app cannot begin.
    pub(in crate::apps) fn leave_out(&mut self, name: &str, why: String) {
        if self.absent.get(name) != Some(&why) {
            tracing::error!(app = name, "app `{name}` is left out: {why}");
        }
        self.absent.insert(name.to_owned(), why);
    }

    /// Makes an app of several; a managed one with what was found of its record. `removed`: the
    /// records that were set aside.
    pub(super) fn begin(
        &mut self,
        name: &str,
        new: Arc<AppConfig>,
        opened: Option<(Store, Found)>,
        removed: &Removed,
    ) {
        let (service, route) = self.means.board.add(Arc::clone(&new), &self.means.counters);
        let origin = Origin::of(&self.config, &new);
        let config = watch::Sender::new(new);
        let body = match opened {
            None if Nature::of(&config.borrow()) == Nature::Targets => {
                Body::Targets(self.begin_set(name, config.subscribe(), (&service, route), removed))
            }
            None => Body::Redirect,
            Some(opened) => {
                let owner = Some(name.to_owned());
                let turns = self.means.turns.clone();
                let made = self.means.manage(&owner, config.subscribe(), (&service, route), opened, turns);
                match made {
                    Ok((managed, prepared)) => {
                        self.prepared.push((owner, prepared));
                        Body::Managed(managed)
                    }
                    Err(error) => return self.leave_out(name, error.to_string()),
                }
            }
        };
        self.absent.remove(name);
        self.running.insert(name.to_owned(), Running::new(service, config, body, origin));
    }

    /// Makes what stops an app that nothing configures, and takes its record away.
    pub(in crate::apps) fn begin_to_stop(&mut self, owner: Owner, opened: (Store, Found)) {
        let name = owner.as_deref().unwrap_or(&self.config.name);
        let config = without_configuration(&self.config.app, name);
        let (service, route) = self.means.board.add(Arc::clone(&config), &self.means.counters);
        let config = watch::Sender::new(config);
        match self.means.manage(&owner, config.subscribe(), (&service, route), opened, None) {
            Ok((managed, prepared)) => {
                tracing::warn!(
                    app = name,
                    "nothing configures app `{name}` any more: what runs of it is stopped"
                );
                self.prepared.push((owner.clone(), prepared));
                self.leaving.insert(owner, Leaving { managed, service, config });
            }
            Err(error) => tracing::error!(app = name, "app `{name}` cannot be stopped: {error}"),
        }
    }

    /// Begins an app of several with the daemon, from what was found of its record.
    pub(in crate::apps) fn begin_at_start(
        &mut self,
        name: &str,
        record: Option<(Store, Found)>,
        removed: &Removed,
    ) {
        let configured = self.several().and_then(|several| several.apps.get(name)).cloned();
        let config = configured.unwrap_or_else(|| without_configuration(&self.config.app, name));
        self.begin(name, config, record, removed);
    }

    /// Notes which apps are missing as the daemon begins.
    pub(in crate::apps) fn take_missing(&mut self, missing: BTreeMap<String, Missing>) {
        self.plan.missing = missing;
    }

    /// Takes the one app of an instance that has one.
    pub(in crate::apps) fn take_the_one(&mut self, running: Running, prepared: Prepared) {
        self.prepared.push((None, prepared));
        self.running.insert(running.config().name.clone(), running);
    }

    /// Lets run what was made.
    pub(super) fn run_prepared(&mut self) {
        for prepared in self.drivers.drain(..) {
            self.tasks.spawn(prepared.run());
        }
        for (owner, prepared) in self.prepared.drain(..) {
            self.tasks.spawn(async move {
                prepared.run().await;
                Ended::Driver(owner)
            });
        }
    }
}
