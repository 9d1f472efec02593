//! What the service manager is told, and what it keeps: without a systemd, against one that only listens.

use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use crate::harness::http::request_bytes;
use crate::harness::{Conn, Load, Manager, World, pid, procs, wait_until};

#[test]
fn ready_comes_when_it_is_known_what_runs_and_the_status_line_follows_the_app() {
    let world = World::new();
    let manager = Manager::new(&world);
    let app = world.app("v1").with("bind_after", world.path("go").display());
    let daemon = world.start_managed(&world.conf().app(&app), &manager);
    manager.wait_for(1, "READY=1");
    app.wait_for(1, "start ");
    let starting = manager.wait_for_status("it starts", |line| line.starts_with("starting"));
    assert!(starting.contains("release"), "{starting}");
    assert_eq!(manager.count("READY=1"), 1, "a healthy app is not waited for, nor told of again");
    world.touch("go");
    let status = daemon.wait_until_serves("v1");
    let watching = manager.wait_for_status("it watches", |line| line.starts_with("watching"));
    let port = status.active_port.unwrap();
    assert!(watching.contains(&format!("on 127.0.0.1:{port}, until ")), "{watching}");
    daemon.terminate();
    assert_eq!(manager.count("STOPPING=1"), 1);
    manager.wait_for_status("it stops", |line| line.starts_with("stopping"));
}

#[test]
fn a_reload_is_announced_and_ended() {
    let world = World::new();
    let manager = Manager::new(&world);
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start_managed(&conf, &manager);
    manager.wait_for(1, "READY=1");
    daemon.signal(Signal::SIGHUP);
    manager.wait_for(2, "READY=1");
    let messages = manager.messages();
    let reload = messages.iter().find(|message| message.starts_with("RELOADING=1")).unwrap();
    assert!(reload.contains("\nMONOTONIC_USEC="), "{reload}");
}

#[test]
fn a_long_end_asks_for_more_time() {
    let world = World::new();
    let manager = Manager::new(&world);
    let app = world.app("v1").with("term_after", world.path("go").display());
    let mut daemon = world.start_managed(&world.conf().app(&app).set("app.stop_timeout", "10m"), &manager);
    daemon.wait_until_serves("v1");
    let before = manager.count("EXTEND_TIMEOUT_USEC=");
    daemon.signal(Signal::SIGTERM);
    app.wait_for(1, "signal SIGTERM");
    manager.wait_for(before + 1, "EXTEND_TIMEOUT_USEC=30000000");
    world.touch("go");
    daemon.wait().ended(0);
}

#[test]
fn the_watchdog_is_fed_while_both_planes_turn() {
    let world = World::new();
    let manager = Manager::new(&world).with("WATCHDOG_USEC", "100000");
    let daemon = world.start_managed(&world.conf().app(&world.app("v1")), &manager);
    manager.wait_for(5, "WATCHDOG=1");
    daemon.terminate();
}

#[test]
fn without_a_watchdog_nobody_is_told_of_one() {
    let world = World::new();
    let manager = Manager::new(&world).with("WATCHDOG_USEC", "100000").with("WATCHDOG_PID", "1");
    let daemon = world.start_managed(&world.conf().app(&world.app("v1")), &manager);
    daemon.wait_until_serves("v1");
    daemon.terminate();
    assert_eq!(manager.count("WATCHDOG=1"), 0, "the watchdog is another process's");
}

#[test]
fn what_systemd_says_and_passes_to_the_daemon_reaches_no_app() {
    let world = World::new();
    let manager = Manager::new(&world).with("WATCHDOG_USEC", "60000000");
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start_managed(&conf, &manager);
    manager.wait_for_socket(daemon.addr);
    daemon.terminate();
    manager.keep(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let daemon = world.start_managed(&conf, &manager);
    daemon.wait_until_serves("v1");
    let env = daemon.get("/env").json();
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        assert!(env.get(name).is_none(), "{name} is in {env:#}");
    }
    let kept = std::fs::File::from(manager.kept_socket().unwrap()).metadata().unwrap().ino();
    let files = daemon.get("/fds").json();
    assert!(!files.to_string().contains(&format!("socket:[{kept}]")), "{files:#}");
    daemon.terminate();
}

#[test]
fn a_kept_socket_is_taken_again_and_an_end_lets_go_of_it() {
    let world = World::new();
    let manager = Manager::new(&world);
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start_managed(&conf, &manager);
    let addr = daemon.addr;
    manager.wait_for_socket(addr);
    daemon.kill();
    // In the queue of the socket that is kept: it is answered by the next daemon.
    let mut waiting = Conn::tcp(addr).unwrap();
    waiting.send(&request_bytes("GET", "/__health", &[], None)).unwrap();
    let daemon = world.start_managed(&conf, &manager);
    assert_eq!(daemon.addr, addr, "port 0 is whatever was kept");
    assert_eq!(waiting.answer("GET").unwrap().status(), 401);
    daemon.wait_until_serves("v1");
    daemon.terminate();
    assert!(manager.kept_socket().is_none(), "nobody waits in a queue that nothing accepts from");
    let refused = || Conn::tcp(addr).is_err().then_some(());
    wait_until("nothing listens", || format!("{addr}"), refused);
}

#[test]
fn a_passed_socket_for_another_address_is_closed_and_said() {
    let world = World::new();
    let manager = Manager::new(&world);
    let foreign = std::net::TcpListener::bind("127.0.0.2:0").unwrap();
    let stale = foreign.local_addr().unwrap();
    manager.keep(foreign);
    let daemon = world.start_managed(&world.conf().app(&world.app("v1")), &manager);
    assert_ne!(daemon.addr, stale);
    manager.wait_for_socket(daemon.addr);
    assert_eq!(manager.count("FDSTOREREMOVE=1"), 1);
    assert!(daemon.log().contains(&stale.to_string()), "{}", daemon.log());
    // A child that another test is just starting has it until it executes its program.
    wait_until("it is closed everywhere", || daemon.log(), || Conn::tcp(stale).is_err().then_some(()));
}

#[test]
fn a_bound_socket_that_does_not_listen_is_not_taken() {
    let world = World::new();
    let manager = Manager::new(&world);
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    manager.keep(bound);
    let daemon = world.start_managed(&world.conf().app(&world.app("v1")), &manager);
    daemon.wait_until_serves("v1");
}

#[test]
fn another_listen_address_is_kept_instead_of_the_former() {
    let world = World::new();
    let manager = Manager::new(&world);
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start_managed(&conf, &manager);
    manager.wait_for_socket(daemon.addr);
    conf.set("listen", "127.0.0.2:0").save();
    let moved = daemon.wait_until("it listens elsewhere", |status| status.listen.starts_with("127.0.0.2:"));
    manager.wait_for_socket(moved.listen.parse().unwrap());
    wait_until("the former is closed", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
}

#[test]
fn a_daemon_killed_under_load_refuses_no_connection() {
    let world = World::new();
    let manager = Manager::new(&world);
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start_managed(&conf, &manager);
    daemon.wait_until_serves("v1");
    manager.wait_for_socket(daemon.addr);
    let load = Load::start(daemon.addr);
    daemon.kill();
    let daemon = world.start_managed(&conf, &manager);
    daemon.wait_until_serves("v1");
    load.wait_for_more(100);
    let report = load.finish();
    let refused: Vec<_> = report.failures.iter().filter(|failure| failure.contains("connecting")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn leaving_and_coming_back_under_load_loses_no_request_and_keeps_the_app() {
    let world = World::new();
    let manager = Manager::new(&world);
    let app = world.app("v1");
    let conf = world.conf().app(&app);
    let mut daemon = world.start_managed(&conf, &manager);
    let before = pid(&daemon.wait_until_serves("v1")).unwrap();
    let load = Load::start(daemon.addr);
    for _ in 0..3 {
        daemon.signal(Signal::SIGUSR2);
        daemon.wait().ended(0);
        daemon = world.start_managed(&conf, &manager);
        load.wait_for_more(100);
    }
    load.finish_without_failure();
    assert_eq!((app.pids(), daemon.live_pid()), (vec![before], before));
    daemon.terminate();
}

#[test]
fn sigusr2_finishes_requests_cuts_tunnels_and_leaves_the_app() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "10m"));
    let before = pid(&daemon.wait_until_serves("v1")).unwrap();
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    let mut tunnel = daemon.connect();
    tunnel
        .send(&request_bytes("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")], None))
        .unwrap();
    assert_eq!(tunnel.answer("GET").unwrap().status(), 101);
    assert_eq!(tunnel.line().unwrap(), "v1");
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGUSR2);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    daemon.admin("POST", "/__deploy", Some(&serde_json::json!({}))).refused(503, "shutting_down");
    tunnel.send(b"still\n").unwrap();
    assert_eq!(tunnel.line().unwrap(), "still", "tunnels live as long as requests do");
    world.touch("go");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.wait().ended(0);
    assert!(matches!(tunnel.rest().as_deref(), Ok(b"") | Err(_)));
    assert_eq!(app.count("signal"), 0);
    assert!(procs::is_alive(before));
    let record = std::fs::read_to_string(world.state_file()).unwrap();
    assert!(record.contains(&format!("\"pid\": {before}")), "{record}");
    // The next daemon has it in its hands.
    let daemon = world.start(&world.conf().app(&app));
    assert_eq!(daemon.live_pid(), before);
    daemon.terminate();
}

#[test]
fn sigusr2_interrupts_a_deploy_and_a_second_signal_ends_the_wait() {
    let world = World::new();
    let app = world.app("v1");
    let candidate = world.app("v2").flag("bind_never");
    let mut daemon = world.start(&world.conf().app(&app).set("drain.period", "10m"));
    daemon.wait_until_serves("v1");
    daemon.deploy_detached(&candidate);
    candidate.wait_for(1, "start ");
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("never").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    daemon.signal(Signal::SIGUSR2);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    // One that comes within 0.3 s of the first is the same wish.
    wait_until(
        "a later one ends the wait",
        || daemon.log(),
        || {
            daemon.signal(Signal::SIGTERM);
            (!procs::is_alive(daemon.pid())).then_some(())
        },
    );
    daemon.wait().ended(0);
    assert_eq!((app.count("signal"), candidate.count("signal")), (0, 0));
    let daemon = world.start(&world.conf().app(&app));
    daemon.wait_until_serves("v1");
    let outcome = daemon.row("v2").outcome.map(|outcome| outcome.as_str());
    assert_eq!(outcome, Some("interrupted"));
    daemon.terminate();
}
