//! The signals that may be configured to stop an app.

use tokio::signal::unix::SignalKind;

/// A signal that may be configured to stop an app, by number and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal {
    /// Its number on this system.
    pub number: i32,
    /// Its name, `SIGTERM`.
    pub name: &'static str,
}

/// All of them, with their numbers on this system.
pub(super) const ALL: &[StopSignal] = &[
    StopSignal { name: "SIGTERM", number: SignalKind::terminate().as_raw_value() },
    StopSignal { name: "SIGINT", number: SignalKind::interrupt().as_raw_value() },
    StopSignal { name: "SIGQUIT", number: SignalKind::quit().as_raw_value() },
    StopSignal { name: "SIGHUP", number: SignalKind::hangup().as_raw_value() },
    StopSignal { name: "SIGUSR1", number: SignalKind::user_defined1().as_raw_value() },
    StopSignal { name: "SIGUSR2", number: SignalKind::user_defined2().as_raw_value() },
    StopSignal { name: "SIGWINCH", number: SignalKind::window_change().as_raw_value() },
    StopSignal { name: "SIGALRM", number: SignalKind::alarm().as_raw_value() },
    StopSignal { name: "SIGPIPE", number: SignalKind::pipe().as_raw_value() },
    StopSignal { name: "SIGABRT", number: 6 },
    StopSignal { name: "SIGKILL", number: 9 },
];

/// The default one.
pub(super) const SIGTERM: StopSignal = ALL[0];

impl StopSignal {
    /// The signal of this name, with or without `SIG`, in either case.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let is_it = |signal: &&Self| {
            signal.name == name || signal.name.strip_prefix("SIG").is_some_and(|short| short == name)
        };
        ALL.iter().find(is_it).copied()
    }
}
