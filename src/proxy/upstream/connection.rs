//! One connection to an app: its socket, what was read from it and not yet used, and its place in
//! the target's limit.
//!
//! Owned by one exchange, one tunnel or the pool at a time. Dropped, it is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use nix::libc;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::Upstream;
use crate::proxy::clock;
use crate::proxy::target::Permit;
use crate::proxy_header::Introduction;
use crate::want;

/// How much a read asks for: at first, and at most once the app has proved to send more.
const READ: (usize, usize) = (16 * 1024, 64 * 1024);

/// A connection that was idle for longer, in milliseconds, is checked with a system call before it
/// is used again.
const SUSPECT: u64 = 1_000;

/// A connection to an app.
#[derive(Debug)]
pub(in crate::proxy) struct Connection {
    pub(in crate::proxy) stream: TcpStream,
    /// Received and not yet used.
    pub(in crate::proxy) buf: BytesMut,
    /// Whether it has carried an exchange before.
    pub(in crate::proxy) reused: bool,
    idle_since: u64,
    read_size: usize,
    /// `None`: a tunnel, which has left the limit.
    permit: Option<Permit>,
}

impl Connection {
    /// Connects, and says whose connection it is, if the app is to know; the caller has the
    /// deadline.
    pub(in crate::proxy) async fn open(
        addr: SocketAddr,
        permit: Permit,
        settings: &Upstream,
        whose: Option<Introduction>,
    ) -> io::Result<Self> {
        let stream = connect(addr, settings, whose).await?;
        let (buf, idle_since) = (BytesMut::new(), clock::uptime());
        Ok(Self { stream, buf, reused: false, idle_since, read_size: READ.0, permit: Some(permit) })
    }

    /// Reads once and returns the number of bytes. Zero: the app has closed its side.
    pub(in crate::proxy) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buf.reserve(self.read_size);
        let room = self.buf.capacity() - self.buf.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.buf)).poll(cx))?;
        if read == room {
            self.read_size = (self.read_size * 2).min(READ.1);
        }
        Poll::Ready(Ok(read))
    }

    /// Waits until the app has closed it. Never ends where the app sends something unasked.
    pub(in crate::proxy) async fn breaks(&self) {
        if let Ok(1..) = self.stream.peek(&mut [0]).await {
            std::future::pending().await
        }
    }

    /// Makes it a tunnel's: it no longer counts among the target's connections.
    pub(in crate::proxy) fn become_tunnel(&mut self) {
        self.permit = None;
    }

    /// Drops `count` bytes that have come, without copying them (tcp(7), `MSG_TRUNC`).
    pub(in crate::proxy) fn skip(&mut self, count: usize) -> io::Result<usize> {
        // The kernel wants room for them, and leaves it untouched.
        let mut room = Vec::<u8>::with_capacity(count);
        let room = &mut room.spare_capacity_mut()[..count];
        self.stream
            .try_io(Interest::READABLE, || SockRef::from(&self.stream).recv_with_flags(room, libc::MSG_TRUNC))
    }

    /// Makes it ready for the pool.
    pub(in crate::proxy) fn rest(&mut self) {
        self.idle_since = clock::uptime();
        self.reused = true;
        self.read_size = READ.0;
        if self.buf.capacity() > READ.0 {
            self.buf = BytesMut::new();
        }
    }

    /// When it was last used.
    pub(in crate::proxy) fn idle_since(&self) -> u64 {
        self.idle_since
    }

    /// Whether the app has neither closed it nor sent anything unasked, as far as the runtime
    /// knows.
    pub(in crate::proxy) fn is_quiet(&self) -> bool {
        is_blocked(&self.stream.try_read(&mut [0]))
    }

    /// Whether it can carry another exchange that begins `now`. After a short rest this costs no
    /// system call; a close that is missed then is made good by the retry.
    pub(in crate::proxy) fn is_usable(&self, now: u64) -> bool {
        let suspect = now.saturating_sub(self.idle_since) > SUSPECT;
        self.is_quiet()
            && (!suspect
                || is_blocked(&SockRef::from(&self.stream).peek(&mut [std::mem::MaybeUninit::uninit()])))
    }
}

/// Connects to an app, and says whose connection it is, if it is to know; the caller has the
/// deadline. The last file descriptors are left alone ([`want`]).
pub(super) async fn connect(
    addr: SocketAddr,
    settings: &Upstream,
    whose: Option<Introduction>,
) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !want::may_keep(&socket) {
        return Err(want::none_left());
    }
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(settings.tcp_keepalive))?;
    let mut stream = socket.connect(addr).await.map_err(|error| want::of_connecting(addr, error))?;
    if let Some(whose) = whose {
        stream.write_all(&whose.header()).await?;
    }
    Ok(stream)
}

fn is_blocked<T>(read: &io::Result<T>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::of_an_empty_file;
    use crate::proxy::counters::Counters;
    use crate::proxy::target::Target;

    #[tokio::test]
    async fn a_close_that_the_runtime_has_not_seen_is_found_after_a_rest() {
        let app = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = app.local_addr().unwrap();
        let target = Target::new(addr, Counters::new(1).service().release("r"));
        let upstream = of_an_empty_file().app.upstream.clone();
        let mut connection =
            Connection::open(addr, target.permit(1).unwrap(), &upstream, None).await.unwrap();
        connection.rest();
        let (peer, _) = app.accept().unwrap();
        let rested = connection.idle_since() + SUSPECT + 1;
        assert!(connection.is_usable(rested));
        // From here on the runtime does not run, as in a process that was stopped.
        drop(peer);
        assert!(connection.is_usable(connection.idle_since()), "it seems fresh");
        assert!(!connection.is_usable(rested));
    }
}
