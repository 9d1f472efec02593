//! What a client of gRPC is told where portok itself answers.
//!
//! Such a client reads trailers, not bodies: the answer keeps its status and `portok-error`, and
//! says the same as gRPC does (a head that is all there is, with `grpc-status`). Pure.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::proxy::answer::Body;
use crate::proxy::fault::ERROR;

/// The media type of a call, alone or with what its messages are behind a `+` or parameters.
const CALL: &[u8] = b"application/grpc";

/// Whether a request is a call of gRPC.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    let rest = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.as_bytes().strip_prefix(CALL));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Says in gRPC's way what an answer to a call says, if it is portok's own.
pub(super) fn translate(answer: &mut Response<Body>) {
    let Some(code) = answer.headers().get(ERROR).cloned() else { return };
    // An app that is a portok too has said it itself.
    if !answer.body_mut().silence() {
        return;
    }
    let status = answer.status();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code_of(status)));
    if let Ok(message) = HeaderValue::from_bytes(&[b"portok: ", code.as_bytes()].concat()) {
        headers.insert("grpc-message", message);
    }
}

/// The code that a client of gRPC makes of a status
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>); a body that is too
/// long is more than is allowed.
fn code_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        413 => 8,
        408 | 429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_media_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_call(&headers), is, "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }
}
