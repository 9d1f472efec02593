//! Switches and deploys under constant load of kept-alive GETs, POSTs with bodies and new connections: no request
//! fails, and nobody answers who was reported stopped.

use serde_json::json;

use crate::harness::app::App;
use crate::harness::{Daemon, Load, World, live};

fn deploy_many(daemon: &Daemon<'_>, load: &Load, app: impl Fn(&str) -> App) {
    for number in 1..=25 {
        let app = app(&format!("v{number}"));
        let before = live(&daemon.status()).unwrap_or_default().to_owned();
        daemon.deploy(&app).expect(200);
        load.wait_for_more(20);
        daemon.wait_until_stopped(&before);
        load.ban(&before);
    }
}

#[test]
fn twenty_five_deploys_lose_no_request() {
    let world = World::new();
    let daemon = world.start(&world.conf().set("drain.period", "300ms"));
    daemon.deploy(&world.app("v0")).expect(200);
    let load = Load::start(daemon.addr);
    deploy_many(&daemon, &load, |version| world.app(version));
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.len(), 26, "every release served: {report:#?}");
    let metrics = daemon.admin("GET", "/__metrics", None).json();
    assert_eq!(metrics["totalProxyErrors"], 0);
    assert_eq!(metrics["statusCounters"]["5xx"], 0);
    assert_eq!(world.processes().len(), 1, "{:#?}", world.processes());
    daemon.terminate();
}

#[test]
fn twenty_five_deploys_with_pinned_connections_lose_no_request() {
    let world = World::new();
    let conf = world.conf().set("drain.period", "300ms").set("drain.affinity", "connection");
    let daemon = world.start(&conf);
    // Pinned connections never rest, so each drain lasts its period and ends with requests in flight: they
    // finish between the signal and the kill, if the app lets them.
    let app = |version: &str| world.app(version).flag("graceful");
    daemon.deploy(&app("v0")).expect(200);
    let load = Load::start(daemon.addr);
    deploy_many(&daemon, &load, app);
    load.finish_without_failure();
    assert_eq!(world.processes().len(), 1, "{:#?}", world.processes());
    daemon.terminate();
}

#[test]
fn two_hundred_switches_lose_no_request() {
    let world = World::new();
    let (first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let conf = world.conf().set("app.target", i64::from(first.port)).set("drain.period", "300ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let load = Load::start(daemon.addr);
    for round in 0..200 {
        let (port, new, old) =
            if round % 2 == 0 { (second.port, "v2", "v1") } else { (first.port, "v1", "v2") };
        load.allow(new);
        let switched = daemon.admin("POST", &format!("/__switch?port={port}"), None).expect(200).json();
        assert_eq!(switched["switch"]["to"], json!(port));
        // With affinity "request" the next request of every connection goes to the new target.
        load.ban(old);
        load.wait_for_more(3);
    }
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.keys().collect::<Vec<_>>(), ["v1", "v2"]);
    assert!(report.answered > 600, "{report:#?}");
}

#[test]
fn forty_rollbacks_back_and_forth_lose_no_request() {
    let world = World::new();
    let daemon = world.start(&world.conf().set("drain.period", "1s").set("drain.early", false));
    daemon.deploy(&world.app("v1")).expect(200);
    daemon.deploy(&world.app("v2")).expect(200);
    let load = Load::start(daemon.addr);
    for round in 0..40 {
        let (to, former) = if u32::is_multiple_of(round, 2) { ("v1", "v2") } else { ("v2", "v1") };
        daemon.admin("POST", &format!("/__rollback?release={to}&force=1"), None).expect(200);
        load.wait_for_more(10);
        if round % 8 == 7 {
            // The way back is to a release that has to be started again.
            daemon.wait_until_stopped(former);
        }
    }
    load.finish_without_failure();
}

#[test]
fn a_crash_in_the_window_costs_only_what_was_in_flight_and_the_old_release_serves_on() {
    let world = World::new();
    let conf =
        world.conf().set("drain.period", "60s").set("drain.early", false).set("rollback.window", "10m");
    let daemon = world.start(&conf);
    daemon.deploy(&world.app("v1")).expect(200);
    daemon.deploy(&world.app("v2")).expect(200);
    let load = Load::start(daemon.addr);
    crate::harness::procs::send(daemon.live_pid(), nix::sys::signal::Signal::SIGKILL);
    daemon.wait_until_live("v1");
    let failures = load.failures().len();
    load.wait_for_more(200);
    let report = load.finish();
    // What fell into the gap may have failed; nothing after it.
    assert!(report.failures.len() <= failures + 9, "at most one a worker that was on its way: {report:#?}");
    assert!(report.by_version.contains_key("v1"));
}

#[test]
fn config_edits_under_load_lose_no_request() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v0")).set("drain.period", "300ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v0");
    let load = Load::start(daemon.addr);
    for number in 1..=5 {
        conf.clone().app(&world.app(&format!("v{number}"))).save();
        daemon.wait_until_serves(&format!("v{number}"));
        conf.clone()
            .app(&world.app(&format!("v{number}")))
            .set("health.timeout", format!("{number}s"))
            .set("proxy.max_header_size", format!("{}KiB", 64 + number))
            .save();
        daemon.admin("POST", "/__reload", None).expect(200);
        load.wait_for_more(50);
    }
    load.finish_without_failure();
}
