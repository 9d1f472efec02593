//! An app whose targets other programs run: edits, switches and deaths of them.

use portok::wire::TargetState;

use super::{edge, get, put_text, reload, status};
use crate::harness::app::Unmanaged;
use crate::harness::{Daemon, Load, World, wait_until};

/// Waits until exactly these serve, in this order.
#[track_caller]
fn wait_for_serving(daemon: &Daemon<'_>, ports: &[u16]) {
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
        let rest = "health.interval = \"50ms\"\ndrain.period = \"200ms\"\n";
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
