//! Replicas whose memory grows beyond `app.max_memory`: each is replaced while it serves.

use std::collections::{BTreeMap, BTreeSet};

use portok::wire::{ReplicaRow, ReplicaState};

use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_mentions, wait_until};

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

/// The environment of a daemon that looks so often.
fn env(world: &World, every: &str) -> BTreeMap<String, String> {
    let mut env = world.env();
    env.insert("PORTOK_MEMORY_LOOKS_MS".to_owned(), every.to_owned());
    env
}

fn start<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    conf.save();
    world.start_with(&["--config", &conf.file().display().to_string()], &env(world, "50"))
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

/// The daemon is killed at one point after another from the start of a replacement to its end.
#[test]
fn a_daemon_that_is_killed_meanwhile_comes_back_to_as_many_as_wanted() {
    let mut killed = 0;
    for point in (36..120).step_by(12) {
        let world = World::new();
        let conf = conf(&world, 2);
        conf.save();
        // Each look is a point to die at, too.
        let mut env = env(&world, "300");
        env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
        let file = conf.file().display().to_string();
        let mut running = world.spawn(crate::harness::command::PORTOKD, &["--config", &file], &env);
        let mut asked = false;
        let mut large = None;
        wait_until(
            "it dies or is done",
            || format!("point {point}"),
            || {
                if running.code().is_some() {
                    return Some(());
                }
                if !asked && settled(&world) {
                    asked = true;
                    large = leak(&world);
                }
                let gone = |pid: u32| world.processes().iter().all(|process| process.pid != pid);
                large.is_some_and(gone).then_some(())
            },
        );
        if running.code().is_none() {
            running.signal(nix::sys::signal::Signal::SIGTERM);
            running.wait();
        } else {
            killed += u32::from(asked);
            running.wait();
        }
        let daemon = start(&world, &conf);
        wait_for_ready(&daemon, 2);
        wait_until(
            "as many processes run as are wanted",
            || format!("point {point}: {:#?}\n{}", world.processes(), daemon.log()),
            || (world.processes().len() == 2).then_some(()),
        );
        daemon.terminate();
    }
    assert!(killed > 0, "no point was within a replacement");
}

/// Whether the daemon has settled.
fn settled(world: &World) -> bool {
    let Ok(mut conn) = crate::harness::Conn::unix(&world.socket()) else { return false };
    let Ok(answer) = conn.request("GET", "/__status", &[], None) else { return false };
    serde_json::from_slice::<serde_json::Value>(&answer.body).is_ok_and(|status| status["phase"] == "settled")
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
