//! The admin API's place in the daemon: the socket on which it is served, and the orders to the
//! daemon itself that come through it.
//!
//! A socket that is replaced or given up still answers what is under way: its [`SocketTask`] is
//! returned, for the caller to join.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::configuration::Configuration;
use crate::admin::{self, Admin};
use crate::apps::Apps;
use crate::config::Config;
use crate::proxy::Counters;
use crate::tls::Certificates;

/// How long admin requests may still be answered when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// How a socket is bound: in a place that is free, or in that of another daemon's.
pub(super) type Bind = fn(&Path, Option<u32>) -> Result<UnixListener, String>;

/// See the module.
pub(super) struct AdminServer {
    admin: Arc<Admin>,
    socket: Option<SocketTask>,
    /// It was served at a place where nothing is any more.
    lost: bool,
    pub(super) reloads: mpsc::Receiver<admin::ReloadOrder>,
    pub(super) upgrades: mpsc::Receiver<admin::UpgradeOrder>,
    pub(super) shutdowns: mpsc::Receiver<admin::ShutdownOrder>,
}

/// The task that serves a socket.
pub(super) struct SocketTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The socket after a reload.
pub(super) enum NewSocket {
    /// At another place, or none any more.
    Fresh(Option<SocketTask>),
    /// At the same place, for another group than `former`.
    Shared { path: PathBuf, former: Option<u32> },
}

impl SocketTask {
    /// Answers what is under way, and ends.
    pub(super) async fn end(self) {
        self.stop.cancel();
        let _panicked = self.task.await;
    }
}

impl AdminServer {
    /// Serves the admin socket that the configuration wants.
    ///
    /// # Errors
    /// The socket that is configured cannot be bound, or its group does not exist.
    pub(super) fn open(
        configuration: &Configuration,
        apps: &Apps,
        counters: &Arc<Counters>,
        certificates: &Certificates,
        listen: watch::Receiver<Vec<SocketAddr>>,
        bind: Bind,
    ) -> Result<Self, StartError> {
        let (reload, reloads) = mpsc::channel(1);
        let (upgrade, upgrades) = mpsc::channel(1);
        let (shutdown, shutdowns) = mpsc::channel(1);
        let admin = Admin::new(admin::Parts {
            apps: apps.clone(),
            config: configuration.follow(),
            config_status: configuration.follow_status(),
            counters: Arc::clone(counters),
            certificates: certificates.clone(),
            reload,
            upgrade,
            shutdown,
            listen,
            started_at: SystemTime::now(),
            control: tokio::runtime::Handle::current(),
        });
        let socket = open_socket(&configuration.current(), &admin, bind)?;
        Ok(Self { admin, socket, lost: false, reloads, upgrades, shutdowns })
    }

    /// What answers the reserved paths on the public port.
    pub(super) fn public(&self) -> Arc<admin::Public> {
        Arc::new(admin::Public::new(Arc::clone(&self.admin)))
    }

    /// Takes no more orders. A client that sent one, or sends one now, is told so at once.
    pub(super) fn close(&mut self) {
        self.reloads.close();
        while self.reloads.try_recv().is_ok() {}
        self.upgrades.close();
        while self.upgrades.try_recv().is_ok() {}
        self.shutdowns.close();
        while self.shutdowns.try_recv().is_ok() {}
    }

    /// Prepares the socket of a new configuration: all of it that can fail, before anything else
    /// changes. What is prepared is then [put in force](Self::change) or [given up](Self::give_up).
    ///
    /// # Errors
    /// As [`AdminServer::open`]; or the socket that is there cannot be given to its new group.
    pub(super) fn prepare(&self, old: &Config, new: &Config) -> Result<NewSocket, StartError> {
        match &new.admin.socket {
            // The same path cannot be bound twice: the socket that is there gets its new group.
            Some(path) if old.admin.socket == new.admin.socket && self.socket.is_some() => {
                let group = socket_group(new)?;
                let former = socket_group(old).ok().flatten();
                admin::share_socket(path, group)
                    .map_err(|error| StartError::Socket(format!("admin.socket_group: {error}")))?;
                Ok(NewSocket::Shared { path: path.clone(), former })
            }
            _ => open_socket(new, &self.admin, admin::bind_socket).map(NewSocket::Fresh),
        }
    }

    /// Puts what was prepared in the place of the socket. Returns the former one.
    pub(super) fn change(&mut self, prepared: NewSocket) -> Option<SocketTask> {
        match prepared {
            NewSocket::Fresh(fresh) => std::mem::replace(&mut self.socket, fresh),
            NewSocket::Shared { .. } => None,
        }
    }

    /// Takes back what was prepared. Returns a socket that is served for nothing.
    pub(super) fn give_up(prepared: NewSocket) -> Option<SocketTask> {
        match prepared {
            NewSocket::Fresh(fresh) => fresh,
            NewSocket::Shared { path, former } => {
                if let Err(error) = admin::share_socket(&path, former) {
                    tracing::warn!("the admin socket stays open to its new group: {error}");
                }
                None
            }
        }
    }

    /// Whether it was served at a place where nothing is any more: the folder may have been
    /// cleared.
    pub(super) fn is_lost(&mut self, config: &Config) -> bool {
        let is_missing =
            |path: &PathBuf| path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        let gone = config.admin.socket.as_ref().is_some_and(is_missing);
        self.lost = gone && (self.lost || self.socket.is_some());
        self.lost
    }

    /// Binds the socket once more, in the place of whatever is there. Returns the former one.
    ///
    /// # Errors
    /// As [`AdminServer::open`].
    pub(super) fn open_again(&mut self, config: &Config) -> Result<Option<SocketTask>, StartError> {
        let fresh = open_socket(config, &self.admin, admin::replace_socket)?;
        Ok(std::mem::replace(&mut self.socket, fresh))
    }

    /// Gives the socket up: another daemon has its place.
    pub(super) fn leave_socket(&mut self) -> Option<SocketTask> {
        self.socket.take()
    }

    /// Answers what is under way, and ends.
    pub(super) async fn end(self) {
        if let Some(socket) = self.socket {
            socket.end().await;
        }
        if tokio::time::timeout(LAST_ANSWERS, self.admin.finish()).await.is_err() {
            tracing::warn!("an admin request was still being answered after {LAST_ANSWERS:?}");
        }
    }
}

/// Serves the admin socket, bound by `bind`. If the default place cannot be made, that is a
/// warning.
fn open_socket(config: &Config, admin: &Arc<Admin>, bind: Bind) -> Result<Option<SocketTask>, StartError> {
    let Some(path) = &config.admin.socket else { return Ok(None) };
    let group = socket_group(config)?;
    let listener = match bind(path, group) {
        Ok(listener) => listener,
        Err(error) if config.admin.socket_configured => return Err(StartError::Socket(error)),
        Err(error) => {
            tracing::warn!("there is no admin socket: {error}");
            return Ok(None);
        }
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(admin::serve_socket(listener, path.clone(), Arc::clone(admin), stop.clone()));
    Ok(Some(SocketTask { stop, task }))
}

/// The group that may use the socket, if one is configured.
///
/// # Errors
/// There is no such group.
pub(super) fn socket_group(config: &Config) -> Result<Option<u32>, StartError> {
    config.admin.socket_group.as_deref().map(admin::group_id).transpose().map_err(StartError::Socket)
}
