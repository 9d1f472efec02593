//! What a probe says over HTTP/2 with prior knowledge: on a connection of its own, which is driven
//! by whoever waits for the answer and ends with it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::net::TcpStream;

use super::failure::Failure;
use crate::http1::head::MAX_HEAD;

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
