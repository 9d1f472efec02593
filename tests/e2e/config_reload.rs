//! The configuration while the daemon runs: what an edit does, and what a bad one does not.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use serde_json::Value;
use toml::toml;

use crate::harness::http::request_bytes;
use crate::harness::{Conn, Daemon, World, assert_at, assert_mentions, live, pid, wait_until};

fn reload(daemon: &Daemon<'_>) -> Value {
    daemon.admin("POST", "/__reload", None).expect(200).json()
}

#[test]
fn an_edit_of_the_app_is_a_deploy_like_any_other() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let old = live(&before).unwrap().to_owned();
    conf.clone().app(&world.app("v2")).save();
    let status = daemon.wait_until_serves("v2");
    let last = status.last_switch.unwrap();
    assert_eq!((last.reason.as_str(), last.from), ("config", before.active_port));
    daemon.wait_until_stopped(&old);
    // The same through a file that is written in place.
    conf.app(&world.app("v3")).save_in_place();
    daemon.wait_until_serves("v3");
}

#[test]
fn an_aborted_edit_is_not_tried_again_until_it_changes() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let bad = world.app("v2").with("exit", 1);
    let mut conf = conf.app(&bad);
    conf.save();
    daemon.wait_until("the edit was aborted", |status| {
        status.last_failure.is_some() && status.candidate.is_none()
    });
    let starts = bad.count("start ");
    // Further reloads, with and without another change, try nothing.
    reload(&daemon);
    conf.put("drain.period", "9s");
    conf.save();
    let changed = reload(&daemon);
    assert_at(&changed, "/release", Value::Null);
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.status().candidate, None);
    assert_eq!(bad.count("start "), starts);
    assert_eq!(daemon.get("/").version(), "v1");
    // Nor does a restart of the daemon.
    daemon.terminate();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(bad.count("start "), starts);
    // A new edit is.
    conf.app(&world.app("v3")).save();
    daemon.wait_until_serves("v3");
}

#[test]
fn an_edit_that_was_rolled_back_is_not_tried_again() {
    let world = World::new();
    let conf =
        world.conf().app(&world.app("v1")).set("rollback.interval", "50ms").set("rollback.window", "10m");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let bad = world.app("v2").with("health_file", world.path("health").display());
    conf.app(&bad).save();
    daemon.wait_until_serves("v2");
    world.write("health", "500");
    daemon.wait_until_serves("v1");
    std::fs::remove_file(world.path("health")).unwrap();
    reload(&daemon);
    reload(&daemon);
    let status = daemon.status();
    assert_eq!(status.candidate, None);
    assert_eq!(status.last_switch.unwrap().reason.as_str(), "auto-rollback");
    assert_eq!(bad.count("start "), 1);
}

#[test]
fn with_deploy_on_change_off_an_edit_of_the_app_deploys_nothing() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.deploy_on_change", false);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let next = world.app("v2");
    conf.app(&next).save();
    reload(&daemon);
    assert!(next.pids().is_empty());
    daemon.admin("POST", "/__deploy", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v2", "a deploy by hand takes the new table");
}

#[test]
fn an_edit_of_the_env_file_alone_deploys_nothing() {
    let world = World::new();
    world.write("conf/app.env", "A=1\n");
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("app.env_file", world.path("conf/app.env").display().to_string());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    world.write("conf/app.env", "A=2\n");
    reload(&daemon);
    assert_eq!(app.count("start "), 1);
    assert_at(&daemon.get("/env").json(), "/A", "1");
}

#[test]
fn bad_files_change_nothing_and_show_until_a_good_one_comes() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let file = conf.file().display().to_string();
    let never = world.app("v2");
    let bad = [
        // An empty file is a valid one, but for the name that it changes.
        ("name = \"\"\n", "no name"),
        ("listen = \n", "torn"),
        (&conf.text()[..conf.text().len() / 2], "cut off"),
        (&*format!("{}\n[drian]\nperiod = \"1s\"\n", conf.text()), "unknown table"),
        (&*conf.clone().app(&never).set("drain.period", "soon").text(), "bad duration"),
        (&*conf.clone().app(&never).set("health.successes", -1).text(), "bad number"),
        (&*conf.clone().app(&never).set("app.restart.brust", 3).text(), "unknown key"),
        (&*conf.clone().app(&never).set("rollback.standby", "forever").text(), "bad choice"),
        (&*conf.clone().set("app.target", 8081).text(), "command and target"),
    ];
    for (text, what) in bad {
        let loaded_at = daemon.status().config.loaded_at;
        conf.save_text(text);
        daemon.wait_until(&format!("{what} is told"), |status| status.config.error.is_some());
        let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
        assert!(refused["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{what}: {refused:#}");
        assert!(refused.to_string().contains(&file), "{what}: the file is named: {refused:#}");
        let status = daemon.status();
        assert_eq!((live(&status), pid(&status)), (live(&before), pid(&before)), "{what}");
        assert_eq!(status.config.loaded_at, loaded_at, "{what}");
        assert_eq!(daemon.get("/").version(), "v1");
        conf.save();
        daemon.wait_until(&format!("{what} is mended"), |status| status.config.error.is_none());
    }
    assert!(never.pids().is_empty());
    assert_eq!(daemon.status().last_switch, before.last_switch);
}

#[test]
fn all_errors_of_a_file_come_at_once_with_place_and_hint() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let text = conf.text();
    assert!(text.contains("[proxy]\n"), "{text}");
    let text = text.replace("[proxy]\n", "[proxy]\nidel_timeout = \"5s\"\nmax_body = \"lots\"\n");
    conf.save_text(&format!("{text}\n[hooks]\non_event = \"no array\"\n"));
    let said = daemon.portok(&["reload"]).ended(2);
    let place = |key: &str| {
        let line = std::fs::read_to_string(conf.file())
            .unwrap()
            .lines()
            .position(|line| line.starts_with(key))
            .unwrap()
            + 1;
        format!("{}:{line}:", conf.file().display())
    };
    assert_mentions(&said.err, &["idel_timeout", "idle_timeout", &place("idel_timeout")]);
    assert_mentions(&said.err, &["max_body", "lots", &place("max_body"), "on_event", &place("on_event")]);
    conf.save();
}

#[test]
fn a_deleted_file_changes_nothing() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    std::fs::remove_file(conf.file()).unwrap();
    daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    daemon.wait_until("it is told", |status| status.config.error.is_some());
    assert_eq!(daemon.get("/").version(), "v1");
    conf.save();
    let after = daemon.wait_until("it is mended", |status| status.config.error.is_none());
    assert_eq!(pid(&after), pid(&before));
}

#[test]
fn what_cannot_change_live_is_refused_with_the_reason() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("proxy.threads", 1);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let state = world.path("state/other.json").display().to_string();
    for (key, value) in [("name", "another"), ("state_file", state.as_str())] {
        conf.clone().set(key, value).set("drain.period", "9s").save();
        let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
        assert_mentions(&refused.to_string(), &[key, "restart"]);
    }
    conf.clone().set("proxy.threads", 2).save();
    let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    assert_mentions(&refused.to_string(), &["threads", "restart"]);
    assert!(daemon.status().config.error.is_some_and(|error| error.contains("threads")));
    assert_eq!(daemon.status().instance, world.name());
    conf.save();
}

#[test]
fn a_timeout_applies_to_the_next_request_without_closing_a_connection() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("proxy.idle_timeout", "60s");
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    conn.request("GET", "/", &[], None).unwrap().expect(200);
    conf.set("upstream.response_timeout", "200ms").save();
    let changed = reload(&daemon);
    assert_at(&changed, "/success", true);
    let path = format!("/hold?file={}", world.path("never").display());
    let answer = conn.request("GET", &path, &[], None).unwrap().expect(504);
    assert_eq!(answer.header("portok-error"), Some("upstream_timeout"));
    let after = daemon.status();
    assert_eq!(pid(&after), pid(&before), "nothing was deployed");
    assert_eq!(after.last_switch, before.last_switch);
}

#[test]
fn a_reload_without_a_change_says_so_and_does_nothing() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app));
    let before = daemon.wait_until_serves("v1");
    let none = reload(&daemon);
    assert_at(&none, "/success", true);
    assert_eq!(none["changed"], serde_json::json!([]));
    let said = daemon.portok(&["reload", "--json"]).ended(0);
    assert_eq!(said.json()["changed"], serde_json::json!([]));
    assert_eq!(pid(&daemon.status()), pid(&before));
}

#[test]
fn a_signal_reloads_too_and_its_outcome_is_in_the_log() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    conf.save_text("drain = 7\n");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until("the error shows", |status| status.config.error.is_some());
    wait_until("the error is logged", || daemon.log(), || daemon.log().contains("drain").then_some(()));
    conf.app(&world.app("v2")).save();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_serves("v2");
}

#[test]
fn a_new_address_is_bound_before_the_old_one_stops_accepting() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("proxy.idle_timeout", "60s");
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let mut kept = daemon.connect();
    kept.request("GET", "/", &[], None).unwrap().expect(200);
    conf.set("listen", "127.0.0.2:0").save();
    reload(&daemon);
    let status = daemon.status();
    let moved: SocketAddr = status.listen.parse().unwrap();
    assert_eq!(moved.ip().to_string(), "127.0.0.2");
    let mut conn = Conn::tcp(moved).unwrap();
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1");
    assert_eq!(kept.request("GET", "/", &[], None).unwrap().version(), "v1", "no connection is dropped");
    wait_until("the old address is free", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    assert_eq!(pid(&status), pid(&before));
}

#[test]
fn an_address_that_cannot_be_bound_is_refused_and_the_old_one_stays() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    conf.clone().set("listen", addr.as_str()).save();
    let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    assert_mentions(&refused.to_string(), &[&addr]);
    assert!(daemon.status().config.error.is_some());
    assert_eq!(daemon.get("/").version(), "v1");
    conf.save();
    daemon.wait_until("it is mended", |status| status.config.error.is_none());
}

#[test]
fn a_socket_that_cannot_be_shared_leaves_the_address_where_it_is() {
    let Ok(Some(group)) = nix::unistd::Group::from_gid(nix::unistd::getgid()) else {
        eprintln!("SKIPPED: the group of this process has no name");
        return;
    };
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let aside = world.path("aside");
    std::fs::rename(world.socket(), &aside).unwrap();
    let both = conf.clone().set("listen", "127.0.0.2:0").set("admin.socket_group", group.name.as_str());
    both.save();
    let refused = daemon.send_admin("POST", "/__reload").refused(422, "config_invalid");
    assert_mentions(&refused.to_string(), &["admin.socket_group", "give to its group"]);
    // The watch must not find the one together with the other.
    conf.save();
    std::fs::rename(&aside, world.socket()).unwrap();
    assert!(reload(&daemon)["changed"].as_array().unwrap().is_empty(), "nothing has changed");
    assert_eq!(daemon.status().listen, before.listen);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_new_token_replaces_the_old_one_at_once() {
    let world = World::new();
    let token = world.path("conf/token");
    world.write("conf/token", "the-first-token\n");
    let conf = world.conf().app(&world.app("v1"));
    let text = conf.text().replace(
        &format!("token = \"{}\"", crate::harness::daemon::TOKEN),
        &format!("token_file = \"{}\"", token.display()),
    );
    conf.save_text(&text);
    let daemon = world.start_saved(&conf);
    daemon.wait_until_serves("v1");
    let status = |token: &str| {
        daemon.send("GET", "/__status", &[("authorization", &format!("Bearer {token}"))], None).status()
    };
    assert_eq!((status("the-first-token"), status("the-second-token")), (200, 401));
    world.write("conf/token", "the-second-token\n");
    reload(&daemon);
    assert_eq!((status("the-first-token"), status("the-second-token")), (401, 200));
}

#[test]
fn a_storm_of_edits_ends_with_the_last_one() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.restart", toml! { backoff = "1s" });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    for number in 2..30 {
        conf.clone().app(&world.app(&format!("v{number}"))).save();
        if number % 3 == 0 {
            conf.save_text("half = \"a fi");
        }
    }
    conf.app(&world.app("last")).save();
    daemon.wait_until_serves("last");
    let status = daemon.wait_until("it has come to rest", |status| status.candidate.is_none());
    assert_eq!(status.config.error, None);
}

#[test]
fn a_reload_through_the_socket_that_it_moves_is_answered() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    let before = daemon.wait_until_serves("v1");
    let paths = [world.socket(), world.path("moved"), world.socket()];
    for (old, new) in paths.iter().zip(&paths[1..]) {
        // Held up until the question has come, so that the watch on the file is not faster.
        daemon.signal(Signal::SIGSTOP);
        world.conf().app(&world.app("v1")).set("admin.socket", new.display().to_string()).save();
        let mut conn = Conn::unix(old).unwrap();
        conn.send(&request_bytes("POST", "/__reload", &[], None)).unwrap();
        daemon.signal(Signal::SIGCONT);
        let answer = conn.answer("POST").unwrap().expect(200).json();
        assert_at(&answer, "/success", true);
        let status = Conn::unix(new).unwrap().request("GET", "/__status", &[], None).unwrap().expect(200);
        assert_at(&status.json(), "/live/pid", pid(&before).unwrap());
        wait_until(
            "the former socket is gone",
            || daemon.log(),
            || (!old.exists() && Conn::unix(old).is_err()).then_some(()),
        );
        assert_eq!(daemon.get("/").version(), "v1");
    }
    assert_eq!(pid(&daemon.status()), pid(&before));
}

#[test]
fn the_socket_is_given_to_another_group_where_it_is() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: only root can give a socket to a group of which it is no member");
        return;
    }
    let groups = ["daemon", "nogroup", "nobody", "users"];
    let known = groups.into_iter().find_map(|name| nix::unistd::Group::from_name(name).ok().flatten());
    let Some(group) = known else {
        eprintln!("SKIPPED: none of the groups {groups:?} exists");
        return;
    };
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let seen = || {
        let meta = std::fs::metadata(world.socket()).unwrap();
        (meta.ino(), meta.mode() & 0o777)
    };
    let (socket, mode) = seen();
    assert_eq!(mode, 0o600);
    let mut kept = Conn::unix(&world.socket()).unwrap();
    kept.request("GET", "/__status", &[], None).unwrap().expect(200);
    conf.clone().set("admin.socket_group", group.name.as_str()).save();
    reload(&daemon);
    assert_eq!(std::fs::metadata(world.socket()).unwrap().gid(), group.gid.as_raw());
    assert_eq!(seen(), (socket, 0o660), "it is the same socket");
    kept.request("GET", "/__status", &[], None).unwrap().expect(200);
    assert_eq!(pid(&daemon.status()), pid(&before));
    // One that does not exist changes nothing.
    conf.clone().set("admin.socket_group", "no-such-group-at-all").save();
    let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    assert_mentions(&refused.to_string(), &["no-such-group-at-all"]);
    assert_eq!(seen(), (socket, 0o660));
    conf.save();
    reload(&daemon);
    assert_eq!(seen(), (socket, 0o600));
    kept.request("GET", "/__status", &[], None).unwrap().expect(200);
}
