//! What an earlier daemon left, and what only looks like it.

#![expect(unsafe_code, reason = "a child that waits between fork and exec has no safe interface")]

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use super::super::Identity;
use super::super::hunt::Left;
use super::*;

fn fresh_tag() -> String {
    new_tag(&identity::new_mark().unwrap())
}

/// A `cat` in a group of its own, and the record that an earlier daemon would have made of it.
pub(super) fn left(tag: Option<&str>, text: &str) -> (Child, Identity) {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(tag) = tag {
        command.env(proc::TAG_VARIABLE, tag);
    }
    let child = command.spawn().unwrap();
    let recorded = tag.map_or_else(fresh_tag, str::to_owned);
    let identity = Identity::of(child.id(), recorded).unwrap();
    (child, identity)
}

/// That a `cat` answers proves that it got no signal: one would have been handled before.
pub(super) fn assert_untouched(cat: &mut Child) {
    let mut answer = [0; 6];
    cat.stdin.as_mut().unwrap().write_all(b"alive\n").unwrap();
    cat.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"alive\n");
    cat.kill().unwrap();
    assert_eq!(cat.wait().unwrap().signal(), Some(9));
}

/// Waits until the shell has said that it is ready.
pub(super) fn wait_for_line(child: &mut Child) {
    let mut byte = [0];
    while byte != *b"\n" {
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    }
}

async fn stop(recorded: &[Identity], timeout: Duration) {
    within(
        "stopping what was left",
        Bench::new().supervisor.stop_leftovers(recorded.to_vec(), &[], TERM, timeout),
    )
    .await;
}

#[tokio::test]
async fn a_recorded_group_is_stopped_to_its_last_member() {
    // No tag in its environment: known by pid, start time and boot alone, its members by their
    // group.
    let (mut child, identity) = left(None, "sleep 600 & echo; wait");
    wait_for_line(&mut child);
    let members =
        || proc::all().into_iter().filter(|stat| stat.group == identity.pid && stat.lives()).count();
    assert_eq!(members(), 2);
    stop(std::slice::from_ref(&identity), DEADLINE).await;
    assert_eq!(members(), 0);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[tokio::test]
async fn what_ignores_the_signal_is_killed() {
    let (mut child, identity) = left(None, "trap '' TERM; echo; while :; do sleep 0.05; done");
    wait_for_line(&mut child);
    stop(&[identity], Duration::from_millis(50)).await;
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[tokio::test]
async fn a_tag_is_enough_and_outlives_the_leader() {
    let tag = fresh_tag();
    let (mut child, mut identity) = left(Some(&tag), "echo; exec sleep 600");
    wait_for_line(&mut child);
    // The leader's pid is somebody else's by now, as far as the record can tell.
    identity.start_time += 1;
    stop(&[identity], DEADLINE).await;
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[tokio::test]
async fn what_was_started_too_late_to_be_recorded_is_found_by_the_records_mark() {
    let bench = Bench::new();
    let (mut ours, _) = left(Some(&new_tag(&bench.supervisor.mark)), "echo; exec sleep 600");
    let (mut others, _) = left(Some(&fresh_tag()), "exec cat");
    wait_for_line(&mut ours);
    within("stopping what was left", bench.supervisor.stop_leftovers(Vec::new(), &[], TERM, DEADLINE)).await;
    assert_eq!(ours.wait().unwrap().signal(), Some(15));
    assert_untouched(&mut others);
}

#[tokio::test]
async fn what_is_started_meanwhile_is_no_leftover() {
    let bench = Bench::new();
    let stubborn = "trap 'echo asked' TERM; echo; while :; do sleep 0.05; done";
    let (mut stubborn, identity) = left(Some(&new_tag(&bench.supervisor.mark)), stubborn);
    wait_for_line(&mut stubborn);
    let stopping = bench.supervisor.stop_leftovers(vec![identity], &[], TERM, DEADLINE);
    let starting = async {
        let asked = tokio::task::spawn_blocking(move || {
            wait_for_line(&mut stubborn);
            stubborn
        });
        let mut stubborn = within("the leftover is asked to end", asked).await.unwrap();
        let ours = bench.sh("trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done").await;
        said(&ours, "ready").await;
        stubborn.kill().unwrap();
        stubborn.wait().unwrap();
        ours
    };
    let (ours, ()) = within("stopping what was left", async { tokio::join!(starting, stopping) }).await;
    // The last look, after which nothing was left, saw it.
    assert!(lives(ours.pid()));
    ours.stop(TERM, DEADLINE);
    said(&ours, "asked").await;
    assert_eq!(texts(&ours).iter().filter(|text| *text == "asked").count(), 1);
}

#[tokio::test]
async fn a_child_that_has_not_become_the_app_yet_is_waited_for() {
    let bench = Bench::new();
    let (mut parent, child) = UnixStream::pair().unwrap();
    let parents_end = parent.as_raw_fd();
    let mut command = Command::new("/bin/sleep");
    command.arg("600").env(proc::TAG_VARIABLE, new_tag(&bench.supervisor.mark));
    // SAFETY: only makes system calls, on what was there before the fork. In the child nobody else
    // uses or closes its copy of the parent's end.
    unsafe {
        command.pre_exec(move || {
            // Held here, it would keep the read waiting after the parent has given up.
            drop(OwnedFd::from_raw_fd(parents_end));
            (&child).write_all(&std::process::id().to_ne_bytes())?;
            (&child).read_exact(&mut [0])
        });
    }
    // Returns once it runs its program.
    let starting = tokio::task::spawn_blocking(move || command.spawn().unwrap());
    let mut pid = [0; 4];
    parent.read_exact(&mut pid).unwrap();
    let mut hunt = Hunt::for_leftovers(&[], &bench.supervisor.mark, &[]);
    assert_eq!(hunt.round(TERM.number, false), Left::Unknown);
    parent.write_all(b"x").unwrap();
    let mut child = starting.await.unwrap();
    assert_eq!(child.id(), u32::from_ne_bytes(pid));
    assert_eq!(hunt.round(TERM.number, false), Left::Members);
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[tokio::test]
async fn a_reused_pid_is_never_signalled() {
    let (mut child, mut identity) = left(None, "exec cat");
    identity.start_time -= 1;
    stop(&[identity], Duration::ZERO).await;
    assert_untouched(&mut child);
}

#[tokio::test]
async fn a_record_of_another_boot_is_never_followed() {
    let (mut child, mut identity) = left(None, "exec cat");
    identity.boot_id = "00000000-0000-0000-0000-000000000000".into();
    stop(&[identity], Duration::ZERO).await;
    assert_untouched(&mut child);
}

#[tokio::test]
async fn a_damaged_record_harms_nobody() {
    let (mut child, identity) = left(Some(""), "exec cat");
    let empty_tag = Identity { start_time: 0, tag: String::new(), ..identity.clone() };
    let init =
        Identity { pid: 1, start_time: proc::stat(1).map_or(0, |stat| stat.start_time), ..identity.clone() };
    let nobody = Identity { pid: 0, start_time: 0, ..identity };
    stop(&[empty_tag, init, nobody], Duration::ZERO).await;
    assert_untouched(&mut child);
}
