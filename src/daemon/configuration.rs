//! The configuration in force: where it comes from, and what became of the last attempt to load it.
//!
//! Written by the reload alone; everybody else reads it through a watch channel.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::config::{Config, Sources};
use crate::wire::{self, ConfigStatus};

/// See the module.
pub(super) struct Configuration {
    sources: Sources,
    current: watch::Sender<Arc<Config>>,
    status: watch::Sender<ConfigStatus>,
}

impl Configuration {
    /// What the daemon starts with.
    pub(super) fn new(mut sources: Sources, config: Config) -> Self {
        sources.hold_to(&config);
        let status = ConfigStatus {
            file: config.file.as_ref().map(|file| file.display().to_string()),
            loaded_at: wire::rfc3339(SystemTime::now()),
            error: config.apps.as_ref().and_then(|apps| apps.unreadable.clone()),
            app_in_force: None,
            pending: false,
        };
        Self { sources, current: watch::Sender::new(Arc::new(config)), status: watch::Sender::new(status) }
    }

    pub(super) fn sources(&self) -> Sources {
        self.sources.clone()
    }

    pub(super) fn current(&self) -> Arc<Config> {
        Arc::clone(&self.current.borrow())
    }

    pub(super) fn follow(&self) -> watch::Receiver<Arc<Config>> {
        self.current.subscribe()
    }

    pub(super) fn follow_status(&self) -> watch::Receiver<ConfigStatus> {
        self.status.subscribe()
    }

    pub(super) fn replace(&mut self, new: Arc<Config>) {
        // A folder of apps that has appeared has to be there from now on.
        self.sources.hold_to(&new);
        self.current.send_replace(new);
    }

    /// Whether the last attempt to load it failed.
    pub(super) fn is_in_error(&self) -> bool {
        self.status.borrow().error.is_some()
    }

    /// Notes that it was loaded.
    pub(super) fn loaded(&self) {
        self.status.send_modify(|status| {
            status.loaded_at = wire::rfc3339(SystemTime::now());
            status.error = None;
        });
    }

    /// Notes that it could not be loaded. Returns whether the error is a new one.
    pub(super) fn failed(&self, error: &str) -> bool {
        self.status.send_if_modified(|status| {
            let is_new = status.error.as_deref() != Some(error);
            if is_new {
                status.error = Some(error.to_owned());
            }
            is_new
        })
    }
}
