//! What a child gets, and what is said when it cannot be started.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use nix::sys::signal::SigSet;

use super::super::{Exit, Ids};
use super::*;

#[tokio::test]
async fn an_exit_is_reported_as_it_was() {
    let bench = Bench::new();
    for (text, exit) in
        [("exit 0", Exit::Status(0)), ("exit 3", Exit::Status(3)), ("kill -9 $$", Exit::Signal(9))]
    {
        let process = bench.sh(text).await;
        assert_eq!(within("the exit", process.exited()).await, exit, "{text}");
        assert_eq!(within("the end", process.gone()).await, exit, "{text}");
    }
}

#[tokio::test]
async fn the_environment_is_scrubbed_and_names_the_run() {
    let bench = Bench::with(|settings| {
        for name in ["ADMIN_TOKEN", "PORTOK_URL", "NOTIFY_SOCKET", "DRAIN_MS", "LISTEN_FDS"] {
            settings.env.insert(name.into(), "secret".into());
        }
        settings.env.insert("LANG".into(), "C".into());
    });
    let mut launch = bench.launch(CommandLine::Exec(vec!["env".into()]));
    launch.env.insert("A".into(), "b c".into());
    let process = bench.start(launch).await.unwrap();
    within("the end", process.gone()).await;
    let mut env = texts(&process);
    env.retain(|line| !line.starts_with("PATH="));
    env.sort();
    let expected = [
        "A=b c".to_owned(),
        "HOST=127.0.0.1".to_owned(),
        "LANG=C".to_owned(),
        format!("PORT={}", process.port().unwrap()),
        "PORTOK_INSTANCE=web".to_owned(),
        "PORTOK_RELEASE=r1".to_owned(),
        "PORTOK_REPLICA=0".to_owned(),
        format!("PORTOK_RUN={}", process.identity().tag),
        format!("PWD={}", bench.path().display()),
    ];
    assert_eq!(env, expected);
}

#[test]
fn nothing_of_the_daemon_leaks_into_the_child() {
    // Threads inherit the mask of who starts them, and children that of their thread.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR2);
    blocked.thread_block().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::with(|settings| settings.open_files = Some(123));
        // As a shell or systemd passes one on: not closed on exec.
        let passed = std::fs::File::open("/etc/passwd").unwrap();
        nix::fcntl::fcntl(&passed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let process = bench
            .sh("i=3; while [ $i -lt 123 ]; do [ -e /proc/$$/fd/$i ] && readlink /proc/$$/fd/$i; i=$((i+1)); done
                 readlink /proc/$$/fd/0; umask; ulimit -n; grep SigBlk /proc/self/status; grep SigIgn /proc/self/status; echo {port}")
            .await;
        within("the end", process.gone()).await;
        let mut lines = texts(&process);
        // SIGPIPE, which Rust ignores, above all. 32 and 33 are the C library's own and out of
        // reach.
        let ignored = lines.iter().position(|line| line.starts_with("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(lines.remove(ignored).trim_start_matches("SigIgn:\t"), 16).unwrap();
        assert_eq!(ignored & !(0b11 << 31), 0, "{ignored:x}");
        let expected = [
            "/dev/null",
            "0022",
            "123",
            "SigBlk:\t0000000000000000",
            &process.port().unwrap().to_string(),
        ];
        assert_eq!(lines, expected);
    });
    blocked.thread_unblock().unwrap();
}

#[tokio::test]
async fn a_process_leads_its_own_group() {
    let bench = Bench::new();
    let process = bench.sh("echo ready; exec sleep 600").await;
    said(&process, "ready").await;
    let stat = proc::stat(process.pid()).unwrap();
    assert_eq!((stat.group, stat.start_time), (process.pid(), process.identity().start_time));
    process.kill();
    assert_eq!(within("the end", process.gone()).await, Exit::Signal(9));
}

#[tokio::test]
async fn errors_name_what_was_wrong() {
    let bench = Bench::new();
    let file = |name: &str, text: &str, mode| {
        let path = bench.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "text", 0o644);
    let orphan = file("orphan", "#!/no/such/interpreter\n", 0o755);
    for (words, sentences) in [
        (vec!["no-such-program-here"], ["`no-such-program-here`", "no such program in PATH"]),
        (vec!["./missing"], ["`./missing`", "there is no such file"]),
        (vec![orphan.as_str()], ["/orphan`", "interpreter or loader"]),
        (vec![plain.as_str()], ["/plain`", "Permission denied"]),
        (vec![], ["cannot start the app", "names no program"]),
        (vec![""], ["cannot start the app", "names no program"]),
        (vec!["a\0b"], ["cannot start", "nul byte"]),
    ] {
        let command = CommandLine::Exec(words.iter().map(|&word| word.to_owned()).collect());
        let error = bench.start(bench.launch(command)).await.unwrap_err().to_string();
        assert!(sentences.iter().all(|sentence| error.contains(sentence)), "{words:?}: {error}");
    }
    for (directory, cause) in [(bench.path().join("gone"), "No such file"), (plain.into(), "Not a directory")]
    {
        let mut launch = bench.launch(CommandLine::Shell("true".into()));
        launch.directory = Some(directory.clone());
        let error = bench.start(launch).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&format!("cannot enter the directory {}", directory.display())),
            "{message}"
        );
        assert!(message.contains(cause) && error.source.is_some(), "{message}");
    }
}

#[tokio::test]
async fn a_start_leaves_no_pipe_behind() {
    let bench = Bench::new();
    let launch = bench.launch(CommandLine::Exec(vec!["no-such-program-here".into()]));
    bench.start(launch).await.unwrap_err();
    let process = bench.sh("exec sleep 600").await;
    process.kill();
    within("the groups' tasks", bench.supervisor.idle()).await;
    assert_eq!(std::fs::read_dir(bench.path().join("run")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_spawn_that_nobody_waits_for_leaves_nothing() {
    let bench = Bench::new();
    let launch = bench.launch(CommandLine::Shell("exec sleep 600".into()));
    let mut spawning = Box::pin(bench.supervisor.spawn(launch));
    // Polled once, so that it is under way, then dropped.
    tokio::select! {
        biased;
        started = &mut spawning => started.unwrap().kill(),
        () = std::future::ready(()) => {}
    }
    drop(spawning);
    within("the end of what was started", bench.supervisor.idle()).await;
}

#[tokio::test]
async fn a_spawn_that_is_dropped_with_its_answer_on_the_way_leaves_nothing() {
    let bench = Bench::new();
    let runs = bench.path().join("runs");
    let launch = || bench.launch(CommandLine::Shell(format!("> '{}'; exec sleep 600", runs.display())));
    // Once more where the answer was taken before it was seen that the process runs.
    for _ in 0..50 {
        let mut spawning = Box::pin(bench.supervisor.spawn(launch()));
        let taken = loop {
            tokio::select! {
                biased;
                started = &mut spawning => break Some(started.unwrap()),
                () = std::future::ready(()) => {}
            }
            sleep(Duration::from_millis(20)).await;
            if runs.exists() {
                break None;
            }
        };
        drop(spawning);
        match taken {
            Some(process) => process.kill(),
            None => return within("the end of what was started", bench.supervisor.idle()).await,
        }
        within("the end", bench.supervisor.idle()).await;
        let _ = std::fs::remove_file(&runs);
    }
    panic!("the answer was taken each time");
}

#[tokio::test]
async fn a_user_is_switched_to_completely() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: switching users needs root");
        return;
    }
    let bench = Bench::new();
    std::fs::set_permissions(bench.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let ids = Ids {
        uid: 64_001,
        gid: 64_002,
        groups: vec![64_003, 64_004],
        name: "app".into(),
        home: "/srv".into(),
    };
    let text = "grep -E '^(Uid|Gid|Groups|CapEff|CapAmb)' /proc/$$/status; echo $USER $LOGNAME $HOME; echo again > /dev/stderr";
    let mut launch = bench.launch(CommandLine::Shell(text.into()));
    launch.identity = Some(ids.clone());
    let process = bench.start(launch).await.unwrap();
    within("the end", process.gone()).await;
    let mut lines = texts(&process);
    lines.retain(|line| line != "again");
    let expected = [
        "Uid:\t64001\t64001\t64001\t64001",
        "Gid:\t64002\t64002\t64002\t64002",
        "Groups:\t64003 64004 ",
        "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "app app /srv",
    ];
    assert_eq!(lines, expected);
    assert!(texts(&process).contains(&"again".to_owned()), "the app may not open its own standard error");

    // Entered with the app's rights, not with root's.
    let closed = bench.path().join("closed");
    std::fs::DirBuilder::new().mode(0o700).create(&closed).unwrap();
    let mut launch = bench.launch(CommandLine::Shell("true".into()));
    launch.identity = Some(ids);
    launch.directory = Some(closed);
    let error = bench.start(launch).await.unwrap_err().to_string();
    assert!(error.contains("/closed as user `app`") && error.contains("Permission denied"), "{error}");
}
