//! What holds for any bytes that a client sends. For tests and the fuzz targets.

use super::gate::Gate;
use super::plain::request;
use super::proxy_protocol;

/// A head is read as hyper reads it, and the gate before hyper lets the same bytes pass in pieces
/// of any size.
pub(crate) fn request_heads(bytes: &[u8]) {
    request::fuzzing::heads(bytes);
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let whole = passed([bytes]);
    assert_eq!(passed(bytes.chunks(1 + usize::from(size % 64))), whole);
    request::fuzzing::heads(bytes);
}

/// A header of the PROXY protocol is understood or refused.
pub(crate) fn proxy_headers(bytes: &[u8]) {
    proxy_protocol::any_header(bytes);
}

/// What passes the gate before the first message is judged, and the target that it kept.
fn passed<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut gate, mut all) = (Gate::default(), Vec::new());
    for part in parts {
        let mut part = part.to_vec();
        let count = gate.pass(&mut part);
        all.extend_from_slice(&part[..count]);
        if count < part.len() {
            break;
        }
    }
    (all, gate.take_target())
}
