//! What a host command did, or would do: one shape for all commands, for people and as JSON.

use std::path::Path;

use serde::Serialize;

use crate::wire::AppReload;

/// The result of a command that changes this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostReport {
    /// The instance that the command was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Whether nothing was done, and the steps are what would be done.
    pub(crate) dry_run: bool,
    /// The steps, in order.
    pub(crate) steps: Vec<HostStep>,
    /// What else the operator should know.
    pub(crate) notes: Vec<String>,
    /// What a running daemon made of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) apps: Vec<AppReload>,
    /// Commands to type next.
    pub(crate) next: Vec<Suggestion>,
}

/// One thing that was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HostStep {
    /// `created`, `updated`, `replaced`, `unchanged`, `removed`, `kept`, `started`…
    pub(crate) action: &'static str,
    /// A path or a unit.
    pub(crate) subject: String,
    /// The text that would be written; only if nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// A command to type next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Suggestion {
    /// The command.
    pub(crate) command: String,
    /// What it does.
    pub(crate) purpose: String,
}

impl HostReport {
    /// An empty report about `instance`.
    pub(crate) fn about(instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..Self::default() }
    }

    pub(crate) fn step(&mut self, action: &'static str, subject: impl ToString) {
        self.steps.push(HostStep { action, subject: subject.to_string(), text: None });
    }

    /// A step that writes `text` into a file.
    pub(crate) fn file(&mut self, action: &'static str, path: &Path, text: &str) {
        let text = Some(text.to_owned()).filter(|_| self.dry_run);
        self.steps.push(HostStep { action, subject: path.display().to_string(), text });
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(crate) fn next(&mut self, command: impl Into<String>, purpose: impl Into<String>) {
        self.next.push(Suggestion { command: command.into(), purpose: purpose.into() });
    }
}
