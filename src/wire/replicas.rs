//! What `GET /__replicas` answers: every process of every release, and every target, a row each.

use serde::{Deserialize, Serialize};

use super::status::LastExit;

/// One row of `GET /__replicas`: a place of a set, or a process that has lost its place and has not
/// ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaRow {
    /// The name of the app; of the one app of an instance: the instance's.
    pub app: String,
    /// The release; null for a target of an app that has a list of them.
    pub release: Option<String>,
    /// What the release is now.
    pub role: ReplicaRole,
    /// The companion that it is one of; null for one that gets requests.
    pub process: Option<String>,
    /// Its number among those of its kind.
    pub replica: u16,
    /// What it does.
    pub state: ReplicaState,
    /// The address of a target. Absent for a process of portok's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The port on which it listens; null while it has none.
    pub port: Option<u16>,
    /// The leader of its process group; null while it has no process of portok's.
    pub pid: Option<u32>,
    /// Its requests and tunnels in flight.
    pub inflight: u64,
    /// The tunnels among them.
    pub tunnels: u64,
    /// The requests and tunnels that it has got since it is ready.
    pub requests: u64,
    /// How often its place was filled again after a crash.
    pub restarts: u32,
    /// The memory of its process group in bytes, what is shared with other processes in parts
    /// (`Pss`); null where it has no process, or the kernel does not say.
    pub memory: Option<u64>,
    /// When its process was started, RFC 3339.
    pub started_at: Option<String>,
    /// The last crash in its place that this daemon has seen.
    pub last_exit: Option<LastExit>,
}

/// What the release of a replica is now: the names of `GET /__status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaRole {
    /// It serves, or should.
    Live,
    /// It is to become live.
    Candidate,
    /// A rollback would go back to it, and it still runs.
    Previous,
    /// It leaves.
    Draining,
}

impl ReplicaRole {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Candidate => "candidate",
            Self::Previous => "previous",
            Self::Draining => "draining",
        }
    }
}

/// What a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Its process is there or about to be, and is not ready yet.
    Starting,
    /// It is ready.
    Ready,
    /// It is ready, and gets no requests for now: it fails its probes, or requests to it failed.
    Ejected,
    /// It finishes what it has.
    Draining,
    /// Its process is being stopped.
    Stopping,
    /// It has no process: one is started after a delay, or with the next deploy.
    Waiting,
}

impl ReplicaState {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Waiting => "waiting",
        }
    }
}
