//! Deploys against a daemon that answers by script.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::testing::{Fake, Paper, Ran, Received, Reply, Terminals, around, run, run_on};
use crate::wire::{Code, ErrorBody, Moved, NDJSON, Outcome};

const AT: &str = "2026-01-01T00:00:00.000Z";

fn switch() -> Value {
    json!({"from": 41822, "fromRelease": "v1", "to": 41873, "toRelease": "v2", "at": AT, "reason": "deploy", "id": "s1"})
}

fn told(event: &str, more: Value) -> Value {
    let mut value = json!({"at": AT, "event": event, "release": "v2"});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn beginning() -> Vec<Value> {
    let probe = json!({"healthy": false, "status": null, "location": null, "body": null,
                       "error": "connection refused", "latencyMs": 0.1});
    vec![
        told("accepted", json!({})),
        told("spawned", json!({"pid": 4121, "port": 41873})),
        told("output", json!({"line": "listening \u{1b}[2Jsoon"})),
        told("probe", json!({"probe": probe})),
    ]
}

fn good() -> Vec<Value> {
    let mut events = beginning();
    events.extend([
        told("healthy", json!({"port": 41873})),
        told("switched", json!({"switch": switch()})),
        told("draining", json!({"port": 41822, "release": "v1"})),
        told("invented_later", json!({"switch": 5})),
        told("finished", json!({"outcome": "live", "switch": switch(), "message": "release `v2` is live"})),
    ]);
    events
}

/// A deploy that ends well; afterwards `watch` answers the n-th question.
fn then(watch: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |n, received| if n == 0 { Reply::events(&good()).ended() } else { watch(n - 1, received) })
}

fn status(live: Option<&str>, phase: &str) -> Reply {
    let live = live.map(|release| {
        json!({"release": release, "port": 1, "pid": 2, "startedAt": AT, "restarts": 0, "inflight": 0})
    });
    Reply::json(
        200,
        &json!({
            "activePort": null, "drainUntil": null, "lastSwitch": null, "instance": "default", "phase": phase,
            "live": live, "candidate": null, "previous": null, "watchUntil": null,
            "config": {"file": null, "loadedAt": AT, "error": null}, "version": "0.1.0", "listen": "x", "pid": 6,
            "stateError": null, "lastFailure": null
        }),
    )
}

fn releases(outcome: &str) -> Reply {
    let row = json!({"release": "v2", "command": "x", "outcome": outcome, "startedAt": AT, "switchedAt": AT,
                     "stoppedAt": null, "exit": "exit status 3", "port": 1, "reason": "3 probes failed in a row"});
    Reply::json(200, &json!([row]))
}

async fn failed(last: Value) -> Ran {
    let mut events = beginning();
    events.push(last);
    let fake = Fake::new(move |_, _| Reply::events(&events).ended());
    let human = fake.portok(&["deploy"]).await;
    let json = fake.portok(&["deploy", "--json"]).await;
    assert_eq!(human.code, json.code);
    assert_eq!(human.out, "");
    drop(json.value());
    human
}

#[tokio::test]
async fn the_request_says_what_was_typed() {
    let fake = Fake::new(|_, _| Reply::events(&good()).ended());
    let line = [
        "deploy",
        "--cmd",
        "node app.js",
        "--env",
        "A=1",
        "--env",
        "B=x=y",
        "--env",
        "A=2",
        "--dir",
        "some/dir",
        "--release",
        "v2",
        "--health",
        "/up",
    ];
    assert_eq!(fake.portok(&line).await.code, 0);
    assert_eq!(fake.portok(&["deploy", "--", "./server", "--port", "{port}"]).await.code, 0);
    assert_eq!(fake.portok(&["deploy", "--force", "--strategy", "recreate"]).await.code, 0);
    let received = fake.received();
    assert_eq!(received[2].line, "POST /__deploy?force=1&strategy=recreate");
    assert_eq!(received[0].line, "POST /__deploy");
    assert_eq!(received[0].header("accept"), Some(NDJSON));
    assert_eq!(received[0].header("content-type"), Some("application/json"));
    let directory = std::path::absolute("some/dir").unwrap();
    let expected = json!({
        "command": "node app.js", "env": {"A": "2", "B": "x=y"}, "directory": directory, "release": "v2",
        "healthPath": "/up"
    });
    assert_eq!(serde_json::from_str::<Value>(&received[0].body).unwrap(), expected);
    let expected = json!({"command": ["./server", "--port", "{port}"]});
    assert_eq!(serde_json::from_str::<Value>(&received[1].body).unwrap(), expected);
}

#[tokio::test]
async fn without_a_terminal_each_event_is_one_line() {
    let fake = Fake::new(|_, _| Reply::events(&good()).ended());
    let ran = fake.portok(&["deploy"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "v2 is live on port 41873, was v1 (port 41822)\n"));
    let lines: Vec<_> =
        ran.err.lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest)).collect();
    let expected = [
        "accepted    release `v2`",
        "started     pid 4121, port 41873",
        "           | listening soon",
        "waiting     last probe: connection refused",
    ];
    assert_eq!(lines[..4], expected);
    assert!(lines[4].starts_with("healthy     after "));
    assert_eq!(
        lines[5..],
        ["switched    v1 (port 41822) → v2 (port 41873)", "draining    v1 (port 41822) in the background"]
    );
}

#[tokio::test]
async fn what_most_likely_is_wrong_stands_behind_the_last_probe() {
    let mut events = good();
    let hint = "the app listens on 3000, PORT was 41873: it ignores PORT";
    let mut explained = events[3].clone();
    explained["hint"] = json!(hint);
    events.insert(4, explained);
    let fake = Fake::new(move |_, _| Reply::events(&events).ended());
    let ran = fake.portok(&["deploy"]).await;
    let expected = format!("waiting     last probe: connection refused; {hint}\n");
    assert!(ran.err.contains(&expected), "{}", ran.err);
}

#[tokio::test]
async fn on_a_terminal_the_live_line_is_taken_away_at_the_end() {
    let fake = Fake::new(|_, _| Reply::events(&good()).ended());
    let line = ["--socket", &fake.socket(), "deploy"];
    let ran = run(&line, &around(fake.folder.path()), Terminals::Err, std::future::pending()).await;
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("waiting for health (last probe: connection refused)"), "{:?}", ran.err);
    assert!(ran.err.ends_with("\r\u{1b}[2K"), "{:?}", ran.err);
}

#[tokio::test]
async fn json_is_the_final_result_alone() {
    let fake = Fake::new(|_, _| Reply::events(&good()).ended());
    let ran = fake.portok(&["deploy", "--json"]).await;
    let moved: Moved = serde_json::from_value(ran.value()).unwrap();
    assert_eq!(
        (moved.release.as_str(), moved.outcome, moved.switch.unwrap().to),
        ("v2", Outcome::Live, 41873)
    );
}

#[tokio::test]
async fn an_answer_without_a_stream_is_understood_too() {
    let body =
        json!({"success": true, "message": "m", "release": "v2", "outcome": "live", "switch": switch()});
    let fake = Fake::new(move |_, _| Reply::json(200, &body));
    let ran = fake.portok(&["deploy"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "v2 is live on port 41873, was v1 (port 41822)\n"));
}

#[tokio::test]
async fn an_abort_ends_with_3_and_its_autopsy() {
    let mut body = ErrorBody::new(Code::DeployAborted, "Deploy aborted", "release `v2` exited");
    body.autopsy = Some(crate::wire::Autopsy {
        summary: "it exited before it became healthy".into(),
        exit: Some("exit status 1".into()),
        output: vec!["listening \u{1b}[2Jsoon".into(), "boom".into()],
        ..Default::default()
    });
    let mut events = beginning();
    events.push(told(
        "aborted",
        json!({"message": "deploy of `v2` aborted: it exited before it became healthy"}),
    ));
    events.push(told("finished", json!({"outcome": "aborted", "error": body})));
    let fake = Fake::new(move |_, _| Reply::events(&events).ended());
    let ran = fake.portok(&["deploy"]).await;
    assert_eq!(ran.code, 3);
    // Once: the event says nothing that the error does not say, and what was printed before is not
    // printed again.
    assert_eq!(ran.err.matches("it exited before").count(), 1, "{}", ran.err);
    assert_eq!(ran.err.matches("soon").count(), 1, "{}", ran.err);
    let whole = fake.portok(&["deploy", "--json"]).await.value();
    assert_eq!(whole["autopsy"]["output"].as_array().unwrap().len(), 2);
    let expected = "\
error: deploy of `v2` aborted: it exited before it became healthy
  caused by: exit status 1
  its last output:
    boom
";
    assert!(ran.err.ends_with(expected), "{}", ran.err);
}

#[tokio::test]
async fn the_outcome_decides_the_exit_code() {
    for (outcome, code, word) in
        [("cancelled", 3, "cancelled"), ("rolled_back", 4, "rolled back"), ("interrupted", 3, "interrupted")]
    {
        let ran = failed(told("finished", json!({"outcome": outcome, "message": "because"}))).await;
        assert_eq!(ran.code, code, "{outcome}");
        assert!(ran.err.contains(&format!("error: deploy of `v2` {word}: because\n")), "{}", ran.err);
    }
}

#[tokio::test]
async fn a_refused_deploy_tells_why() {
    let body = ErrorBody::new(Code::Busy, "Busy", "the deploy of `v1` is under way");
    let fake = Fake::new(move |_, _| Reply::json(409, &serde_json::to_value(&body).unwrap()));
    let ran = fake.portok(&["deploy", "--release", "v2"]).await;
    assert_eq!(ran.code, 5);
    assert!(
        ran.err.starts_with("error: deploy of `v2` refused: the deploy of `v1` is under way\n"),
        "{}",
        ran.err
    );
    let hint = format!("hint: `portok --socket {} status` shows what is under way", fake.socket());
    assert!(ran.err.contains(&hint), "{}", ran.err);
}

#[tokio::test]
async fn a_broken_stream_says_that_the_deploy_goes_on() {
    let broken = [Reply::events(&beginning()), Reply::events(&beginning()).ended()];
    for reply in broken {
        let fake = Fake::new(move |_, _| reply.clone());
        let ran = fake.portok(&["deploy"]).await;
        assert_eq!(ran.code, 6);
        assert!(ran.err.contains("error: the report of the deploy of `v2` broke off"), "{}", ran.err);
        let hint = "hint: the deploy goes on as long as the daemon runs; `portok --socket";
        assert!(ran.err.contains(hint), "{}", ran.err);
        assert_eq!(fake.portok(&["deploy", "--json"]).await.value()["code"], "unreachable");
    }
}

#[tokio::test]
async fn a_line_has_a_limit() {
    let line = told("output", json!({"line": "x".repeat(5 * 1024 * 1024)}));
    let fake = Fake::new(move |_, _| Reply::events(std::slice::from_ref(&line)).left_open());
    let ran = fake.portok(&["deploy"]).await;
    assert_eq!(ran.code, 6);
    assert!(ran.err.contains("a line is longer than"), "{}", ran.err);
}

#[tokio::test]
async fn ctrl_c_ends_the_report_and_not_the_deploy() {
    let fake = Fake::new(|_, _| Reply::events(&beginning()).left_open());
    let paper = Paper::default();
    let pressed = async {
        while !paper.text().contains("last probe") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let line = ["--socket", &fake.socket(), "deploy"];
    let ran = run_on(&line, &around(fake.folder.path()), Terminals::None, &paper, pressed).await;
    assert_eq!(ran.code, 130);
    assert!(
        ran.err.contains("error: interrupted: the deploy of `v2` goes on in the daemon\n"),
        "{}",
        ran.err
    );
    let hint = format!("`portok --socket {} cancel` ends it", fake.socket());
    assert!(ran.err.contains(&hint), "{}", ran.err);
    let requests: Vec<_> = fake.received().into_iter().map(|one| one.line).collect();
    assert_eq!(requests, ["POST /__deploy"]);
}

#[tokio::test]
async fn the_watch_window_is_waited_for_across_a_restart_of_the_daemon() {
    let fake = then(|n, _| match n {
        0 => status(Some("v2"), "watching"),
        1 => Reply::nothing(),
        2 => {
            Reply::json(503, &serde_json::to_value(ErrorBody::new(Code::ShuttingDown, "Bye", "bye")).unwrap())
        }
        3 => status(None, "starting"),
        4 => releases("live"),
        5 => status(Some("v2"), "restarting"),
        6 => Reply::with(429, "retry-after: 0\r\n", r#"{"error":"slow down"}"#),
        7 => status(Some("v2"), "watching"),
        _ => status(Some("v2"), "settled"),
    });
    let ran = fake.portok(&["deploy", "--wait-window"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "v2 is live on port 41873, was v1 (port 41822)\n"));
    assert_eq!(fake.received().len(), 10);
    assert!(ran.err.contains("the daemon does not answer, waiting for it"), "{}", ran.err);
}

#[tokio::test]
async fn a_rollback_in_the_window_ends_with_4_and_its_reason() {
    let fake = then(|n, received| match (n, received.line.as_str()) {
        (0, _) => status(Some("v2"), "watching"),
        (_, "GET /__releases") => releases("rolled_back"),
        _ => status(Some("v1"), "settled"),
    });
    let ran = fake.portok(&["deploy", "--wait-window"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    assert!(ran.err.contains("error: `v2` was rolled back: 3 probes failed in a row\n"), "{}", ran.err);
    let fake = then(|_, received| match received.line.as_str() {
        "GET /__releases" => releases("rolled_back"),
        _ => status(Some("v1"), "settled"),
    });
    let ran = fake.portok(&["deploy", "--wait-window", "--json"]).await;
    assert_eq!((ran.code, ran.value()["code"].as_str()), (4, Some("rolled_back")));
    assert_eq!(ran.value()["outcome"], "rolled_back");
}

#[tokio::test]
async fn a_newer_release_ends_the_window_well_and_a_crash_loop_does_not() {
    let fake = then(|_, received| match received.line.as_str() {
        "GET /__releases" => releases("live"),
        _ => status(Some("v3"), "watching"),
    });
    let ran = fake.portok(&["deploy", "--wait-window"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "v2 is not live any more");
    assert!(ran.err.contains("`v2` was replaced by `v3`"), "{}", ran.err);
    let fake = then(|_, _| status(Some("v2"), "failed"));
    assert_eq!(fake.portok(&["deploy", "--wait-window"]).await.code, 1);
    let fake = then(|_, received| match received.line.as_str() {
        "GET /__releases" => releases("live"),
        _ => status(None, "failed"),
    });
    assert_eq!(fake.portok(&["deploy", "--wait-window"]).await.code, 1);
}

#[tokio::test]
async fn a_rollback_is_reported_like_a_deploy() {
    for outcome in ["live", "rolled_back"] {
        let events = [
            told("accepted", json!({})),
            told("rolled_back", json!({"switch": switch()})),
            told("finished", json!({"outcome": outcome, "switch": switch()})),
        ];
        let fake = Fake::new(move |_, _| Reply::events(&events).ended());
        let ran = fake.portok(&["rollback"]).await;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (0, "v2 is live on port 41873, was v1 (port 41822)\n"),
            "{outcome}"
        );
        assert!(ran.err.contains("moved back  v1 (port 41822) → v2 (port 41873)\n"), "{}", ran.err);
        assert_eq!(fake.received()[0].line, "POST /__rollback");
    }
    let fake = Fake::new(|_, _| Reply::events(&beginning()));
    let ran = fake.portok(&["rollback"]).await;
    assert!(ran.err.contains("error: the report of the rollback to `v2` broke off"), "{}", ran.err);
}

#[tokio::test]
async fn a_warning_is_said_before_and_after_and_is_in_the_json() {
    let said = "its file api.toml is not in force";
    let mut events = good();
    events[0]["warning"] = said.into();
    let fake = Fake::new(move |_, received| match received.line.as_str() {
        "POST /__deploy" => Reply::events(&events).ended(),
        _ => Reply::json(202, &json!({"success": true, "message": "m", "release": "v2", "warning": said})),
    });
    let human = fake.portok(&["deploy"]).await;
    let line = format!("warning: {said}\n");
    assert_eq!((human.code, human.err.matches(&line).count()), (0, 2), "{}", human.err);
    let place = |part: &str| human.err.find(part).unwrap_or_else(|| panic!("{part}: {}", human.err));
    assert!(place(&line) < place("started"), "{}", human.err);
    assert_eq!(fake.portok(&["deploy", "--json"]).await.value()["warning"], said);
    let detached = fake.portok(&["deploy", "--detach"]).await;
    assert_eq!((detached.out.as_str(), detached.err), ("m\n", line));
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_and_the_error_comes_last() {
    let mut events = beginning();
    events.extend((0..100).map(|n| told("output", json!({"line": format!("line {n}")}))));
    let error =
        serde_json::to_value(ErrorBody::new(Code::DeployAborted, "Deploy aborted", "no /health")).unwrap();
    events.push(told("finished", json!({"outcome": "aborted", "error": error, "leftOut": 29})));
    let fake = Fake::new(move |_, _| Reply::events(&events).ended());
    let human = fake.portok(&["deploy"]).await;
    let shown: Vec<_> = human.err.lines().filter(|line| line.contains(" | ")).collect();
    assert_eq!(shown.len(), 31, "{}", human.err);
    assert_eq!(shown[30].trim_start(), "| … 100 further lines of output left out: portok logs --release v2");
    let end = human.err.split(shown[30]).nth(1).unwrap_or_default();
    assert!(end.trim_start().starts_with("error: deploy of `v2` aborted: no /health"), "{end}");
}
