//! Very many targets that accept and never answer: their probes leave descriptors to everything
//! else.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portok::wire::TargetState;

use super::{edge, get, names, put_text, reload, status, wait_for};
use crate::harness::command::PORTOKD;
use crate::harness::{Daemon, Load, World, wait_until};

/// Targets an app.
const TARGETS: usize = 64;

/// The limit of open files. An eighth of it is for probes.
const LIMIT: usize = 300;

/// Accepts at one port of every loopback address, and never answers. Gives the port and how many
/// connections there were.
fn silence() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    // Ends with the tests.
    std::thread::spawn(move || {
        let mut open = VecDeque::new();
        for stream in listener.incoming() {
            open.push_back(stream.unwrap());
            // Those are over on the other side.
            open.drain(..open.len().saturating_sub(LIMIT));
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[test]
fn targets_that_never_answer_take_nothing_from_other_apps() {
    let world = World::new();
    let good = world.app("good").start_unmanaged();
    let (port, asked) = silence();
    let conf = edge(&world).set("proxy.threads", 1);
    put_text(&world, "good", &format!("hosts = [\"app.test\"]\ntargets = [\"127.0.0.1:{}\"]\n", good.port));
    let put_silent = |apps: Range<usize>| {
        for app in apps {
            let targets: Vec<_> =
                (1..=TARGETS).map(|each| format!("\"127.0.{app}.{each}:{port}\"")).collect();
            let health = "health.timeout = \"300ms\"\nhealth.interval = \"1s\"\n";
            let text = format!("hosts = [\"s{app}.test\"]\ntargets = [{}]\n{health}", targets.join(", "));
            put_text(&world, &format!("silent-{app}"), &text);
        }
    };
    put_silent(1..7);
    conf.save();
    let (file, limit) = (conf.file().display().to_string(), LIMIT.to_string());
    let words = ["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit, PORTOKD, "--config", &file];
    let daemon = Daemon::attach(&world, world.spawn("/bin/sh", &words, &world.env()));
    wait_for(&daemon, "app.test", "good");

    let load = Load::start(daemon.addr);
    put_silent(7..13);
    reload(&daemon);
    // So many probes take more than one round.
    let most = 13 * TARGETS + 100;
    let mut descriptors = 0;
    wait_until(
        "every target was asked",
        || daemon.log(),
        || {
            descriptors =
                descriptors.max(std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count());
            get(&daemon, "app.test", "/").expect(200);
            assert_eq!(status(&daemon, "good").targets[0].state, TargetState::Ready);
            (asked.load(Ordering::SeqCst) >= most).then_some(())
        },
    );
    load.wait_for_more(100);
    load.finish_without_failure();
    assert_eq!(names(&world).len(), 13);
    assert!(descriptors < LIMIT / 2, "{descriptors} descriptors");
    let told = status(&daemon, "silent-7").targets[0].last_error.clone();
    assert!(told.unwrap().contains("no answer within 300ms"));
    let log = daemon.log();
    assert!(log.lines().count() < 100 && !log.contains("portok itself cannot"), "{log}");
    daemon.terminate();
}
