//! The answers to refused requests: pure, one text for each refusal.

use super::state::Refusal;
use crate::wire::{Code, ErrorBody};

/// The answer to a refused request.
pub(super) fn refused(refusal: &Refusal) -> ErrorBody {
    match refusal {
        Refusal::Busy { release, reason } => ErrorBody::new(
            Code::Busy,
            "Busy",
            format!("another attempt is under way: `{release}` ({})", reason.as_str()),
        )
        .with_hint("wait for it (portok status), or end it with: portok cancel"),
        Refusal::NoPrevious { quarantined: None } => ErrorBody::new(
            Code::NoPrevious,
            "No previous release",
            "there is no previous release to go back to",
        ),
        Refusal::NoPrevious { quarantined: Some(release) } => ErrorBody::new(
            Code::NoPrevious,
            "No previous release",
            format!("there is no previous release to go back to: traffic was taken away from `{release}`"),
        )
        .with_hint(format!("to go there in spite of that: portok rollback {release} --force")),
        Refusal::NoSuchRelease { release } => ErrorBody::new(
            Code::NoSuchRelease,
            "No such release",
            format!("no release `{release}` was ever live"),
        )
        .with_hint("portok releases shows those that were"),
        Refusal::Quarantined { release } => ErrorBody::new(
            Code::Quarantined,
            "In quarantine",
            format!("`{release}` is in quarantine: a rollback took traffic away from it"),
        )
        .with_hint("--force takes it in spite of that"),
        Refusal::LiveIsDown { release } => ErrorBody::new(
            Code::NoPrevious,
            "No way back",
            format!("`{release}` is what is live, and no process of it serves"),
        )
        .with_hint("a rollback goes to another release; a deploy of this one with --force starts it at once"),
        Refusal::Booting => {
            ErrorBody::new(Code::Busy, "Busy", "what an earlier daemon left running is being stopped first")
                .with_hint("try again in a moment")
        }
        Refusal::PortInUse { release } => ErrorBody::new(
            Code::HealthFailed,
            "Health check failed",
            format!("the port is that of release `{release}`, which is not ready or is being stopped"),
        ),
        Refusal::NothingUnderWay => {
            ErrorBody::new(Code::NotFound, "Nothing to cancel", "no deploy, switch or rollback is under way")
        }
        Refusal::ShuttingDown => ErrorBody::new(
            Code::ShuttingDown,
            "Shutting down",
            "the daemon is going down and begins nothing new",
        ),
    }
}
