//! Ports: which are leased, and how one is held until its app listens.
//!
//! All apps of a daemon lease from one table ([`Ports`]), so that no two leases ever name one port,
//! and none a port that the configuration names for something else.
//! Against other processes a lease holds a *placeholder*: a socket bound to `127.0.0.1:port` that
//! never listens. It is bound without `SO_REUSEADDR`, so that the bind itself proves that no other
//! process has the port, not even bound. It gets the option afterwards: an app that sets it too may
//! listen beside the placeholder, while the kernel no longer gives the port to `bind(0)` and to
//! outgoing connections (socket(7)).

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

use crate::want;

/// How many ports are tried before giving up.
const TRIES: u32 = 64;

/// The table of leased ports. A clone is the same table.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    leased: BTreeSet<u16>,
    /// Never leased anew, even while nobody listens there.
    avoided: BTreeSet<u16>,
}

/// What kept a process from listening on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortTaken {
    /// Another process, as far as can be seen.
    ByAnother,
    /// The placeholder alone: the process does not set `SO_REUSEADDR`.
    ByPlaceholder,
}

/// What a process is told of a port, by its environment and for `{port}` in its command.
#[derive(Debug)]
pub enum Port {
    /// Nothing.
    None,
    /// Its own, to listen on. Held until it listens.
    Own(Lease),
    /// Another process's.
    Others(u16),
}

impl Port {
    /// Its number.
    pub(super) fn number(&self) -> Option<u16> {
        match self {
            Self::None => None,
            Self::Own(lease) => Some(lease.port()),
            Self::Others(port) => Some(*port),
        }
    }

    /// The lease of a process that has one of its own.
    pub(super) fn lease(self) -> Option<Lease> {
        if let Self::Own(lease) = self { Some(lease) } else { None }
    }
}

/// A port that no other lease of the same table has, held against other processes by a socket that
/// is bound and never listens, until [`Lease::let_go`]. Dropping it gives the port back.
#[derive(Debug)]
pub struct Lease {
    ports: Ports,
    port: u16,
    /// Whether there was a placeholder when the process was started.
    held: bool,
    placeholder: Mutex<Option<Socket>>,
}

impl Lease {
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes the placeholder socket and keeps the lease.
    pub fn let_go(&self) {
        drop(lock(&self.placeholder).take());
    }

    /// Whether there was a placeholder at the start.
    pub(super) fn was_held(&self) -> bool {
        self.held
    }

    /// Whether the port could be bound now, if no placeholder holds it.
    pub(super) fn is_free(&self) -> bool {
        claim(self.port).is_ok()
    }
}

impl Ports {
    /// Leases none of these from now on. What is leased stays so.
    pub(super) fn avoid(&self, ports: BTreeSet<u16>) {
        lock(&self.0).avoided = ports;
    }

    /// Leases the port of a process that is taken over; `None` if another lease has it.
    pub(super) fn take_over(&self, port: u16) -> Option<Lease> {
        self.insert(port).then(|| self.leased(port, false, None))
    }

    /// Leases a free port, with a placeholder if `hold`.
    pub(super) fn lease(&self, hold: bool) -> io::Result<Lease> {
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "every port that was tried is taken");
        for attempt in 0..TRIES {
            // portpicker stays outside the range of outgoing connections, but finds nothing at all
            // on a host without IPv6; the kernel's own choice always works.
            let wished = if attempt < TRIES / 2 { portpicker::pick_unused_port().unwrap_or(0) } else { 0 };
            let (port, placeholder) = match claim(wished) {
                Ok(claimed) => claimed,
                // Another port would not help.
                Err(error) if want::is_own(&error) => return Err(error),
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            if !lock(&self.0).avoided.contains(&port) && self.insert(port) {
                return Ok(self.leased(port, hold, hold.then_some(placeholder)));
            }
        }
        Err(io::Error::new(last.kind(), format!("no free port on 127.0.0.1 after {TRIES} tries: {last}")))
    }

    /// False if the port is leased already.
    fn insert(&self, port: u16) -> bool {
        lock(&self.0).leased.insert(port)
    }

    fn leased(&self, port: u16, held: bool, placeholder: Option<Socket>) -> Lease {
        Lease { ports: self.clone(), port, held, placeholder: Mutex::new(placeholder) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The socket first: the next lease of the port must be able to bind it.
        self.let_go();
        lock(&self.ports.0).leased.remove(&self.port);
    }
}

fn claim(port: u16) -> io::Result<(u16, Socket)> {
    // socket2 sets close-on-exec.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.set_reuse_address(true)?;
    let bound = socket.local_addr()?.as_socket().map_or(0, |addr| addr.port());
    Ok((bound, socket))
}

/// A panic elsewhere leaves what is locked whole: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn leases_are_unique_until_given_back() {
        let table = Ports::default();
        let leases: Vec<Lease> = (0..50).map(|index| table.lease(index % 2 == 0).unwrap()).collect();
        let ports: BTreeSet<u16> = leases.iter().map(Lease::port).collect();
        assert_eq!(ports.len(), leases.len());
        assert!(ports.iter().all(|&port| table.take_over(port).is_none()));
        drop(leases);
        assert!(ports.iter().all(|&port| table.take_over(port).is_some()));
    }

    #[test]
    fn an_app_listens_beside_the_placeholder_and_others_cannot_bind() {
        let ports = Ports::default();
        let lease = ports.lease(true).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, lease.port()));
        // As another daemon would: its claim does not set SO_REUSEADDR before the bind.
        assert_eq!(claim(lease.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // std sets SO_REUSEADDR, as Node, Go and Python's servers do.
        let app = TcpListener::bind(addr).unwrap();
        lease.let_go();
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(app.accept().unwrap().1, client.local_addr().unwrap());
        // The lease outlives the placeholder.
        assert!(ports.take_over(lease.port()).is_none());
    }

    #[test]
    fn a_wildcard_listener_counts_as_taken() {
        let stranger = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = stranger.local_addr().unwrap().port();
        assert_eq!(claim(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn without_a_placeholder_an_app_may_bind_as_it_likes() {
        let lease = Ports::default().lease(false).unwrap();
        claim(lease.port()).unwrap();
    }

    #[test]
    fn a_dropped_lease_frees_its_port() {
        // Another process may take one port at that very moment, but not every time.
        let freed = (0..10).any(|_| {
            let lease = Ports::default().lease(true).unwrap();
            let port = lease.port();
            drop(lease);
            claim(port).is_ok()
        });
        assert!(freed);
    }
}
