//! What `GET /__health` answers, and the last probe of the live target.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ProbeReport;

/// The last probe of the live target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthMetrics {
    /// Whether the live target answered its last probe with 2xx; false before the first.
    pub active_port_ok: bool,
    /// When it was last probed, RFC 3339.
    pub last_checked_at: Option<String>,
    /// Failed probes in a row.
    pub consecutive_fails: u32,
}

/// The answer to `GET /__health`: one probe of the live target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether the live target answered with 2xx.
    pub healthy: bool,
    /// The port that was probed; null when nothing is live.
    pub port: Option<u16>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// How long the answer took.
    pub latency_ms: Option<f64>,
    /// Why there was no answer, or no good one.
    pub error: Option<String>,
    /// How each target is that gets requests, where the app has a list of them, and each ready
    /// replica where there are several; what is above is then said of the first healthy one. Absent
    /// for other apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<ReplicaHealth>>,
    /// Nothing of the app runs, because nobody asks for it: the next request starts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idle: bool,
}

/// One target in a [`Health`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaHealth {
    /// Its address.
    pub address: String,
    /// The port of that.
    pub port: u16,
    /// Whether it answered with 2xx, or is never probed.
    pub healthy: bool,
    /// The status of the answer.
    pub status: Option<u16>,
    /// How long the answer took.
    pub latency_ms: Option<f64>,
    /// Why there was no answer, or no good one.
    pub error: Option<String>,
}

impl Health {
    /// Of an app whose members that get requests are these: healthy when one of them is.
    pub fn of(replicas: Vec<ReplicaHealth>) -> Self {
        let shown = replicas.iter().find(|replica| replica.healthy).or(replicas.first());
        Self {
            healthy: shown.is_some_and(|replica| replica.healthy),
            port: shown.map(|replica| replica.port),
            status: shown.and_then(|replica| replica.status),
            latency_ms: shown.and_then(|replica| replica.latency_ms),
            error: match shown {
                Some(replica) => replica.error.clone(),
                None => Some("nothing serves".to_owned()),
            },
            replicas: Some(replicas),
            idle: false,
        }
    }

    /// Of an app of which nothing runs before the next request.
    pub fn idle() -> Self {
        let (port, status, latency_ms, error, replicas) = (None, None, None, None, None);
        Self { healthy: true, port, status, latency_ms, error, replicas, idle: true }
    }
}

impl ReplicaHealth {
    /// What a probe of `addr` found; `None`: it is never probed.
    pub fn of(addr: SocketAddr, report: Option<&ProbeReport>) -> Self {
        Self {
            address: addr.to_string(),
            port: addr.port(),
            healthy: report.is_none_or(|report| report.healthy),
            status: report.and_then(|report| report.status),
            latency_ms: report.map(|report| report.latency_ms),
            error: report.and_then(ProbeReport::complaint),
        }
    }
}
