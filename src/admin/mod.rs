//! The admin API: shape in, domain call, shape out.
//!
//! Responsible for who may ask, for the paths under the reserved prefix, for the form of parameters and
//! bodies, and for the form of answers. It decides nothing about releases: every request becomes one call of
//! [`release::Handle`], the counters or the configuration.
//!
//! - [`browser`] refuses what a page of another site made a browser send;
//! - [`auth`] admits a request or refuses it: peer, rate, token, in that order;
//! - [`rate`] counts requests by address, in bounded memory;
//! - [`routes`] finds what a path means and turns a request into one [`routes::Call`];
//! - [`request`] reads query, `Accept` and the body of a deploy;
//! - [`answer`] makes the responses, whole or streamed;
//! - [`prometheus`] writes the counters in the text format;
//! - [`api`] puts these together and makes the calls;
//! - [`bind`] makes the unix socket, [`socket`] serves it, [`seats`] says who makes room on it.
//!
//! State: the limiters' tables, owned by [`Admin`] behind a lock that is never held over an await. Everything
//! else is read from what others own. All work runs on the control plane's runtime as a task that [`Admin`]
//! tracks; [`Admin::finish`] joins them. A dropped answer (the client went away) cancels nothing: the task
//! behind it runs to its end, and a deploy belongs to the coordinator anyway.
//!
//! The one ordering that matters: browser, peer, rate, token, change, path, method, parameters. A body is read only after the
//! token was right, so that a stranger can neither learn what exists nor make portok hold bytes for him.

mod answer;
mod api;
mod auth;
mod bind;
mod browser;
mod prometheus;
mod rate;
mod request;
mod routes;
mod seats;
mod socket;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};

pub use api::{Admin, Public};
pub use bind::{bind_socket, group_id, replace_socket, share_socket};
pub use socket::serve_socket;

use crate::config::Config;
use crate::{proxy, release, wire};

/// What the admin API reads and calls.
#[derive(Debug)]
pub struct Parts {
    /// The coordinator.
    pub app: release::Handle,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where it came from, and why a newer one was refused.
    pub config_status: watch::Receiver<wire::ConfigStatus>,
    /// The data plane's counters.
    pub stats: Arc<proxy::Stats>,
    /// Asks for a reload; the outcome comes back through the inner channel.
    pub reload: mpsc::Sender<ReloadReply>,
    /// Asks for another daemon in this one's place.
    pub upgrade: mpsc::Sender<UpgradeOrder>,
    /// Where requests are accepted now.
    pub listen: watch::Receiver<SocketAddr>,
    /// When the daemon started.
    pub started_at: SystemTime,
    /// The control plane's runtime.
    pub control: tokio::runtime::Handle,
}

/// Where the outcome of a reload is sent.
pub type ReloadReply = oneshot::Sender<Result<wire::Reloaded, wire::ErrorBody>>;

/// Puts another daemon in this one's place.
#[derive(Debug)]
pub struct UpgradeOrder {
    /// Its program; `None`: the one that this daemon was started from.
    pub binary: Option<PathBuf>,
    /// Where the outcome is sent.
    pub reply: oneshot::Sender<Result<wire::Upgraded, wire::ErrorBody>>,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection's other end: the socket's own word, never a header's.
    Tcp(SocketAddr),
    /// A process on this host, as the kernel names it (`SO_PEERCRED`, unix(7)).
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Whether it belongs to the socket's group (by its effective group, or its user in the group
        /// database), as of the moment it connected.
        member: bool,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { uid, .. } => write!(f, "uid {uid}"),
        }
    }
}
