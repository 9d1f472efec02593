//! Listening sockets that were passed to this process: from systemd's descriptor store, by a socket
//! unit, or by the daemon before this one.
//!
//! Taken before anything is started, so that no child inherits one (they are passed without
//! `CLOEXEC`). What is taken is owned: a socket that nothing claims is closed.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{SockRef, Type};

/// The variables that systemd passes to one process, named by its id. A successor must not inherit
/// them.
pub const PASSED_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// The sockets that were passed and are not claimed yet.
#[derive(Debug, Default)]
pub struct Passed {
    /// By the names under which they were passed.
    sockets: Vec<(String, TcpListener)>,
    /// The names of descriptors that are not listening TCP sockets.
    others: Vec<String>,
}

/// A descriptor that was passed and not claimed.
#[derive(Debug)]
pub struct Unclaimed {
    /// The name under which it was passed.
    pub name: String,
    /// Where it listened, if it is a listening TCP socket.
    addr: Option<SocketAddr>,
}

impl fmt::Display for Unclaimed {
    /// The address with the name, or the name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "{addr} ({})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Passed {
    /// Takes the descriptors of `LISTEN_FDS`; none, if `LISTEN_PID` is another process. To be
    /// called once, before there is another thread.
    pub fn from_env() -> Self {
        let for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
        if !for_us {
            return Self::default();
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').filter(|name| !name.is_empty());
        let mut passed = Self::default();
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or("unknown").to_owned();
            match descriptors.take_tcp_listener(index) {
                Ok(Some(listener)) if is_listening(&listener) => passed.sockets.push((name, listener)),
                Ok(_) => passed.others.push(name),
                Err(_) => {
                    if let Ok(Some(descriptor)) = descriptors.take_raw_fd(index) {
                        // Neither the daemon nor an app may use it. If it cannot be closed, it is
                        // not open.
                        let _not_open = nix::unistd::close(descriptor);
                    }
                    passed.others.push(name);
                }
            }
        }
        passed
    }

    /// What a predecessor listened on.
    pub fn inherited(sockets: Vec<(String, TcpListener)>) -> Self {
        Self { sockets, others: Vec::new() }
    }

    /// Takes the socket for one address out, if there is one. The same socket may be there twice,
    /// by the store and by a socket unit: then the others are closed.
    pub fn claim(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let is_wanted = |(_, socket): &(String, TcpListener)| {
            socket.local_addr().is_ok_and(|addr| serves(addr, is_v6_only(socket), wanted))
        };
        let (_, claimed) = self.sockets.remove(self.sockets.iter().position(is_wanted)?);
        // The daemon before may have meant to leave it (`proxy::last_call`), and been killed.
        let _has_none = SockRef::from(&claimed).detach_filter();
        let addr = claimed.local_addr().ok();
        self.sockets.retain(|(_, socket)| socket.local_addr().ok() != addr);
        Some(claimed)
    }

    /// Closes what was not claimed, and returns what that was.
    pub fn close(self) -> Vec<Unclaimed> {
        let other = |name| Unclaimed { name, addr: None };
        let addressed = |(name, socket): (String, TcpListener)| {
            socket.local_addr().ok().map(|addr| Unclaimed { name, addr: Some(addr) })
        };
        self.others.into_iter().map(other).chain(self.sockets.into_iter().filter_map(addressed)).collect()
    }
}

/// A bound socket that does not listen would never be connected to.
fn is_listening(listener: &TcpListener) -> bool {
    let socket = SockRef::from(listener);
    socket.is_listener().unwrap_or(false) && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}

fn is_v6_only(listener: &TcpListener) -> bool {
    SockRef::from(listener).only_v6().unwrap_or(false)
}

/// Whether a socket at `addr` can be used where `wanted` would be bound. Port 0 is any port. A
/// socket unit with a port alone binds `[::]`, which takes connections to IPv4 addresses too.
fn serves(addr: SocketAddr, v6_only: bool, wanted: SocketAddr) -> bool {
    let port = wanted.port() == 0 || wanted.port() == addr.port();
    let all = match (addr.ip(), wanted.ip()) {
        (IpAddr::V6(bound), IpAddr::V4(wanted)) => {
            !v6_only && bound.is_unspecified() && wanted.is_unspecified()
        }
        (bound, wanted) => bound == wanted,
    };
    port && all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_served_by_itself_or_by_what_covers_it() {
        for (bound, v6_only, wanted, serves_it) in [
            ("127.0.0.1:80", false, "127.0.0.1:80", true),
            ("127.0.0.1:80", false, "127.0.0.1:0", true),
            ("127.0.0.1:80", false, "127.0.0.1:81", false),
            ("127.0.0.1:80", false, "0.0.0.0:80", false),
            ("0.0.0.0:80", false, "127.0.0.1:80", false),
            ("[::]:80", false, "0.0.0.0:80", true),
            ("[::]:80", true, "0.0.0.0:80", false),
            ("[::]:80", false, "127.0.0.1:80", false),
            ("[::]:80", true, "[::]:80", true),
        ] {
            assert_eq!(serves(addr(bound), v6_only, addr(wanted)), serves_it, "{bound} for {wanted}");
        }
    }

    #[test]
    fn each_address_claims_one_socket_its_double_is_closed_and_the_rest_is_stale() {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, two, other) = (bind(), bind(), bind());
        let addr = |socket: &TcpListener| socket.local_addr().unwrap();
        let (first, second, stale) = (addr(&one), addr(&two), addr(&other));
        let double = one.try_clone().unwrap();
        let sockets = [("listen", other), ("listen-https", two), ("listen", one), ("listen", double)];
        let mut passed = Passed {
            sockets: sockets.map(|(name, socket)| (name.to_owned(), socket)).into(),
            others: vec!["stored".into()],
        };
        assert_eq!(addr(&passed.claim(first).unwrap()), first);
        assert!(passed.claim(first).is_none());
        assert_eq!(addr(&passed.claim(second).unwrap()), second);
        let unclaimed: Vec<_> = passed.close().iter().map(ToString::to_string).collect();
        assert_eq!(unclaimed, ["stored".to_owned(), format!("{stale} (listen)")]);
        assert!(std::net::TcpStream::connect(stale).is_err(), "closed");
    }
}
