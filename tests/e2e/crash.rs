//! Crashes: of the app outside its window, and of the daemon at any point.

use nix::sys::signal::Signal;
use serde_json::Value;
use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{World, live, pid, procs, wait_until};

fn restarting(world: &World, app: &App) -> Conf {
    world
        .conf()
        .app(app)
        .set("rollback.window", "100ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "200ms" burst = 3 within = "60s" })
}

#[test]
fn a_crashed_app_is_started_again_and_traffic_is_not_said_to_have_moved() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&restarting(&world, &app));
    let before = daemon.wait_until_serves("v1");
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    let after =
        daemon.wait_until("it runs again", |status| pid(status).is_some() && pid(status) != pid(&before));
    daemon.wait_until_serves("v1");
    assert_eq!(after.last_switch, before.last_switch);
    let status = daemon.status();
    assert_eq!(live(&status), live(&before));
    assert_eq!(status.live.unwrap().restarts, 1);
    assert_eq!(app.count("start "), 2);
}

#[test]
fn a_crash_takes_the_rest_of_the_group_with_it() {
    let world = World::new();
    let app = world.app("v1").flag("helper");
    let daemon = world.start(&restarting(&world, &app).set("app.stop_timeout", "300ms"));
    let before = daemon.wait_until_serves("v1");
    let helper: u32 = app.wait_for(1, "helper ").parse().unwrap();
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    app.wait_for(2, "listen ");
    daemon.wait_until_serves("v1");
    wait_until(
        "the first run's helper is gone",
        || daemon.log(),
        || (!procs::is_alive(helper)).then_some(()),
    );
}

#[test]
fn a_crash_loop_ends_in_failed_and_a_deploy_mends_it() {
    let world = World::new();
    let app = world.app("v1").with("exit_file", world.path("crash").display());
    let daemon = world.start(&restarting(&world, &app).set("app.restart.give_up", true));
    daemon.wait_until_serves("v1");
    world.touch("crash");
    let status = daemon.wait_until("it failed", |status| status.phase.as_str() == "failed");
    assert_eq!(pid(&status), None);
    assert!(status.last_failure.is_some());
    let answer = daemon.get("/");
    assert!(matches!(answer.status(), 502 | 503), "{:?}", answer.head);
    let starts = app.count("start ");
    assert!((3..=6).contains(&starts), "three crashes are the limit, there were {starts} starts");
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.wait_until_serves("v2");
    assert_eq!(status.last_failure, None);
    assert_eq!(app.count("start "), starts, "with give_up it is not tried again");
}

#[test]
fn a_failed_app_is_tried_again_rarely_and_comes_back_by_itself() {
    let world = World::new();
    let app = world.app("v1").with("exit_file", world.path("crash").display());
    let daemon = world.start(&restarting(&world, &app));
    daemon.wait_until_serves("v1");
    world.touch("crash");
    daemon.wait_until("it failed", |status| status.phase.as_str() == "failed");
    let starts = app.count("start ");
    app.wait_for(starts + 2, "start ");
    std::fs::remove_file(world.path("crash")).unwrap();
    daemon.wait_until_serves("v1");
    daemon.wait_until("it is well again", |status| status.phase.as_str() == "settled");
}

#[test]
fn a_deploy_while_the_live_one_is_restarting_works() {
    let world = World::new();
    let app = world.app("v1").with("exit_file", world.path("crash").display());
    let conf = restarting(&world, &app).set("app.restart", toml! { backoff = "30s" max_backoff = "60s" });
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.wait_until("the window has passed", |status| status.phase.as_str() == "settled");
    world.touch("crash");
    daemon.wait_until("it is restarting", |status| status.phase.as_str() == "restarting");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn an_app_outlives_its_daemon_and_is_taken_over_by_the_next() {
    let world = World::new();
    let app = world.app("v1").flag("helper").with("say", "hello");
    let conf = restarting(&world, &app).set("app.stop_timeout", "300ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let before = daemon.wait_until_recorded();
    let helper: u32 = app.wait_for(1, "helper ").parse().unwrap();
    daemon.kill();
    let daemon = world.start(&conf);
    // From its first request on.
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    let after = daemon.status();
    assert_eq!((live(&after), pid(&after)), (live(&before), pid(&before)));
    assert_eq!((after.active_port, &after.last_switch), (before.active_port, &before.last_switch));
    assert_eq!(started_at(&after), started_at(&before));
    assert!(procs::is_alive(helper), "what belongs to it goes on too");
    assert_eq!(app.count("start "), 1, "none was started twice");
    assert_eq!(app.count("signal"), 0);
    // Like any other: replaced, drained, stopped with all that belongs to it.
    let next = world.app("v2");
    daemon.deploy(&next).expect(200);
    let old = live(&before).unwrap();
    let row = daemon.wait_until_stopped(old);
    assert!(row.stopped_at.is_some());
    assert!(!procs::is_alive(pid(&before).unwrap()) && !procs::is_alive(helper));
    assert_eq!(app.count("signal SIGTERM"), 2, "it and its helper were asked once each");
    assert_eq!(daemon.get("/").version(), "v2");
}

fn started_at(status: &portok::wire::Status) -> Option<String> {
    status.live.as_ref().and_then(|live| live.started_at.clone())
}

#[test]
fn what_it_prints_while_nobody_listens_is_read_by_the_next_daemon() {
    let world = World::new();
    let app = world.app("v1").flag("flood");
    let conf = restarting(&world, &app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let before = daemon.wait_until_recorded();
    let port = before.active_port.unwrap();
    daemon.kill();
    // A pipe without reader would end it, and a full one would stop it in the middle of a line.
    procs::wait_until_it_writes_on(pid(&before).unwrap());
    let mut conn = crate::harness::Conn::tcp(std::net::SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    for _ in 0..50 {
        assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1");
    }
    let daemon = world.start(&conf);
    assert_eq!(pid(&daemon.wait_until_serves("v1")), pid(&before));
    wait_until(
        "its lines are read again",
        || daemon.log().chars().take(2000).collect(),
        || daemon.admin("GET", "/__logs?lines=5", None).expect(200).text().contains("flood").then_some(()),
    );
}

#[test]
fn an_app_that_was_taken_over_is_restarted_and_rolled_back_like_any_other() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2").with("exit_file", world.path("crash").display()));
    let conf = restarting(&world, &old).set("rollback.window", "10m").set("drain.period", "10m");
    let conf = conf.set("drain.early", false);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let first = daemon.live_pid();
    daemon.deploy(&new).expect(200);
    let before = daemon.wait_until_recorded();
    daemon.kill();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_serves("v2");
    assert_eq!((after.phase.as_str(), pid(&after)), ("watching", pid(&before)));
    let (ends, ended) = (after.watch_until.unwrap(), before.watch_until.unwrap());
    assert!(ends[..19] <= ended[..19], "the window goes on with what is left: {ends} after {ended}");
    // Its end within the window: back to the very process that still drains.
    world.touch("crash");
    let status = daemon.wait_until_serves("v1");
    assert_eq!(pid(&status), Some(first));
    assert_eq!(status.last_switch.map(|switch| switch.reason.as_str()), Some("auto-rollback"));
    daemon.wait_until_recorded();
    // Outside of one: started again.
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.live_pid(), first);
    procs::send(first, Signal::SIGKILL);
    let status = daemon.wait_until("it is started again", |status| {
        status.active_port.is_some() && pid(status).is_some_and(|pid| pid != first)
    });
    assert_eq!(status.live.map(|live| live.restarts), Some(1));
    assert_eq!(daemon.row(&live_id(&daemon)).exit, None, "it runs");
}

fn live_id(daemon: &crate::harness::Daemon<'_>) -> String {
    live(&daemon.status()).unwrap_or_default().to_owned()
}

#[test]
fn an_app_that_died_with_its_daemon_is_started_again_and_within_the_window_gone_back_from() {
    for (window, expected) in [("100ms", "v2"), ("10m", "v1")] {
        let world = World::new();
        let conf =
            restarting(&world, &world.app("v1")).set("rollback.window", window).set("drain.period", "50ms");
        let daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        daemon.deploy(&world.app("v2")).expect(200);
        daemon.wait_until("the old one is gone", |status| status.drain_until.is_none());
        daemon.wait_until("the window is where it shall be", |status| {
            (status.phase.as_str() == "settled") == (expected == "v2")
        });
        daemon.wait_until_recorded();
        let old = daemon.live_pid();
        daemon.kill();
        procs::send(old, Signal::SIGKILL);
        wait_until("the app is gone", String::new, || (!procs::is_alive(old)).then_some(()));
        let daemon = world.start(&conf);
        daemon.wait_until_serves(expected);
        assert_ne!(daemon.live_pid(), old);
    }
}

#[test]
fn a_stop_goes_on_with_the_time_that_is_left_and_is_not_asked_for_twice() {
    let world = World::new();
    let old = world.app("v1").flag("ignore_term");
    let conf = restarting(&world, &old).set("drain.period", "50ms").set("app.stop_timeout", "10m");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let (release, stubborn) = (live_id(&daemon), daemon.live_pid());
    daemon.deploy(&world.app("v2")).expect(200);
    old.wait_for(1, "signal SIGTERM");
    let is_recorded =
        || std::fs::read_to_string(world.state_file()).is_ok_and(|state| state.contains("\"stopping\""));
    wait_until("that is written down", || daemon.log(), || is_recorded().then_some(()));
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    // A shorter time is in force now; the rest of the former is cut to it.
    daemon.kill();
    let daemon = world.start(&conf.set("app.stop_timeout", "300ms"));
    daemon.wait_until_serves("v2");
    daemon.wait_until_stopped(&release);
    assert!(!procs::is_alive(stubborn));
    assert_eq!(old.count("signal SIGTERM"), 1, "it was asked once, by the first daemon");
}

#[test]
fn a_daemon_killed_within_a_deploy_comes_back_to_the_old_release() {
    let world = World::new();
    let old = world.app("v1");
    let new = world.app("v2").with("bind_after", world.path("never").display());
    let conf = restarting(&world, &old);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let before = daemon.wait_until_recorded();
    daemon.deploy_detached(&new);
    new.wait_for(1, "start ");
    daemon.kill();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_serves("v1");
    assert_eq!((live(&after), &after.last_switch), (live(&before), &before.last_switch));
    assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("interrupted"));
    assert_eq!(pid(&after), pid(&before));
    wait_until("the candidate is gone", || daemon.log(), || (!procs::is_alive(new.pids()[0])).then_some(()));
    assert_eq!(new.count("start "), 1);
    assert_eq!(world.processes().len(), 1, "{:#?}", world.processes());
}

#[test]
fn a_daemon_killed_within_a_drain_comes_back_to_the_new_release() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = restarting(&world, &old).set("drain.period", "10m").set("drain.early", false);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    let before = daemon.wait_until_recorded();
    daemon.kill();
    let daemon = world.start(&conf.set("drain.period", "1s"));
    let after = daemon.wait_until_serves("v2");
    assert_eq!((live(&after), &after.last_switch), (Some("v2"), &before.last_switch));
    wait_until("the old one is gone", || daemon.log(), || (!procs::is_alive(old.pids()[0])).then_some(()));
    assert_eq!((old.count("start "), new.count("start ")), (1, 1));
    assert_eq!((pid(&after), old.count("signal SIGTERM")), (pid(&before), 1));
    assert_eq!(world.processes().len(), 1, "{:#?}", world.processes());
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_deploy_comes_back_to_one_of_the_two() {
    let world = World::new();
    let conf = restarting(&world, &world.app("v0")).set("drain.period", "50ms");
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v0");
    daemon.wait_until_recorded();
    let mut serving = "v0".to_owned();
    // Each round kills it a bit later: before the spawn, within the probes, around the switch, in the drain.
    for round in 1..=10 {
        let app = world.app(&format!("v{round}"));
        daemon.deploy_detached(&app);
        match round {
            1 | 2 => {}
            3 | 4 => drop(app.wait_for(1, "start ")),
            5 | 6 => drop(app.wait_for(1, "listen ")),
            7 | 8 => drop(app.wait_for(1, "health ")),
            _ => drop(daemon.wait_until_live(app.version())),
        }
        daemon.kill();
        daemon = world.start(&conf);
        daemon.wait_until("something serves", |status| status.active_port.is_some());
        let version = daemon.get("/").expect(200).version().to_owned();
        assert!(
            version == serving || version == app.version(),
            "{version} serves, neither {serving} nor {}",
            app.version()
        );
        wait_until(
            "exactly one process runs",
            || format!("{:#?}\n{}", world.processes(), daemon.log()),
            || (world.processes().len() == 1).then_some(()),
        );
        serving = version;
    }
}

#[test]
fn a_recycled_pid_is_never_signalled() {
    let world = World::new();
    let app = world.app("v1");
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = restarting(&world, &app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let before = daemon.wait_until_recorded();
    let old = pid(&before).unwrap();
    daemon.kill();
    procs::send(old, Signal::SIGKILL);
    wait_until("the app is gone", String::new, || (!procs::is_alive(old)).then_some(()));
    // The record's pid belongs to somebody else now, as after a wrap of the pid space.
    let mut state: Value = serde_json::from_slice(&std::fs::read(world.state_file()).unwrap()).unwrap();
    assert!(replace_pid(&mut state, old, bystander.pid()) > 0, "the pid is recorded: {state:#}");
    std::fs::write(world.state_file(), state.to_string()).unwrap();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert!(bystander.is_alive());
    daemon.terminate();
    assert!(bystander.is_alive());
    assert_eq!(bystander_app.count("signal"), 0);
}

fn replace_pid(value: &mut Value, old: u32, new: u32) -> usize {
    match value {
        Value::Object(entries) => entries
            .iter_mut()
            .map(|(key, value)| match key.as_str() {
                "pid" if *value == old => {
                    *value = new.into();
                    1
                }
                _ => replace_pid(value, old, new),
            })
            .sum(),
        Value::Array(values) => values.iter_mut().map(|value| replace_pid(value, old, new)).sum(),
        _ => 0,
    }
}
