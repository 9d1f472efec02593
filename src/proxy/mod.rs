//! The data plane: accepts connections, claims a target for each request, passes bytes.
//!
//! The public face, used by the coordinator (switch, retire, close), by the daemon (start, rebind, stop)
//! and by the admin API (counters). Behind it:
//!
//! - [`plane`] runs the threads, [`listener`] accepts for them, [`worker`] is what the tasks of one thread share;
//! - [`switchboard`](mod@switchboard) says which [`target`] is live, and a target who uses it;
//! - [`client`] serves one client connection: [`plain`] its plain requests, and once another kind has come, hyper behind
//!   a [`gate`] with [`forward`] for each that [`judge`] lets pass; [`tunnel`] is what an upgrade made of it;
//! - [`attempts`] is a request's way to an answer's head; [`headers`] decides which fields pass, [`answer`] is what the
//!   client gets, [`pieces`] are bytes on their way to a socket;
//! - [`upstream`] speaks HTTP/1.1 to the app;
//! - [`crowd`] knows how much each client address has, for the limits, [`who`] which address is the client's; [`waits`] is what an exchange waits for;
//! - [`stats`] counts, [`clock`] keeps the threads' coarse time.
//!
//! A request never crosses threads and waits for no lock. Threads share the switchboard's pointer, the targets'
//! counters, the number of a target's connections, how much each client address has, and nothing else.

mod answer;
mod attempts;
mod client;
mod clock;
mod connection;
mod crowd;
mod fault;
mod forward;
mod gate;
mod guests;
mod headers;
mod here;
mod judge;
mod listener;
mod pieces;
mod plain;
mod plane;
mod settings;
mod socket;
mod spares;
mod stats;
mod switchboard;
mod target;
mod ticket;
mod tunnel;
mod upstream;
mod waits;
mod who;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;

pub use listener::{ListenerId, bind};
pub use plane::{Plane, Pulse};
pub use stats::{ReleaseCounters, Snapshot, Stats};
pub use switchboard::{RouteWriter, Switchboard, switchboard};
pub use target::Target;
pub use worker::Until;

/// The body of an answer under the reserved prefix: streamed (a deploy's events) or whole.
pub type ReservedBody = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// Answers requests under the reserved admin prefix. The proxy knows the prefix, not what stands under it.
pub trait Reserved: Send + Sync + 'static {
    /// Answers one request of `peer`. Called on a data-plane thread: hands the work to the control plane.
    fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>>;
}
