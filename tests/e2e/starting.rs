//! How an app is started: where it has to listen, how often it is started, and in which folder it runs.

use std::fs;

use serde_json::json;

use crate::harness::command::PORTOK;
use crate::harness::{World, assert_at, assert_mentions, wait_until};

#[test]
fn one_at_another_loopback_address_is_told_where_it_listens() {
    let world = World::new();
    let daemon = world.start(
        &world.conf().app(&world.app("v1")).set("app.start_timeout", "4s").set("app.stop_timeout", "300ms"),
    );
    daemon.wait_until_serves("v1");
    let six = std::net::TcpListener::bind("[::1]:0").is_ok();
    let hosts = [("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")];
    for (host, shown) in hosts.into_iter().take(if six { 2 } else { 1 }) {
        let app = world.app("v2");
        let body = json!({ "command": app.command(), "env": { "HOST": host } });
        let body = daemon.admin("POST", "/__deploy", Some(&body)).refused(409, "deploy_aborted");
        let autopsy = &body["autopsy"];
        let port = autopsy["port"].as_u64().expect("the port it was told");
        let hint = autopsy["hint"].as_str().unwrap_or_default();
        assert_mentions(hint, &[&format!("{shown}:{port}"), &format!("127.0.0.1:{port}"), "HOST"]);
        assert_at(autopsy, "/listensOn/0", format!("{shown}:{port}").as_str());
    }
}

#[test]
fn whoever_follows_a_deploy_is_told_once_what_it_waits_for_and_what_is_wrong() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf.set("app.start_timeout", "10m").set("app.stop_timeout", "300ms"));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("bind_elsewhere").with("exit_file", world.path("exit").display());
    let (socket, command) = (world.socket().display().to_string(), app.command());
    let words = ["--socket", &socket, "deploy", "--release", "v2", "--cmd", &command];
    let running = world.spawn(PORTOK, &words, &world.env());
    let elsewhere = app.wait_for(1, "listen ");
    wait_until(
        "the hint",
        || running.said().1,
        || running.said().1.contains("it ignores PORT").then_some(()),
    );
    world.touch("exit");
    let said = { running }.wait().ended(3);
    let told: Vec<_> = said.err.lines().filter_map(|line| line.split_once("waiting  ")).collect();
    assert!(told[0].1.ends_with("last probe: connection refused"), "{}", said.err);
    let explained: Vec<_> = told.iter().filter(|line| line.1.contains("it ignores PORT")).collect();
    assert_eq!(explained.len(), 1, "{}", said.err);
    assert_mentions(explained[0].1, &["last probe: connection refused", &elsewhere]);
    // It ended by itself, long before its time was over.
    let place = format!("it listened on 127.0.0.1:{elsewhere} instead of port");
    assert_mentions(&said.err, &["exit status 1", &place, "hint: the app listens on", "it ignores PORT"]);
}

#[test]
fn one_without_reuseaddr_is_started_once_more_and_from_then_on_once() {
    let world = World::new();
    let conf = world.conf();
    let daemon = world.start(&conf);
    let first = world.app("v1").flag("no_reuseaddr");
    daemon.deploy(&first).expect(200);
    assert_eq!(first.count("start "), 2, "{:#?}", first.journal());
    let second = world.app("v2").flag("no_reuseaddr");
    daemon.deploy(&second).expect(200);
    assert_eq!(second.count("start "), 1, "{:#?}", second.journal());
    daemon.terminate();
    // The record remembers it.
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    let third = world.app("v3").flag("no_reuseaddr");
    daemon.deploy(&third).expect(200);
    assert_eq!((second.count("start "), third.count("start ")), (2, 1), "{:#?}", third.journal());
}

#[test]
fn one_on_a_port_of_its_own_that_is_taken_is_not_started_a_third_time() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let app = world.app("v2").with("port", taken.local_addr().unwrap().port());
    let body = daemon.deploy(&app).refused(409, "deploy_aborted");
    assert_mentions(body["hint"].as_str().unwrap_or_default(), &["in use", "PORT"]);
    assert_eq!(app.count("start "), 2, "{:#?}", app.journal());
    // It says nothing about the app's options.
    let next = world.app("v3");
    daemon.deploy(&next).expect(200);
    assert_eq!(next.count("start "), 1);
}

#[test]
fn a_command_without_a_directory_runs_where_it_was_given_unless_the_configuration_says_where() {
    let world = World::new();
    for folder in ["checkout", "configured"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    let socket = world.socket().display().to_string();
    let conf = world.conf();
    let configured = world.path("configured").display().to_string();
    let cases = [
        (conf.clone(), "checkout", "the current directory"),
        (conf.set("app.directory", configured.as_str()), "configured", "app.directory"),
    ];
    for (number, (conf, folder, why)) in cases.into_iter().enumerate() {
        let daemon = world.start(&conf);
        let command = world.app("v1").command();
        let id = format!("r{number}");
        // A shell that is there already: the test's own directory belongs to all tests.
        let words = ["--socket", &socket, "deploy", "--release", &id, "--cmd", &command];
        let script = format!("cd '{}' && exec \"$0\" \"$@\"", world.path("checkout").display());
        let said = world.spawn("/bin/sh", &[&["-c", &script, PORTOK], &words[..]].concat(), &world.env());
        let said = { said }.wait().ended(0);
        let place = world.path(folder).display().to_string();
        assert_eq!(daemon.get("/cwd").json(), json!(place));
        let first = said.err.lines().next().unwrap_or_default();
        assert_mentions(first, &["accepted", &place, why]);
        daemon.terminate();
    }
}

#[test]
fn over_tcp_a_command_runs_where_the_daemon_does() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let body = json!({ "command": world.app("v1").command() }).to_string();
    let headers = [
        ("x-admin-token", crate::harness::daemon::TOKEN),
        ("content-type", "application/json"),
        ("x-portok-directory", "/"),
    ];
    daemon.send("POST", "/__deploy", &headers, Some(body.as_bytes())).expect(200);
    let own = fs::read_link(format!("/proc/{}/cwd", daemon.pid())).unwrap();
    assert_eq!(daemon.get("/cwd").json(), json!(own.display().to_string()));
}
