//! What a host command did, or would do: one shape for all of them, for people and as JSON.

use std::path::Path;

use serde::Serialize;

/// The outcome of a command that changes the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostReport {
    /// The instance it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// Nothing of it was done.
    pub(crate) dry_run: bool,
    /// What was done, in order.
    pub(crate) steps: Vec<HostStep>,
    /// What else should be known.
    pub(crate) notes: Vec<String>,
    /// What to type next.
    pub(crate) next: Vec<Suggestion>,
}

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HostStep {
    /// `created`, `updated`, `replaced`, `unchanged`, `removed`, `kept`, `started`…
    pub(crate) action: &'static str,
    /// A path or a unit.
    pub(crate) subject: String,
    /// What would be written there, where nothing is done yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// A line to type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Suggestion {
    /// The line.
    pub(crate) command: String,
    /// What it is good for.
    pub(crate) purpose: String,
}

impl HostReport {
    /// Nothing done yet about `instance`.
    pub(crate) fn about(instance: &str) -> Self {
        Self { instance: Some(instance.to_owned()), ..Self::default() }
    }

    pub(crate) fn step(&mut self, action: &'static str, subject: impl ToString) {
        self.steps.push(HostStep { action, subject: subject.to_string(), text: None });
    }

    /// A file that is written with `text`.
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
