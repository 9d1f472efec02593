//! portok: a deploy agent for one Linux host.
//!
//! `portokd` owns an app's public port, starts each new version on a free loopback port, waits until it is healthy, moves
//! traffic to it in one atomic write, lets the old version finish what it has, stops it, and goes back by itself when the
//! new one turns bad. `portok` is the command line that talks to it. This crate is both; the binaries only parse
//! arguments.
//!
//! # The three ideas
//!
//! 1. **One fact, one owner.** Every piece of changing state has a single writer, everybody else sees snapshots.
//! 2. **Decide purely, act thinly.** What happens next to a release is [`release::state::State::step`]: a function
//!    without clock, I/O or async. One driver ([`release::Coordinator`]) turns the world into its events, and its effects into calls.
//! 3. **The path of a request never waits for the path of a release.** The data plane ([`proxy`]) has threads of its own;
//!    a request reads its target without a lock, and a switch never waits for a request.
//!
//! # The layers
//!
//! Dependencies point downwards only (a test holds the arrows):
//!
//! ```text
//!   bins ─▶ daemon ─▶ admin ─▶ release ─▶ supervisor  health  proxy ─▶ config  http1  wire
//!        │        ╲▶ hooks  systemd ────────────────────────────────▶ config         wire
//!        ╲▶ cli ───────────────────────────────────────────────────▶ config         wire
//! ```
//!
//! | module | is responsible for |
//! | --- | --- |
//! | [`wire`] | the words that daemon and command line exchange |
//! | [`config`] | what may be configured, where it comes from, what a change of it needs |
//! | `http1` | what an HTTP/1.1 message says, judged once: for the proxy and for probes |
//! | [`supervisor`] | one task per process group: start, output, port, stop, until nothing is left of it |
//! | [`health`] | one probe; the wait for the first good ones |
//! | [`proxy`] | the data plane: accept, claim a target, forward, tunnel; who is live is written in one place |
//! | [`systemd`] | what the service manager is told, and the sockets it kept |
//! | [`hooks`] | telling a program of the operator what happened |
//! | [`release`] | the pure machine, its one driver, the durable record |
//! | [`admin`] | shape in, domain call, shape out |
//! | [`cli`] | arguments, the way to the daemon, the host's folders and units, what is printed |
//! | [`logging`] | where portok's own log goes |
//! | [`folder`] | making folders where nobody else has planted a link |
//! | [`plain`] | making harmless what an app or a client wrote, before it is printed |
//! | [`want`] | what portok itself may run out of, and the descriptors kept back for all but the data plane |
//! | [`daemon`] | puts it all together, reloads, and ends it in order |
//!
//! # Who owns what
//!
//! | fact | owner | others see |
//! | --- | --- | --- |
//! | phase, live, candidate, previous, history | the coordinator | a snapshot ([`release::Handle::status`]) |
//! | which target new requests go to | [`proxy::RouteWriter`], of which there is one | a wait-free read |
//! | requests in flight on a target | [`proxy::Target`]: claims are guards | a count |
//! | a process group, its end | its task in [`supervisor`] | what [`supervisor::Process`] publishes |
//! | leased ports | the table behind [`supervisor::Lease`] | a guard |
//! | bytes on disk | [`release::store::Store`], called by the coordinator alone | loaded once |
//! | the configuration | the daemon's reload | a `watch` channel |
//!
//! # The words
//!
//! An **app** is what an operator names and routes to; a **release** is one immutable version of it; a **run** is one
//! process group of a release; a **target** is its address as the proxy uses it, for one tenure. **Live**,
//! **candidate** and **previous** are roles of releases. A **switch** changes which target new requests go to; in
//! the **drain** after it the old target finishes what it has; in the **watch window** portok may go back by itself. An **abort** gives
//! a deploy up before the switch, a **rollback** goes back after it.

pub mod admin;
pub mod apps;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod folder;
pub mod health;
pub mod hooks;
mod host;
mod http1;
pub mod logging;
pub mod plain;
pub mod proxy;
pub mod release;
pub mod supervisor;
pub mod systemd;
pub mod want;
pub mod wire;
