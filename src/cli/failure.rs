//! Why a command did not succeed, and with which exit code it ends.

use std::time::Duration;

use crate::host::HostFailure;
use crate::wire::{Code, ErrorBody, Outcome, exit};

/// Every way in which a command can end without having done what was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The arguments, or the files they lead to, do not fit.
    Usage { message: String, hint: Option<String> },
    /// No way to the daemon could be used.
    Unreachable {
        operation: String,
        /// The instance, where one is meant.
        instance: Option<String>,
        /// Each way that was tried and why it failed, in order.
        tried: Vec<Attempt>,
        hint: Option<String>,
    },
    /// The connection ended before the answer did: what was asked may have been done.
    Lost { operation: String, way: String, cause: String, hint: String },
    /// What answered is not portokd, or not one that this command line understands.
    Foreign { operation: String, way: String, cause: String },
    /// The daemon answered with an error.
    Refused {
        operation: String,
        body: Box<ErrorBody>,
        /// `Retry-After`, where the answer had one.
        retry_after: Option<Duration>,
    },
    /// Traffic moved to the release, and back within its watch window.
    RolledBack { release: String, reason: Option<String> },
    /// The release is live and its watch window is over, but it does not stay up.
    Unstable { release: String, reason: String },
    /// The operator pressed Ctrl-C.
    Interrupted { message: String, hint: String },
    /// A command that concerns this host was not carried out, or not to its end.
    Host(HostFailure),
    /// Standard output took no more.
    Output { cause: String },
}

/// One way to the daemon that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The socket or URL.
    pub(crate) way: String,
    /// Why.
    pub(crate) cause: String,
    /// Whether rights were missing.
    pub(crate) denied: bool,
}

/// What to do where rights are missing.
pub(crate) const DENIED_HINT: &str =
    "use sudo, or become a member of the socket's group (admin.socket_group)";

/// The exit code after Ctrl-C, as shells count it: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

impl Failure {
    /// Wrong usage with a hint.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => exit::USAGE,
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Foreign { .. } => exit::UNREACHABLE,
            Self::Refused { body, .. } => refused_exit(body),
            Self::RolledBack { .. } => exit::ROLLED_BACK,
            Self::Host(failure) => failure.code.exit_code(),
            Self::Unstable { .. } | Self::Output { .. } => exit::FAILED,
            Self::Interrupted { .. } => INTERRUPTED,
        }
    }

    /// The stable code for scripts.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Foreign { .. } => "unreachable",
            Self::Refused { body, .. } => body.code.as_str(),
            Self::RolledBack { .. } => "rolled_back",
            Self::Unstable { .. } => "unstable",
            Self::Interrupted { .. } => "interrupted",
            Self::Host(failure) => failure.code.as_str(),
            Self::Output { .. } => "internal",
        }
    }

    /// Whether the daemon refused because something else is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { body, .. } if body.code == Code::Busy)
    }

    /// Whether asking again after a while may succeed, although nobody mends anything: the daemon is being
    /// started again, or it has had enough requests for a minute.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { tried, .. } => !tried.iter().all(|attempt| attempt.denied),
            Self::Lost { .. } | Self::Foreign { .. } => true,
            Self::Refused { body, .. } => matches!(body.code, Code::RateLimited | Code::ShuttingDown),
            _ => false,
        }
    }
}

impl From<HostFailure> for Failure {
    fn from(failure: HostFailure) -> Self {
        Self::Host(failure)
    }
}

/// The code decides, but for what no code tells: that traffic moved and was moved back, or that a deploy ended with
/// the daemon.
fn refused_exit(body: &ErrorBody) -> u8 {
    match body.outcome {
        Some(Outcome::RolledBack) => exit::ROLLED_BACK,
        Some(Outcome::Interrupted) => exit::ABORTED,
        _ => body.code.exit_code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, outcome: Option<Outcome>) -> Failure {
        let mut body = ErrorBody::new(code, "x", "y");
        body.outcome = outcome;
        Failure::Refused { operation: "deploy".into(), body: Box::new(body), retry_after: None }
    }

    #[test]
    fn every_code_has_the_exit_code_of_the_contract() {
        let table = [
            (Code::Forbidden, 5),
            (Code::RateLimited, 5),
            (Code::Unauthorized, 5),
            (Code::NotFound, 5),
            (Code::MethodNotAllowed, 5),
            (Code::BadRequest, 5),
            (Code::Busy, 5),
            (Code::HealthFailed, 1),
            (Code::DeployAborted, 3),
            (Code::NoPrevious, 5),
            (Code::NoApp, 5),
            (Code::ConfigInvalid, 2),
            (Code::StateUnwritable, 5),
            (Code::ShuttingDown, 5),
            (Code::Internal, 1),
        ];
        for (code, exit) in table {
            assert_eq!(refused(code, None).exit_code(), exit, "{code}");
        }
    }

    #[test]
    fn an_outcome_wins_where_no_code_tells_it() {
        assert_eq!(refused(Code::DeployAborted, Some(Outcome::RolledBack)).exit_code(), 4);
        assert_eq!(refused(Code::HealthFailed, Some(Outcome::Aborted)).exit_code(), 1);
        assert_eq!(refused(Code::StateUnwritable, Some(Outcome::Aborted)).exit_code(), 5);
        assert_eq!(refused(Code::ShuttingDown, Some(Outcome::Interrupted)).exit_code(), 3);
        assert_eq!(refused(Code::DeployAborted, Some(Outcome::Cancelled)).exit_code(), 3);
    }

    #[test]
    fn missing_rights_do_not_pass_by_themselves() {
        let attempt = |denied| Attempt { way: "s".into(), cause: "c".into(), denied };
        let failure = |tried| {
            Failure::Unreachable { operation: "status".into(), instance: None, tried, hint: None }
                .is_passing()
        };
        assert!(failure(vec![attempt(false)]));
        assert!(failure(vec![attempt(true), attempt(false)]));
        assert!(!failure(vec![attempt(true)]));
    }
}
