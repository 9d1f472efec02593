//! What a daemon of several apps says of itself, in `GET /__metrics`.

use serde::{Deserialize, Serialize};

use super::redis::RedisStatus;
use super::status::{ConfigStatus, Status};

/// The daemon itself, where it serves several apps: what is nobody's of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The instance's name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The address on which requests are accepted.
    pub listen: String,
    /// The main configuration file, and why its newest version is not in force.
    pub config: ConfigStatus,
    /// How it stands with Redis as a source of routes. Absent where the instance has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,
}

impl InstanceStatus {
    /// The daemon's part of an app's status.
    pub fn of(status: &Status) -> Self {
        Self {
            name: status.instance.clone(),
            version: status.version.clone(),
            pid: status.pid,
            listen: status.listen.clone(),
            config: status.config.clone(),
            redis: status.redis.clone(),
        }
    }
}
