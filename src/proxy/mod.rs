//! The data plane: accepts connections, claims a target for each request, passes bytes.
//!
//! # A request's way
//! 1. [`listener`] accepts, until its [`last_call()`]; [`guests`] lets the client in, [`client`]
//!    serves its connection, which [`arrival`] has looked at where that is asked for.
//! 2. [`plain`] reads a plain request; hyper reads any other, [`judge`] and [`forward`] take it on.
//!    With [`mod@http2`] a connection has many at a time. With several apps, [`routes`] say which one
//!    it is for.
//! 3. [`attempts`] claims the target that is live [`here`], and asks it over an [`upstream`] pool.
//! 4. The answer comes back through [`plain`], or through [`answer`] and hyper.
//!
//! A connection that goes to an app as it is has [`mod@tcp`] instead of 2 and 4.
//!
//! # What each file is
//! - The face for the coordinator, the daemon and the admin API: [`board`] (where requests go now,
//!   by which configuration), [`routes`] (which of several apps is asked), [`target`] (one tenure
//!   of an address, and who uses it), [`spread`] (several targets of one app), [`plane`] (the
//!   threads), [`address`] (where it listens) and [`counters`].
//! - One thread: [`worker`] is what its tasks share, [`here`] its view of the board, [`hold`] the
//!   requests that wait for an app, [`balance`] which of several targets is next, [`sticky`] which
//!   one a client stays with, [`settings`] the configuration as requests read it, [`spares`] its
//!   buffers, [`clock`] its coarse time, [`bells`] how it is woken.
//! - One client: [`connection`] is the state of its connection, [`pins`] the targets that it stays
//!   with, [`stream`] its bytes, [`socket`] these as hyper drives them behind a [`gate`], [`crowd`]
//!   how much each address has, [`tiers`] how many requests each client may make in a time, [`who`]
//!   the address that a trusted proxy names in a request, [`proxy_protocol`] the one that a balancer
//!   names before them.
//! - One request: [`client_exchange`] is its state, [`waits`] its deadlines, [`ticket`] counts it,
//!   [`extras`] is what only some configurations want of it, [`headers`] writes the head that goes
//!   to the app, [`pieces`] are bytes on their way to a socket, [`fault`] why portok answers itself,
//!   [`tunnel`] what an upgrade makes of it, [`frames`] where a WebSocket's frames end. [`stayers`]
//!   are those that last, [`parting`] says when they leave a target that is on its way out.
//!
//! The coordinator uses no more of it than [`RouteWriter::set`], [`Target`] (made, retired, closed,
//! and asked who still uses it) and [`ServiceCounters::release`]. As long as that face stays so
//! small, the data plane could become a process of its own.
//!
//! A request never crosses threads and waits for no lock but the short one of an app's tiers.
//! Threads share the board, the targets' counters, the number of a target's connections, how much
//! each client address has, what the clients of tiers did and how many requests wait, and nothing
//! else.

mod address;
mod answer;
mod arrival;
mod attempts;
mod balance;
mod bells;
mod board;
mod client;
mod client_exchange;
mod clock;
mod connection;
mod counters;
mod crowd;
mod edge;
mod encrypted;
mod extras;
mod fault;
mod forward;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gate;
mod guests;
mod headers;
mod here;
mod hold;
mod http2;
mod judge;
mod last_call;
mod listener;
mod parting;
mod pieces;
mod pins;
mod plain;
mod plane;
mod proxy_protocol;
mod routes;
mod settings;
mod socket;
mod spares;
mod spread;
mod stayer;
mod stayers;
mod sticky;
mod stream;
mod target;
mod tcp;
mod ticket;
mod tiers;
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

pub use address::ListenerId;
pub use board::{Bar, Board, Destination, Handling, Held, Maintenance, Now, RouteWriter, Service};
pub use counters::{Counters, ReleaseCounters, ServiceCounters, Snapshot};
pub use last_call::last_call;
pub use listener::{bind, bind_beside};
pub use plane::{Plane, Pulse};
pub use routes::{At, Route};
pub use spread::{Ejections, Spread, Tenure};
pub use stayer::{Stayer, StayerKind};
pub use sticky::Place;
pub use target::Target;
pub use worker::Until;

/// The body of an answer under the reserved prefix, streamed (a deploy's events) or whole.
pub type ReservedBody = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// Answers requests under the reserved admin prefix. The proxy knows the prefix, but not the paths
/// below it.
pub trait Reserved: Send + Sync + 'static {
    /// Answers one request of `peer` that came to `listener`. Called on a data-plane thread, so it
    /// hands the work to the control plane.
    fn answer(
        &self,
        listener: ListenerId,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>>;

    /// Whether `token`, of a request of `peer` to an app, is the admin token. `proxied`: another
    /// proxy has passed the request on. Called on a data-plane thread: must not block.
    fn knows(&self, peer: SocketAddr, token: &[u8], proxied: bool) -> bool;
}
