//! Who keeps the apps' pipes from filling up while there is no daemon.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::command::PORTOKD;
use crate::harness::{World, procs, wait_until};

#[test]
fn who_keeps_the_pipes_from_filling_up_goes_with_the_last_who_prints() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let keepers = || procs::with_words(&["portok-keeper", world.name()]);
    let explain = || format!("{:?}", keepers());
    // With the daemon that stops its app.
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(keepers().len(), 1);
    daemon.terminate();
    assert!(keepers().is_empty());
    // With the next daemon, which has its own.
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.wait_until_recorded();
    let former = keepers();
    daemon.kill();
    assert_eq!(keepers(), former, "the app may print");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    wait_until("the former one is gone", explain, || (keepers().len() == 1).then_some(()));
    assert_ne!(keepers(), former);
    // With the app, where no daemon comes any more.
    let app = daemon.live_pid();
    daemon.kill();
    procs::send(app, Signal::SIGKILL);
    wait_until("it has nothing to do any more", explain, || keepers().is_empty().then_some(()));
}

#[test]
fn a_keeper_that_is_slow_to_go_does_not_take_the_next_one_with_it() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let keepers = || procs::with_words(&["portok-keeper", world.name()]);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.wait_until_recorded();
    let former = keepers()[0];
    daemon.kill();
    // Not before: with its parent a stopped group gets SIGHUP (setpgid(2)), and would be quick to go.
    procs::send(former, Signal::SIGSTOP);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert!(procs::is_alive(former));
    procs::send(former, Signal::SIGCONT);
    wait_until(
        "the former one is gone",
        || format!("{:?}", keepers()),
        || (!procs::is_alive(former)).then_some(()),
    );
    assert_eq!(keepers().len(), 1, "the next one is there");
}

#[test]
fn a_daemon_that_cannot_start_leaves_somebody_to_keep_the_pipes_from_filling_up() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1").flag("flood"));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.wait_until_recorded();
    let app = daemon.live_pid();
    daemon.kill();
    conf.clone().set("admin.socket", "/proc/nowhere/s").save();
    world.portokd(&["--config", &conf.file().display().to_string()], &world.env()).ended(1);
    procs::wait_until_it_writes_on(app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(daemon.live_pid(), app);
}

#[test]
fn a_keeper_that_was_killed_is_reaped_and_has_a_successor() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1").flag("flood"));
    let keepers = || procs::with_words(&["portok-keeper", world.name()]);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mut former = keepers();
    for _ in 0..3 {
        procs::send(former[0], Signal::SIGKILL);
        former = wait_until(
            "another one is there and nothing of the killed one",
            || format!("{former:?}, now {:?}\n{}", keepers(), daemon.log()),
            || {
                let is_gone = !Path::new(&format!("/proc/{}", former[0])).exists();
                Some(keepers()).filter(|now| is_gone && now.len() == 1)
            },
        );
    }
    daemon.wait_until_recorded();
    let app = daemon.live_pid();
    daemon.kill();
    procs::wait_until_it_writes_on(app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
}

#[test]
fn a_keeper_goes_on_and_hears_its_call_when_the_names_are_gone() {
    let world = World::new();
    let run_dir = world.path("keeper");
    std::fs::create_dir(&run_dir).unwrap();
    let pipe = |name: &str| {
        let path = run_dir.join(name);
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let both =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        // As the daemon makes them.
        fcntl(&both, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
        (path, both)
    };
    let (_, mut printed) = pipe(&format!("{}.out", "0".repeat(32)));
    let (name, call) = pipe("call");
    std::fs::remove_file(name).unwrap();
    let mut keeper = Command::new(PORTOKD)
        .arg0("portok-keeper")
        .arg(&run_dir)
        .current_dir(&run_dir)
        .stdin(Stdio::piped())
        .stdout(call.try_clone().unwrap())
        .spawn()
        .unwrap();
    // Its daemon is gone.
    drop(keeper.stdin.take());
    let mut print_much = |when: &str| {
        let total = Cell::new(0);
        wait_until(
            &format!("an app prints far more than a pipe holds, {when}"),
            || format!("it printed {} bytes", total.get()),
            || {
                while let Ok(written) = printed.write(&[b'x'; 4096]) {
                    total.set(total.get() + written);
                }
                (total.get() > 4 << 20).then_some(())
            },
        );
    };
    print_much("without a name to call its keeper by");
    // As systemd does with a unit that has failed.
    std::fs::remove_dir_all(&run_dir).unwrap();
    print_much("without any name");
    (&call).write_all(&[1]).unwrap();
    assert!(keeper.wait().unwrap().success());
}
