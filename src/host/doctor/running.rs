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

/// Whether an instance runs as systemd believes, and serves.
pub(super) fn running(row: &InstanceRow) -> Check {
    let name = &row.name;
    let active = row.unit.as_ref().map_or("", |unit| unit.active.as_str());
    let logs = format!("portok logs {name}");
    match (active, row.phase) {
        (_, Some(Phase::Failed)) => bad(
            "instance",
            format!("`{name}` runs, its app has failed"),
            format!("portok status {name}; {logs}"),
        ),
        (_, Some(Phase::Unhealthy)) => bad(
            "instance",
            format!("`{name}` runs, its app fails its probes"),
            format!("portok status {name}; {logs}"),
        ),
        (_, Some(Phase::Unstable)) => warning(
            "instance",
            format!("`{name}` runs, its app crashed lately"),
            format!("portok status {name}; {logs}"),
        ),
        (_, Some(Phase::Empty)) => {
            let hint = format!("portok deploy --instance {name}, or portok switch PORT --instance {name}");
            warning("instance", format!("`{name}` runs, nothing is live"), hint)
        }
        (_, Some(phase)) => good("instance", format!("`{name}` runs and is {}", phase.as_str())),
        (_, None) if row.unit.as_ref().is_some_and(|unit| unit.app_alone) => bad(
            "instance",
            format!("the daemon of `{name}` is gone, its app runs on without it"),
            format!("{logs}; then portok start {name}"),
        ),
        ("failed", None) => {
            bad("instance", format!("`{name}` has failed"), format!("{logs}; then portok start {name}"))
        }
        ("" | "inactive", None) => down(row),
        (_, None) => warning(
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
            ("active", Some(Phase::Empty), CheckVerdict::Warning),
            ("active", None, CheckVerdict::Warning),
            ("failed", None, CheckVerdict::Bad),
            // Enabled, and nobody serves it.
            ("inactive", None, CheckVerdict::Bad),
            // Started by somebody else.
            ("inactive", Some(Phase::Settled), CheckVerdict::Good),
        ];
        for (active, phase, verdict) in table {
            let check = running(&row(active, phase));
            assert_eq!(check.verdict, verdict, "{active} {phase:?}: {check:?}");
            assert_eq!(check.hint.is_none(), verdict == CheckVerdict::Good, "{check:?}");
        }
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
