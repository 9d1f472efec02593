//! The connections that come to one thread: which of them are let in.
//!
//! State: a [`Reception`], which belongs to the thread. The counts are the [`Crowd`]'s, over all
//! threads.

use std::net::IpAddr;
use std::sync::Arc;

use super::counters::Counters;
use super::crowd::{Crowd, Limit, Reception, Visit};
use super::headers::is_trusted;
use super::settings::Settings;

/// One thread's entrance.
pub(super) struct Guests {
    reception: Reception,
    counters: Arc<Counters>,
}

impl Guests {
    pub(super) fn new(crowd: Arc<Crowd>, counters: Arc<Counters>) -> Self {
        Self { reception: Reception::new(crowd), counters }
    }

    /// Lets a connection of `peer` in; `None`: a limit is full.
    pub(super) fn admit(&self, peer: IpAddr, settings: &Settings) -> Option<Visit> {
        let (limits, trusted) = (&settings.config.limits, &settings.config.proxy.trusted);
        let each = match limits.connections_per_address {
            Some(most) if !is_trusted(peer, trusted) => most,
            _ => usize::MAX,
        };
        let limit = match Visit::begin(self.reception.guest(peer), limits.connections, each) {
            Ok(visit) => return Some(visit),
            Err(limit) => limit,
        };
        self.counters.connection_refused(reason_of(limit));
        match limit {
            Limit::Connections => self.reception.crowd().warn_full(limit, Some(limits.connections), None),
            _ => self.reception.crowd().warn_full(limit, Some(each), Some(peer)),
        }
        None
    }

    /// Counts a connection that cannot be let in because no file descriptor is left for it.
    #[cold]
    pub(super) fn refuse_for_descriptors(&self) {
        self.counters.connection_refused(reason_of(Limit::Descriptors));
        self.reception.crowd().warn_full(Limit::Descriptors, None, None);
    }
}

/// Why a connection was closed, as the metrics name it.
fn reason_of(limit: Limit) -> &'static str {
    limit.key().strip_prefix("limits.").unwrap_or("descriptors")
}
