//! The shape of the durable record: what must be known after the daemon has died. Plain data;
//! [`super::store`] keeps it on disk.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::moment;
use super::orders::Orders;
use super::scale::Scale;
use super::spec::ReleaseSpec;
use super::state::{DeployStep, Past, ReleaseRef, Role};
use crate::supervisor::Identity;
use crate::wire::{LastExit, Reason, ReleaseRow, Switch};

/// The record's version. A record of another version is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(pub(super) u32);

impl Default for Schema {
    fn default() -> Self {
        Self(1)
    }
}

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its version.
    pub schema: Schema,
    /// The release that serves, or should.
    #[serde(default)]
    pub live: Option<ReleaseRef>,
    /// The release to go back to, for older daemons, which do not know `past`.
    #[serde(default)]
    pub previous: Option<ReleaseRef>,
    /// The releases that were live, and which of them are in quarantine. Missing in the record of
    /// an older daemon.
    #[serde(default)]
    pub past: Option<Past>,
    /// The attempt under way.
    #[serde(default)]
    pub intent: Option<Intent>,
    /// The fingerprint of the `[app]` that was attempted last.
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
    /// The runs that have a process.
    #[serde(default)]
    pub runs: Vec<StoredRun>,
    /// How often the live release was started again after a crash.
    #[serde(default)]
    pub restarts: u32,
    /// The live release replaced the one before it before it was started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recreated: bool,
    /// The live release was stopped for another one that was given up meanwhile: it is started once
    /// nothing else is left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vacant: bool,
    /// The app cannot listen beside the socket that holds its port against others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_placeholder: bool,
    /// When the live release crashed lately, RFC 3339, oldest first.
    #[serde(default)]
    pub crashes: Vec<String>,
    /// When its companions crashed lately, likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companion_crashes: BTreeMap<String, Vec<String>>,
    /// How many of its probes have failed in a row.
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
    /// The watch window begins when requests go on, which wait for an operator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch_waits: bool,
    /// What an operator has ordered.
    #[serde(default, skip_serializing_if = "Orders::is_none")]
    pub orders: Orders,
    /// How many replicas an operator has asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Scale>,
    /// How many replicas the live release is to have, where that follows the load; 0: it is idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u16>,
}

impl Record {
    /// The live release was stopped, or about to be, for another one that was not started by then
    /// or was given up.
    pub(super) fn makes_room(&self) -> bool {
        self.vacant || self.intent.as_ref().is_some_and(|intent| intent.recreate)
    }

    /// What is kept of an app that was removed and is added again: its history, what is in
    /// quarantine, and how many replicas were asked for. Nothing of it runs.
    pub(super) fn of_an_app_that_was_removed(self) -> Self {
        let Self { past, app_quarantined, last_switch, releases, no_placeholder, scale, .. } = self;
        Self { past, app_quarantined, last_switch, releases, no_placeholder, scale, ..Self::default() }
    }
}

/// Why the last attempt did not succeed, or portok went back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
}

/// An attempt under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The release that is to become live.
    pub release: ReleaseRef,
    /// Why.
    pub reason: Reason,
    /// The live release is stopped for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recreate: bool,
}

/// One attempt in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRelease {
    /// What became of it.
    pub row: ReleaseRow,
    /// The content of the release; `None` for an unmanaged app.
    pub spec: Option<ReleaseSpec>,
    /// The fingerprint of `[app]`, where the release is `[app]` without additions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

/// A run in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRun {
    /// Its release.
    pub release: String,
    /// Its process, beyond doubt.
    pub identity: Identity,
    /// Which companion of the release it is. Such a run is written down as a candidate or as one that
    /// is being stopped, whatever it does: a daemon that knows nothing of companions stops it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Its port; 0: it was told none.
    #[serde(default)]
    pub port: u16,
    /// When the process was started.
    #[serde(default, with = "moment")]
    pub started_at: Option<SystemTime>,
    /// What the run was doing.
    #[serde(default)]
    pub role: Role,
    /// The set that it belongs to with others; 0 for a set of its own. Left out then, so that the
    /// record of one replica is what it always was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub set: u64,
    /// Its number in its set.
    #[serde(default, skip_serializing_if = "is_first")]
    pub replica: u16,
    /// The step of a deploy that it is. An older daemon goes by its role, `candidate`, and stops
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<DeployStep>,
    /// The `max_memory` that it reached too soon for a replacement to help. An older daemon may
    /// replace it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grows_fast: Option<u64>,
    /// Wall-clock deadline of its drain, or of SIGKILL; a monotonic time would not survive the
    /// daemon. It is clamped to the configured period when read.
    #[serde(default, with = "moment")]
    pub until: Option<SystemTime>,
}

impl StoredRun {
    /// Whether it is a replica of the app, and not what runs beside that.
    pub(super) fn is_of_the_app(&self) -> bool {
        self.process.is_none() && self.step.is_none()
    }
}

fn is_zero(set: &u64) -> bool {
    *set == 0
}

fn is_first(replica: &u16) -> bool {
    *replica == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any daemon has to find its processes again in the record of any other.
    #[test]
    fn the_record_of_one_replica_keeps_its_bytes() {
        let written = include_str!("record/one-replica.json");
        let record: Record = serde_json::from_str(written).unwrap();
        assert_eq!(serde_json::to_string_pretty(&record).unwrap(), written);
    }
}
