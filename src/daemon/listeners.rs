//! The listening sockets of the daemon: a duplicate of each, as long as connections are accepted.
//!
//! The data plane accepts from duplicates of its own. These are for the service manager, which
//! keeps them, and for a successor.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::sync::watch;

use crate::proxy::ListenerId;
use crate::systemd::Manager;

/// See the module.
pub(super) struct Listeners {
    open: Vec<(ListenerId, TcpListener)>,
    /// Where the listener `http` accepts.
    bound: watch::Sender<SocketAddr>,
}

impl Listeners {
    /// Duplicates what the daemon listens on.
    ///
    /// # Errors
    /// The kernel's own: descriptors ran out.
    pub(super) fn of(sockets: &[(ListenerId, TcpListener)], bound: SocketAddr) -> io::Result<Self> {
        let open = sockets.iter().map(|(id, socket)| Ok((*id, socket.try_clone()?)));
        Ok(Self { open: open.collect::<io::Result<_>>()?, bound: watch::Sender::new(bound) })
    }

    /// Where the listener `http` accepts.
    pub(super) fn bound(&self) -> SocketAddr {
        *self.bound.borrow()
    }

    pub(super) fn follow(&self) -> watch::Receiver<SocketAddr> {
        self.bound.subscribe()
    }

    /// Notes that a listener has another socket.
    pub(super) fn replace(&mut self, id: ListenerId, socket: TcpListener) {
        if id == ListenerId::HTTP
            && let Ok(addr) = socket.local_addr()
        {
            self.bound.send_replace(addr);
        }
        self.open.retain(|(other, _)| *other != id);
        self.open.push((id, socket));
    }

    /// Gives all sockets to the service manager.
    pub(super) fn keep(&self, manager: &Manager) {
        for (id, socket) in &self.open {
            manager.keep(&stored_as(*id), socket);
        }
    }

    /// Lets the service manager drop what it keeps.
    pub(super) fn forget(&self, manager: &Manager) {
        for (id, _) in &self.open {
            manager.forget(&stored_as(*id));
        }
    }

    /// The sockets for a successor, by the names under which they are handed over.
    ///
    /// # Errors
    /// None is open, or the kernel's own.
    pub(super) fn for_successor(&self) -> io::Result<Vec<(String, TcpListener)>> {
        if self.open.is_empty() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.open.iter().map(|(id, socket)| Ok((handed_over_as(*id), socket.try_clone()?))).collect()
    }

    /// Closes the sockets. As long as one is open, its queue takes connections.
    pub(super) fn close(&mut self) {
        self.open.clear();
    }
}

/// The name under which the service manager keeps a listener's socket. A socket unit passes `http`
/// as `listen` too.
fn stored_as(id: ListenerId) -> String {
    named(id, '-')
}

/// The name under which a listener's socket is handed over to a successor.
fn handed_over_as(id: ListenerId) -> String {
    named(id, ':')
}

fn named(id: ListenerId, between: char) -> String {
    match id {
        ListenerId::HTTP => "listen".to_owned(),
        other => format!("listen{between}{}", other.name()),
    }
}
