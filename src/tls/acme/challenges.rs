//! The proof that a host is ours, as the data plane gives it: in a handshake (RFC 8737), or as the
//! answer to a request (RFC 8555, 8.3). There is one at a time, and mostly none.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use crate::http1::host::compared;

/// What the protocol is called in a handshake that asks for a proof.
pub(in crate::tls) const PROTOCOL: &[u8] = b"acme-tls/1";

/// Where a proof is asked for in a request, before its token.
const PATH: &[u8] = b"/.well-known/acme-challenge/";

/// The proof that may be asked for now. A look at it is wait-free.
#[derive(Debug, Default)]
pub(in crate::tls) struct Challenges(ArcSwapOption<Proof>);

/// A proof.
#[derive(Debug)]
pub(super) enum Proof {
    Request { token: String, text: String },
    Handshake { host: String, terms: Arc<ServerConfig> },
}

/// A proof may be asked for until this is dropped.
pub(super) struct Open<'a>(&'a Challenges);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.0.store(None);
    }
}

impl Challenges {
    pub(super) fn open(&self, proof: Proof) -> Open<'_> {
        self.0.store(Some(Arc::new(proof)));
        Open(self)
    }

    /// Whether a request may ask for a proof now.
    pub(in crate::tls) fn may_be_asked(&self) -> bool {
        matches!(self.0.load().as_deref(), Some(Proof::Request { .. }))
    }

    /// The answer to a request for this path and query, if that asks for the proof.
    pub(in crate::tls) fn answer(&self, path: &[u8]) -> Option<String> {
        let asked = path.strip_prefix(PATH)?;
        match self.0.load().as_deref()? {
            Proof::Request { token, text } if asked == token.as_bytes() => Some(text.clone()),
            _ => None,
        }
    }

    /// How a handshake is made that asks for the proof for `host`.
    pub(in crate::tls) fn terms(&self, host: &[u8]) -> Option<Arc<ServerConfig>> {
        match self.0.load().as_deref()? {
            Proof::Handshake { host: ours, terms } if *compared(host) == *ours.as_bytes() => {
                Some(Arc::clone(terms))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_given_while_it_is_open_and_for_its_token_alone() {
        let challenges = Challenges::default();
        let path = |token: &str| [PATH, token.as_bytes()].concat();
        assert!(!challenges.may_be_asked() && challenges.answer(&path("t")).is_none());
        let open = challenges.open(Proof::Request { token: "t".to_owned(), text: "t.key".to_owned() });
        assert!(challenges.may_be_asked());
        assert_eq!(challenges.answer(&path("t")).as_deref(), Some("t.key"));
        for path in [path("u"), path("t?x"), path(""), b"/t".to_vec()] {
            assert_eq!(challenges.answer(&path), None);
        }
        assert!(challenges.terms(b"a.test").is_none());
        drop(open);
        assert!(!challenges.may_be_asked());
    }
}
