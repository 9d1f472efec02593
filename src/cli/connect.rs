//! Opens one way to a daemon: an HTTP/1.1 connection over which nothing has been sent yet.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderValue;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::way::Way;
use crate::plain::describe_io;

/// The idle time after which TCP probes a silent peer, and the interval of the probes.
const TCP_PROBE: Duration = Duration::from_secs(15);

/// A connection, the task that drives it, and the token for the request.
pub(crate) type Opened = (http1::SendRequest<Full<Bytes>>, JoinSet<()>, Option<HeaderValue>);

/// The reason why a way could not be opened.
pub(crate) struct NotOpened {
    pub(crate) cause: String,
    /// Whether the user lacks a right.
    pub(crate) denied: bool,
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        Self { denied: error.kind() == io::ErrorKind::PermissionDenied, cause: describe_io(&error) }
    }
}

/// Opens `way`. The caller limits the time.
///
/// # Errors
/// The way does not connect, or its token cannot be read.
pub(crate) async fn open(way: &Way) -> Result<Opened, NotOpened> {
    match way {
        Way::Socket(path) => {
            let (sender, driver) = handshake(UnixStream::connect(path).await?).await?;
            Ok((sender, driver, None))
        }
        Way::Tcp { host, port, token } => {
            let token = match token.read() {
                Ok(token) => token,
                Err((cause, kind)) => {
                    return Err(NotOpened { cause, denied: kind == io::ErrorKind::PermissionDenied });
                }
            };
            let token = token.map(|token| HeaderValue::from_str(token.expose())).transpose();
            let Ok(mut token) = token else {
                return Err(NotOpened {
                    cause: "the token holds what a header cannot carry".into(),
                    denied: false,
                });
            };
            if let Some(token) = &mut token {
                token.set_sensitive(true);
            }
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let probe = socket2::TcpKeepalive::new().with_time(TCP_PROBE).with_interval(TCP_PROBE);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&probe)?;
            let (sender, driver) = handshake(stream).await?;
            Ok((sender, driver, token))
        }
    }
}

async fn handshake<S>(stream: S) -> Result<(http1::SendRequest<Full<Bytes>>, JoinSet<()>), NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| NotOpened { cause: describe(&error), denied: false })?;
    let mut driver = JoinSet::new();
    // An error of the connection also reaches the request or the body, which report it.
    driver.spawn(async move { drop(connection.await) });
    Ok((sender, driver))
}

/// hyper's error with its causes.
pub(crate) fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
