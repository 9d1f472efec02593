//! The body of an admin request: read to its end, bounded in length and time.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::super::request::{self, bad};
use crate::wire::ErrorBody;

/// How long a request's body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// How much of a body that is too long is read and thrown away, in bytes. A client that is still
/// sending when its connection is closed may never see the answer.
pub(super) const DISCARDED: usize = 8 * request::MAX_BODY;

/// Reads a body of at most so many bytes to its end.
pub(super) async fn read<B>(body: B, most: usize) -> Result<Bytes, Box<ErrorBody>>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let too_long = || bad(format!("the body is longer than {most} bytes"));
    if body.size_hint().lower() > DISCARDED as u64 {
        return Err(too_long());
    }
    let mut body = pin!(body);
    let all = async {
        let (mut kept, mut length) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if length > DISCARDED {
                break;
            }
            if length <= most {
                kept.extend_from_slice(&data);
            }
        }
        Ok((kept.freeze(), length))
    };
    match timeout(BODY_WITHIN, all).await {
        Ok(Ok((kept, length))) if length <= most => Ok(kept),
        Ok(Ok(_)) => Err(too_long()),
        Ok(Err::<_, B::Error>(cause)) => Err(bad(format!("the body cannot be read: {cause}"))),
        Err(_) => Err(bad(format!("the body did not come within {} s", BODY_WITHIN.as_secs()))),
    }
}
