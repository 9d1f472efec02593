//! portok end to end: the real daemon and command line, real processes that misbehave on command.
//!
//! Every test has a folder and an instance name of its own, listens on port 0, waits for conditions
//! and never for time, and ends by asserting that no process of its instance is left.
//!
//! The modules are marked `cfg(test)`, which they are anyway, so that what clippy exempts tests
//! from holds for their helpers too.

#[cfg(test)]
mod access;
#[cfg(test)]
mod acme;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod apps;
#[cfg(test)]
mod autopsy;
#[cfg(test)]
mod boot;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod companions;
#[cfg(test)]
mod config_reload;
#[cfg(test)]
mod container;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod fire;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod host;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod import;
#[cfg(test)]
mod keeper;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod killed_first;
#[cfg(test)]
mod leftovers;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod load;
#[cfg(test)]
mod older;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod phases;
#[cfg(test)]
mod proxy_path;
#[cfg(test)]
mod ps;
#[cfg(test)]
mod real;
#[cfg(test)]
mod recreate;
#[cfg(test)]
mod recycling;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod rollback;
#[cfg(test)]
mod run;
#[cfg(test)]
mod several_operator;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod state;
#[cfg(test)]
mod state_again;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod sticky;
#[cfg(test)]
mod switch;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod tcp;
#[cfg(test)]
mod tiers;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod upgrade_busy;
#[cfg(test)]
mod want;
#[cfg(test)]
mod way_back;
#[cfg(test)]
mod websockets;

/// Not a test: this binary is started again as the app of the tests, with what it shall do in
/// `FIXTURE`.
#[test]
fn fixture_app() {
    harness::fixture::run_if_asked();
}
