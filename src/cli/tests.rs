//! Commands against a daemon that answers by script: their requests, exit codes and texts.

use serde_json::{Value, json};

use super::call::{Call, Limits};
use super::client::Client;
use super::failure::Failure;
use super::testing::{Fake, Reply, Terminals, around, run};
use super::way::{Daemon, Way};
use crate::wire::{Code, ErrorBody, NDJSON, TOKEN_HEADER};

fn status() -> Value {
    json!({
        "activePort": 8081, "drainUntil": null, "lastSwitch": null, "instance": "default", "phase": "settled",
        "live": {"release": "v1", "port": 8081, "pid": 7, "startedAt": "2026-01-01T00:00:00.000Z",
                 "restarts": 0, "inflight": 0},
        "candidate": null, "previous": null, "watchUntil": null,
        "config": {"file": null, "loadedAt": "2026-01-01T00:00:00.000Z", "error": null},
        "version": "0.1.0", "listen": "0.0.0.0:3000", "pid": 6, "stateError": null, "lastFailure": null,
        "fromTheFuture": {"a": 1}
    })
}

fn switch() -> Value {
    json!({"from": 8080, "to": 8081, "at": "2026-01-01T00:00:00.000Z", "reason": "manual", "id": "s1"})
}

/// One app in the answer to `GET /__apps`.
fn row(app: &str, phase: &str) -> Value {
    json!({
        "app": app, "hosts": ["*"], "paths": ["/"], "listen": [], "phase": phase, "live": null,
        "replicas": {"ready": 1, "wanted": 1}, "rps": 0.5, "errorRatio": null, "p99Ms": null, "source": "file",
        "error": null
    })
}

/// A fitting answer for every path.
fn answer(line: &str) -> Reply {
    let path = line.split_once("/__").unwrap().1;
    let body = match path.split('?').next().unwrap() {
        "status" => status(),
        "metrics" => json!({
            "startedAt": "2026-01-01T00:00:00.000Z", "inflight": 0, "inflightMax": 3, "totalRequests": 12,
            "totalProxyErrors": 0, "statusCounters": {"2xx": 12}, "rollingRps60": 0.2,
            "health": {"activePortOk": true, "lastCheckedAt": null, "consecutiveFails": 0}, "lastProxyError": null
        }),
        "health" => json!({"healthy": true, "port": 8081, "status": 200, "latencyMs": 0.5, "error": null}),
        "switch" => json!({"success": true, "message": "Switched to port 8081", "switch": switch()}),
        "rollback" => {
            json!({"success": true, "message": "m", "release": "v1", "outcome": "live", "switch": switch()})
        }
        "cancel" | "deploy" => json!({"success": true, "message": "release `v2` it is", "release": "v2"}),
        "releases" => json!([]),
        "apps" => json!([row("api", "settled")]),
        "replicas" | "certs" => json!([]),
        "logs" => json!({"release": null, "lines": []}),
        "reload" => json!({"success": true, "message": "nothing changed", "changed": []}),
        "upgrade" => json!({"success": true, "message": "taken over", "pid": 7, "version": "9.0.0"}),
        other => panic!("{other}"),
    };
    Reply::json(200, &body)
}

#[tokio::test]
async fn each_command_makes_its_one_request() {
    let table: &[(&[&str], &str, &str)] = &[
        (&["status"], "GET /__status", "on 0.0.0.0:3000"),
        (&["metrics"], "GET /__metrics", "requests       12"),
        (&["health"], "GET /__health", "healthy: port 8081 answered 200"),
        (&["switch", "8081"], "POST /__switch?port=8081", "Switched to port 8081, was port 8080\n"),
        (&["switch", "8081", "8082"], "POST /__switch?port=8081&port=8082", "Switched to port 8081\n"),
        (&["reload", "--prune"], "POST /__reload?prune=1", "nothing changed\n"),
        (&["--app", "api", "status"], "GET /__status?app=api", "on 0.0.0.0:3000"),
        (&["--app", "api", "switch", "8081"], "POST /__switch?port=8081&app=api", "Switched to"),
        (&["logs", "--app", "redis:*.x.org"], "GET /__logs?lines=100&app=redis%3A%2A.x.org", ""),
        (&["rollback"], "POST /__rollback", "v1 is live on port 8081, was port 8080\n"),
        (&["cancel"], "POST /__cancel", "release `v2` it is\n"),
        (&["deploy", "--detach"], "POST /__deploy?detach=1", "release `v2` it is\n"),
        (&["releases"], "GET /__releases", "no releases yet\n"),
        (&["ps"], "GET /__replicas", "no processes and no targets\n"),
        (&["certs"], "GET /__certs", "no certificates\n"),
        (&["--app", "api", "ps"], "GET /__replicas?app=api", "no processes"),
        (&["logs"], "GET /__logs?lines=100", ""),
        (
            &["logs", "--replica", "1", "--process", "worker"],
            "GET /__logs?replica=1&process=worker&lines=100",
            "",
        ),
        (&["logs", "-n", "5", "--release", "v.1"], "GET /__logs?release=v.1&lines=5", ""),
        (&["reload"], "POST /__reload", "nothing changed\n"),
        (&["upgrade"], "POST /__upgrade", "taken over\n"),
    ];
    let fake = Fake::new(|_, received| answer(&received.line));
    for (n, (line, request, text)) in table.iter().enumerate() {
        let ran = fake.portok(line).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line:?}");
        assert!(ran.out.contains(text), "{line:?}: {:?}", ran.out);
        let received = fake.received();
        assert_eq!(received.len(), n + 1, "{line:?}");
        assert_eq!(received[n].line, *request);
        let accept = if line.contains(&"rollback") { NDJSON } else { "application/json" };
        assert_eq!(received[n].header("accept"), Some(accept));
        assert_eq!(received[n].header(TOKEN_HEADER), None);
        assert_eq!(received[n].body, if line[0] == "deploy" { "{}" } else { "" });
    }
}

#[tokio::test]
async fn json_is_one_value_with_every_key_of_the_daemon() {
    let fake = Fake::new(|_, received| answer(&received.line));
    for command in
        ["status", "metrics", "health", "rollback", "cancel", "releases", "ps", "logs", "reload", "upgrade"]
    {
        let ran = fake.portok(&[command, "--json"]).await;
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        drop(ran.value());
    }
    assert_eq!(fake.portok(&["--json", "status"]).await.value()["fromTheFuture"]["a"], 1);
}

#[tokio::test]
async fn every_error_code_ends_with_its_exit_code() {
    let table = [
        (Code::Forbidden, 5),
        (Code::RateLimited, 5),
        (Code::Unauthorized, 5),
        (Code::NotFound, 5),
        (Code::BadRequest, 5),
        (Code::Busy, 5),
        (Code::HealthFailed, 1),
        (Code::DeployAborted, 3),
        (Code::NoPrevious, 5),
        (Code::NoApp, 5),
        (Code::ConfigInvalid, 2),
        (Code::StateUnwritable, 5),
        (Code::ShuttingDown, 5),
        (Code::Internal, 1),
    ];
    for (code, exit) in table {
        let body = ErrorBody::new(code, "Short", "what and why").with_hint("do this");
        let body = serde_json::to_value(body).unwrap();
        let fake = Fake::new(move |_, _| Reply::json(code.status(), &body));
        let ran = fake.portok(&["rollback"]).await;
        assert_eq!((ran.code, ran.out.as_str()), (exit, ""), "{code}");
        assert!(
            ran.err.starts_with("error: rollback ") && ran.err.contains(": what and why\n"),
            "{}",
            ran.err
        );
        // Of a token the daemon names the header, and the command line its own options.
        let hint = if code == Code::Unauthorized { "give the token with --token" } else { "do this\n" };
        assert!(ran.err.contains(&format!("hint: {hint}")), "{}", ran.err);
        let ran = fake.portok(&["rollback", "--json"]).await;
        assert_eq!((ran.code, ran.err.as_str()), (exit, ""));
        assert_eq!(ran.value()["code"], code.as_str());
    }
}

#[tokio::test]
async fn an_error_without_a_code_is_understood_by_its_status() {
    let body =
        json!({"error": "Health check failed", "message": "Port 8081 did not respond with 2xx at /health"});
    let fake = Fake::new(move |_, _| Reply::json(409, &body));
    let ran = fake.portok(&["switch", "8081"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err, "error: switch to port 8081 failed: Port 8081 did not respond with 2xx at /health\n");
    let fake = Fake::new(|_, _| Reply::json(401, &json!({"error": "Unauthorized"})));
    let ran = fake.portok(&["status"]).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("hint: give the token with --token or PORTOK_TOKEN"), "{}", ran.err);
    let fake = Fake::new(|_, _| Reply::with(429, "retry-after: 7\r\n", r#"{"error":"Too many"}"#));
    assert!(fake.portok(&["status"]).await.err.contains("hint: try again in 7s"));
}

#[tokio::test]
async fn health_tells_the_verdict_by_its_exit_code() {
    let sick = json!({"healthy": false, "port": 8081, "status": 500, "latencyMs": 1.0, "error": null});
    let fake = Fake::new(move |_, _| Reply::json(503, &sick));
    let ran = fake.portok(&["health"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, "unhealthy: port 8081 answered 500 in 1.0 ms\n"));
    assert_eq!(fake.portok(&["health", "--json"]).await.value()["healthy"], false);
    let body = serde_json::to_value(ErrorBody::new(Code::ShuttingDown, "Going down", "bye")).unwrap();
    let fake = Fake::new(move |_, _| Reply::json(503, &body));
    assert_eq!(fake.portok(&["health"]).await.code, 5);
}

#[tokio::test]
async fn prometheus_text_goes_through_as_it_is() {
    let text = "# HELP portok_x \x1b[1m\nportok_x 1";
    let fake = Fake::new(move |_, _| Reply::with(200, "content-type: text/plain\r\n", text));
    let ran = fake.portok(&["metrics", "--prometheus"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, text));
    let received = &fake.received()[0];
    assert_eq!(received.line, "GET /__metrics?format=prometheus");
    assert_eq!(received.header("accept"), Some("text/plain"));
}

#[tokio::test]
async fn the_token_goes_over_tcp_alone() {
    let fake = Fake::new(|_, received| answer(&received.line));
    let surroundings = around(fake.folder.path());
    let url = fake.url();
    for line in [
        &["--url", &url, "--token", "s3cret", "status"][..],
        &["--socket", &fake.socket(), "--token", "s3cret", "status"],
        &["--token", "s3cret", "status"],
    ] {
        assert_eq!(run(line, &surroundings, Terminals::None, std::future::pending()).await.code, 0);
    }
    let tokens: Vec<_> =
        fake.received().iter().map(|one| one.header(TOKEN_HEADER).map(str::to_owned)).collect();
    assert_eq!(tokens, [Some("s3cret".to_owned()), None, None]);
    assert_eq!(fake.received()[0].header("host"), Some(url.trim_start_matches("http://")));
}

#[tokio::test]
async fn an_instance_is_reached_over_tcp_when_its_socket_is_gone() {
    let fake = Fake::new(|_, received| answer(&received.line.replace("/_adm/", "/__")));
    let folder = fake.folder.path();
    std::fs::write(folder.join("api.token"), "from-file\n").unwrap();
    let file = format!(
        "listen = \"0.0.0.0:{}\"\n[admin]\nsocket = \"{}\"\ntoken_file = \"api.token\"\nprefix = \"/_adm/\"\n",
        fake.port,
        folder.join("gone.sock").display()
    );
    std::fs::write(folder.join("api.toml"), file).unwrap();
    let ran = run(&["status", "api"], &around(folder), Terminals::None, std::future::pending()).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(fake.received()[0].line, "GET /_adm/status");
    assert_eq!(fake.received()[0].header(TOKEN_HEADER), Some("from-file"));
}

#[tokio::test]
async fn an_unreachable_daemon_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api/admin.sock");
    let ran = |line: &'static [&'static str]| {
        let surroundings = around(folder.path());
        async move { run(line, &surroundings, Terminals::None, std::future::pending()).await }
    };
    let human = ran(&["status", "api"]).await;
    assert_eq!((human.code, human.out.as_str()), (6, ""));
    let cause = format!("  caused by: {}: no such file or directory\n", socket.display());
    assert!(
        human.err.starts_with("error: status failed: the daemon of `api` cannot be reached\n"),
        "{}",
        human.err
    );
    assert!(human.err.contains(&cause), "{}", human.err);
    assert!(human.err.contains("hint: there is no api.toml or api.env in"), "{}", human.err);
    let json = ran(&["status", "api", "--json"]).await;
    assert_eq!((json.code, json.err.as_str()), (6, ""));
    assert_eq!(json.value()["code"], "unreachable");
}

#[tokio::test]
async fn what_is_no_portokd_is_not_believed() {
    let fake = Fake::new(|_, _| Reply::with(404, "content-type: text/html\r\n", "<h1>Not found</h1>"));
    let ran = fake.portok(&["status"]).await;
    assert_eq!(ran.code, 6);
    assert!(ran.err.contains("what answered is not portokd"), "{}", ran.err);
    let fake = Fake::new(|_, _| Reply::with(200, "", r#"{"hello":"world"}"#));
    assert_eq!(fake.portok(&["status"]).await.code, 6);
}

#[tokio::test]
async fn a_connection_without_an_answer_leaves_the_outcome_open() {
    let fake = Fake::new(|_, _| Reply::nothing());
    let ran = fake.portok(&["rollback"]).await;
    assert_eq!(ran.code, 6);
    assert!(ran.err.contains("hint: it may have been done"), "{}", ran.err);
    assert_eq!(fake.received().len(), 1, "a request is never made twice");
}

#[tokio::test]
async fn an_answer_has_a_limit() {
    let fake = Fake::new(|_, _| Reply::with(200, "", &format!("\"{}\"", "x".repeat(100))));
    let daemon = Daemon {
        ways: vec![Way::Socket(fake.socket().into())],
        prefix: "/__".into(),
        instance: None,
        advice: String::new(),
        broken_file: None,
    };
    for (answer, fits) in [(102, true), (101, false)] {
        let client = Client::new(daemon.clone(), Limits { answer, line: 10 });
        let result = client.ask::<String>(Call::get("status", "status")).await;
        match result {
            Ok((text, _)) => assert!(fits && text.len() == 100),
            Err(Failure::Foreign { cause, .. }) => {
                assert_eq!((fits, cause.as_str()), (false, "the answer is longer than 101 bytes"));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_code_2_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    let surroundings = around(folder.path());
    for line in [&["stauts"][..], &["switch", "x"], &["logs", "-f", "--json"], &[], &["status", "a b"]] {
        let ran = run(line, &surroundings, Terminals::None, std::future::pending()).await;
        assert_eq!(ran.code, 2, "{line:?}");
        if line.contains(&"--json") {
            assert_eq!((ran.value()["code"].as_str(), ran.err.as_str()), (Some("usage"), ""));
        } else {
            assert!(ran.out.is_empty() && !ran.err.is_empty(), "{line:?}");
        }
    }
    let ran = run(&["--json", "switch", "x"], &surroundings, Terminals::None, std::future::pending()).await;
    assert_eq!((ran.code, ran.value()["code"].as_str()), (2, Some("usage")));
    let ran = run(&["--version"], &surroundings, Terminals::None, std::future::pending()).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, concat!("portok ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[tokio::test]
async fn logs_are_followed_until_the_daemon_refuses() {
    let lines = |range: std::ops::Range<u32>| {
        let line = |n| json!({"at": "2026-01-01T00:00:00.000Z", "release": "v1", "stream": "stdout", "line": format!("l{n}")});
        Reply::json(200, &json!({"release": null, "lines": range.map(line).collect::<Vec<_>>()}))
    };
    let fake = Fake::new(move |n, _| match n {
        0 => lines(0..5),
        1 => lines(0..5),
        2 => lines(0..7),
        3 => Reply::nothing(),
        4 => lines(2..8),
        5 => lines(20..21),
        _ => Reply::json(404, &serde_json::to_value(ErrorBody::new(Code::NotFound, "Gone", "gone")).unwrap()),
    });
    let ran = fake.portok(&["logs", "-f", "-n", "2"]).await;
    assert_eq!(ran.code, 5);
    let shown: Vec<_> = ran.out.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(shown, ["l3", "l4", "l5", "l6", "l7", "l20"]);
    assert!(ran.err.contains("(lines may be missing here)"));
    assert_eq!(fake.received()[0].line, "GET /__logs?lines=1000");
}

#[tokio::test]
async fn a_broken_file_does_not_lock_the_operator_out() {
    let fake = Fake::new(|_, received| answer(&received.line));
    std::fs::write(fake.folder.path().join("default.toml"), "listen = [\n").unwrap();
    let mut surroundings = around(fake.folder.path());
    let socket = std::path::PathBuf::from(fake.socket());
    surroundings.sockets = Box::new(move || vec![socket.clone()]);
    let portok =
        async |line: &[&str]| run(line, &surroundings, Terminals::None, std::future::pending()).await;
    for command in ["status", "rollback", "logs", "cancel", "reload", "releases"] {
        let ran = portok(&["--instance", "default", command]).await;
        assert_eq!(ran.code, 0, "{command}: {ran:?}");
        let notes = ran.err.matches(": not valid TOML").count();
        assert_eq!(notes, 1, "{command}: {}", ran.err);
    }
    let ran = portok(&["--json", "list"]).await;
    let rows = ran.value();
    assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    assert_eq!((&rows[0]["phase"], &rows[0]["name"]), (&json!("settled"), &json!("default")), "{rows}");
    assert!(rows[0]["errors"][0].as_str().unwrap().contains("default.toml"), "{rows}");
}

#[tokio::test]
async fn apps_are_shown_with_what_the_daemon_says_of_itself() {
    let fake = Fake::new(|_, received| answer(&received.line));
    assert!(fake.portok(&["apps"]).await.out.contains("settled"));
    let asked: Vec<_> = fake.received().into_iter().map(|received| received.line).collect();
    assert_eq!(asked, ["GET /__apps", "GET /__metrics"]);
}

/// A daemon of several apps, whose phases come one after another, the last one for ever.
fn several(phases: &'static [&'static str]) -> Fake {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Fake::new(move |_, received| match received.line.as_str() {
        "GET /__apps" => {
            let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let phase = phases[n.min(phases.len() - 1)];
            Reply::json(200, &json!([row("api", "settled"), row("web", phase)]))
        }
        line if line.contains("app=") => answer(line),
        _ => {
            let message = "there are several apps, and the request names none: api, web";
            let body = ErrorBody::new(Code::AppRequired, "App required", message);
            Reply::json(400, &serde_json::to_value(body).unwrap())
        }
    })
}

#[tokio::test]
async fn several_apps_are_shown_in_short_until_one_is_named() {
    let fake = several(&["failed"]);
    let ran = fake.portok(&["status"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("\nweb  *    failed"), "{}", ran.out);
    assert!(ran.out.contains("--app api"), "{}", ran.out);
    assert_eq!(fake.portok(&["status", "--json"]).await.value()[1]["phase"], "failed");
    assert!(fake.portok(&["status", "--app", "api"]).await.out.contains("on 0.0.0.0:3000"));
    for line in
        [&["deploy"][..], &["rollback"], &["cancel"], &["releases"], &["logs"], &["health"], &["switch", "1"]]
    {
        let ran = fake.portok(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (5, ""), "{line:?}");
        assert!(ran.err.contains("names none: api, web\nhint: name one of them: --app NAME"), "{}", ran.err);
    }
}

#[tokio::test]
async fn an_instance_of_several_apps_may_have_none() {
    let fake = Fake::new(|_, received| match received.line.as_str() {
        "GET /__apps" => Reply::json(200, &json!([])),
        _ => {
            let mut status = status();
            (status["phase"], status["live"]) = (json!("empty"), Value::Null);
            Reply::json(200, &status)
        }
    });
    let ran = fake.portok(&["status"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("no apps yet"), "{}", ran.out);
    assert_eq!(fake.portok(&["status", "--json"]).await.value(), json!([]));
    let mut surroundings = around(fake.folder.path());
    let socket = std::path::PathBuf::from(fake.socket());
    surroundings.sockets = Box::new(move || vec![socket.clone()]);
    let listed =
        run(&["--json", "list"], &surroundings, Terminals::None, std::future::pending()).await.value();
    assert_eq!((&listed[0]["apps"], &listed[0]["daemonPid"]), (&json!([]), &json!(6)), "{listed}");
}

#[tokio::test]
async fn a_status_waits_until_all_are_healthy_or_the_time_is_over() {
    let fake = several(&["starting", "starting", "watching"]);
    let ran = fake.portok(&["status", "--wait", "1m"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.contains("watching"), "{}", ran.out);
    let fake = several(&["failed"]);
    let ran = fake.portok(&["status", "--wait", "50ms", "--json"]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.value()[1]["phase"], "failed");
    assert_eq!(ran.err, "error: not healthy after 50ms: web (failed)\n");
    let fake = Fake::new(|n, received| if n == 0 { Reply::nothing() } else { answer(&received.line) });
    assert_eq!(fake.portok(&["status", "--wait", "1m"]).await.code, 0, "a daemon that is not there yet");
    let refusal = |code| serde_json::to_value(ErrorBody::new(code, "Short", "no")).unwrap();
    let forbidden = refusal(Code::Forbidden);
    let fake = Fake::new(move |_, _| Reply::json(403, &forbidden));
    assert_eq!(fake.portok(&["status", "--wait", "1m"]).await.code, 5);
    let unknown = refusal(Code::NoSuchApp);
    let fake =
        Fake::new(move |n, received| if n < 2 { Reply::json(404, &unknown) } else { answer(&received.line) });
    assert_eq!(fake.portok(&["status", "--app", "api", "--wait", "1m"]).await.code, 0, "an app to come");
    let unknown = refusal(Code::NoSuchApp);
    let fake = Fake::new(move |_, _| Reply::json(404, &unknown));
    assert_eq!(fake.portok(&["status", "--app", "api", "--wait", "50ms"]).await.code, 5);
}

#[tokio::test]
async fn a_reload_that_leaves_something_out_of_force_is_a_failure() {
    let refused = json!({
        "success": false, "message": "configuration loaded, but not all of it is in force", "changed": [],
        "apps": [{"app": "shop", "change": "refused", "why": "shop.toml:1:1 no"}]
    });
    let fake = Fake::new(move |_, _| Reply::json(200, &refused));
    let ran = fake.portok(&["reload"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    assert!(ran.out.ends_with("  refused  shop: shop.toml:1:1 no\n"), "{}", ran.out);
    assert_eq!(fake.portok(&["reload", "--json"]).await.value()["apps"][0]["app"], "shop");
}

#[tokio::test]
async fn an_address_without_admin_paths_is_told_from_a_path_that_is_not_there() {
    let fake = Fake::new(|_, _| Reply::json(404, &json!({"error": "Not Found", "code": "no_route"})));
    let url = fake.url();
    let surroundings = around(fake.folder.path());
    let ran = run(&["--url", &url, "apps"], &surroundings, Terminals::None, std::future::pending()).await;
    assert_eq!(ran.code, 5);
    assert!(ran.err.contains("admin.public") && ran.err.contains("--socket PATH"), "{}", ran.err);
}
