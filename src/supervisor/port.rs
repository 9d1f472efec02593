//! Ports: which are leased, and how one is held until its app listens.
//!
//! The table of leased ports is the process's own, so that no two leases ever name one port. Against other
//! processes a lease holds a *placeholder*: a socket bound to `127.0.0.1:port` that never listens. It is bound
//! without `SO_REUSEADDR`, so that the bind itself proves that nobody else has the port (not even bound), and gets
//! the option afterwards: an app that sets it too may listen beside the placeholder, while `bind(0)` and outgoing
//! connections of others can no longer be given the port (socket(7)).

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Protocol, Socket, Type};

use crate::want;

/// How many ports are tried before giving up.
const TRIES: u32 = 64;

/// The ports that some lease of this process has. One table for the process, because ports are the host's.
static LEASED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// What kept a process from listening on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortTaken {
    /// Another process, as far as can be seen.
    ByAnother,
    /// The placeholder alone: the process does not set `SO_REUSEADDR`.
    ByPlaceholder,
}

/// A port that no other lease of this process has, held against others by a bound, never listening socket
/// until [`Lease::let_go`]. Dropping it gives the port back.
#[derive(Debug)]
pub struct Lease {
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

    /// Whether somebody could bind the port now, where no placeholder holds it.
    pub(super) fn is_free(&self) -> bool {
        claim(self.port).is_ok()
    }

    /// The lease of a port that a process which is taken over was started with; `None` where another lease has it.
    pub(super) fn taken_over(port: u16) -> Option<Self> {
        lock(&LEASED).insert(port).then(|| Self { port, held: false, placeholder: Mutex::new(None) })
    }

    /// Leases a free port, with a placeholder when `hold`.
    pub(super) fn new(hold: bool) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::AddrInUse, "every port that was tried is leased");
        for attempt in 0..TRIES {
            // portpicker stays outside the range of outgoing connections, but finds nothing at all on a host
            // without IPv6; the kernel's own choice always works.
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
            if lock(&LEASED).insert(port) {
                let placeholder = Mutex::new(hold.then_some(placeholder));
                return Ok(Self { port, held: hold, placeholder });
            }
        }
        Err(io::Error::new(last.kind(), format!("no free port on 127.0.0.1 after {TRIES} tries: {last}")))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The socket first: who gets the port next must be able to bind it.
        self.let_go();
        lock(&LEASED).remove(&self.port);
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

/// A panic elsewhere leaves these tables whole: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn leases_are_unique_until_given_back() {
        let leases: Vec<Lease> = (0..50).map(|index| Lease::new(index % 2 == 0).unwrap()).collect();
        let ports: BTreeSet<u16> = leases.iter().map(Lease::port).collect();
        assert_eq!(ports.len(), leases.len());
        assert!(ports.iter().all(|port| lock(&LEASED).contains(port)));
    }

    #[test]
    fn an_app_listens_beside_the_placeholder_and_others_cannot_bind() {
        let lease = Lease::new(true).unwrap();
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, lease.port()));
        // Another daemon's claim does not set SO_REUSEADDR before its bind.
        assert_eq!(claim(lease.port()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // std sets SO_REUSEADDR, as Node, Go and Python's servers do.
        let app = TcpListener::bind(addr).unwrap();
        lease.let_go();
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(app.accept().unwrap().1, client.local_addr().unwrap());
        // The lease outlives the placeholder.
        assert!(lock(&LEASED).contains(&lease.port()));
    }

    #[test]
    fn a_wildcard_listener_counts_as_taken() {
        let stranger = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = stranger.local_addr().unwrap().port();
        assert_eq!(claim(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn without_a_placeholder_an_app_may_bind_as_it_likes() {
        let lease = Lease::new(false).unwrap();
        claim(lease.port()).unwrap();
    }

    #[test]
    fn a_dropped_lease_frees_its_port() {
        // Somebody else may take one port at that very moment, not every time.
        let freed = (0..10).any(|_| {
            let lease = Lease::new(true).unwrap();
            let port = lease.port();
            drop(lease);
            claim(port).is_ok()
        });
        assert!(freed);
    }
}
