//! One app's trouble is no other's: killed daemons, lost records, faults in a coordinator.

use std::fs;

use nix::sys::signal::Signal;

use super::faults::start_failing;
use super::{edge, get, live_pid, names, put, record, status, take_away, wait_for, wait_until_kept};
use crate::harness::{Load, World, assert_mentions, wait_until};

#[test]
fn a_killed_daemons_apps_are_taken_over_each_by_its_own_record() {
    let world = World::new();
    let conf = edge(&world);
    for app in ["api", "shop", "third"] {
        put(&world, app, &[&format!("{app}.test")], &world.app(&format!("{app}-1")));
    }
    let daemon = world.start(&conf);
    // The releases of apps may have one name.
    for app in ["api", "shop"] {
        let next =
            serde_json::json!({ "command": world.app(&format!("{app}-2")).command(), "release": "v2" });
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
        daemon.admin("POST", &format!("/__deploy?app={app}"), Some(&next)).expect(200);
    }
    wait_for(&daemon, "third.test", "third-1");
    let before = ["api", "shop", "third"].map(|app| live_pid(&daemon, app));
    wait_until("the former are gone", || daemon.log(), || (world.processes().len() == 3).then_some(()));
    daemon.kill();
    // One goes, and one record is torn.
    take_away(&world, "third");
    fs::write(record(&world, "shop"), "{ torn").unwrap();
    let daemon = world.start_saved(&conf);
    wait_for(&daemon, "api.test", "api-2");
    assert_eq!(live_pid(&daemon, "api"), before[0]);
    // What its record named is found by its mark, and [app] is started anew.
    wait_for(&daemon, "shop.test", "shop-1");
    assert!(live_pid(&daemon, "shop") != before[1]);
    assert_mentions(&daemon.log(), &["shop.json.corrupt-"]);
    wait_until("the third is stopped", || daemon.log(), || (names(&world) == ["api", "shop"]).then_some(()));
    let pids: Vec<_> = world.processes().iter().map(|process| process.pid).collect();
    assert!(pids.len() == 2 && !pids.contains(&before[2]), "{pids:?}");
    assert!(!record(&world, "third").exists());
    daemon.terminate();
}

#[test]
fn an_upgrade_carries_all_apps() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    put(&world, "api", &["api.test"], &world.app("api-1"));
    let mut daemon = world.start(&conf);
    wait_for(&daemon, "app.test", "steady-1");
    wait_for(&daemon, "api.test", "api-1");
    let before = ["steady", "api"].map(|app| live_pid(&daemon, app));
    let load = Load::start(daemon.addr);
    daemon.upgrade();
    wait_for(&daemon, "api.test", "api-1");
    assert_eq!(["steady", "api"].map(|app| live_pid(&daemon, app)), before);
    load.wait_for_more(50);
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn a_coordinator_that_falls_is_started_again_and_the_others_go_on() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    put(&world, "api", &["api.test"], &world.app("api-1"));
    // In the middle of the deploy.
    let daemon = start_failing(&world, &conf, "api:14-14");
    wait_for(&daemon, "app.test", "steady-1");
    wait_for(&daemon, "api.test", "api-1");
    let steady = live_pid(&daemon, "steady");
    let load = Load::start(daemon.addr);
    let mut version = "api-1".to_owned();
    for number in 2..9 {
        let next = world.app(&format!("api-{number}"));
        let body = serde_json::json!({ "command": next.command(), "release": next.version() });
        // It may be lost with the coordinator.
        let answer = daemon.admin("POST", "/__deploy?app=api", Some(&body));
        if answer.status() == 200 {
            version = next.version().to_owned();
        }
        if daemon.log().contains("it is started again") {
            break;
        }
    }
    assert_mentions(&daemon.log(), &["app=\"api\"", "it is started again"]);
    wait_until(
        "it serves again",
        || daemon.log(),
        || {
            let status = status(&daemon, "api");
            (status.active_port.is_some() && status.candidate.is_none()).then_some(())
        },
    );
    wait_until(
        "each has one process",
        || format!("{:?}", world.processes()),
        || (world.processes().len() == 2).then_some(()),
    );
    let served = get(&daemon, "api.test", "/").expect(200).version().to_owned();
    assert!(served >= version, "{served} serves after {version}");
    let next = serde_json::json!({ "command": world.app("last").command(), "release": "last" });
    daemon.admin("POST", "/__deploy?app=api", Some(&next)).expect(200);
    wait_for(&daemon, "api.test", "last");
    assert_eq!(live_pid(&daemon, "steady"), steady);
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn an_app_whose_file_is_broken_or_gone_is_as_it_was_when_the_daemon_starts_again() {
    let world = World::new();
    let conf = edge(&world).set("removal_delay", "300ms");
    for app in ["broken", "gone", "good"] {
        put(&world, app, &[&format!("{app}.test")], &world.app(&format!("{app}-1")));
    }
    let daemon = world.start(&conf);
    for app in ["broken", "gone", "good"] {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
    }
    let before = ["broken", "gone"].map(|app| live_pid(&daemon, app));
    wait_until_kept(&world, "gone");
    daemon.kill();
    super::put_text(&world, "broken", "hosts = 7");
    take_away(&world, "gone");
    let daemon = world.start_saved(&conf);
    wait_for(&daemon, "broken.test", "broken-1");
    assert_eq!(live_pid(&daemon, "broken"), before[0]);
    let explain = || status(&daemon, "broken").config.error.unwrap_or_default();
    wait_until("what is wrong is shown", explain, || explain().contains("hosts = 7").then_some(()));
    wait_until(
        "the other is removed",
        || daemon.log(),
        || (names(&world) == ["broken", "good"]).then_some(()),
    );
    assert!(world.processes().iter().all(|process| process.pid != before[1]));
    let kept = || fs::read_to_string(world.path("state/state.apps.json")).unwrap_or_default();
    wait_until("it is forgotten", kept, || (!kept().contains("gone.test")).then_some(()));
    daemon.terminate();
}

#[test]
fn what_a_daemon_that_leaves_was_removing_is_stopped_by_the_next_one() {
    let world = World::new();
    let conf = edge(&world).set("removal_delay", "0s");
    put(&world, "good", &["good.test"], &world.app("good-1"));
    let told = world.path("end");
    let slow = world.app("slow-1").with("term_after", told.display());
    put(&world, "slow", &["slow.test"], &slow);
    put(&world, "third", &["third.test"], &world.app("third-1"));
    let mut daemon = world.start(&conf);
    wait_for(&daemon, "good.test", "good-1");
    wait_for(&daemon, "slow.test", "slow-1");
    live_pid(&daemon, "slow");
    let good = live_pid(&daemon, "good");
    take_away(&world, "slow");
    super::reload(&daemon);
    slow.wait_for(1, "signal SIGTERM");
    daemon.signal(Signal::SIGUSR2);
    daemon.wait().ended(0);
    assert!(record(&world, "slow").exists());
    fs::write(told, "").unwrap();
    let daemon = world.start_saved(&conf);
    wait_until(
        "it is stopped",
        || daemon.log(),
        || (names(&world) == ["good", "third"] && world.processes().len() == 2).then_some(()),
    );
    assert!(!record(&world, "slow").exists());
    assert_eq!(live_pid(&daemon, "good"), good);
    daemon.terminate();
}

#[test]
fn a_folder_that_is_gone_at_the_start_ends_no_app() {
    let world = World::new();
    let conf = edge(&world);
    for app in ["a", "b", "c"] {
        put(&world, app, &[&format!("{app}.test")], &world.app(&format!("{app}-1")));
    }
    let daemon = world.start(&conf);
    for app in ["a", "b", "c"] {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
    }
    let before = ["a", "b", "c"].map(|app| live_pid(&daemon, app));
    wait_until_kept(&world, "c");
    daemon.kill();
    let elsewhere = world.path("conf/elsewhere");
    fs::rename(super::folder(&world), &elsewhere).unwrap();
    let daemon = world.start_saved(&conf);
    for app in ["a", "b", "c"] {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
    }
    let error = status(&daemon, "a").config.error.unwrap_or_default();
    assert_mentions(&error, &["folder of apps"]);
    assert_eq!(["a", "b", "c"].map(|app| live_pid(&daemon, app)), before);
    fs::rename(&elsewhere, super::folder(&world)).unwrap();
    wait_until(
        "all is well again",
        || format!("{:?}", status(&daemon, "a").config),
        || status(&daemon, "a").config.error.is_none().then_some(()),
    );
    assert_eq!(["a", "b", "c"].map(|app| live_pid(&daemon, app)), before);
    daemon.terminate();
}
