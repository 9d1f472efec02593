//! The access log: a line for each request and each tunnel, whoever sent it, whatever becomes of
//! the file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::harness::conf::Conf;
use crate::harness::http::request_bytes;
use crate::harness::load::Load;
use crate::harness::wait::{lines, wait_for_lines};
use crate::harness::{Daemon, World, wait_until};

/// The names of a line's fields, in their order.
const FIELDS: [&str; 23] = [
    "time",
    "client",
    "method",
    "host",
    "path",
    "proto",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "upstream_ms",
    "app",
    "release",
    "replica",
    "port",
    "retried",
    "error",
    "tunnel",
    "user_agent",
    "referer",
    "request_id",
    "trace_id",
    "tier",
];

fn conf(world: &World) -> Conf {
    let file = world.path("access.log").display().to_string();
    world.conf().app(&world.app("v1")).set("access.file", file)
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

/// The lines so far, as JSON.
fn read(file: &Path) -> Vec<Value> {
    let json = |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    lines(file).iter().map(json).collect()
}

/// Waits until the log has so many lines for requests of `path`, and returns these.
fn wait_for(world: &World, path: &str, count: usize) -> Vec<Value> {
    let file = world.path("access.log");
    let of_path = || read(&file).into_iter().filter(|line| line["path"] == path).collect::<Vec<_>>();
    let explain = || format!("{:#?}", read(&file));
    wait_until(&format!("there are {count} lines of {path}"), explain, || {
        Some(of_path()).filter(|found| found.len() >= count)
    })
}

#[test]
fn a_request_and_a_tunnel_get_a_line_each_with_every_field() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let status = daemon.status();
    let sent = [
        ("user-agent", "tests/1"),
        ("referer", "http://app.test/from?secret=1"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    daemon.send("GET", "/plain?token=1", &sent, None).expect(200);
    let line = &wait_for(&world, "/plain", 1)[0];
    let names: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut sorted = FIELDS;
    sorted.sort_unstable();
    assert_eq!(names, sorted);
    for (field, value) in [
        ("client", Value::from("127.0.0.1")),
        ("method", "GET".into()),
        ("host", "app.test".into()),
        ("proto", "HTTP/1.1".into()),
        ("status", 200.into()),
        ("bytes_in", 0.into()),
        ("bytes_out", 3.into()),
        ("app", world.name().into()),
        ("release", status.live.as_ref().unwrap().release.as_str().into()),
        ("replica", 0.into()),
        ("port", status.active_port.into()),
        ("retried", false.into()),
        ("error", Value::Null),
        ("tunnel", false.into()),
        ("user_agent", "tests/1".into()),
        ("referer", "http://app.test/from".into()),
        ("request_id", Value::Null),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ("tier", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field} in {line:#}");
    }
    let (whole, upstream) = (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(whole >= upstream && upstream > 0.0, "{line:#}");

    // The other way through the proxy, with bodies.
    daemon.send("POST", "/post", &[], Some(&[b'x'; 70_000])).expect(200);
    let line = &wait_for(&world, "/post", 1)[0];
    assert_eq!((&line["bytes_in"], &line["method"]), (&70_000.into(), &"POST".into()));
    daemon.get("/large/300000").expect(200);
    assert_eq!(wait_for(&world, "/large/300000", 1)[0]["bytes_out"], 300_000);
    assert_eq!(daemon.send("HEAD", "/large/5", &[], None).status(), 200);
    assert_eq!(wait_for(&world, "/large/5", 1)[0]["bytes_out"], 0);

    // portok's own answers.
    daemon.get("/drop").expect(502);
    let line = &wait_for(&world, "/drop", 1)[0];
    assert_eq!((&line["status"], &line["error"]), (&502.into(), &"upstream_reset".into()));

    // A tunnel.
    let mut tunnel = daemon.connect();
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    tunnel.send(&request_bytes("GET", "/tunnel", &upgrade, None)).unwrap();
    assert_eq!(tunnel.head().unwrap().status, 101);
    tunnel.send(b"hello").unwrap();
    assert_eq!(tunnel.exactly(3 + 5).unwrap(), b"v1\nhello");
    assert_eq!(read(&world.path("access.log")).iter().filter(|line| line["path"] == "/tunnel").count(), 0);
    tunnel.finish_sending().unwrap();
    assert_eq!(tunnel.rest().unwrap(), b"bye\n");
    let line = &wait_for(&world, "/tunnel", 1)[0];
    assert_eq!((&line["status"], &line["tunnel"]), (&101.into(), &true.into()), "{line:#}");
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &12.into()), "{line:#}");
    let mode = fs::metadata(world.path("access.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640, "{mode:o}");
}

#[test]
fn whatever_a_client_sends_it_gets_one_well_formed_line() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let odd: [&[u8]; 5] = [
        b"a\"b\\c\\x22{}[]",
        b"tab\there",
        "\u{e4}\u{202e}\u{2028}".as_bytes(),
        b"\xff\xfe\xc3(",
        &[b'"'; 10 * 1024],
    ];
    for (number, agent) in odd.iter().enumerate() {
        let head = format!("GET /odd HTTP/1.1\r\nhost: app.test\r\nx-number: {number}\r\nuser-agent: ");
        let mut conn = daemon.connect();
        conn.send(&[head.as_bytes(), agent, b"\r\n\r\n"].concat()).unwrap();
        assert_eq!(conn.answer("GET").unwrap().status(), 200);
    }
    let found = wait_for(&world, "/odd", odd.len());
    for (line, agent) in found.iter().zip(odd) {
        let logged = line["user_agent"].as_str().unwrap();
        let sent = String::from_utf8_lossy(agent);
        let expected = logged.strip_suffix("...").filter(|_| agent.len() > 1024).unwrap_or(logged);
        assert!(sent.starts_with(expected) && logged.len() <= 1024, "{line:#}");
    }
    let longest = lines(&world.path("access.log")).iter().map(String::len).max().unwrap();
    assert!(longest < 4096, "{longest}");
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up() {
    let world = World::new();
    let pipe = world.path("access.log");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let daemon = started(&world, &conf(&world));
    let dropped = || daemon.admin("GET", "/__metrics", None).json()["accessDropped"].as_u64().unwrap();
    let mut conn = daemon.connect();
    wait_until(
        "lines are dropped",
        || daemon.log(),
        || {
            for _ in 0..200 {
                conn.request("GET", "/", &[], None).unwrap().expect(200);
            }
            (dropped() > 0).then_some(())
        },
    );
    let text = daemon.admin("GET", "/__metrics?format=prometheus", None).text();
    let counted = text.lines().find_map(|line| line.strip_prefix("portok_access_dropped_total "));
    assert!(counted.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{text}");
    // The daemon's end waits for nobody either.
    daemon.terminate();
}

#[test]
fn a_rotation_under_load_loses_no_line() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let (file, rotated) = (world.path("access.log"), world.path("access.log.1"));
    let load = Load::start(daemon.addr);
    load.wait_for_more(100);
    fs::rename(&file, &rotated).unwrap();
    daemon.signal(Signal::SIGUSR1);
    wait_for_lines("lines in the new file", &file, |lines| lines.len() > 50);
    load.wait_for_more(100);
    load.finish_without_failure();
    let total = daemon.admin("GET", "/__metrics", None).json();
    assert_eq!(total["accessDropped"], 0);
    let total = usize::try_from(total["totalRequests"].as_u64().unwrap()).unwrap();
    let count = || read(&file).len() + read(&rotated).len();
    let explain = || format!("{} lines of {total} requests", count());
    wait_until("there is a line for every request", explain, || (count() == total).then_some(()));
}

#[test]
fn a_share_of_the_requests_gets_a_line_and_every_error_does() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("access.sample", 0).set("access.slow", "10m"));
    let mut conn = daemon.connect();
    for _ in 0..50 {
        conn.request("GET", "/fine", &[], None).unwrap().expect(200);
    }
    daemon.get("/status/500").expect(500);
    daemon.get("/drop").expect(502);
    wait_for(&world, "/drop", 1);
    // Before the app served there were other errors.
    let paths: Vec<_> = read(&world.path("access.log"))
        .iter()
        .map(|line| line["path"].as_str().unwrap().to_owned())
        .collect();
    let paths: Vec<_> = paths.iter().filter(|path| *path != "/").collect();
    assert_eq!(paths, ["/status/500", "/drop"]);
    // What is slow is a matter of the configuration, which is in force at once.
    conf(&world).set("access.sample", 0).set("access.slow", "0s").set("access.query", true).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    daemon.get("/slow?q=1").expect(200);
    wait_for(&world, "/slow?q=1", 1);
}

#[test]
fn the_format_and_the_file_change_while_requests_are_served() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    daemon.get("/one").expect(200);
    wait_for(&world, "/one", 1);
    let other = world.path("other.log");
    let change = |key: &str, value: &str| {
        let mut conf = conf(&world).set("access.file", other.display().to_string());
        conf.put(key, value);
        conf.save();
        daemon.admin("POST", "/__reload", None)
    };
    change("access.format", "combined").expect(200);
    daemon.get("/two?q").expect(200);
    let found = wait_for_lines("a combined line", &other, |lines| !lines.is_empty());
    assert!(
        found[0].starts_with("127.0.0.1 - - [") && found[0].contains("] \"GET /two HTTP/1.1\" 200 3 \"-\""),
        "{found:?}"
    );
    change("access.format", "hipache").expect(200);
    daemon.get("/three").expect(200);
    let found = wait_for_lines("hipache's line", &other, |lines| lines.len() > 1);
    assert!(
        found[1].starts_with("::ffff:127.0.0.1 - - [")
            && found[1].contains("\"GET /three HTTP/1.1\" 200 3 \"\" \"\" \""),
        "{found:?}"
    );
    // A file that cannot be opened refuses the whole edit.
    let refused = change("access.file", &world.path("missing/access.log").display().to_string());
    let body = refused.refused(422, "config_invalid");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("access.file: cannot open ") && message.contains("No such file"), "{message}");
    daemon.get("/four").expect(200);
    wait_for_lines("the former log goes on", &other, |lines| lines.len() > 2);
}

#[test]
fn a_log_that_cannot_be_opened_keeps_the_daemon_from_starting() {
    let world = World::new();
    let file = world.path("missing/access.log").display().to_string();
    let conf = world.conf().app(&world.app("v1")).set("access.file", file.as_str());
    conf.save();
    let said = world.portokd(&["--config", &conf.file().display().to_string()], &world.env()).ended(1);
    let errors = said.err;
    assert!(errors.contains(&format!("cannot open the access log {file}")), "{errors}");
    assert!(errors.contains("access.file names it"), "{errors}");
}
