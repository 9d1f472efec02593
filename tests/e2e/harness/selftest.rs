//! Tests the harness itself. A client that reads wrongly, or an app that answers wrongly, would
//! blame portok.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::fixture::checksum;
use super::procs;
use super::wait::wait_until;
use super::{Conn, Load, World};

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn the_load_finds_nothing_wrong_with_the_fixture_app() {
    let world = World::new();
    let app = world.app("v1").start_unmanaged();
    let load = Load::start(addr(app.port));
    load.wait_for_more(500);
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.get("v1"), Some(&report.answered));
}

#[test]
fn the_load_notices_a_banned_version_and_a_dead_app() {
    let world = World::new();
    let mut app = world.app("v1").start_unmanaged();
    let load = Load::start(addr(app.port));
    load.ban("v1");
    wait_until("the ban is noticed", String::new, || (!load.failures().is_empty()).then_some(()));
    app.kill();
    assert!(!load.finish().failures.is_empty());

    let mut app = world.app("v2").start_unmanaged();
    let load = Load::start(addr(app.port));
    app.kill();
    wait_until("the end is noticed", String::new, || (!load.failures().is_empty()).then_some(()));
    load.finish();
}

#[test]
fn the_client_reads_every_kind_of_answer_of_the_fixture_app() {
    let world = World::new();
    let running = world.app("v1").start_unmanaged();
    let mut conn = Conn::tcp(addr(running.port)).unwrap();
    assert_eq!(conn.request("GET", "/x", &[], None).unwrap().expect(200).text(), "v1\n");
    assert!(conn.request("HEAD", "/x", &[], None).unwrap().expect(200).body.is_empty());
    let posted = conn.request("POST", "/x", &[], Some(b"body")).unwrap();
    assert_eq!(posted.text(), format!("v1 4 {:016x}\n", checksum(b"body")));
    conn.send(
        b"POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    )
    .unwrap();
    assert_eq!(conn.answer("POST").unwrap().text(), posted.text());
    assert_eq!(conn.request("GET", "/status/404", &[], None).unwrap().status(), 404);
    let echo = conn.request("GET", "//a/%2F..;x?y=%20", &[("x-echo", "head")], None).unwrap();
    assert!(echo.text().starts_with("GET //a/%2F..;x?y=%20 HTTP/1.1\r\n"), "{}", echo.text());
    let environment = conn.request("GET", "/env", &[], None).unwrap().json();
    assert_eq!(environment["PORT"], "0");

    let file = world.path("go").display().to_string();
    conn.send(format!("GET /sse?file={file} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(conn.head().unwrap().status, 200);
    assert_eq!(conn.chunk().unwrap().unwrap(), b"data: 1\n\n");
    world.touch("go");
    assert_eq!(conn.chunk().unwrap().unwrap(), b"data: 2\n\n");
    assert_eq!(conn.chunk().unwrap(), None);

    let switched =
        conn.request("GET", "/ws", &[("connection", "upgrade"), ("upgrade", "websocket")], None).unwrap();
    assert_eq!(switched.status(), 101);
    assert_eq!(conn.line().unwrap(), "v1");
    conn.send(b"hello\n").unwrap();
    assert_eq!(conn.line().unwrap(), "hello");
    conn.finish_sending().unwrap();
    assert_eq!(conn.rest().unwrap(), b"bye\n");
}

#[test]
fn the_fixture_app_journals_signals_and_obeys_them_or_not() {
    let world = World::new();
    let app = world.app("v1");
    let mut running = app.start_unmanaged();
    procs::send(running.pid(), Signal::SIGTERM);
    wait_until(
        "it ends at SIGTERM",
        || format!("{:?}", app.journal()),
        || (!running.is_alive()).then_some(()),
    );
    assert_eq!(app.journal()[2..], ["signal SIGTERM", "end"]);

    let app = world.app("v2").flag("ignore_term");
    let mut running = app.start_unmanaged();
    procs::send(running.pid(), Signal::SIGTERM);
    app.wait_for(1, "signal SIGTERM");
    assert!(running.is_alive());

    let app = world.app("v3").with("term_after", world.path("end").display());
    let mut running = app.start_unmanaged();
    procs::send(running.pid(), Signal::SIGTERM);
    app.wait_for(1, "signal SIGTERM");
    assert!(running.is_alive());
    world.touch("end");
    wait_until("it ends", || format!("{:?}", app.journal()), || (!running.is_alive()).then_some(()));
}
