//! How an instance ends.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::command::{PORTOK, full_pipe};
use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::http::request_bytes;
use crate::harness::{Conn, Daemon, Manager, World, assert_mentions, pid, procs, wait_until};

#[test]
fn sigterm_and_sigint_finish_what_is_in_flight_and_end_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let app = world.app("v1");
        let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
        daemon.wait_until_serves("v1");
        let mut conn = daemon.connect();
        let path = format!("/hold?file={}", world.path("go").display());
        conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
        app.wait_for(1, "hold begin");
        daemon.signal(signal);
        wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
        assert_eq!(app.count("signal"), 0, "the app is not asked to go while it has work");
        world.touch("go");
        assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
        daemon.wait().ended(0);
        let journal: Vec<_> = app
            .journal()
            .into_iter()
            .filter(|line| line.starts_with("hold") || line.starts_with("signal"))
            .collect();
        assert_eq!(journal, ["hold begin", "hold end", "signal SIGTERM"]);
        world.wait_for_none_left();
    }
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    let world = World::new();
    let mut daemon = world.start(
        &world.conf().app(&world.app("v1")).set("drain.period", "10m").set("proxy.idle_timeout", "10m"),
    );
    daemon.wait_until_serves("v1");
    let mut used = daemon.connect();
    used.request("GET", "/", &[], None).unwrap().expect(200);
    let mut silent = daemon.connect();
    daemon.signal(Signal::SIGTERM);
    daemon.wait().ended(0);
    assert!(matches!(used.rest().as_deref(), Ok(b"") | Err(_)));
    assert!(matches!(silent.rest().as_deref(), Ok(b"") | Err(_)));
}

#[test]
fn an_answer_during_the_end_says_that_the_connection_closes() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGTERM);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    world.touch("go");
    let answer = conn.answer("GET").unwrap().expect(200);
    assert!(!answer.keeps_alive(), "{:?}", answer.head);
    daemon.wait().ended(0);
}

#[test]
fn requests_that_last_longer_than_the_drain_are_cut() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "200ms"));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path("never").display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGTERM);
    daemon.wait().ended(0);
    let cut = conn.answer("GET");
    assert!(cut.as_ref().map_or(true, |answer| answer.status() >= 500), "{cut:?}");
}

#[test]
fn a_second_signal_kills_at_once() {
    let world = World::new();
    let app = world.app("v1").flag("ignore_term");
    let mut daemon = world.start(&world.conf().app(&app).set("app.stop_timeout", "10m"));
    let before = daemon.wait_until_serves("v1");
    daemon.signal(Signal::SIGTERM);
    app.wait_for(1, "signal SIGTERM");
    // One that comes within 0.3 s of the first is the same wish.
    wait_until(
        "a later one kills",
        || daemon.log(),
        || {
            daemon.signal(Signal::SIGTERM);
            world.processes().is_empty().then_some(())
        },
    );
    daemon.wait();
    assert!(!procs::is_alive(pid(&before).unwrap()));
}

#[test]
fn a_second_signal_right_behind_the_first_ends_it_too() {
    let world = World::new();
    let app = world.app("v1").start_unmanaged();
    let conf = world.conf().set("app.target", i64::from(app.port));
    for _ in 0..5 {
        let mut daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        daemon.signal(Signal::SIGTERM);
        daemon.signal(Signal::SIGTERM);
        daemon.wait().ended(0);
    }
}

#[test]
fn a_second_signal_too_soon_after_the_first_is_the_same_wish() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "10m"));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    // As npm passes on a Ctrl-C that the terminal has sent to everybody.
    daemon.signal(Signal::SIGINT);
    daemon.signal(Signal::SIGTERM);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    world.touch("go");
    assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.wait().ended(0);
}

#[test]
fn an_app_that_ignores_its_signal_is_killed_after_its_time() {
    let world = World::new();
    let app = world.app("v1").flag("ignore_term");
    let mut daemon = world.start(&world.conf().app(&app).set("app.stop_timeout", "2s"));
    daemon.wait_until_serves("v1");
    daemon.signal(Signal::SIGTERM);
    let said = daemon.wait().ended(0);
    assert_eq!(app.count("signal SIGTERM"), 1);
    let told = said.err.lines().find(|line| line.contains("SIGKILL")).unwrap_or_default();
    assert_mentions(told, &["WARN", "2s", "app.stop_timeout"]);
}

#[test]
fn the_end_takes_the_draining_release_and_the_candidate_along() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let candidate = world.app("v3").with("bind_after", world.path("never").display());
    let conf = world
        .conf()
        .app(&old)
        .set("drain.period", "2s")
        .set("drain.early", false)
        .set("rollback.standby", "window");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    daemon.deploy_detached(&candidate);
    candidate.wait_for(1, "start ");
    assert!(world.processes().len() >= 2);
    daemon.terminate();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    assert_eq!(daemon.row("v3").outcome.map(|outcome| outcome.as_str()), Some("interrupted"));
    assert_eq!(candidate.count("start "), 1);
}

#[test]
fn a_deploy_is_refused_while_the_daemon_goes_down() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
    daemon.wait_until_serves("v1");
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGTERM);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    let body = crate::harness::deploy_body(&world.app("v2")).to_string();
    // The socket may be gone already; while it is there it refuses.
    let answer = Conn::unix(&world.socket()).and_then(|mut conn| {
        conn.request("POST", "/__deploy", &[("content-type", "application/json")], Some(body.as_bytes()))
    });
    if let Ok(answer) = answer {
        answer.refused(503, "shutting_down");
    }
    world.touch("go");
    held.answer("GET").unwrap().expect(200);
    daemon.wait().ended(0);
    assert!(world.app("v2").pids().is_empty());
}

#[test]
fn a_reload_while_the_daemon_goes_down_is_refused_at_once_and_delays_nothing() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "10m");
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_until("it goes down", |status| status.phase.as_str() == "stopping");
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    for round in 0..3 {
        conf.clone().set("drain.period", format!("{}m", round + 11)).save();
        daemon.admin("POST", "/__reload", None).refused(503, "shutting_down");
    }
    daemon.signal(Signal::SIGHUP);
    assert_eq!((app.count("hold end"), app.count("signal")), (0, 0), "the drain goes on");
    world.touch("go");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_deploys_nor_the_end() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1").flag("flood"));
    let (unread, full) = full_pipe();
    let daemon = world.start_into(&conf, full);
    daemon.wait_until_serves("v1");
    for version in ["v2", "v3", "v4"] {
        daemon.deploy(&world.app(version).flag("flood").flag("long_line")).expect(200);
        assert_eq!(daemon.get("/").version(), version);
        daemon.admin("POST", "/__reload", None).expect(200);
    }
    daemon.deploy(&world.app("v5").with("exit", 1)).refused(409, "deploy_aborted");
    daemon.wait_until_stopped("v2");
    let logs = daemon.admin("GET", "/__logs?release=v4&lines=5", None).expect(200).json();
    assert_eq!(logs["lines"].as_array().map(Vec::len), Some(5));
    daemon.terminate();
    drop(unread);
}

#[test]
fn whoever_follows_a_deploy_learns_that_a_daemon_that_leaves_gives_it_up() {
    let world = World::new();
    // Its report over the public port is no request that the daemon would have to wait for.
    let conf = world.conf().app(&world.app("v1")).set("drain.period", "10m");
    for over in ["socket", "url"] {
        let mut daemon = world.start(&conf);
        let app = daemon.wait_until_serves("v1");
        let release = format!("over-{over}");
        let (socket, url) = (world.socket().display().to_string(), format!("http://{}", daemon.addr));
        let way: &[&str] =
            if over == "url" { &["--url", &url, "--token", TOKEN] } else { &["--socket", &socket] };
        let words = [way, &["deploy", "--release", &release, "--cmd", "exec sleep 600"]].concat();
        let mut deploy = world.spawn(PORTOK, &words, &world.env());
        daemon.wait_until("the candidate runs", |status| {
            status.candidate.as_ref().is_some_and(|candidate| candidate.pid.is_some())
        });
        daemon.signal(Signal::SIGUSR2);
        daemon.wait().ended(0);
        let said = deploy.wait().ended(3);
        assert_mentions(&said.err, &["interrupted", "was given up", "traffic did not move"]);
        let daemon = world.start(&conf);
        assert_eq!(pid(&daemon.wait_until_serves("v1")), pid(&app));
        let outcome = daemon.row(&release).outcome.map(|outcome| outcome.as_str());
        assert_eq!(outcome, Some("interrupted"));
        daemon.terminate();
    }
}

/// An instance with two replicas and a worker.
fn with_a_worker(world: &World) -> Conf {
    world
        .conf()
        .app(&world.app("v1"))
        .set("app.replicas", 2)
        .set("app.processes.worker.command", "exec sleep 1000")
        .set("drain.period", "60s")
}

/// Waits until both replicas and the worker run.
fn wait_for_all(daemon: &Daemon<'_>, world: &World) {
    daemon.wait_until("both replicas are ready", |status| {
        status.replicas.is_some_and(|replicas| replicas.ready == 2)
    });
    wait_until("the worker runs", || daemon.log(), || (world.companions().len() == 1).then_some(()));
    daemon.wait_until_recorded();
}

/// Whether `ended` tells of each process of [`with_a_worker`] how it ended.
fn assert_all_ended(ended: &Value, world: &World) {
    let rows: Vec<_> = ended.as_array().expect("an array").iter().collect();
    let processes: Vec<_> =
        rows.iter().map(|row| (row["process"].as_str(), row["replica"].as_u64())).collect();
    assert_eq!(processes, [(None, Some(0)), (None, Some(1)), (Some("worker"), Some(0))], "{ended}");
    for row in &rows {
        assert_eq!(row["app"], world.name());
        assert!(row["pid"].is_u64() && row["release"].is_string(), "{row}");
    }
    assert_eq!(rows[0]["exit"], "exit status 0");
    assert_eq!(rows[2]["exit"], "signal 15 (SIGTERM)");
}

#[test]
fn portok_shutdown_tells_how_each_process_ended() {
    let world = World::new();
    let mut daemon = world.start(&with_a_worker(&world));
    wait_for_all(&daemon, &world);
    let said = daemon.portok(&["shutdown", "--json"]).ended(0);
    assert_all_ended(&serde_json::from_str(&said.out).unwrap(), &world);
    daemon.wait().ended(0);
    world.wait_for_none_left();
    let daemon = world.start_saved(&with_a_worker(&world));
    wait_for_all(&daemon, &world);
    assert_mentions(&daemon.portok(&["shutdown"]).ended(0).out, &["PROCESS", "worker", "exit status 0"]);
    assert_eq!(daemon.portok(&["status"]).code, 6);
}

#[test]
fn a_second_signal_loses_no_word_of_the_app_that_had_ended_before() {
    let world = World::new();
    let (quick, slow) = (world.app("quick"), world.app("slow").flag("ignore_term"));
    let conf = Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("state_file", world.state_file().display().to_string())
        .set("admin.socket", world.socket().display().to_string())
        .set("admin.token", TOKEN)
        .set("apps.quick.command", quick.command())
        .set("apps.slow.command", slow.command())
        .set("apps.slow.hosts", toml::Value::from(vec!["slow.test"]))
        .set("apps.slow.stop_timeout", "10m");
    let daemon = world.start(&conf);
    let both_are_live = || (daemon.log().matches("is live on port").count() == 2).then_some(());
    wait_until("both are live", || daemon.log(), both_are_live);
    let mut asker = daemon.spawn_portok(&["shutdown", "--json"]);
    slow.wait_for(1, "signal SIGTERM");
    let only_the_slow_one = || (world.processes().len() == 1).then_some(());
    wait_until("the quick one has ended", || format!("{:#?}", world.processes()), only_the_slow_one);
    wait_until(
        "a later signal kills the slow one",
        || daemon.log(),
        || {
            daemon.signal(Signal::SIGTERM);
            world.processes().is_empty().then_some(())
        },
    );
    let said: Value = serde_json::from_str(&asker.wait().ended(0).out).unwrap();
    let rows: Vec<_> =
        said.as_array().unwrap().iter().map(|row| (row["app"].as_str(), row["exit"].as_str())).collect();
    assert_eq!(
        rows,
        [(Some("quick"), Some("exit status 0")), (Some("slow"), Some("signal 9 (SIGKILL)"))],
        "{said:#}"
    );
}

#[test]
fn who_asks_at_the_public_port_is_answered_before_the_end_and_after_what_is_in_flight() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&with_a_worker(&world).app(&app));
    wait_for_all(&daemon, &world);
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    let mut asker = daemon.connect();
    asker.send(&request_bytes("POST", "/__shutdown", &[("x-admin-token", TOKEN)], None)).unwrap();
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    assert_eq!(app.count("signal"), 0, "the app is not asked to go while it has work");
    world.touch("go");
    assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    assert_all_ended(&asker.answer("POST").unwrap().expect(200).json(), &world);
    daemon.wait().ended(0);
}

#[test]
fn under_a_service_manager_its_status_says_that_it_stays_down() {
    let world = World::new();
    let manager = Manager::new(&world);
    let mut daemon = world.start_managed(&with_a_worker(&world), &manager);
    wait_for_all(&daemon, &world);
    daemon.portok(&["shutdown"]).ended(0);
    daemon.wait().ended(10);
    world.wait_for_none_left();
}

#[test]
fn a_shutdown_during_an_upgrade_is_refused() {
    let world = World::new();
    let mut daemon = world.start(&with_a_worker(&world));
    wait_for_all(&daemon, &world);
    let (begun, go) = (world.path("begun"), world.path("go"));
    let script = format!(
        "#!/bin/sh\ntouch {}\nuntil test -e {}; do sleep 0.02; done\nexit 1\n",
        begun.display(),
        go.display()
    );
    world.write("slow", &script);
    let slow = world.path("slow");
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut upgrade = daemon.spawn_portok(&["upgrade", "--binary", &slow.display().to_string()]);
    wait_until("the upgrade is under way", || daemon.log(), || begun.exists().then_some(()));
    let said = daemon.portok(&["shutdown"]).ended(5);
    assert_mentions(&said.err, &["an upgrade of the daemon is under way"]);
    world.touch("go");
    drop(upgrade.wait());
    daemon.portok(&["shutdown"]).ended(0);
    daemon.wait().ended(0);
}
