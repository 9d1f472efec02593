//! One request to a daemon, before it is sent, and the limits of its answer.

use std::time::Duration;

use http::Method;
use http::header::HeaderValue;

/// How long the whole answer may take where nothing but the daemon's own thought is waited for, a probe of the
/// app included.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// Limits on what an answer may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A whole answer.
    pub(crate) answer: usize,
    /// One line of a stream.
    pub(crate) line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: 32 * 1024 * 1024, line: 4 * 1024 * 1024 }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What the operator wants, for messages: `switch to port 8081`.
    pub(crate) operation: String,
    /// The method.
    pub(crate) method: Method,
    /// What follows the prefix: `status`, `logs?lines=5`.
    pub(crate) path: String,
    /// The JSON body.
    pub(crate) body: Option<Vec<u8>>,
    /// Over the unix socket alone, whose other end is on this host: the directory of whoever asks.
    pub(crate) directory: Option<HeaderValue>,
    /// The media type of the answer.
    pub(crate) accept: &'static str,
    /// Who bounds the time until the answer is there.
    pub(crate) patience: Patience,
}

/// Who bounds the time of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// This client: a question.
    Question,
    /// The daemon, by the app's own limits (`start_timeout` and such), which only it knows. That it is still
    /// there is seen from the connection.
    Operation,
}

impl Call {
    /// A question.
    pub(crate) fn get(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            method: Method::GET,
            path: path.into(),
            body: None,
            directory: None,
            accept: "application/json",
            patience: Patience::Question,
        }
    }

    /// An operation.
    pub(crate) fn post(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self { method: Method::POST, patience: Patience::Operation, ..Self::get(operation, path) }
    }
}
