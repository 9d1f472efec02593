//! The commands that concern a host, in folders of their own, with a `systemctl` and a `journalctl` of the test's.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::command::{PORTOK, PORTOKD, Said};
use crate::harness::daemon::TOKEN;
use crate::harness::{World, assert_at, assert_mentions, wait_until};

/// Keeps what it was asked in `asked`, and the state of each unit in a file; says what is in `complaint` and fails.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$FAKES" || exit 99
echo "$*" >> asked
[ -e complaint ] && { cat complaint >&2; exit 1; }
verb=$1; now=; shift
[ "$1" = --now ] && { now=1; shift; }
state() { [ -e "$1" ] && cat "$1" || echo "$2"; }
case $verb in
show)
    for unit in "$@"; do
        case $unit in -*) continue;; esac
        echo "Id=$unit"; echo "LoadState=loaded"
        echo "ActiveState=$(state "$unit.active" inactive)"
        echo "UnitFileState=$(state "$unit.file" disabled)"
        echo "ControlGroup=$(state "$unit.left" "")"
        echo
    done;;
kill) rm -f "$2.left";;
list-units) for file in *.active; do [ -e "$file" ] && echo "${file%.active} loaded active running"; done;;
start|restart) echo active > "$1.active";;
stop) echo inactive > "$1.active";;
enable) echo enabled > "$1.file"; [ -n "$now" ] && echo active > "$1.active";;
disable) echo disabled > "$1.file"; [ -n "$now" ] && echo inactive > "$1.active";;
esac
exit 0
"#;

/// Prints the entries in `journal`; with `--follow` then those that somebody writes into the pipe `following`.
const JOURNALCTL: &str = r#"#!/bin/sh
cd "$FAKES" || exit 99
echo "$*" >> journal-asked
[ -e journal ] && cat journal
case "$*" in *--follow*) cat following;; esac
exit 0
"#;

/// A host whose folders are the test's.
struct Host {
    world: World,
}

impl Host {
    fn new() -> Self {
        let host = Self { world: World::new() };
        for folder in ["bin", "fakes"] {
            fs::create_dir(host.path(folder)).unwrap();
        }
        for (name, script) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
            let path = host.path("bin").join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.world.path(inner)
    }

    fn config(&self, file: &str) -> PathBuf {
        self.path("conf").join(file)
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.world.env();
        let path = format!("{}:{}", self.path("bin").display(), env["PATH"]);
        env.insert("PATH".to_owned(), path);
        env.insert("FAKES".to_owned(), self.path("fakes").display().to_string());
        for (variable, folder) in
            [("PORTOK_CONFIG_DIR", "conf"), ("PORTOK_STATE_DIR", "state"), ("PORTOK_UNIT_DIR", "units")]
        {
            env.insert(variable.to_owned(), self.path(folder).display().to_string());
        }
        env
    }

    #[track_caller]
    fn portok(&self, words: &[&str]) -> Said {
        self.world.portok(words, &self.env())
    }

    /// The same with `--json`; standard output has to be one value.
    #[track_caller]
    fn json(&self, words: &[&str], code: i32) -> Value {
        self.portok(&[words, &["--json"]].concat()).ended(code).json()
    }

    /// What systemctl was asked since the last time, without the questions.
    fn asked(&self) -> Vec<String> {
        let log = self.path("fakes/asked");
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let is_question =
            |line: &str| ["show", "list-units", "is-"].iter().any(|verb| line.starts_with(verb));
        lines.lines().filter(|line| !is_question(line)).map(str::to_owned).collect()
    }

    fn unit_is(&self, name: &str, active: &str) {
        fs::write(self.path(&format!("fakes/portok@{name}.service.active")), active).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.mode() & 0o7777
}

fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = report["steps"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    steps.iter().map(|step| (text(&step["action"]), text(&step["subject"]))).collect()
}

#[test]
fn init_prepares_a_host_and_a_second_time_changes_nothing() {
    let host = Host::new();
    fs::remove_dir(host.path("state")).unwrap();
    let told = host.json(&["init", "--dry-run"], 0);
    assert_at(&told, "/dryRun", true);
    assert!(!host.path("units").exists() && !host.path("state").exists(), "a dry run does nothing");
    assert!(host.asked().is_empty());

    let done = host.json(&["init"], 0);
    assert_eq!(steps(&done), steps(&told), "it does what it told");
    assert_eq!(host.asked(), ["daemon-reload"]);
    let unit = fs::read_to_string(host.path("units/portok@.service")).unwrap();
    assert_mentions(&unit, &[&format!("\nExecStart={PORTOKD} --instance %i\n")]);
    assert_mentions(&unit, &[&format!("\nEnvironment=PORTOK_CONFIG_DIR={}\n", host.path("conf").display())]);
    assert!(host.path("units/portok@.socket").exists());
    assert_eq!(mode(&host.path("state")), 0o755);

    let again = host.json(&["init"], 0);
    assert!(steps(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
    assert!(host.asked().is_empty());
    let said = host.portok(&["init"]).ended(0);
    assert_mentions(&said.out, &["unchanged", "next:", "portok add "]);
}

#[test]
fn init_gives_portokd_a_user_and_takes_it_back() {
    let host = Host::new();
    host.portok(&["init", "--user", "nobody"]).ended(0);
    let drop_in = host.path("units/portok@.service.d/10-user.conf");
    let text = fs::read_to_string(&drop_in).unwrap();
    assert_mentions(&text, &["\nUser=nobody\n", "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"]);
    host.portok(&["init"]).ended(0);
    assert!(drop_in.exists(), "a choice stays until another is made");
    host.portok(&["init", "--user", "root"]).ended(0);
    assert!(!drop_in.exists());
    assert_eq!(host.asked(), ["daemon-reload", "daemon-reload"]);
    if nix::unistd::geteuid().is_root() {
        host.portok(&["add", "old", "--cmd", "true"]).ended(0);
        let told = host.json(&["init", "--user", "nobody"], 0);
        assert_at(&host.json(&["doctor"], 0), "/ok", true);
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        host.portok(&["add", "new", "--cmd", "true"]).ended(0);
        for file in ["old.toml", "old.token", "new.toml", "new.token"] {
            assert_eq!(mode(&host.config(file)), 0o640, "{file}: {told:#}");
            assert_eq!(fs::metadata(host.config(file)).unwrap().gid(), nobody.gid.as_raw(), "{file}");
        }
        assert_mentions(
            &fs::read_to_string(host.config("new.toml")).unwrap(),
            &["/run/portok/new/admin.sock"],
        );
        let again = host.json(&["init", "--user", "nobody"], 0);
        assert!(steps(&again).iter().all(|(action, _)| action == "unchanged"), "{again:#}");
        fs::set_permissions(host.config("old.token"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_mentions(&host.portok(&["doctor"]).ended(1).out, &["old.token", "portok init --user nobody"]);
    }
    let said = host.portok(&["init", "--user", "nobody-by-that-name"]).ended(2);
    assert_mentions(&said.err, &["nobody-by-that-name", "no such user"]);
    host.portok(&["init", "--user", "a\nb"]).ended(2);
}

#[test]
fn init_replaces_no_unit_of_others() {
    let host = Host::new();
    fs::create_dir(host.path("units")).unwrap();
    let unit = host.path("units/portok@.service");
    fs::write(&unit, "[Service]\nExecStart=/usr/bin/node portokd.js\n").unwrap();
    let said = host.portok(&["init"]).ended(5);
    assert_mentions(&said.err, &[&unit.display().to_string(), "--force"]);
    assert_at(&host.json(&["init"], 5), "/code", "exists");
    host.portok(&["init", "--force"]).ended(0);
    assert_mentions(&fs::read_to_string(&unit).unwrap(), &[PORTOKD]);
    // A link in place of the file is replaced, not written through.
    let victim = host.path("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&unit).unwrap();
    symlink(&victim, &unit).unwrap();
    host.portok(&["init", "--force"]).ended(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(fs::symlink_metadata(&unit).unwrap().is_file());
}

#[test]
fn a_host_without_systemd_gets_its_files_and_is_told() {
    let host = Host::new();
    let mut env = host.env();
    env.insert("PATH".to_owned(), host.path("nowhere").display().to_string());
    let said = host.world.portok(&["init"], &env).ended(0);
    assert_mentions(&said.out, &["there is no systemctl on this host"]);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let said = host.world.portok(&["start", "api"], &env).ended(1);
    assert_mentions(&said.err, &["there is no systemctl", "portokd --instance api"]);
    let said = host.world.portok(&["list"], &env).ended(0);
    assert_mentions(&said.out, &["api"]);
    let said = host.world.portok(&["doctor"], &env).ended(1);
    assert_mentions(&said.out, &["✗ there is no systemctl"]);
    host.world.portok(&["remove", "api"], &env).ended(0);
    let pid1 = "System has not been booted with systemd as init system (PID 1). Can't operate.\n";
    fs::write(host.path("fakes/complaint"), pid1).unwrap();
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let said = host.portok(&["restart", "api"]).ended(1);
    assert_mentions(&said.err, &["systemd does not run this host"]);
}

#[test]
fn add_writes_what_portokd_reads_and_nobody_else_can() {
    let host = Host::new();
    let said =
        host.portok(&["add", "api", "--cmd", "node 'a b.js' \"$X\"", "--dir", "/srv", "--health", "/up"]);
    let said = said.ended(0);
    assert_mentions(&said.out, &["portok init", "portok enable api --now", "portok status api"]);
    let token = fs::read_to_string(host.config("api.token")).unwrap();
    assert!(token.trim().len() == 64 && !said.out.contains(token.trim()), "{said:?}");
    for file in ["api.toml", "api.token"] {
        assert_eq!(mode(&host.config(file)), 0o600, "{file}");
    }
    let checked = host.world.portokd(&["--check", "--instance", "api"], &host.env()).ended(0);
    let command = toml::Value::String("node 'a b.js' \"$X\"".to_owned());
    let config: toml::Table = checked.out.parse().unwrap();
    assert_eq!(config["app"]["command"], command);
    assert_eq!(config["app"]["directory"].as_str(), Some("/srv"));
    assert_eq!(config["health"]["path"].as_str(), Some("/up"));

    let added = host.json(&["add", "web", "--target", "8123"], 0);
    assert_at(&added, "/instance", "web");
    assert_eq!(mode(&host.config("web.env")), 0o600);
    let lines = fs::read_to_string(host.config("web.env")).unwrap();
    assert_mentions(&lines, &["\nINSTANCE_NAME=web\n", "\nINITIAL_TARGET_PORT=8123\n", "\nADMIN_TOKEN="]);
    assert!(!host.config("web.token").exists());
    let files: Vec<_> = fs::read_dir(host.path("conf")).unwrap().collect();
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn add_overwrites_only_with_force_and_follows_no_link() {
    let host = Host::new();
    host.portok(&["add", "api", "--cmd", "one"]).ended(0);
    let token = fs::read_to_string(host.config("api.token")).unwrap();
    let said = host.portok(&["add", "api", "--target", "8123"]).ended(5);
    assert_mentions(&said.err, &["api.toml", "--force"]);
    assert_at(&host.json(&["add", "api"], 5), "/code", "exists");
    assert!(!host.config("api.env").exists());
    host.portok(&["add", "api", "--target", "8123", "--force"]).ended(0);
    assert!(
        !host.config("api.toml").exists() && !host.config("api.token").exists(),
        "one instance, one format"
    );
    let victim = host.path("victim");
    fs::write(&victim, "precious").unwrap();
    for file in ["api.toml", "api.token"] {
        symlink(&victim, host.config(file)).unwrap();
    }
    host.portok(&["add", "api", "--cmd", "two", "--force"]).ended(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(mode(&host.config("api.token")), 0o600);
    assert_ne!(fs::read_to_string(host.config("api.token")).unwrap(), token);
    // Whoever may write the folder could put a configuration of their own there.
    fs::set_permissions(host.path("conf"), fs::Permissions::from_mode(0o777)).unwrap();
    let said = host.portok(&["add", "web", "--cmd", "true"]).ended(1);
    assert_mentions(&said.err, &["others may write it", "chmod go-w"]);
    fs::set_permissions(host.path("conf"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn add_takes_no_port_that_somebody_has() {
    let host = Host::new();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = bound.local_addr().unwrap().port().to_string();
    let said = host.portok(&["add", "api", "--port", &port, "--cmd", "true"]).ended(5);
    assert_mentions(&said.err, &[&port, "somebody listens on it", "--force"]);
    host.portok(&["add", "api", "--port", &port, "--cmd", "true", "--force"]).ended(0);
    drop(bound);
    let said = host.portok(&["add", "web", "--port", &port]).ended(5);
    assert_mentions(&said.err, &["`api` has it"]);
    assert_at(&host.json(&["add", "web", "--port", &port], 5), "/code", "in_use");
    host.portok(&["add", "one"]).ended(0);
    host.portok(&["add", "two"]).ended(0);
    let value = |file: &str, key: &str| {
        let text = fs::read_to_string(host.config(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned()
    };
    for key in ["LISTEN_PORT=", "INITIAL_TARGET_PORT="] {
        assert_ne!(value("one.env", key), value("two.env", key));
    }
    host.portok(&["add", "three", "--port", "3999", "--target", "3999"]).ended(2);
}

#[test]
fn a_name_is_checked_before_it_becomes_a_path() {
    let host = Host::new();
    let long = "x".repeat(65);
    for command in ["add", "remove", "start", "stop", "restart", "enable", "disable", "logs"] {
        for name in ["../etc", "a/b", "", "a b", "a.b", "%i", &long] {
            let said = host.portok(&[command, name]).ended(2);
            assert!(!said.err.is_empty(), "{command} {name:?}");
        }
    }
    assert!(host.asked().is_empty());
    assert_eq!(fs::read_dir(host.path("conf")).unwrap().count(), 0);
}

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
    let said = host.portok(&["start", "api"]).ended(1);
    assert_mentions(
        &said.err,
        &["start of `api` failed", "Job for portok@api.service failed.", "lsten", "portok logs api"],
    );
    let failure = host.json(&["start", "api"], 1);
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
    assert_mentions(&host.portok(&["list"]).ended(0).out, &["no instances yet", "portok add"]);
    assert_eq!(host.json(&["list"], 0), Value::Array(Vec::new()));
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
    let table = host.portok(&["list"]).ended(0).out;
    assert_mentions(&table, &["NAME", name, "idle", &port, "idle.env", "! bad:", "nowhere"]);
    assert!(!table.contains(TOKEN), "{table}");
}

#[test]
fn remove_stops_first_and_takes_only_what_is_the_instances() {
    let host = Host::new();
    for name in ["api", "api2"] {
        host.portok(&["add", name, "--cmd", "true"]).ended(0);
    }
    let outside = host.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    for file in ["api.json", "api.json.corrupt-1", "api2.json", "other"] {
        fs::write(host.path("state").join(file), "{}").unwrap();
    }
    fs::create_dir(host.path("state/api")).unwrap();
    symlink(&outside, host.path("state/api/link")).unwrap();
    host.unit_is("api", "active");
    let said = host.portok(&["remove", "api"]).ended(5);
    assert_mentions(&said.err, &["`api` runs", "--force"]);
    assert_at(&host.json(&["remove", "api"], 5), "/code", "running");
    assert!(host.asked().is_empty() && host.config("api.toml").exists());

    let kept = host.json(&["remove", "api", "--force", "--keep-state"], 0);
    assert!(host.asked().contains(&"stop portok@api.service".to_owned()));
    assert!(!host.config("api.toml").exists() && !host.config("api.token").exists());
    assert!(host.path("state/api.json").exists() && host.path("state/api").exists(), "{kept:#}");
    host.portok(&["remove", "api"]).ended(0);
    for gone in ["api.json", "api.json.corrupt-1", "api"] {
        assert!(!host.path("state").join(gone).exists(), "{gone}");
    }
    assert!(outside.join("precious").exists() && host.path("state/api2.json").exists());
    assert!(host.path("state/other").exists() && host.config("api2.toml").exists());
    let said = host.portok(&["remove", "api"]).ended(5);
    assert_mentions(&said.err, &["there is no instance `api`"]);
}

#[test]
fn a_daemon_that_systemd_did_not_start_is_not_robbed_of_its_files() {
    let host = Host::new();
    let daemon = host.world.start(&host.world.conf().app(&host.world.app("v1")));
    daemon.wait_until_serves("v1");
    let name = host.world.name();
    let said = host.portok(&["remove", name, "--force"]).ended(5);
    assert_mentions(&said.err, &[&format!("kill {}", daemon.pid()), "systemd did not start"]);
    assert!(host.config(&format!("{name}.toml")).exists());
    host.portok(&["clean", "--force"]).ended(5);
    assert!(host.config(&format!("{name}.toml")).exists());
}

#[test]
fn an_app_that_outlived_its_daemon_is_stopped_with_it() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    let leave = || {
        host.unit_is("api", "failed");
        fs::write(host.path("fakes/portok@api.service.left"), "/system.slice/portok@api.service").unwrap();
        host.asked();
    };
    leave();
    let said = host.portok(&["doctor"]).ended(1);
    assert_mentions(&said.out, &["✗ the daemon of `api` is gone, its app runs on without it"]);
    host.portok(&["remove", "api"]).ended(5);
    host.portok(&["stop", "api"]).ended(0);
    assert_eq!(host.asked(), ["stop portok@api.service", "kill --kill-who=all portok@api.service"]);
    leave();
    host.portok(&["remove", "api", "--force"]).ended(0);
    assert_eq!(host.asked(), ["kill --kill-who=all portok@api.service", "reset-failed portok@api.service"]);
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
    host.unit_is("api", "failed");
    host.portok(&["restart", "api"]).ended(0);
}

#[test]
fn clean_tells_first_and_then_removes_what_portok_made() {
    let host = Host::new();
    assert_mentions(&host.portok(&["clean"]).ended(5).out, &["would remove", "conf"]);
    host.portok(&["init", "--user", "nobody"]).ended(0);
    host.portok(&["init", "--user", "root"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    host.portok(&["enable", "api", "--now"]).ended(0);
    host.asked();
    fs::write(host.path("state/api.json"), "{}").unwrap();
    fs::write(host.config("notes.txt"), "mine").unwrap();
    let said = host.portok(&["clean"]).ended(5);
    assert_mentions(
        &said.out,
        &["would stop", "portok@api.service", "api.toml", "api.json", "portok@.service"],
    );
    let told = host.json(&["clean"], 5);
    assert_at(&told, "/code", "not_forced");
    assert!(host.config("api.toml").exists() && host.asked().is_empty());
    let done = host.json(&["clean", "--force"], 0);
    assert_eq!(host.asked(), ["stop portok@api.service", "disable portok@api.service", "daemon-reload"]);
    assert!(!host.path("state").exists() && !host.path("units/portok@.service").exists(), "{done:#}");
    let left: Vec<_> =
        fs::read_dir(host.path("conf")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"], "what is not portok's stays");
    fs::create_dir(host.path("state")).unwrap();
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
    assert_mentions(&said.out, &["✓", "all is well", PORTOKD, "`api`"]);
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

#[test]
fn completions_and_man_pages_are_those_of_this_build() {
    let host = Host::new();
    let contrib = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let kept = |file: &str| fs::read_to_string(contrib.join(file)).unwrap_or_default();
    for (shell, file) in [("bash", "portok.bash"), ("zsh", "_portok"), ("fish", "portok.fish")] {
        let made = host.portok(&["completions", shell]).ended(0).out;
        let file = format!("completions/{file}");
        assert!(made == kept(&file), "make it anew: contrib/generate ({file}, {shell})");
    }
    fs::create_dir(host.path("man")).unwrap();
    host.portok(&["man", &host.path("man").display().to_string()]).ended(0);
    for file in ["portok.1", "portokd.8"] {
        let made = fs::read_to_string(host.path("man").join(file)).unwrap();
        assert!(made == kept(&format!("man/{file}")), "make it anew: contrib/generate ({file})");
    }
}
