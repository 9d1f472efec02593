//! What takes away: `remove`, `clean`, and `stop` where the daemon is gone already.

use std::fs;
use std::os::unix::fs::symlink;

use super::Host;
use crate::harness::{assert_at, assert_mentions};

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
    fs::write(host.path("state/api/api.json"), "{}").unwrap();
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
    assert_eq!(
        host.asked(),
        ["stop portok@api.service", "kill --kill-who=all --signal=SIGTERM portok@api.service"]
    );
    leave();
    host.portok(&["remove", "api", "--force"]).ended(0);
    assert_eq!(
        host.asked(),
        ["kill --kill-who=all --signal=SIGTERM portok@api.service", "reset-failed portok@api.service"]
    );
}

#[test]
fn an_app_with_limits_that_outlived_its_daemon_is_found_in_its_scope() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    for name in ["api", "api-two"] {
        host.portok(&["add", name, "--cmd", "true"]).ended(0);
        host.unit_is(name, "failed");
    }
    let scope = |release: &str| format!("portok-api-two-{release}-0123abcd.scope");
    let leave = || {
        for release in ["r1", "r2"] {
            fs::write(host.path("fakes").join(scope(release)), "portok@api-two.service").unwrap();
        }
        host.asked();
    };
    leave();
    let said = host.portok(&["doctor"]).ended(1);
    assert_mentions(&said.out, &["✗ the daemon of `api-two` is gone, its app runs on without it"]);
    host.portok(&["remove", "api-two"]).ended(5);
    host.portok(&["stop", "api"]).ended(0);
    assert_eq!(host.asked(), ["stop portok@api.service"], "its name begins like the other's");
    host.portok(&["stop", "api-two"]).ended(0);
    let kill = format!("kill --kill-who=all --signal=SIGTERM {} {}", scope("r1"), scope("r2"));
    assert_eq!(host.asked(), ["stop portok@api-two.service", &kill]);
    leave();
    host.portok(&["remove", "api-two", "--force"]).ended(0);
    assert_eq!(host.asked(), [kill]);
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
    // systemd forgets what has ended.
    fs::remove_file(host.path("fakes/portok@api.service.active")).unwrap();
    let said = host.portok(&["clean"]).ended(0);
    assert_mentions(&said.out, &["kept", "which holds what is not portok's"]);
    fs::create_dir(host.path("state")).unwrap();
}

#[test]
fn what_never_was_is_not_said_to_be_stopped() {
    let host = Host::new();
    for verb in ["stop", "disable"] {
        let said = host.portok(&[verb, "aip"]).ended(5);
        assert_mentions(&said.err, &["there is no instance `aip`", "portok list"]);
        assert_at(&host.json(&[verb, "aip"], 5), "/code", "not_found");
    }
    assert!(host.asked().is_empty());
    // Its files are gone, it is not.
    host.unit_is("aip", "active");
    host.portok(&["stop", "aip"]).ended(0);
    assert_eq!(host.asked(), ["stop portok@aip.service"]);
}

#[test]
fn a_folder_that_only_has_the_name_of_an_instance_stays() {
    let host = Host::new();
    host.portok(&["init"]).ended(0);
    host.portok(&["add", "api", "--cmd", "true"]).ended(0);
    // Where the states were moved to a place that others use, as PORTOK_STATE_DIR=/srv does.
    for name in ["api", "other"] {
        fs::create_dir(host.path("state").join(name)).unwrap();
        fs::write(host.path("state").join(name).join("server.js"), "precious").unwrap();
    }
    fs::write(host.path("state/api.json"), "{}").unwrap();
    host.portok(&["remove", "api"]).ended(0);
    assert!(!host.path("state/api.json").exists() && host.path("state/api/server.js").exists());
    let told = host.portok(&["clean"]).ended(5);
    assert!(!told.out.contains("state/other"), "{}", told.out);
    let said = host.portok(&["clean", "--force"]).ended(0);
    assert_mentions(&said.out, &["kept", "which holds what is not portok's"]);
    for name in ["api", "other"] {
        assert!(host.path("state").join(name).join("server.js").exists(), "{name}");
    }
}
