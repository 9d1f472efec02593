//! What the registry hears, and what it tells.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::super::Known;
use super::super::unbound::Unbound;
use super::Order;

/// See the module.
pub(in crate::apps) struct Channels {
    /// Where this portokd listens.
    pub(in crate::apps) listen: watch::Receiver<Vec<SocketAddr>>,
    /// Where it cannot.
    pub(in crate::apps) unbound: Unbound,
    /// The apps, for everybody else.
    pub(in crate::apps) known: watch::Sender<Arc<Known>>,
    /// The addresses that apps have for themselves.
    pub(in crate::apps) addresses: watch::Sender<BTreeSet<SocketAddr>>,
    pub(in crate::apps) orders: mpsc::Receiver<Order>,
    /// Whether what fell is not started again.
    pub(in crate::apps) lost: watch::Sender<bool>,
}
