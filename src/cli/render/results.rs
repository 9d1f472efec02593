//! The results of most commands, in one or two lines each.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::super::failure::Failure;
use super::words::{ADVICE, BAD, BUSY, DIM, GOOD, STRONG, left, paint, place, plain, ports};
use crate::wire::{
    Accepted, AppChange, AppReload, Health, LogLine, Moved, Ordered, Reloaded, RollbackPlan, Scaled, Status,
    Stream, Switch, Switched, Upgraded, called, is_step,
};

/// A deploy or rollback that moved traffic.
pub(crate) fn moved(moved: &Moved) -> String {
    let release = paint(STRONG, plain(&moved.release));
    let (live, cancelled) = (paint(GOOD, "live"), cancelled(moved.cancelled.as_deref()));
    let Some(switch) = moved.switch.as_ref().filter(|_| !moved.already_live) else {
        return format!("{release} is {live} already{cancelled}");
    };
    let on = match &switch.to_ports[..] {
        [_, _, ..] => ports(&switch.to_ports),
        _ => ports(&[switch.to]),
    };
    format!("{release} is {live} on {on}{}{cancelled}", was(switch))
}

/// What was live before: `, was v1 (port 24884)`.
fn was(switch: &Switch) -> String {
    if let [_, _, ..] = &switch.from_ports[..] {
        return format!(", was {}", ports(&switch.from_ports));
    }
    let from = place(switch.from_release.as_deref(), switch.from);
    from.map(|from| format!(", was {from}")).unwrap_or_default()
}

fn cancelled(candidate: Option<&str>) -> String {
    candidate.map(|id| format!("; the candidate {} was cancelled", plain(id))).unwrap_or_default()
}

/// What a rollback would do.
pub(crate) fn planned(plan: &RollbackPlan) -> String {
    let mut text = format!("{}\n  nothing has changed: this was a dry run", plain(&plan.message));
    if plan.watched {
        text.push_str("\n  a watch window opens");
    }
    if let Some(changed) = &plan.directory_changed {
        _ = write!(text, "\n  {}: {}", paint(BUSY, "its directory is not what it ran from"), plain(changed));
    }
    text
}

/// A switch.
pub(crate) fn switched(switched: &Switched, asked: &[u16]) -> String {
    // What is live already has not moved.
    let is_asked =
        |ports: &[u16]| ports.len() == asked.len() && ports.iter().all(|port| asked.contains(port));
    let is_new = |switch: &&Switch| {
        !switched.message.ends_with("live already") && (is_asked(&[switch.to]) || is_asked(&switch.to_ports))
    };
    let moved = switched.switch.as_ref().filter(is_new);
    format!("{}{}", plain(&switched.message), moved.map(was).unwrap_or_default())
}

/// An operation that continues in the daemon.
pub(crate) fn accepted(accepted: &Accepted) -> String {
    plain(&accepted.message)
}

/// An order that is obeyed.
pub(crate) fn ordered(ordered: &Ordered) -> String {
    plain(&ordered.message)
}

/// What the daemon warns of although it does what was asked.
pub(crate) fn warning(text: &str) -> String {
    format!("{} {}", paint(BUSY, "warning:"), plain(text))
}

/// A reload, with the keys and the apps that changed.
pub(crate) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = plain(&reloaded.message);
    if !reloaded.changed.is_empty() {
        _ = write!(text, "\n  changed  {}", plain(&reloaded.changed.join(", ")));
    }
    for AppReload { app, change, why } in &reloaded.apps {
        let style = match change {
            AppChange::Refused | AppChange::Partial => BAD,
            AppChange::Pending => BUSY,
            AppChange::Added | AppChange::Removed | AppChange::Changed => STRONG,
        };
        let change = paint(style, format_args!("{:<8}", change.as_str()));
        let lines = |why: &str| why.lines().map(plain).collect::<Vec<_>>().join("\n           ");
        let why = why.as_deref().map(|why| format!(": {}", lines(why))).unwrap_or_default();
        _ = write!(text, "\n  {change} {}{why}", plain(app));
    }
    text
}

/// A scale.
pub(crate) fn scaled(Scaled { min, max, noted, watch_until, warning }: &Scaled, now: SystemTime) -> String {
    let what = match (min, max) {
        (1, 1) => "one replica".to_owned(),
        (min, max) if min == max => format!("{max} replicas"),
        (min, max) => format!("{min} to {max} replicas, as the load asks for it"),
    };
    let rest = watch_until.as_deref().and_then(|until| left(until, now));
    let when = match rest {
        _ if *noted => ", once the deploy under way has ended".to_owned(),
        Some(rest) => format!(", once the watch window has passed: {rest} left"),
        None => String::new(),
    };
    let warning = warning.as_deref().map(|text| format!("; {}", plain(text))).unwrap_or_default();
    format!("{what}{when}{warning}")
}

/// An upgrade.
pub(crate) fn upgraded(upgraded: &Upgraded) -> String {
    plain(&upgraded.message)
}

/// The health of the live target.
pub(crate) fn health(health: &Health) -> String {
    let Health { healthy, port, status, latency_ms, error, replicas, idle } = health;
    let mut text = match port {
        None => {
            let none = match (idle, healthy) {
                (true, _) => "idle: nothing of it runs before the next request",
                (false, true) => "portok answers, no target is needed",
                (false, false) => "nothing is live",
            };
            let why = error.as_deref().map_or_else(|| none.to_owned(), plain);
            format!("{}: {why}", verdict(*healthy))
        }
        Some(port) => {
            let probed = probed(*status, *latency_ms, error.as_deref());
            format!("{}: port {port}{probed}", verdict(*healthy))
        }
    };
    for each in replicas.iter().flatten() {
        let probed = probed(each.status, each.latency_ms, each.error.as_deref());
        _ = write!(text, "\n  {}: {}{probed}", verdict(each.healthy), plain(&each.address));
    }
    text
}

fn verdict(healthy: bool) -> String {
    if healthy { paint(GOOD, "healthy").to_string() } else { paint(BAD, "unhealthy").to_string() }
}

/// What came of a probe.
fn probed(status: Option<u16>, latency_ms: Option<f64>, error: Option<&str>) -> String {
    let status = status.map(|status| format!(" answered {status}")).unwrap_or_default();
    let took = latency_ms.map(|time| format!(" in {time:.1} ms")).unwrap_or_default();
    let error = error.map(|error| format!(": {}", plain(error))).unwrap_or_default();
    format!("{status}{took}{error}")
}

/// Lines of an app's output.
/// `several`: each says which replica printed it.
pub(crate) fn log_lines(lines: &[LogLine], several: bool) -> String {
    let mut text = String::new();
    for LogLine { at, release, replica, process, stream, line } in lines {
        let (style, mark) = match stream {
            Stream::Stdout => (DIM, "out"),
            Stream::Stderr => (BUSY, "err"),
        };
        let head = paint(DIM, format_args!("{} {}", plain(at), plain(release)));
        let who = match process {
            Some(process) => format!("{}| ", called(Some(&plain(process)), *replica, "")),
            None if several => format!("{replica}| "),
            None => String::new(),
        };
        _ = writeln!(text, "{head} {} {who}{}", paint(style, mark), plain(line));
    }
    text
}

/// Whether several replicas printed these lines.
pub(crate) fn have_several(lines: &[LogLine]) -> bool {
    let beside = |line: &LogLine| line.process.as_deref().is_some_and(|process| !is_step(process));
    lines.iter().any(|line| line.replica > 0 || beside(line))
}

/// The first line of `--wait-window`.
pub(crate) fn watching(release: &str) -> String {
    format!("watching `{}` until its watch window has passed", plain(release))
}

/// The live line of `--wait-window`.
pub(crate) fn watch_line(release: &str, status: &Status, now: SystemTime) -> String {
    let rest = status.watch_until.as_deref().and_then(|until| left(until, now));
    let rest = rest.map(|rest| format!(", {rest} left")).unwrap_or_default();
    format!("{} `{}` is {}{rest}", paint(BUSY, "…"), plain(release), status.phase.as_str())
}

/// The daemon is absent or busy, and the command waits.
pub(crate) fn absent(failure: &Failure) -> String {
    match failure {
        Failure::Refused { body, .. } => format!("waiting: {}", plain(&body.message)),
        _ => "the daemon does not answer, waiting for it".to_owned(),
    }
}

/// The numbers of one app of Redis are those of all of them.
pub(crate) fn counted_together() -> String {
    format!(
        "{} the apps of Redis are counted together: these are the numbers of all of them",
        paint(ADVICE, "note:")
    )
}

/// An instance's file cannot be used, and its daemon is asked at its default socket.
pub(crate) fn broken_file(why: &str) -> String {
    let text = format!("{}; its daemon is asked over its usual socket", plain(why));
    format!("{} {text}", paint(ADVICE, "note:"))
}

/// The watch window ended because a newer release became live.
pub(crate) fn superseded(release: &str, live: &str) -> String {
    let (release, live) = (plain(release), plain(live));
    format!("`{release}` was replaced by `{live}`, which is live and ended its watch window")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Outcome, ReplicaHealth};

    fn stripped(text: String) -> String {
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn health_names_the_port_and_the_cause() {
        let good = Health {
            healthy: true,
            port: Some(8081),
            status: Some(200),
            latency_ms: Some(1.23),
            error: None,
            replicas: None,
            idle: false,
        };
        assert_eq!(stripped(health(&good)), "healthy: port 8081 answered 200 in 1.2 ms");
        let bad = Health {
            healthy: false,
            port: Some(8081),
            status: None,
            latency_ms: None,
            error: Some("connection refused".into()),
            replicas: None,
            idle: false,
        };
        assert_eq!(stripped(health(&bad)), "unhealthy: port 8081: connection refused");
        let none = Health { port: None, error: None, ..bad };
        assert_eq!(stripped(health(&none)), "unhealthy: nothing is live");
        let redirect = Health { healthy: true, ..none.clone() };
        assert_eq!(stripped(health(&redirect)), "healthy: portok answers, no target is needed");
        let idle = stripped(health(&Health::idle()));
        assert_eq!(idle, "healthy: idle: nothing of it runs before the next request");
        let of = |address: &str, status: Option<u16>, error: Option<&str>| ReplicaHealth {
            address: address.into(),
            port: 1,
            healthy: error.is_none(),
            status,
            latency_ms: status.map(|_| 2.0),
            error: error.map(Into::into),
        };
        let each = vec![of("10.0.0.1:1", Some(500), Some("status 500")), of("[::1]:1", None, None)];
        assert_eq!(
            stripped(health(&Health { replicas: Some(each), ..good })),
            "healthy: port 8081 answered 200 in 1.2 ms\n  unhealthy: 10.0.0.1:1 answered 500 in 2.0 ms: status 500\n  \
             healthy: [::1]:1"
        );
    }

    #[test]
    fn a_switch_of_a_set_tells_all_ports() {
        let switch = |from: &[u16], to: &[u16]| Switch {
            from: from.first().copied(),
            from_ports: from.to_vec(),
            from_release: None,
            to: to[0],
            to_ports: to.to_vec(),
            to_release: None,
            at: "2026-01-01T00:00:00Z".into(),
            reason: crate::wire::Reason::Manual,
            id: "s".into(),
        };
        let told = |message: &str, from: &[u16], to: &[u16]| {
            let switch = Some(switch(from, to));
            switched(&Switched { success: true, message: message.into(), switch, warning: None }, to)
        };
        assert_eq!(told("Switched to port 2", &[1, 2], &[2]), "Switched to port 2, was ports 1, 2");
        assert_eq!(told("Switched to ports 3, 4", &[1], &[3, 4]), "Switched to ports 3, 4, was port 1");
        assert_eq!(told("Port 2 is live already", &[1, 2], &[2]), "Port 2 is live already");
        let deployed = |from: &[u16], to: &[u16]| {
            stripped(moved(&Moved {
                success: true,
                message: String::new(),
                release: "v2".into(),
                outcome: Outcome::Live,
                switch: Some(switch(from, to)),
                already_live: false,
                cancelled: None,
                warning: None,
            }))
        };
        assert_eq!(deployed(&[1, 2], &[3, 4]), "v2 is live on ports 3, 4, was ports 1, 2");
        assert_eq!(deployed(&[1, 2], &[3]), "v2 is live on port 3, was ports 1, 2");
    }

    #[test]
    fn log_lines_are_harmless() {
        let line = LogLine {
            at: "2026-01-01T00:00:00.000Z".into(),
            release: "v1".into(),
            replica: 0,
            process: None,
            stream: Stream::Stderr,
            line: "a\rb".into(),
        };
        let head = "2026-01-01T00:00:00.000Z v1 err";
        let told = |lines: &[LogLine]| stripped(log_lines(lines, have_several(lines)));
        assert_eq!(told(std::slice::from_ref(&line)), format!("{head} a\u{fffd}b\n"));
        let step = LogLine { process: Some("before".into()), line: "c".into(), ..line.clone() };
        let expected = format!("{head} before| c\n{head} a\u{fffd}b\n");
        assert_eq!(told(&[step, line.clone()]), expected);
        let worker = LogLine { process: Some("worker".into()), line: "c".into(), ..line.clone() };
        let second = LogLine { replica: 1, line: "b".into(), ..line.clone() };
        let lines = [("0", "a\u{fffd}b"), ("1", "b"), ("worker.0", "c")];
        let expected: String = lines.iter().map(|(who, text)| format!("{head} {who}| {text}\n")).collect();
        assert_eq!(told(&[line, second, worker]), expected);
    }

    #[test]
    fn a_reload_tells_what_changed() {
        let answer = Reloaded {
            success: true,
            message: "configuration loaded".into(),
            changed: vec!["health.path".into(), "app.command".into()],
            apps: Vec::new(),
        };
        let expected = "configuration loaded\n  changed  health.path, app.command";
        assert_eq!(reloaded(&answer), expected);
        let app = |app: &str, change, why: Option<&str>| AppReload {
            app: app.into(),
            change,
            why: why.map(str::to_owned),
        };
        let apps = vec![
            app("api", AppChange::Changed, Some("hosts")),
            app("shop", AppChange::Refused, Some("shop.toml:1:1 no\nshop.toml:2:1 no")),
            app("web", AppChange::Added, None),
        ];
        let several = Reloaded { changed: Vec::new(), apps, ..answer };
        let expected = "configuration loaded\n  changed  api: hosts\n  refused  shop: shop.toml:1:1 no\n           \
                        shop.toml:2:1 no\n  added    web";
        assert_eq!(stripped(reloaded(&several)), expected);
    }
}
