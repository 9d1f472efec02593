//! A daemon's place: the state and the listening sockets, which only one daemon can have.
//!
//! The ordering that matters: the state's lock before the ports, so that a second daemon hears that
//! it is one. A successor has its sockets first, and the state once its predecessor lets go of it.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use super::listeners::Listeners;
use super::succession::Predecessor;
use crate::config::Config;
use crate::proxy::{self, ListenerId};
use crate::release::records::Records;
use crate::systemd::Passed;

/// See the module.
pub(super) struct Place {
    pub(super) records: Records,
    pub(super) sockets: Vec<(ListenerId, TcpListener)>,
    pub(super) listeners: Listeners,
    /// The names of passed descriptors that are not wanted: the service manager may keep them.
    pub(super) stale: BTreeSet<String>,
}

impl Place {
    /// Takes the place over from the predecessor or the service manager, or makes it.
    pub(super) async fn take(
        mut passed: Passed,
        predecessor: Option<&mut Predecessor>,
        config: &Config,
    ) -> Result<Self, StartError> {
        // What is at no configured address is closed at once.
        let wanted = config.listen.first().map(|addr| (ListenerId::HTTP, *addr));
        let claimed = wanted.map(|(id, addr)| (id, addr, passed.claim(addr)));
        let unwanted = passed.close();
        let bind = |(id, addr, claimed): (ListenerId, _, Option<_>)| -> Result<_, StartError> {
            let bind = || proxy::bind(addr).map_err(|source| StartError::Listen { addr, source });
            Ok((id, claimed.map_or_else(bind, Ok)?))
        };
        let bind_all = || claimed.into_iter().map(bind).collect::<Result<Vec<_>, StartError>>();
        let ((records, warnings), sockets) = match predecessor {
            None => (Records::take_when_free(&config.state_file, None).await?, bind_all()?),
            Some(predecessor) => {
                let sockets = bind_all()?;
                let lock = predecessor.stand_by(config).await?;
                (Records::take_when_free(&config.state_file, lock).await?, sockets)
            }
        };
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        if !unwanted.is_empty() {
            let all: Vec<_> = unwanted.iter().map(ToString::to_string).collect();
            let all = all.join(", ");
            tracing::warn!("closed what was passed to the daemon and is not at {}: {all}", config.listen[0]);
        }
        let stale = unwanted.into_iter().map(|unwanted| unwanted.name).collect();
        let bound = bound(&sockets).map_err(StartError::io("read the listening address"))?;
        let listeners =
            Listeners::of(&sockets, bound).map_err(StartError::io("keep the listening socket"))?;
        Ok(Self { records, sockets, listeners, stale })
    }
}

/// Where the listener `http` accepts.
fn bound(sockets: &[(ListenerId, TcpListener)]) -> io::Result<SocketAddr> {
    let http = sockets.iter().find(|(id, _)| *id == ListenerId::HTTP);
    http.ok_or(io::ErrorKind::NotConnected)?.1.local_addr()
}
