//! One request to a daemon, before it is sent, and the limits of its answer.

use std::time::Duration;

use http::Method;
use http::header::HeaderValue;

/// How long the answer to a question may take. It includes a probe of the app.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// The limits of an answer's size, in bytes.
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

/// One request to a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The operation in words, for messages: `switch to port 8081`.
    pub(crate) operation: String,
    /// The method.
    pub(crate) method: Method,
    /// The path after the admin prefix: `status`, `logs?lines=5`.
    pub(crate) path: String,
    /// The JSON body.
    pub(crate) body: Option<Vec<u8>>,
    /// The caller's directory. It is sent over the unix socket only, whose other end is on this
    /// machine.
    pub(crate) directory: Option<HeaderValue>,
    /// The media type that the answer should have.
    pub(crate) accept: &'static str,
    /// Who bounds the time until the answer.
    pub(crate) patience: Patience,
}

/// Who bounds the time of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// This client, by [`ANSWER_DEADLINE`].
    Question,
    /// The daemon, by the app's own limits such as `start_timeout`, which only the daemon knows.
    /// The connection shows that the daemon is still there.
    Operation,
}

impl Call {
    /// A question: it changes nothing.
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

    /// An operation: it changes something.
    pub(crate) fn post(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self { method: Method::POST, patience: Patience::Operation, ..Self::get(operation, path) }
    }
}
