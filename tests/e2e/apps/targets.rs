//! An app whose targets other programs run: edits, switches and deaths of them.

use std::fs;

use portok::wire::{Phase, Replicas, TargetState};
use serde_json::{Value, json};

use super::{apps, edge, get, names, put_text, record, reload, status, take_away};
use crate::harness::app::Unmanaged;
use crate::harness::http::request_bytes;
use crate::harness::{Daemon, Load, World, assert_mentions, wait_until};

/// Waits until exactly these serve, in this order.
#[track_caller]
pub(super) fn wait_for_serving(daemon: &Daemon<'_>, ports: &[u16]) {
    let explain = || format!("{:#?}\n{}", status(daemon, "shop").targets, daemon.log());
    wait_until(&format!("{ports:?} serve"), explain, || {
        let targets = status(daemon, "shop").targets;
        let ready = targets.iter().filter(|target| target.state == TargetState::Ready);
        let ready: Vec<_> = ready.map(|target| target.address.clone()).collect();
        let expected: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        (ready == expected).then_some(())
    });
}

#[test]
fn edits_and_switches_of_targets_cost_no_request_and_a_death_is_passed_over() {
    let world = World::new();
    let mut programs: Vec<Unmanaged> =
        ["one", "two", "three"].iter().map(|version| world.app(version).start_unmanaged()).collect();
    let [one, two, three] = [programs[0].port, programs[1].port, programs[2].port];
    let list = |ports: &[u16]| {
        let list: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        // On a busy machine a target may take long to answer a probe.
        let rest = "health.interval = \"50ms\"\nhealth.timeout = \"50s\"\ndrain.period = \"200ms\"\n";
        put_text(&world, "shop", &format!("hosts = [\"*\"]\ntargets = [{}]\n{rest}", list.join(", ")));
    };
    let conf = edge(&world);
    list(&[one, two]);
    let daemon = world.start(&conf);
    wait_for_serving(&daemon, &[one, two]);
    let load = Load::start(daemon.addr);
    for ports in [[two, three], [one, three], [one, two]] {
        list(&ports);
        reload(&daemon);
        wait_for_serving(&daemon, &ports);
        load.wait_for_more(100);
    }
    daemon.admin("POST", "/__switch?app=shop&port=1&port=2", None).refused(409, "health_failed");
    let order = format!("/__switch?app=shop&port={three}&port={two}");
    let told = daemon.admin("POST", &order, None).expect(200).json();
    assert_eq!(told["switch"]["toPorts"], serde_json::json!([three, two]));
    wait_for_serving(&daemon, &[three, two]);
    load.wait_for_more(100);
    let report = load.finish_without_failure();
    assert!(
        ["one", "two", "three"].iter().all(|version| report.by_version.contains_key(*version)),
        "{report:?}"
    );
    // A switch is in force until the file's own list changes, over a restart too.
    daemon.terminate();
    let daemon = world.start(&conf);
    wait_for_serving(&daemon, &[three, two]);
    programs[2].kill();
    for _ in 0..20 {
        assert_eq!(get(&daemon, "a", "/").expect(200).version(), "two");
    }
    wait_for_serving(&daemon, &[two]);
    list(&[one]);
    reload(&daemon);
    wait_for_serving(&daemon, &[one]);
    daemon.terminate();
    assert!(programs[..2].iter_mut().all(Unmanaged::is_alive), "nobody here stops them");
}

/// What is in the folder of the records but the lock and what is being written, without the times.
pub(super) fn records(world: &World) -> Vec<String> {
    let entries = fs::read_dir(record(world, "x").parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| name != ".portokd.lock" && !name.ends_with(".tmp"));
    let mut names: Vec<_> =
        names.map(|name| name.split_inclusive(".removed-").next().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn removed_targets_finish_what_they_have_and_a_switch_is_taken_up_when_they_are_added_again() {
    let world = World::new();
    let (one, two, three) = (world.app("one"), world.app("two"), world.app("three"));
    let running = [&one, &two, &three].map(|app| app.start_unmanaged());
    let [first, second, third] = [running[0].port, running[1].port, running[2].port];
    let told = world.path("told");
    let hook = format!("[\"/bin/sh\", \"-c\", \"cat >> {}\"]", told.display());
    let list = || {
        let rest = format!("health.interval = \"50ms\"\ndrain.period = \"60s\"\nhooks.on_event = {hook}\n");
        let targets = format!("targets = [\"127.0.0.1:{first}\"]\n");
        put_text(&world, "shop", &format!("hosts = [\"shop.test\"]\n{targets}{rest}"));
    };
    let conf = edge(&world).set("removal_delay", "0s");
    put_text(&world, "www", "hosts = [\"www.test\"]\nredirect = \"https://shop.test\"\n");
    list();
    let daemon = world.start(&conf);
    wait_for_serving(&daemon, &[first]);

    // Several ports, by the command line.
    let [to, and] = [second, third].map(|port| port.to_string());
    daemon.portok(&["--app", "shop", "switch", &to, &and]).ended(0);
    wait_for_serving(&daemon, &[second, third]);
    let switched = status(&daemon, "shop");
    assert_eq!(
        (switched.active_port, switched.replicas),
        (Some(second), Some(Replicas { ready: 2, wanted: 2 }))
    );
    assert_eq!(switched.last_switch.as_ref().unwrap().to_ports, [second, third]);
    let event = || fs::read_to_string(&told).unwrap_or_default().lines().next().map(str::to_owned);
    let event = wait_until("the hook is told", || daemon.log(), event);
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["event"], &event["app"]), (&json!("switched"), &json!("shop")));
    assert_eq!(
        (&event["instance"], &event["switch"]["toPorts"]),
        (&json!(world.name()), &json!([second, third]))
    );
    let health = daemon.admin("GET", "/__health?app=shop", None).expect(200).json();
    assert_eq!((&health["healthy"], &health["port"]), (&json!(true), &json!(second)));
    for (each, port) in health["replicas"].as_array().unwrap().iter().zip([second, third]) {
        assert_eq!((&each["address"], &each["port"]), (&json!(format!("127.0.0.1:{port}")), &json!(port)));
        assert_eq!(
            (&each["healthy"], &each["status"], &each["error"]),
            (&json!(true), &json!(200), &Value::Null)
        );
        assert!(each["latencyMs"].is_number());
    }

    // Removed, it finishes what it has; nothing new comes to it.
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    held.send(&request_bytes("GET", &path, &[("host", "shop.test")], None)).unwrap();
    let holds = || two.count("hold begin") + three.count("hold begin");
    wait_until("it is held", || daemon.log(), || (holds() == 1).then_some(()));
    take_away(&world, "shop");
    reload(&daemon);
    assert_eq!(get(&daemon, "shop.test", "/").expect(404).header("portok-error"), Some("no_route"));
    let leaves = || Some(status(&daemon, "shop")).filter(|status| status.phase == Phase::Stopping);
    let leaving = wait_until("it is being removed", || daemon.log(), leaves);
    let row = apps(&world).remove(0);
    assert_eq!((&row["app"], &row["phase"]), (&json!("shop"), &json!("stopping")));
    assert_eq!(row["error"], "it is being removed");
    assert!(leaving.targets.iter().all(|target| target.state == TargetState::Draining));
    assert!(leaving.drain_until.is_some());
    assert_eq!(records(&world), ["shop.json.removed-"]);

    // Added again meanwhile, it serves at once, and the switch is in force.
    list();
    reload(&daemon);
    wait_for_serving(&daemon, &[second, third]);
    assert_eq!(status(&daemon, "shop").last_switch, switched.last_switch);
    assert_eq!(records(&world), ["shop.json"]);
    world.touch("go");
    assert!(held.answer("GET").unwrap().expect(200).text().ends_with("held\n"));

    // Where nothing says any more what it was, its record is set aside at the next start.
    daemon.terminate();
    take_away(&world, "shop");
    fs::remove_file(world.path("state/state.apps.json")).unwrap();
    let daemon = world.start_saved(&conf);
    assert_eq!(names(&world), ["www"]);
    assert_eq!(records(&world), ["shop.json.removed-"]);
    list();
    reload(&daemon);
    wait_for_serving(&daemon, &[second, third]);
    assert_eq!(status(&daemon, "shop").last_switch, switched.last_switch);
    daemon.terminate();
}

#[test]
fn a_set_is_settled_only_while_all_of_it_is_known_to_serve() {
    let world = World::new();
    let mut programs: Vec<Unmanaged> =
        ["one", "two"].iter().map(|version| world.app(version).start_unmanaged()).collect();
    let [one, two] = [programs[0].port, programs[1].port];
    let list = |ports: [u16; 2], interval: &str| {
        let targets = ports.map(|port| format!("\"127.0.0.1:{port}\"")).join(", ");
        let rest =
            format!("health.interval = \"{interval}\"\nupstream.eject_for = \"1h\"\ndrain.period = \"0s\"\n");
        put_text(&world, "shop", &format!("hosts = [\"*\"]\ntargets = [{targets}]\n{rest}"));
    };
    let seen = |daemon: &Daemon<'_>| {
        let status = status(daemon, "shop");
        let replicas = status.replicas.map(|replicas| (replicas.ready, replicas.wanted));
        let states: Vec<_> = status.targets.iter().map(|target| target.state).collect();
        (status.phase, replicas, states)
    };
    let wait_until_seen = |daemon: &Daemon<'_>, phase: Phase, ready: usize, states: [TargetState; 2]| {
        let expected = (phase, Some((ready, 2)), states.to_vec());
        let explain = || format!("{:?}, not {expected:?}\n{}", seen(daemon), daemon.log());
        wait_until("they are so", explain, || (seen(daemon) == expected).then_some(()));
    };
    use TargetState::{Ejected, Ready, Starting};
    let conf = edge(&world);
    // The next probe of each is far.
    list([one, two], "1d");
    let daemon = world.start(&conf);
    daemon.portok(&["status", "--wait", "1m"]).ended(0);
    wait_until_seen(&daemon, Phase::Settled, 2, [Ready, Ready]);

    programs[1].kill();
    (0..4).for_each(|_| assert_eq!(get(&daemon, "a", "/").expect(200).version(), "one"));
    wait_until_seen(&daemon, Phase::Degraded, 1, [Ready, Ejected]);
    let waited = daemon.portok(&["status", "--wait", "100ms"]).ended(1);
    assert_mentions(&waited.err, &["shop (degraded)"]);

    // The only one that serves gets the requests, whatever became of the last of them.
    list([two, 1], "1d");
    reload(&daemon);
    wait_until_seen(&daemon, Phase::Unhealthy, 1, [Ready, Starting]);
    assert_eq!(get(&daemon, "a", "/").expect(502).header("portok-error"), Some("upstream_refused"));
    daemon.portok(&["status", "--wait", "100ms"]).ended(1);
    daemon.portok(&["--app", "shop", "health"]).ended(1);
    let shown = daemon.portok(&["--app", "shop", "status"]).ended(0).out;
    assert_mentions(&shown, &["1 of 2 get requests", "requests to it failed; it gets requests all the same"]);

    // More fail than may be out. A shorter interval is used at once.
    list([one, two], "1d");
    reload(&daemon);
    wait_until_seen(&daemon, Phase::Degraded, 1, [Ready, Ejected]);
    programs[0].kill();
    list([one, two], "50ms");
    reload(&daemon);
    wait_until(
        "both fail",
        || format!("{:?}\n{}", seen(&daemon), daemon.log()),
        || (seen(&daemon).0 == Phase::Unhealthy).then_some(()),
    );
}
