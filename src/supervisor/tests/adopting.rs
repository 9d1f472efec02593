//! Processes that an earlier daemon started, taken over.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::super::{Exit, Identity, Survivor, identity};
use super::leftovers::assert_untouched;
use super::*;

/// A shell in a group of its own, as an earlier daemon would have left it, and what that one would
/// have recorded.
fn left(text: &str) -> (Child, Survivor) {
    let tag = new_tag(&identity::new_mark().unwrap());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).process_group(0).env(proc::TAG_VARIABLE, &tag);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let identity = Identity::of(child.id(), tag).unwrap();
    // Any will do: nothing listens there.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let port = Some(port);
    (child, Survivor { identity, release: "r1".into(), replica: 0, process: None, port, stopping: None })
}

async fn adopt(bench: &Bench, survivor: &Survivor) -> std::io::Result<Process> {
    let process = within("taking it over", bench.supervisor.adopt(survivor)).await?;
    bench.tags.lock().unwrap().push(survivor.identity.tag.clone());
    Ok(process)
}

/// Reaps the child as an init would, so that its end is not only a zombie.
fn reap(mut child: Child) -> std::thread::JoinHandle<std::process::ExitStatus> {
    std::thread::spawn(move || child.wait().unwrap())
}

fn members(group: u32) -> usize {
    proc::all().into_iter().filter(|stat| stat.group == group && stat.lives()).count()
}

#[tokio::test]
async fn its_end_is_noticed_and_what_it_leaves_behind_is_stopped() {
    let bench = Bench::new();
    let (child, survivor) = left("sleep 600 & read line");
    let pid = child.id();
    until("its child", || (members(pid) == 2).then_some(())).await;
    let process = adopt(&bench, &survivor).await.unwrap();
    assert_eq!((process.pid(), process.port()), (pid, survivor.port));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let reaper = reap(child);
    assert_eq!(within("its end", process.exited()).await, Exit::Unknown);
    within("nothing of it", process.gone()).await;
    assert_eq!(members(pid), 0);
    reaper.join().unwrap();
}

#[tokio::test]
async fn it_is_stopped_with_its_whole_group() {
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    let (child, survivor) = left("env -i sleep 600 & wait");
    let pid = child.id();
    until("its child", || (members(pid) == 2).then_some(())).await;
    let process = adopt(&bench, &survivor).await.unwrap();
    let reaper = reap(child);
    assert!(!process.was_signalled());
    process.stop(TERM, DEADLINE);
    within("the signal", process.signalled()).await;
    within("nothing of it", process.gone()).await;
    assert_eq!(members(pid), 0);
    assert_eq!(reaper.join().unwrap().signal(), Some(Signal::SIGTERM as i32));
}

#[tokio::test]
async fn one_that_was_asked_already_is_killed_when_its_time_is_over_and_not_asked_again() {
    use std::os::unix::process::ExitStatusExt;
    let bench = Bench::new();
    let (child, survivor) = left("trap 'exit 3' TERM; while :; do sleep 0.01; done");
    let survivor = Survivor { stopping: Some(Duration::from_millis(50)), ..survivor };
    let process = adopt(&bench, &survivor).await.unwrap();
    let reaper = reap(child);
    within("nothing of it", process.gone()).await;
    assert_eq!(reaper.join().unwrap().signal(), Some(Signal::SIGKILL as i32), "no SIGTERM before");
}

#[tokio::test]
async fn what_is_not_the_recorded_process_is_refused_and_left_alone() {
    let bench = Bench::new();
    let (mut cat, survivor) = left("cat");
    let refused = |change: fn(&mut Identity)| {
        let mut survivor = survivor.clone();
        change(&mut survivor.identity);
        survivor
    };
    for (survivor, why) in [
        (refused(|identity| identity.start_time += 1), "another process's"),
        (refused(|identity| identity.boot_id = "another".into()), "booted"),
        (refused(|identity| identity.pid = 1), "no usable pid"),
        (refused(|identity| identity.pid = 0), "no usable pid"),
        (refused(|identity| identity.pid = u32::MAX), "no usable pid"),
        (refused(|identity| identity.pid = 0x3fff_ffff), "ended"),
    ] {
        let error = bench.supervisor.adopt(&survivor).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert_untouched(&mut cat);
}

#[tokio::test]
async fn what_it_prints_is_read_though_the_names_of_its_pipes_are_gone() {
    let mut bench = Bench::new();
    let text = "while [ ! -e go ]; do sleep 0.02; done; echo out; echo err >&2; exec sleep 600";
    let started = bench.sh(text).await;
    let names: Vec<_> = std::fs::read_dir(bench.path().join("run")).unwrap().flatten().collect();
    assert_eq!(names.len(), 2);
    names.iter().for_each(|name| std::fs::remove_file(name.path()).unwrap());
    // Its daemon reads no more.
    let next = Bench::new();
    drop(std::mem::replace(&mut bench.supervisor, next.next_daemon()));
    let (mut helper, other) = left("cat");
    let survivor = Survivor { identity: started.identity().clone(), ..other };
    let process = adopt(&next, &survivor).await.unwrap();
    std::fs::write(bench.path().join("go"), "").unwrap();
    said(&process, "out").await;
    said(&process, "err").await;
    assert_untouched(&mut helper);
}

#[tokio::test]
async fn a_pipe_of_its_own_is_not_taken_for_the_daemons() {
    let bench = Bench::new();
    let (mut child, survivor) = left("while :; do echo mine; sleep 0.01; done");
    let process = adopt(&bench, &survivor).await.unwrap();
    let mut own = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    own.read_line(&mut line).unwrap();
    assert_eq!(line, "mine\n");
    process.stop(TERM, DEADLINE);
    let reaper = reap(child);
    within("nothing of it", process.gone()).await;
    assert_eq!(texts(&process), [""; 0]);
    reaper.join().unwrap();
}
