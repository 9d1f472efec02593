//! The words that daemon and command line exchange: requests, answers, errors, events.
//!
//! Everything here is plain data with its JSON shape, one file per conversation. Nothing here
//! decides anything. The names are part of the contract: keys and values may be added, none may be
//! renamed or removed. Keys are in camel case (`activePort`), as npm portok has them.

mod apps;
mod autopsy;
mod certificates;
mod command;
mod daemon;
mod drain;
mod error;
mod event;
mod health;
mod instance;
mod logs;
mod metrics;
mod moves;
mod orders;
mod phase;
mod redis;
mod release;
mod replicas;
mod status;
mod strategy;

pub use apps::{AppChange, AppReload, AppRow, AppSource};
pub use autopsy::{Autopsy, ProbeReport};
pub use certificates::{CertificateRow, CertificateSource, CertificateState};
pub use command::CommandLine;
pub use daemon::{Ended, Reloaded, UpgradeRequest, Upgraded};
pub use drain::{Drain, DrainRequest, DrainRow, EXTEND_MOST};
pub use error::{Code, ErrorBody, exit};
pub use event::{EventKind, HookEvent, StreamEvent};
pub use health::{Health, HealthMetrics, ReplicaHealth};
pub use instance::InstanceStatus;
pub use logs::{LogLine, Logs, LogsRequest, STEPS, Stream, WEB, called, is_step};
pub use metrics::{Metrics, ProxyErrorView};
pub use moves::{Accepted, DeployRequest, Moved, RollbackPlan, RollbackRequest, Switched};
pub use orders::{FREEZE_MOST, MaintenanceRequest, Ordered, PAGE_MOST, PAUSE_MOST, Said, Scaled};
pub use phase::Phase;
pub use redis::{HeldRemoval, MalformedList, RedisStatus};
pub use release::{Outcome, Reason, ReleaseRow, Switch};
pub use replicas::{ReplicaRole, ReplicaRow, ReplicaState};
pub use status::{
    AppInForce, Bounds, ConfigStatus, LastExit, ReleaseStatus, Replicas, ScaleStatus, Standing, Status,
    StepStatus, TargetState, TargetStatus, Traffic,
};
pub use strategy::DeployStrategy;

/// The header that carries the admin token. `Authorization: Bearer` is accepted as well.
pub const TOKEN_HEADER: &str = "x-admin-token";

/// The header that carries the caller's directory over the unix socket. A deploy's command runs
/// there when neither the request nor `app.directory` names a directory.
pub const DIRECTORY_HEADER: &str = "x-portok-directory";

/// The default prefix of the admin API. On the unix socket it is always this one.
pub const PREFIX: &str = "/__";

/// The media type of a streamed deploy: one [`StreamEvent`] per line.
pub const NDJSON: &str = "application/x-ndjson";

/// `time` in RFC 3339, UTC, with milliseconds.
pub fn rfc3339(time: std::time::SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
