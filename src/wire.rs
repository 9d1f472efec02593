//! The words that daemon and command line exchange: answers, errors, events.
//!
//! Everything here is plain data with its JSON shape. The names are part of the contract: keys and
//! values may be added, none is renamed or dropped. Nothing here decides anything.
//!
//! Keys that npm portok has are camel case (`activePort`); so are all others.

mod error;
mod event;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use error::{Code, ErrorBody, exit};
pub use event::{Event, EventKind, HookEvent};

/// The header that carries the admin token (`Authorization: Bearer` is accepted as well).
pub const TOKEN_HEADER: &str = "x-admin-token";

/// Over the unix socket: where a deploy's command runs when neither the request nor `app.directory` says it.
pub const DIRECTORY_HEADER: &str = "x-portok-directory";

/// Where the admin API stands by default; on the unix socket always.
pub const PREFIX: &str = "/__";

/// The media type of a streamed deploy: one [`Event`] a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Where an app's life stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to serve.
    Empty,
    /// Nothing live yet; a first release starts.
    Starting,
    /// Live, fails its probes, and nothing is gone back to by itself.
    Unhealthy,
    /// Live, and crashed not long ago.
    Unstable,
    /// Live, in its watch window.
    Watching,
    /// Live, its window passed.
    Settled,
    /// The live release crashed and is started again.
    Restarting,
    /// It crashed too often: tried again rarely, or not at all.
    Failed,
    /// The daemon is going down.
    Stopping,
}

impl Phase {
    /// The phase as it stands in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Starting => "starting",
            Self::Unhealthy => "unhealthy",
            Self::Unstable => "unstable",
            Self::Watching => "watching",
            Self::Settled => "settled",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        }
    }
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Traffic moved to it.
    Live,
    /// Given up before the switch.
    Aborted,
    /// Traffic moved to it and back.
    RolledBack,
    /// An operator ended the deploy before the switch.
    Cancelled,
    /// The daemon ended while the deploy was under way.
    Interrupted,
}

impl Outcome {
    /// The outcome as it stands in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why traffic moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// `portok switch`.
    Manual,
    /// `portok deploy`.
    Deploy,
    /// The `[app]` table, at the start or after an edit.
    Config,
    /// The watch window's verdict.
    AutoRollback,
    /// `portok rollback`.
    ManualRollback,
}

impl Reason {
    /// Whether traffic moves back.
    pub fn is_rollback(self) -> bool {
        matches!(self, Self::AutoRollback | Self::ManualRollback)
    }

    /// The reason as it stands in an answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Deploy => "deploy",
            Self::Config => "config",
            Self::AutoRollback => "auto-rollback",
            Self::ManualRollback => "manual-rollback",
        }
    }
}

/// One move of traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// The port before; null when nothing served.
    pub from: Option<u16>,
    /// The release before; absent when nothing served, and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_release: Option<String>,
    /// The port after.
    pub to: u16,
    /// The release after; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_release: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: Reason,
    /// The move's own id.
    pub id: String,
}

/// One release as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// The release's id (`port-8081` for an app that somebody else starts).
    pub release: String,
    /// Where it listens; null while it has no process.
    pub port: Option<u16>,
    /// The process group's leader; null when there is none or it is somebody else's.
    pub pid: Option<u32>,
    /// When this process was started, RFC 3339.
    pub started_at: Option<String>,
    /// How often it was started again after a crash.
    pub restarts: u32,
    /// Requests and tunnels it still has.
    pub inflight: u64,
}

/// A crash of the live release.
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

/// `GET /__status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Where new requests go; null when nothing serves.
    pub active_port: Option<u16>,
    /// When the running drain ends at the latest, RFC 3339.
    pub drain_until: Option<String>,
    /// The last move of traffic.
    pub last_switch: Option<Switch>,
    /// The instance's name.
    pub instance: String,
    /// Where the app's life stands.
    pub phase: Phase,
    /// The release that serves.
    pub live: Option<ReleaseStatus>,
    /// The release that is about to.
    pub candidate: Option<ReleaseStatus>,
    /// The release that a rollback goes to.
    pub previous: Option<ReleaseStatus>,
    /// When the watch window ends, RFC 3339.
    pub watch_until: Option<String>,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// portok's version.
    pub version: String,
    /// Where requests are accepted.
    pub listen: String,
    /// The daemon's own process id.
    pub pid: u32,
    /// Why the state file cannot be written, while it cannot.
    pub state_error: Option<String>,
    /// Why the last attempt to make something live ended without it, or portok went back by itself, until one succeeds.
    pub last_failure: Option<String>,
    /// When that was, RFC 3339.
    #[serde(default)]
    pub last_failure_at: Option<String>,
    /// The live release's last crash, until it is settled again.
    #[serde(default)]
    pub last_exit: Option<LastExit>,
    /// The last probe of the live target.
    #[serde(default)]
    pub health: HealthMetrics,
    /// The releases in quarantine, the one that was live last first. Missing where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<String>,
}

/// The body of `POST /__upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpgradeRequest {
    /// The new daemon's program; missing: the one that the running daemon was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
}

/// The answer to `POST /__upgrade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgraded {
    /// Always true; a failure has a body of its own.
    pub success: bool,
    /// For people.
    pub message: String,
    /// The new daemon's process id.
    pub pid: u32,
    /// The new daemon's version.
    pub version: String,
}

/// The configuration's part of [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The file; null when the environment alone configures.
    pub file: Option<String>,
    /// When the configuration in force was loaded, RFC 3339.
    pub loaded_at: String,
    /// Why the newest file was not loaded.
    pub error: Option<String>,
    /// Whether live is what `[app]` says.
    #[serde(default)]
    pub app_in_force: Option<AppInForce>,
}

/// Whether live is what `[app]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInForce {
    /// It is, or `[app]` says nothing.
    pub in_force: bool,
    /// Why not: `pending` (it is about to be), `quarantined` (its content was rolled back), `aborted`,
    /// `deploy_on_change` (it waits for a `portok deploy`), `replaced` (something else was made live since).
    pub why: Option<String>,
}

/// `GET /__metrics` as JSON (npm portok's keys).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// When the daemon started, RFC 3339.
    pub started_at: String,
    /// Requests and tunnels under way.
    pub inflight: u64,
    /// The most that were under way at once.
    pub inflight_max: u64,
    /// Requests since the start, without admin requests.
    pub total_requests: u64,
    /// Requests that portok had to answer with an error of its own.
    pub total_proxy_errors: u64,
    /// Answers by class: `2xx` to `5xx`.
    pub status_counters: BTreeMap<String, u64>,
    /// Mean requests a second over the last 60 s, or since the start while younger.
    pub rolling_rps60: f64,
    /// The last probe of the live target.
    pub health: HealthMetrics,
    /// The last error of the proxy.
    pub last_proxy_error: Option<ProxyErrorView>,
    /// Connections opened to apps (only with `upstream.debug`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_sockets_created: Option<u64>,
}

/// The probe's part of [`Metrics`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthMetrics {
    /// Whether the live target answered its last probe with 2xx; false before the first.
    pub active_port_ok: bool,
    /// When it was probed last, RFC 3339.
    pub last_checked_at: Option<String>,
    /// Failed probes in a row.
    pub consecutive_fails: u32,
}

/// The proxy's last error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyErrorView {
    /// The code of the `portok-error` header.
    pub code: String,
    /// What happened.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
}

/// `GET /__health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the live target answered 2xx.
    pub healthy: bool,
    /// The port that was asked; null when nothing serves.
    pub port: Option<u16>,
    /// The status it answered.
    pub status: Option<u16>,
    /// How long the answer took.
    pub latency_ms: Option<f64>,
    /// Why there was no answer, or not a good one.
    pub error: Option<String>,
}

/// The body of `POST /__deploy`: all optional, what is missing comes from `[app]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployRequest {
    /// What to run: a string for `/bin/sh -c`, an array executed as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// Where to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Added to the configured environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// The release's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The health path of this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<String>,
}

/// The query of `POST /__rollback`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RollbackRequest {
    /// Where to; missing: the previous release.
    pub release: Option<String>,
    /// Also to one in quarantine.
    pub force: bool,
    /// Change nothing, and say what would be done.
    pub dry_run: bool,
}

/// The answer to `POST /__rollback?dry_run=1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackPlan {
    /// Always true: nothing has changed.
    pub dry_run: bool,
    /// What would happen, as a sentence.
    pub message: String,
    /// The release that would be live.
    pub release: String,
    /// The release that would lose traffic and enter quarantine.
    pub leaves: Option<String>,
    /// The candidate that would be cancelled first.
    pub cancelled: Option<String>,
    /// Whether a process would be started.
    pub starts: bool,
    /// Whether a watch window would open.
    pub watched: bool,
    /// The release is live already: nothing would move.
    pub already_live: bool,
    /// What changed in its directory since it was started last, where it would be started again.
    pub directory_changed: Option<String>,
}

/// A command: shell text, or words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CommandLine {
    /// Run by `/bin/sh -c`.
    Shell(String),
    /// Executed as it is: program and arguments.
    Exec(Vec<String>),
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => f.write_str(text),
            Self::Exec(words) => f.write_str(&words.join(" ")),
        }
    }
}

impl Serialize for CommandLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(text) => serializer.serialize_str(text),
            Self::Exec(words) => words.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = CommandLine;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CommandLine, E> {
                Ok(CommandLine::Shell(text.to_owned()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<CommandLine, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element::<String>()? {
                    words.push(word);
                }
                Ok(CommandLine::Exec(words))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The answer to a deploy or rollback that moved traffic, or had no need to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Always true.
    pub success: bool,
    /// What happened, as a sentence.
    pub message: String,
    /// The release that is live now.
    pub release: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The move of traffic; where the release was live already, the last one there was.
    pub switch: Option<Switch>,
    /// The release was live already: nothing moved.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_live: bool,
    /// The candidate that was cancelled for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The answer to `POST /__switch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// Always true.
    pub success: bool,
    /// `Switched to port N`.
    pub message: String,
    /// The move; null when the port was live already and none was ever made.
    pub switch: Option<Switch>,
}

/// The answer to `POST /__cancel` and to a detached deploy (202).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Always true.
    pub success: bool,
    /// What was accepted, as a sentence.
    pub message: String,
    /// The release it is about.
    pub release: String,
}

/// The answer to `POST /__reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Always true.
    pub success: bool,
    /// What happened, as a sentence.
    pub message: String,
    /// The keys that differ from what was in force.
    pub changed: Vec<String>,
}

/// One row of `GET /__releases`: an attempt to make a release live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRow {
    /// The release's id.
    pub release: String,
    /// Its command; null for an app that somebody else starts.
    pub command: Option<CommandLine>,
    /// What became of it; null while its deploy is under way.
    pub outcome: Option<Outcome>,
    /// When its process was started last, RFC 3339.
    pub started_at: Option<String>,
    /// When traffic moved to it last.
    pub switched_at: Option<String>,
    /// When its last process was gone.
    pub stopped_at: Option<String>,
    /// How its last process ended: `exit status 1`, `signal 9 (SIGKILL)`.
    pub exit: Option<String>,
    /// Where it listens or listened.
    pub port: Option<u16>,
    /// Why it did not become or stay live.
    pub reason: Option<String>,
    /// The release is in quarantine: traffic was taken away from it. Missing where it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}

/// `GET /__logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The release that was asked for; null for all.
    pub release: Option<String>,
    /// The last lines, oldest first.
    pub lines: Vec<LogLine>,
}

/// One line that an app printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read, RFC 3339.
    pub at: String,
    /// Whose it is.
    pub release: String,
    /// Where it was printed.
    pub stream: Stream,
    /// The line, without its end; cut where it was too long.
    pub line: String,
}

/// One of an app's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a deploy was aborted: what an operator would look for by hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Autopsy {
    /// The verdict as a sentence.
    pub summary: String,
    /// How the process ended, where it did: `exit status 1`.
    pub exit: Option<String>,
    /// The last lines it printed, oldest first.
    pub output: Vec<String>,
    /// The last probe.
    pub probe: Option<ProbeReport>,
    /// The port it was told to listen on.
    pub port: Option<u16>,
    /// The addresses its processes listen on instead.
    pub listens_on: Vec<String>,
    /// What most likely is wrong and how to mend it.
    pub hint: Option<String>,
}

/// What one probe saw.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// Whether the status was 2xx.
    pub healthy: bool,
    /// The status line's code.
    pub status: Option<u16>,
    /// Where a redirect points.
    pub location: Option<String>,
    /// The body's first bytes as text, where the probe failed.
    pub body: Option<String>,
    /// Why there was no answer: `connection refused`, `no answer within 5s`.
    pub error: Option<String>,
    /// How long it took.
    pub latency_ms: f64,
    /// How many probes were made, this one included (in an autopsy).
    #[serde(default)]
    pub attempts: u32,
}

impl ProbeReport {
    /// What it saw, in a few words; `None` where it saw nothing.
    pub fn said(&self) -> Option<String> {
        match (&self.error, self.status, &self.location) {
            (_, Some(status), Some(location)) => Some(format!("status {status} to {location}")),
            (_, Some(status), None) => Some(format!("status {status}")),
            (Some(error), None, _) => Some(error.clone()),
            (None, None, _) => None,
        }
    }
}

/// The moment `time` in RFC 3339, UTC, with milliseconds.
pub fn rfc3339(time: std::time::SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
