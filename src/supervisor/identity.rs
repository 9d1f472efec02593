//! Which process it is: facts that outlive the daemon and are true of one process only.

use std::fs;
use std::io::{self, Read};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::proc;

/// A process, beyond doubt: a pid is reused, but not together with start time and boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process id, which is the group's id too.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
    /// The random tag in the environment of the run's processes (`PORTOK_RUN`).
    pub tag: String,
}

impl Identity {
    /// Identifies a process that was just started and is not reaped yet.
    pub(super) fn of(pid: u32, tag: String) -> io::Result<Self> {
        let boot_id = boot_id()?.to_owned();
        let stat = proc::stat(pid).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("/proc/{pid}/stat is not readable"))
        })?;
        Ok(Self { boot_id, pid, start_time: stat.start_time, tag })
    }

    /// Whether the host has not booted since. Otherwise pid and start time mean nothing.
    pub fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|current| current == self.boot_id)
    }
}

/// This boot's id.
pub(super) fn boot_id() -> io::Result<&'static str> {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = BOOT_ID.get() {
        return Ok(known);
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT_ID.get_or_init(|| read.trim().to_owned()))
}

/// A mark for an app that has no durable one: 128 random bits in hexadecimal. The tags of all runs
/// of an app begin with its mark. So the next daemon also finds a process that was started a moment
/// before the daemon died, too late to be recorded.
///
/// # Errors
/// The kernel's random numbers cannot be read.
pub fn new_mark() -> io::Result<String> {
    Ok(format!("{}{}", random()?, random()?))
}

/// What the tags of an app's runs under one daemon begin with: the app's mark, and random bits that
/// tell them from its runs under every other daemon.
pub(super) fn new_series(mark: &str) -> io::Result<String> {
    Ok(format!("{mark}{}", random()?))
}

/// A tag that no other run has.
pub(super) fn new_tag(series: &str) -> io::Result<String> {
    Ok(format!("{series}{}", random()?))
}

/// 64 random bits in hexadecimal.
fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

/// Whether this has the form of a mark or a tag. Otherwise a damaged record could make every
/// process with an empty variable ours.
pub(super) fn is_tag(tag: &str) -> bool {
    matches!(tag.len(), 32 | 64) && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_identity_of_this_boot() {
        let series = new_series(&new_mark().unwrap()).unwrap();
        let identity = Identity::of(std::process::id(), new_tag(&series).unwrap()).unwrap();
        assert!(identity.is_of_this_boot());
        assert!(is_tag(&identity.tag));
        assert_ne!(identity.tag, new_tag(&series).unwrap());
        let json = serde_json::to_string(&identity).unwrap();
        assert!(json.contains("\"bootId\"") && json.contains("\"startTime\""), "{json}");
        assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), identity);
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        assert!(!is_tag(""));
        assert!(!is_tag("abc"));
        assert!(!is_tag(&"g".repeat(32)));
    }
}
