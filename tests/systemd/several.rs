//! An instance of several apps under systemd: its lines in the journal, its status line, reloads, and
//! what a restart and a death of the daemon leave alone.

use std::net::SocketAddr;

use super::harness::conf::Conf;
use super::harness::http::Conn;
use super::harness::load::{Asked, Load};
use super::harness::wait::{assert_mentions, wait_until};
use super::instance::Instance;
use super::machine::Machine;

/// An instance whose apps `api` and `shop` are found by their hosts, and `own` at the address that it
/// alone has. All of them serve.
fn running<'m>(machine: &'m Machine, name: &str) -> (Instance<'m>, SocketAddr) {
    let instance = Instance::new(machine, name);
    // Its port, at another of the machine's own addresses.
    let own = SocketAddr::from(([127, 0, 0, 2], instance.port));
    let app = |version: &str| instance.app(version, &format!("say=hello-of-{version}"));
    Conf::new(machine.path(&format!("/etc/portok/{name}.toml")))
        .set("listen", format!("127.0.0.1:{}", instance.port))
        .set("drain.period", "2s")
        .set("rollback.window", "0s")
        .set("removal_delay", "100ms")
        .set("apps.api.hosts", vec!["api.test"])
        .set("apps.api.command", app("api-1"))
        .set("apps.shop.hosts", vec!["shop.test"])
        .set("apps.shop.command", app("shop-1"))
        .set("apps.own.listen", vec![own.to_string()])
        .set("apps.own.command", app("own-1"))
        .save();
    instance.systemctl("start");
    instance.portok("status --wait 40s").ended(0);
    (instance, own)
}

/// The process of an app's live release.
#[track_caller]
fn live_pid(instance: &Instance<'_>, app: &str) -> u64 {
    let pid = || instance.portok(&format!("--json status --app {app}")).json()["live"]["pid"].as_u64();
    wait_until(&format!("{app} has a process"), || instance.story(), pid)
}

#[track_caller]
fn wait_for_status_line(instance: &Instance<'_>, line: &str) {
    let said = || instance.property("StatusText");
    let explain = || format!("{}\n{}", said(), instance.story());
    wait_until(&format!("the status line is {line:?}"), explain, || (said() == line).then_some(()));
}

/// Waits until another process than `former` is the unit's main one, and all apps are healthy.
#[track_caller]
fn wait_for_another_daemon(instance: &Instance<'_>, former: u32) {
    wait_until(
        "another daemon runs",
        || instance.story(),
        || {
            let pid = instance.main_pid();
            (pid != 0 && pid != former && instance.property("SubState") == "running").then_some(())
        },
    );
    instance.portok("status --wait 40s").ended(0);
}

#[test]
fn the_journal_tells_apps_apart_and_the_status_line_counts_them() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, _) = running(machine, "lines");
    wait_for_status_line(&instance, "3 apps: 3 settled");
    let all = ["api", "own", "shop"];
    let lines = |app: &str| {
        wait_until(
            "what the app printed is in the journal",
            || instance.story(),
            || {
                let said = machine.run(&format!("portok logs lines/{app} -n 1000 --json"));
                said.out.contains(&format!("hello-of-{app}-1")).then(|| said.json()["lines"].clone())
            },
        )
    };
    for app in all {
        let lines = lines(app);
        let lines = lines.as_array().expect("an array of lines");
        let printed: Vec<_> = lines.iter().filter(|line| line["source"] == "app").collect();
        assert!(printed.iter().all(|line| line["app"] == app), "{lines:#?}");
        for other in all.iter().filter(|other| **other != app) {
            let is_said =
                printed.iter().any(|line| line.to_string().contains(&format!("hello-of-{other}-1")));
            assert!(!is_said, "{other} is among the lines of {app}: {lines:#?}");
        }
    }
    let of_all = machine.ok("portok logs lines -n 1000");
    assert_mentions(&of_all, &["hello-of-api-1", "hello-of-own-1", "hello-of-shop-1"]);
    machine.run("portok logs lines/none").ended(5);
}

#[test]
fn a_reload_starts_changes_and_refuses_single_apps_and_says_so() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, _) = running(machine, "changes");
    let (daemon, api) = (instance.main_pid(), live_pid(&instance, "api"));
    let command = toml::Value::from(instance.app("more-1", "")).to_string();
    machine
        .write("/etc/portok/changes.d/more.toml", &format!("hosts = [\"more.test\"]\ncommand = {command}\n"));
    machine.write("/etc/portok/changes.d/bad.toml", "comand = \"x\"\n");
    instance.systemctl("reload");
    instance.wait_for_entry("the broken file is told of", &format!("-u {}", instance.unit()), |entry| {
        entry["MESSAGE"].as_str().is_some_and(|text| text.contains("bad.toml") && text.contains("comand"))
    });
    // The app of the broken file is there, with what is wrong, and serves nothing.
    wait_for_status_line(&instance, "5 apps: 4 settled, 1 empty");
    live_pid(&instance, "more");
    let bad = instance.portok("--json status --app bad").json();
    assert_mentions(&bad["config"]["error"].to_string(), &["bad.toml", "comand"]);
    machine.ok("rm /etc/portok/changes.d/bad.toml /etc/portok/changes.d/more.toml");
    instance.systemctl("reload");
    wait_for_status_line(&instance, "3 apps: 3 settled");
    assert_eq!((instance.main_pid(), live_pid(&instance, "api")), (daemon, api));
}

#[test]
fn restarts_and_a_death_of_the_daemon_cost_no_app_a_request_and_keep_all_addresses() {
    let Some(machine) = Machine::shared() else { return };
    let (instance, own) = running(machine, "keeps");
    let all = ["api", "own", "shop"];
    let before = all.map(|app| live_pid(&instance, app));
    let asked = [(instance.addr(), "api.test"), (instance.addr(), "shop.test"), (own, "any.test")];
    let asked = asked.map(|(addr, host)| Asked { addr, host: host.to_owned(), status: 200, tls: None });
    assert_eq!(instance.property("NFileDescriptorStore"), "2", "{}", instance.story());
    for _ in 0..2 {
        let daemon = instance.main_pid();
        let loads: Vec<_> = asked.iter().map(|asked| Load::of(asked, 1)).collect();
        instance.systemctl("restart");
        wait_for_another_daemon(&instance, daemon);
        loads.iter().for_each(|load| load.wait_for_more(50));
        loads.into_iter().for_each(|load| drop(load.finish_without_failure()));
    }
    let daemon = instance.main_pid();
    machine.ok(&format!("kill -9 {daemon}"));
    // Who connects now, wherever, waits for the next daemon.
    let mut waiting: Vec<_> =
        asked.iter().map(|asked| Conn::tcp(asked.addr).expect("nobody is refused")).collect();
    for (conn, asked) in waiting.iter_mut().zip(&asked) {
        let fields = [("host", asked.host.as_str()), ("connection", "close")];
        conn.request("GET", "/", &fields, None).expect("an answer comes").expect(200);
    }
    wait_for_another_daemon(&instance, daemon);
    assert_eq!(instance.property("NFileDescriptorStore"), "2", "{}", instance.story());
    assert_eq!(all.map(|app| live_pid(&instance, app)), before);
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
}
