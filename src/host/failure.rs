//! Why a command that administers this host was not carried out, or not to its end.

use crate::wire::exit;

/// A host command that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostFailure {
    /// What kind of failure it is, for scripts.
    pub(crate) code: HostCode,
    /// What failed and why, in one sentence.
    pub(crate) message: String,
    /// What lies behind it, one line each.
    pub(crate) causes: Vec<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

/// The kinds of [`HostFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostCode {
    /// The arguments do not fit this host.
    Usage,
    /// A file that is to be made exists already, and portok may not replace it.
    Exists,
    /// The port is taken.
    InUse,
    /// There is no such instance.
    NotFound,
    /// The instance runs.
    Running,
    /// The instance's configuration is not valid.
    Invalid,
    /// The command needs `--force`.
    NotForced,
    /// The system refused or failed.
    Failed,
}

impl HostFailure {
    /// A failure with a hint.
    pub(crate) fn new(code: HostCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), hint: Some(hint.into()) }
    }
}

impl HostCode {
    /// The stable code for scripts.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Exists => "exists",
            Self::InUse => "in_use",
            Self::NotFound => "not_found",
            Self::Running => "running",
            Self::Invalid => "config_invalid",
            Self::NotForced => "not_forced",
            Self::Failed => "failed",
        }
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Usage | Self::Invalid => exit::USAGE,
            Self::Failed => exit::FAILED,
            Self::Exists | Self::InUse | Self::NotFound | Self::Running | Self::NotForced => exit::REFUSED,
        }
    }
}
