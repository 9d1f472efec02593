//! Why a deploy was aborted, as an answer explains it.

use serde::{Deserialize, Serialize};

/// The findings about a release that did not become healthy: what an operator would look for by
/// hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Autopsy {
    /// Why it was aborted, as a sentence.
    pub summary: String,
    /// How the process ended, such as `exit status 1`; null when it was still running.
    pub exit: Option<String>,
    /// The last lines it printed, oldest first.
    pub output: Vec<String>,
    /// The last probe.
    pub probe: Option<ProbeReport>,
    /// The port that was assigned to it.
    pub port: Option<u16>,
    /// The addresses on which its processes listen instead.
    pub listens_on: Vec<String>,
    /// What most likely is wrong, and what to do.
    pub hint: Option<String>,
}

/// The result of one probe.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// Whether the status was 2xx.
    pub healthy: bool,
    /// The status code of the answer.
    pub status: Option<u16>,
    /// The `Location` of a redirect.
    pub location: Option<String>,
    /// The first bytes of the body as text, if the probe failed.
    pub body: Option<String>,
    /// Why there was no answer, such as `connection refused` or `no answer within 5s`.
    pub error: Option<String>,
    /// How long it took.
    pub latency_ms: f64,
    /// How many probes were made, this one included; only in an autopsy.
    #[serde(default)]
    pub attempts: u32,
}

impl ProbeReport {
    /// The result in a few words; `None` if there is neither an answer nor an error.
    pub fn said(&self) -> Option<String> {
        match (&self.error, self.status, &self.location) {
            (_, Some(status), Some(location)) => Some(format!("status {status} to {location}")),
            (_, Some(status), None) => Some(format!("status {status}")),
            (Some(error), None, _) => Some(error.clone()),
            (None, None, _) => None,
        }
    }

    /// Why it is bad; `None`: it is good.
    pub fn complaint(&self) -> Option<String> {
        (!self.healthy).then(|| self.said().unwrap_or_else(|| "no answer".to_owned()))
    }
}
