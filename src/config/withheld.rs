//! Which of the daemon's environment variables are nobody else's: neither an app's nor a hook's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::keys::variables;

/// portok's own variables with these beginnings, and systemd's that come in families: the watchdog and the passed
/// sockets are the daemon's, and whoever answered or took them would speak for it.
const PREFIXES: [&str; 4] = ["ADMIN_", "PORTOK_", "WATCHDOG_", "LISTEN_"];

/// What systemd tells the daemon about itself (systemd.exec(5)).
const SYSTEMD: [&str; 16] = [
    // Who the service's main process is and how it reports.
    "NOTIFY_SOCKET",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
    "PIDFILE",
    "FDSTORE",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    // Names the start of the daemon's unit and the socket behind its standard error; libraries that see them take
    // standard error for the journal, which the app's is not.
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    // The daemon's secrets and folders. An app with a folder of its own gets it from `[app] env`.
    "CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
];

/// Whether `name` is the daemon's own: its configuration, its secrets, or what systemd says to it. An app that is itself
/// behind another portok, or that reads a variable of the same name, must not take the daemon's for its own.
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
