//! portok: a deploy agent for one Linux host.
//!
//! `portokd` owns the public port of an app. It starts each new version on a free loopback port,
//! waits until the version is healthy, moves traffic to it in one atomic write, lets the old
//! version finish its requests, stops it, and rolls back by itself if the new version turns bad.
//! `portok` is the command line that talks to it. This crate is both; the binaries only parse
//! arguments.
//!
//! # The three ideas
//!
//! 1. **One fact, one owner.** Every piece of changing state has a single writer; everybody else
//!    sees snapshots.
//! 2. **Decide purely, act thinly.** What happens next to a release is
//!    [`release::state::State::step`]: a function without clock, I/O or async. One driver per app
//!    ([`release::Coordinator`]) turns what happens into its events, and its effects into calls.
//! 3. **The path of a request never waits for the path of a release.** The data plane ([`proxy`])
//!    has its own threads; a request reads its target without a lock, and a switch never waits for
//!    a request.
//!
//! # The layers
//!
//! A module imports only what lies to its right; `tests/layers.rs` holds the exact arrows. The
//! binary `portok` also uses `daemon`, for `portok run`.
//!
//! ```text
//! portokd ─▶ daemon ─▶ apps, admin ─▶ release ─▶ supervisor, health, proxy ─▶ access, tls, config, http1, wire
//!                └──▶ hooks, systemd, logging ─────────────────────────────▶ config, wire
//! portok ──▶ cli ────▶ host ───────────────────────────────────────────────▶ config, wire
//! ```
//!
//! | module | is responsible for |
//! | --- | --- |
//! | [`wire`] | the requests, answers, errors and events that daemon and command line exchange |
//! | [`config`] | the keys of the configuration, where values come from, what a change of one needs |
//! | `http1` | what an HTTP/1.1 message says, judged once: for the proxy and for probes |
//! | [`supervisor`] | one task per process group: start, output, port, stop, until nothing of it is left |
//! | [`health`] | one probe; the wait for the first good ones |
//! | [`access`] | the access log: what the line of a request says, and the thread that writes it |
//! | [`tls`] | certificates: which there are, which one a client is shown, the handshake |
//! | [`proxy`] | the data plane: accepts connections, claims targets, forwards requests, tunnels |
//! | [`release`] | one app's releases: the pure machine, its one driver, the durable record |
//! | [`apps`] | the apps of a daemon: which there are, their routes, how they begin, change, go, and are told things together |
//! | [`redis`] | the routes that Redis holds: read, bounded, guarded, kept on disk |
//! | [`admin`] | the admin API: reads requests, makes one domain call, writes answers |
//! | [`systemd`] | messages to the service manager, and the sockets that it kept |
//! | [`hooks`] | the operator's program that is told of events |
//! | [`logging`] | where portok's own log goes |
//! | [`daemon`] | composes all of the above, reloads, upgrades, and ends them in order |
//! | `host` | administers a machine: folders, units, instances, the doctor |
//! | [`cli`] | arguments, the way to the daemon, and everything that is printed |
//! | [`folder`] | makes folders, never behind a link that another user planted |
//! | [`plain`] | makes text of apps and clients harmless before it is printed |
//! | [`want`] | shortages of portok itself, and the descriptors that the data plane may not use |
//!
//! # Who owns what
//!
//! | fact | owner | others see |
//! | --- | --- | --- |
//! | which apps there are, and which has which route | the registry in [`apps`] | a snapshot ([`apps::Apps::list`]) |
//! | phase, live, candidate, previous, history | the app's coordinator | a snapshot ([`release::Handle::status`]) |
//! | which of several apps a request is for ([`proxy::Route`]) | the registry in [`apps`], through [`proxy::Board::route`] | a wait-free read |
//! | where requests go now ([`proxy::Now`]) | the coordinator, through the one [`proxy::RouteWriter`] | a wait-free read |
//! | requests in flight on a target | [`proxy::Target`]: claims are guards | a count |
//! | a process group and its end | its task in [`supervisor`] | what [`supervisor::Process`] publishes |
//! | leased ports | the table in [`supervisor::Common`] | a guard ([`supervisor::Lease`]) |
//! | bytes on disk | [`release::store::Store`] of each app, called by its coordinator's recorder alone | loaded once at the start |
//! | the configuration in force | the daemon's reload | a `watch` channel; the data plane by the [`proxy::Board`] |
//! | which certificates are shown | the task in [`tls`] that reads their files | a wait-free read |
//! | the table of Redis in force | the task in [`redis`] that reads it | a `watch` channel |
//! | the file of the access log | the log's own thread ([`access::Log`]) | a bounded queue ([`access::Recorder`]) |
//! | counters of requests | the data-plane threads, a lane each ([`proxy::Counters`]) | a sum |
//!
//! # The words
//!
//! An **instance** is one configured daemon. An **app** is what it serves: **managed** if portok
//! starts it, **unmanaged** if another program does. A **release** is one immutable version of an
//! app. A **replica** is a place in a **set** of a release, which one **run**, a process group,
//! fills after another. A **service** is an app as the data plane knows it, and a **target** is the
//! address of a run, for one tenure as live. A **route** leads
//! requests for a host and a path to a service. The **board** says where the requests of a service
//! go now. **Live**, **candidate** and **previous** are roles of releases.
//!
//! A **switch** changes which target gets new requests. In the **drain** after it, the old target
//! finishes its requests. In the **watch window** after it, portok may roll back by itself. A
//! **step** is a command that runs once a deploy, before its candidate is started or before the
//! switch. An **abort** ends a deploy before the switch; a **rollback** goes back after it. The
//! release that a rollback leaves is in **quarantine**: nothing goes there again unless it is
//! forced.

pub mod access;
pub mod admin;
pub mod apps;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod folder;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod hooks;
mod host;
mod http1;
pub mod logging;
pub mod plain;
pub mod proxy;
pub mod proxy_header;
pub mod redis;
pub mod release;
pub mod supervisor;
pub mod systemd;
pub mod tls;
pub mod want;
pub mod wire;
