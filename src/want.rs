//! What portok itself may want for: descriptors, memory, local ports. Such a want is never held against an app.
//!
//! Descriptors are kept back for probes, state, admin and what is started: the data plane, which clients can fill, may not
//! have the last ones. The kernel gives the lowest number that is free (POSIX, 2.14), so a bound on the *numbers* that the
//! data plane keeps is a bound on how many it has, without anybody counting: below [`line()`] it takes what it gets, and what
//! it gets from there on it closes at once. So all numbers above the line but one a data-plane thread are free for others.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

/// The least and the most descriptors that are kept back; between them a quarter of all.
const KEPT_BACK: (u64, u64) = (32, 256);

/// Whether an operation failed for a want of this process or host, not for what is at its other end.
///
/// For connecting, accepting, opening and starting. `EAGAIN` is that of fork(2) and connect(2): whoever reads or writes
/// without waiting has to look at it first.
pub fn is_own(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EADDRNOTAVAIL)
    )
}

/// Whether the data plane may keep `socket`, which it has just made.
pub fn may_keep(socket: &impl AsRawFd) -> bool {
    socket.as_raw_fd() < line()
}

/// What the data plane says of a socket that it may not keep.
pub fn none_left() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// How many descriptors others than the data plane can count on.
pub fn kept_back() -> u64 {
    back_of(limit())
}

/// The first number that the data plane does not keep. Looked up once, after the limit was raised.
fn line() -> RawFd {
    static LINE: OnceLock<RawFd> = OnceLock::new();
    *LINE.get_or_init(|| {
        let limit = limit();
        RawFd::try_from(limit - back_of(limit)).unwrap_or(RawFd::MAX)
    })
}

fn limit() -> u64 {
    // Where it is not known it is what the kernel starts processes with.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

fn back_of(limit: u64) -> u64 {
    (limit / 4).clamp(KEPT_BACK.0, KEPT_BACK.1).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

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
