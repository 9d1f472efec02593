//! What went wrong, as the daemon says it and as the command line ends with it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Autopsy, Outcome};

/// What kind of error an answer reports: stable, for scripts.
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
    /// The path exists, the method does not fit.
    MethodNotAllowed,
    /// A parameter or the body is not what was expected.
    BadRequest,
    /// Another deploy, switch or rollback is under way.
    Busy,
    /// The target did not answer its health path with 2xx.
    HealthFailed,
    /// The deploy was given up before traffic moved.
    DeployAborted,
    /// There is no previous release to go back to.
    NoPrevious,
    /// No release of this id was ever live.
    NoSuchRelease,
    /// A rollback took traffic away from the release, and nobody insists on it.
    Quarantined,
    /// A deploy without a command, and the configuration has none either.
    NoApp,
    /// The configuration file does not validate.
    ConfigInvalid,
    /// The state file cannot be written: nothing new is started.
    StateUnwritable,
    /// The daemon is going down.
    ShuttingDown,
    /// The new portokd did not take over: the running one goes on.
    UpgradeFailed,
    /// A fault of portok itself.
    Internal,
}

impl Code {
    /// The HTTP status an answer with this code carries.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound | Self::NoSuchRelease => 404,
            Self::MethodNotAllowed => 405,
            Self::Busy
            | Self::HealthFailed
            | Self::DeployAborted
            | Self::NoPrevious
            | Self::Quarantined
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

    /// The code as it stands in an answer.
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
            Self::Quarantined => "quarantined",
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
    /// Failed: unhealthy, or a fault of portok.
    pub const FAILED: u8 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: u8 = 2;
    /// A deploy was aborted or cancelled: traffic never moved.
    pub const ABORTED: u8 = 3;
    /// Traffic moved and was moved back.
    pub const ROLLED_BACK: u8 = 4;
    /// The daemon refused the request.
    pub const REFUSED: u8 = 5;
    /// The daemon cannot be reached.
    pub const UNREACHABLE: u8 = 6;
}

/// The body of every answer that reports an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// What failed, in two or three words.
    pub error: String,
    /// What failed on which subject, and why.
    pub message: String,
    /// The stable code.
    pub code: Code,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The release that the failed operation was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How the deploy ended, where the error is a deploy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why a deploy was aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autopsy: Option<Autopsy>,
    /// Every problem, where there are several (an invalid configuration).
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
            errors: Vec::new(),
        }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
