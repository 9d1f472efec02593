//! What an operator and a script see of an instance with several apps: the API, the command line,
//! and apps that are added and removed by commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use portok::wire::AppRow;
use serde_json::Value;

use crate::harness::command::{PORTOK, Said};
use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::{Daemon, World, assert_at, assert_mentions, wait_until};

/// A configuration of three apps: two that portok runs, and one that sends its clients elsewhere.
fn conf(world: &World) -> Conf {
    let app = |version: &str| world.app(version).with("say", format!("hello-of-{version}")).command();
    Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("removal_delay", "100ms")
        .set("state_file", world.state_file().display().to_string())
        .set("drain.period", "10s")
        .set("drain.early", true)
        .set("admin.socket", world.socket().display().to_string())
        .set("admin.token", TOKEN)
        .set("apps.api.hosts", vec!["api.test"])
        .set("apps.api.command", app("a1"))
        .set("apps.web.hosts", vec!["web.test", "*.web.test"])
        .set("apps.web.paths", vec!["/v1", "/"])
        .set("apps.web.command", app("w1"))
        .set("apps.www.hosts", vec!["www.test"])
        .set("apps.www.redirect", "https://web.test")
}

/// The rows of `GET /__apps`.
#[track_caller]
fn apps(daemon: &Daemon<'_>) -> Vec<AppRow> {
    serde_json::from_value(daemon.admin("GET", "/__apps", None).expect(200).json()).expect("rows of apps")
}

fn names(daemon: &Daemon<'_>) -> Vec<String> {
    apps(daemon).into_iter().map(|row| row.app).collect()
}

/// Waits until every app is healthy, as an operator does.
#[track_caller]
fn wait_until_healthy(daemon: &Daemon<'_>) {
    daemon.portok(&["status", "--wait", "1m"]).ended(0);
}

#[track_caller]
fn version_of(daemon: &Daemon<'_>, host: &str) -> String {
    daemon.send("GET", "/", &[("host", host)], None).version().to_owned()
}

#[test]
fn every_call_names_its_app_and_touches_no_other() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    for (method, path) in [
        ("GET", "status"),
        ("GET", "health"),
        ("GET", "releases"),
        ("GET", "logs"),
        ("POST", "deploy"),
        ("POST", "switch?port=1"),
        ("POST", "rollback"),
        ("POST", "cancel"),
    ] {
        let refused = daemon.admin(method, &format!("/__{path}"), None).refused(400, "app_required");
        assert_mentions(&refused.to_string(), &["api", "web", "www"]);
        let mark = if path.contains('?') { '&' } else { '?' };
        daemon.admin(method, &format!("/__{path}{mark}app=none"), None).refused(404, "no_such_app");
    }
    for path in ["apps", "metrics"] {
        daemon.admin("GET", &format!("/__{path}?app=none"), None).refused(404, "no_such_app");
    }
    for path in ["reload", "upgrade"] {
        daemon.admin("POST", &format!("/__{path}?app=api"), None).refused(400, "bad_request");
    }
    let status = |app: &str| daemon.admin("GET", &format!("/__status?app={app}"), None).expect(200).json();
    let api = status("api");
    assert_at(&api, "/instance", world.name());
    assert_at(&api, "/app", "api");
    assert_at(&api, "/config/error", Value::Null);
    let web = status("web");
    assert_ne!(api["activePort"], web["activePort"]);
    assert_at(&status("www"), "/phase", "settled");
    let two = daemon.admin("POST", "/__switch?app=web&port=1&port=2", None);
    assert_mentions(&two.refused(400, "bad_request").to_string(), &["one port only"]);
    let logs = daemon.admin("GET", "/__logs?app=api", None).expect(200).text();
    assert!(logs.contains("hello-of-a1") && !logs.contains("hello-of-w1"), "{logs}");
    let body = crate::harness::deploy_body(&world.app("w2"));
    let moved = daemon.admin("POST", "/__deploy?app=web", Some(&body)).expect(200).json();
    assert_at(&moved, "/release", "w2");
    assert_eq!(
        (version_of(&daemon, "web.test"), version_of(&daemon, "api.test")),
        ("w2".into(), "a1".into())
    );
    assert_eq!(status("api")["live"], api["live"], "of the other app nothing has moved");
}

#[test]
fn rows_and_counters_are_of_each_app_and_of_all_together() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    let table = [("api.test", 200, 3), ("web.test", 200, 2), ("www.test", 308, 1), ("nobody.test", 404, 4)];
    for (host, status, times) in table {
        for _ in 0..times {
            daemon.send("GET", "/", &[("host", host)], None).expect(status);
        }
    }
    let rows = daemon.admin("GET", "/__apps", None).expect(200).json();
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows:#}");
    assert_at(&rows, "/0/app", "api");
    assert_at(&rows, "/0/replicas/ready", 1);
    assert_at(&rows, "/0/errorRatio", 0.0);
    assert!(rows[0]["p99Ms"].as_f64().is_some_and(|p99| p99 > 0.0), "{rows:#}");
    assert_at(&rows, "/1/hosts/1", "*.web.test");
    assert_at(&rows, "/1/paths/0", "/v1");
    assert_at(&rows, "/2/app", "www");
    assert_at(&rows, "/2/replicas", Value::Null);
    assert_at(&rows, "/2/source", "file");
    assert_at(&daemon.admin("GET", "/__apps?app=web", None).expect(200).json(), "/0/app", "web");
    let requests = |query: &str| {
        daemon.admin("GET", &format!("/__metrics{query}"), None).expect(200).json()["totalRequests"].clone()
    };
    assert_eq!((requests("?app=api"), requests("?app=web"), requests("")), (3.into(), 2.into(), 10.into()));
    let text = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
    assert_mentions(
        &text,
        &[
            "\nportok_requests_total{app=\"api\"} 3\n",
            "\nportok_requests_total{app=\"web\"} 2\n",
            "\nportok_requests_total 4\n",
            "\nportok_phase{app=\"www\",phase=\"settled\"} 1\n",
        ],
    );
}

#[test]
fn the_command_line_shows_all_apps_until_one_is_named() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    let shown = daemon.portok(&["status"]).ended(0).out;
    assert_mentions(&shown, &["api", "web.test", "www", "--app api"]);
    assert_eq!(daemon.portok(&["apps", "--json"]).ended(0).json().as_array().map(Vec::len), Some(3));
    let one = daemon.portok(&["status", "--app", "web"]).ended(0).out;
    assert_mentions(&one, &[&format!("{}/web is", world.name())]);
    let refused = daemon.portok(&["rollback"]).ended(5).err;
    assert_mentions(&refused, &["api, web, www", "--app NAME"]);
    assert_mentions(&daemon.portok(&["logs", "--app", "api"]).ended(0).out, &["hello-of-a1"]);
    let deployed =
        ["deploy", "--app", "web", "--release", "w2", "--cmd", &world.app("w2").command(), "--json"];
    assert_at(&daemon.portok(&deployed).ended(0).json(), "/outcome", "live");
    // The hint works as it stands.
    let unknown = daemon.portok(&["status", "--app", "none"]).ended(5).err;
    assert_mentions(
        &unknown,
        &["api, web, www", &format!("hint: portok --socket {} apps shows", world.socket().display())],
    );
    daemon.portok(&["status", "--app", "none", "--wait", "1s"]).ended(5);
    daemon.portok(&["deploy", "--app", "web", "--cmd", "false"]).ended(3);
    assert_eq!(version_of(&daemon, "web.test"), "w2");
}

/// Runs a command that administers this machine, whose folder of configurations is the world's.
#[track_caller]
fn administer(world: &World, words: &[&str]) -> Said {
    let mut env: BTreeMap<String, String> = world.env();
    for (variable, folder) in
        [("PORTOK_CONFIG_DIR", "conf"), ("PORTOK_STATE_DIR", "state"), ("PORTOK_UNIT_DIR", "units")]
    {
        env.insert(variable.to_owned(), world.path(folder).display().to_string());
    }
    world.spawn(PORTOK, words, &env).wait()
}

#[test]
fn an_app_is_added_to_a_running_instance_and_removed_from_it() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    let instance = world.name();
    let command = world.app("s1").command();
    let add = ["add", "shop", "--to", instance, "--host", "shop.test", "--cmd", &command];
    let added = administer(&world, &add).ended(0).out;
    let file = world.path(&format!("conf/{instance}.d/shop.toml"));
    assert_mentions(&added, &["created", &file.display().to_string(), "has loaded it"]);
    let came = |host: &'static str, version: &'static str| {
        let serves = || (version_of(&daemon, host) == version).then_some(());
        wait_until("the added app serves", || format!("{:#?}\n{}", apps(&daemon), daemon.log()), serves);
    };
    assert_eq!(names(&daemon), ["api", "shop", "web", "www"], "it is there at once");
    daemon.portok(&["status", "--app", "shop", "--wait", "1m"]).ended(0);
    came("shop.test", "s1");
    administer(&world, &add).ended(5);
    let clash = administer(&world, &["add", "copy", "--to", instance, "--host", "api.test", "--target", "1"]);
    assert_mentions(&clash.ended(5).err, &["api.test/", "`api`"]);
    let taken = administer(&world, &["add", "a", "--to", instance, "--redirect", "nonsense"]);
    assert_mentions(&taken.ended(2).err, &["redirect"]);
    assert_eq!(names(&daemon), ["api", "shop", "web", "www"]);

    // A file that is broken by hand is told of, and leaves the app as it is.
    world.write(&format!("conf/{instance}.d/shop.toml"), "hosts = [\"shop.test\"]\ncomand = \"x\"\n");
    let reloaded = daemon.portok(&["reload"]).ended(1).out;
    assert_mentions(&reloaded, &["not all of it is in force", "refused", "shop", "comand"]);
    let reloaded = daemon.portok(&["reload", "--json"]).ended(1).json();
    assert_at(&reloaded, "/success", false);
    assert_at(&reloaded, "/apps/0/change", "refused");
    let row = apps(&daemon).into_iter().find(|row| row.app == "shop").expect("it is there");
    assert_mentions(row.error.as_deref().unwrap_or_default(), &["shop.toml:2", "comand"]);
    let status = daemon.admin("GET", "/__status?app=shop", None).expect(200).json();
    assert_mentions(status["config"]["error"].as_str().unwrap_or_default(), &["comand"]);
    assert_at(
        &daemon.admin("GET", "/__status?app=api", None).expect(200).json(),
        "/config/error",
        Value::Null,
    );
    assert_eq!(version_of(&daemon, "shop.test"), "s1");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let doctor = administer(&world, &["doctor", "--json"]).json();
    let readable = format!("everybody may read {} (mode 0644)", file.display());
    assert_mentions(&doctor.to_string(), &["shop`: ", "comand", &readable]);

    for command in ["start", "stop", "restart", "enable", "disable"] {
        let refused = administer(&world, &[command, &format!("{instance}/api")]).ended(2).err;
        assert_mentions(&refused, &["its service, with all of its apps", "portok deploy --force --instance"]);
    }
    let main = administer(&world, &["remove", &format!("{instance}/api")]);
    assert_mentions(&main.ended(2).err, &["[apps.api]"]);
    let of_redis = administer(&world, &["remove", &format!("{instance}/redis:x.test")]);
    assert_mentions(&of_redis.ended(2).err, &["frontend:x.test", "in Redis"]);
    let twice = administer(&world, &["add", "api", "--to", instance, "--redirect", "https://a.test"]);
    let hint = twice.ended(5).err;
    assert!(hint.contains("[apps.api]") && !hint.contains("portok remove"), "{hint}");
    let removed = administer(&world, &["remove", &format!("{instance}/shop")]).ended(0).out;
    assert_mentions(&removed, &["removed", &format!("the daemon of `{instance}` has")]);
    let explain = || format!("{:#?}\n{}", apps(&daemon), daemon.log());
    wait_until("the removed app is gone", explain, || {
        daemon.admin("POST", "/__reload", None).expect(200);
        (names(&daemon) == ["api", "web", "www"]).then_some(())
    });
    daemon.send("GET", "/", &[("host", "shop.test")], None).expect(404);
    assert_eq!(version_of(&daemon, "api.test"), "a1");
}

#[test]
fn a_file_that_comes_and_goes_is_noticed_without_a_reload() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    let explain = || format!("{:#?}\n{}", apps(&daemon), daemon.log());
    // The folder is made for the first, and empty after the second.
    let folder = world.path(&format!("conf/{}.d", world.name()));
    for round in 1..=2 {
        let version = format!("s{round}");
        let file = Conf::new(folder.join("shop.toml"))
            .set("hosts", vec!["shop.test"])
            .set("command", world.app(&version).command());
        fs::create_dir_all(&folder).unwrap();
        file.save();
        let serves = || (version_of(&daemon, "shop.test") == version).then_some(());
        wait_until("the added app serves", explain, serves);
        fs::remove_file(file.file()).unwrap();
        let is_gone = || (names(&daemon) == ["api", "web", "www"]).then_some(());
        wait_until("the removed app is gone", explain, is_gone);
        daemon.send("GET", "/", &[("host", "shop.test")], None).expect(404);
        assert_eq!(world.processes().len(), 2, "{:#?}", world.processes());
    }
    assert!(!daemon.log().contains("/__reload"), "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn an_app_that_the_daemon_refuses_is_told_to_who_adds_it() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    wait_until_healthy(&daemon);
    let instance = world.name();
    let own = ["add", "own", "--to", instance, "--redirect", "https://a.test", "--listen"];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let added = administer(&world, &[&own[..], &[&address]].concat()).ended(1).out;
    assert_mentions(&added, &["created", "not all of it", &format!("cannot listen on {address}")]);
    let json = administer(&world, &["remove", &format!("{instance}/own"), "--json"]).ended(0).json();
    assert_mentions(&json["notes"].to_string(), &[&format!("the daemon of `{instance}` has")]);
    daemon.terminate();
    let without = administer(&world, &["add", "late", "--to", instance, "--redirect", "https://a.test"]);
    assert_mentions(&without.ended(0).out, &["does not answer; once it runs, it loads it"]);
}
