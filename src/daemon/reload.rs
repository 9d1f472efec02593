//! A reload: all of it, or nothing. What can fail is done before anything is changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Daemon, SocketTask, StartError, open_socket, socket_group};
use crate::config::{self, Config};
use crate::wire::{self, Code, ErrorBody};
use crate::{admin, proxy};

/// How long reading the configuration may take.
const LOAD_WITHIN: Duration = Duration::from_secs(10);

/// The admin socket after a reload.
enum Socket {
    /// At another place.
    Fresh(Option<SocketTask>),
    /// At the same place, for another group.
    Shared { path: PathBuf, group: Option<u32> },
}

impl Daemon {
    /// A reload that the service manager hears of, once it was told that the daemon is ready.
    pub(super) async fn announced_reload(&mut self, booted: bool) -> Result<wire::Reloaded, ErrorBody> {
        if booted {
            self.manager.reloading();
        }
        let outcome = self.reload().await;
        if booted {
            self.manager.ready();
        }
        outcome
    }

    /// Loads the configuration again: all of it, or nothing.
    pub(super) async fn reload(&mut self) -> Result<wire::Reloaded, ErrorBody> {
        let outcome = self.try_reload().await;
        match &outcome {
            Ok(reloaded) => {
                tracing::info!(changed = reloaded.changed.join(", "), "{}", reloaded.message);
                self.config_status.send_modify(|status| {
                    status.loaded_at = wire::rfc3339(SystemTime::now());
                    status.error = None;
                });
            }
            Err(error) => {
                let all =
                    if error.errors.is_empty() { error.message.clone() } else { error.errors.join("; ") };
                if self.config_status.borrow().error.as_ref() != Some(&all) {
                    tracing::error!("the configuration was not loaded: {all}");
                    self.config_status.send_modify(|status| status.error = Some(all));
                }
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<wire::Reloaded, ErrorBody> {
        let invalid = |problems: Vec<String>| {
            let message = match &problems[..] {
                [problem] => problem.clone(),
                several => format!(
                    "{} problems, the first: {}",
                    several.len(),
                    several.first().map_or("", String::as_str)
                ),
            };
            let mut body = ErrorBody::new(Code::ConfigInvalid, "Configuration invalid", message);
            body.errors = problems;
            body.with_hint("nothing has changed; mend the file and it is loaded again")
        };
        let sources = self.sources.clone();
        let loading = tokio::task::spawn_blocking(move || config::load(&sources));
        let loaded = tokio::time::timeout(LOAD_WITHIN, loading)
            .await
            .map_err(|_elapsed| invalid(vec![format!("the file could not be read within {LOAD_WITHIN:?}")]))?
            .map_err(|error| ErrorBody::new(Code::Internal, "Internal error", error.to_string()))?;
        let new = Arc::new(loaded.map_err(|errors| invalid(errors.problems))?);
        let old = Arc::clone(&self.config.borrow());
        let diff = config::diff(&old, &new);
        if !diff.refused.is_empty() {
            return Err(invalid(diff.refused));
        }
        // What can fail comes before anything is changed.
        let listener = if diff.listen {
            let bound = proxy::bind(new.listen)
                .map_err(|error| invalid(vec![format!("listen: cannot bind {}: {error}", new.listen)]))?;
            Some(bound)
        } else {
            None
        };
        let socket = if diff.socket {
            Some(self.prepare_socket(&old, &new).map_err(|error| invalid(vec![error.to_string()]))?)
        } else {
            None
        };
        if let Some(listener) = listener {
            let bound = listener.local_addr();
            let public = listener.try_clone().map_err(|error| invalid(vec![format!("listen: {error}")]))?;
            self.plane.rebind(listener).await.map_err(|error| {
                invalid(vec![format!("listen: cannot accept on {}: {error}", new.listen)])
            })?;
            self.manager.forget();
            self.manager.keep(&public);
            self.public = Some(public);
            if let Ok(bound) = bound {
                tracing::info!("listening on {bound}");
                self.listen.send_replace(bound);
            }
        }
        match socket {
            None => {}
            Some(Socket::Shared { path, group }) => admin::share_socket(&path, group)
                .map_err(|error| invalid(vec![format!("admin.socket_group: {error}")]))?,
            // The former one answers what is under way in the background: a reload that came through it is among that.
            Some(Socket::Fresh(fresh)) => {
                if let Some(former) = std::mem::replace(&mut self.socket, fresh) {
                    self.background.spawn(former.end());
                }
            }
        }
        for warning in &new.warnings {
            tracing::warn!("{warning}");
        }
        self.config.send_replace(new);
        let differs = if diff.is_empty() { "; nothing differs" } else { "" };
        Ok(wire::Reloaded {
            success: true,
            message: format!("configuration loaded{differs}"),
            changed: diff.changed,
        })
    }

    /// What a changed admin socket needs: all of it that can fail, before anything else has changed.
    fn prepare_socket(&self, old: &Config, new: &Config) -> Result<Socket, StartError> {
        match &new.admin.socket {
            // The same path cannot be bound twice: the socket that is there gets its new group.
            Some(path) if old.admin.socket == new.admin.socket && self.socket.is_some() => {
                Ok(Socket::Shared { path: path.clone(), group: socket_group(new)? })
            }
            _ => open_socket(new, &self.admin, admin::bind_socket).map(Socket::Fresh),
        }
    }
}
