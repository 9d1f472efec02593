//! A real server of gRPC behind portok, and real clients of it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{PYTHON, file, has_modules};
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, wait_until};

fn conf(world: &World) -> Conf {
    world
        .conf()
        .set("app.command", command())
        .set("app.env.PYTHONDONTWRITEBYTECODE", "1")
        .set("upstream.protocol", "h2c")
        .set("health.grpc", "")
        .set("drain.period", "300ms")
        .set("rollback.window", "200ms")
}

fn command() -> String {
    format!("exec {PYTHON} {}", file("grpc_server.py"))
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
    daemon
}

/// A client that does this.
fn client(daemon: &Daemon<'_>, what: &str) -> Child {
    Command::new(PYTHON)
        .args([
            PathBuf::from(file("grpc_client.py")).as_os_str(),
            daemon.addr.to_string().as_ref(),
            what.as_ref(),
        ])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was tried before")
}

/// What a client has said that ended well.
#[track_caller]
fn said(client: Child) -> String {
    let output = client.wait_with_output().expect("it was started");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{err}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn each_kind_of_call_passes_with_its_deadline_its_end_and_its_cancellation() {
    if !has_modules("grpc") {
        return;
    }
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    said(client(&daemon, "ways"));
    for end in ["has gone: cancelled", "has gone: late"] {
        wait_until(end, || daemon.log(), || daemon.log().contains(end).then_some(()));
    }
    daemon.portok(&["maintenance", "on"]).ended(0);
    assert_eq!(said(client(&daemon, "refused")), "UNAVAILABLE portok: maintenance\n");
    daemon.terminate();
}

#[test]
fn deploys_and_a_rollback_under_load_fail_no_call() {
    if !has_modules("grpc") {
        return;
    }
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("app.replicas", 2));
    let mut load = client(&daemon, "load");
    for number in 1..=2 {
        let before = daemon.status().live.map(|live| live.release).expect("it is live");
        let body = json!({ "command": command(), "release": format!("v{number}") });
        daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
        daemon.wait_until_stopped(&before);
    }
    daemon.portok(&["rollback"]).ended(0);
    daemon.wait_until_stopped("v2");
    load.stdin.take().expect("it is piped").flush().expect("it is there");
    let counted: Value = serde_json::from_str(&said(load)).expect("one value");
    assert_eq!(counted["failed"], json!([]));
    for release in ["v1", "v2"] {
        assert!(counted["seen"][release].as_u64() > Some(0), "{counted}");
    }
    let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
    assert_eq!(metrics["totalProxyErrors"], json!(0), "{metrics:#}");
    daemon.terminate();
}
