//! What others see of a coordinator: plain data, published after each of its turns.

use std::sync::Arc;
use std::time::SystemTime;

use super::traffic::InFlight;
use crate::health::Probe;
use crate::supervisor::Identity;
use crate::wire;

/// A snapshot of the app.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The machine knows what an earlier daemon left.
    pub(super) booted: bool,
    pub(super) status: Option<wire::Status>,
    pub(super) app_in_force: wire::AppInForce,
    /// An edit of `[app]` waits for its deploy.
    pub(super) edit_pending: bool,
    pub(super) releases: Arc<[wire::ReleaseRow]>,
    pub(super) health: wire::HealthMetrics,
    /// How to probe each live run.
    pub(super) probes: Vec<Probe>,
    pub(super) live: InFlight,
    pub(super) candidate: InFlight,
    pub(super) previous: InFlight,
    /// The replicas of all sets.
    pub(super) members: Vec<MemberView>,
}

/// One replica in a [`View`].
#[derive(Debug)]
pub(super) struct MemberView {
    /// What is said of it, without its requests.
    pub(super) row: wire::ReplicaRow,
    pub(super) requests: InFlight,
    /// Its process, where that runs.
    pub(super) process: Option<Identity>,
}

/// One replica or target as others see it.
#[derive(Debug, Clone)]
pub struct Member {
    /// What is said of it, without its memory.
    pub row: wire::ReplicaRow,
    /// Its process, where that is portok's and runs: it has a memory.
    pub process: Option<Identity>,
}

/// A status without an app; the coordinator and the admin API fill it in.
pub fn empty_status() -> wire::Status {
    wire::Status {
        active_port: None,
        drain_until: None,
        last_switch: None,
        instance: String::new(),
        app: None,
        phase: wire::Phase::Empty,
        live: None,
        candidate: None,
        previous: None,
        watch_until: None,
        config: wire::ConfigStatus {
            file: None,
            loaded_at: wire::rfc3339(SystemTime::now()),
            error: None,
            app_in_force: None,
            pending: false,
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: String::new(),
        pid: std::process::id(),
        state_error: None,
        last_failure: None,
        last_failure_at: None,
        last_exit: None,
        health: wire::HealthMetrics::default(),
        quarantined: Vec::new(),
        replicas: None,
        scale: None,
        targets: Vec::new(),
        traffic: wire::Traffic::Open,
        paused: None,
        frozen: None,
        plan: None,
        redis: None,
    }
}
