//! The checks of instances by their daemons: whether they run, their versions and their limits.

use std::fs;
use std::path::PathBuf;

use super::super::list::InstanceRow;
use super::super::places::Places;
use super::super::{installed, unit};
use super::{Check, CheckVerdict, bad, good, warning};
use crate::wire::Phase;

/// The open files that a daemon should be allowed. Each client takes up to two.
const OPEN_FILES: u64 = 8192;

/// Whether an instance runs as systemd believes, and serves; of several apps, each by itself.
pub(super) fn running(row: &InstanceRow) -> Vec<Check> {
    let mut checks = Vec::new();
    match &row.apps {
        None => {
            checks
                .push(row.phase.map_or_else(|| not_answering(row), |phase| serving(&row.name, phase, None)));
        }
        Some(apps) => checks.extend(apps.iter().map(|app| {
            let error = app.error.as_ref().map(|error| error.lines().collect::<Vec<_>>().join("; "));
            serving(&format!("{}/{}", row.name, app.app), app.phase, error.as_deref())
        })),
    }
    // What the files show too is said of them.
    checks.extend(row.errors.iter().filter(|_| row.unseen).map(|error| {
        let text = format!("`{}` runs, and its configuration is not in force: {error}", row.name);
        bad("configuration", text, "mend it; the daemon loads it by itself")
    }));
    checks
}

/// Whether the app called `name` serves, and is configured as its file says.
fn serving(name: &str, phase: Phase, error: Option<&str>) -> Check {
    let logs = format!("portok status {name}; portok logs {name}");
    match (phase, error) {
        (Phase::Failed, None) => bad("instance", format!("`{name}` runs, its app has failed"), logs),
        (Phase::Unhealthy, None) => bad("instance", format!("`{name}` runs, its app fails its probes"), logs),
        (_, Some(error)) => {
            let text = format!("`{name}` is {}, and not as it should be: {error}", phase.as_str());
            bad("instance", text, logs)
        }
        (Phase::Degraded, None) => warning(
            "instance",
            format!("`{name}` runs, fewer of its app's targets or replicas are ready than are wanted"),
            logs,
        ),
        (Phase::Unstable, None) => {
            warning("instance", format!("`{name}` runs, its app crashed lately"), logs)
        }
        (Phase::Empty, None) => {
            let hint = format!("portok deploy --instance {name}, or portok switch PORT --instance {name}");
            warning("instance", format!("`{name}` runs, nothing is live"), hint)
        }
        (phase, None) => good("instance", format!("`{name}` runs and is {}", phase.as_str())),
    }
}

/// An instance whose daemon does not answer.
fn not_answering(row: &InstanceRow) -> Check {
    let name = &row.name;
    let active = row.unit.as_ref().map_or("", |unit| unit.active.as_str());
    let logs = format!("portok logs {name}");
    match active {
        _ if row.unit.as_ref().is_some_and(|unit| unit.app_alone) => bad(
            "instance",
            format!("the daemon of `{name}` is gone, its app runs on without it"),
            format!("{logs}; then portok start {name}"),
        ),
        "failed" => {
            bad("instance", format!("`{name}` has failed"), format!("{logs}; then portok start {name}"))
        }
        "" | "inactive" => down(row),
        _ => warning(
            "instance",
            format!("`{name}` is {active}, but does not answer"),
            format!("use sudo, or see {logs}"),
        ),
    }
}

/// An instance whose daemon does not run although it has not failed.
fn down(row: &InstanceRow) -> Check {
    let name = &row.name;
    match &row.unit {
        Some(unit) if unit.enabled => {
            let text = format!("`{name}` is enabled and does not run: nobody serves it");
            bad("instance", text, format!("portok start {name}; why it ended: portok logs {name}"))
        }
        Some(_) => {
            let hint = format!("portok enable {name} --now starts it, now and at every boot");
            warning("instance", format!("`{name}` does not run"), hint)
        }
        None => warning("instance", format!("`{name}` does not run"), format!("portokd --instance {name}")),
    }
}

/// A daemon that still runs an older version than the installed one.
pub(super) fn outdated(row: &InstanceRow) -> Option<Check> {
    let (name, own) = (&row.name, env!("CARGO_PKG_VERSION"));
    let running = row.version.as_ref().filter(|version| *version != own)?;
    let text = format!("`{name}` still runs portokd {running}, installed is {own}");
    Some(warning("version", text, format!("portok upgrade --instance {name} (no connection is lost)")))
}

/// Enough open files: of running daemons by the kernel's limit; if none runs, by the unit's.
pub(super) fn open_files(places: &Places, rows: &[InstanceRow]) -> Vec<Check> {
    let hint = format!("systemctl edit {}: [Service] LimitNOFILE=65536", unit::SERVICE_NAME);
    let mut checks = Vec::new();
    for row in rows {
        let Some(limit) = row.daemon_pid.and_then(limit_of) else { continue };
        checks.push(judge_limit(&format!("`{}` may open", row.name), limit, &hint));
    }
    if checks.is_empty() {
        let text = installed::effective(places, unit::SERVICE_NAME).ok().flatten().map(|unit| unit.text);
        let said = text.as_deref().and_then(unit::open_files);
        // A unit without a limit has systemd's default: portokd raises its own limit to the hard
        // one, 524288.
        match said.and_then(|said| said.rsplit(':').next()?.parse().ok()) {
            Some(limit) => checks.push(judge_limit("the unit allows", limit, &hint)),
            None => checks.push(good(
                "descriptors",
                "systemd's own limit of open files, which portokd uses up to the hard one",
            )),
        }
    }
    checks
}

fn judge_limit(subject: &str, limit: u64, hint: &str) -> Check {
    if limit >= OPEN_FILES {
        return good("descriptors", format!("{subject} {limit} files"));
    }
    let text = format!("{subject} {limit} files, too few for many clients");
    Check { check: "descriptors", verdict: CheckVerdict::Warning, text, hint: Some(hint.to_owned()) }
}

/// The soft limit of open files of a process (proc(5)).
fn limit_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/limits"))).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::list::UnitRow;
    use super::*;
    use crate::wire::{AppRow, AppSource};

    fn row(active: &str, phase: Option<Phase>) -> InstanceRow {
        let unit = Some(UnitRow { active: active.into(), enabled: true, app_alone: false });
        InstanceRow { name: "api".into(), unit, phase, ..InstanceRow::default() }
    }

    #[test]
    fn an_instance_is_judged_by_systemd_and_by_itself() {
        let table = [
            ("active", Some(Phase::Settled), CheckVerdict::Good),
            ("active", Some(Phase::Failed), CheckVerdict::Bad),
            ("active", Some(Phase::Unhealthy), CheckVerdict::Bad),
            ("active", Some(Phase::Unstable), CheckVerdict::Warning),
            ("active", Some(Phase::Degraded), CheckVerdict::Warning),
            ("active", Some(Phase::Empty), CheckVerdict::Warning),
            ("active", None, CheckVerdict::Warning),
            ("failed", None, CheckVerdict::Bad),
            // Enabled, and nobody serves it.
            ("inactive", None, CheckVerdict::Bad),
            // Started by somebody else.
            ("inactive", Some(Phase::Settled), CheckVerdict::Good),
        ];
        for (active, phase, verdict) in table {
            let checks = running(&row(active, phase));
            let [check] = &checks[..] else { panic!("{checks:?}") };
            assert_eq!(check.verdict, verdict, "{active} {phase:?}: {check:?}");
            assert_eq!(check.hint.is_none(), verdict == CheckVerdict::Good, "{check:?}");
        }
    }

    #[test]
    fn each_of_several_apps_is_judged_by_itself() {
        let app = |app: &str, phase, error: Option<&str>| AppRow {
            app: app.into(),
            hosts: Vec::new(),
            paths: Vec::new(),
            listen: Vec::new(),
            phase,
            live: None,
            replicas: None,
            label: None,
            rps: Some(0.0),
            error_ratio: None,
            p99_ms: None,
            source: AppSource::File,
            error: error.map(str::to_owned),
        };
        let apps = vec![
            app("a", Phase::Settled, None),
            app("b", Phase::Failed, None),
            app("c", Phase::Settled, Some("c.toml:1:1 no")),
        ];
        let checks = running(&InstanceRow { apps: Some(apps), ..row("active", None) });
        let verdicts: Vec<_> = checks.iter().map(|check| check.verdict).collect();
        assert_eq!(verdicts, [CheckVerdict::Good, CheckVerdict::Bad, CheckVerdict::Bad]);
        assert!(checks[1].text.contains("`api/b`") && checks[2].text.contains("c.toml:1:1 no"), "{checks:?}");
    }

    #[test]
    fn what_only_the_daemon_sees_is_told() {
        let row =
            InstanceRow { errors: vec!["edge.toml: gone".into()], ..row("active", Some(Phase::Settled)) };
        assert_eq!(running(&row).len(), 1, "the files are checked by themselves");
        let checks = running(&InstanceRow { unseen: true, apps: Some(Vec::new()), ..row });
        let [check] = &checks[..] else { panic!("{checks:?}") };
        assert!(check.verdict == CheckVerdict::Bad && check.text.contains("edge.toml: gone"), "{check:?}");
    }

    #[test]
    fn a_daemon_of_another_version_is_told() {
        let of = |version: &str| InstanceRow {
            version: Some(version.into()),
            ..row("active", Some(Phase::Settled))
        };
        assert_eq!(outdated(&of(env!("CARGO_PKG_VERSION"))), None);
        assert_eq!(outdated(&row("inactive", None)), None);
        let check = outdated(&of("0.0.1")).unwrap();
        assert_eq!(check.verdict, CheckVerdict::Warning);
        assert!(check.hint.unwrap().contains("portok upgrade --instance api"));
    }

    #[test]
    fn few_descriptors_are_a_warning() {
        assert_eq!(judge_limit("x may open", 1024, "h").verdict, CheckVerdict::Warning);
        assert_eq!(judge_limit("x may open", 524_288, "h").verdict, CheckVerdict::Good);
        assert!(limit_of(std::process::id()).is_some());
    }
}
