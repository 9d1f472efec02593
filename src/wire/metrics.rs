//! What `GET /__metrics` and `GET /__health` answer: counters, and the health of the live target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer to `GET /__metrics` as JSON, with the keys of npm portok.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// When the daemon started, RFC 3339.
    pub started_at: String,
    /// Requests and tunnels in flight.
    pub inflight: u64,
    /// The most that were in flight at once.
    pub inflight_max: u64,
    /// Requests since the start, admin requests excluded.
    pub total_requests: u64,
    /// Requests that portok answered with an error of its own.
    pub total_proxy_errors: u64,
    /// Answers by class: `2xx` to `5xx`.
    pub status_counters: BTreeMap<String, u64>,
    /// Mean requests per second over the last 60 s, or since the start if that is more recent.
    pub rolling_rps60: f64,
    /// The last probe of the live target.
    pub health: HealthMetrics,
    /// The proxy's last error.
    pub last_proxy_error: Option<ProxyErrorView>,
    /// Connections opened to apps; only with `upstream.debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_sockets_created: Option<u64>,
}

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

/// An error of the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyErrorView {
    /// The code of the `portok-error` header.
    pub code: String,
    /// What happened.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
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
    /// How each target is that gets requests, where the app has a list of them; what is above is
    /// then said of the first healthy one. Absent for other apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<ReplicaHealth>>,
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
