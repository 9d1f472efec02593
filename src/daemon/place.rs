//! A daemon's place: the state and the listening socket, which only one daemon can have.
//!
//! The ordering that matters: the state's lock before the port, so that a second daemon hears that it is
//! one. A successor has its socket first, and the state once its predecessor lets go of it.

use std::net::{SocketAddr, TcpListener};

use super::StartError;
use super::start::io;
use super::succession::Predecessor;
use crate::config::Config;
use crate::proxy;
use crate::release::store::{Found, Store};
use crate::systemd::Passed;

/// See the module.
pub(super) struct Place {
    pub(super) store: Store,
    pub(super) found: Found,
    pub(super) listener: TcpListener,
    /// A duplicate of the socket.
    pub(super) public: TcpListener,
    pub(super) bound: SocketAddr,
    /// Whether the service manager keeps sockets that are not wanted any more.
    pub(super) stale: bool,
}

impl Place {
    /// Takes the place over from whoever has it, or makes it.
    pub(super) async fn take(
        passed: Passed,
        predecessor: Option<&mut Predecessor>,
        config: &Config,
    ) -> Result<Self, StartError> {
        let claimed = passed.claim(config.listen);
        let bind = || {
            proxy::bind(config.listen).map_err(|source| StartError::Listen { addr: config.listen, source })
        };
        let ((store, found), listener) = match predecessor {
            None => {
                let opened = Store::open_when_free(&config.state_file, None).await?;
                (opened, claimed.listener.map_or_else(bind, Ok)?)
            }
            Some(predecessor) => {
                let listener = claimed.listener.map_or_else(bind, Ok)?;
                let lock = predecessor.stand_by(config).await?;
                (Store::open_when_free(&config.state_file, lock).await?, listener)
            }
        };
        let stale = claimed.stale.join(", ");
        if !stale.is_empty() {
            tracing::warn!("closed what was passed to the daemon and is not at {}: {stale}", config.listen);
        }
        let bound = listener.local_addr().map_err(io("read the listening address"))?;
        let public = listener.try_clone().map_err(io("keep the listening socket"))?;
        Ok(Self { store, found, listener, public, bound, stale: !stale.is_empty() })
    }
}
