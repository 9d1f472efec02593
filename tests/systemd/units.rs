//! The unit files: what systemd says about them, and that both kinds of instances start.

use super::instance::Instance;
use super::machine::Machine;

#[test]
fn a_machine_leaves_nothing_behind() {
    let Some(machine) = Machine::boot() else { return };
    assert_eq!(machine.ok("systemctl is-system-running").trim(), "running");
    assert_eq!(machine.ok("cat /proc/1/comm").trim(), "systemd");
    let cgroup = machine.end();
    assert!(!std::path::Path::new(&cgroup).exists(), "{cgroup} is left");
}

#[test]
fn the_units_verify_without_a_word() {
    let Some(machine) = Machine::shared() else { return };
    // Their manual pages come with the package, whose test verifies them too.
    let said = machine.run("systemd-analyze verify --man=no portok@verify.service portok@verify.socket");
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", ""));
}

#[test]
fn an_instance_with_a_toml_file_starts_and_stops_with_its_app() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "toml");
    instance.conf(&instance.app("v1", "say=hello-from-the-app")).save();
    instance.systemctl("start");
    instance.wait_until_live();
    assert_eq!(instance.version(), "v1");
    let entry = instance.wait_for_entry("the app's output is in the journal", "-t toml", |entry| {
        entry["MESSAGE"] == "hello-from-the-app"
    });
    assert_eq!(entry["_SYSTEMD_UNIT"], instance.unit(), "{entry:#}");

    instance.systemctl("stop");
    assert_eq!(instance.property("ActiveState"), "inactive");
    assert_eq!(instance.property("Result"), "success");
    assert!(instance.is_empty(), "{}", instance.story());
    assert_eq!(instance.app_journal("v1").last().map(String::as_str), Some("end"));
}

#[test]
fn an_instance_with_an_env_file_starts_and_stops_with_its_app() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "env");
    let text = format!(
        "LISTEN_PORT={}\nADMIN_TOKEN=correct-horse-battery-staple\nDRAIN_MS=1000\nAPP_COMMAND={}\n",
        instance.port,
        instance.app("v1", "")
    );
    machine.write("/etc/portok/env.env", &text);
    machine.ok("chmod 600 /etc/portok/env.env");
    instance.systemctl("start");
    instance.wait_until_live();
    assert_eq!(instance.version(), "v1");
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
}
