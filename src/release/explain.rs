//! The text of an attempt that was given up: pure, from what is known of it.

use super::state::{Abort, Origin, ReleaseRef};
use crate::health::Ask;
use crate::wire::{self, Code, ErrorBody, Outcome, Reason};

/// Why an attempt was given up, as the answer to the request that began it. `port` and `probe` are
/// of the run that is the reason.
pub(super) fn explain(
    release: &ReleaseRef,
    reason: Reason,
    why: Abort,
    autopsy: Option<wire::Autopsy>,
    (port, probe): (Option<u16>, Option<&wire::ProbeReport>),
    asked: &Ask,
) -> ErrorBody {
    let id = &release.id;
    let mut error = match (why, &release.origin) {
        (Abort::Exited | Abort::NotReady | Abort::Step(_), _) => {
            let said = autopsy.as_ref().map_or("it was not healthy", |autopsy| autopsy.summary.as_str());
            let what = match reason {
                Reason::AutoRollback | Reason::ManualRollback => "rollback to",
                _ => "deploy of",
            };
            ErrorBody::new(Code::DeployAborted, "Deploy aborted", format!("{what} `{id}` aborted: {said}"))
        }
        (Abort::Unhealthy, Origin::Unmanaged { port: first, .. }) => ErrorBody::new(
            Code::HealthFailed,
            "Health check failed",
            format!("Port {} {}", port.unwrap_or(*first), asked.failed()),
        ),
        (Abort::Unhealthy, Origin::Managed) => ErrorBody::new(
            Code::HealthFailed,
            "Health check failed",
            format!("`{id}` still runs and {}; traffic stays where it is", asked.failed()),
        ),
        (Abort::Cancelled, _) => ErrorBody::new(
            Code::DeployAborted,
            "Cancelled",
            format!("`{id}` was cancelled; traffic did not move"),
        ),
        (Abort::MadeWay, _) => ErrorBody::new(
            Code::DeployAborted,
            "Cancelled",
            format!("`{id}` was cancelled for a rollback; traffic did not move to it"),
        ),
        (Abort::Unrecorded, _) => ErrorBody::new(
            Code::StateUnwritable,
            "State cannot be written",
            format!("`{id}` was not started: its intent could not be written to the state file"),
        )
        .with_hint("see portok status for the cause; serving and rollback go on"),
        (Abort::Interrupted, _) => ErrorBody::new(
            Code::ShuttingDown,
            "Shutting down",
            format!("`{id}` was given up: the daemon is going down; traffic did not move"),
        ),
    };
    error.release = Some(id.clone());
    error.outcome = Some(match why {
        Abort::Cancelled | Abort::MadeWay => Outcome::Cancelled,
        Abort::Interrupted => Outcome::Interrupted,
        _ => Outcome::Aborted,
    });
    if error.hint.is_none() {
        error.hint = autopsy.as_ref().and_then(|autopsy| autopsy.hint.clone());
    }
    if why == Abort::Unhealthy
        && let Some(said) = probe.and_then(wire::ProbeReport::said)
    {
        error.hint = Some(format!("the probe saw: {said}"));
    }
    error.autopsy = autopsy;
    error
}
