//! What an operator orders about an app's traffic and deploys: pause, resume, maintenance, freeze,
//! thaw; and how many replicas it is to have.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::{Standing, Traffic};

/// The longest pause.
pub const PAUSE_MOST: Duration = Duration::from_secs(600);

/// The longest freeze that ends by itself.
pub const FREEZE_MOST: Duration = Duration::from_secs(31_557_600);

/// The longest page of a maintenance, in bytes.
pub const PAGE_MOST: usize = 256 * 1024;

/// Who orders something, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Who.
    pub by: String,
    /// Why, if it was said.
    pub note: Option<String>,
}

/// The body of `POST /__maintenance`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// Whether every request is answered by portok itself from now on.
    pub on: bool,
    /// With this status; 503 when it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// With this page, in HTML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

/// The answer to a scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaled {
    /// At least so many replicas.
    pub min: u16,
    /// At most so many.
    pub max: u16,
    /// A deploy is under way, and it counts from the end of that on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noted: bool,
    /// There are more in the watch window, and it counts from the end of that on, RFC 3339.
    #[serde(default, rename = "watchUntil", skip_serializing_if = "Option::is_none")]
    pub watch_until: Option<String>,
    /// What whoever asked should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Always true.
    pub success: bool,
    /// What is now, as a sentence.
    pub message: String,
    /// What becomes of the app's requests.
    pub traffic: Traffic,
    /// By whom deploys are stopped; null while they are not.
    pub frozen: Option<Standing>,
    /// When what was ordered ends by itself, RFC 3339; null: not by itself.
    pub until: Option<String>,
}
