//! The requests that move traffic, and their answers: deploy, switch, rollback, cancel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::CommandLine;
use super::release::{Outcome, Switch};

/// The body of `POST /__deploy`. Every key is optional; `[app]` provides the missing ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeployRequest {
    /// What to run: a string for `/bin/sh -c`, an array executed as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandLine>,
    /// The directory in which it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Variables to add to the configured environment.
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
    /// The release to go back to; `None` means the previous one.
    pub release: Option<String>,
    /// Go back even if that release is in quarantine.
    pub force: bool,
    /// Change nothing, and answer with what would be done.
    pub dry_run: bool,
}

/// The answer to `POST /__rollback?dry_run=1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollbackPlan {
    /// Always true: nothing was changed.
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
    /// Whether the release is live already, so that nothing would move.
    pub already_live: bool,
    /// What changed in its directory since it last started; null when no process would be started.
    pub directory_changed: Option<String>,
}

/// The answer to a deploy or rollback after which the release is live.
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
    /// The switch; the last one there was when the release was live already.
    pub switch: Option<Switch>,
    /// Whether the release was live already, so that nothing moved.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_live: bool,
    /// The candidate that a rollback cancelled first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// What the operator should know of a deploy, although it went: the configuration on disk is
    /// not the one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer to `POST /__switch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// Always true.
    pub success: bool,
    /// `Switched to port N`.
    pub message: String,
    /// The switch; null when the port was live already and traffic never moved.
    pub switch: Option<Switch>,
    /// What the operator should know, although traffic moved: the app has a command, and portok does
    /// not run what it moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

impl Switched {
    /// Traffic has moved to `ports`.
    pub fn to(ports: &[u16], switch: Option<Switch>) -> Self {
        let message = format!("Switched to {} {}", noun(ports), listed(ports));
        Self { success: true, message, switch, warning: None }
    }

    /// It went to `ports` already, since this switch.
    pub fn already(ports: &[u16], switch: Option<Switch>) -> Self {
        let (first, rest) = noun(ports).split_at(1);
        let verb = if ports.len() == 1 { "is" } else { "are" };
        let message = format!("{}{rest} {} {verb} live already", first.to_uppercase(), listed(ports));
        Self { success: true, message, switch, warning: None }
    }
}

fn noun(ports: &[u16]) -> &'static str {
    if ports.len() == 1 { "port" } else { "ports" }
}

fn listed(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
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
    /// As [`Moved::warning`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Keeps a flag out of the JSON while it is false.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}
