//! Shortages of portok itself: descriptors, memory, local ports. An app is never blamed for one.
//!
//! Descriptors are reserved for probes, state, the admin API and started processes. Clients can
//! fill the data plane, so it may not take the last ones. The kernel hands out the lowest free
//! number (POSIX, 2.14), so a limit on the *numbers* that the data plane keeps limits how many it
//! has, without counting. It keeps a descriptor below [`line()`], and closes any other one at once.
//! So all numbers above the line, but one per data-plane thread, stay free for the rest.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// The least and the most descriptors that are reserved. Between them it is a quarter of the limit.
const KEPT_BACK: (u64, u64) = (32, 256);

/// The most probes of targets that are under way at a time.
const MOST_PROBES: u64 = 256;

/// Whether an operation failed by a shortage of this process or machine, and not by its other end.
///
/// For connecting, accepting, opening and starting. `EAGAIN` is that of fork(2) and connect(2):
/// non-blocking reads and writes must handle it first.
pub fn is_own(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EADDRNOTAVAIL)
    )
}

/// The error of a TCP connection to `addr` that did not come about, so that [`is_own`] judges it
/// right. `EADDRNOTAVAIL` says two things: every local port is in use, which passes, or this host
/// has no address of its own from which that one can be reached, which does not.
pub fn of_connecting(addr: SocketAddr, error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EADDRNOTAVAIL) || has_way_to(addr) {
        return error;
    }
    let why = "this host has no address of its own from which it can be reached";
    io::Error::new(io::ErrorKind::AddrNotAvailable, why)
}

/// Whether the kernel has a way to `addr`, local TCP ports apart: a datagram socket is connected,
/// which sends nothing. Where that cannot be found out, it has.
fn has_way_to(addr: SocketAddr) -> bool {
    let own: SocketAddr = match addr {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let Ok(socket) = UdpSocket::bind(own) else { return true };
    socket.connect(addr).map_or_else(|error| error.raw_os_error() != Some(libc::EADDRNOTAVAIL), |()| true)
}

/// Whether the data plane may keep `socket`, which it has just opened.
pub fn may_keep(socket: &impl AsRawFd) -> bool {
    socket.as_raw_fd() < line()
}

/// The error for a socket that the data plane may not keep.
pub fn none_left() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// How many descriptors are reserved for the rest of the daemon.
pub fn kept_back() -> u64 {
    back_of(limit())
}

/// How many probes of targets may be under way at a time, each with a descriptor: half of what is
/// reserved, or less.
pub fn probes() -> usize {
    probes_of(limit())
}

/// The first number that the data plane does not keep. Determined once, after the limit was raised.
fn line() -> RawFd {
    static LINE: OnceLock<RawFd> = OnceLock::new();
    *LINE.get_or_init(|| {
        let limit = limit();
        RawFd::try_from(limit - back_of(limit)).unwrap_or(RawFd::MAX)
    })
}

fn limit() -> u64 {
    // If the limit is unknown, the kernel's default applies.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn back_of(limit: u64) -> u64 {
    (limit / 4).clamp(KEPT_BACK.0, KEPT_BACK.1).min(limit)
}

fn probes_of(limit: u64) -> usize {
    usize::try_from((limit / 8).clamp(1, MOST_PROBES)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_have_an_eighth_of_the_descriptors_within_bounds() {
        let table = [(0, 1), (20, 2), (300, 37), (1024, 128), (1_048_576, 256), (u64::MAX, 256)];
        for (limit, probes) in table {
            assert_eq!(probes_of(limit), probes, "of {limit}");
        }
    }

    #[test]
    fn a_part_is_kept_back_whatever_the_limit_is() {
        let table = [
            (0, 0),
            (20, 20),
            (64, 32),
            (128, 32),
            (256, 64),
            (1024, 256),
            (1_048_576, 256),
            (u64::MAX, 256),
        ];
        for (limit, back) in table {
            assert_eq!(back_of(limit), back, "of {limit}");
        }
        assert!(may_keep(&io::stdin()));
    }

    #[test]
    fn an_address_without_a_way_there_is_not_portoks_own_want() {
        let exhausted = || io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        assert!(is_own(&of_connecting(here, exhausted())));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(of_connecting(here, refused).kind(), io::ErrorKind::ConnectionRefused);
        // A network of its own has no address yet, not even `::1`.
        let outcome = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            let there = SocketAddr::from((Ipv6Addr::LOCALHOST, 1));
            let error = std::net::TcpStream::connect(there).unwrap_err();
            Some((error.raw_os_error(), of_connecting(there, error)))
        });
        // Only root may make one.
        let Some((number, error)) = outcome.join().unwrap() else { return };
        assert_eq!(number, Some(libc::EADDRNOTAVAIL));
        assert!(!is_own(&error) && error.to_string().contains("no address of its own"), "{error}");
    }

    #[test]
    fn a_want_is_told_from_what_an_app_does() {
        for own in
            [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EAGAIN]
        {
            assert!(is_own(&io::Error::from_raw_os_error(own)), "{own}");
        }
        assert!(is_own(&none_left()));
        for other in [
            libc::ECONNREFUSED,
            libc::ECONNRESET,
            libc::ETIMEDOUT,
            libc::EADDRINUSE,
            libc::ENOENT,
            libc::ENOEXEC,
        ] {
            assert!(!is_own(&io::Error::from_raw_os_error(other)), "{other}");
        }
        assert!(!is_own(&io::ErrorKind::UnexpectedEof.into()));
    }
}
