//! What is told of routes from Redis.

use serde::{Deserialize, Serialize};

/// How it stands with Redis as a source of routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisStatus {
    /// The server, without its password.
    pub url: String,
    /// Whether the table is that of the server. While it is not, the last one stays in force.
    pub connected: bool,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why it is not connected, or why the last look at its lists came to nothing.
    pub error: Option<String>,
    /// Hosts in force.
    pub hosts: usize,
    /// Hosts for which there is no room.
    pub left_out: usize,
    /// Lists that say nothing and leave their host as it was.
    pub malformed: usize,
    /// The first of them.
    pub malformed_lists: Vec<MalformedList>,
    /// A removal that is held back.
    pub held: Option<HeldRemoval>,
    /// How long a pass over all keys takes, in milliseconds, where that is longer than
    /// `redis.refresh`: a change is in force as much later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_pass_ms: Option<u64>,
}

/// A list that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MalformedList {
    /// The host as the list's key has it.
    pub host: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A removal of so many hosts that it is held back until Redis has said the same for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRemoval {
    /// The hosts that would be removed.
    pub hosts: usize,
    /// Of so many.
    pub of: usize,
    /// How often Redis has said it, each time a minute after the time before; it is done at
    /// `needed`.
    pub looks: u32,
    /// How often it has to.
    pub needed: u32,
}
