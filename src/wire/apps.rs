//! What `GET /__apps` answers: every app of an instance, one row each.

use serde::{Deserialize, Serialize};

use super::phase::Phase;
use super::status::Replicas;

/// One app in the answer to `GET /__apps`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRow {
    /// Its name.
    pub app: String,
    /// For which hosts it gets requests at the instance's addresses; empty: for none.
    pub hosts: Vec<String>,
    /// The beginnings of their paths.
    pub paths: Vec<String>,
    /// The addresses of its own.
    pub listen: Vec<String>,
    /// Its state.
    pub phase: Phase,
    /// The release that is live; null when none is, and for an app that has no releases.
    pub live: Option<String>,
    /// How many of its replicas or targets get requests; null for an app that has neither.
    pub replicas: Option<Replicas>,
    /// What its list in Redis is labelled with; absent for other apps. It may hold any character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Mean requests per second over the last 60 s, or since the start if that is more recent. Null
    /// for an app of Redis, whose requests are counted together with those of all others there; so
    /// are the two below.
    pub rps: Option<f64>,
    /// Which part of its answers since the start had a status of 500 and above; null without an
    /// answer.
    pub error_ratio: Option<f64>,
    /// Below which time, in milliseconds, 99 of 100 requests since the start were answered: an
    /// upper bound from the histogram. Null when none was measured, or when it lies beyond the
    /// histogram.
    pub p99_ms: Option<f64>,
    /// Where the app comes from.
    pub source: AppSource,
    /// What is wrong: why its newest file was refused, or a route that it does not get. Null when
    /// nothing is.
    pub error: Option<String>,
}

/// Where an app comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppSource {
    /// A configuration file, or the environment.
    File,
    /// Redis.
    Redis,
}

impl AppSource {
    /// The name of the source in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Redis => "redis",
        }
    }
}

/// What a reload did with one app of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppReload {
    /// The app's name.
    pub app: String,
    /// What became of it.
    pub change: AppChange,
    /// Which of its keys differ, or why not all of it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a reload may do with an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppChange {
    /// It is new.
    Added,
    /// It is gone from the configuration: it drains and is stopped.
    Removed,
    /// It is configured differently.
    Changed,
    /// It was refused: it stays as it was.
    Refused,
    /// It is in force without some of its routes.
    Partial,
    /// It is not at its end yet, and goes on by itself.
    Pending,
}

impl AppChange {
    /// The name of the change in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Pending => "pending",
        }
    }
}
