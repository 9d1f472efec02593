//! One probe.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{Probe, Unable};
use crate::want;
use crate::wire::ProbeReport;

/// How much of a failed probe's body is kept, in bytes.
const BODY_LIMIT: usize = 512;

impl Probe {
    /// Asks once, on a connection of its own. What goes wrong with the app is in the report.
    ///
    /// # Errors
    /// Portok itself could not ask.
    pub async fn ask(&self) -> Result<ProbeReport, Unable> {
        let begun = Instant::now();
        // A time that no clock can hold is as good as a day.
        let deadline = begun.checked_add(self.timeout).unwrap_or_else(|| begun + Duration::from_secs(86_400));
        let mut report = ProbeReport { attempts: 1, ..ProbeReport::default() };
        let mut answered = begun;
        let exchange = async {
            let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await?;
            let asked = async {
                let response = self.send(sender).await?;
                answered = Instant::now();
                report.status = Some(response.status().as_u16());
                report.healthy = response.status().is_success();
                if !report.healthy {
                    let location = response.headers().get(LOCATION);
                    report.location =
                        location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                    report.body = beginning(response.into_body(), deadline).await;
                }
                Ok::<(), Failure>(())
            };
            tokio::pin!(asked);
            tokio::select! {
                biased;
                result = &mut asked => return result,
                // It ends with the answer's last byte, which may be before the answer was looked at.
                _ = connection => {}
            }
            asked.await
        };
        let failure = match timeout_at(deadline, exchange).await {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => match failure.into_want() {
                Ok(want) => return Err(Unable(want)),
                Err(failure) => Some(failure.to_string()),
            },
            // The answer's head was in time; only its body was not.
            Err(_) if report.status.is_some() => None,
            Err(_) => Some(format!("no answer within {}", humantime::format_duration(self.timeout))),
        };
        if report.status.is_none() {
            answered = Instant::now();
        }
        report.error = failure;
        // Microseconds are what can be told apart.
        report.latency_ms = (answered.duration_since(begun).as_secs_f64() * 1e6).round() / 1e3;
        Ok(report)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr).await?;
        if met_itself(&stream)? {
            // Nobody listens, and the kernel happened to give this end the very port it connects to: TCP's simultaneous
            // open (RFC 9293, 3.5) has connected the socket with itself. Reset it, so that the app finds its port free.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn send(
        &self,
        mut sender: http1::SendRequest<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = Request::get(&self.path)
            .header(HOST, &self.host)
            .header(USER_AGENT, "portok")
            .header(CONNECTION, "close")
            .body(Empty::new())?;
        Ok(sender.send_request(request).await?)
    }
}

fn met_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// The body's first bytes as text; what has come when the time is over.
async fn beginning(mut body: Incoming, deadline: Instant) -> Option<String> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_LIMIT {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
    bytes.truncate(BODY_LIMIT);
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", of_io(.0))]
    Io(#[from] io::Error),
    #[error("{}", of_http(.0))]
    Http(#[from] hyper::Error),
    #[error("the probe's path or host cannot be sent: {0}")]
    Request(#[from] http::Error),
}

impl Failure {
    /// What portok itself lacked, if it was that.
    fn into_want(self) -> Result<io::Error, Self> {
        match self {
            Self::Io(error) if want::is_own(&error) => Ok(error),
            other => Err(other),
        }
    }
}

fn of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

fn of_http(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed before an answer".to_owned();
    }
    if error.is_parse() {
        return format!("the answer is not HTTP: {error}");
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(cause) => of_io(cause),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test]
    async fn a_connection_with_itself_is_told_from_one_with_an_app() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap();
        assert!(met_itself(&socket.connect(addr).await.unwrap()).unwrap());

        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(app.local_addr().unwrap()).await.unwrap();
        assert!(!met_itself(&stream).unwrap());
    }
}
