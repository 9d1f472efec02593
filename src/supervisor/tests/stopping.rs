//! The stop ladder.

use super::super::Exit;
use super::*;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);

fn pid(text: &str) -> u32 {
    text.trim().parse().unwrap()
}

#[tokio::test]
async fn the_signal_ends_what_listens_to_it() {
    let bench = Bench::new();
    let process = bench.sh("sleep 600 & echo child $!; wait").await;
    let child = pid(&said(&process, "child ").await);
    process.stop(TERM, LONG);
    assert_eq!(within("the end", process.gone()).await, Exit::Signal(15));
    assert!(!lives(process.pid()) && !lives(child));
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed_after_the_timeout() {
    let bench = Bench::new();
    let process = bench.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done").await;
    said(&process, "ready").await;
    process.stop(TERM, SHORT);
    assert_eq!(within("the end", process.gone()).await, Exit::Signal(9));
}

#[tokio::test]
async fn a_stopped_process_is_continued_so_that_it_can_end() {
    let bench = Bench::new();
    let process =
        bench.sh("trap 'exit 7' TERM; echo ready; kill -STOP $$; while :; do sleep 0.02; done").await;
    until("stopped process", || (proc::stat(process.pid())?.state() == 'T').then_some(())).await;
    process.stop(TERM, LONG);
    assert_eq!(within("the end", process.gone()).await, Exit::Status(7));
}

#[tokio::test]
async fn the_first_signal_counts_and_a_later_stop_only_hurries() {
    let bench = Bench::new();
    let text = "trap 'exit 8' INT; trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    let process = bench.sh(text).await;
    said(&process, "ready").await;
    process.stop(INT, LONG);
    process.stop(TERM, LONG);
    assert_eq!(within("the end", process.gone()).await, Exit::Status(8));

    let stubborn = bench.sh("trap '' INT TERM; echo ready; while :; do sleep 0.05; done").await;
    said(&stubborn, "ready").await;
    stubborn.stop(INT, LONG);
    stubborn.stop(TERM, SHORT);
    assert_eq!(within("the hurried end", stubborn.gone()).await, Exit::Signal(9));

    let killed = bench.sh("trap '' INT TERM; echo ready; while :; do sleep 0.05; done").await;
    said(&killed, "ready").await;
    killed.stop(TERM, LONG);
    killed.kill();
    assert_eq!(within("the kill", killed.gone()).await, Exit::Signal(9));
}

#[tokio::test]
async fn what_a_leader_leaves_behind_is_stopped() {
    let bench = Bench::new();
    let process = bench.sh("sleep 600 & echo child $!; exit 4").await;
    assert_eq!(within("the leader's exit", process.exited()).await, Exit::Status(4));
    let child = pid(&said(&process, "child ").await);
    assert_eq!(within("the end", process.gone()).await, Exit::Status(4));
    assert!(!lives(child));
}

#[tokio::test]
async fn a_group_is_gone_only_when_its_last_member_is() {
    let bench = Bench::new();
    // npm and the like: the leader goes at once, the server finishes what it has.
    let text = "trap 'exit 0' TERM
        sh -c 'trap \"\" TERM; echo child $$; while [ ! -e finished ]; do sleep 0.02; done' & wait";
    let process = bench.sh(text).await;
    let child = pid(&said(&process, "child ").await);
    process.stop(TERM, LONG);
    assert_eq!(within("the leader's exit", process.exited()).await, Exit::Status(0));
    assert!(lives(child));
    let gone = tokio::spawn({
        let process = process.clone();
        async move { process.gone().await }
    });
    assert!(!gone.is_finished());
    std::fs::write(bench.path().join("finished"), "").unwrap();
    within("the end", gone).await.unwrap();
    assert!(!lives(child));
}

#[tokio::test]
async fn a_helper_that_left_the_group_is_found_by_its_tag() {
    let bench = Bench::new();
    // Twice forked, in a session of its own, child of nobody here, deaf to SIGTERM.
    let text =
        "(setsid sh -c 'trap \"\" TERM; echo helper $$; while :; do sleep 0.05; done' &) ; exec sleep 600";
    let process = bench.sh(text).await;
    let helper = pid(&said(&process, "helper ").await);
    assert_ne!(proc::stat(helper).unwrap().group, process.pid());
    process.stop(TERM, SHORT);
    within("the end", process.gone()).await;
    assert!(!lives(helper));
}

#[tokio::test]
async fn a_helper_without_a_tag_is_found_while_its_parent_lives() {
    let bench = Bench::new();
    let process = bench.sh("env -i setsid sleep 600 & echo helper $!; wait").await;
    let helper = pid(&said(&process, "helper ").await);
    until("helper in its own session", || {
        (proc::stat(helper)?.group == helper && proc::name(helper) == "sleep").then_some(())
    })
    .await;
    assert_ne!(proc::tag(&proc::stat(helper).unwrap()).as_ref(), Some(&process.identity().tag));
    process.stop(TERM, LONG);
    within("the end", process.gone()).await;
    assert!(!lives(helper));
}

#[tokio::test]
async fn a_zombie_that_its_parent_keeps_is_no_member() {
    let bench = Bench::new();
    // A parent that leaves the group and never reads its child's end: the group would never be
    // empty.
    let text = "perl -e 'if (my $c = fork) { setpgrp(0, 0); print STDERR qq(zombie $c\\n); sleep 600 }' & exec sleep 600";
    if std::process::Command::new("perl").arg("-v").output().is_err() {
        eprintln!("SKIPPED: a zombie that is kept needs perl, which is not there");
        return;
    }
    let process = bench.sh(text).await;
    let zombie = pid(&said(&process, "zombie ").await);
    until("zombie", || (proc::stat(zombie)?.state() == 'Z').then_some(())).await;
    assert_eq!(proc::stat(zombie).unwrap().group, process.pid());
    process.stop(TERM, LONG);
    assert_eq!(within("the end", process.gone()).await, Exit::Signal(15));
}

#[tokio::test]
async fn a_strangers_process_is_left_alone() {
    let bench = Bench::new();
    let mut stranger = std::process::Command::new("cat")
        .env(proc::TAG_VARIABLE, "0".repeat(32))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let process = bench.sh("exec sleep 600").await;
    process.kill();
    within("the end", process.gone()).await;
    leftovers::assert_untouched(&mut stranger);
}

#[tokio::test]
async fn handles_may_be_dropped_and_waited_on_by_many() {
    let bench = Bench::new();
    let process = bench.sh("echo ready; while [ ! -e go ]; do sleep 0.02; done; exit 5").await;
    said(&process, "ready").await;
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let process = process.clone();
            tokio::spawn(async move { (process.exited().await, process.gone().await) })
        })
        .collect();
    let pid = process.pid();
    drop(process);
    assert!(lives(pid));
    std::fs::write(bench.path().join("go"), "").unwrap();
    for waiter in waiters {
        let ended = within("a waiter", waiter).await.unwrap();
        assert_eq!(ended, (Exit::Status(5), Exit::Status(5)));
    }
}
