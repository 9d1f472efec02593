//! Why a command did not succeed, and with which exit code it ends.

use std::time::Duration;

use crate::host::HostFailure;
use crate::wire::{Code, ErrorBody, Outcome, exit};

/// The ways in which a command can fail.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// The arguments, or the files that they name, are wrong.
    Usage { message: String, hint: Option<String> },
    /// No way to the daemon worked.
    Unreachable {
        operation: String,
        /// The instance, if one was named.
        instance: Option<String>,
        /// Each way that was tried, in order, with the reason why it failed.
        tried: Vec<Attempt>,
        hint: Option<String>,
    },
    /// The connection ended before the answer did. The request may have been carried out.
    Lost { operation: String, way: String, cause: String, hint: String },
    /// The answer is not portokd's, or of a version that this command line does not understand.
    Foreign { operation: String, way: String, cause: String },
    /// The daemon answered with an error.
    Refused {
        operation: String,
        body: Box<ErrorBody>,
        /// The answer's `Retry-After`, if it had one.
        retry_after: Option<Duration>,
        /// The caller has no right over TCP, and the daemon's socket was not there to be asked.
        no_socket: bool,
    },
    /// Traffic moved to the release, and back within its watch window.
    RolledBack { release: String, reason: Option<String> },
    /// The release is live and its watch window has passed, but it does not stay up.
    Unstable { release: String, reason: String },
    /// The operator pressed Ctrl-C.
    Interrupted { message: String, hint: String },
    /// A command that administers this machine failed.
    Host(HostFailure),
    /// Standard output could not be written.
    Output { cause: String },
}

/// One way to the daemon that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The socket or URL.
    pub(crate) way: String,
    /// Why.
    pub(crate) cause: String,
    /// Whether the user lacks a right.
    pub(crate) denied: bool,
}

/// What to do when the user may not use the socket.
pub(crate) const DENIED_HINT: &str =
    "use sudo, or become a member of the socket's group (admin.socket_group)";

/// The exit code after Ctrl-C, by the shells' convention: 128 plus the number of SIGINT.
const INTERRUPTED: u8 = 130;

impl Failure {
    /// Wrong usage, with a hint.
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

    /// Whether the daemon refused because another operation is under way.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { body, .. } if body.code == Code::Busy)
    }

    /// Whether the daemon has several apps, and the request named none.
    pub(crate) fn wants_an_app(&self) -> bool {
        matches!(self, Self::Refused { body, .. } if body.code == Code::AppRequired)
    }

    /// Whether the daemon has no app of the name that was given.
    pub(crate) fn is_of_an_unknown_app(&self) -> bool {
        matches!(self, Self::Refused { body, .. } if body.code == Code::NoSuchApp)
    }

    /// Whether the same question may succeed later by itself: the daemon restarts, has no socket
    /// yet, or has reached its limit of requests per minute.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { tried, .. } => !tried.iter().all(|attempt| attempt.denied),
            Self::Lost { .. } | Self::Foreign { .. } => true,
            // A daemon that has just been started makes its socket in a moment.
            Self::Refused { no_socket: true, .. } => true,
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

/// The exit code of an error answer. The outcome decides where no code tells it: traffic moved and
/// moved back, or the deploy ended with the daemon. Otherwise the code decides.
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
        Failure::Refused {
            operation: "deploy".into(),
            body: Box::new(body),
            retry_after: None,
            no_socket: false,
        }
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
            (Code::AppRequired, 5),
            (Code::NoSuchApp, 5),
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
        let mut failure = refused(Code::Forbidden, None);
        assert!(!failure.is_passing());
        if let Failure::Refused { no_socket, .. } = &mut failure {
            *no_socket = true;
        }
        assert!(failure.is_passing(), "the socket may come");
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
