//! The Debian package: installed, upgraded and removed on a machine of its own.
//!
//! `PORTOK_DEB` names the package; `.ci/run` builds it first.

use std::path::{Path, PathBuf};

use super::harness::load::Load;
use super::instance::Instance;
use super::machine::{Machine, skip};

/// What the package has beside its documentation.
const FILES: [&str; 9] = [
    "/usr/bin/portok",
    "/usr/bin/portokd",
    "/usr/lib/systemd/system/portok@.service",
    "/usr/lib/systemd/system/portok@.socket",
    "/usr/share/man/man1/portok.1.gz",
    "/usr/share/man/man8/portokd.8.gz",
    "/usr/share/bash-completion/completions/portok",
    "/usr/share/zsh/vendor-completions/_portok",
    "/usr/share/fish/vendor_completions.d/portok.fish",
];

const DOCUMENTATION: [&str; 4] = [
    "/usr/share/doc/portok/copyright",
    "/usr/share/doc/portok/changelog.gz",
    "/usr/share/doc/portok/examples/full.toml",
    "/usr/share/doc/portok/examples/portok@.service.d/hardened.conf",
];

/// The package to test, where one was built.
fn package() -> Option<PathBuf> {
    let package = std::env::var_os("PORTOK_DEB").map(PathBuf::from);
    if package.is_none() {
        skip("PORTOK_DEB names no Debian package");
    }
    package
}

#[test]
fn a_package_is_installed_upgraded_without_a_stop_and_removed() {
    let Some(package) = package() else { return };
    let Some(machine) = Machine::boot() else { return };
    machine.put(Path::new(&package), "/var/tmp/portok.deb", 0o644);
    // Images for containers leave manual pages and documentation out of every package.
    let install =
        "dpkg --path-include='/usr/share/man/*' --path-include='/usr/share/doc/*' -i /var/tmp/portok.deb";
    machine.ok(install);
    let installed = machine.ok("dpkg -L portok");
    for file in FILES.iter().chain(&DOCUMENTATION) {
        assert!(installed.lines().any(|line| line == *file), "{file} is not in the package:\n{installed}");
        machine.ok(&format!("test -f '{file}'"));
    }
    let said = machine.run("systemd-analyze verify portok@api.service portok@api.socket");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""), "with manual pages");
    assert!(machine.ok("portok --version").starts_with("portok "));

    let instance = Instance::new(&machine, "api");
    instance.conf(&instance.app("v1", "")).save();
    instance.systemctl("enable --now");
    let (app, daemon) = (instance.wait_until_live(), instance.main_pid());

    let load = Load::start(instance.addr());
    let said = machine.ok(install);
    assert!(said.contains("still running the former version: portok@api.service"), "{said}");
    load.wait_for_more(100);
    load.finish_without_failure();
    assert_eq!((instance.wait_until_live(), instance.main_pid()), (app, daemon), "an upgrade stops nothing");
    instance.systemctl("restart");
    assert_eq!(instance.wait_until_live(), app, "a restart to the new version keeps the app");

    machine.ok("dpkg -r portok");
    assert!(instance.is_empty(), "a removal stops what runs: {}", instance.story());
    assert_eq!(instance.app_journal("v1").last().map(String::as_str), Some("end"));
    for file in FILES {
        machine.ok(&format!("test ! -e '{file}'"));
    }
    machine.ok("test -f /var/lib/portok/api/api.json && test -f /etc/portok/api.toml");
    machine.ok("dpkg -P portok");
    machine.ok("test ! -e /var/lib/portok && test -f /etc/portok/api.toml");
    machine.ok("test ! -L /etc/systemd/system/multi-user.target.wants/portok@api.service");
}
