//! Why a probe got no answer.

use std::io;

use super::REFUSED;
use crate::http1::head::Invalid;
use crate::want;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", of_io(.0))]
    Io(#[from] io::Error),
    #[error("the connection was closed before an answer")]
    Closed,
    #[error("the answer is not HTTP/1.1: {0} (clients would get 502)")]
    Invalid(#[from] Invalid),
    #[error("the answer is not HTTP/2 (h2c): {0} (clients would get 502)")]
    NotHttp2(String),
    #[error("{0}")]
    Said(String),
    #[error("the probe's path or host cannot be sent: it has a space or a control character")]
    Request,
}

impl Failure {
    /// What portok itself lacks, if that is the cause.
    pub(super) fn into_want(self) -> Result<io::Error, Self> {
        match self {
            Self::Io(error) if want::is_own(&error) => Ok(error),
            other => Err(other),
        }
    }
}

fn of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}
