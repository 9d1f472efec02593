//! A client's stream that is encrypted: TLS over TCP.
//!
//! Owned by the task of its connection. Dropped without a farewell, the client hears of no end but
//! the socket's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::stream::ClientStream;

/// See the module. In a box, because it is large and an idle connection holds it.
#[derive(Debug)]
pub(super) struct Encrypted(Box<TlsStream<TcpStream>>);

impl Encrypted {
    /// A stream whose handshake is done.
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self(Box::new(stream))
    }

    /// Whether something that was decrypted waits to be read, or the end.
    fn has_decrypted(&self) -> bool {
        !self.0.get_ref().1.wants_read()
    }
}

impl ClientStream for Encrypted {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_decrypted() { Poll::Ready(()) } else { self.tcp().poll_readable(cx) }
    }

    fn has_arrived(&self) -> bool {
        self.has_decrypted() || self.tcp().has_arrived()
    }

    fn farewell(&mut self) {
        let (socket, session) = self.0.get_mut();
        session.send_close_notify();
        while session.wants_write() {
            // What does not go out at once is left, as it is when the socket is broken.
            let Ok(1..) = session.write_tls(&mut AtOnce(socket)) else { return };
        }
    }

    fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }
}

/// Writes what the socket takes without a wait.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}
