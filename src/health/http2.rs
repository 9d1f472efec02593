//! What a probe says over HTTP/2 with prior knowledge: on a connection of its own, which is driven
//! by whoever waits for the answer and ends with it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{HeaderValue, Request, Version, header};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::{BODY_LIMIT, Probe};
use crate::http1::head::MAX_HEAD;
use crate::wire::ProbeReport;

/// Has `talk` over `stream`.
pub(super) async fn converse<T, F>(
    stream: TcpStream,
    talk: impl FnOnce(SendRequest<Bytes>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut settings = Builder::new();
    settings.enable_push(false).max_header_list_size(MAX_HEAD as u32);
    let (sender, connection) = settings.handshake(stream).await?;
    let (mut talk, mut connection) = (Box::pin(talk(sender)), pin!(connection));
    let mut is_over = false;
    let said = poll_fn(|cx| {
        if let Poll::Ready(said) = talk.as_mut().poll(cx) {
            return Poll::Ready(said);
        }
        // Why it ends is learned by whoever waits for an answer, who is woken by it.
        is_over = is_over || connection.as_mut().poll(cx).is_ready();
        Poll::Pending
    })
    .await;
    drop(talk);
    // With nothing left to say it says goodbye.
    poll_fn(|cx| {
        let _not_waited_for = !is_over && connection.as_mut().poll(cx).is_ready();
        Poll::Ready(())
    })
    .await;
    said
}

/// Asks for `path`, and notes the answer, and when its head came. The beginning of the body of a
/// failure is waited for until `deadline`.
pub(super) async fn get(
    stream: TcpStream,
    probe: &Probe,
    path: &str,
    (report, answered): (&mut ProbeReport, &mut Instant),
    deadline: Instant,
) -> Result<(), Failure> {
    let request = Request::get(format!("http://{}{path}", probe.host))
        .version(Version::HTTP_2)
        .header(header::USER_AGENT, HeaderValue::from_static("portok"))
        .body(())
        .map_err(|_| Failure::Request)?;
    let most_fields = probe.most_fields;
    converse(stream, |mut sender| async move {
        let (head, _no_body) = sender.send_request(request, true)?;
        let (head, body) = head.await?.into_parts();
        if head.headers.len() > most_fields {
            return Err(Failure::NotHttp2("the head has too many fields".to_owned()));
        }
        *answered = Instant::now();
        report.status = Some(head.status.as_u16());
        report.healthy = head.status.is_success();
        if !report.healthy {
            let location = head.headers.get(header::LOCATION);
            report.location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            report.body = beginning(body, deadline).await;
        }
        Ok(())
    })
    .await
}

/// The body's first bytes as text, as far as they came in time.
async fn beginning(mut body: RecvStream, deadline: Instant) -> Option<String> {
    let mut bytes = Vec::new();
    // More than its window is never needed.
    while bytes.len() < BODY_LIMIT
        && let Ok(Some(Ok(data))) = timeout_at(deadline, body.data()).await
    {
        bytes.extend_from_slice(&data);
    }
    bytes.truncate(BODY_LIMIT);
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        if error.is_remote() {
            return Self::Said(format!("the app ended the exchange: {error}"));
        }
        let text = error.to_string();
        match error.into_io() {
            Some(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof) =>
            {
                Self::Closed
            }
            Some(error) => Self::Io(error),
            None => Self::NotHttp2(text),
        }
    }
}
