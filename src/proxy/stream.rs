//! The bytes of a client's connection, as the data plane reads and writes them: over TCP as it is,
//! or with something between (TLS).
//!
//! Everything that serves a client is generic over it, so that plain TCP pays nothing for the
//! others. A stream is owned by the task of its connection.

use std::fmt::Debug;
use std::mem::MaybeUninit;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client's bytes.
///
/// What is written need not be on its way before it is flushed: whoever has written the last of
/// what there is for now flushes. A stream that keeps bytes of its own keeps few (a client that
/// does not read holds no more than 64 KiB of its answer beside the kernel's), and is small itself:
/// an idle connection holds it, so a large one lies in a box.
pub(super) trait ClientStream: AsyncRead + AsyncWrite + Debug + Send + Unpin + 'static {
    /// Ready when it is worth the try to read: something may be there, or the end is. Costs less
    /// than a read that finds nothing. A stream that keeps bytes which can be read is ready.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()>;

    /// Whether something is there that can be read, or a part of it: in the stream's own buffers,
    /// or in the kernel. The kernel is asked, because the runtime only knows how it was when it
    /// last waited for events, and the thread may have been kept from running since.
    fn has_arrived(&self) -> bool;

    /// Tells the client that nothing more comes, right before the stream is dropped, where the drop
    /// alone does not say so (TLS: `close_notify`). Does not wait: what does not go out at once is
    /// left.
    fn farewell(&mut self);

    /// The socket below, for its options.
    fn tcp(&self) -> &TcpStream;
}

/// How much, and how long, a client may still send after its answer before the connection is
/// closed.
const LINGER: (usize, Duration) = (4 << 20, Duration::from_secs(5));

/// Ends this side, then reads and forgets what the client still sends: a socket that is closed with
/// unread bytes resets the connection, and the client may lose the answer. Either way it had its
/// chance to read that.
pub(super) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let discarded = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut buf = vec![0; 16 * 1024];
        let mut total = 0;
        while let Ok(read @ 1..) = stream.read(&mut buf).await {
            total += read;
            if total > LINGER.0 {
                return;
            }
        }
    };
    let _late = tokio::time::timeout(LINGER.1, discarded).await;
}

impl ClientStream for TcpStream {
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }

    fn has_arrived(&self) -> bool {
        matches!(SockRef::from(self).peek(&mut [MaybeUninit::uninit()]), Ok(1..))
    }

    fn farewell(&mut self) {}

    fn tcp(&self) -> &TcpStream {
        self
    }
}
