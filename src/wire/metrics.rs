//! What `GET /__metrics` answers: counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::health::HealthMetrics;
use super::instance::InstanceStatus;

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
    /// The daemon itself; only where it has several apps, and none of them was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceStatus>,
    /// Lines of the access log that were lost; only where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_dropped: Option<u64>,
    /// Connections opened to apps; only with `upstream.debug`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_sockets_created: Option<u64>,
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
