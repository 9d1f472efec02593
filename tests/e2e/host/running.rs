//! What runs on a host: `start` and its kin, `list`, `logs NAME`, `doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::Host;
use crate::harness::command::{PORTOK, PORTOKD};
use crate::harness::daemon::TOKEN;
use crate::harness::{assert_at, assert_mentions, wait_until};

#[test]
fn systemd_is_asked_for_the_unit_and_its_refusal_is_explained() {
    let host = Host::new();
    let said = host.portok(&["start", "api"]).ended(5);
    assert_mentions(&said.err, &["there is no instance `api`", "portok add api"]);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let said = host.portok(&["start", "api"]).ended(1);
    assert_mentions(&said.err, &["there is no portok@.service", "portok init"]);
    host.portok(&["init"]).ended(0);
    host.asked();
    let unit = "portok@api.service";
    for (words, asked, action) in [
        (&["start", "api"][..], format!("start {unit}"), "started"),
        (&["restart", "api"], format!("restart {unit}"), "restarted"),
        (&["stop", "api"], format!("stop {unit}"), "stopped"),
        (&["enable", "api"], format!("enable {unit}"), "enabled"),
        (&["enable", "api", "--now"], format!("enable --now {unit}"), "enabled"),
        (&["disable", "api", "--now"], format!("disable --now {unit}"), "disabled"),
        (&["disable", "api"], format!("disable {unit}"), "disabled"),
    ] {
        let done = host.json(words, 0);
        assert_eq!(host.asked(), [asked]);
        assert_at(&done, "/steps/0/action", action);
        assert_mentions(&host.portok(words).ended(0).out, &[action, unit]);
        host.asked();
    }
    fs::write(host.path("fakes/complaint"), "Job for portok@api.service failed.\n").unwrap();
    fs::write(host.config("api.toml"), "lsten = 3000\n").unwrap();
    let said = host.portok(&["start", "api"]).ended(2);
    assert_mentions(
        &said.err,
        &["start of `api` failed", "Job for portok@api.service failed.", "lsten", "portok logs api"],
    );
    let failure = host.json(&["start", "api"], 2);
    assert_at(&failure, "/code", "config_invalid");
    assert_at(&failure, "/causes/0", "Job for portok@api.service failed.");
    fs::write(host.path("fakes/complaint"), "Failed to stop: Interactive authentication required.\n")
        .unwrap();
    assert_mentions(&host.portok(&["stop", "api"]).ended(1).err, &["use sudo"]);
    let said = host.portok(&["--socket", "/s", "start", "api"]).ended(2);
    assert_mentions(&said.err, &["--socket"]);
}

#[test]
fn list_shows_every_instance_with_what_is_live() {
    let host = Host::new();
    assert_eq!(configured(&host), Vec::<Value>::new());
    let name = host.world.name();
    let daemon = host.world.start(&host.world.conf().app(&host.world.app("v1")));
    let status = daemon.wait_until_serves("v1");
    host.portok(&["add", "idle", "--target", "8123"]).ended(0);
    host.unit_is(name, "active");
    let rows = host.json(&["list"], 0);
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
    assert_at(row, "/listen", daemon.addr.to_string().as_str());
    assert_at(row, "/live/port", status.active_port.unwrap());
    assert_at(row, "/live/pid", daemon.live_pid());
    assert_at(row, "/daemonPid", daemon.pid());
    assert_at(row, "/unit/active", "active");
    let idle = rows.as_array().unwrap().iter().find(|row| row["name"] == "idle").unwrap();
    assert_at(idle, "/phase", Value::Null);
    assert_at(idle, "/unit/active", "inactive");
    fs::write(host.config("bad.toml"), "listen = \"nowhere\"\n").unwrap();
    let port = status.active_port.unwrap().to_string();
    // The daemon that runs refuses the edit, too: it is told once.
    let mut text = fs::read_to_string(host.config(&format!("{name}.toml"))).unwrap();
    text.insert_str(0, "lsten = 1\n");
    fs::write(host.config(&format!("{name}.toml")), text).unwrap();
    let table = wait_until("the daemon has seen the edit", String::new, || {
        daemon.status().config.error.map(|_| host.portok(&["list"]).ended(0).out)
    });
    assert_eq!(table.matches("unknown key `lsten`").count(), 1, "{table}");
    assert_mentions(&table, &["NAME", name, "idle", &port, "idle.env", "! bad:", "nowhere"]);
    assert!(!table.contains(TOKEN), "{table}");
}

/// The rows of instances with files; what else runs on this host is not the test's.
fn configured(host: &Host) -> Vec<Value> {
    let rows = host.json(&["list"], 0);
    let rows = rows.as_array().unwrap().iter();
    rows.filter(|row| row["files"].as_array().is_some_and(|files| !files.is_empty())).cloned().collect()
}

#[test]
fn list_shows_what_portok_run_runs() {
    let host = Host::new();
    let name = format!("{}-run", host.world.name());
    let app = host.world.app("v1").command();
    let words = ["run", "--instance", &name, "--listen", "127.0.0.1:0", "--cmd", &app];
    let mut running = host.world.spawn(PORTOK, &words, &host.env());
    let row = wait_until(
        "it is listed",
        || format!("{:?}", running.said()),
        || {
            let rows = host.json(&["list"], 0);
            rows.as_array().unwrap().iter().find(|row| row["name"] == name.as_str()).cloned()
        },
    );
    assert_eq!(row["files"], Value::Array(Vec::new()));
    assert_mentions(row["socket"].as_str().unwrap(), &[&name, "admin.sock"]);
    assert_mentions(&host.portok(&["list"]).ended(0).out, &[&name, "no file; "]);
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().ended(0);
    let rows = host.json(&["list"], 0);
    assert!(rows.as_array().unwrap().iter().all(|row| row["name"] != name.as_str()), "{rows:#}");
}

#[test]
fn doctor_complains_of_what_is_named_and_not_there() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    let text = "listen = 3986\n[app]\ncommand = [\"/nowhere/server\"]\ndirectory = \"/nowhere/app\"\n\
        env_file = \"/nowhere/app.env\"\nuser = \"nobody-by-that-name\"\n\
        [admin]\ntoken_file = \"/nowhere/token\"\n";
    fs::write(host.config("api.toml"), text).unwrap();
    fs::set_permissions(host.config("api.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    let report = host.portok(&["doctor"]).ended(1).out;
    assert_mentions(&report, &["✗ `api`: ", "/nowhere/token"]);
    fs::write(
        host.config("api.toml"),
        text.replace("/nowhere/token", &host.config("api.token").display().to_string()),
    )
    .unwrap();
    fs::write(host.config("api.token"), "0123456789abcdef\n").unwrap();
    fs::set_permissions(host.config("api.token"), fs::Permissions::from_mode(0o600)).unwrap();
    let report = host.portok(&["doctor"]).ended(1).out;
    for problem in [
        "✗ `api`: app.command /nowhere/server: no such program",
        "✗ `api`: app.directory /nowhere/app: no such directory",
        "✗ `api`: app.env_file /nowhere/app.env: no such file",
        "✗ `api`: app.user nobody-by-that-name: no such user",
    ] {
        assert_mentions(&report, &[problem]);
    }
    assert!(!report.contains("api.toml is valid"), "{report}");
}

#[test]
fn doctor_ticks_no_instance_that_is_down() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    assert_mentions(
        &host.portok(&["doctor"]).ended(0).out,
        &["! `api` does not run", "portok enable api --now"],
    );
    host.portok(&["enable", "api"]).ended(0);
    assert_mentions(&host.portok(&["doctor"]).ended(1).out, &["✗ `api` is enabled", "portok start api"]);
}

#[test]
fn a_daemon_that_runs_is_not_restarted_into_a_configuration_it_would_refuse() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    host.portok(&["start", "api"]).ended(0);
    fs::write(host.config("api.toml"), "lsten = 3000\n").unwrap();
    host.asked();
    let said = host.portok(&["restart", "api"]).ended(2);
    assert_mentions(&said.err, &["restart of `api` refused", "did you mean `listen`", "systemctl restart"]);
    assert_at(&host.json(&["restart", "api"], 2), "/code", "config_invalid");
    assert!(host.asked().is_empty());
    // What a drop-in adds may be what is missing.
    let told = host.path("fakes/portok@api.service.told");
    fs::write(&told, "Environment=LISTEN_PORT=3000\n").unwrap();
    let said = host.portok(&["restart", "api"]).ended(0);
    assert_mentions(&said.out, &["note: not refused", "did you mean `listen`"]);
    assert_eq!(host.asked(), ["restart portok@api.service"]);
    fs::remove_file(told).unwrap();
    host.unit_is("api", "failed");
    host.portok(&["restart", "api"]).ended(0);
}

#[test]
fn logs_of_an_instance_come_from_the_journal() {
    let host = Host::new();
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let entries = r#"{"_SYSTEMD_UNIT":"portok@api.service","MESSAGE":"listening","PORTOK_APP":"api","PORTOK_PID":"7","PRIORITY":"6","__REALTIME_TIMESTAMP":"1767225600000000"}
{"SYSLOG_IDENTIFIER":"api","MESSAGE":"of somebody else","__REALTIME_TIMESTAMP":"1767225600000000"}
{"SYSLOG_IDENTIFIER":"api","PORTOK_RELEASE":"v7","MESSAGE":"hello","PRIORITY":"4","__REALTIME_TIMESTAMP":"1767225601000000"}
"#;
    fs::write(host.path("fakes/journal"), entries).unwrap();
    let said = host.portok(&["logs", "api", "-n", "7"]).ended(0);
    assert_eq!(
        said.out,
        "2026-01-01T00:00:00.000Z portokd out listening pid=7\n2026-01-01T00:00:01.000Z v7 err hello\n"
    );
    let asked = fs::read_to_string(host.path("fakes/journal-asked")).unwrap();
    assert_mentions(&asked, &["--lines=7", "_SYSTEMD_UNIT=portok@api.service", "SYSLOG_IDENTIFIER=api"]);
    let lines = host.json(&["logs", "api"], 0);
    assert_at(&lines, "/lines/0/source", "daemon");
    assert_at(&lines, "/lines/1/release", "v7");
    host.portok(&["logs", "api", "-f", "--json"]).ended(2);

    let pipe = host.path("fakes/following");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut following = host.world.spawn(PORTOK, &["logs", "api", "-f"], &host.env());
    wait_until(
        "the lines that are there",
        || following.said().1,
        || following.said().0.contains("hello").then_some(()),
    );
    // Opening waits for the reader.
    fs::write(&pipe, "{\"_SYSTEMD_UNIT\":\"portok@api.service\",\"MESSAGE\":\"a new line\"}\n").unwrap();
    assert_mentions(&following.wait().ended(0).out, &["a new line"]);
}

#[test]
fn logs_of_an_instance_come_from_its_daemon_where_the_journal_has_none() {
    let host = Host::new();
    let daemon = host.world.start(&host.world.conf().app(&host.world.app("v1").with("say", "hello-of-v1")));
    daemon.wait_until_serves("v1");
    let name = host.world.name();
    assert_mentions(&host.portok(&["logs", name]).ended(0).out, &["hello-of-v1"]);
    let logs = host.json(&["logs", name], 0);
    assert!(logs.to_string().contains("hello-of-v1"), "{logs:#}");
    let release = daemon.status().live.unwrap().release;
    fs::write(host.path("fakes/journal"), "{\"_SYSTEMD_UNIT\":\"x\"}\n").unwrap();
    assert_mentions(&host.portok(&["logs", name, "--release", &release]).ended(0).out, &["hello-of-v1"]);
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let host = Host::new();
    let verdicts = |report: &Value, check: &str, verdict: &str| -> Vec<String> {
        let checks = report["checks"].as_array().unwrap().iter();
        let fit = checks.filter(|found| found["check"] == check && found["verdict"] == verdict);
        fit.map(|found| format!("{} {}", found["text"], found["hint"])).collect()
    };
    let report = host.json(&["doctor"], 1);
    assert_mentions(&verdicts(&report, "unit", "bad")[0], &["portok init"]);
    host.portok(&["init"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true", "--port", "3987"]).ended(0);
    let report = host.json(&["doctor"], 0);
    assert_at(&report, "/ok", true);
    let said = host.portok(&["doctor"]).ended(0);
    assert_mentions(&said.out, &["✓", "! `api` does not run", "all works, 1 to look at", PORTOKD]);
    assert!(!said.out.contains('✗'), "{}", said.out);

    host.portok(&["add", "web", "--port", "3987", "--target", "8123", "--force"]).ended(0);
    host.unit_is("web", "failed");
    fs::write(host.config("bad.toml"), "lsten = 1\n[health]\npath = 7\n").unwrap();
    fs::set_permissions(host.config("api.token"), fs::Permissions::from_mode(0o644)).unwrap();
    let unit = host.path("units/portok@.service");
    let text = fs::read_to_string(&unit).unwrap().replace(PORTOKD, "/nowhere/portokd");
    fs::write(&unit, text).unwrap();
    let report = host.json(&["doctor"], 1);
    assert_at(&report, "/ok", false);
    assert_mentions(&verdicts(&report, "ports", "bad")[0], &["3987", "`api`", "`web`"]);
    assert_mentions(&verdicts(&report, "instance", "bad")[0], &["`web` has failed", "portok logs web"]);
    assert_mentions(&verdicts(&report, "unit", "bad")[0], &["/nowhere/portokd"]);
    let configurations = verdicts(&report, "configuration", "bad").join("\n");
    assert_mentions(&configurations, &["lsten", "health.path", "api.token", "chmod"]);
    assert_mentions(&host.portok(&["doctor"]).ended(1).out, &["✗", "→ ", "to mend"]);
}
