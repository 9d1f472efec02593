//! Where the app's life stands, told truly: a live release that keeps crashing or fails its probes is not settled, and what
//! went wrong last is known over a restart of the daemon.

use nix::sys::signal::Signal;
use toml::toml;

use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, assert_mentions, live, pid, procs};

/// No watch window, and crashes that matter for long.
fn conf(world: &World, app: &crate::harness::app::App) -> Conf {
    world.conf().app(app).set("rollback.window", "0s").set("rollback.interval", "50ms").set(
        "app.restart",
        toml! { backoff = "10ms" max_backoff = "200ms" burst = 3 within = "1h" give_up = false },
    )
}

/// Waits until the record has these words.
fn until_recorded(daemon: &Daemon<'_>, words: &str) {
    daemon.wait_until(&format!("{words} is on disk"), |_| {
        std::fs::read_to_string(daemon.world.state_file()).unwrap_or_default().contains(words)
    });
}

fn phase(daemon: &Daemon<'_>) -> String {
    daemon.status().phase.as_str().to_owned()
}

#[test]
fn a_release_that_crashed_lately_is_unstable_until_its_crashes_are_old_whichever_daemon_looks() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    assert_eq!(before.last_exit, None);
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    let status = daemon
        .wait_until("it serves again", |status| status.active_port.is_some() && pid(status) != pid(&before));
    assert_eq!(status.phase.as_str(), "unstable");
    let exit = status.last_exit.clone().expect("its last crash is known");
    assert_eq!(Some(exit.release.as_str()), live(&status));
    assert_mentions(&exit.exit, &["SIGKILL"]);
    let said = daemon.portok(&["status"]).ended(0).out;
    assert_mentions(&said, &["is unstable on", "last crash", "SIGKILL"]);
    until_recorded(&daemon, "SIGKILL");
    daemon.kill();
    let daemon = world.start(&conf);
    let status = daemon.wait_until_serves("v1");
    assert_eq!((status.phase.as_str(), status.last_exit), ("unstable", Some(exit)));
    daemon.kill();
    let daemon = world.start(&conf.set("app.restart.within", "1s"));
    let status = daemon.wait_until("its crash is old", |status| status.phase.as_str() == "settled");
    assert_eq!(status.last_exit, None);
}

#[test]
fn a_crash_loop_counts_on_over_a_restart_of_the_daemon() {
    let world = World::new();
    let app = world.app("v1").with("exit_file", world.path("crash").display());
    let conf = conf(&world, &app).set("app.restart.burst", 2);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    daemon.wait_until("it serves again", |status| status.phase.as_str() == "unstable");
    until_recorded(&daemon, "SIGKILL");
    daemon.kill();
    let daemon = world.start(&conf.set("app.restart.give_up", true));
    daemon.wait_until_serves("v1");
    world.touch("crash");
    let status = daemon.wait_until("it failed", |status| status.phase.as_str() == "failed");
    assert_eq!(status.last_exit.map(|exit| exit.release), live(&before).map(str::to_owned));
    assert_mentions(&status.last_failure.unwrap(), &["again and again"]);
}

#[test]
fn a_live_release_that_fails_its_probes_outside_the_window_is_unhealthy() {
    let world = World::new();
    let app = world.app("v1").with("health_file", world.path("health").display());
    let conf = conf(&world, &app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(phase(&daemon), "settled");
    world.write("health", "500");
    let status = daemon.wait_until("it is told", |status| status.phase.as_str() == "unhealthy");
    assert!(status.health.consecutive_fails >= 3 && status.active_port.is_some(), "{status:#?}");
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["is unhealthy on", "probes failed"]);
    until_recorded(&daemon, "\"failedProbes\": 3");
    daemon.kill();
    // The next daemon knows it before it has asked once.
    let daemon = world.start(&conf.clone().set("rollback.interval", "1h"));
    daemon.wait_until_serves("v1");
    assert_eq!(phase(&daemon), "unhealthy");
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["its last 3 probes failed"]);
    daemon.kill();
    let daemon = world.start(&conf);
    world.write("health", "200");
    daemon.wait_until("it is healthy again", |status| status.phase.as_str() == "settled");
}

#[test]
fn the_last_failure_and_its_time_stay_until_a_later_attempt_succeeds() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1"));
    let daemon = world.start(&conf);
    let first = daemon.wait_until_serves("v1");
    assert_eq!((first.last_failure.as_ref(), first.last_failure_at.as_ref()), (None, None));
    daemon.deploy(&world.app("v2").with("exit", 3)).refused(409, "deploy_aborted");
    let failed = daemon.status();
    assert!(failed.last_failure.is_some() && failed.last_failure_at.is_some(), "{failed:#?}");
    let told = |status: portok::wire::Status| (status.last_failure, status.last_failure_at);
    let failure = told(failed);
    // That the live release comes back after a crash is no later attempt.
    procs::send(pid(&first).unwrap(), Signal::SIGKILL);
    daemon.wait_until("it serves again", |status| status.phase.as_str() == "unstable");
    assert_eq!(told(daemon.status()), failure);
    until_recorded(&daemon, "SIGKILL");
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(told(daemon.status()), failure);
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["last failure", "ago", "v2"]);
    daemon.deploy(&world.app("v3")).expect(200);
    assert_eq!(told(daemon.status()), (None, None));
}
