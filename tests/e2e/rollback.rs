//! Going back: by hand, by the watch window's verdict, and when there is nothing good to go back to.

use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::http::Answer;
use crate::harness::{Conn, Daemon, World, assert_at, live, pid, procs};
use nix::sys::signal::Signal;

/// A long window with quick probes.
fn watchful(world: &World, app: &App) -> Conf {
    world
        .conf()
        .app(app)
        .set("rollback.window", "10m")
        .set("rollback.interval", "50ms")
        .set("rollback.threshold", 3)
        .set("health.timeout", "2s")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "100ms" burst = 3 within = "60s" })
}

#[test]
fn a_rollback_to_a_draining_release_makes_the_same_process_live_again() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = watchful(&world, &old).set("drain.period", "60s").set("drain.early", false);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    let rolled = daemon.admin("POST", "/__rollback", None).expect(200).json();
    assert_at(&rolled, "/switch/reason", "manual-rollback");
    assert_at(&rolled, "/release", live(&before).unwrap());
    let after = daemon.status();
    assert_eq!((live(&after), pid(&after)), (live(&before), pid(&before)));
    assert_eq!(after.watch_until, None, "a rollback opens no window");
    assert_eq!(after.phase.as_str(), "settled");
    assert_eq!(daemon.get("/").version(), "v1");
    assert_eq!((old.count("start "), old.count("signal")), (1, 0));
}

/// What a rollback leaves is in quarantine, so that the way forth has to be insisted on.
fn back_or_forth(daemon: &Daemon<'_>, first: &str, round: usize) -> Answer {
    let to = if round.is_multiple_of(2) { first } else { "v2" };
    daemon.admin("POST", &format!("/__rollback?release={to}&force=1"), None)
}

#[test]
fn back_and_forth_never_signals_what_is_live() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = watchful(&world, &old).set("drain.period", "60s").set("drain.early", false);
    let daemon = world.start(&conf);
    let first = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&new).expect(200);
    let pids = [daemon.status().previous.unwrap().pid, pid(&daemon.status())];
    for round in 0..20 {
        back_or_forth(&daemon, &first, round).expect(200);
        let (expected, version) = if round % 2 == 0 { (pids[0], "v1") } else { (pids[1], "v2") };
        assert_eq!(pid(&daemon.status()), expected, "round {round}");
        assert_eq!(daemon.get("/").version(), version);
    }
    assert_eq!((old.count("start "), new.count("start ")), (1, 1));
    assert_eq!((old.count("signal"), new.count("signal")), (0, 0));
}

#[test]
fn back_and_forth_with_stops_pending_ends_on_a_live_process() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    // The drain ends while the next rollback is on its way: some stops are cancelled, others have begun.
    let conf = watchful(&world, &old).set("drain.period", "20ms").set("drain.early", false);
    let daemon = world.start(&conf);
    let first = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&new).expect(200);
    for round in 0..20 {
        let answer = back_or_forth(&daemon, &first, round).expect(200).json();
        let version = if round % 2 == 0 { "v1" } else { "v2" };
        assert_eq!(daemon.get("/").expect(200).version(), version, "{answer:#}");
        let live = daemon.live_pid();
        let app = if version == "v1" { &old } else { &new };
        assert_eq!(app.pids().last(), Some(&live), "the newest process is the live one");
        assert!(procs::is_alive(live));
    }
    for app in [&old, &new] {
        // Every process was signalled at most once, and only by its own stop.
        assert!(app.count("signal") <= app.count("start "), "{:#?}", app.journal());
    }
}

#[test]
fn a_rollback_to_a_stopped_release_starts_it_again_first() {
    let world = World::new();
    let old = world.app("v1");
    let daemon = world.start(&watchful(&world, &old));
    let before = daemon.wait_until_serves("v1");
    let release = live(&before).unwrap().to_owned();
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.wait_until_stopped(&release);
    daemon.admin("POST", "/__rollback", None).expect(200);
    let after = daemon.status();
    assert_eq!(live(&after), Some(release.as_str()));
    assert_ne!(pid(&after), pid(&before));
    assert_eq!(old.count("start "), 2);
    assert_eq!(daemon.get("/").version(), "v1");
    assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("rolled_back"));
}

#[test]
fn without_a_previous_release_a_rollback_is_refused() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    daemon.admin("POST", "/__rollback", None).refused(409, "no_previous");
    daemon.portok(&["rollback"]).ended(5);
}

#[test]
fn a_new_release_that_dies_in_the_window_gives_traffic_back_to_the_draining_one() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = watchful(&world, &old).set("drain.period", "60s").set("drain.early", false);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    let after = daemon.wait_until("traffic is back", |status| live(status) == live(&before));
    assert_eq!(pid(&after), pid(&before), "the very process, not a new one");
    let last = after.last_switch.unwrap();
    assert_eq!((last.reason.as_str(), Some(last.to)), ("auto-rollback", before.active_port));
    assert_eq!(after.watch_until, None);
    assert_eq!(daemon.get("/").version(), "v1");
    assert_eq!((old.count("start "), old.count("signal"), new.count("start ")), (1, 0, 1));
    let row = daemon.wait_until_stopped("v2");
    assert_eq!(row.outcome.map(|outcome| outcome.as_str()), Some("rolled_back"));
    assert!(row.exit.is_some_and(|exit| exit.contains("SIGKILL")));
    assert!(row.reason.is_some(), "why it did not stay live");
}

#[test]
fn a_new_release_that_dies_in_the_window_brings_the_stopped_one_up_again() {
    let world = World::new();
    let old = world.app("v1");
    let daemon = world.start(&watchful(&world, &old));
    let before = daemon.wait_until_serves("v1");
    let release = live(&before).unwrap().to_owned();
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.wait_until_stopped(&release);
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    let after = daemon.wait_until_live(&release);
    assert_eq!(after.last_switch.unwrap().reason.as_str(), "auto-rollback");
    daemon.wait_until_serves("v1");
    assert_eq!(old.count("start "), 2);
    assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("rolled_back"));
}

#[test]
fn failing_health_in_the_window_brings_an_automatic_rollback_after_the_threshold() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2").with("health_file", world.path("health").display()));
    let conf = watchful(&world, &old).set("drain.period", "60s").set("drain.early", false);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    world.write("health", "500");
    let after = daemon.wait_until("traffic is back", |status| live(status) == live(&before));
    assert_eq!(after.last_switch.unwrap().reason.as_str(), "auto-rollback");
    assert!(new.count("health 500") >= 3, "{:#?}", new.journal());
    assert_eq!(daemon.get("/").version(), "v1");
    // No oscillation: the one that came back is not watched.
    assert_eq!(daemon.status().watch_until, None);
}

#[test]
fn flapping_health_brings_no_rollback() {
    let world = World::new();
    let new = world.app("v2").with("health_cycle", "200,500,500");
    let daemon = world.start(&watchful(&world, &world.app("v1")));
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    new.wait_for(12, "health 500");
    let status = daemon.status();
    assert_eq!(live(&status), Some("v2"));
    assert_eq!(status.last_switch.unwrap().reason.as_str(), "deploy");
}

#[test]
fn a_window_that_has_passed_settles_and_later_failures_do_not_roll_back() {
    let world = World::new();
    let new = world.app("v2").with("health_file", world.path("health").display());
    let conf = watchful(&world, &world.app("v1")).set("rollback.window", "300ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    let status = daemon.wait_until("the window has passed", |status| status.phase.as_str() == "settled");
    assert_eq!(status.watch_until, None);
    world.write("health", "500");
    let health = daemon.admin("GET", "/__health", None).expect(503).json();
    assert_at(&health, "/healthy", false);
    assert_at(&health, "/status", 500);
    assert_eq!(live(&daemon.status()), Some("v2"));
    assert_eq!(daemon.get("/").version(), "v2");
    // By hand it is still possible.
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_previous_release_that_cannot_come_back_is_never_switched_to() {
    let world = World::new();
    let old = world.app("v1").with("exit_if", world.path("broken").display());
    let new = world.app("v2").with("health_file", world.path("health").display());
    let daemon = world.start(&watchful(&world, &old).set("app.start_timeout", "30s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&new).expect(200);
    daemon.wait_until_stopped(&release);
    world.touch("broken");
    world.write("health", "500");
    let status = daemon.wait_until("it says that it cannot go back", |status| status.last_failure.is_some());
    assert_eq!(live(&status), Some("v2"));
    assert_eq!(status.last_switch.unwrap().reason.as_str(), "deploy");
    assert_eq!(daemon.get("/").expect(200).version(), "v2", "sick is better than nothing");
    assert!(old.count("start ") >= 2);
    let refused = daemon.admin("POST", "/__rollback", None);
    assert_eq!(refused.status(), 409, "{}", refused.text());
    assert_eq!(daemon.get("/").expect(200).version(), "v2");
}

#[test]
fn when_both_are_dead_the_new_one_stays_is_restarted_and_it_is_said() {
    let world = World::new();
    let old = world.app("v1").with("exit_if", world.path("broken").display());
    let new = world.app("v2").with("exit_if", world.path("broken").display());
    let daemon = world.start(&watchful(&world, &old).set("app.start_timeout", "30s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&new).expect(200);
    daemon.wait_until_stopped(&release);
    world.touch("broken");
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    let status = daemon.wait_until("it says so", |status| {
        status.last_failure.is_some() && matches!(status.phase.as_str(), "restarting" | "failed")
    });
    assert_eq!(live(&status), Some("v2"));
    let answer = daemon.get("/");
    assert!(matches!(answer.status(), 502 | 503), "{:?}", answer.head);
    std::fs::remove_file(world.path("broken")).unwrap();
    daemon.wait_until_serves("v2");
    assert_eq!(
        daemon.status().last_switch.unwrap().reason.as_str(),
        "deploy",
        "a crash restart moves no traffic"
    );
}

#[test]
fn waiting_for_the_window_ends_with_4_when_it_was_rolled_back() {
    let world = World::new();
    let new = world.app("v2").with("health_file", world.path("health").display());
    let daemon = world.start(&watchful(&world, &world.app("v1")));
    daemon.wait_until_serves("v1");
    let mut waiting = daemon.spawn_portok(&[
        "deploy",
        "--wait-window",
        "--json",
        "--release",
        "v2",
        "--cmd",
        &new.command(),
    ]);
    daemon.wait_until_live("v2");
    assert_eq!(waiting.code(), None, "it waits for the window");
    world.write("health", "500");
    let said = waiting.wait().ended(4);
    assert_at(&said.json(), "/outcome", "rolled_back");
}

#[test]
fn waiting_for_the_window_ends_with_0_when_it_has_passed() {
    let world = World::new();
    let daemon = world.start(&watchful(&world, &world.app("v1")).set("rollback.window", "300ms"));
    daemon.wait_until_serves("v1");
    let command = world.app("v2").command();
    let said =
        daemon.portok(&["deploy", "--wait-window", "--json", "--release", "v2", "--cmd", &command]).ended(0);
    assert_at(&said.json(), "/outcome", "live");
    assert_eq!(daemon.status().phase.as_str(), "settled");
}

#[test]
fn a_request_held_by_the_failing_release_survives_the_rollback() {
    let world = World::new();
    let new = world.app("v2").with("health_file", world.path("health").display());
    let daemon = world.start(&watchful(&world, &world.app("v1")).set("drain.period", "60s"));
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    let mut conn = hold(&daemon, &new);
    world.write("health", "500");
    daemon.wait_until("traffic is back", |status| live(status) != Some("v2"));
    assert_eq!(daemon.get("/").version(), "v1");
    world.touch("go");
    assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v2");
    daemon.wait_until_stopped("v2");
    let journal: Vec<_> = new
        .journal()
        .into_iter()
        .filter(|line| line.starts_with("hold") || line.starts_with("signal"))
        .collect();
    assert_eq!(journal, ["hold begin", "hold end", "signal SIGTERM"]);
}

fn hold(daemon: &Daemon<'_>, app: &App) -> Conn {
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", daemon.world.path("go").display());
    conn.send(&crate::harness::http::request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    conn
}

#[test]
fn waiting_for_the_window_ends_with_4_even_when_the_way_back_takes_long() {
    let world = World::new();
    world.touch("bind");
    let old = world.app("v1").with("bind_after", world.path("bind").display());
    let new = world.app("v2").with("health_file", world.path("health").display());
    let daemon = world.start(&watchful(&world, &old).set("drain.period", "100ms"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let command = new.command();
    let words = ["deploy", "--wait-window", "--json", "--release", "v2", "--cmd", &command];
    let mut waiting = daemon.spawn_portok(&words);
    daemon.wait_until_live("v2");
    daemon.wait_until_stopped(&release);
    std::fs::remove_file(world.path("bind")).unwrap();
    world.write("health", "500");
    old.wait_for(2, "start ");
    // The verdict has fallen and nothing has moved yet: for as long as that takes, whoever waits goes on waiting.
    for _ in 0..20 {
        let status = daemon.portok(&["status", "--json"]).ended(0).json();
        assert_at(&status, "/phase", "watching");
        assert_at(&status, "/live/release", "v2");
        assert_eq!(waiting.code(), None, "it waits for the outcome: {:?}", waiting.said());
    }
    world.touch("bind");
    let said = waiting.wait().ended(4);
    assert_at(&said.json(), "/outcome", "rolled_back");
    assert_eq!(daemon.get("/").version(), "v1");
}
