//! `portok doctor`: checks this machine, and advises what to do where something is wrong.
//!
//! Each function checks one thing. Nothing is changed. A check that needs rights which this user
//! lacks says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::User;
use serde::Serialize;

use super::daemons::Daemons;
use super::failure::HostFailure;
use super::instances::{self, Instance, Reading};
use super::list::{self, InstanceRow};
use super::places::Places;
use super::systemctl::{Trouble, systemctl};
use super::{files, harden, installed, named, unit};
use crate::plain::describe_io;
use crate::wire::Phase;

/// The open files that a daemon should be allowed. Each client takes up to two.
const OPEN_FILES: u64 = 8192;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was checked: `version`, `unit`, `folder`, `instance`…
    pub(crate) check: &'static str,
    pub(crate) verdict: CheckVerdict,
    /// What was found.
    pub(crate) text: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// The verdict of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    Good,
    /// It works, but the operator should know about it.
    Warning,
    Bad,
}

fn good(check: &'static str, text: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Good, text: text.into(), hint: None }
}

fn warning(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Warning, text: text.into(), hint: Some(hint.into()) }
}

fn bad(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Bad, text: text.into(), hint: Some(hint.into()) }
}

/// A check that could not be made.
fn unknown(check: &'static str, failure: HostFailure) -> Check {
    Check { check, verdict: CheckVerdict::Bad, text: failure.message, hint: failure.hint }
}

/// Makes all checks.
pub(crate) async fn doctor(places: &Places, daemons: &dyn Daemons) -> Vec<Check> {
    let mut checks = programs(places);
    checks.extend(unit_files(places));
    checks.push(systemd());
    checks.extend([folder("configurations", &places.config), folder("state", &places.state)]);
    let user = installed::user(places).ok().flatten();
    checks.extend(user.iter().flat_map(|user| shut_out(user, &[&places.config], 0o1)));
    match instances::all(places, Reading::Strict) {
        Ok(instances) => {
            checks
                .extend(instances.iter().flat_map(|instance| configuration(places, instance, user.as_ref())));
            checks.extend(instances.iter().filter_map(|instance| hardening(places, instance)));
            checks.extend(clashes(&instances));
        }
        Err(failure) => checks.push(unknown("configuration", failure)),
    }
    let rows = list::list(places, daemons).await.map(|listing| listing.rows).unwrap_or_default();
    checks.extend(rows.iter().map(running));
    checks.extend(rows.iter().filter_map(outdated));
    checks.extend(open_files(places, &rows));
    checks
}

/// portok, the portokd beside it and the portokd that systemd starts have the same version.
fn programs(places: &Places) -> Vec<Check> {
    let own = env!("CARGO_PKG_VERSION");
    let portokd = match installed::portokd_beside() {
        Ok(portokd) => portokd,
        Err(_) => {
            let hint = "install both programs of one version into one folder";
            return vec![bad("version", format!("portok {own} has no portokd beside it"), hint)];
        }
    };
    let mut programs = vec![portokd.clone()];
    let started = installed::effective(places, unit::SERVICE_NAME).ok().flatten();
    let started = started.and_then(|unit| unit::program(&unit.text));
    programs.extend(started.filter(|program| *program != portokd && program.is_file()));
    programs.iter().map(|program| version(program, own)).collect()
}

fn version(program: &Path, own: &str) -> Check {
    let shown = program.display();
    let said = match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => {
            let text = format!("{shown} cannot be run: {}", describe_io(&error));
            return bad("version", text, "install portok again");
        }
    };
    if said == format!("portokd {own}") {
        good("version", format!("portok and {shown} are of version {own}"))
    } else {
        let text = format!("portok is of version {own}, {shown} says {said:?}");
        bad("version", text, "install both programs of one version")
    }
}

/// The unit template exists once, and starts a program that exists.
fn unit_files(places: &Places) -> Vec<Check> {
    let unit = match installed::effective(places, unit::SERVICE_NAME) {
        Ok(Some(unit)) => unit,
        Ok(None) => return vec![bad("unit", format!("there is no {}", unit::SERVICE_NAME), "portok init")],
        Err(failure) => return vec![unknown("unit", failure)],
    };
    let shown = unit.path.display();
    let mut checks = vec![match unit::program(&unit.text) {
        Some(program) if is_executable(&program) => {
            good("unit", format!("{shown} starts {}", program.display()))
        }
        Some(program) => {
            let text = format!("{shown} starts {}, which is no program", program.display());
            bad("unit", text, "portok init (brings the unit up to date), or install portok again")
        }
        None => bad("unit", format!("{shown} starts nothing"), format!("rm {shown}; portok init")),
    }];
    let package = installed::packaged(places, unit::SERVICE_NAME).ok().flatten();
    if let Some(package) = package.filter(|package| package.path != unit.path) {
        let text = format!("{shown} hides the package's {}", package.path.display());
        let hint = format!(
            "portok init --force removes it, unless you want it so: then use a drop-in (systemctl edit {})",
            unit::SERVICE_NAME
        );
        checks.push(warning("unit", text, hint));
    }
    if let Ok(Some(user)) = installed::user(places) {
        checks.push(good("unit", format!("portokd runs as {}", user.name)));
    }
    checks
}

fn is_executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn systemd() -> Check {
    // It fails for every state but `running`.
    let hint = "start portokd --instance NAME by what runs this host";
    match systemctl(&["is-system-running", "--quiet"]) {
        Ok(_) => good("systemd", "systemd runs this host"),
        Err(trouble @ (Trouble::Missing | Trouble::NotRunning)) => bad("systemd", trouble.describe(), hint),
        // Another unit failed, or the machine is still starting. portok's own units are checked
        // below.
        Err(Trouble::Failed(_)) => match systemctl(&["show", "--property=Version"]) {
            Ok(_) => {
                good("systemd", "systemd runs this host (not all of its units are well: systemctl --failed)")
            }
            Err(trouble) => bad("systemd", trouble.describe(), hint),
        },
    }
}

fn folder(what: &'static str, path: &Path) -> Check {
    let shown = path.display();
    match files::distrust(path) {
        Ok(None) => good("folder", format!("{shown} for {what}")),
        Ok(Some((why, hint))) => bad("folder", format!("{shown}: {why}"), hint),
        Err(error) => bad("folder", format!("{shown}: {}", describe_io(&error)), "portok init"),
    }
}

/// The configuration is valid, what it names exists, and nobody else can read its secrets.
fn configuration(places: &Places, instance: &Instance, user: Option<&User>) -> Vec<Check> {
    let name = &instance.name;
    let mut checks = Vec::new();
    if let Some(closed) = instance.closed_file() {
        let text = format!("`{name}`: you may not read {}", closed.display());
        return vec![warning("configuration", text, "use sudo for the whole truth")];
    }
    match &instance.config {
        Ok(config) => {
            let missing = named::missing(config);
            if missing.is_empty() {
                checks.push(good("configuration", format!("`{name}`: {} is valid", instance.file_names())));
            }
            checks.extend(
                missing
                    .into_iter()
                    .map(|missing| bad("configuration", format!("`{name}`: {}", missing.text), missing.hint)),
            );
            let hint = format!("portokd --check --instance {name}");
            checks.extend(
                config
                    .warnings
                    .iter()
                    .map(|said| warning("configuration", format!("`{name}`: {said}"), hint.clone())),
            );
        }
        Err(errors) => checks.extend(errors.problems.iter().map(|problem| {
            bad(
                "configuration",
                format!("`{name}`: {problem}"),
                "correct it; a daemon that runs loads it by itself",
            )
        })),
    }
    let (token, toml) = (places.file(name, "token"), places.file(name, "toml"));
    checks.extend(user.iter().flat_map(|user| shut_out(user, &[&toml, &token], 0o4)));
    for file in instance.files.iter().chain([&token]) {
        let Ok(meta) = fs::metadata(file) else { continue };
        if meta.mode() & 0o007 != 0 {
            let text = format!(
                "`{name}`: everybody may read {} (mode {:04o})",
                file.display(),
                meta.mode() & 0o7777
            );
            checks.push(bad("configuration", text, format!("chmod o= {}", file.display())));
        }
    }
    checks
}

/// A daemon that starts no app has a hardened unit, and a daemon that starts one has none.
fn hardening(places: &Places, instance: &Instance) -> Option<Check> {
    let (name, config) = (&instance.name, instance.config.as_ref().ok()?);
    let path = harden::path(places, name);
    let shown = path.display();
    match (harden::fits(config), path.is_file()) {
        // Without the template there is no unit to harden; `unit_files` reports that.
        _ if installed::effective(places, unit::SERVICE_NAME).ok().flatten().is_none() => None,
        (true, true) => Some(good("unit", format!("`{name}` has a hardened unit: {shown}"))),
        (true, false) => Some(warning(
            "unit",
            format!("`{name}` starts no app, and its unit is not hardened: there is no {shown}"),
            format!("portok init; then portok restart {name}"),
        )),
        (false, true) => Some(warning(
            "unit",
            format!(
                "the app of `{name}` inherits what {shown} forbids, which was made for a daemon without one"
            ),
            format!("rm {shown}; systemctl daemon-reload; then portok restart {name}"),
        )),
        (false, false) => None,
    }
}

/// The files that portokd's user needs and may not use. (systemd itself reads `NAME.env`.)
fn shut_out(user: &User, paths: &[&Path], right: u32) -> Vec<Check> {
    let is_shut = |path: &Path| {
        let Ok(meta) = fs::metadata(path) else { return false };
        let bits = match () {
            () if meta.uid() == user.uid.as_raw() => meta.mode() >> 6,
            () if meta.gid() == user.gid.as_raw() => meta.mode() >> 3,
            () => meta.mode(),
        };
        bits & right == 0
    };
    let check = |path: &Path| {
        let text = format!("portokd runs as {}, who may not use {}", user.name, path.display());
        bad("configuration", text, format!("portok init --user {}", user.name))
    };
    paths.iter().filter(|path| is_shut(path)).map(|path| check(path)).collect()
}

/// No two instances have the same public port, and no instance's target is another's public port.
fn clashes(instances: &[Instance]) -> Vec<Check> {
    let mut listeners: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for instance in instances {
        if let Some(port) = instance.listen() {
            listeners.entry(port).or_default().push(&instance.name);
        }
    }
    let mut checks = Vec::new();
    for (port, names) in listeners.iter().filter(|(_, names)| names.len() > 1) {
        let text = format!("port {port} is the public port of {}", quoted(names));
        checks.push(bad("ports", text, format!("change `listen` of {}", quoted(&names[1..]))));
    }
    for instance in instances {
        let target = instance.config.as_ref().ok().and_then(|config| config.app.app.target);
        if let Some((port, names)) = target.and_then(|port| listeners.get_key_value(&port)) {
            let text =
                format!("`{}` passes on to port {port}, the public port of {}", instance.name, quoted(names));
            checks.push(bad("ports", text, format!("change the target of `{}`", instance.name)));
        }
    }
    if checks.is_empty() && !instances.is_empty() {
        checks.push(good("ports", "no two instances want one port"));
    }
    checks
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}

/// Whether an instance runs as systemd believes, and serves.
fn running(row: &InstanceRow) -> Check {
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
fn outdated(row: &InstanceRow) -> Option<Check> {
    let (name, own) = (&row.name, env!("CARGO_PKG_VERSION"));
    let running = row.version.as_ref().filter(|version| *version != own)?;
    let text = format!("`{name}` still runs portokd {running}, installed is {own}");
    Some(warning("version", text, format!("portok upgrade --instance {name} (no connection is lost)")))
}

/// Enough open files: of running daemons by the kernel's limit; if none runs, by the unit's.
fn open_files(places: &Places, rows: &[InstanceRow]) -> Vec<Check> {
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
    use super::super::list::UnitRow;
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
