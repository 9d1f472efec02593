//! A real server of gRPC behind portok, and real clients of it, over TLS and without.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{PYTHON, file, has_modules};
use crate::harness::conf::Conf;
use crate::harness::tls::Authority;
use crate::harness::{Daemon, World, wait_until};
use crate::listeners::free;

/// The listeners: plain, and over TLS.
type Listeners = [SocketAddr; 2];

/// A configuration with TLS, for whose certificate an authority vouches that is kept as a file.
fn conf(world: &World, [plain, encrypted]: Listeners) -> Conf {
    let authority = Authority::new();
    std::fs::create_dir_all(world.path("certs")).expect("the folder is ours");
    authority.issue(&["a.test"]).put(&world.path("certs"), "a");
    authority.save(&world.path(""));
    world
        .conf()
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
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

/// A client that does this, at the first or the second listener.
fn client(world: &World, listeners: Listeners, which: usize, what: &str) -> Child {
    let mut command = Command::new(PYTHON);
    command.args([file("grpc_client.py"), listeners[which].to_string(), what.to_owned()]);
    if which == 1 {
        command.arg(world.path("authority.pem"));
    }
    command
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
    let (world, listeners) = (World::new(), free());
    let daemon = started(&world, &conf(&world, listeners));
    for which in [0, 1] {
        said(client(&world, listeners, which, "ways"));
        for end in ["has gone: cancelled", "has gone: late"] {
            let has_all = || (daemon.log().matches(end).count() == which + 1).then_some(());
            wait_until(end, || daemon.log(), has_all);
        }
    }
    daemon.portok(&["maintenance", "on"]).ended(0);
    for which in [0, 1] {
        let refused = said(client(&world, listeners, which, "refused"));
        assert_eq!(refused, "UNAVAILABLE portok: maintenance\n");
    }
    daemon.terminate();
}

#[test]
fn deploys_and_a_rollback_under_load_fail_no_call() {
    if !has_modules("grpc") {
        return;
    }
    let (world, listeners) = (World::new(), free());
    let daemon = started(&world, &conf(&world, listeners).set("app.replicas", 2));
    let loads = [0, 1].map(|which| client(&world, listeners, which, "load"));
    for number in 1..=2 {
        let before = daemon.status().live.map(|live| live.release).expect("it is live");
        let body = json!({ "command": command(), "release": format!("v{number}") });
        daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
        daemon.wait_until_stopped(&before);
    }
    daemon.portok(&["rollback"]).ended(0);
    daemon.wait_until_stopped("v2");
    for mut load in loads {
        drop(load.stdin.take());
        let counted: Value = serde_json::from_str(&said(load)).expect("one value");
        assert_eq!(counted["failed"], json!([]));
        for release in ["v1", "v2"] {
            assert!(counted["seen"][release].as_u64() > Some(0), "{counted}");
        }
    }
    let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
    assert_eq!(metrics["totalProxyErrors"], json!(0), "{metrics:#}");
    daemon.terminate();
}
