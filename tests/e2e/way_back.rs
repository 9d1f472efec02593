//! The way back: what a watch window survives, where a rollback goes, and what it never goes to.

use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::http::Answer;
use crate::harness::{Daemon, World, assert_at, deploy_body, live, pid, procs};
use nix::sys::signal::Signal;
use portok::wire::{ReleaseRow, Status, Switch};

/// A long window with quick probes, and a first release with a name.
fn watchful(world: &World) -> Conf {
    world
        .conf()
        // One for those who deploy from elsewhere too: else it is where they are.
        .set("app.directory", world.path("run").display().to_string())
        .set("rollback.window", "10m")
        .set("rollback.interval", "50ms")
        .set("rollback.threshold", 3)
        .set("drain.period", "60s")
        .set("drain.early", false)
        .set("app.start_timeout", "30s")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "100ms" burst = 3 within = "60s" })
}

/// A daemon that has deployed these, one after the other.
fn deployed<'w>(world: &'w World, conf: &Conf, apps: &[&App]) -> Daemon<'w> {
    let daemon = world.start(conf);
    for app in apps {
        daemon.deploy(app).expect(200);
    }
    daemon
}

fn rollback(daemon: &Daemon<'_>, query: &str) -> Answer {
    daemon.admin("POST", &format!("/__rollback{query}"), None)
}

fn forced(daemon: &Daemon<'_>, app: &App) -> Answer {
    daemon.admin("POST", "/__deploy?force=1", Some(&deploy_body(app)))
}

/// The outcomes of all attempts at a release, newest first.
fn outcomes(daemon: &Daemon<'_>, release: &str) -> Vec<String> {
    let of = |row: &ReleaseRow| row.outcome.map_or("", |outcome| outcome.as_str()).to_owned();
    daemon.releases().iter().filter(|row| row.release == release).map(of).collect()
}

/// What an act that changes nothing leaves as it is.
fn standing(status: &Status) -> (Option<&str>, Option<u32>, Option<&str>, Option<&Switch>, &str) {
    let last = status.last_switch.as_ref();
    (live(status), pid(status), status.watch_until.as_deref(), last, status.phase.as_str())
}

fn previous(status: &Status) -> Option<&str> {
    status.previous.as_ref().map(|previous| previous.release.as_str())
}

// ---- the window ----

#[test]
fn attempts_that_move_no_traffic_leave_the_window_and_the_way_back() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &watchful(&world), &[&old, &new]);
    let before = daemon.status();
    let until = before.watch_until.clone();
    assert!(until.is_some(), "{before:#?}");
    daemon.deploy(&world.app("v3").with("exit", 1)).refused(409, "deploy_aborted");
    let hung = world.app("v4").flag("health_hang");
    daemon.deploy_detached(&hung);
    hung.wait_for(1, "health hangs");
    daemon.admin("POST", "/__cancel", None).expect(200);
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    daemon.admin("POST", &format!("/__switch?port={free}"), None).refused(409, "health_failed");
    let after = daemon.status();
    assert_eq!((after.phase.as_str(), &after.watch_until), ("watching", &until), "its clock went on");
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    let back = daemon.wait_until_live("v1");
    assert_eq!(back.last_switch.unwrap().reason.as_str(), "auto-rollback");
    assert_eq!(old.count("start "), 1, "the very process");
}

#[test]
fn a_daemon_that_ends_while_a_candidate_starts_leaves_the_window() {
    let world = World::new();
    let conf = watchful(&world);
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &conf, &[&old, &new]);
    let until = daemon.wait_until_recorded().watch_until;
    let hung = world.app("v3").flag("health_hang");
    daemon.deploy_detached(&hung);
    hung.wait_for(1, "health hangs");
    daemon.kill();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_live("v2");
    assert_eq!((after.phase.as_str(), after.watch_until.is_some()), ("watching", until.is_some()));
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.wait_until_live("v1");
    assert_eq!(outcomes(&daemon, "v3"), ["interrupted"]);
}

#[test]
fn the_standby_stays_as_long_as_the_window_whatever_is_tried_meanwhile() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = watchful(&world)
        .set("rollback.standby", "window")
        .set("drain.period", "10ms")
        .set("drain.early", true);
    let daemon = deployed(&world, &conf, &[&old, &new]);
    daemon.deploy(&world.app("v3").with("exit", 1)).refused(409, "deploy_aborted");
    daemon.wait_until("its drain is over", |status| status.drain_until.is_none());
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.wait_until_live("v1");
    assert_eq!((old.count("start "), old.count("signal")), (1, 0));
}

#[test]
fn an_exit_in_the_window_gives_the_candidate_up_and_goes_back() {
    let world = World::new();
    let daemon = deployed(&world, &watchful(&world), &[&world.app("v1"), &world.app("v2")]);
    let hung = world.app("v3").flag("health_hang");
    let mut waiting = daemon.spawn_portok(&["deploy", "--json", "--release", "v3", "--cmd", &hung.command()]);
    hung.wait_for(1, "health hangs");
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.wait_until_live("v1");
    assert_at(&waiting.wait().ended(3).json(), "/outcome", "cancelled");
    daemon.wait_until_stopped("v3");
    assert_eq!(outcomes(&daemon, "v3"), ["cancelled"]);
    assert_eq!(outcomes(&daemon, "v2"), ["rolled_back"]);
    // It had no traffic, so it is in no quarantine.
    let again = world.app("v5");
    daemon.deploy(&again).expect(200);
}

#[test]
fn failing_probes_count_while_a_candidate_is_under_way() {
    let world = World::new();
    let sick = world.app("v2").with("health_file", world.path("health").display());
    let daemon = deployed(&world, &watchful(&world), &[&world.app("v1"), &sick]);
    let hung = world.app("v3").flag("health_hang");
    daemon.deploy_detached(&hung);
    hung.wait_for(1, "health hangs");
    world.write("health", "500");
    daemon.wait_until_live("v1");
    assert_eq!(outcomes(&daemon, "v3"), ["cancelled"]);
}

#[test]
fn a_rollback_that_starts_the_former_release_again_is_watched() {
    let world = World::new();
    let conf = watchful(&world).set("drain.period", "10ms").set("drain.early", true);
    let (first, old, new) = (world.app("v0"), world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &conf, &[&first, &old, &new]);
    daemon.wait_until_stopped("v1");
    rollback(&daemon, "").expect(200);
    let status = daemon.status();
    assert_eq!((live(&status), status.phase.as_str()), (Some("v1"), "watching"));
    assert!(status.watch_until.is_some());
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.wait_until_live("v0");
    assert_eq!(outcomes(&daemon, "v1"), ["rolled_back", "live"]);
}

// ---- where to ----

#[test]
fn a_bare_rollback_never_goes_to_what_was_just_left() {
    let world = World::new();
    let apps = ["v0", "v1", "v2"].map(|version| world.app(version));
    let daemon = deployed(&world, &watchful(&world), &apps.each_ref());
    assert_eq!(previous(&daemon.status()), Some("v1"));
    rollback(&daemon, "").expect(200);
    assert_eq!(previous(&daemon.status()), Some("v0"), "not v2, which was left");
    rollback(&daemon, "").expect(200);
    let status = daemon.status();
    assert_eq!((live(&status), previous(&status)), (Some("v0"), None));
    assert_eq!(status.quarantined, ["v1", "v2"], "the one that was live last first");
    let marked = |row: &ReleaseRow| (row.release.clone(), row.quarantined);
    let rows: Vec<_> = daemon.releases().iter().map(marked).collect();
    assert!(rows.contains(&("v2".into(), true)) && rows.contains(&("v0".into(), false)), "{rows:?}");
    rollback(&daemon, "").refused(409, "no_previous");
    rollback(&daemon, "?force=1").refused(409, "no_previous");
    let refused = rollback(&daemon, "?release=v2").refused(409, "quarantined");
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("--force")), "{refused:#}");
    daemon.portok(&["rollback", "v2"]).ended(5);
    daemon.portok(&["rollback", "never"]).ended(5);
    rollback(&daemon, "?release=never").refused(404, "no_such_release");
    rollback(&daemon, "?release=v2&force=1").expect(200);
    assert_eq!(live(&daemon.status()), Some("v2"));
    assert_eq!(daemon.get("/").version(), "v2");
    // It serves again for good, so that it is one like any other.
    daemon.deploy(&world.app("v3")).expect(200);
    assert_eq!(previous(&daemon.status()), Some("v2"));
}

#[test]
fn a_release_that_was_never_live_is_none_to_go_back_to() {
    let world = World::new();
    let daemon = deployed(&world, &watchful(&world), &[&world.app("v1"), &world.app("v2")]);
    daemon.deploy(&world.app("v3").with("exit", 1)).refused(409, "deploy_aborted");
    rollback(&daemon, "?release=v3").refused(404, "no_such_release");
    rollback(&daemon, "?release=v3&force=1").refused(404, "no_such_release");
}

#[test]
fn a_release_that_is_live_already_is_not_started_again_and_never_its_own_previous() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &watchful(&world), &[&old, &new]);
    let before = daemon.status();
    let answer = daemon.deploy(&new).expect(200).json();
    assert_at(&answer, "/alreadyLive", true);
    assert_at(&answer, "/release", "v2");
    let answer = daemon.admin("POST", "/__deploy?detach=1", Some(&deploy_body(&new))).expect(200).json();
    assert_at(&answer, "/alreadyLive", true);
    let said = daemon.portok(&["deploy", "--release", "v2", "--cmd", &new.command()]).ended(0);
    assert!(said.out.contains("live already"), "{said:?}");
    assert_eq!((standing(&daemon.status()), new.count("start ")), (standing(&before), 1));
    daemon.deploy(&world.app("v2").flag("other")).refused(400, "bad_request");
    let answer = forced(&daemon, &new).expect(200).json();
    assert_at(&answer, "/switch/reason", "deploy");
    let after = daemon.status();
    assert_ne!(pid(&after), pid(&before));
    assert_eq!(previous(&after), Some("v1"));
    assert_eq!(outcomes(&daemon, "v2"), ["live", "live"]);
    rollback(&daemon, "").expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn quarantine_outlives_the_daemon_and_ends_when_a_forced_release_settles() {
    let world = World::new();
    let conf = watchful(&world);
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &conf, &[&old, &new]);
    rollback(&daemon, "").expect(200);
    daemon.wait_until_recorded();
    daemon.kill();
    let conf = conf.set("rollback.window", "300ms");
    let daemon = world.start(&conf);
    daemon.wait_until_live("v1");
    daemon.deploy(&new).refused(409, "quarantined");
    rollback(&daemon, "").refused(409, "no_previous");
    daemon.portok(&["deploy", "--release", "v2", "--cmd", &new.command()]).ended(5);
    daemon.portok(&["deploy", "--force", "--release", "v2", "--cmd", &new.command()]).ended(0);
    daemon.wait_until("it has settled", |status| {
        live(status) == Some("v2") && status.phase.as_str() == "settled"
    });
    daemon.deploy(&world.app("v3")).expect(200);
    assert_eq!(previous(&daemon.status()), Some("v2"), "out of quarantine");
    assert_eq!(outcomes(&daemon, "v2"), ["live", "rolled_back"], "no outcome is written anew");
}

// ---- a rollback meanwhile, and one that is only asked about ----

#[test]
fn a_rollback_while_a_candidate_starts_cancels_it_and_goes_back() {
    let world = World::new();
    let daemon = deployed(&world, &watchful(&world), &[&world.app("v1"), &world.app("v2")]);
    let hung = world.app("v3").flag("health_hang");
    daemon.deploy_detached(&hung);
    hung.wait_for(1, "health hangs");
    // What is refused cancels nothing.
    rollback(&daemon, "?release=never").refused(404, "no_such_release");
    rollback(&daemon, "?release=v3").refused(404, "no_such_release");
    assert!(daemon.status().candidate.is_some());
    let plan = rollback(&daemon, "?dry_run=1").expect(200).json();
    assert_at(&plan, "/cancelled", "v3");
    assert!(daemon.status().candidate.is_some(), "a dry run changes nothing");
    let answer = rollback(&daemon, "").expect(200).json();
    assert_at(&answer, "/cancelled", "v3");
    assert_at(&answer, "/release", "v1");
    assert_eq!(daemon.get("/").version(), "v1");
    assert_eq!(outcomes(&daemon, "v3"), ["cancelled"]);
}

#[test]
fn a_dry_run_says_what_a_rollback_does_and_changes_nothing() {
    let world = World::new();
    let folder = world.path("app");
    std::fs::create_dir(&folder).unwrap();
    let conf = watchful(&world)
        .set("app.directory", folder.display().to_string())
        .set("drain.period", "10ms")
        .set("drain.early", true);
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = deployed(&world, &conf, &[&old]);
    rollback(&daemon, "?dry_run=1").refused(409, "no_previous");
    daemon.deploy(&new).expect(200);
    daemon.wait_until_stopped("v1");
    let before = daemon.status();
    let plan = rollback(&daemon, "?dry_run=1").expect(200).json();
    assert_at(&plan, "/dryRun", true);
    assert_at(&plan, "/release", "v1");
    assert_at(&plan, "/leaves", "v2");
    assert_at(&plan, "/starts", true);
    assert_at(&plan, "/watched", true);
    assert_at(&plan, "/directoryChanged", serde_json::Value::Null);
    world.touch("app/index.js");
    let plan = rollback(&daemon, "?dry_run=1").expect(200).json();
    let changed = plan["directoryChanged"].as_str().unwrap_or_default();
    assert!(changed.contains("index.js"), "{plan:#}");
    let said = daemon.portok(&["rollback", "--dry-run"]).ended(0);
    assert!(said.out.contains("v1") && said.out.contains("index.js"), "{said:?}");
    assert_eq!(standing(&daemon.status()), standing(&before));
    rollback(&daemon, "?release=never&dry_run=1").refused(404, "no_such_release");
    rollback(&daemon, "").expect(200);
    rollback(&daemon, "?release=v2&dry_run=1").refused(409, "quarantined");
    let plan = rollback(&daemon, "?release=v2&dry_run=1&force=1").expect(200).json();
    assert_at(&plan, "/release", "v2");
    rollback(&daemon, "?dry_run=perhaps").refused(400, "bad_request");
}

#[test]
fn a_rollback_to_what_is_live_changes_nothing() {
    let world = World::new();
    let daemon = deployed(&world, &watchful(&world), &[&world.app("v1"), &world.app("v2")]);
    let before = daemon.status();
    let answer = rollback(&daemon, "?release=v2").expect(200).json();
    assert_at(&answer, "/alreadyLive", true);
    assert_eq!(standing(&daemon.status()), standing(&before));
}

// ---- the history ----

#[test]
fn every_attempt_has_its_row() {
    let world = World::new();
    let broken = world.path("broken");
    let (old, new) = (world.app("v1").with("exit_if", broken.display()), world.app("v2"));
    let conf = watchful(&world).set("drain.period", "10ms").set("drain.early", true);
    let daemon = deployed(&world, &conf, &[&old, &new]);
    daemon.wait_until_stopped("v1");
    world.touch("broken");
    rollback(&daemon, "").refused(409, "deploy_aborted");
    assert_eq!(outcomes(&daemon, "v1"), ["aborted", "live"]);
    std::fs::remove_file(&broken).unwrap();
    rollback(&daemon, "").expect(200);
    assert_eq!(outcomes(&daemon, "v1"), ["live", "aborted", "live"]);
    assert_eq!(outcomes(&daemon, "v2"), ["rolled_back"]);
    let rows = daemon.releases();
    assert_eq!(rows.len(), 4, "{rows:#?}");
    assert!(rows[0].started_at > rows[3].started_at, "each with the times of its own process");
    assert!(rows[3].stopped_at.is_some());
}

// ---- [app] ----

#[test]
fn an_edit_to_what_is_in_quarantine_is_not_deployed_and_the_status_says_so() {
    let world = World::new();
    let conf = watchful(&world);
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = world.start(&conf.clone().app(&old));
    let first = daemon.wait_until_serves("v1");
    assert_eq!(first.config.app_in_force.as_ref().map(|app| app.in_force), Some(true));
    conf.clone().app(&new).save();
    daemon.wait_until_serves("v2");
    rollback(&daemon, "").expect(200);
    let why = |status: &Status| {
        let app = status.config.app_in_force.clone().expect("it is told");
        (app.in_force, app.why)
    };
    assert_eq!(why(&daemon.status()), (false, Some("quarantined".to_owned())));
    // Away from it and to it again: another id, the same content.
    conf.clone().app(&old).save();
    let live_now = daemon.wait_until("the edit is deployed", |status| {
        why(status).0 && live(status) != live(&first) && status.candidate.is_none()
    });
    conf.clone().app(&new).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    let status =
        daemon.wait_until("it is not deployed", |status| !why(status).0 && status.candidate.is_none());
    assert_eq!(why(&status).1.as_deref(), Some("quarantined"));
    assert_eq!((live(&status), new.count("start ")), (live(&live_now), 1));
    // A person may.
    daemon.portok(&["deploy"]).ended(0);
    daemon.wait_until_serves("v2");
    assert_eq!(why(&daemon.status()), (true, None));
}
