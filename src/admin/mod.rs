//! The admin API: it takes a request's form apart, makes one call, and gives the answer a form.
//!
//! A request's way in: [`socket`] (the unix socket) or [`Public`] (the public port) gives it to
//! [`Admin`]; [`browser`] refuses what a page of another site made a browser send; [`auth`] admits
//! its peer, by address, rate ([`rate`]) and token; [`routes`] finds what the path means and makes
//! it one [`routes::Call`], with the help of [`request`], which reads query, `Accept` and body, and
//! of [`parameters`] ([`said`] adds who gives an order); the call goes to an [app](crate::apps::App), the counters or
//! the daemon; [`answer`] or [`prometheus`] writes what came of it, [`rows`] the list of apps, with
//! what is wrong with them ([`troubles`]). [`bind`] makes the unix socket, and [`seats`] shares it
//! out.
//!
//! Nothing about releases is decided here.
//!
//! [`Admin`] owns the limiters' tables, behind a lock that is never held over an await. All other
//! state is read from its owners. Each request is answered by a task on the control plane's
//! runtime; [`Admin::finish`] joins them. When a client goes away, its task runs to its end all the
//! same, and a deploy belongs to the coordinator anyway.
//!
//! The one ordering that matters: browser, address, rate, token, right to change, path, method,
//! parameters, app. The body is read only after the token was right. So a stranger can neither
//! learn what exists here nor make portok hold bytes.

mod answer;
mod api;
mod auth;
mod bind;
mod browser;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod parameters;
mod prometheus;
mod rate;
mod request;
mod routes;
mod rows;
mod said;
mod seats;
mod socket;
mod troubles;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

pub use api::{Admin, Public};
pub use bind::{bind_socket, group_id, replace_socket, share_socket};
pub use socket::serve_socket;

use crate::apps::Apps;
use crate::config::Config;
use crate::tls::Certificates;
use crate::{proxy, wire};

/// What the admin API reads and calls.
#[derive(Debug)]
pub struct Parts {
    /// The apps of the instance.
    pub apps: Apps,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where it came from, and why a newer one was refused.
    pub config_status: watch::Receiver<wire::ConfigStatus>,
    /// The data plane's counters.
    pub counters: Arc<proxy::Counters>,
    /// What clients are shown over TLS.
    pub certificates: Certificates,
    /// Orders a reload.
    pub reload: mpsc::Sender<ReloadOrder>,
    /// Orders another daemon in this one's place.
    pub upgrade: mpsc::Sender<UpgradeOrder>,
    /// Orders the end of the daemon.
    pub shutdown: mpsc::Sender<ShutdownOrder>,
    /// Where requests are accepted now, at the instance's first address first.
    pub listen: watch::Receiver<Vec<SocketAddr>>,
    /// When the daemon started.
    pub started_at: SystemTime,
    /// The control plane's runtime.
    pub control: tokio::runtime::Handle,
}

/// Orders a reload.
#[derive(Debug)]
pub struct ReloadOrder {
    /// Remove whatever apps are gone from the configuration, however many those are.
    pub prune: bool,
    /// Where the outcome is sent.
    pub reply: oneshot::Sender<Result<wire::Reloaded, wire::ErrorBody>>,
}

/// Orders another daemon in this one's place.
#[derive(Debug)]
pub struct UpgradeOrder {
    /// Its program; `None`: the one that this daemon was started from.
    pub binary: Option<PathBuf>,
    /// Where the outcome is sent.
    pub reply: oneshot::Sender<Result<wire::Upgraded, wire::ErrorBody>>,
}

/// Orders the end of the daemon, after which it stays down.
#[derive(Debug)]
pub struct ShutdownOrder {
    /// Whether who asks waits at an address that the daemon serves requests at.
    pub over_tcp: bool,
    /// Where it is sent how each process ended.
    pub reply: oneshot::Sender<Result<Vec<wire::Ended>, wire::ErrorBody>>,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// The other end of a TCP connection.
    Tcp {
        /// Its address, as the socket says it and no header.
        peer: SocketAddr,
        /// The address of the listener that it came to.
        at: IpAddr,
    },
    /// A process on this host, as the kernel names it (`SO_PEERCRED`, unix(7)).
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Whether it belonged to the socket's group when it connected: by its effective group, or
        /// by its user in the group database.
        member: bool,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => write!(f, "{peer}"),
            Self::Unix { uid, .. } => write!(f, "uid {uid}"),
        }
    }
}
