//! The unit files: what systemd says about them, and that both kinds of instances start.

use std::path::Path;

use super::harness::http::Conn;
use super::instance::Instance;
use super::machine::{Machine, SCRATCH};

#[test]
fn a_machine_leaves_nothing_behind() {
    let Some(machine) = Machine::boot() else { return };
    assert_eq!(machine.ok("systemctl is-system-running").trim(), "running");
    assert_eq!(machine.ok("cat /proc/1/comm").trim(), "systemd");
    let cgroup = machine.end();
    assert!(!Path::new(&cgroup).exists(), "{cgroup} is left");
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

#[test]
fn the_hardened_drop_in_serves_below_1024_as_an_ordinary_user() {
    let Some(machine) = Machine::shared() else { return };
    let mut instance = Instance::new(machine, "hardened");
    instance.port = 80;
    let drop_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/portok@.service.d/hardened.conf");
    machine.put(&drop_in, "/etc/systemd/system/portok@hardened.service.d/hardened.conf", 0o644);
    // The drop-in leaves an app nothing to write to but its own folders.
    machine.write(
        "/etc/systemd/system/portok@hardened.service.d/writes.conf",
        &format!("[Service]\nReadWritePaths={SCRATCH}\n"),
    );
    machine.ok("systemctl daemon-reload");
    instance.conf(&instance.app("v1", "")).save();
    machine.ok("chgrp www-data /etc/portok/hardened.toml && chmod 640 /etc/portok/hardened.toml");
    instance.systemctl("start");
    let app = instance.wait_until_live();
    assert_eq!(instance.version(), "v1");
    for pid in [app, instance.main_pid()] {
        assert_eq!(machine.ok(&format!("stat -c %U /proc/{pid}")).trim(), "www-data");
    }
    let own = machine.ok(&format!("grep -E '^(CapEff|CapAmb|NoNewPrivs):' /proc/{app}/status"));
    let own: Vec<_> = own.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(own, ["0000000000000000", "0000000000000000", "1"], "the app has none of it");

    let command = instance.app("v2", "");
    instance.portok(&format!("deploy --cmd '{command}'")).ended(0);
    let app = instance.wait_until_live();
    instance.systemctl("restart");
    assert_eq!(instance.wait_until_live(), app);
    assert_eq!(instance.version(), "v2");
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
}

#[test]
fn the_exposure_is_what_the_hardened_drop_in_says() {
    let Some(machine) = Machine::shared() else { return };
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let folder = format!("{SCRATCH}/exposure");
    let exposure = || {
        let said = machine.ok(&format!(
            "cd {folder} && systemd-analyze security --offline=true --no-pager ./portok@.service"
        ));
        let last = said.lines().last().unwrap_or_default().to_owned();
        println!("{last}");
        last.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
    };
    machine.put(&units.join("portok@.service"), &format!("{folder}/portok@.service"), 0o644);
    let plain = exposure();
    let drop_in = "portok@.service.d/hardened.conf";
    machine.put(&units.join(drop_in), &format!("{folder}/{drop_in}"), 0o644);
    let hardened = exposure();
    let stated = format!("says {hardened} with it and {plain} without it");
    assert!(machine.read(&format!("{folder}/{drop_in}")).contains(&stated), "{stated}");
    let unit = machine.read(&format!("{folder}/portok@.service"));
    let stated = [format!("{plain} for this unit"), format!("examples) {hardened},")];
    assert!(stated.iter().all(|stated| unit.contains(stated)), "{stated:?}");
}

#[test]
fn a_socket_unit_holds_the_port_and_starts_the_instance() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "socket");
    machine.write(
        "/etc/systemd/system/portok@socket.socket.d/port.conf",
        &format!("[Socket]\nListenStream=\nListenStream={}\n", instance.port),
    );
    machine.ok("systemctl daemon-reload && systemctl start portok@socket.socket");
    instance.conf(&instance.app("v1", "")).save();
    assert_eq!(instance.property("ActiveState"), "inactive");
    let mut conn = Conn::tcp(instance.addr()).expect("systemd holds the port");
    // The first request may come before the app is live: portok says so itself then.
    conn.request("GET", "/", &[], None).expect("an answer comes");
    let app = instance.wait_until_live();
    assert_eq!(instance.version(), "v1");

    // The port stays while portokd is not there at all, and so does the app.
    instance.systemctl("restart");
    assert_eq!(instance.wait_until_live(), app);
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
    instance.get("/").expect("a connection brings it back");
    instance.wait_until_live();
}

#[test]
fn an_app_is_not_spared_by_the_kernel_as_its_daemon_is() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "oom");
    instance.conf(&instance.app("v1", "")).save();
    instance.systemctl("start");
    let app = instance.wait_until_live();
    let score = |pid: u32| machine.ok(&format!("cat /proc/{pid}/oom_score_adj")).trim().to_owned();
    assert_eq!(score(app), "0");
    // A root without CAP_SYS_RESOURCE, as in some containers, cannot be spared at all.
    if machine.run("echo -500 >/proc/self/oom_score_adj").code == 0 {
        assert_eq!(score(instance.main_pid()), "-500");
    } else {
        eprintln!("root may not lower oom_score_adj here: portokd has nothing to take from its app");
    }
}
