//! Releases: the pure machine, its one driver, and the durable record.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::wire;

/// The coordinator as the admin API sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {}

/// A deploy or rollback that was accepted: its events so far and to come.
#[derive(Debug)]
pub struct Attempt {}

impl Attempt {
    /// The release it is about.
    pub fn release(&self) -> &str {
        todo!()
    }
    /// The next event; `None` after `finished`. Cancel safe. Dropping the attempt cancels nothing.
    pub async fn next(&mut self) -> Option<wire::Event> {
        todo!()
    }
    /// Waits for the end: what `finished` says.
    ///
    /// # Errors
    /// Why traffic did not move.
    pub async fn finished(self) -> Result<wire::Moved, wire::ErrorBody> {
        todo!()
    }
}

/// What everybody may know about the app, published after each step of the machine. `inflight` is filled in
/// when it is asked for.
#[derive(Debug, Clone)]
pub struct View {
    /// The release that serves.
    pub live: Option<wire::ReleaseStatus>,
}

impl Handle {
    /// Starts a new release. Returns once it is accepted (its intent may not be on disk yet).
    ///
    /// # Errors
    /// Refused: busy, no command, a known id with other content, the state cannot be written, going down.
    pub async fn deploy(&self, _request: wire::DeployRequest) -> Result<Attempt, wire::ErrorBody> {
        todo!()
    }
    /// Probes `port` and moves traffic there.
    ///
    /// # Errors
    /// Busy, unhealthy (`health_failed`), bad port.
    pub async fn switch(&self, _port: u16) -> Result<wire::Switched, wire::ErrorBody> {
        todo!()
    }
    /// Goes back to the previous release.
    ///
    /// # Errors
    /// `no_previous`, busy, going down.
    pub async fn rollback(&self) -> Result<Attempt, wire::ErrorBody> {
        todo!()
    }
    /// Ends what is under way and has not switched yet.
    ///
    /// # Errors
    /// 409 when nothing is under way.
    pub async fn cancel(&self) -> Result<wire::Accepted, wire::ErrorBody> {
        todo!()
    }
    /// The coordinator's part of `status`: everything but `config`, `listen`, `version`, `pid`, `instance`
    /// is right; those are filled in by the caller.
    pub fn status(&self) -> wire::Status {
        todo!()
    }
    /// All known releases, newest first.
    pub fn releases(&self) -> Vec<wire::ReleaseRow> {
        todo!()
    }
    /// The last lines of a release's output, or of all.
    ///
    /// # Errors
    /// `not_found` for an unknown release.
    pub fn logs(&self, _release: Option<&str>, _lines: usize) -> Result<wire::Logs, wire::ErrorBody> {
        todo!()
    }
    /// The last probe of the live target.
    pub fn health(&self) -> wire::HealthMetrics {
        todo!()
    }
    /// Asks the live target now.
    pub async fn check_health(&self) -> wire::Health {
        todo!()
    }
}
#[expect(unused_imports, reason = "skeleton")]
use {oneshot as _o, watch as _w};
type _Unused = (Arc<()>, SocketAddr);
