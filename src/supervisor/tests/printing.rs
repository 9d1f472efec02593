//! What apps print.

use std::sync::Arc;

use super::super::Exit;
use super::super::ring::LINE_LIMIT;
use super::*;
use crate::wire::{LogLine, LogsRequest, Stream};

/// All lines.
fn all() -> LogsRequest {
    LogsRequest { lines: 100, ..LogsRequest::default() }
}

#[tokio::test]
async fn the_last_lines_are_there_with_the_exit() {
    let bench = Bench::new();
    for round in 0..20 {
        let process = bench.sh("echo out; printf 'no end'; echo err >&2; exit 1").await;
        within("the exit", process.exited()).await;
        let mut lines: Vec<(Stream, String)> =
            process.output(10).into_iter().map(|line| (line.stream, line.line)).collect();
        lines.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
        let expected = [(Stream::Stdout, "out"), (Stream::Stdout, "no end"), (Stream::Stderr, "err")]
            .map(|(stream, line)| (stream, line.to_owned()));
        assert_eq!(lines, expected, "round {round}");
    }
}

#[tokio::test]
async fn a_flood_blocks_nobody_and_is_kept_in_bounds() {
    let bench = Bench::new();
    let process = bench.sh("yes 0123456789012345678901234567890 | head -c 40000000; echo end; exit 6").await;
    assert_eq!(within("the flood", process.gone()).await, Exit::Status(6));
    let lines = texts(&process);
    assert!(lines.len() <= 1000, "{}", lines.len());
    assert_eq!(lines.last().unwrap(), "end");

    // One that never ends is stopped like any other.
    let endless = bench.sh("exec yes").await;
    until("output", || (!endless.output(1).is_empty()).then_some(())).await;
    endless.stop(TERM, DEADLINE);
    assert_eq!(within("the end", endless.gone()).await, Exit::Signal(15));
}

#[tokio::test]
async fn a_line_of_a_mebibyte_is_cut() {
    let bench = Bench::new();
    let process = bench.sh("head -c 1048576 /dev/zero | tr '\\0' x; echo; echo end").await;
    within("the end", process.gone()).await;
    let lines = texts(&process);
    assert!(lines.iter().all(|line| line.len() <= LINE_LIMIT));
    assert!(lines.iter().map(String::len).sum::<usize>() <= 256 << 10);
    assert_eq!(lines.last().unwrap(), "end");
}

#[tokio::test]
async fn an_app_outlives_its_reader() {
    let mut bench = Bench::new();
    let text = "trap 'echo pipe > broken' PIPE; echo ready
        while [ ! -e go ]; do sleep 0.02; done
        echo one || echo one > broken; echo two >&2 || echo two > broken; echo through > through";
    let process = bench.sh(text).await;
    said(&process, "ready").await;
    let unread = Bench::new();
    drop(std::mem::replace(&mut bench.supervisor, unread.next_daemon()));
    std::fs::write(bench.path().join("go"), "").unwrap();
    assert_eq!(within("the end", process.gone()).await, Exit::Status(0));
    assert!(bench.path().join("through").exists());
    assert!(!bench.path().join("broken").exists());
}

#[tokio::test]
async fn lines_can_be_followed() {
    let bench = Bench::new();
    let process = bench.sh("while [ ! -e go ]; do sleep 0.02; done; echo one; echo two").await;
    let mut lines = process.follow();
    std::fs::write(bench.path().join("go"), "").unwrap();
    for expected in ["one", "two"] {
        let line: Arc<LogLine> = within("a line", lines.recv()).await.unwrap();
        assert_eq!(
            (line.line.as_str(), line.release.as_str(), line.stream),
            (expected, "r1", Stream::Stdout)
        );
        assert!(humantime::parse_rfc3339(&line.at).is_ok(), "{}", line.at);
    }
}

#[tokio::test]
async fn logs_remember_ended_runs_in_order_and_by_release() {
    let bench = Bench::new();
    for release in ["r1", "r2", "r1"] {
        let mut launch = bench.launch(CommandLine::Shell("echo $PORTOK_RELEASE; echo $$".into()));
        launch.release = release.into();
        let process = bench.start(launch).await.unwrap();
        within("the end", process.gone()).await;
    }
    let releases = |lines: Vec<LogLine>| lines.into_iter().map(|line| line.release).collect::<Vec<_>>();
    let of = |release: &str, lines| {
        bench.supervisor.logs(&LogsRequest { release: Some(release.into()), lines, ..all() })
    };
    assert_eq!(releases(bench.supervisor.logs(&all())), ["r1", "r1", "r2", "r2", "r1", "r1"]);
    assert_eq!(releases(of("r2", 100)), ["r2", "r2"]);
    assert_eq!(of("r1", 3).len(), 3);
    assert!(of("r3", 3).is_empty());
}

#[tokio::test]
async fn logs_are_told_apart_by_replica_and_process() {
    let bench = Bench::new();
    for (replica, name) in [(0, None), (1, None), (0, Some("worker"))] {
        let mut launch = bench.launch(CommandLine::Shell("echo $PORTOK_REPLICA${PORTOK_PROCESS-}".into()));
        (launch.replica, launch.process) = (Some(replica), name.map(Into::into));
        let process = bench.start(launch).await.unwrap();
        within("the end", process.gone()).await;
    }
    let printed = |wanted: LogsRequest| {
        let lines = bench.supervisor.logs(&wanted).into_iter();
        lines.map(|line| (line.line, line.replica, line.process)).collect::<Vec<_>>()
    };
    let web = |replica: u16| (replica.to_string(), replica, None);
    let worker = ("0worker".to_owned(), 0, Some("worker".to_owned()));
    assert_eq!(printed(all()), [web(0), web(1), worker.clone()]);
    assert_eq!(printed(LogsRequest { replica: Some(0), ..all() }), [web(0), worker.clone()]);
    assert_eq!(printed(LogsRequest { process: Some("web".into()), ..all() }), [web(0), web(1)]);
    assert_eq!(printed(LogsRequest { process: Some("worker".into()), ..all() }), [worker]);
    assert_eq!(printed(LogsRequest { process: Some("before".into()), ..all() }), []);
}

#[tokio::test]
async fn only_the_last_runs_are_remembered() {
    let bench = Bench::new();
    for number in 0..20 {
        let process = bench.sh(&format!("echo {number}")).await;
        within("the end", process.gone()).await;
    }
    within("the tasks", bench.supervisor.idle()).await;
    let lines: Vec<String> = bench.supervisor.logs(&all()).into_iter().map(|line| line.line).collect();
    assert_eq!(lines, (4..20).map(|number| number.to_string()).collect::<Vec<_>>());
}
