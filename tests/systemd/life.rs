//! The life of an instance: deploys, restarts, crashes and hangs of the daemon, under systemd.

use super::harness::conf::Conf;
use super::harness::http::Conn;
use super::harness::load::Load;
use super::harness::wait::wait_until;
use super::instance::Instance;
use super::machine::{Machine, SCRATCH};

/// An instance that runs `v1`, and the pid of its app.
fn running<'m>(machine: &'m Machine, name: &str) -> (Instance<'m>, u32) {
    let instance = Instance::new(machine, name);
    instance.conf(&instance.app("v1", "")).save();
    instance.systemctl("start");
    let app = instance.wait_until_live();
    (instance, app)
}

/// Waits until another process than `former` is the unit's main one and the instance serves; gives back the app's pid.
fn wait_for_another_daemon(instance: &Instance<'_>, former: u32) -> u32 {
    wait_until(
        "another daemon runs",
        || instance.story(),
        || {
            let pid = instance.main_pid();
            (pid != 0 && pid != former && instance.property("SubState") == "running").then_some(())
        },
    );
    instance.wait_until_live()
}

#[test]
fn a_deploy_under_load_loses_no_request() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, _) = running(machine, "deploy");
    let load = Load::start(instance.addr());
    let command = instance.app("v2", "");
    instance.portok(&format!("deploy --release second --cmd '{command}'")).ended(0);
    load.wait_for_more(200);
    let report = load.finish_without_failure();
    assert!(report.by_version.contains_key("v1") && report.by_version.contains_key("v2"), "{report:?}");
    assert_eq!(instance.version(), "v2");
}

#[test]
fn after_a_shutdown_the_instance_stays_down_until_it_is_started() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, _) = running(machine, "shutdown");
    let said = instance.portok("shutdown --json").ended(0);
    assert_eq!(said.json()[0]["exit"], "exit status 0", "{}", said.out);
    wait_until(
        "the unit has ended",
        || instance.story(),
        || (instance.property("ActiveState") == "inactive").then_some(()),
    );
    assert_eq!(instance.property("Result"), "success");
    assert_eq!(instance.property("NRestarts"), "0");
    instance.systemctl("start");
    instance.wait_until_live();
}

#[test]
fn what_an_app_prints_holds_it_up_neither_without_its_daemon_nor_after_it() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "prints");
    let file = |name: &str| format!("{SCRATCH}/prints-{name}");
    let wait_for = |name: &str| format!("while [ ! -e {} ]; do sleep 0.02; done", file(name));
    // In long lines: the journal takes only so many within a time.
    let script = format!(
        "({}; head -c 8000000 /dev/zero | tr '\\0' x | fold -w 4000; echo; touch {}; {}; echo said-at-last) &\n{}\n",
        wait_for("go"),
        file("printed"),
        wait_for("speak"),
        instance.app("v1", "")
    );
    machine.write(&file("app.sh"), &script);
    let conf = instance.conf(&format!("exec sh {}", file("app.sh")));
    conf.save();
    instance.systemctl("start");
    let app = instance.wait_until_live();

    machine.ok("sed -i s/listen/lsten/ /etc/portok/prints.toml");
    machine.ok(&format!("kill -KILL {}", instance.main_pid()));
    wait_until(
        "the daemon is gone for good, and with it the names of the pipes",
        || instance.story(),
        || (machine.run("test ! -e /run/portok/prints").code == 0).then_some(()),
    );
    assert_eq!(instance.property("ActiveState"), "failed");
    machine.ok(&format!("touch {}", file("go")));
    let has_printed = || (machine.run(&format!("test -e {}", file("printed"))).code == 0).then_some(());
    wait_until("it has printed more than a pipe holds", || instance.story(), has_printed);

    conf.save();
    instance.systemctl("start");
    assert_eq!(instance.wait_until_live(), app);
    machine.ok(&format!("touch {}", file("speak")));
    instance
        .wait_for_entry("what it prints is read", "-t prints", |entry| entry["MESSAGE"] == "said-at-last");
}

#[test]
fn what_happens_to_a_release_is_in_the_journal_with_its_fields() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, _) = running(machine, "fields");
    let command = instance.app("v2", "");
    instance.portok(&format!("deploy --release second --cmd '{command}'")).ended(0);
    let app = instance.wait_until_live();
    let matches = format!("-t portokd -u {} PORTOK_APP=fields PORTOK_RELEASE=second", instance.unit());
    let entry = instance.wait_for_entry("the switch is in the journal", &matches, |entry| {
        entry["MESSAGE"].as_str().is_some_and(|text| text.contains("`second` is live"))
    });
    assert_eq!(entry["PORTOK_PID"], app.to_string(), "{entry:#}");
    assert_eq!(entry["_PID"], instance.main_pid().to_string(), "{entry:#}");
    assert!(entry["PORTOK_PHASE"].is_string() && entry["PORTOK_TO"].is_string(), "{entry:#}");

    instance.portok("deploy --release third --cmd false").ended(3);
    let matches = format!("-t portokd -u {} PORTOK_RELEASE=third -p warning", instance.unit());
    instance.wait_for_entry("a failure is at least a warning", &matches, |entry| {
        entry["MESSAGE"].as_str().is_some_and(|text| text.contains("third"))
    });
}

#[test]
fn a_restart_keeps_the_app_and_loses_no_request() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, app) = running(machine, "restart");
    for _ in 0..3 {
        let daemon = instance.main_pid();
        let load = Load::start(instance.addr());
        instance.systemctl("restart");
        assert_eq!(wait_for_another_daemon(&instance, daemon), app);
        load.wait_for_more(200);
        load.finish_without_failure();
    }
    let starts = instance.app_journal("v1").iter().filter(|line| line.starts_with("start ")).count();
    assert_eq!(starts, 1, "{:#?}", instance.app_journal("v1"));
    assert_eq!(instance.property("NRestarts"), "0", "systemd never had to help");
}

#[test]
fn a_killed_daemon_comes_back_to_the_same_app_and_refuses_nobody_meanwhile() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, app) = running(machine, "killed");
    let daemon = instance.main_pid();
    machine.ok(&format!("kill -9 {daemon}"));
    // The listening socket is in systemd's store: who connects now waits for the next daemon.
    let mut waiting: Vec<_> =
        (0..20).map(|_| Conn::tcp(instance.addr()).expect("nobody is refused")).collect();
    for conn in &mut waiting {
        let answer = conn.request("GET", "/", &[("connection", "close")], None).expect("an answer comes");
        assert_eq!(answer.expect(200).version(), "v1");
    }
    assert_eq!(wait_for_another_daemon(&instance, daemon), app);
    assert_eq!(instance.property("NRestarts"), "1");

    instance.systemctl("stop");
    assert!(instance.is_empty(), "an adopted app is stopped too: {}", instance.story());
    assert_eq!(instance.app_journal("v1").last().map(String::as_str), Some("end"));
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_the_app_stays() {
    let Some(machine) = Machine::shared() else { return };
    machine.write("/etc/systemd/system/portok@hangs.service.d/quick.conf", "[Service]\nWatchdogSec=2s\n");
    machine.ok("systemctl daemon-reload");
    let (instance, app) = running(machine, "hangs");
    let daemon = instance.main_pid();
    machine.ok(&format!("kill -STOP {daemon}"));
    assert_eq!(wait_for_another_daemon(&instance, daemon), app);
    instance.wait_for_entry("systemd says why", &format!("_PID=1 UNIT={}", instance.unit()), |entry| {
        entry["MESSAGE"].as_str().is_some_and(|text| text.contains("Watchdog timeout"))
    });
}

#[test]
fn a_configuration_error_is_told_and_not_tried_again() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "broken");
    let conf: Conf = instance.conf(&instance.app("v1", "")).set("health.tiemout", "5s");
    conf.save();
    assert_ne!(machine.run(&format!("systemctl start {}", instance.unit())).code, 0);
    instance.wait_for_entry("the error is in the journal", &format!("-u {}", instance.unit()), |entry| {
        entry["MESSAGE"]
            .as_str()
            .is_some_and(|text| text.contains("health.tiemout") && text.contains("health.timeout"))
    });
    assert_eq!(instance.property("ActiveState"), "failed");
    assert_eq!(instance.property("ExecMainStatus"), "2");
    assert_eq!(instance.property("NRestarts"), "0");
}

#[test]
fn a_reload_takes_an_edit_and_says_so() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, app) = running(machine, "reload");
    let daemon = instance.main_pid();
    instance.conf(&instance.app("v1", "")).set("health.timeout", "4s").save();
    instance.systemctl("reload");
    assert_eq!((instance.main_pid(), instance.wait_until_live()), (daemon, app));
    assert_eq!(instance.wait_for("the edit is loaded", |status| Some(status.config.error.clone())), None);
}

#[test]
fn an_app_that_drains_long_is_not_cut_off_by_the_stop_timeout() {
    // A machine of its own: systemd forgets what was asked for when somebody reloads it, as other tests do.
    let Some(machine) = Machine::boot() else { return };
    machine.install();
    machine.write("/etc/systemd/system/portok@slow.service.d/quick.conf", "[Service]\nTimeoutStopSec=3s\n");
    machine.ok("systemctl daemon-reload");
    let instance = Instance::new(&machine, "slow");
    let go = format!("{SCRATCH}/slow-go");
    let conf = instance.conf(&instance.app("v1", &format!("term_after={go}")));
    conf.set("app.stop_timeout", "50s").save();
    instance.systemctl("start");
    instance.wait_until_live();
    let mut stopping = machine.start(&format!("systemctl stop {}", instance.unit()));
    wait_until(
        "the app is asked to end",
        || instance.story(),
        || instance.app_journal("v1").iter().any(|line| line == "signal SIGTERM").then_some(()),
    );
    // Twice the time that systemd would give without being asked for more.
    let asked = std::time::Instant::now();
    wait_until(
        "the stop time-out is over",
        || instance.story(),
        || (asked.elapsed() > std::time::Duration::from_secs(6)).then_some(()),
    );
    machine.write(&go, "");
    stopping.wait().ended(0);
    assert_eq!(instance.property("Result"), "success");
    assert_eq!(instance.app_journal("v1").last().map(String::as_str), Some("end"));
    assert!(instance.is_empty());
}

#[test]
fn an_upgrade_takes_a_new_binary_without_a_failed_request() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, app) = running(machine, "upgrade");
    let daemon = instance.main_pid();
    let load = Load::start(instance.addr());
    instance.portok("upgrade").ended(0);
    assert_eq!(wait_for_another_daemon(&instance, daemon), app);
    load.wait_for_more(200);
    load.finish_without_failure();
    assert_eq!(instance.property("NRestarts"), "0", "systemd follows the new main process");
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
}
