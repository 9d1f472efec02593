//! The daemon as process 1, as in a container: nobody but it can reap what its apps leave behind.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::command::PORTOKD;
use crate::harness::wait::wait_for_lines;
use crate::harness::{Daemon, World, assert_at, procs, wait_until};

/// How many processes the app leaves to process 1.
const LEFT: usize = 60;

/// What makes the next program process 1 of a namespace of its own.
const UNSHARE: [&str; 4] = ["--fork", "--pid", "--mount-proc", "--kill-child"];

#[test]
fn what_is_left_to_it_is_reaped_and_what_it_waits_for_is_not() {
    if !Command::new("/usr/bin/unshare")
        .args(UNSHARE)
        .arg("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("SKIPPED: no pid namespace can be made here (it needs root), so nothing is process 1");
        return;
    }
    let world = World::new();
    let conf = world.conf();
    conf.save();
    let file = conf.file().display().to_string();
    let words = [&UNSHARE[..], &[PORTOKD, "--config", &file]].concat();
    let mut daemon = Daemon::attach(&world, world.spawn("/usr/bin/unshare", &words, &world.env()));
    let init = only_child(daemon.pid());
    let ended = world.path("ended");
    let leaving = |file: &Path| {
        let file = file.display();
        format!("i=0; while [ $i -lt {LEFT} ]; do (sh -c 'echo . >> {file}' &); i=$((i+1)); done")
    };
    let app = world.app("v1");
    let deploy = |release: &str, command: String| {
        let body = serde_json::json!({ "command": command, "release": release });
        daemon.admin("POST", "/__deploy", Some(&body))
    };
    deploy("v1", format!("{}; {}", leaving(&ended), app.command())).expect(200);
    for number in 0..3 {
        let command = format!("{}; exit 7", leaving(Path::new("/dev/null")));
        let body = deploy(&format!("bad-{number}"), command).refused(409, "deploy_aborted");
        assert_at(&body, "/autopsy/exit", "exit status 7");
    }
    wait_for_lines("all have ended", &ended, |lines| lines.len() == LEFT);
    wait_until(
        "no zombie is left",
        || format!("{} zombies", zombies_of(init)),
        || (zombies_of(init) == 0).then_some(()),
    );
    assert_eq!(daemon.get("/").version(), "v1");
    procs::send(init, Signal::SIGTERM);
    daemon.wait().ended(0);
}

fn only_child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("one child of {pid}, not `{children}`"))
}

fn zombies_of(parent: u32) -> usize {
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let mut fields = rest.split_ascii_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
        })
        .count()
}
