//! The state of an app, as it is shown everywhere.

use serde::{Deserialize, Serialize};

/// The state of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is live, and nothing starts.
    Empty,
    /// Nothing is live yet; the first release starts.
    Starting,
    /// Live, but nothing of it runs, because nobody asks for it: the next request starts it.
    Idle,
    /// Live, but it fails its probes, and portok does not roll back by itself.
    Unhealthy,
    /// Live, but fewer replicas or targets than it should have are ready.
    Degraded,
    /// Live, but it crashed recently.
    Unstable,
    /// Live, within its watch window.
    Watching,
    /// Live, and its watch window has passed.
    Settled,
    /// The live release crashed and is being restarted.
    Restarting,
    /// The live release crashed too often: portok restarts it rarely, or not at all.
    Failed,
    /// The daemon is shutting down.
    Stopping,
}

impl Phase {
    /// The name of the phase in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Unhealthy => "unhealthy",
            Self::Degraded => "degraded",
            Self::Unstable => "unstable",
            Self::Watching => "watching",
            Self::Settled => "settled",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        }
    }
}
