//! The shape of the durable record: what must be known after the daemon has died.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::spec::ReleaseSpec;
use super::state::{Past, ReleaseRef, Role};
use crate::supervisor::Identity;
use crate::wire::{LastExit, Reason, ReleaseRow, Switch};

/// The record's version; another one is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(pub(super) u32);

impl Default for Schema {
    fn default() -> Self {
        Self(1)
    }
}

/// All that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its version.
    pub schema: Schema,
    /// The release that serves or should.
    #[serde(default)]
    pub live: Option<ReleaseRef>,
    /// The one to go back to, for daemons that do not know `past`.
    #[serde(default)]
    pub previous: Option<ReleaseRef>,
    /// What was live, and what of it is in quarantine; missing in the record of an older daemon.
    #[serde(default)]
    pub past: Option<Past>,
    /// What was under way.
    #[serde(default)]
    pub intent: Option<Intent>,
    /// The fingerprint of the `[app]` last attempted.
    #[serde(default)]
    pub app_attempted: Option<String>,
    /// The fingerprint of the `[app]` that was not deployed because its content is in quarantine.
    #[serde(default)]
    pub app_quarantined: Option<String>,
    /// The last move of traffic.
    #[serde(default)]
    pub last_switch: Option<Switch>,
    /// The attempts to make a release live, oldest first.
    #[serde(default)]
    pub releases: Vec<StoredRelease>,
    /// The processes that exist.
    #[serde(default)]
    pub runs: Vec<StoredRun>,
    /// How often the live release was started again after a crash.
    #[serde(default)]
    pub restarts: u32,
    /// The app cannot listen beside the placeholder that holds its port.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_placeholder: bool,
    /// When it crashed lately, RFC 3339, oldest first.
    #[serde(default)]
    pub crashes: Vec<String>,
    /// How many of its probes had failed in a row.
    #[serde(default)]
    pub failed_probes: u32,
    /// What went wrong last, until a later attempt succeeds.
    #[serde(default)]
    pub last_failure: Option<Failure>,
    /// The live release's last crash, until it is settled again.
    #[serde(default)]
    pub last_exit: Option<LastExit>,
    /// When the watch window ends, while it is open.
    #[serde(default, with = "moment")]
    pub watch_until: Option<SystemTime>,
}

/// Why the last attempt did not succeed, or portok went back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
}

/// What was under way when the record was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The release that was to become live.
    pub release: ReleaseRef,
    /// Why.
    pub reason: Reason,
}

/// One attempt in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRelease {
    /// What became of it.
    pub row: ReleaseRow,
    /// What the release is; `None` for an unmanaged app.
    pub spec: Option<ReleaseSpec>,
    /// The fingerprint of `[app]`, where the release is nothing but `[app]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// A process in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRun {
    /// Its release.
    pub release: String,
    /// Beyond doubt which process.
    pub identity: Identity,
    /// The port it was told to listen on.
    #[serde(default)]
    pub port: u16,
    /// When it was started.
    #[serde(default, with = "moment")]
    pub started_at: Option<SystemTime>,
    /// What it was doing.
    #[serde(default)]
    pub role: Role,
    /// When its drain ends, or SIGKILL is due. The clock's time, because a daemon's own ends with it; whoever reads it
    /// trusts it no further than the configured period.
    #[serde(default, with = "moment")]
    pub until: Option<SystemTime>,
}

/// A moment as RFC 3339, for whoever reads the record.
mod moment {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        moment: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        moment.map(|moment| humantime::format_rfc3339_millis(moment).to_string()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)).transpose()
    }
}
