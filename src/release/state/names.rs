//! What the machines talk of: releases, their sets, and the runs of these.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One tenure of a process, or of an unmanaged app, under portok.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// The runs of one release in one tenure, together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u64);

/// The name of a companion: a process of a release that gets no requests and has no port.
pub type ProcessName = Arc<str>;

/// A companion of a release, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Its name.
    pub process: ProcessName,
    /// How many of it run.
    pub replicas: u16,
    /// It is started before the candidate, and not after the switch.
    pub before: bool,
}

/// A release, by name and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Its id.
    pub id: String,
    /// Who starts it.
    pub origin: Origin,
}

/// Who starts a release's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// portok does.
    Managed,
    /// portok does not; it listens on ports of 127.0.0.1.
    Unmanaged {
        /// The port; of several the lowest.
        port: u16,
        /// The others, in their order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<u16>,
    },
}

impl Origin {
    /// The ports of one that portok does not start.
    pub fn ports(&self) -> Vec<u16> {
        match self {
            Self::Managed => Vec::new(),
            Self::Unmanaged { port, others } => [*port].iter().chain(others).copied().collect(),
        }
    }

    /// How many those are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.ports().len()).unwrap_or(u16::MAX)
    }
}

/// One run of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id, unique within this daemon's life.
    pub id: RunId,
    /// The release it runs.
    pub release: ReleaseRef,
    /// Which companion of it; `None`: the app itself.
    pub process: Option<ProcessName>,
    /// Its port, once known.
    pub port: Option<u16>,
}

impl Run {
    pub(super) fn managed(&self) -> bool {
        self.release.origin == Origin::Managed
    }
}
