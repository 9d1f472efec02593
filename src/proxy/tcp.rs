//! A client's connection that goes to an app as it is (`mode = "tcp"`): it is counted, admitted,
//! held and balanced as a request is, and then passes bytes as a tunnel does.
//!
//! Owned by the task of the client's connection. A client that cannot be given to the app, or that
//! is one too many, is closed; whatever is spoken on the connection, portok does not know how to say
//! why. The counters and the access log have it as a request with the status that says so, and with
//! 200 where the app was reached.

use std::future::poll_fn;
use std::iter;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::answer::UnderWay;
use super::attempts::{Approach, Attempts, Connected, NoAnswer};
use super::connection::ClientConnection;
use super::extras::{Asked, Extras};
use super::here::ServiceHere;
use super::stayer::StayerKind;
use super::ticket::Ticket;
use super::tunnel;
use super::worker::Worker;

/// What the access log has as the protocol.
const PROTO: &str = "tcp";

/// The status of a connection that reached the app.
const REACHED: u16 = 200;

/// Gives a client's connection to the app of `service`, and passes bytes until it ends. `early`: what
/// has been read of it. `name`: the one that it asked for in TLS.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    service: Rc<ServiceHere>,
    (stream, early): (TcpStream, Bytes),
    name: Option<&str>,
) {
    client.begin();
    // A tunnel has no time of its own for what its client does not take.
    let _stays_limited = SockRef::from(&stream).set_tcp_user_timeout(None);
    let mut ticket = Ticket::new(service.clone(), extras_of(client, &service, name));
    let guest = service.guest(client);
    let wish = service.settings.sticky.as_ref().map(|rule| rule.wish(iter::empty(), || guest.ip()));
    if let Err(fault) = ticket.admit(guest) {
        drop(ticket.refuse(&fault, None, true));
        return;
    }
    let attempts = Attempts { worker, service: &service, client, exchange: client.exchange(), wish: &wish };
    let Some(connected) = reach(&attempts, &ticket, (&stream, early.len())).await else { return };
    let Connected { connection, claim } = connected;
    ticket.answered(REACHED, Some(&claim.local.target));
    if let Some(extras) = ticket.extras() {
        extras.became_tunnel();
    }
    let staying =
        client.stay(&worker.stayers, &claim, StayerKind::Tunnel, name.unwrap_or_default().as_bytes());
    client.become_tunnel(ticket.service().clone(), Some(claim.local.target.clone()));
    worker.tunnelled();
    let under_way = UnderWay { claim: Some(claim), ticket };
    let carried =
        tunnel::carry((worker, client.exchange()), (stream, early), connection, (under_way, staying));
    client.uncut(pin!(carried)).await;
}

/// Connects to the app, and counts why that does not come about. `None`: the client is to be closed,
/// or has left.
async fn reach(
    attempts: &Attempts<'_>,
    ticket: &Ticket,
    (stream, early): (&TcpStream, usize),
) -> Option<Connected> {
    let approach = Approach { early, ..Approach::default() };
    let connecting = pin!(attempts.connect(ticket.extras(), &approach));
    let connected = tokio::select! {
        biased;
        connected = attempts.client.uncut(connecting) => connected?,
        () = leaves(stream, &approach) => return None,
    };
    match connected {
        Ok(connected) => Some(connected),
        Err(NoAnswer::Fault { fault, at }) => {
            drop(ticket.refuse(&fault, at.as_deref(), true));
            None
        }
        Err(NoAnswer::Client { .. }) => None,
    }
}

/// What only some configurations want of it.
fn extras_of(client: &ClientConnection, service: &ServiceHere, name: Option<&str>) -> Option<Box<Extras>> {
    let settings = &service.settings;
    let wanted = settings.wanted.as_ref()?;
    let asked = Asked {
        method: "",
        host: name.map(str::as_bytes),
        target: b"",
        proto: PROTO,
        fields: || iter::empty::<(&[u8], &[u8])>(),
    };
    let rules = (&*settings.config, settings.tiers.as_ref());
    Some(wanted.begin(rules, client.peer, &asked, |_, _| false))
}

/// Waits until the client leaves: it breaks off; or it is held, and has ended its side with nothing
/// left to read. One that is not held may have no more to say and all to hear. What it has said
/// hides its end until that is read.
async fn leaves(stream: &TcpStream, approach: &Approach) {
    let ends = async {
        match stream.peek(&mut [0]).await {
            // Whoever waits with this one is polled whenever it comes to be held.
            Ok(0) => {
                poll_fn(|_| if approach.was_held.get() { Poll::Ready(()) } else { Poll::Pending }).await;
            }
            Ok(_) => std::future::pending().await,
            Err(_) => {}
        }
    };
    tokio::select! {
        () = ends => (),
        _ = stream.ready(Interest::ERROR) => (),
    }
}
