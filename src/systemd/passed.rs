//! Listening sockets that systemd passed to this process, from its descriptor store or by a socket
//! unit.
//!
//! The sockets are owned from here on, and unclaimed ones are closed. They arrive without
//! `CLOEXEC`, so they are taken before anything is started that could inherit them.

use std::net::{IpAddr, SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::{SockRef, Type};

/// The variables that systemd passes to one process, named by its id. A successor must not inherit
/// them.
pub const PASSED_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// The sockets that were passed.
#[derive(Debug, Default)]
pub struct Passed {
    sockets: Vec<(String, TcpListener)>,
    /// The names of descriptors that are not listening TCP sockets.
    others: Vec<String>,
}

/// The result of [`Passed::claim`].
#[derive(Debug)]
pub struct Claimed {
    /// The socket for the address in question.
    pub listener: Option<TcpListener>,
    /// The addresses or names of what was closed unclaimed, for the log.
    pub stale: Vec<String>,
}

impl Passed {
    /// Takes the descriptors of `LISTEN_FDS`; none if `LISTEN_PID` is another process. Must be
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

    /// The address on which the predecessor listened.
    pub fn inherited(listener: TcpListener) -> Self {
        Self { sockets: vec![(super::SOCKET_NAME.to_owned(), listener)], others: Vec::new() }
    }

    /// Returns the socket for `wanted`, and closes all others.
    pub fn claim(self, wanted: SocketAddr) -> Claimed {
        let mut claimed = Claimed { listener: None, stale: self.others };
        let mut taken = None;
        for (name, socket) in self.sockets {
            let Ok(addr) = socket.local_addr() else { continue };
            if claimed.listener.is_none() && serves(addr, is_v6_only(&socket), wanted) {
                taken = Some(addr);
                claimed.listener = Some(socket);
            } else if taken != Some(addr) {
                claimed.stale.push(format!("{addr} ({name})"));
            }
            // The same socket came twice, from the store and by a socket unit. One is enough.
        }
        claimed
    }
}

/// A bound socket that does not listen accepts no connection.
fn is_listening(listener: &TcpListener) -> bool {
    let socket = SockRef::from(listener);
    socket.is_listener().unwrap_or(false) && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}

fn is_v6_only(listener: &TcpListener) -> bool {
    SockRef::from(listener).only_v6().unwrap_or(false)
}

/// Whether a socket at `addr` serves as one bound to `wanted`. Port 0 is any port. A socket unit
/// with only a port binds `[::]`, which also accepts IPv4 connections.
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
    fn one_socket_is_claimed_its_double_is_closed_and_the_rest_is_stale() {
        let (one, other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (wanted, stale) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        let double = one.try_clone().unwrap();
        let passed = Passed {
            sockets: vec![("listen".into(), other), ("listen".into(), one), ("listen".into(), double)],
            others: vec!["stored".into()],
        };
        let claimed = passed.claim(wanted);
        assert_eq!(claimed.listener.unwrap().local_addr().unwrap(), wanted);
        assert_eq!(claimed.stale, ["stored".to_owned(), format!("{stale} (listen)")]);
        assert!(std::net::TcpStream::connect(stale).is_err(), "closed");
    }
}
