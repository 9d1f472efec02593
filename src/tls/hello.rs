//! What a client says first (RFC 8446, 4.1.2), before it is decided who answers it.

use std::io;

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a read asks for.
const READ: usize = 4096;

/// The most bytes that a client may say first: a message of the greatest length that rustls takes,
/// in records that are not too small.
const MOST: usize = 128 * 1024;

/// A client that has said which host it means.
pub struct Heard {
    pub(super) accepted: Accepted,
    /// As they came.
    bytes: Vec<u8>,
}

impl Heard {
    /// The host that it means, in lower case; `None`: it has named none.
    pub fn name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_ascii_lowercase)
    }

    /// The host that it means, and the bytes of all that it has said.
    pub fn into_parts(self) -> (Option<String>, Vec<u8>) {
        (self.name(), self.bytes)
    }
}

/// Hears what a client says first. The caller has the deadline.
///
/// # Errors
/// It does not speak TLS, and has been told so; or the connection broke.
pub async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Heard> {
    let (mut acceptor, mut bytes) = (Acceptor::default(), Vec::new());
    loop {
        let known = bytes.len();
        if stream.take(READ as u64).read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() > MOST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message does not end"));
        }
        let mut new = &bytes[known..];
        while !new.is_empty() {
            acceptor.read_tls(&mut new)?;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => return Ok(Heard { accepted, bytes }),
            Err((error, mut alert)) => {
                let mut told = Vec::new();
                alert.write_all(&mut told)?;
                stream.write_all(&told).await?;
                stream.shutdown().await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}
