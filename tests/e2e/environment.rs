//! What an app gets from portok: its environment, its files, its folder, its identity; and what it
//! does not.

use serde_json::json;

use crate::harness::daemon::TOKEN;
use crate::harness::{World, assert_at};

#[test]
fn an_app_sees_neither_portoks_variables_nor_systemds() {
    let world = World::new();
    let mut env = world.npm_env();
    env.insert("APP_COMMAND".to_owned(), world.app("v1").command());
    for (key, value) in [
        ("HEALTH_TIMEOUT_MS", "4000"),
        ("PORTOK_THREADS", "1"),
        ("PORTOK_TOKEN", TOKEN),
        ("NOTIFY_SOCKET", "@nowhere-at-all"),
        ("WATCHDOG_USEC", "60000000"),
        ("CREDENTIALS_DIRECTORY", "/nowhere"),
        ("INVOCATION_ID", "abc"),
        ("MINE", "stays"),
    ] {
        env.insert(key.to_owned(), value.to_owned());
    }
    let daemon = world.start_with(&[], &env);
    daemon.wait_until_serves("v1");
    let environment = daemon.get("/env").expect(200).json();
    let status = daemon.status();
    let live = status.live.expect("something serves");
    assert_at(&environment, "/PORT", live.port.expect("it listens").to_string().as_str());
    assert_at(&environment, "/HOST", "127.0.0.1");
    assert_at(&environment, "/MINE", "stays");
    assert_at(&environment, "/PORTOK_INSTANCE", world.name());
    assert_at(&environment, "/PORTOK_RELEASE", live.release.as_str());
    let names: Vec<_> = environment.as_object().expect("an object").keys().cloned().collect();
    for name in &names {
        let tags = ["PORTOK_INSTANCE", "PORTOK_RELEASE", "PORTOK_REPLICA", "PORTOK_RUN"];
        let private = ["ADMIN_", "PORTOK_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "CREDENTIALS_"];
        let leaks = private.iter().any(|prefix| name.starts_with(prefix)) && !tags.contains(&name.as_str());
        assert!(!leaks, "{name} reached the app");
    }
    for name in ["INSTANCE_NAME", "STATE_FILE", "APP_COMMAND", "DRAIN_MS", "HEALTH_TIMEOUT_MS"] {
        assert!(environment.get(name).is_none(), "{name} reached the app");
    }
    assert!(!environment.to_string().contains(TOKEN), "the token reached the app");
}

#[test]
fn the_token_is_in_no_answer_no_log_and_no_state() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2").with("exit", 1)).expect(409);
    daemon.send("GET", "/__status", &[("x-admin-token", "a wrong one")], None).expect(401);
    for path in ["/__status", "/__metrics", "/__releases", "/__logs", "/__health"] {
        let text = daemon.admin("GET", path, None).text();
        assert!(!text.contains(TOKEN), "the token is in {path}");
    }
    conf.set("drain.period", "7s").set("admin.token", "another-secret-token").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    let state = std::fs::read_to_string(world.state_file()).expect("there is a state file");
    assert!(!state.contains(TOKEN), "{state}");
    let log = daemon.log();
    assert!(!log.contains(TOKEN) && !log.contains("another-secret-token"), "{log}");
    assert!(!log.contains("a wrong one"), "what somebody tried is no business of the log: {log}");
}

#[test]
fn values_of_the_apps_environment_are_not_shown() {
    let world = World::new();
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("app.env", toml::toml! { DATABASE_URL = "postgres://me:hunter2@db" });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_at(&daemon.get("/env").json(), "/DATABASE_URL", "postgres://me:hunter2@db");
    for path in ["/__status", "/__metrics", "/__releases"] {
        assert!(
            !daemon.admin("GET", path, None).text().contains("hunter2"),
            "a secret of the app is in {path}"
        );
    }
    assert!(!daemon.log().contains("hunter2"));
    let said =
        world.portokd(&["--config", &conf.file().display().to_string(), "--check"], &world.env()).ended(0);
    assert!(!said.out.contains("hunter2"), "{}", said.out);
}

#[test]
fn environment_comes_from_the_file_the_table_and_the_deploy_in_this_order() {
    let world = World::new();
    world.write("app.env", "# comment\nA=file\nB=\"file with blanks\"\nC='file'\n\nD=one\\\n two\n");
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("app.env_file", world.path("app.env").display().to_string())
        .set("app.env", toml::toml! { C = "table" E = "table" });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let body = json!({ "command": world.app("v2").command(), "env": { "E": "deploy" } });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
    let environment = daemon.get("/env").json();
    for (key, value) in [("A", "file"), ("B", "file with blanks"), ("C", "table"), ("E", "deploy")] {
        assert_at(&environment, &format!("/{key}"), value);
    }
}

#[test]
fn an_env_file_is_read_once_per_release_and_a_missing_one_aborts() {
    let world = World::new();
    world.write("app.env", "GREETING=first\n");
    let app = world.app("v1").with("exit_file", world.path("crash").display());
    let conf = world
        .conf()
        .app(&app)
        .set("app.env_file", world.path("app.env").display().to_string())
        .set("app.restart", toml::toml! { backoff = "10ms" max_backoff = "50ms" burst = 1000 });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    world.write("app.env", "GREETING=second\n");
    world.touch("crash");
    app.wait_for(2, "start ");
    std::fs::remove_file(world.path("crash")).unwrap();
    daemon.wait_until("it runs again", |status| {
        status.phase.as_str() != "restarting" && status.active_port.is_some()
    });
    let environment = crate::harness::wait_until(
        "it answers again",
        || daemon.log(),
        || Some(daemon.get("/env")).filter(|answer| answer.status() == 200),
    );
    assert_at(&environment.json(), "/GREETING", "first");
    std::fs::remove_file(world.path("app.env")).unwrap();
    let aborted = daemon.deploy(&world.app("v2"));
    assert!(aborted.status() == 409 || aborted.status() == 400, "{}: {}", aborted.status(), aborted.text());
    assert!(aborted.text().contains("app.env"), "{}", aborted.text());
}

#[test]
fn the_working_directory_is_resolved_once_per_release() {
    let world = World::new();
    let (first, second) = (world.path("first"), world.path("second"));
    std::fs::create_dir(&first).unwrap();
    std::fs::create_dir(&second).unwrap();
    let current = world.path("current");
    std::os::unix::fs::symlink(&first, &current).unwrap();
    let app = world.app("v1");
    let conf = world
        .conf()
        .app(&app)
        .set("app.directory", current.display().to_string())
        .set("app.restart", toml::toml! { backoff = "10ms" });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.get("/cwd").json(), first.display().to_string());
    std::fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink(&second, &current).unwrap();
    daemon.get("/exit/1");
    app.wait_for(2, "listen ");
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.get("/cwd").json(), first.display().to_string(), "a crash does not move a release");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(daemon.get("/cwd").json(), second.display().to_string());
}

#[test]
fn the_port_may_go_by_another_variable_or_into_the_command() {
    let world = World::new();
    let app = world.app("v1").with("port_env", "LISTEN_HERE");
    let daemon = world.start(&world.conf().app(&app).set("app.port_env", "LISTEN_HERE"));
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2").with("port_env", "NOWHERE").with("port", "{port}")).expect(200);
    daemon.wait_until_serves("v2");
}

#[test]
fn a_command_in_words_is_executed_without_a_shell() {
    let world = World::new();
    let app = world.app("v1").with("say", "$HOME;echo");
    let daemon = world.start(&world.conf().set("app.command", app.exec()));
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.live_pid(), *app.pids().last().unwrap());
    let logs = daemon.admin("GET", "/__logs?lines=100", None).expect(200).text();
    assert!(logs.contains("$HOME;echo"), "{logs}");
    let mut words = world.app("v2").with("port_env", "NOWHERE").with("port", "{port}").exec();
    let body = json!({ "command": words, "release": "v2" });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
    daemon.wait_until_serves("v2");
    words[0] = "/no/such/program".to_owned();
    let aborted =
        daemon.admin("POST", "/__deploy", Some(&json!({ "command": words }))).refused(409, "deploy_aborted");
    assert!(aborted.to_string().contains("/no/such/program"), "{aborted:#}");
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn an_app_has_only_its_three_standard_files_and_clean_signals() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let files = daemon.get("/fds").json();
    let numbers: Vec<&str> = files.as_array().unwrap().iter().filter_map(|file| file.as_str()).collect();
    for file in &numbers {
        let (number, target) = file.split_once(' ').unwrap();
        let own = target.starts_with("/proc/")
            || target.starts_with("socket:") && number.parse::<u32>().unwrap() > 2;
        assert!(number.parse::<u32>().unwrap() <= 2 || own, "{file} leaked into the app: {numbers:?}");
    }
    // Its own listener, its client connections (the probe's may still be open) and the folder it
    // reads.
    let sockets = numbers.iter().filter(|file| file.contains("socket:")).count();
    assert!(sockets <= 4, "sockets leaked: {numbers:?}");

    let status_file = world.path("status");
    let command = format!("cat /proc/self/status > {}; {}", status_file.display(), world.app("v2").command());
    daemon.admin("POST", "/__deploy", Some(&json!({ "command": command }))).expect(200);
    let status = std::fs::read_to_string(status_file).unwrap();
    for line in status.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")) {
        let signals = line.split_whitespace().next_back().and_then(|mask| u64::from_str_radix(mask, 16).ok());
        // 32 and 33 belong to the C library: nobody can set them, and so a parent may pass them on.
        let clean = signals.is_some_and(|signals| signals & !(0b11 << 31) == 0);
        assert!(clean, "an app starts with no signal blocked or ignored: {line}");
    }
}

#[test]
fn an_app_runs_as_the_configured_user() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: only root can start an app as another user");
        return;
    }
    let world = World::new();
    // Another user cannot look into the build's folder, but may run a program from a system one.
    let script = "import http.server, os, json\n\
        class H(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self):\n\
        \x20       body = json.dumps([os.getuid(), os.getgid(), os.getgroups(), os.environ.get('USER')]).encode()\n\
        \x20       self.send_response(200); self.send_header('content-length', str(len(body))); self.end_headers(); self.wfile.write(body)\n\
        http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()";
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let Some(python) = python else {
        eprintln!("SKIPPED: no python3 in a system folder for another user to run");
        return;
    };
    let conf = world
        .conf()
        .set("app.command", vec![python.to_owned(), "-c".to_owned(), script.to_owned()])
        .set("app.directory", "/")
        .set("app.user", "nobody");
    let daemon = world.start(&conf);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("every system has nobody");
    daemon.wait_until("it serves", |status| status.active_port.is_some());
    let answer = daemon.get("/").expect(200).json();
    assert_at(&answer, "/0", nobody.uid.as_raw());
    assert_at(&answer, "/1", nobody.gid.as_raw());
    assert_at(&answer, "/3", "nobody");
    assert!(!answer[2].as_array().unwrap().contains(&json!(0)), "root's groups stay behind: {answer}");
    let body = json!({ "command": "true", "user": "root" });
    daemon.admin("POST", "/__deploy", Some(&body)).refused(400, "bad_request");
}

#[test]
fn an_unknown_user_is_a_configuration_error_or_aborts() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    conf.app(&world.app("v2")).set("app.user", "no-such-user-here").save();
    let answer = daemon.admin("POST", "/__reload", None);
    if answer.status() == 200 {
        daemon.wait_until("the deploy failed", |status| {
            status.last_failure.as_deref().is_some_and(|failure| failure.contains("no-such-user-here"))
        });
    } else {
        assert!(answer.refused(422, "config_invalid").to_string().contains("no-such-user-here"));
    }
    assert_eq!(daemon.get("/").version(), "v1");
}
