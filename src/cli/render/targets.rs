//! The targets of an app in `portok status`: each by its address, with what is wrong with it.

use super::lines::{write_problem, write_row};
use super::words::{BAD, BUSY, GOOD, paint, plain};
use crate::wire::{Phase, Replicas, Status, TargetState, TargetStatus};

/// What is wrong with the targets, a line each; and that they are not those of the configuration.
pub(super) fn write_problems(text: &mut String, status: &Status) {
    let in_force = status.config.app_in_force.as_ref();
    if in_force.is_some_and(|app| app.why.as_deref() == Some("switched")) {
        let now = status.targets.iter().filter(|target| target.state == TargetState::Ready);
        let now: Vec<_> = now.map(|target| target.address.as_str()).collect();
        write_problem(text, "not the targets of its table", &format!("switched to {}", now.join(", ")));
    }
    for target in &status.targets {
        if let Some(why) = trouble(target) {
            write_problem(text, &format!("target {}", plain(&target.address)), &why);
        }
    }
}

/// What is wrong with a target.
fn trouble(target: &TargetStatus) -> Option<String> {
    match (target.state, target.last_error.as_deref()) {
        (TargetState::Draining, _) => None,
        (TargetState::Ready, Some(error)) => Some(format!("{error}; it gets requests all the same")),
        (TargetState::Ready | TargetState::Starting, None) => None,
        (TargetState::Starting, Some(error)) => Some(format!("{error}; it gets requests once it is healthy")),
        (TargetState::Ejected, Some(error)) => Some(format!("{error}; it gets no requests")),
        (TargetState::Ejected, None) => Some("requests to it failed; it gets none for a while".to_owned()),
    }
}

/// How many targets get requests, and how each is.
pub(super) fn write(text: &mut String, status: &Status) {
    if let Some(Replicas { ready, wanted }) = status.replicas {
        let what = if status.phase == Phase::Unhealthy { "get requests" } else { "serve" };
        write_row(text, "targets", &format!("{ready} of {wanted} {what}"));
    }
    let width = status.targets.iter().map(|target| target.address.len()).max().unwrap_or_default();
    for target in &status.targets {
        let (style, word) = match (target.state, &target.last_error) {
            (TargetState::Ready, None) => (GOOD, "serves"),
            (TargetState::Ready, Some(_)) => (BAD, "fails"),
            (TargetState::Starting, _) => (BUSY, "waited for"),
            (TargetState::Ejected, _) => (BAD, "out"),
            (TargetState::Draining, _) => (BUSY, "draining"),
        };
        let address = plain(&target.address);
        let state = paint(style, word);
        write_row(text, "", &format!("{address:<width$}  {state}  {} in flight", target.inflight));
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::{empty, now};
    use super::*;
    use crate::wire::AppInForce;

    fn target(port: u16, state: TargetState, error: Option<&str>) -> TargetStatus {
        TargetStatus {
            address: format!("127.0.0.1:{port}"),
            state,
            inflight: 2,
            last_error: error.map(str::to_owned),
        }
    }

    fn shown(status: &Status) -> String {
        anstream::adapter::strip_str(&super::super::status(status, now())).to_string()
    }

    #[test]
    fn each_target_is_named_with_what_it_does_and_what_is_wrong() {
        let mut status = Status {
            phase: Phase::Unhealthy,
            replicas: Some(Replicas { ready: 1, wanted: 2 }),
            targets: vec![
                target(20101, TargetState::Ready, None),
                target(9, TargetState::Ejected, Some("connection refused")),
            ],
            ..empty()
        };
        status.health.consecutive_fails = 2;
        let expected = "\
● api is unhealthy on 0.0.0.0:3000  portok 0.1.0, pid 77
  ! target 127.0.0.1:9: connection refused; it gets no requests
  targets    1 of 2 get requests
             127.0.0.1:20101  serves  2 in flight
             127.0.0.1:9      out  2 in flight
  config     the environment, loaded 1h 0m ago
";
        assert_eq!(shown(&status), expected);
        status.targets = vec![target(1, TargetState::Ready, Some("no"))];
        status.config.app_in_force = Some(AppInForce { in_force: false, why: Some("switched".into()) });
        let told = shown(&status);
        assert!(told.contains("  ! not the targets of its table: switched to 127.0.0.1:1\n"), "{told}");
        assert!(told.contains("  ! target 127.0.0.1:1: no; it gets requests all the same\n"), "{told}");
    }
}
