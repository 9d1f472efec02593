//! Who is still with what traffic has left: `GET /__drain`; and a change of when that ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest time by which a drain can be extended at once.
pub const EXTEND_MOST: Duration = Duration::from_secs(24 * 3600);

/// What is asked of the drains of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainRequest {
    /// Who is still there.
    Look,
    /// That they end so much later.
    Extend(Duration),
    /// That they end now.
    Now,
}

/// The drains of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When the last of them ends, RFC 3339; null: nothing drains.
    pub until: Option<String>,
    /// Requests and tunnels that have not ended.
    pub inflight: u64,
    /// The tunnels and event streams among them; those that have been there longest first.
    pub tunnels: Vec<DrainRow>,
}

/// One who is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// The address of its client.
    pub peer: String,
    /// The path that was asked for, without the query.
    pub path: String,
    /// For how long it has been there, in seconds.
    pub age: u64,
    /// How many bytes have passed, in both directions.
    pub bytes: u64,
    /// `websocket`, `tunnel` or `event_stream`.
    pub kind: String,
    /// The release that it is with.
    pub release: String,
    /// The port of the process there.
    pub port: Option<u16>,
}
