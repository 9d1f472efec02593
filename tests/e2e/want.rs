//! What portok itself runs out of is never held against an app, and clients cannot take its last descriptors.

use std::net::TcpStream;

use portok::wire::Outcome;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::command::PORTOKD;
use crate::harness::{Conn, Daemon, World, deploy_body, live, wait_until};

/// A daemon whose limit of open files is `limit`, for itself and what it starts.
fn start_with_limit<'w>(world: &'w World, limit: u32) -> Daemon<'w> {
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("proxy.threads", 1)
        .set("proxy.idle_timeout", "9m")
        .set("proxy.header_timeout", "10m")
        .set("upstream.idle_timeout", "9m")
        .set("rollback.window", "10m")
        .set("rollback.interval", "20ms")
        .set("rollback.threshold", 1);
    conf.save();
    let (file, limit) = (conf.file().display().to_string(), limit.to_string());
    let words = ["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit, PORTOKD, "--config", &file];
    Daemon::attach(world, world.spawn("/bin/sh", &words, &world.env()))
}

/// How many descriptors a process has.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[track_caller]
fn wait_for_log(daemon: &Daemon<'_>, words: &str) {
    wait_until(words, || daemon.log(), || daemon.log().contains(words).then_some(()));
}

#[track_caller]
fn wait_for_a_new_probe(daemon: &Daemon<'_>) {
    let before = daemon.status().health.last_checked_at;
    daemon.wait_until("a probe was made", |status| status.health.last_checked_at > before);
}

#[track_caller]
fn assert_nothing_was_held_against(daemon: &Daemon<'_>, release: &str) {
    let status = daemon.status();
    assert_eq!(live(&status), Some(release), "{status:#?}");
    assert_eq!(status.health.consecutive_fails, 0, "{status:#?}");
    assert!(daemon.releases().iter().all(|row| row.outcome != Some(Outcome::RolledBack)));
}

#[test]
fn a_flood_of_connections_leaves_descriptors_for_everything_else() {
    let world = World::new();
    let daemon = start_with_limit(&world, 128);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let mut early = daemon.connect();
    early.request("GET", "/", &[], None).unwrap().expect(200);

    let flood: Vec<_> = (0..400).map(|_| TcpStream::connect(daemon.addr).unwrap()).collect();
    wait_until(
        "all the room there is for clients is taken",
        || daemon.log(),
        || (descriptors(daemon.pid()) >= 80).then_some(()),
    );
    for _ in 0..5 {
        wait_for_a_new_probe(&daemon);
    }
    assert_nothing_was_held_against(&daemon, "v2");
    early.request("GET", "/", &[], None).unwrap().expect(200);
    daemon.admin("POST", "/__reload", None).expect(200);
    daemon.portok(&["status"]).ended(0);

    daemon.deploy(&world.app("v3")).expect(200);
    wait_for_a_new_probe(&daemon);
    assert_nothing_was_held_against(&daemon, "v3");
    daemon.wait_until_recorded();
    let record = std::fs::read_to_string(world.state_file()).unwrap();
    assert!(record.contains("\"v3\""), "{record}");
    drop(flood);
    daemon.wait_until_serves("v3");
}

#[test]
fn what_portok_itself_lacks_is_no_verdict_on_an_app() {
    let world = World::new();
    let daemon = start_with_limit(&world, 256);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let mut asking = Conn::unix(&world.socket()).unwrap();
    asking.request("GET", "/__status", &[], None).unwrap().expect(200);

    // No further descriptor can be had from here on.
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    let limit =
        |soft| prlimit(pid, Resource::Nofile, Rlimit { current: Some(soft), maximum: Some(256) }).unwrap();
    limit(3);
    wait_for_log(&daemon, "the live release is not watched for now");
    // Nobody is accepted, which is said once; the connection that is there goes on.
    let mut waiting = Conn::unix(&world.socket()).unwrap();
    waiting.send(b"GET /__status HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    wait_for_log(&daemon, "the admin socket cannot accept connections for now");
    let body = serde_json::to_vec(&deploy_body(&world.app("v3"))).unwrap();
    asking.request("POST", "/__deploy?detach=1", &[], Some(&body)).unwrap();
    wait_for_log(&daemon, "portok itself cannot");
    let said = asking.request("GET", "/__status", &[], None).unwrap().expect(200).json();
    assert_eq!(said["health"]["consecutiveFails"], 0, "{said:#}");
    assert_eq!(said["live"]["release"], "v2", "{said:#}");

    limit(256);
    waiting.answer("GET").unwrap().expect(200);
    wait_for_a_new_probe(&daemon);
    let status = daemon.status();
    assert_eq!(status.health.consecutive_fails, 0, "{status:#?}");
    assert!(daemon.releases().iter().all(|row| row.outcome != Some(Outcome::RolledBack)));
    for once in ["not watched for now", "the admin socket cannot accept"] {
        assert!(daemon.log().matches(once).count() <= 1, "{}", daemon.log());
    }
}
