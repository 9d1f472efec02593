//! What `GET /__status` answers: which releases an app has, and how they are.

use serde::{Deserialize, Serialize};

use super::health::HealthMetrics;
use super::moves::is_false;
use super::phase::Phase;
use super::redis::RedisStatus;
use super::release::Switch;

/// The answer to `GET /__status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The port to which new requests go; null when nothing is live.
    pub active_port: Option<u16>,
    /// When the drain under way ends at the latest, RFC 3339.
    pub drain_until: Option<String>,
    /// The last switch of traffic.
    pub last_switch: Option<Switch>,
    /// The instance's name.
    pub instance: String,
    /// The app's name. Absent where the instance has one app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The state of the app.
    pub phase: Phase,
    /// The live release.
    pub live: Option<ReleaseStatus>,
    /// The release that is being deployed.
    pub candidate: Option<ReleaseStatus>,
    /// The release to which a rollback goes.
    pub previous: Option<ReleaseStatus>,
    /// When the watch window ends, RFC 3339.
    pub watch_until: Option<String>,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// The daemon's version.
    pub version: String,
    /// The address on which requests are accepted.
    pub listen: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Why the state file cannot be written; null when it can.
    pub state_error: Option<String>,
    /// Why the last deploy or rollback failed, or why portok rolled back by itself; null once an
    /// attempt succeeds.
    pub last_failure: Option<String>,
    /// When `last_failure` happened, RFC 3339.
    #[serde(default)]
    pub last_failure_at: Option<String>,
    /// The live release's last crash; null once the release is settled again.
    #[serde(default)]
    pub last_exit: Option<LastExit>,
    /// The last probe of the live target.
    #[serde(default)]
    pub health: HealthMetrics,
    /// The releases in quarantine, the one that was live most recently first. Absent when there are
    /// none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
    /// How many of the targets of an unmanaged app get requests, or of the replicas of a managed
    /// app are ready that has several. Absent for other apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// How many replicas an operator has asked for. Absent while the file's number counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStatus>,
    /// The targets of an unmanaged app that has a list of them. Absent for other apps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetStatus>,
    /// What becomes of the app's requests.
    #[serde(default)]
    pub traffic: Traffic,
    /// By whom requests are made to wait; null while nobody does.
    #[serde(default)]
    pub paused: Option<Standing>,
    /// By whom deploys are stopped; null while they are not.
    #[serde(default)]
    pub frozen: Option<Standing>,
    /// The plan of a deploy that moves traffic in steps; null while none is under way.
    #[serde(default)]
    pub plan: Option<serde_json::Value>,
    /// How it stands with Redis as a source of routes. Absent where the instance has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,
}

/// What becomes of an app's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// They go to the app.
    #[default]
    Open,
    /// They wait.
    Held,
    /// They are all answered by portok itself.
    Maintenance,
}

impl Traffic {
    /// Its name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held => "held",
            Self::Maintenance => "maintenance",
        }
    }
}

/// An order of an operator's that stands: a pause or a freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Who did it.
    pub by: String,
    /// Why; null when it was not said.
    pub note: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// When it ends by itself, RFC 3339; null: not by itself.
    pub until: Option<String>,
}

/// How many replicas or targets an app has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Those that get requests.
    pub ready: usize,
    /// Those that there should be.
    pub wanted: usize,
}

/// How many replicas an operator has asked for, instead of what the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleStatus {
    /// At least so many.
    pub min: u16,
    /// At most so many.
    pub max: u16,
    /// Who asked; null where that is not known.
    pub by: Option<String>,
    /// What the file says.
    pub file: Bounds,
    /// There are others for now: until the deploy under way has ended, or the watch window.
    pub waits: bool,
}

/// The bounds of a number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// At least so many.
    pub min: u16,
    /// At most so many.
    pub max: u16,
}

/// One target of an unmanaged app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its address.
    pub address: String,
    /// Whether it gets requests.
    pub state: TargetState,
    /// Its requests and tunnels in flight.
    pub inflight: u64,
    /// Why its last probe was bad, or that requests to it failed where it gets them all the same;
    /// null after a good probe, and where nothing is known against it.
    pub last_error: Option<String>,
}

/// Whether a target gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// Not yet: it has not been healthy.
    Starting,
    /// It does.
    Ready,
    /// Not for now: it failed.
    Ejected,
    /// Not any more: it finishes what it has.
    Draining,
}

impl TargetState {
    /// The name of the state in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// One release in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The release's id; `port-8081` for an unmanaged app.
    pub release: String,
    /// The port on which it listens; null while it has no process.
    pub port: Option<u16>,
    /// The leader of its process group; null when it has no process, or when it is unmanaged.
    pub pid: Option<u32>,
    /// When this process was started, RFC 3339.
    pub started_at: Option<String>,
    /// How often it was restarted after a crash.
    pub restarts: u32,
    /// Its requests and tunnels in flight.
    pub inflight: u64,
    /// The step of its deploy that runs. Absent while none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
}

/// A step of a deploy that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// `before` or `verify`.
    pub step: String,
    /// The leader of its process group; null while it has none.
    pub pid: Option<u32>,
    /// When it was started, RFC 3339.
    pub started_at: Option<String>,
}

/// The last crash of the live release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastExit {
    /// The release.
    pub release: String,
    /// Its exit status or signal.
    pub exit: String,
    /// When, RFC 3339.
    pub at: String,
}

/// The configuration in a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The configuration file; null when the environment alone configures.
    pub file: Option<String>,
    /// When the configuration in force was loaded, RFC 3339.
    pub loaded_at: String,
    /// Why the newest version of the file was not loaded; null when it was.
    pub error: Option<String>,
    /// Whether the live release is what `[app]` says.
    #[serde(default)]
    pub app_in_force: Option<AppInForce>,
    /// Whether an edit of `[app]` waits for its deploy. Absent while none does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pending: bool,
}

/// Whether the live release is what `[app]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInForce {
    /// True when it is, or when `[app]` says nothing.
    pub in_force: bool,
    /// Why it is not: `pending` (its deploy is due), `quarantined` (the same content was rolled
    /// back), `aborted` (its deploy failed), `deploy_on_change` (it waits for a `portok deploy`),
    /// `replaced` (another release was made live since), `switched` (an operator switched an app
    /// with targets to others).
    pub why: Option<String>,
}
