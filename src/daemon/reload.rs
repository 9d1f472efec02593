//! A reload of the configuration: all of it, or nothing. What can fail is done before anything
//! changes.

use std::sync::Arc;
use std::time::Duration;

use super::Daemon;
use super::admin_server::AdminServer;
use super::listeners::{self, Listening};
use crate::apps;
use crate::config::{self, Config};
use crate::logging;
use crate::proxy::ListenerId;
use crate::wire::{self, Code, ErrorBody};

/// How long reading the configuration may take.
const LOAD_WITHIN: Duration = Duration::from_secs(10);

impl Daemon {
    /// Reloads, and tells the service manager of it, if that has been told that the daemon is
    /// ready.
    pub(super) async fn announced_reload(
        &mut self,
        booted: bool,
        prune: bool,
    ) -> Result<wire::Reloaded, ErrorBody> {
        if booted {
            self.manager.reloading();
        }
        let outcome = self.reload(prune).await;
        if booted {
            self.manager.ready();
        }
        outcome
    }

    /// Loads the configuration again: all of it, or nothing. Of several apps each is all or nothing
    /// for itself; with `prune` those that are gone are removed, however many they are.
    pub(super) async fn reload(&mut self, prune: bool) -> Result<wire::Reloaded, ErrorBody> {
        let outcome = self.try_reload(prune).await;
        match &outcome {
            Ok(reloaded) => {
                let apps = reloaded.apps.iter().map(|app| format!("{} {}", app.change.as_str(), app.app));
                let changed: Vec<_> = reloaded.changed.iter().cloned().chain(apps).collect();
                let new = self.configuration.current();
                match new.apps.as_ref().and_then(|apps| apps.unreadable.as_ref()) {
                    Some(why) => {
                        if self.configuration.failed(why) {
                            tracing::error!("{why}: all apps stay as they are");
                        }
                    }
                    None => {
                        tracing::info!(changed = changed.join(", "), "{}", reloaded.message);
                        self.configuration.loaded();
                    }
                }
            }
            Err(error) => {
                let all =
                    if error.errors.is_empty() { error.message.clone() } else { error.errors.join("; ") };
                if self.configuration.failed(&all) {
                    tracing::error!("the configuration was not loaded: {all}");
                }
            }
        }
        outcome
    }

    async fn try_reload(&mut self, prune: bool) -> Result<wire::Reloaded, ErrorBody> {
        let new = self.load().await?;
        let old = self.configuration.current();
        let diff = config::diff(&old, &new);
        if !diff.refused.is_empty() {
            return Err(invalid(diff.refused));
        }
        // What can fail comes before anything is changed.
        let mut listening = self.listeners.prepare(&self.wanted(&new));
        // An app has its routes before anything is accepted for it.
        let own = listening.hold_back();
        if let Some((addr, error)) = listening.refusal() {
            return Err(invalid(vec![format!("listen: cannot bind {addr}: {error}")]));
        }
        let access = self.access.prepare(&new.access).map_err(|why| invalid(vec![why]))?;
        let socket = match diff.socket {
            true => Some(self.admin.prepare(&old, &new).map_err(|error| invalid(vec![error.to_string()]))?),
            false => None,
        };
        // A certificate is there before anybody is told of it.
        self.certificates.configure(&new).await;
        let changed = self.listeners.change(listening, &self.plane, &self.manager).await;
        if let Err((addr, error)) = changed {
            self.certificates.configure(&old).await;
            let prepared = socket.and_then(AdminServer::give_up);
            self.background.finish(prepared);
            return Err(invalid(vec![format!("listen: cannot accept on {addr}: {error}")]));
        }
        if let Some(socket) = socket {
            // A reload that came through the former one is answered there.
            let former = self.admin.change(socket);
            self.background.finish(former);
        }
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        self.configuration.replace(Arc::clone(&new));
        self.access.change(access);
        self.plane.record(self.access.recorder(&new.access));
        self.plane.configure(Arc::clone(&new));
        logging::set_levels(&new.log.level);
        self.common.avoid(listeners::named_ports(&new));
        let mut apps = self.apps.reconfigure(new, prune).await?;
        for app in apps.iter_mut().filter(|app| app.change == wire::AppChange::Changed) {
            app.why = diff.apps.changed.get(&app.app).map(|keys| keys.join(", "));
        }
        self.follow_addresses(own).await;
        apps.extend(self.without_their_addresses());
        let current = self.configuration.current();
        let unreadable = current.apps.as_ref().and_then(|several| several.unreadable.as_deref());
        let (success, message) = judged(unreadable, &apps, diff.is_empty());
        Ok(wire::Reloaded { success, message, changed: diff.changed, apps })
    }

    /// What is listened on with this configuration: besides what it says, the addresses that apps
    /// have now.
    fn wanted(&self, config: &Config) -> Vec<ListenerId> {
        let mut own = apps::addresses_of(config);
        own.extend(self.apps.addresses().borrow().iter());
        listeners::wanted(config, &own)
    }

    /// Listens where the apps have addresses of their own now, some of which are `bound` already,
    /// and leaves those that are no app's any more.
    pub(super) async fn follow_addresses(&mut self, bound: Vec<Listening>) {
        let config = self.configuration.current();
        let wanted = listeners::wanted(&config, &self.apps.addresses().borrow());
        let followed = self.listeners.arrange(&wanted, bound, &self.plane, &self.manager).await;
        if let Err((addr, error)) = followed {
            tracing::error!("cannot accept on {addr}: {error}");
        }
    }

    /// Tries again what may not have come about, and looks whether the admin socket is in its
    /// place.
    pub(super) async fn look_again(&mut self) {
        self.follow_addresses(Vec::new()).await;
        self.look_for_socket();
    }

    /// The apps that cannot be reached at an address of their own.
    fn without_their_addresses(&self) -> Vec<wire::AppReload> {
        let failed = self.listeners.failed().borrow().clone();
        let of = |app: apps::App| {
            let why = app.routes().listen.iter().find_map(|addr| failed.get(addr))?;
            let (change, why) = (wire::AppChange::Partial, Some(why.clone()));
            Some(wire::AppReload { app: app.name().to_owned(), change, why })
        };
        if failed.is_empty() { Vec::new() } else { self.apps.of_files().into_iter().filter_map(of).collect() }
    }

    /// Reads the configuration as it is now.
    async fn load(&self) -> Result<Arc<Config>, ErrorBody> {
        let sources = self.configuration.sources();
        let loading = tokio::task::spawn_blocking(move || config::load(&sources));
        let loaded = tokio::time::timeout(LOAD_WITHIN, loading)
            .await
            .map_err(|_elapsed| invalid(vec![format!("the file could not be read within {LOAD_WITHIN:?}")]))?
            .map_err(|error| ErrorBody::new(Code::Internal, "Internal error", error.to_string()))?;
        loaded.map(Arc::new).map_err(|errors| invalid(errors.problems))
    }
}

/// Whether all that was loaded is in force, and a sentence that says so. `unreadable`: why the
/// folder of apps cannot be read.
fn judged(unreadable: Option<&str>, apps: &[wire::AppReload], is_same: bool) -> (bool, String) {
    use wire::AppChange::{Partial, Refused};
    let falls_short = || apps.iter().any(|app| matches!(app.change, Refused | Partial));
    let (success, but) = match unreadable {
        Some(why) => (false, format!(", but not its folder of apps: {why}")),
        None if falls_short() => (false, ", but not all of it is in force".to_owned()),
        None if is_same && apps.is_empty() => (true, "; nothing differs".to_owned()),
        None => (true, String::new()),
    };
    (success, format!("configuration loaded{but}"))
}

/// The refusal of a configuration with these problems.
fn invalid(problems: Vec<String>) -> ErrorBody {
    let message = match &problems[..] {
        [problem] => problem.clone(),
        several => {
            format!("{} problems, the first: {}", several.len(), several.first().map_or("", String::as_str))
        }
    };
    let mut body = ErrorBody::new(Code::ConfigInvalid, "Configuration invalid", message);
    body.errors = problems;
    body.with_hint("nothing has changed; mend the file and it is loaded again")
}
