//! What a companion of a release is: a part of the release's content, resolved with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::state::Companion;
use super::ReleaseSpec;
use crate::config::{self, CommandLine, CompanionStart, StopSignal};
use crate::supervisor;

/// A process of a release that gets no requests and has no port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompanionSpec {
    /// What to run.
    pub command: CommandLine,
    /// How many processes of it run at a time.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replicas: u16,
    /// Added to the environment of the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Its working directory, resolved; `None`: the release's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The name of the signal that stops it; `None`: the app's, as it is configured then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Between the stop signal and SIGKILL, in milliseconds; `None`: as long as the app has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout_ms: Option<u64>,
    /// Whether it is started before the candidate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before: bool,
}

fn one() -> u16 {
    1
}

fn is_one(replicas: &u16) -> bool {
    *replicas == 1
}

impl CompanionSpec {
    /// Makes it of its configuration. Blocking: it resolves the directory.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(super) fn prepare(companion: &config::Companion) -> Result<Self, String> {
        let directory = companion.directory.as_deref().map(supervisor::resolve_directory).transpose()?;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            command: companion.command.clone(),
            replicas: companion.replicas,
            env: companion.env.clone(),
            directory,
            stop_signal: companion.stop_signal.map(|signal| signal.name.to_owned()),
            stop_timeout_ms: companion.stop_timeout.map(milliseconds),
            before: companion.start == CompanionStart::Before,
        })
    }

    /// The signal that stops it, where it has one of its own.
    pub(in crate::release) fn stop_signal(&self) -> Option<StopSignal> {
        self.stop_signal.as_deref().and_then(StopSignal::named)
    }

    /// Between that and SIGKILL, where it has a time of its own.
    pub(in crate::release) fn stop_timeout(&self) -> Option<Duration> {
        self.stop_timeout_ms.map(Duration::from_millis)
    }

    /// About how many bytes of the record it takes.
    pub(super) fn bytes(&self) -> usize {
        self.command.to_string().len()
            + self.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

impl ReleaseSpec {
    /// What is run as this companion of the release; `None` where the release has no such one.
    pub(in crate::release) fn as_companion(&self, process: &str) -> Option<Self> {
        let companion = self.processes.get(process)?;
        let mut spec = self.clone();
        spec.command = companion.command.clone();
        spec.env.extend(companion.env.clone());
        spec.directory = companion.directory.clone().or(spec.directory);
        Some(spec)
    }

    /// What the machine has to know of its companions.
    pub(in crate::release) fn companions(&self) -> Vec<Companion> {
        let companion = |(name, spec): (&String, &CompanionSpec)| Companion {
            process: name.as_str().into(),
            replicas: spec.replicas,
            before: spec.before,
        };
        self.processes.iter().map(companion).collect()
    }
}
