//! portok on a real systemd: one is booted in namespaces, on a copy of this root, and lives as long as the tests.
//!
//! Needs root, systemd and a cgroup v2 hierarchy that takes new folders. Where one of them is missing the tests say so
//! loudly and pass, unless `PORTOK_REQUIRE_SYSTEMD=1` makes that a failure.
//!
//! The tests share one machine, each with an instance and a port of its own; who changes what all share boots another.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod hardened;
#[cfg(test)]
mod host;
#[cfg(test)]
mod instance;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod package;
#[cfg(test)]
mod several;
#[cfg(test)]
mod units;

/// The parts of the end-to-end tests' harness that are used here too: the app that misbehaves on command, the load that
/// checks every answer, the client, the one way to wait.
#[cfg(test)]
#[expect(dead_code, reason = "the end-to-end tests use all of it, these tests a part")]
#[path = "../e2e/harness"]
mod harness {
    pub(crate) mod app;
    pub(crate) mod command;
    pub(crate) mod conf;
    pub(crate) mod fixture;
    pub(crate) mod http;
    pub(crate) mod load;
    pub(crate) mod procs;
    pub(crate) mod tls;
    pub(crate) mod wait;
}

/// Not a test: this binary is started again as the app of the tests, with what it shall do in `FIXTURE`.
#[test]
fn fixture_app() {
    harness::fixture::run_if_asked();
}
