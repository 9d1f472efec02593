//! Which of the daemon's environment variables no app and no hook inherits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::keys::variables;

/// The beginnings of portok's own variables and of systemd's families: watchdog and passed sockets.
/// A process that answered the one or took the other would speak for the daemon.
const PREFIXES: [&str; 4] = ["ADMIN_", "PORTOK_", "WATCHDOG_", "LISTEN_"];

/// What systemd tells the daemon about itself (systemd.exec(5)).
const SYSTEMD: [&str; 16] = [
    // The service's main process, and how it reports.
    "NOTIFY_SOCKET",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "PIDFILE",
    "FDSTORE",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // The start of the daemon's unit, and the socket behind its standard error. Libraries that see
    // them take standard error for the journal, which the app's is not.
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    // The daemon's secrets and folders. An app gets its own from `[app] env`.
    "CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
];

/// Whether `name` is the daemon's own variable: its configuration, its secrets, or what systemd
/// tells it. An app may be another portok, or read a variable of the same name, and must not take
/// the daemon's.
pub fn is_withheld(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
        || SYSTEMD.iter().any(|own| name == *own)
        || variables().any(|own| name == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_portoks_or_systemds_is_withheld_and_nothing_else() {
        for name in ["ADMIN_TOKEN", "PORTOK_TOKEN", "LISTEN_FDS", "DRAIN_MS", "APP_COMMAND", "NOTIFY_SOCKET"]
        {
            assert!(is_withheld(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "PORT", "NODE_ENV", "ADMIN", "TZ"] {
            assert!(!is_withheld(OsStr::new(name)), "{name}");
        }
    }
}
