//! An accepted connection that is looked at before it is served: because a balancer says who its
//! client is, an app is told, or it may go to an app as it is.
//!
//! Most configurations have none of that ([`Settings::looks_closer`](super::settings::Settings)),
//! and their connections never come here.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;

use super::address::Scheme;
use super::client;
use super::connection::{ClientConnection, Door};
use super::crowd::Visit;
use super::headers::is_trusted;
use super::proxy_protocol;
use super::tcp;
use super::worker::Worker;
use crate::config::ProxyProtocol;
use crate::tls;

/// Serves a connection of `peer` that came in by `door`.
pub(super) async fn receive(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    peer: SocketAddr,
    door: Rc<Door>,
    visit: Visit,
) {
    // One that is broken already has no address any more.
    let Ok(at) = stream.local_addr() else { return };
    let door = door.reached_at(at);
    let arriving = worker.arrives();
    let (client, door) = match introduced(&worker, &mut stream, peer).await {
        Ok(Some(client)) => (client, Rc::new(door.behind(peer))),
        Ok(None) => (peer, Rc::new(door)),
        Err(error) => return tracing::debug!(%peer, %error, "a connection is cut"),
    };
    let own = worker.here.look();
    if let Some(service) = worker.here.of_connections(&own, &door.listener) {
        let listed = worker.list(ClientConnection::new(client, door, visit));
        drop(arriving);
        return tcp::serve(listed.worker(), listed.client(), service, (stream, Bytes::new()), None).await;
    }
    // Each of them lists the connection before it waits for anything.
    match door.scheme {
        Scheme::Http => {
            let serving = client::serve(&worker, stream, client, door, visit);
            drop(arriving);
            serving.await;
        }
        Scheme::Https if own.has_names() => {
            let listed = worker.list(ClientConnection::new(client, Rc::new(door.of_its_own()), visit));
            drop(arriving);
            hear(listed.worker(), listed.client(), stream).await;
        }
        Scheme::Https => {
            let greeting = client::greet(&worker, stream, client, &door, visit);
            drop(arriving);
            greeting.await;
        }
    }
}

/// Reads what a balancer says of its client. `None`: nothing. Whoever may not say it, or says it
/// wrongly or too slowly, is to be cut.
async fn introduced(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> io::Result<Option<SocketAddr>> {
    let (time, spoken) = {
        let own = worker.here.look();
        let proxy = &own.settings.config.proxy;
        if proxy.proxy_protocol == ProxyProtocol::Off {
            return Ok(None);
        }
        if !is_trusted(peer.ip(), &proxy.trusted) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a peer that is not in proxy.trusted says nothing of clients",
            ));
        }
        (proxy.header_timeout, proxy.proxy_protocol)
    };
    let told = tokio::time::timeout(time, proxy_protocol::read(stream, spoken)).await;
    told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Hears which host the client of an encrypted connection means. Where that is an app's that speaks
/// TLS itself, it gets the connection; else it is portok's to encrypt.
async fn hear(worker: &Rc<Worker>, client: &Rc<ClientConnection>, mut stream: TcpStream) {
    client.greet();
    let heard = match client.uncut(pin!(tls::hear(&mut stream))).await {
        Some(Ok(heard)) => heard,
        Some(Err(error)) => return tracing::debug!(peer = %client.peer, %error, "a handshake failed"),
        None => return,
    };
    let own = worker.here.look();
    match worker.here.named(&own, heard.name().unwrap_or_default().as_bytes()) {
        Some(service) => {
            let (name, early) = heard.into_parts();
            tcp::serve(worker, client, service, (stream, early.into()), name.as_deref()).await;
        }
        None => client::agree(worker, client, worker.face().clone().greet_heard(stream, heard)).await,
    }
}
