//! What is wrong with an app, in words: for its row among all, and for whoever deploys it. Pure.

use crate::wire::{AppInForce, ConfigStatus, Phase, Status, TargetState, TargetStatus};

/// How many targets that fail are named.
const MOST_TARGETS: usize = 4;

/// Everything that is wrong with an app, a line each; `None` when nothing is. `error` is why its
/// newest configuration or one of its routes is not in force, `status` its own part of `status`.
pub(super) fn of_app(error: Option<&str>, status: &Status, in_force: &AppInForce) -> Option<String> {
    let mut lines: Vec<_> = error.map(str::to_owned).into_iter().collect();
    // What goes need not be as it is configured.
    if status.phase == Phase::Stopping {
        return lines.pop();
    }
    if let Some(why) = &status.state_error {
        lines.push(format!("its state cannot be written, deploys are refused: {why}"));
    }
    let failure = status.last_failure.as_deref();
    let because = |failure: Option<&str>| failure.map(|why| format!(": {why}")).unwrap_or_default();
    let is_down = status.live.is_none() && matches!(status.phase, Phase::Empty | Phase::Failed);
    match in_force.why.as_deref() {
        Some("aborted") => {
            let live = if is_down { ", and nothing is live" } else { "" };
            lines.push(format!("its table is not in force{live}: its deploy failed{}", because(failure)));
        }
        Some("quarantined") => {
            lines.push(format!("its table is not in force: it was rolled back{}", because(failure)));
        }
        Some("switched") => {
            let now: Vec<_> = serving(status).map(|target| target.address.as_str()).collect();
            let now = if now.is_empty() { "others".to_owned() } else { now.join(", ") };
            lines.push(format!("its targets are not those of its table: it was switched to {now}"));
        }
        _ if is_down && failure.is_some() => lines.push(format!("nothing is live{}", because(failure))),
        _ => (),
    }
    if let (Phase::Failed, Some(exit)) = (status.phase, &status.last_exit) {
        lines.push(format!("`{}` crashed too often: {}", exit.release, exit.exit));
    }
    lines.extend(failing(status));
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// The targets that get requests.
fn serving(status: &Status) -> impl Iterator<Item = &TargetStatus> {
    status.targets.iter().filter(|target| target.state == TargetState::Ready)
}

/// How many of an app's targets serve, and which fail, why.
fn failing(status: &Status) -> Option<String> {
    let replicas = status.replicas?;
    let why = |target: &TargetStatus| match (&target.last_error, target.state) {
        (_, TargetState::Draining) => None,
        (Some(error), _) => Some(error.clone()),
        (None, TargetState::Ejected) => Some("requests to it failed, it is out for a while".to_owned()),
        (None, _) => None,
    };
    let bad: Vec<_> = status
        .targets
        .iter()
        .filter_map(|target| Some(format!("{}: {}", target.address, why(target)?)))
        .collect();
    let more = match bad.len().saturating_sub(MOST_TARGETS) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let named = bad.get(..MOST_TARGETS).unwrap_or(&bad).join("; ");
    let (count, what) = match status.phase {
        // Requests go to those that fail too.
        Phase::Unhealthy => (bad.len(), "fail"),
        _ => (replicas.ready, "serve"),
    };
    (!bad.is_empty()).then(|| format!("{count} of {} targets {what}; {named}{more}", replicas.wanted))
}

/// What whoever deploys an app should know: its configuration on disk is not in force. `refused` is
/// why that of the app alone is not, `file` where it is.
pub(super) fn of_deploy(refused: Option<&str>, config: &ConfigStatus) -> Option<String> {
    let (why, deployed) = match (refused, &config.error) {
        (Some(why), _) => (why, "what was in force before".to_owned()),
        (None, Some(why)) => (why.as_str(), format!("what was loaded at {}", config.loaded_at)),
        (None, None) => return None,
    };
    let file = config
        .file
        .as_deref()
        .map_or_else(|| "the configuration".to_owned(), |file| format!("its file {file}"));
    let why = why.lines().collect::<Vec<_>>().join("; ");
    Some(format!("{file} is not in force: {why}; what is deployed is {deployed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release;
    use crate::wire::{LastExit, Replicas};

    fn told(status: &Status, why: Option<&str>) -> String {
        let in_force = AppInForce { in_force: why.is_none(), why: why.map(str::to_owned) };
        of_app(None, status, &in_force).unwrap_or_default()
    }

    fn settled() -> Status {
        Status { phase: Phase::Settled, ..release::empty_status() }
    }

    #[test]
    fn what_is_well_has_no_trouble_and_neither_has_what_waits() {
        assert_eq!(told(&settled(), None), "");
        for why in ["pending", "deploy_on_change", "replaced"] {
            assert_eq!(told(&settled(), Some(why)), "", "{why}");
        }
        assert_eq!(told(&release::empty_status(), None), "", "nothing was deployed yet");
        let leaves = Status { phase: Phase::Stopping, ..settled() };
        assert_eq!(told(&leaves, Some("switched")), "", "it is being removed");
    }

    #[test]
    fn every_trouble_is_a_line() {
        let status = Status {
            phase: Phase::Failed,
            state_error: Some("no space left on device".into()),
            last_failure: Some("`c2` exited with status 1".into()),
            last_exit: Some(LastExit {
                release: "c1".into(),
                exit: "exit status 3".into(),
                at: String::new(),
            }),
            ..release::empty_status()
        };
        let in_force = AppInForce { in_force: false, why: Some("aborted".into()) };
        let expected = "\
api.toml:1:1 no
its state cannot be written, deploys are refused: no space left on device
its table is not in force, and nothing is live: its deploy failed: `c2` exited with status 1
`c1` crashed too often: exit status 3";
        assert_eq!(of_app(Some("api.toml:1:1 no"), &status, &in_force).unwrap(), expected);
        let status = Status { last_failure: Some("no".into()), ..settled() };
        assert_eq!(told(&status, None), "", "a deploy by hand that failed leaves all as it is");
        assert_eq!(told(&status, Some("quarantined")), "its table is not in force: it was rolled back: no");
        let status = Status { phase: Phase::Empty, ..status };
        assert_eq!(told(&status, None), "nothing is live: no");
    }

    #[test]
    fn targets_are_named_with_what_is_wrong_with_them() {
        let target = |port: u16, state, error: Option<&str>| TargetStatus {
            address: format!("127.0.0.1:{port}"),
            state,
            inflight: 0,
            last_error: error.map(str::to_owned),
        };
        let status = Status {
            replicas: Some(Replicas { ready: 1, wanted: 3 }),
            targets: vec![
                target(1, TargetState::Ready, None),
                target(2, TargetState::Ejected, Some("connection refused")),
                target(3, TargetState::Ejected, None),
                target(4, TargetState::Draining, Some("connection refused")),
            ],
            ..settled()
        };
        let expected = "1 of 3 targets serve; 127.0.0.1:2: connection refused; 127.0.0.1:3: requests to it \
                        failed, it is out for a while";
        assert_eq!(told(&status, None), expected);
        let switched = "its targets are not those of its table: it was switched to 127.0.0.1:1\n";
        assert_eq!(told(&status, Some("switched")), format!("{switched}{expected}"));
        let unhealthy = Status {
            phase: Phase::Unhealthy,
            replicas: Some(Replicas { ready: 2, wanted: 2 }),
            targets: vec![
                target(1, TargetState::Ready, Some("no")),
                target(2, TargetState::Ready, Some("requests to it failed")),
            ],
            ..settled()
        };
        let expected = "2 of 2 targets fail; 127.0.0.1:1: no; 127.0.0.1:2: requests to it failed";
        assert_eq!(told(&unhealthy, None), expected);
        let many = (1..=9).map(|port| target(port, TargetState::Ready, Some("no"))).collect();
        assert!(told(&Status { targets: many, ..status }, None).ends_with("127.0.0.1:4: no; and 5 more"));
    }

    #[test]
    fn a_deploy_is_told_that_another_configuration_is_on_disk() {
        let config = |error: Option<&str>| ConfigStatus {
            file: Some("/etc/portok/api.toml".into()),
            loaded_at: "2026-01-01T11:00:00Z".into(),
            error: error.map(str::to_owned),
            app_in_force: None,
            pending: false,
        };
        assert_eq!(of_deploy(None, &config(None)), None);
        assert_eq!(
            of_deploy(None, &config(Some("api.toml:1:1 no\napi.toml:2:1 no"))).unwrap(),
            "its file /etc/portok/api.toml is not in force: api.toml:1:1 no; api.toml:2:1 no; what is deployed \
             is what was loaded at 2026-01-01T11:00:00Z"
        );
        let told = of_deploy(Some("gone"), &config(Some("other"))).unwrap();
        assert!(
            told.ends_with("is not in force: gone; what is deployed is what was in force before"),
            "{told}"
        );
    }
}
