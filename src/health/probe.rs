//! One probe.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use http::header::LOCATION;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::failure::Failure;
use super::{Ask, BODY_LIMIT, Probe, Unable, grpc, http2};
use crate::http1::chunked::{Chunked, Piece};
use crate::http1::head::{self, Fields, Framing, Head, Invalid, MAX_INTERIM, Parsed};
use crate::proxy_header;
use crate::want;
use crate::wire::ProbeReport;

/// What a read asks for.
const READ: usize = 4096;

/// How often it is looked whether portok runs. Of a moment in which it did not, no more counts.
const SLICE: Duration = Duration::from_millis(250);

impl Probe {
    /// Probes once. What goes wrong with the app is in the report.
    ///
    /// # Errors
    /// portok itself could not make the probe.
    pub async fn ask(&self) -> Result<ProbeReport, Unable> {
        let begun = Instant::now();
        // A deadline beyond the clock's range becomes a day.
        let deadline = begun.checked_add(self.timeout).unwrap_or_else(|| begun + Duration::from_secs(86_400));
        let mut report = ProbeReport { attempts: 1, ..ProbeReport::default() };
        let mut answered = begun;
        let exchange = async {
            let mut stream = self.connect().await?;
            if self.tells_whose {
                stream.write_all(&proxy_header::OWN).await?;
            }
            let path = match &self.ask {
                Ask::Get(path) => path,
                Ask::Connect => {
                    report.healthy = true;
                    return Ok(());
                }
                Ask::GetOverHttp2(path) => {
                    let noted = (&mut report, &mut answered);
                    return http2::get(stream, self, path, noted, deadline).await;
                }
                Ask::Grpc(service) => {
                    return grpc::check(stream, self, service, &mut report).await;
                }
            };
            let mut app = App { stream, buf: BytesMut::new() };
            app.stream.write_all(&self.request(path)?).await?;
            let head = app.head(self.most_fields).await?;
            answered = Instant::now();
            report.status = Some(head.status.as_u16());
            report.healthy = head.status.is_success();
            if !report.healthy {
                let location = head.headers.get(LOCATION);
                report.location =
                    location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                report.body = app.beginning(head.framing, deadline).await;
            }
            Ok::<(), Failure>(())
        };
        let failure = match within(self.timeout, exchange).await {
            Some(Ok(())) => None,
            Some(Err(failure)) => match failure.into_want() {
                Ok(want) => return Err(Unable(want)),
                Err(failure) => Some(failure.to_string()),
            },
            // The answer's head came in time; only its body did not.
            None if report.status.is_some() => None,
            None => Some(format!("no answer within {}", humantime::format_duration(self.timeout))),
        };
        if report.status.is_none() {
            answered = Instant::now();
        }
        report.error = failure;
        // To the microsecond.
        report.latency_ms = (answered.duration_since(begun).as_secs_f64() * 1e6).round() / 1e3;
        Ok(report)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connected = TcpStream::connect(self.addr).await;
        let stream = connected.map_err(|error| want::of_connecting(self.addr, error))?;
        if met_itself(&stream)? {
            // Nobody listens, and the kernel happened to give this end the very port that it
            // connects to: by TCP's simultaneous open (RFC 9293, 3.5) the socket is connected with
            // itself. A reset leaves the port free for the app.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn request(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let fits = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        if !path.starts_with('/') || !fits(path) || !fits(&self.host) {
            return Err(Failure::Request);
        }
        let host = &self.host;
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: portok\r\nconnection: close\r\n\r\n");
        Ok(head.into_bytes())
    }
}

/// Waits for `future` for as long as `limit` says. An app is not late because portok was kept from
/// running and could not read its answer: in each slice of the time there was a look.
async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), limit);
    while !left.is_zero() {
        let slice = left.min(SLICE);
        if let Ok(done) = timeout(slice, future.as_mut()).await {
            return Some(done);
        }
        left -= slice;
    }
    None
}

fn met_itself(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// A connection to the probed app.
struct App {
    stream: TcpStream,
    /// Received and not yet used.
    buf: BytesMut,
}

impl App {
    /// The answer's head, read by the rules of the proxy.
    async fn head(&mut self, most_fields: usize) -> Result<Head, Failure> {
        let (mut map, mut interim) = (HeaderMap::new(), 0);
        loop {
            self.buf.reserve(READ);
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(Failure::Closed);
            }
            while !self.buf.is_empty() {
                match head::parse(&mut self.buf, false, most_fields, &mut Fields::Map(&mut map))? {
                    Parsed::Partial => break,
                    Parsed::Interim if interim >= MAX_INTERIM => {
                        return Err(Invalid("too many interim answers").into());
                    }
                    Parsed::Interim => interim += 1,
                    Parsed::Head(head) => return Ok(head),
                }
            }
        }
    }

    /// The body's first bytes as text, as far as they came in time.
    async fn beginning(mut self, framing: Framing, deadline: Instant) -> Option<String> {
        let length = match framing {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Framing::Chunked | Framing::Eof => usize::MAX,
        };
        let mut chunked = (framing == Framing::Chunked).then_some(Chunked::Size);
        let (mut bytes, most) = (Vec::new(), BODY_LIMIT.min(length));
        while bytes.len() < most {
            let more = match &mut chunked {
                Some(chunked) => match chunked.decode(&mut self.buf) {
                    Ok(Piece::Data(data)) => {
                        bytes.extend_from_slice(&data);
                        false
                    }
                    Ok(Piece::Partial) => true,
                    Ok(Piece::Trailers(_) | Piece::End) | Err(_) => break,
                },
                None => {
                    bytes.extend_from_slice(&self.buf.split());
                    bytes.len() < most
                }
            };
            if more && !matches!(timeout_at(deadline, self.stream.read_buf(&mut self.buf)).await, Ok(Ok(1..)))
            {
                break;
            }
        }
        bytes.truncate(most);
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test(start_paused = true)]
    async fn an_app_has_its_time_whatever_passes_while_portok_does_not_run() {
        let (limit, begun) = (Duration::from_secs(5), Instant::now());
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed(), limit);
        // The clock jumps while the exchange goes on in steps, as after a moment without a turn.
        let steps = async {
            for _ in 0..2 {
                tokio::time::advance(Duration::from_secs(60)).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert_eq!(within(limit, steps).await, Some(()));
        assert_eq!(within(Duration::MAX, async { 1 }).await, Some(1));
    }

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
