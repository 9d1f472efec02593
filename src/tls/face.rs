//! What clients are shown, as the data plane reads it, and the handshake.
//!
//! The [`Keeper`](super::keeper) alone writes a [`Face`]. A connection chooses once, when its
//! client has said which host it means; what is swapped later does not concern it.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::acme::challenges::{Challenges, PROTOCOL};
use super::hello::Heard;
use super::server::Shown;
use super::store::Store;

/// The fatal alert `unrecognized_name` (RFC 8446, 6; RFC 6066, 3), in a record that is not
/// encrypted.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The certificates that are shown now, and the proof that an ACME server may ask for. A read of it
/// is wait-free.
#[derive(Debug, Default)]
pub struct Face {
    store: ArcSwap<Store<Shown>>,
    challenges: Challenges,
}

/// What a connection is shown.
#[derive(Debug, Clone)]
pub struct Choice {
    shown: Arc<Shown>,
    is_default: bool,
}

impl Choice {
    /// Whether a request for this host, which may have a port, may be made on the connection: the
    /// certificate is for it, or is shown to everybody.
    pub fn allows(&self, host: &[u8]) -> bool {
        self.is_default || self.shown.covers(host)
    }

    fn terms(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shown.terms)
    }
}

impl Face {
    /// Whether there is a certificate for this host, which may have a port.
    pub fn covers(&self, host: &[u8]) -> bool {
        self.store.load().covers(host)
    }

    /// Whether a request may ask for a proof now.
    pub fn may_be_asked(&self) -> bool {
        self.challenges.may_be_asked()
    }

    /// The answer to a request for this path and query, if that asks for a proof.
    pub fn proof(&self, path: &[u8]) -> Option<String> {
        self.challenges.answer(path)
    }

    pub(super) fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    /// What a client is shown that names this host; `None`: nothing.
    fn choose(&self, host: Option<&[u8]>) -> Option<Choice> {
        let store = self.store.load();
        let shown = store.find(host)?;
        Some(Choice { shown: Arc::clone(shown), is_default: store.is_default(shown) })
    }

    /// How a handshake is made that asks for a proof and nothing else (RFC 8737, 3).
    fn proof_in_handshake(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        let mut protocols = hello.alpn()?;
        let asks = protocols.next() == Some(PROTOCOL) && protocols.next().is_none();
        if asks { self.challenges.terms(hello.server_name()?.as_bytes()) } else { None }
    }

    /// Shows these certificates from now on.
    pub(super) fn change(&self, store: Store<Shown>) {
        self.store.store(Arc::new(store));
    }

    /// Agrees with a client on how to encrypt. The caller has the deadline. If the future is
    /// dropped, the connection is closed.
    ///
    /// # Errors
    /// No certificate is for the host that the client names, or the client and portok do not agree.
    /// The client has been told so.
    pub async fn greet<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Choice)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.agree(LazyConfigAcceptor::new(Acceptor::default(), stream).await?).await
    }

    /// As [`Self::greet`], with a client that has been heard.
    ///
    /// # Errors
    /// As [`Self::greet`].
    pub async fn greet_heard<S>(
        self: Arc<Self>,
        mut stream: S,
        heard: Heard,
    ) -> io::Result<(TlsStream<S>, Choice)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = heard.accepted(&mut stream).await?;
        self.agree(StartHandshake::from_parts(accepted, stream)).await
    }

    async fn agree<S>(&self, mut hello: StartHandshake<S>) -> io::Result<(TlsStream<S>, Choice)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(terms) = self.proof_in_handshake(&hello.client_hello()) {
            let mut stream = hello.into_stream(terms).await?;
            stream.shutdown().await?;
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "it asked for a proof alone"));
        }
        let choice = self.choose(hello.client_hello().server_name().map(str::as_bytes));
        let Some(choice) = choice else {
            hello.io.write_all(&UNRECOGNIZED_NAME).await?;
            hello.io.shutdown().await?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no certificate is for the host it names",
            ));
        };
        let stream = hello.into_stream(choice.terms()).await?;
        Ok((stream, choice))
    }
}
