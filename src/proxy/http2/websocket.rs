//! A WebSocket that a client asks for over HTTP/2 (RFC 8441), of an app that knows HTTP/1.1 alone
//! (RFC 6455, 4): the key that portok makes, and the app's proof that it has read it.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The name of the protocol.
const NAME: &str = "websocket";

/// What the app adds to the key before it takes the digest (RFC 6455, 1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The digits of base64 (RFC 4648, 4).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whether a client may have one, where it may upgrade to these protocols.
pub(super) fn is_allowed(upgrades: &[String]) -> bool {
    upgrades.iter().any(|name| name == NAME)
}

/// Whether this is the protocol's name.
pub(super) fn is_it(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(NAME.as_bytes())
}

/// What was asked of the app.
#[derive(Debug)]
pub(super) struct Handshake {
    key: String,
}

impl Handshake {
    /// A handshake with a new key. `None`: the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        let mut nonce = [0; 16];
        let read = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty()).ok()?;
        (read == nonce.len()).then(|| Self { key: base64(&nonce) })
    }

    /// Asks for it in the head that goes to the app.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(NAME));
        if let Ok(key) = HeaderValue::from_str(&self.key) {
            headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        headers.entry(header::SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
    }

    /// What the client is answered where the app has answered with this status and these fields.
    /// `Err`: the answer says neither yes nor no.
    pub(super) fn answer(&self, status: StatusCode, headers: &mut HeaderMap) -> Result<StatusCode, ()> {
        if status != StatusCode::SWITCHING_PROTOCOLS {
            // Any 2xx would open the tunnel (RFC 8441, 5).
            return if status.is_success() { Err(()) } else { Ok(status) };
        }
        let accepted = headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        headers.remove(header::UPGRADE);
        headers.remove(header::CONNECTION);
        accepted
            .filter(|accepted| accepted.as_bytes() == self.proof().as_bytes())
            .map(|_| StatusCode::OK)
            .ok_or(())
    }

    fn proof(&self) -> String {
        base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[self.key.as_bytes(), SALT].concat()).as_ref())
    }
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() { digit.into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_proof_is_that_of_rfc_6455() {
        let handshake = Handshake { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let answer = |status: StatusCode, accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(accept));
            headers.insert(header::UPGRADE, HeaderValue::from_static(NAME));
            (handshake.answer(status, &mut headers), headers.len())
        };
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        assert_eq!(answer(switching, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), (Ok(StatusCode::OK), 0));
        assert_eq!(answer(switching, "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="), (Err(()), 0));
        assert_eq!(answer(StatusCode::OK, "x").0, Err(()));
        assert_eq!(answer(StatusCode::FORBIDDEN, "x"), (Ok(StatusCode::FORBIDDEN), 2));
    }
}
