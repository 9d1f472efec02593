//! Errors: the body of an error answer, its code, and the exit codes of the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::autopsy::Autopsy;
use super::release::Outcome;

/// The kind of an error. The names are stable, so that scripts can rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The peer may not use the admin API, or not this part of it.
    Forbidden,
    /// Too many admin requests from this address within a minute.
    RateLimited,
    /// The token is missing or wrong.
    Unauthorized,
    /// No such path under the admin prefix.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// A parameter or the body is not valid.
    BadRequest,
    /// Another deploy, switch or rollback is under way.
    Busy,
    /// The target did not answer its health path with 2xx.
    HealthFailed,
    /// The deploy was aborted before traffic moved.
    DeployAborted,
    /// There is no previous release to go back to.
    NoPrevious,
    /// No release with this id was ever live.
    NoSuchRelease,
    /// The instance has several apps, and the request names none.
    AppRequired,
    /// The instance has no app of this name.
    NoSuchApp,
    /// The release is in quarantine after a rollback, and the request does not force it.
    Quarantined,
    /// An operator has stopped deploys and switches.
    Frozen,
    /// Neither the deploy nor the configuration has a command.
    NoApp,
    /// The configuration file is not valid.
    ConfigInvalid,
    /// The state file cannot be written, so nothing new is started.
    StateUnwritable,
    /// The daemon is shutting down.
    ShuttingDown,
    /// The new portokd did not take over; the running one goes on.
    UpgradeFailed,
    /// A fault of portok itself.
    Internal,
}

impl Code {
    /// The HTTP status of an answer with this code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::AppRequired => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::NoSuchRelease | Self::NoSuchApp => 404,
            Self::MethodNotAllowed => 405,
            Self::Busy
            | Self::HealthFailed
            | Self::DeployAborted
            | Self::NoPrevious
            | Self::Quarantined
            | Self::Frozen
            | Self::NoApp
            | Self::UpgradeFailed => 409,
            Self::ConfigInvalid => 422,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::StateUnwritable | Self::ShuttingDown => 503,
        }
    }

    /// The exit code of the command line for an answer with this code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::HealthFailed | Self::UpgradeFailed | Self::Internal => exit::FAILED,
            Self::ConfigInvalid => exit::USAGE,
            Self::DeployAborted => exit::ABORTED,
            _ => exit::REFUSED,
        }
    }

    /// The name of the code in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BadRequest => "bad_request",
            Self::Busy => "busy",
            Self::HealthFailed => "health_failed",
            Self::DeployAborted => "deploy_aborted",
            Self::NoPrevious => "no_previous",
            Self::NoSuchRelease => "no_such_release",
            Self::AppRequired => "app_required",
            Self::NoSuchApp => "no_such_app",
            Self::Quarantined => "quarantined",
            Self::Frozen => "frozen",
            Self::NoApp => "no_app",
            Self::ConfigInvalid => "config_invalid",
            Self::StateUnwritable => "state_unwritable",
            Self::ShuttingDown => "shutting_down",
            Self::UpgradeFailed => "upgrade_failed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The exit codes of the command line.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed: the app is unhealthy, or portok is at fault.
    pub const FAILED: u8 = 1;
    /// The arguments or the configuration are wrong.
    pub const USAGE: u8 = 2;
    /// A deploy was aborted or cancelled: traffic never moved.
    pub const ABORTED: u8 = 3;
    /// Traffic moved and was moved back.
    pub const ROLLED_BACK: u8 = 4;
    /// The daemon refused the request.
    pub const REFUSED: u8 = 5;
    /// The daemon cannot be reached.
    pub const UNREACHABLE: u8 = 6;
    /// Of the daemon under a service manager: it was told to shut down, and is not to be started
    /// again.
    pub const SHUT_DOWN: u8 = 10;
}

/// The body of an error answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What failed, in two or three words.
    pub error: String,
    /// What failed, on what, and why, as a sentence.
    pub message: String,
    /// The stable code.
    pub code: Code,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The release of the failed operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How the deploy ended, if a deploy failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why the deploy was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autopsy: Option<Autopsy>,
    /// `done` where the deploy was given up after `app.before` had run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Every problem, if there are several, as in an invalid configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl ErrorBody {
    /// An error without hint and details.
    pub fn new(code: Code, error: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            message: message.into(),
            code,
            hint: None,
            release: None,
            outcome: None,
            autopsy: None,
            before: None,
            errors: Vec::new(),
        }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
