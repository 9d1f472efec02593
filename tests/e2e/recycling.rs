//! Replicas whose memory grows beyond `app.max_memory`: each is replaced while it serves.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use portok::wire::{ReplicaRow, ReplicaState};

use crate::harness::conf::Conf;
use crate::harness::{Daemon, Doomed, Load, World, assert_mentions, sweep, wait_until};

/// More than the app has without growing, in megabytes; and what it grows by.
const LIMIT: usize = 200;
const GROWTH: usize = 250;

fn conf(world: &World, replicas: i64) -> Conf {
    world
        .conf()
        .app(&world.app("v1"))
        .set("app.replicas", replicas)
        .set("app.max_memory", format!("{LIMIT}MB"))
        .set("app.recycle_after", "0s")
        .set("rollback.window", "100ms")
        .set("drain.period", "300ms")
}

/// The variable that says how often a daemon looks.
const LOOKS: &str = "PORTOK_MEMORY_LOOKS_MS";

fn start<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    conf.save();
    let mut env = world.env();
    env.insert(LOOKS.to_owned(), "50".to_owned());
    world.start_with(&["--config", &conf.file().display().to_string()], &env)
}

fn rows(daemon: &Daemon<'_>) -> Vec<ReplicaRow> {
    serde_json::from_value(daemon.admin("GET", "/__replicas", None).expect(200).json()).unwrap()
}

fn ready(daemon: &Daemon<'_>) -> BTreeSet<u32> {
    let ready = rows(daemon).into_iter().filter(|row| row.state == ReplicaState::Ready);
    ready.filter_map(|row| row.pid).collect()
}

#[track_caller]
fn wait_for_ready(daemon: &Daemon<'_>, replicas: usize) -> BTreeSet<u32> {
    let explain = || format!("{:#?}\n{}", rows(daemon), daemon.log());
    wait_until("as many as wanted are ready", explain, || {
        Some(ready(daemon)).filter(|ready| ready.len() == replicas)
    })
}

/// Lets one replica grow.
fn grow(daemon: &Daemon<'_>) -> u32 {
    let pid = daemon.get(&format!("/grow/{GROWTH}")).expect(200).json();
    u32::try_from(pid.as_u64().expect("its pid")).unwrap()
}

#[track_caller]
fn wait_until_gone(world: &World, daemon: &Daemon<'_>, pid: u32) {
    let explain = || format!("{:#?}\n{}", rows(daemon), daemon.log());
    wait_until("the large one is gone", explain, || {
        world.processes().iter().all(|process| process.pid != pid).then_some(())
    });
}

#[test]
fn one_that_grows_is_replaced_under_load_and_no_request_fails() {
    let world = World::new();
    let daemon = start(&world, &conf(&world, 2));
    let before = wait_for_ready(&daemon, 2);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    let switch = daemon.status().last_switch;
    let load = Load::start(daemon.addr);
    let large = grow(&daemon);
    assert!(before.contains(&large));
    wait_until_gone(&world, &daemon, large);
    load.wait_for_more(100);
    load.finish_without_failure();
    let after = wait_for_ready(&daemon, 2);
    assert_eq!(after.intersection(&before).count(), 1, "the other one has stayed");
    assert_mentions(&daemon.log(), &["recycled"]);
    let status = daemon.status();
    assert_eq!((status.last_switch, status.last_exit), (switch, None), "it was no switch and no crash");
    assert_eq!(status.live.map(|live| live.restarts), Some(0));
    daemon.terminate();
}

#[test]
fn the_only_one_is_replaced_too_and_one_that_grows_fast_is_not() {
    let world = World::new();
    let mut conf = conf(&world, 1);
    let daemon = start(&world, &conf);
    wait_for_ready(&daemon, 1);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    let large = grow(&daemon);
    wait_until_gone(&world, &daemon, large);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    conf.put("app.recycle_after", "1h");
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    let large = grow(&daemon);
    wait_until("it is told", || daemon.log(), || daemon.log().contains("recycle_after").then_some(()));
    assert_eq!(wait_for_ready(&daemon, 1), [large].into());
    daemon.terminate();
}

#[test]
fn a_replacement_that_fails_leaves_the_large_one_in_place() {
    let world = World::new();
    let bad = world.path("bad");
    let app = world.app("v1").with("exit_if", bad.display());
    let daemon = start(&world, &conf(&world, 1).app(&app));
    wait_for_ready(&daemon, 1);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    world.touch("bad");
    let large = grow(&daemon);
    wait_until("it is given up", || daemon.log(), || daemon.log().contains("it stays").then_some(()));
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    assert!(ready(&daemon).contains(&large));
    std::fs::remove_file(bad).unwrap();
    wait_until_gone(&world, &daemon, large);
    wait_for_ready(&daemon, 1);
    daemon.terminate();
}

/// The daemon is killed at points from the start of a replacement to its end.
#[test]
fn a_daemon_that_is_killed_meanwhile_comes_back_to_as_many_as_wanted() {
    let killed = AtomicU32::new(0);
    sweep(12, |point| {
        let world = World::new();
        let conf = conf(&world, 2);
        // Each look is a point to die at, too.
        let doomed = Doomed::start_with(&world, &conf, point, &[(LOOKS, "300")]);
        doomed.wait_until_status("it has settled", |status| status["phase"] == "settled");
        if let Some(large) = Some(()).filter(|()| !doomed.is_dead()).and_then(|()| leak(&world)) {
            let gone = || world.processes().iter().all(|process| process.pid != large);
            doomed.wait_until("the large one is gone", gone);
            killed.fetch_add(u32::from(doomed.is_dead()), Ordering::Relaxed);
        }
        let died = doomed.is_dead();
        doomed.dies();
        let daemon = start(&world, &conf);
        wait_for_ready(&daemon, 2);
        wait_until(
            "as many processes run as are wanted",
            || format!("point {point}: {:#?}\n{}", world.processes(), daemon.log()),
            || (world.processes().len() == 2).then_some(()),
        );
        daemon.terminate();
        died
    });
    assert!(killed.into_inner() > 0, "no point was within a replacement");
}

/// Lets a process grow, past the daemon: a request through it would die with it.
fn leak(world: &World) -> Option<u32> {
    let process = world.processes().first()?.pid;
    let port = std::fs::read(format!("/proc/{process}/environ")).ok()?;
    let port = port.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"PORT="))?;
    let port: u16 = std::str::from_utf8(port).ok()?.parse().ok()?;
    let mut conn = crate::harness::Conn::tcp(([127, 0, 0, 1], port).into()).ok()?;
    conn.request("GET", &format!("/grow/{GROWTH}"), &[("host", "a")], None).ok()?;
    Some(process)
}
