//! `portok status`: everything an operator needs at a glance.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::lines::{write_problem, write_row};
use super::targets;
use super::words::{BUSY, DIM, STRONG, ago, count, left, movement, paint, phase_style, plain, since};
use crate::wire::{
    Phase, RedisStatus, ReleaseStatus, Replicas, ScaleStatus, Standing, Status, StepStatus, Traffic,
};

/// The overview: first what is wrong, then the releases by role, then what is in progress.
pub(crate) fn status(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    let style = phase_style(status.phase);
    let app = status.app.as_ref().map(|app| format!("/{app}")).unwrap_or_default();
    _ = writeln!(
        text,
        "{} {} is {} on {}  {}",
        paint(style, "●"),
        paint(STRONG, plain(&format!("{}{app}", status.instance))),
        paint(style, status.phase.as_str()),
        plain(&status.listen),
        paint(DIM, format_args!("portok {}, pid {}", plain(&status.version), status.pid)),
    );
    let failing = match status.health.consecutive_fails {
        // Targets are named one by one.
        _ if !status.targets.is_empty() => None,
        0 => None,
        1 => Some("its last probe failed".to_owned()),
        fails => Some(format!("its last {fails} probes failed")),
    };
    let last = |what: &str, at: Option<&str>| match at {
        Some(at) => format!("{what}, {}", ago(at, now)),
        None => what.to_owned(),
    };
    let crash = status.last_exit.as_ref().map(|exit| format!("`{}`: {}", exit.release, exit.exit));
    for (what, problem) in [
        ("live release unhealthy", &failing),
        ("configuration not loaded", &status.config.error),
        ("state cannot be written, deploys are refused", &status.state_error),
        (&last("last failure", status.last_failure_at.as_deref()), &status.last_failure),
        ("Redis", &status.redis.as_ref().and_then(redis_trouble)),
        (&last("last crash", status.last_exit.as_ref().map(|exit| exit.at.as_str())), &crash),
    ] {
        if let Some(problem) = problem {
            write_problem(&mut text, what, problem);
        }
    }
    targets::write_problems(&mut text, status);
    if status.targets.is_empty() {
        write_role(&mut text, "live", status.live.as_ref(), now);
        if status.phase == Phase::Idle {
            write_row(&mut text, "replicas", "none runs: the next request starts one");
        } else if let Some(Replicas { ready, wanted }) = status.replicas {
            write_row(&mut text, "replicas", &format!("{ready} of {wanted} ready"));
        }
        if let Some(scale) = &status.scale {
            write_row(&mut text, "scaled", &scaled(scale, status.candidate.is_some()));
        }
    } else {
        targets::write(&mut text, status);
    }
    if status.candidate.is_some() {
        write_role(&mut text, "candidate", status.candidate.as_ref(), now);
    }
    if status.previous.is_some() {
        write_role(&mut text, "previous", status.previous.as_ref(), now);
    }
    let mut row = |name: &str, value: String| write_row(&mut text, name, &value);
    if let Some(rest) = status.watch_until.as_deref().and_then(|until| left(until, now)) {
        let may_follow = match status.previous {
            Some(_) => "a rollback may follow",
            None => "there is nothing to go back to",
        };
        row("watching", format!("{rest} left, {may_follow}"));
    }
    match status.traffic {
        Traffic::Open => (),
        Traffic::Held => row("requests", "wait: they are held".to_owned()),
        Traffic::Maintenance => row("requests", "are answered by portok itself: maintenance".to_owned()),
    }
    for (name, standing) in [("paused", &status.paused), ("frozen", &status.frozen)] {
        if let Some(Standing { by, note, until, .. }) = standing {
            let until = until.as_deref().and_then(|until| left(until, now));
            let until = until.map(|rest| format!(", {rest} left")).unwrap_or_default();
            let note = note.as_ref().map(|note| format!(": {}", plain(note))).unwrap_or_default();
            row(name, format!("by {}{until}{note}", plain(by)));
        }
    }
    if status.config.pending {
        row("pending", "an edit of [app] waits for its deploy".to_owned());
    }
    if !status.quarantined.is_empty() {
        let releases: Vec<_> = status.quarantined.iter().map(|release| plain(release)).collect();
        row("quarantine", format!("{}, taken with --force alone", releases.join(", ")));
    }
    if let Some(rest) = status.drain_until.as_deref().and_then(|until| left(until, now)) {
        row("draining", format!("{rest} left at most"));
    }
    if let Some(switch) = &status.last_switch {
        let reason = switch.reason.as_str();
        row("switched", format!("{}, {}, {reason}", movement(switch), ago(&switch.at, now)));
    }
    let loaded = ago(&status.config.loaded_at, now);
    match &status.config.file {
        Some(file) => row("config", format!("{}, loaded {loaded}", plain(file))),
        None => row("config", format!("the environment, loaded {loaded}")),
    }
    if let Some(why) = status.config.app_in_force.as_ref().and_then(|app| app.why.as_deref()) {
        let waits = why == "pending" && status.frozen.is_some();
        match status.config.file {
            Some(_) => row(
                if status.app.is_some() { "its table" } else { "[app]" },
                format!(
                    "is not what is live: {}",
                    if waits { WAITS_FOR_THAW.to_owned() } else { not_in_force(why) }
                ),
            ),
            None => row("app", format!("what the daemon was started with is not live: {}", not_live(why))),
        }
    }
    text
}

/// What is wrong with Redis as a source of apps.
pub(super) fn redis_trouble(redis: &RedisStatus) -> Option<String> {
    let away = (!redis.connected).then(|| {
        let why = redis.error.as_deref().unwrap_or("no answer yet");
        format!("{}: {why}; the last table serves, {} hosts", redis.url, redis.hosts)
    });
    let failed = redis.error.clone().filter(|_| redis.connected);
    let held = redis.held.as_ref().map(|held| {
        let (hosts, of, looks, needed) = (held.hosts, held.of, held.looks, held.needed);
        format!(
            "{hosts} of {of} hosts are gone there; they serve until it has said so {needed} times, a minute \
             apart ({looks} so far)"
        )
    });
    let malformed =
        (redis.malformed > 0).then(|| format!("{} lists are malformed: portok apps", redis.malformed));
    let left_out = (redis.left_out > 0).then(|| format!("there is no room for {} hosts", redis.left_out));
    let long = redis.long_pass_ms.map(|millis| {
        let time = humantime::format_duration(Duration::from_millis(millis));
        format!("a pass over all keys there takes {time}, longer than redis.refresh")
    });
    let all: Vec<_> = [away, failed, held, malformed, left_out, long].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Why the app that a daemon without a file was started with is not live.
fn not_live(why: &str) -> String {
    match why {
        "aborted" => "its deploy came to nothing; `portok deploy` tries it again".to_owned(),
        "replaced" => "something else was made live since".to_owned(),
        other => not_in_force(other),
    }
}

/// Why the live release is not what `[app]` says, while deploys are frozen.
const WAITS_FOR_THAW: &str = "deploys are frozen, and `portok thaw` deploys it";

/// Why the live release is not what `[app]` says.
fn not_in_force(why: &str) -> String {
    match why {
        "pending" => "it is about to be deployed".to_owned(),
        "quarantined" => "its content was rolled back; `portok deploy` takes it in spite of that".to_owned(),
        "aborted" => {
            "its deploy came to nothing, and is not tried again by itself: edit it, or `portok deploy`"
                .to_owned()
        }
        "deploy_on_change" => "it waits for `portok deploy` (deploy_on_change = false)".to_owned(),
        "replaced" => "something else was made live since; its next edit replaces that".to_owned(),
        "switched" => {
            "it was switched to other targets; its next edit of `targets` replaces those".to_owned()
        }
        other => plain(other),
    }
}

/// What an operator has asked for: `to 2 by root; the file says 3`.
fn scaled(scale: &ScaleStatus, deploys: bool) -> String {
    let bounds = |min: u16, max: u16| if min == max { max.to_string() } else { format!("{min}..{max}") };
    let by = scale.by.as_ref().map(|by| format!(" by {}", plain(by))).unwrap_or_default();
    let when = match (scale.waits, deploys) {
        (false, _) => "",
        (true, true) => ", once the deploy under way has ended",
        (true, false) => ", once the watch window has passed",
    };
    let (to, file) = (bounds(scale.min, scale.max), bounds(scale.file.min, scale.file.max));
    format!("to {to}{by}{when}; the file says {file}")
}

/// What a deploy waits for: `runs app.before, pid 4121, for 3m 2s`.
fn step_under_way(step: &StepStatus, now: SystemTime) -> String {
    let pid = step.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
    let time = step.started_at.as_deref().and_then(|at| since(at, now));
    let time = time.map(|time| format!(", for {time}")).unwrap_or_default();
    format!("runs app.{}{pid}{time}", plain(&step.step))
}

fn write_role(text: &mut String, name: &str, release: Option<&ReleaseStatus>, now: SystemTime) {
    let Some(release) = release else {
        return write_row(text, name, "nothing");
    };
    let mut facts = vec![paint(STRONG, plain(&release.release))];
    match (release.port, release.pid) {
        (Some(port), Some(pid)) => facts.push(format!("port {port}, pid {pid}")),
        (Some(port), None) => facts.push(format!("port {port}")),
        (None, Some(pid)) => facts.push(format!("pid {pid}")),
        (None, None) if release.step.is_some() => {}
        (None, None) => facts.push("no process".to_owned()),
    }
    if let (Some(up), Some(_)) = (release.started_at.as_deref().and_then(|at| since(at, now)), release.pid) {
        facts.push(format!("up {up}"));
    }
    facts.extend(release.step.as_ref().map(|step| paint(BUSY, step_under_way(step, now))));
    if release.restarts > 0 {
        facts.push(paint(BUSY, count(u64::from(release.restarts), "restart")));
    }
    if release.inflight > 0 || name == "live" {
        facts.push(format!("{} in flight", release.inflight));
    }
    write_row(text, name, &facts.join("  "));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::{AppInForce, ConfigStatus, HeldRemoval, LastExit, Reason, Switch};

    pub(crate) fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T12:00:00Z").unwrap()
    }

    fn stripped(answer: &Status) -> String {
        anstream::adapter::strip_str(&status(answer, now())).to_string()
    }

    pub(crate) fn empty() -> Status {
        Status {
            active_port: None,
            drain_until: None,
            last_switch: None,
            instance: "api".into(),
            app: None,
            phase: Phase::Empty,
            live: None,
            candidate: None,
            previous: None,
            watch_until: None,
            config: ConfigStatus {
                file: None,
                loaded_at: "2026-01-01T11:00:00Z".into(),
                error: None,
                app_in_force: None,
                pending: false,
            },
            version: "0.1.0".into(),
            listen: "0.0.0.0:3000".into(),
            pid: 77,
            state_error: None,
            last_failure: None,
            last_failure_at: None,
            last_exit: None,
            health: crate::wire::HealthMetrics::default(),
            quarantined: Vec::new(),
            replicas: None,
            scale: None,
            targets: Vec::new(),
            traffic: Traffic::Open,
            paused: None,
            frozen: None,
            plan: None,
            redis: None,
        }
    }

    pub(crate) fn release(release: &str, port: u16, pid: Option<u32>) -> ReleaseStatus {
        let started_at = Some("2026-01-01T08:48:00Z".to_owned());
        ReleaseStatus {
            release: release.into(),
            port: Some(port),
            pid,
            started_at,
            restarts: 0,
            inflight: 0,
            step: None,
        }
    }

    #[test]
    fn nothing_live_is_said() {
        let expected = "\
● api is empty on 0.0.0.0:3000  portok 0.1.0, pid 77
  live       nothing
  config     the environment, loaded 1h 0m ago
";
        assert_eq!(stripped(&empty()), expected);
        let one_of_several = Status { app: Some("web".into()), ..empty() };
        assert!(stripped(&one_of_several).starts_with("● api/web is empty"));
    }

    #[test]
    fn all_roles_and_what_goes_on_are_shown() {
        let mut answer = empty();
        answer.phase = Phase::Watching;
        answer.live = Some(ReleaseStatus { restarts: 2, inflight: 3, ..release("v2", 41873, Some(4121)) });
        answer.candidate = Some(release("v3", 41999, Some(4188)));
        answer.previous = Some(ReleaseStatus { inflight: 1, ..release("port-8081", 8081, None) });
        answer.watch_until = Some("2026-01-01T12:00:41Z".into());
        answer.drain_until = Some("2026-01-01T12:00:11.900Z".into());
        answer.last_switch = Some(Switch {
            from: Some(8081),
            from_release: Some("port-8081".into()),
            to: 41873,
            from_ports: Vec::new(),
            to_ports: Vec::new(),
            to_release: Some("v2".into()),
            at: "2026-01-01T11:59:41Z".into(),
            reason: Reason::Deploy,
            id: "s1".into(),
        });
        answer.config.file = Some("/etc/portok/api.toml".into());
        let expected = "\
● api is watching on 0.0.0.0:3000  portok 0.1.0, pid 77
  live       v2  port 41873, pid 4121  up 3h 12m  2 restarts  3 in flight
  candidate  v3  port 41999, pid 4188  up 3h 12m
  previous   port-8081  port 8081  1 in flight
  watching   41s left, a rollback may follow
  draining   11s left at most
  switched   port 8081 → v2 (port 41873), 19s ago, deploy
  config     /etc/portok/api.toml, loaded 1h 0m ago
";
        assert_eq!(stripped(&answer), expected);
    }

    #[test]
    fn it_is_said_who_has_asked_for_another_number_than_the_file_says() {
        let mut answer = empty();
        answer.replicas = Some(Replicas { ready: 5, wanted: 5 });
        let file = crate::wire::Bounds { min: 1, max: 5 };
        let mut scale = ScaleStatus { min: 2, max: 2, by: Some("root".into()), file, waits: true };
        answer.scale = Some(scale.clone());
        let told = stripped(&answer);
        let expected = "  scaled     to 2 by root, once the watch window has passed; the file says 1..5\n";
        assert!(told.contains(expected), "{told}");
        (scale.by, scale.waits) = (None, false);
        answer.scale = Some(scale);
        assert!(stripped(&answer).contains("  scaled     to 2; the file says 1..5\n"));
    }

    #[test]
    fn the_step_that_a_deploy_waits_for_is_named() {
        let mut answer = empty();
        let step = StepStatus {
            step: "before".into(),
            pid: Some(4121),
            started_at: Some("2026-01-01T11:59:18Z".into()),
        };
        let candidate = ReleaseStatus { step: Some(step), ..release("v3", 41999, Some(4188)) };
        answer.candidate = Some(ReleaseStatus { port: None, pid: None, ..candidate.clone() });
        let told = stripped(&answer);
        assert!(told.contains("  candidate  v3  runs app.before, pid 4121, for 42s\n"), "{told}");
        answer.candidate = Some(candidate);
        let told = stripped(&answer);
        assert!(told.contains("port 41999, pid 4188  up 3h 12m  runs app.before, pid 4121"), "{told}");
    }

    #[test]
    fn of_an_idle_app_no_request_is_said_to_wait() {
        let mut answer = empty();
        answer.phase = Phase::Idle;
        let told = stripped(&answer);
        assert!(told.contains("  replicas   none runs: the next request starts one\n"), "{told}");
        assert!(!told.contains("requests "), "{told}");
    }

    #[test]
    fn a_first_release_is_not_said_to_be_rolled_back() {
        let mut answer = empty();
        answer.watch_until = Some("2026-01-01T12:00:41Z".into());
        let told = stripped(&answer);
        assert!(told.contains("watching   41s left, there is nothing to go back to\n"), "{told}");
    }

    #[test]
    fn what_is_in_quarantine_is_named() {
        let mut answer = empty();
        answer.quarantined = vec!["v3".into(), "v2".into()];
        let told = stripped(&answer);
        assert!(told.contains("  quarantine v3, v2, taken with --force alone\n"), "{told}");
    }

    #[test]
    fn where_there_is_no_file_nobody_is_sent_to_edit_one() {
        let mut answer = empty();
        for why in ["pending", "aborted", "quarantined", "replaced"] {
            answer.config.app_in_force = Some(AppInForce { in_force: false, why: Some(why.into()) });
            let told = stripped(&answer);
            assert!(told.contains("what the daemon was started with is not live"), "{told}");
            assert!(!told.contains("[app]") && !told.contains("edit"), "{told}");
        }
    }

    #[test]
    fn what_is_frozen_is_not_about_to_be_deployed() {
        let mut answer = empty();
        answer.config.file = Some("/etc/portok/api.toml".into());
        answer.config.app_in_force = Some(AppInForce { in_force: false, why: Some("pending".into()) });
        let at = "2026-01-01T11:00:00Z".to_owned();
        answer.frozen = Some(Standing { by: "root".into(), note: None, at, until: None });
        let told = stripped(&answer);
        assert!(
            told.contains("[app]      is not what is live: deploys are frozen, and `portok thaw`"),
            "{told}"
        );
        assert!(!told.contains("about to be deployed"), "{told}");
    }

    #[test]
    fn an_app_that_is_not_in_force_says_why_and_what_to_do() {
        let mut answer = empty();
        answer.config.file = Some("/etc/portok/api.toml".into());
        let told = |answer: &Status| stripped(answer).lines().last().unwrap_or_default().trim().to_owned();
        answer.config.app_in_force = Some(AppInForce { in_force: true, why: None });
        assert!(told(&answer).starts_with("config "));
        for (why, part) in [
            ("pending", "about to be deployed"),
            ("aborted", "edit it, or `portok deploy`"),
            ("quarantined", "was rolled back"),
            ("deploy_on_change", "waits for `portok deploy`"),
            ("replaced", "something else was made live"),
            ("invented_later", "invented_later"),
        ] {
            answer.config.app_in_force = Some(AppInForce { in_force: false, why: Some(why.into()) });
            assert!(told(&answer).contains(part), "{why}: {}", told(&answer));
        }
    }

    #[test]
    fn what_is_wrong_stands_on_top() {
        let mut answer = empty();
        answer.config.error = Some("api.toml:3:1 listen: bad\napi.toml:4:1 lsten: unknown".into());
        answer.state_error = Some("/var/lib/portok/api.json: no space left on device".into());
        answer.last_failure = Some("`v1` exited with status 1".into());
        answer.last_failure_at = Some("2026-01-01T11:58:00Z".into());
        answer.last_exit = Some(LastExit {
            release: "v0".into(),
            exit: "exit status 2".into(),
            at: "2026-01-01T11:59:50Z".into(),
        });
        let lines: Vec<_> = stripped(&answer).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "  ! configuration not loaded: api.toml:3:1 listen: bad");
        assert_eq!(lines[2], "    api.toml:4:1 lsten: unknown");
        assert!(lines[3].starts_with("  ! state cannot be written, deploys are refused: /var/lib"));
        assert_eq!(lines[4], "  ! last failure, 2m 0s ago: `v1` exited with status 1");
        assert_eq!(lines[5], "  ! last crash, 10s ago: `v0`: exit status 2");
    }

    #[test]
    fn what_is_wrong_with_redis_is_said() {
        let redis = RedisStatus {
            url: "redis://h:6379/0".into(),
            connected: true,
            since: String::new(),
            error: None,
            hosts: 20,
            left_out: 0,
            malformed: 0,
            malformed_lists: Vec::new(),
            held: None,
            long_pass_ms: None,
        };
        let shown = |redis| stripped(&Status { redis: Some(redis), ..empty() });
        assert!(!shown(redis.clone()).contains("Redis"));
        let held = Some(HeldRemoval { hosts: 19, of: 20, looks: 1, needed: 3 });
        let text = shown(RedisStatus { held, malformed: 2, ..redis.clone() });
        assert!(text.contains("Redis: 19 of 20 hosts are gone there") && text.contains("2 lists"), "{text}");
        let text = shown(RedisStatus { long_pass_ms: Some(75_000), ..redis.clone() });
        assert!(text.contains("Redis: a pass over all keys there takes 1m 15s, longer than"), "{text}");
        let text = shown(RedisStatus { connected: false, error: Some("refused".into()), ..redis });
        assert!(text.contains("redis://h:6379/0: refused; the last table serves, 20 hosts"), "{text}");
    }

    #[test]
    fn a_daemon_cannot_steer_the_terminal() {
        let mut answer = empty();
        answer.instance = "a\x1b[2Jb\r".into();
        assert!(status(&answer, now()).lines().next().unwrap().contains("ab\u{fffd}"));
    }
}
