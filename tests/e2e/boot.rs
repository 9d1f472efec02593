//! How an instance begins: what runs, what is said, what is refused.

use std::collections::BTreeMap;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::command::{PORTOK, PORTOKD, Running};
use crate::harness::daemon::TOKEN;
use crate::harness::{Conn, Daemon, World, assert_at, assert_mentions, live, pid, wait_until};

#[test]
fn a_configured_app_is_started_and_served() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app));
    let status = daemon.wait_until_serves("v1");
    let release = status.live.clone().expect("something serves");
    assert_eq!(release.port, status.active_port);
    assert_eq!(release.pid, app.pids().last().copied());
    assert_eq!(status.instance, world.name());
    assert_eq!(status.pid, daemon.pid());
    assert_eq!(status.candidate, None);
    assert_eq!(status.previous, None);
    let first = status.last_switch.expect("traffic moved once");
    assert_eq!((first.from, Some(first.to)), (None, status.active_port));
    assert_eq!(first.reason.as_str(), "config");
    assert!(matches!(status.phase.as_str(), "watching" | "settled"), "{:?}", status.phase);
}

#[test]
fn without_any_app_the_daemon_stays_up_and_answers_503() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let answer = daemon.get("/").expect(503);
    assert_eq!(answer.header("portok-error"), Some("no_live_target"));
    assert!(answer.header("retry-after").is_some());
    let status = daemon.status();
    assert_eq!((status.phase.as_str(), status.active_port, status.last_switch), ("empty", None, None));
    daemon.deploy(&world.app("v1")).expect(200);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
}

#[test]
fn an_app_that_never_gets_healthy_at_the_start_leaves_the_daemon_up_and_is_told_about() {
    let world = World::new();
    let app = world.app("v1").with("exit", 3).with("say", "left-pad-is-missing");
    let daemon = world.start(&world.conf().app(&app));
    let status = daemon.wait_until("the failure is told", |status| status.last_failure.is_some());
    assert_eq!(status.active_port, None);
    daemon.get("/").expect(503);
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.wait_until_serves("v2");
    assert_eq!(status.last_failure, None);
}

#[test]
fn the_npm_environment_serves_somebody_elses_app_with_the_same_answers() {
    let world = World::new();
    let mut app = world.app("v1").start_unmanaged();
    let second_app = world.app("v2");
    let second = second_app.start_unmanaged();
    let mut env = world.npm_env();
    env.insert("INITIAL_TARGET_PORT".to_owned(), app.port.to_string());
    env.insert("ROLLBACK_WINDOW_MS".to_owned(), "60000".to_owned());
    let daemon = world.start_with(&[], &env);
    daemon.wait_until_serves("v1");

    let status = daemon.send_admin("GET", "/__status").expect(200);
    assert_eq!(status.header("cache-control"), Some("no-store"));
    let status = status.json();
    assert_at(&status, "/activePort", u64::from(app.port));
    for key in ["drainUntil", "lastSwitch", "live", "candidate", "previous", "watchUntil", "version"] {
        assert!(status.get(key).is_some(), "{key} is missing in {status:#}");
    }
    assert_at(&status, "/drainUntil", Value::Null);
    assert_at(&status, "/config/file", Value::Null);

    daemon.get("/status/404").expect(404);
    let metrics = daemon.send_admin("GET", "/__metrics").expect(200).json();
    for key in ["startedAt", "inflight", "inflightMax", "totalRequests", "totalProxyErrors", "rollingRps60"] {
        assert!(metrics.get(key).is_some_and(|value| !value.is_null()), "{key} is missing in {metrics:#}");
    }
    assert_at(&metrics, "/statusCounters/4xx", 1);
    for key in ["activePortOk", "lastCheckedAt", "consecutiveFails"] {
        assert!(metrics["health"].get(key).is_some(), "health.{key} is missing in {metrics:#}");
    }
    assert_at(&metrics, "/lastProxyError", Value::Null);
    assert!(metrics.get("upstreamSocketsCreated").is_none(), "only with DEBUG_UPSTREAM");

    let health = daemon.send_admin("GET", "/__health").expect(200).json();
    assert_at(&health, "/healthy", true);
    assert_at(&health, "/port", u64::from(app.port));
    assert_at(&health, "/status", 200);
    assert!(health["latencyMs"].is_number() && health["error"].is_null(), "{health:#}");

    let switched = daemon.send_admin("POST", &format!("/__switch?port={}", second.port)).expect(200).json();
    assert_at(&switched, "/success", true);
    assert_at(&switched, "/message", format!("Switched to port {}", second.port).as_str());
    assert_at(&switched, "/switch/from", u64::from(app.port));
    assert_at(&switched, "/switch/to", u64::from(second.port));
    assert_at(&switched, "/switch/reason", "manual");
    assert!(switched["switch"]["id"].is_string() && switched["switch"]["at"].is_string());
    assert_eq!(daemon.get("/").version(), "v2");

    app.kill();
    let refused =
        daemon.send_admin("POST", &format!("/__switch?port={}", app.port)).refused(409, "health_failed");
    assert_at(&refused, "/error", "Health check failed");
    let message = format!("Port {} did not respond with 2xx at /health", app.port);
    assert_at(&refused, "/message", message.as_str());
    drop(daemon);
    assert_eq!(second_app.count("signal"), 0, "an unmanaged target is never signalled");
}

#[test]
fn the_npm_environment_pins_client_connections_to_the_draining_target() {
    let world = World::new();
    let (first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let mut env = world.npm_env();
    env.insert("INITIAL_TARGET_PORT".to_owned(), first.port.to_string());
    env.insert("DRAIN_MS".to_owned(), "500".to_owned());
    let daemon = world.start_with(&[], &env);
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1");
    daemon.admin("POST", &format!("/__switch?port={}", second.port), None).expect(200);
    assert_eq!(daemon.get("/").version(), "v2", "a new connection goes to the live target");
    // The pinned one moves with a request after the drain's end, over the same connection.
    let mut seen = Vec::new();
    wait_until("the pinned connection moves", String::new, || {
        let version = conn.request("GET", "/", &[], None).unwrap().expect(200).version().to_owned();
        seen.push(version.clone());
        (version == "v2").then_some(())
    });
    assert_eq!(seen[0], "v1", "it stayed while the old target drained");
}

#[test]
fn a_dead_initial_target_is_answered_with_503_until_it_comes() {
    let world = World::new();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut env = world.npm_env();
    env.insert("INITIAL_TARGET_PORT".to_owned(), unused.to_string());
    let daemon = world.start_with(&[], &env);
    let answer = daemon.get("/").expect(503);
    assert_eq!(answer.header("portok-error"), Some("no_live_target"));
    let app = world.app("v1").start_unmanaged();
    daemon.admin("POST", &format!("/__switch?port={}", app.port), None).expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn an_app_command_from_the_environment_is_managed() {
    let world = World::new();
    let mut env = world.npm_env();
    env.insert("APP_COMMAND".to_owned(), world.app("v1").command());
    let daemon = world.start_with(&[], &env);
    let status = daemon.wait_until_serves("v1");
    assert!(pid(&status).is_some());
}

#[test]
fn all_bad_variables_are_named_at_once_and_stop_the_start_with_2() {
    let world = World::new();
    let mut env = world.npm_env();
    for (key, value) in [
        ("HEALTH_TIMEOUT_MS", "soon"),
        ("FAST_PATH", "maybe"),
        ("HEALTH_PATH", "no-slash"),
        ("INITIAL_TARGET_PORT", "70000"),
    ] {
        env.insert(key.to_owned(), value.to_owned());
    }
    let said = world.portokd(&[], &env).ended(2);
    assert_mentions(
        &said.err,
        &["HEALTH_TIMEOUT_MS", "soon", "FAST_PATH", "maybe", "HEALTH_PATH", "no-slash"],
    );
    assert_mentions(&said.err, &["INITIAL_TARGET_PORT", "70000"]);
    assert!(!said.err.contains(TOKEN));
}

#[test]
fn missing_and_contradicting_variables_are_named() {
    let world = World::new();
    let mut env = world.npm_env();
    env.remove("ADMIN_TOKEN");
    let said = world.portokd(&[], &env).ended(2);
    assert_mentions(&said.err, &["ADMIN_TOKEN", "INITIAL_TARGET_PORT"]);

    let mut env = world.npm_env();
    env.insert("INITIAL_TARGET_PORT".to_owned(), "8081".to_owned());
    env.insert("APP_COMMAND".to_owned(), "true".to_owned());
    let said = world.portokd(&[], &env).ended(2);
    assert_mentions(&said.err, &["INITIAL_TARGET_PORT", "APP_COMMAND"]);
}

#[test]
fn check_prints_the_effective_configuration_with_secrets_masked() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("health.path", "/up-and-well");
    conf.save();
    let file = conf.file().display().to_string();
    let said = world.portokd(&["--config", &file, "--check"], &world.env()).ended(0);
    assert_mentions(&said.out, &["/up-and-well", world.name()]);
    assert!(!said.out.contains(TOKEN) && !said.err.contains(TOKEN), "{}\n{}", said.out, said.err);

    conf.set("health.paht", "/typo").set("drain.period", "never").save();
    let said = world.portokd(&["--config", &file, "--check"], &world.env()).ended(2);
    assert_mentions(&said.err, &[&file, "paht", "path", "drain.period", "never"]);
    assert!(!world.state_file().exists(), "a check leaves nothing behind");
}

#[test]
fn a_configuration_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    conf.save();
    std::fs::set_permissions(conf.file(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let file = conf.file().display().to_string();
    let said = world.portokd(&["--config", &file], &world.env()).ended(2);
    assert_mentions(&said.err, &[&file]);
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("health.path", "/from-the-file");
    conf.save();
    let file = conf.file().display().to_string();
    let mut env = world.env();
    env.insert("HEALTH_PATH".to_owned(), "/from-the-environment".to_owned());
    let said = world.portokd(&["--config", &file, "--check"], &env).ended(0);
    assert_mentions(&said.out, &["/from-the-environment"]);
    assert!(!said.out.contains("/from-the-file"));
}

#[test]
fn an_instance_is_found_in_the_configuration_folder() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    conf.save();
    let mut env = world.env();
    env.insert("PORTOK_CONFIG_DIR".to_owned(), world.path("conf").display().to_string());
    let daemon = world.start_with(&["--instance", world.name()], &env);
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.status().config.file, Some(conf.file().display().to_string()));
}

#[test]
fn a_taken_listen_address_is_a_clear_error() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("listen", addr.as_str());
    conf.save();
    let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env());
    assert_ne!(said.code, 0);
    assert_mentions(&said.err, &[&addr]);
    assert!(app.pids().is_empty(), "nothing is started before the address is ours");
}

#[test]
fn a_configured_socket_that_cannot_be_made_is_an_error() {
    let world = World::new();
    let socket = world.path("no-such-folder/s").display().to_string();
    world.touch("no-such-folder");
    let conf = world.conf().app(&world.app("v1")).set("admin.socket", socket.as_str());
    conf.save();
    let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env());
    assert_ne!(said.code, 0);
    assert_mentions(&said.err, &["socket", "no-such-folder"]);
    world.wait_for_none_left();
}

#[test]
fn a_socket_that_a_killed_daemon_left_behind_is_no_obstacle() {
    let world = World::new();
    let conf = world.conf();
    world.start(&conf).kill();
    assert!(world.socket().exists(), "the premise: nobody removed it");
    let daemon = world.start(&conf);
    assert_eq!(daemon.status().phase.as_str(), "empty");
}

#[test]
fn run_serves_an_app_without_file_token_or_root_and_prints_its_lines() {
    let world = World::new();
    let app = world.app("v1").with("say", "hello-from-the-app");
    let env = run_env(&world);
    let words = ["run", "--listen", "127.0.0.1:0", "--cmd", &app.command()];
    let mut daemon = Daemon::attach(&world, world.spawn(PORTOK, &words, &env));
    daemon.wait_until_serves("v1");
    wait_until(
        "the app's line is printed",
        || daemon.output(),
        || daemon.output().lines().any(|line| line == "app | hello-from-the-app").then_some(()),
    );
    let next = world.app("v2");
    daemon.portok(&["deploy", "--cmd", &next.command()]).ended(0);
    daemon.wait_until_serves("v2");
    daemon.signal(Signal::SIGINT);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn run_serves_where_nobody_reads_what_it_says() {
    let world = World::new();
    let env = run_env(&world);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let command = world.app("v1").command();
    let words = ["run", "--listen", "127.0.0.1:0", "--cmd", &command];
    let running = Running::start_into(PORTOK, &words, &env, &world.path("run"), writer.into());
    let mut daemon = Daemon::attach(&world, running);
    daemon.wait_until_serves("v1");
    daemon.signal(Signal::SIGTERM);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn run_ends_with_its_terminal_and_leaves_nothing() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        let world = World::new();
        // Whoever runs the tests may ignore SIGHUP, as under nohup, and children inherit that.
        let heeding = ["--default-signal=HUP", PORTOK];
        let mut daemon = Daemon::attach(&world, run(&world, "/usr/bin/env", &heeding));
        daemon.wait_until_serves("v1");
        daemon.signal(signal);
        daemon.wait().ended(0);
        world.wait_for_none_left();
    }
    let world = World::new();
    let ignoring = ["-c", "trap '' HUP; exec \"$0\" \"$@\"", PORTOK];
    let mut daemon = Daemon::attach(&world, run(&world, "/bin/sh", &ignoring));
    daemon.wait_until_serves("v1");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_serves("v1");
    daemon.signal(Signal::SIGTERM);
    let said = daemon.wait().ended(0);
    assert!(!said.out.contains("SIGHUP") && !said.err.contains("SIGHUP"), "{said:?}");
    world.wait_for_none_left();
}

/// What gives a `portok run` the name and the socket of `world`.
pub(crate) fn run_env(world: &World) -> BTreeMap<String, String> {
    let mut env = world.env();
    env.insert("INSTANCE_NAME".to_owned(), world.name().to_owned());
    env.insert("ADMIN_UNIX_SOCKET".to_owned(), world.socket().display().to_string());
    env
}

/// `portok run` with a first version, by `program` and its `words`.
fn run(world: &World, program: &str, words: &[&str]) -> Running {
    let env = run_env(world);
    let command = world.app("v1").command();
    world.spawn(program, &[words, &["run", "--listen", "127.0.0.1:0", "--cmd", &command]].concat(), &env)
}

#[test]
fn run_is_found_by_its_name_continues_nothing_and_leaves_nothing() {
    let world = World::new();
    let mut env = world.env();
    env.insert("INSTANCE_NAME".to_owned(), world.name().to_owned());
    for version in ["v1", "v2"] {
        let command = world.app(version).command();
        let words = ["run", "--listen", "127.0.0.1:0", "--cmd", &command];
        let mut running = world.spawn(PORTOK, &words, &env);
        let status = wait_until(
            "the command line finds it",
            || format!("{:?}", running.said()),
            || {
                let said = world.portok(&["--instance", world.name(), "status", "--json"], &env);
                (said.code == 0).then(|| said.json()).filter(|status| status["activePort"].is_u64())
            },
        );
        let listen = status["listen"].as_str().unwrap().parse().unwrap();
        let mut conn = Conn::tcp(listen).unwrap();
        assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), version);
        running.signal(Signal::SIGTERM);
        running.wait().ended(0);
        world.wait_for_none_left();
        assert!(!world.path("run/portok").exists(), "{:?}", world.path("run"));
    }
}

#[test]
fn both_binaries_tell_their_version_and_their_usage() {
    let world = World::new();
    for program in [PORTOK, PORTOKD] {
        let said = world.spawn(program, &["--version"], &world.env()).wait().ended(0);
        assert_mentions(&said.out, &[env!("CARGO_PKG_VERSION")]);
        let said = world.spawn(program, &["--help"], &world.env()).wait().ended(0);
        assert_mentions(&said.out, &["Usage"]);
        world.spawn(program, &["--no-such-flag"], &world.env()).wait().ended(2);
    }
    let nothing: BTreeMap<String, String> = world.env();
    world.spawn(PORTOKD, &["--config", "/no/such/file.toml"], &nothing).wait().ended(2);
}

#[test]
fn the_recorded_live_release_wins_over_the_configuration_after_a_restart() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let before = daemon.status();
    daemon.terminate();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_serves("v2");
    assert_eq!(live(&after), Some("v2"));
    assert_eq!(after.last_switch, before.last_switch);
    assert_ne!(pid(&after), pid(&before));
}

#[test]
fn run_takes_the_health_path() {
    let world = World::new();
    let app = world.app("v1").with("health_path", "/ready").with("health", "503,503,200");
    let env = run_env(&world);
    let words = ["run", "--listen", "127.0.0.1:0", "--health", "/ready", "--cmd", &app.command()];
    let mut daemon = Daemon::attach(&world, world.spawn(PORTOK, &words, &env));
    daemon.wait_until_serves("v1");
    let asked: Vec<_> = app.journal().into_iter().filter(|line| line.starts_with("health")).collect();
    assert_eq!(asked[..3], ["health 503", "health 503", "health 200"], "only /ready is asked");
    let next = world.app("v2").with("health_path", "/ready");
    daemon.portok(&["deploy", "--cmd", &next.command()]).ended(0);
    assert!(next.count("health 200") > 0, "a deploy asks there too");
    daemon.signal(Signal::SIGINT);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}
