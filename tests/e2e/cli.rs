//! The command line: exit codes, one JSON value on standard output, errors that help.

use std::net::TcpListener;

use serde_json::Value;

use crate::harness::command::PORTOK;
use crate::harness::daemon::TOKEN;
use crate::harness::{World, assert_at, assert_mentions, live};

#[test]
fn every_command_does_its_thing_and_says_so_in_json() {
    let world = World::new();
    let other = world.app("other").start_unmanaged();
    let app = world.app("v1").with("say", "hello-of-v1");
    let conf = world.conf().app(&app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let json = |words: &[&str]| {
        let words = [words, &["--json"]].concat();
        let said = daemon.portok(&words).ended(0);
        said.json()
    };
    let status = json(&["status"]);
    assert_at(&status, "/instance", world.name());
    assert_at(&status, "/activePort", daemon.status().active_port.unwrap());
    assert!(json(&["metrics"])["totalRequests"].is_u64());
    assert_at(&json(&["health"]), "/healthy", true);
    let logs = json(&["logs"]);
    assert!(logs.to_string().contains("hello-of-v1"), "{logs:#}");
    let port = other.port.to_string();
    assert_at(&json(&["switch", &port]), "/switch/to", other.port);
    assert_at(&json(&["rollback"]), "/switch/reason", "manual-rollback");
    let deployed = json(&["deploy", "--release", "v2", "--cmd", &world.app("v2").command()]);
    assert_at(&deployed, "/release", "v2");
    assert_at(&deployed, "/outcome", "live");
    let releases = json(&["releases"]);
    assert_at(&releases, "/0/release", "v2");
    assert_at(&json(&["reload"]), "/success", true);
    let detached = json(&["deploy", "--detach", "--release", "v3", "--cmd", &world.app("v3").command()]);
    assert_at(&detached, "/release", "v3");
    daemon.wait_until_live("v3");
}

#[test]
fn every_command_speaks_to_people_too() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1").with("say", "hello-of-v1")));
    daemon.wait_until_serves("v1");
    let port = daemon.status().active_port.unwrap().to_string();
    let text = |words: &[&str]| {
        let said = daemon.portok(words).ended(0);
        assert!(!said.out.contains('\u{1b}'), "no colour into a file: {:?}", said.out);
        said.out
    };
    assert_mentions(&text(&["status"]), &[world.name(), &port]);
    assert!(!text(&["metrics"]).is_empty());
    assert_mentions(&text(&["health"]), &[&port]);
    assert_mentions(&text(&["releases"]), &[live(&daemon.status()).unwrap()]);
    assert_mentions(&text(&["logs"]), &["hello-of-v1"]);
    let said = daemon.portok(&["deploy", "--release", "v2", "--cmd", &world.app("v2").command()]).ended(0);
    assert_mentions(&format!("{}{}", said.out, said.err), &["v2"]);
    text(&["rollback"]);
    text(&["reload"]);
}

#[test]
fn releases_tell_what_serves_now_from_what_did() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    for version in ["v1", "v2"] {
        daemon.portok(&["deploy", "--release", version, "--cmd", &world.app(version).command()]).ended(0);
    }
    let said = daemon.portok(&["deploy", "--release", "v3", "--cmd", "echo the-last-words; exit 3"]).ended(3);
    assert_eq!(said.err.matches("it ended before it was healthy").count(), 1, "{}", said.err);
    assert_eq!(said.err.matches("exit status 3").count(), 1, "{}", said.err);
    assert_eq!(said.err.matches("the-last-words").count(), 1, "{}", said.err);
    let table = daemon.portok(&["releases"]).ended(0).out;
    let words_of = |release: &str| {
        let line = table.lines().find(|line| line.starts_with(release));
        line.unwrap_or_else(|| panic!("{release} is not in:\n{table}"))
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(["v3", "v2", "v1"].map(words_of), ["aborted", "live", "previous"], "{table}");
    let status = daemon.portok(&["status"]).ended(0).out;
    assert_mentions(&status, &["v1 (port ", "→ v2 (port "]);
}

#[test]
fn a_mistyped_option_is_told_the_nearest_one() {
    let world = World::new();
    let said = world.portok(&["deploy", "--comand", "true"], &world.env()).ended(2);
    assert_mentions(&said.err, &["'--comand'", "'--cmd'"]);
    assert!(!said.err.contains("-- --comand"), "{}", said.err);
    let said = world.portok(&["deploy", "--comand", "true", "--json"], &world.env()).ended(2);
    assert_at(&said.json(), "/hint", "did you mean `--cmd`?");
    let said = world.portok(&["switch", "--json"], &world.env()).ended(2);
    assert_mentions(said.json()["message"].as_str().unwrap(), &["<PORT>"]);
}

#[test]
fn refusals_end_with_5_and_say_what_and_why() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    for (words, code) in [
        (&["rollback"][..], "no_previous"),
        (&["deploy"], "no_app"),
        (&["logs", "--release", "nobody"], "not_found"),
        (&["cancel"], "not_found"),
    ] {
        let said = daemon.portok(words).ended(5);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{words:?}: {said:?}");
        let said = daemon.portok(&[words, &["--json"]].concat()).ended(5);
        let body = said.json();
        assert!(body["message"].is_string(), "{words:?}: {body:#}");
        assert_at(&body, "/code", code);
    }
    let said = daemon.portok(&["switch", &daemon.addr.port().to_string()]).ended(5);
    assert_mentions(&said.err, &[&daemon.addr.port().to_string()]);
}

#[test]
fn an_unhealthy_switch_ends_with_1() {
    let world = World::new();
    let sick = world.app("sick").with("health", "500").start_unmanaged();
    let daemon = world.start(&world.conf());
    let said = daemon.portok(&["switch", &sick.port.to_string()]).ended(1);
    assert_mentions(&said.err, &[&format!("Port {} did not respond with 2xx at /health", sick.port)]);
    let said = daemon.portok(&["switch", &sick.port.to_string(), "--json"]).ended(1);
    assert_at(&said.json(), "/code", "health_failed");
    assert_mentions(&daemon.portok(&["health", "--json"]).ended(1).out, &["\"healthy\""]);
}

#[test]
fn wrong_usage_ends_with_2_before_anybody_is_asked() {
    let world = World::new();
    for words in [
        &["switch"][..],
        &["switch", "http"],
        &["switch", "70000"],
        &["deploy", "--env", "no-equals-sign", "--cmd", "true"],
        &["deploy", "--release", "a b", "--cmd", "true"],
        &["stauts"],
        &["status", "--no-such-flag"],
        &["logs", "--lines", "many"],
        &["run"],
    ] {
        let said = world.portok(words, &world.env()).ended(2);
        assert!(!said.err.is_empty(), "{words:?}");
        assert!(said.out.is_empty(), "{words:?}: {}", said.out);
    }
    assert_mentions(&world.portok(&["stauts"], &world.env()).err, &["status"]);
}

#[test]
fn an_absent_daemon_ends_with_6_and_a_hint() {
    let world = World::new();
    let socket = world.path("no-socket").display().to_string();
    let said = world.portok(&["--socket", &socket, "status"], &world.env()).ended(6);
    assert_mentions(&said.err, &[&socket]);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{unused}");
    let said = world.portok(&["--url", &url, "--json", "status"], &world.env()).ended(6);
    assert_mentions(&said.json().to_string(), &[&unused.port().to_string()]);
}

#[test]
fn a_url_and_its_token_come_from_flags_or_the_environment() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let url = format!("http://{}", daemon.addr);
    world.portok(&["--url", &url, "--token", TOKEN, "status"], &world.env()).ended(0);
    let said = world.portok(&["--url", &url, "status"], &world.env()).ended(5);
    assert_mentions(&said.err, &["token", &url]);
    let said =
        world.portok(&["--url", &url, "--token", "guessed", "--json", "status"], &world.env()).ended(5);
    assert_at(&said.json(), "/code", "unauthorized");
    assert!(
        !said.err.contains("guessed") && !said.out.contains("guessed"),
        "a token is not repeated: {said:?}"
    );
    let mut env = world.env();
    env.insert("PORTOK_URL".to_owned(), url);
    env.insert("PORTOK_TOKEN".to_owned(), TOKEN.to_owned());
    world.portok(&["status"], &env).ended(0);
    world.portok(&["--token", "guessed", "status"], &env).ended(5);
}

#[test]
fn an_instance_is_found_by_its_name() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let mut env = world.env();
    env.insert("PORTOK_CONFIG_DIR".to_owned(), world.path("conf").display().to_string());
    for words in [&["--instance", world.name(), "status", "--json"][..], &["status", world.name(), "--json"]]
    {
        let said = world.portok(words, &env).ended(0);
        assert_at(&said.json(), "/instance", world.name());
    }
    for command in ["metrics", "health"] {
        world.portok(&[command, world.name()], &env).ended(0);
    }
    let said = world.portok(&["status", "nobody-by-that-name"], &env);
    assert!(matches!(said.code, 2 | 6), "{said:?}");
    assert_mentions(&said.err, &["nobody-by-that-name"]);
}

#[test]
fn deploy_passes_environment_folder_and_health_path_on() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let app = world.app("v1").with("health_path", "/ready");
    std::fs::create_dir(world.path("work")).unwrap();
    let work = world.path("work").display().to_string();
    let command = app.command();
    let words = [
        "deploy",
        "--release",
        "v1",
        "--cmd",
        &command,
        "--env",
        "A=1",
        "--env",
        "B=x=y z",
        "--dir",
        &work,
        "--health",
        "/ready",
    ];
    daemon.portok(&words).ended(0);
    let environment = daemon.get("/env").json();
    assert_at(&environment, "/A", "1");
    assert_at(&environment, "/B", "x=y z");
    assert_at(&environment, "/PORTOK_RELEASE", "v1");
    assert_eq!(daemon.get("/cwd").json(), Value::String(work));
}

#[test]
fn a_killed_deploy_command_cancels_nothing() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("bind_after", world.path("gate").display());
    let waiting = daemon.spawn_portok(&["deploy", "--release", "v2", "--cmd", &app.command()]);
    app.wait_for(1, "start ");
    drop(waiting);
    world.touch("gate");
    daemon.wait_until_live("v2");
}

#[test]
fn progress_goes_to_standard_error_line_by_line_where_there_is_no_terminal() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let app = world.app("v1").with("say", "a-line-of-v1").with("health", "503,200");
    let said = daemon.portok(&["deploy", "--release", "v1", "--cmd", &app.command()]).ended(0);
    assert!(!said.err.contains(['\u{1b}', '\r']), "no cursor tricks into a file: {:?}", said.err);
    assert_mentions(&format!("{}{}", said.out, said.err), &["v1", "healthy"]);
}

#[test]
fn a_closed_standard_output_is_no_crash() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let socket = world.socket().display().to_string();
    let line = format!(
        "'{PORTOK}' --socket '{socket}' metrics --json | true; '{PORTOK}' --socket '{socket}' status >&- ; echo done"
    );
    let said = world.spawn("/bin/sh", &["-c", &line], &world.env()).wait();
    assert_mentions(&said.out, &["done"]);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}
