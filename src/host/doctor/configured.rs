//! The checks of instances by their files: configurations, rights, hardening, ports.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::User;

use super::super::instances::Instance;
use super::super::places::Places;
use super::super::{files, harden, installed, named, unit};
use super::{Check, bad, good, warning};

/// The configuration is valid, what it names exists, and nobody else can read its secrets.
pub(super) fn configuration(places: &Places, instance: &Instance, user: Option<&User>) -> Vec<Check> {
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
    // The files of apps may hold secrets too: variables, commands.
    let several = instance.config.as_ref().ok().and_then(|config| config.apps.as_ref());
    let folder = several.and_then(|several| several.folder.as_deref());
    let apps: Vec<_> = folder.and_then(|folder| files::entries(folder).ok()).unwrap_or_default();
    let apps = apps.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml"));
    for file in instance.files.iter().chain([&token]).chain(apps) {
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
pub(super) fn hardening(places: &Places, instance: &Instance) -> Option<Check> {
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
pub(super) fn shut_out(user: &User, paths: &[&Path], right: u32) -> Vec<Check> {
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
pub(super) fn clashes(instances: &[Instance]) -> Vec<Check> {
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
