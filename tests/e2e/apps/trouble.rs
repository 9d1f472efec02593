//! One app's trouble is no other's: killed daemons, lost records, faults in a coordinator.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use rustix::fs::inotify;

use super::faults::start_failing;
use super::{
    edge, get, live_pid, names, put, put_text, record, status, take_away, wait_for, wait_until_kept,
};
use crate::harness::command::PORTOKD;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_mentions, wait_until};

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
    put_text(&world, "broken", "hosts = 7");
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
fn an_app_that_was_removed_does_not_come_back_though_its_text_was_kept() {
    let world = World::new();
    let conf = edge(&world);
    let releases = ["good", "other", "old"].map(|app| (app, world.app(&format!("{app}-1"))));
    for (app, release) in &releases {
        put(&world, app, &[&format!("{app}.test")], release);
    }
    let daemon = world.start(&conf);
    for app in ["good", "other", "old"] {
        live_pid(&daemon, app);
    }
    wait_until_kept(&world, "old");
    let kept = world.path("state/state.apps.json");
    let before = fs::read(&kept).unwrap();
    take_away(&world, "old");
    super::reload(&daemon);
    let is_removed = || (!record(&world, "old").exists() && names(&world) == ["good", "other"]).then_some(());
    wait_until("it is removed", || daemon.log(), is_removed);
    daemon.terminate();
    // As after a disk that was full.
    fs::write(&kept, before).unwrap();
    let began = releases[2].1.count("start");
    // Where it came back, it would run for that long.
    let daemon = world.start(&conf.set("removal_delay", "1h"));
    for app in ["good", "other"] {
        live_pid(&daemon, app);
    }
    assert_eq!(names(&world), ["good", "other"]);
    assert_eq!(releases[2].1.count("start"), began);
    daemon.terminate();
}

#[test]
fn a_second_daemon_that_would_share_the_records_of_the_apps_is_refused() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "api", &["api.test"], &world.app("api-1"));
    let daemon = world.start(&conf);
    let pid = live_pid(&daemon, "api");
    let (state_file, folder) = (world.state_file(), world.path("state/state.d"));
    for second in [world.path("state/state"), record(&world, "api")] {
        let conf = Conf::new(world.path("conf/second.toml"))
            .set("listen", "127.0.0.1:0")
            .set("state_file", second.display().to_string())
            .set("admin.socket", world.path("second.sock").display().to_string())
            .set("apps", toml::Table::new());
        conf.save();
        let file = conf.file().display().to_string();
        let said = world.spawn(PORTOKD, &["--config", &file], &world.env()).wait().ended(1);
        let named = [&second, &folder, &state_file].map(|path| path.display().to_string());
        assert_mentions(&said.err, &named.each_ref().map(String::as_str));
        assert_mentions(&said.err, &["another running portokd", "STATE_FILE"]);
    }
    assert_eq!(live_pid(&daemon, "api"), pid);
    get(&daemon, "api.test", "/").expect(200);
    daemon.terminate();
}

/// How often the watched folder itself was read since the watch began, or the last call. Reads with
/// nothing between them count as one.
fn reads(watch: &OwnedFd) -> usize {
    let (mut buffer, mut reads) = ([MaybeUninit::uninit(); 16384], 0);
    let mut events = inotify::Reader::new(watch, &mut buffer);
    while let Ok(event) = events.next() {
        assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
        let is_read = event.events().contains(inotify::ReadFlags::ACCESS);
        reads += usize::from(is_read && event.file_name().is_none());
    }
    reads
}

#[test]
fn the_records_that_were_set_aside_are_looked_for_once_for_any_number_of_apps() {
    const APPS: usize = 60;
    let world = World::new();
    let conf = edge(&world);
    put_text(&world, "steady", "hosts = [\"steady.test\"]\nredirect = \"https://example.com\"\n");
    let daemon = world.start(&conf);
    let folder = world.path("state/state.d");
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let events = inotify::WatchFlags::ACCESS | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, &folder, events).unwrap();
    let recorded = |number: usize| folder.join(format!("app{number}.json"));
    let aside = |number: usize| folder.join(format!("app{number}.json.removed-2026-11-30T00-00-00Z"));
    for number in 0..APPS {
        let text =
            serde_json::json!({ "schema": 1, "targets": { "schema": 1, "configured": [] } }).to_string();
        fs::write(aside(number), text).unwrap();
        let app = format!("hosts = [\"app{number}.test\"]\ntargets = [\"127.0.0.1:1\"]\n");
        put_text(&world, &format!("app{number}"), &app);
    }
    let taken_up = |daemon: &Daemon<'_>| {
        let are_taken_up = || (0..APPS).all(|number| recorded(number).exists()).then_some(());
        wait_until("all are taken up", || daemon.log(), are_taken_up);
    };
    super::reload(&daemon);
    taken_up(&daemon);
    let at_the_reload = reads(&watch);
    daemon.terminate();
    for number in 0..APPS {
        fs::rename(recorded(number), aside(number)).unwrap();
    }
    let _until_then = reads(&watch);
    let daemon = world.start_saved(&conf);
    taken_up(&daemon);
    let at_the_start = reads(&watch);
    assert!(at_the_reload < APPS / 3, "{at_the_reload}");
    assert!((1..APPS / 3).contains(&at_the_start), "{at_the_start}");
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
