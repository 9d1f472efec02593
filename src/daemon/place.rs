//! A daemon's place: the state and the listening sockets, which only one daemon can have.
//!
//! The ordering that matters: the state's lock before the ports, so that a second daemon hears that
//! it is one. A successor has its sockets first, and the state once its predecessor lets go of it.

use std::collections::BTreeSet;

use super::StartError;
use super::listeners::{self, Listeners, Listening, Prepared};
use super::succession::Predecessor;
use crate::apps;
use crate::config::Config;
use crate::proxy;
use crate::release::records::Records;
use crate::systemd::Passed;

/// See the module.
pub(super) struct Place {
    pub(super) records: Records,
    pub(super) sockets: Vec<Listening>,
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
        // What is at no wanted address is closed at once.
        let wanted = listeners::wanted(config, &apps::addresses_at_a_start(config));
        let claim = |id: &proxy::ListenerId| passed.claim(id.addr()).map(|socket| (*id, socket));
        let claimed: Vec<_> = wanted.iter().filter_map(claim).collect();
        let of_others = claimed.iter().filter_map(|(_, socket)| socket.local_addr().ok()).collect();
        let unwanted = passed.close();
        let bind_all = || bind(&wanted, claimed);
        let (file, several) = (&config.state_file, config.apps.is_some());
        let ((records, warnings), prepared) = match predecessor {
            None => (Records::take_when_free(file, None, several).await?, bind_all()?),
            Some(predecessor) => {
                let prepared = bind_all()?;
                let lock = predecessor.stand_by(config).await?;
                (Records::take_when_free(file, lock, several).await?, prepared)
            }
        };
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        if !unwanted.is_empty() {
            let all: Vec<_> = unwanted.iter().map(ToString::to_string).collect();
            let addresses: Vec<_> = wanted.iter().map(|id| id.addr().to_string()).collect();
            let (all, addresses) = (all.join(", "), addresses.join(", "));
            tracing::warn!("closed what was passed to the daemon and is not at {addresses}: {all}");
        }
        let stale = unwanted.into_iter().map(|unwanted| unwanted.name).collect();
        let (listeners, sockets) =
            Listeners::of(prepared, of_others).map_err(StartError::io("keep the listening sockets"))?;
        Ok(Self { records, sockets, listeners, stale })
    }
}

/// Sockets for all that is wanted. An app whose own address cannot be had does without it.
fn bind(wanted: &[proxy::ListenerId], claimed: Vec<Listening>) -> Result<Prepared, StartError> {
    let mut prepared = Prepared::bind(wanted, &[], claimed);
    if let Some((addr, source)) = prepared.refusal() {
        return Err(StartError::Listen { addr, source });
    }
    Ok(prepared)
}
