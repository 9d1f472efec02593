//! The durable record: who owns it, what becomes of a broken one, what happens when it cannot be written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{World, assert_mentions, live, pid, wait_until};

#[test]
fn it_is_private_json_with_a_schema() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let mode = fs::metadata(world.state_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let state: Value = serde_json::from_slice(&fs::read(world.state_file()).unwrap()).unwrap();
    assert!(state.get("schema").is_some(), "{state:#}");
}

#[test]
fn a_second_daemon_on_the_same_file_is_refused() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let mut second = conf.clone().set("admin.socket", world.path("s2").display().to_string());
    second.put("app.command", world.app("second").command());
    let file = world.path("conf/second.toml");
    fs::write(&file, second.text()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let said = world.portokd(&["--config", &file.display().to_string()], &world.env());
    assert!(said.code != 0 && said.code < 128, "{said:?}");
    assert_mentions(&said.err, &[&world.state_file().display().to_string()]);
    assert_eq!(said.err.matches("--instance NAME").count(), 1, "what to do is said once: {}", said.err);
    assert!(!said.err.contains("panicked"));
    assert!(world.app("second").pids().is_empty());
    let after = daemon.status();
    assert_eq!((live(&after), pid(&after)), (live(&before), pid(&before)));
    // Nor does it take the socket of the first away.
    let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env());
    assert_ne!(said.code, 0);
    assert_eq!(pid(&daemon.status()), pid(&before));
}

#[test]
fn a_corrupt_one_is_set_aside_and_the_configuration_is_started() {
    let contents =
        ["", "{", "null", "[]", "{\"schema\": 999999}", "\u{0}\u{0}\u{0}", "{\"schema\":1,\"live\":7}"];
    for content in contents {
        let world = World::new();
        fs::write(world.state_file(), content).unwrap();
        let daemon = world.start(&world.conf().app(&world.app("v1")));
        daemon.wait_until_serves("v1");
        let aside: Vec<PathBuf> = fs::read_dir(world.path("state"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.display().to_string().contains(".corrupt-"))
            .collect();
        assert_eq!(aside.len(), 1, "{content:?}: {aside:?}");
        assert_eq!(fs::read_to_string(&aside[0]).unwrap(), content);
        assert!(
            aside[0].display().to_string().starts_with(&format!("{}.corrupt-", world.state_file().display()))
        );
        assert_mentions(&daemon.log(), &["corrupt"]);
    }
}

#[test]
fn a_pipe_in_its_place_ends_the_start_with_a_word_and_stays() {
    let world = World::new();
    nix::unistd::mkfifo(&world.state_file(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let conf = world.conf().app(&world.app("v1"));
    conf.save();
    let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env()).ended(1);
    let state = world.state_file().display().to_string();
    assert_mentions(&said.err, &[&state, "no regular file", "STATE_FILE"]);
    assert!(world.state_file().exists() && world.app("v1").pids().is_empty());
}

#[test]
fn while_it_cannot_be_written_nothing_new_starts_and_serving_goes_on() {
    let world = World::new();
    let other = world.app("other").start_unmanaged();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let conf = world.conf().app(&old).set("rollback.window", "100ms").set("app.restart.backoff", "10ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&new).expect(200);
    daemon.wait_until("it has come to rest", |status| {
        status.phase.as_str() == "settled" && status.drain_until.is_none()
    });
    let release = daemon.status().previous.unwrap().release;
    daemon.wait_until_stopped(&release);
    // A file where the folder was: no user, not even root, can write in it.
    let (folder, away) = (world.path("state"), world.path("state.away"));
    fs::rename(&folder, &away).unwrap();
    fs::write(&folder, "").unwrap();
    let kept = fs::read_to_string(away.join("state.json")).unwrap();

    let next = world.app("v3");
    daemon.deploy(&next).refused(503, "state_unwritable");
    daemon.admin("POST", &format!("/__switch?port={}", other.port), None).refused(503, "state_unwritable");
    assert!(next.pids().is_empty(), "refused before anything starts");
    let status = daemon.wait_until("status shows it", |status| status.state_error.is_some());
    assert_eq!(live(&status), Some("v2"));
    assert_eq!(daemon.get("/").version(), "v2");
    let said = daemon.portok(&["deploy", "--json", "--cmd", &next.command()]).ended(5);
    assert_eq!(said.json()["code"], "state_unwritable");
    // Restart and rollback go on.
    daemon.get("/exit/1");
    new.wait_for(2, "listen ");
    daemon.wait_until_serves("v2");
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
    assert_eq!(fs::read_to_string(away.join("state.json")).unwrap(), kept, "the old file stays whole");

    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    wait_until(
        "deploys work again",
        || daemon.log(),
        || (daemon.deploy(&next).status() == 200).then_some(()),
    );
    assert_eq!(daemon.status().state_error, None);
    daemon.terminate();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v3");
}

#[test]
fn a_daemon_whose_state_folder_cannot_be_made_starts_nothing_until_it_can() {
    let world = World::new();
    world.touch("blocked");
    let app = world.app("v1");
    let conf =
        world.conf().app(&app).set("state_file", world.path("blocked/state.json").display().to_string());
    let daemon = world.start(&conf);
    let status = daemon.wait_until("status shows it", |status| status.state_error.is_some());
    assert_eq!(status.active_port, None);
    assert_mentions(&status.state_error.unwrap(), &["blocked"]);
    daemon.deploy(&world.app("v2")).refused(503, "state_unwritable");
    assert!(app.pids().is_empty() && world.app("v2").pids().is_empty());
    fs::remove_file(world.path("blocked")).unwrap();
    fs::create_dir(world.path("blocked")).unwrap();
    wait_until(
        "deploys work",
        || daemon.log(),
        || (daemon.deploy(&world.app("v2")).status() == 200).then_some(()),
    );
    assert_eq!(daemon.status().state_error, None);
}

#[test]
fn nothing_is_left_of_temporary_files() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    for version in ["v2", "v3", "v4"] {
        daemon.deploy(&world.app(version)).expect(200);
    }
    daemon.terminate();
    let names: Vec<_> =
        fs::read_dir(world.path("state")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() <= 2, "the record and at most its lock: {names:?}");
    assert!(!world.socket().exists(), "the socket goes with its daemon");
}

#[test]
fn the_history_is_bounded_and_survives_a_restart() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.deploy(&world.app("v3").with("exit", 1)).expect(409);
    let before: Vec<_> = daemon.releases().into_iter().map(|row| (row.release, row.outcome)).collect();
    daemon.terminate();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    let after: Vec<_> = daemon.releases().into_iter().map(|row| (row.release, row.outcome)).collect();
    assert_eq!(after, before);
    assert_eq!(daemon.status().previous.map(|previous| previous.release), Some(before[2].0.clone()));
}

#[test]
fn large_commands_do_not_make_a_record_that_the_next_start_cannot_read() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    // About as long as one word of a command may be (execve(2)), and each of its bytes is two in JSON: all of them
    // together are more than a record may grow to.
    let comment = "\"".repeat(120 * 1024);
    for number in 0..36 {
        let body = json!({ "command": format!("exit 1 # {comment}"), "release": format!("bad{number}") });
        daemon.admin("POST", "/__deploy", Some(&body)).refused(409, "deploy_aborted");
    }
    let before = daemon.status();
    assert_eq!((live(&before), before.state_error.as_deref()), (Some("v2"), None));
    assert_eq!(daemon.get("/").version(), "v2");
    let rows: Vec<_> = daemon.releases().into_iter().map(|row| (row.release, row.outcome)).collect();
    daemon.terminate();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_serves("v2");
    assert_eq!((live(&after), &after.last_switch), (Some("v2"), &before.last_switch));
    assert!(!daemon.log().contains("corrupt"), "{}", daemon.log());
    let kept: Vec<_> = daemon.releases().into_iter().map(|row| (row.release, row.outcome)).collect();
    assert_eq!(kept, rows);
    assert_eq!(
        after.previous.map(|previous| previous.release),
        before.previous.map(|previous| previous.release)
    );
}

#[test]
fn failed_switches_do_not_fill_the_history() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    // Bound and not listening: nobody else gets the port, and a connection is refused.
    let closed: Vec<_> = (0..60)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            socket
        })
        .collect();
    for socket in &closed {
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        daemon.admin("POST", &format!("/__switch?port={port}"), None).refused(409, "health_failed");
    }
    let rows = daemon.releases();
    assert!(rows.len() <= 55, "{} rows", rows.len());
    assert!(rows.iter().any(|row| row.release == "v2"), "what is live is not forgotten");
    let previous = daemon.status().previous.expect("v1 is still the way back").release;
    assert!(rows.iter().any(|row| row.release == previous), "nor is the previous one");
    daemon.terminate();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    assert!(daemon.releases().len() <= 55);
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn what_was_answered_with_200_survives_a_killed_daemon() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v0")).set("app.stop_timeout", "300ms");
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v0");
    for round in 1..=10 {
        let app = world.app(&format!("v{round}"));
        daemon.deploy(&app).expect(200);
        daemon.kill();
        daemon = world.start(&conf);
        let status = daemon.wait_until("something serves", |status| status.active_port.is_some());
        assert_eq!(live(&status), Some(app.version()));
        assert_eq!(daemon.get("/").version(), app.version());
        assert_eq!(daemon.row(app.version()).outcome.map(|outcome| outcome.as_str()), Some("live"));
    }
    // So do a switch and a way back.
    let other = world.app("other").start_unmanaged();
    daemon.admin("POST", &format!("/__switch?port={}", other.port), None).expect(200);
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("other");
    daemon.admin("POST", "/__rollback", None).expect(200);
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v10");
}
