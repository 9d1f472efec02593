//! `portok run`: a daemon before which somebody sits.

use std::io::Write;

use nix::sys::signal::Signal;

use crate::boot::run_env;
use crate::harness::command::{PORTOK, Running};
use crate::harness::http::request_bytes;
use crate::harness::{Daemon, World, assert_mentions, wait_until};

#[test]
fn it_listens_on_loopback_and_each_request_sees_the_newest_release() {
    let world = World::new();
    let command = world.app("v1").command();
    let mut daemon = Daemon::attach(
        &world,
        world.spawn(PORTOK, &["run", "--listen", "0", "--cmd", &command], &run_env(&world)),
    );
    daemon.wait_until_serves("v1");
    assert!(daemon.addr.ip().is_loopback(), "{}", daemon.addr);
    let mut browser = daemon.connect();
    assert_eq!(browser.request("GET", "/", &[], None).unwrap().version(), "v1");
    daemon.portok(&["deploy", "--cmd", &world.app("v2").command()]).ended(0);
    assert_eq!(browser.request("GET", "/", &[], None).unwrap().version(), "v2");
    let said = daemon.log();
    let column =
        |word: &str| said.lines().find_map(|line| line.starts_with("  ").then(|| line.find(word))?);
    let columns = [
        column("http://"),
        column(PORTOK),
        said.lines().find_map(|line| line.strip_suffix(" status")?.find(PORTOK)),
    ];
    assert!(
        columns[0].is_some() && columns.iter().all(|column| *column == columns[0]),
        "{columns:?}\n{said}"
    );
    daemon.signal(Signal::SIGINT);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn it_says_what_it_waits_for_and_soon_what_most_likely_is_wrong() {
    let world = World::new();
    let app = world.app("v1").flag("bind_elsewhere");
    let words = ["run", "--listen", "0", "--cmd", &app.command()];
    let mut daemon = Daemon::attach(&world, world.spawn(PORTOK, &words, &run_env(&world)));
    let elsewhere = app.wait_for(1, "listen ");
    for part in [
        "waiting for 2xx from http://127.0.0.1:",
        "/health: connection refused",
        "it ignores PORT",
        &elsewhere,
    ] {
        wait_until(part, || daemon.log(), || daemon.log().contains(part).then_some(()));
    }
    assert_eq!(daemon.status().phase.as_str(), "starting", "long before app.start_timeout");
    daemon.signal(Signal::SIGINT);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn ctrl_c_tells_a_terminal_what_is_waited_for_and_a_second_one_ends_it() {
    let world = World::new();
    let app = world.app("v1");
    world.write("cmd", &app.command());
    // script(1) has the terminal; what is typed comes over its standard input.
    let line = format!("exec '{PORTOK}' run --listen 0 --cmd \"$(cat {})\"", world.path("cmd").display());
    let (typed, mut keyboard) = std::io::pipe().unwrap();
    let words = ["--quiet", "--return", "--command", &line, "/dev/null"];
    let stem = world.path("terminal");
    let stderr = crate::harness::command::create(&stem.with_extension("err"));
    let running =
        Running::start_over("/usr/bin/script", &words, &run_env(&world), &stem, typed.into(), stderr.into());
    let mut daemon = Daemon::attach(&world, running);
    daemon.wait_until_serves("v1");
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("never").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    keyboard.write_all(b"\x03").unwrap();
    wait_until(
        "the terminal is told",
        || daemon.output(),
        || daemon.output().contains("Ctrl-C once more").then_some(()),
    );
    assert_mentions(&daemon.output(), &["waiting for 1 request in flight, at most 30s"]);
    assert_eq!(app.count("signal"), 0, "the terminal's signal does not reach the app");
    keyboard.write_all(b"\x03").unwrap();
    daemon.wait();
    world.wait_for_none_left();
}
