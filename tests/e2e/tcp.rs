//! Apps whose clients bring connections, not requests (`mode = "tcp"`): at addresses of their own,
//! and by the name that a client asks for in TLS.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::http::request_bytes;
use crate::harness::tls::{Authority, Pair, serve};
use crate::harness::wait::{lines, wait_for_lines};
use crate::harness::{Conn, Daemon, World, assert_at, live, wait_until};
use crate::listeners::free;

/// One app of connections that says its version first.
fn app(world: &World, version: &str) -> App {
    world.app(version).flag("banner")
}

fn conf(world: &World) -> Conf {
    world.conf().app(&app(world, "v1")).set("app.mode", "tcp").set("rollback.window", "0s")
}

/// A connection to the app of this version, which has said so; `None`: there is none.
fn greeted_at(addr: SocketAddr) -> Option<(Conn, String)> {
    let mut conn = Conn::tcp(addr).ok()?;
    let version = conn.line().ok()?;
    Some((conn, version))
}

/// Waits until `version` answers there, and returns the connection on which it does.
#[track_caller]
fn wait_for(daemon: &Daemon<'_>, addr: SocketAddr, version: &str) -> Conn {
    let explain = || daemon.log();
    wait_until(&format!("{version} answers at {addr}"), explain, || {
        greeted_at(addr).filter(|(_, said)| said == version).map(|(conn, _)| conn)
    })
}

/// Says something, and hears it again.
#[track_caller]
fn echo(conn: &mut Conn, bytes: &[u8]) {
    conn.send(bytes).unwrap();
    assert_eq!(conn.exactly(bytes.len()).unwrap(), bytes);
}

#[track_caller]
fn wait_until_under_way(daemon: &Daemon<'_>, count: u64) {
    let inflight = || daemon.admin("GET", "/__metrics", None).expect(200).json()["inflight"].clone();
    let explain = || format!("{}\n{}", inflight(), daemon.log());
    wait_until(&format!("{count} are under way"), explain, || (inflight() == count).then_some(()));
}

#[test]
fn bytes_of_any_kind_pass_both_ways_and_each_side_may_end_first() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    let mut conn = wait_for(&daemon, daemon.addr, "v1");
    let every: Vec<u8> = (0..=255).cycle().take(200_000).collect();
    echo(&mut conn, b"\0");
    std::thread::scope(|scope| {
        let mut reader = Conn::tcp(daemon.addr).unwrap();
        assert_eq!(reader.line().unwrap(), "v1");
        scope.spawn(|| echo(&mut conn, b"GET / HTTP/1.1\r\n\r\n"));
        reader.send(&every).unwrap();
        assert_eq!(reader.exactly(every.len()).unwrap(), every);
        // The app answers the end of what it is told by its own.
        reader.send(b"last").unwrap();
        reader.finish_sending().unwrap();
        assert_eq!(reader.rest().unwrap(), b"last");
    });
    // Whoever has nothing to say may have all to hear.
    let mut listener = Conn::tcp(daemon.addr).unwrap();
    listener.finish_sending().unwrap();
    assert_eq!(listener.rest().unwrap(), b"v1\n");
    // One that breaks off is not taken for one that has ended.
    let stream = std::net::TcpStream::connect(daemon.addr).unwrap();
    let mut breaks = Conn::from_tcp(stream.try_clone().unwrap()).unwrap();
    assert_eq!(breaks.line().unwrap(), "v1");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop((breaks, stream));
    assert_eq!(app(&world, "v1").wait_for(1, "broke "), "ConnectionReset");
    drop(conn);
    wait_until_under_way(&daemon, 0);
}

#[test]
fn a_deploy_moves_new_connections_and_those_that_are_there_have_the_time_of_tunnels() {
    let world = World::new();
    let mut daemon = world.start(&conf(&world).set("drain.period", "100ms").set("drain.tunnels", "1h"));
    let mut former = wait_for(&daemon, daemon.addr, "v1");
    let release = live(&daemon.status()).unwrap().to_owned();
    daemon.deploy(&app(&world, "v2")).expect(200);
    let (mut next, said) = greeted_at(daemon.addr).unwrap();
    assert_eq!(said, "v2", "a connection after the switch");
    echo(&mut former, b"still here");
    echo(&mut next, b"here");
    let drains = daemon.portok(&["--json", "drain"]).ended(0).json();
    assert_at(&drains, "/tunnels/0/release", &*release);
    assert_at(&drains, "/tunnels/0/kind", "tunnel");
    assert_at(&drains, "/tunnels/0/bytes", 2 * "still here".len() + "v1\n".len());
    daemon.upgrade();
    let until = daemon.portok(&["--json", "drain"]).ended(0).json()["until"].clone();
    let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_secs(1800)).to_string();
    assert!(until.as_str().unwrap() > &*soon, "another daemon gives them the same time: {until}");
    daemon.portok(&["drain", "--now"]).ended(0);
    daemon.wait_until_stopped(&release);
    assert_eq!(former.rest().unwrap_or_default(), b"", "it is cut");
    echo(&mut next, b"goes on");
}

#[test]
fn a_release_that_crashes_in_its_window_gives_the_connections_back() {
    let world = World::new();
    let daemon = world.start(&conf(&world).set("rollback.window", "1h").set("rollback.standby", "window"));
    let _first = wait_for(&daemon, daemon.addr, "v1");
    let fails = app(&world, "v2").with("exit_file", world.path("fail").display());
    daemon.deploy(&fails).expect(200);
    assert_eq!(greeted_at(daemon.addr).unwrap().1, "v2");
    world.touch("fail");
    wait_for(&daemon, daemon.addr, "v1");
    assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("rolled_back"));
}

#[test]
fn a_set_shares_the_connections_and_a_member_that_is_gone_loses_none_that_come() {
    let world = World::new();
    let daemon = world.start(&conf(&world).set("app.replicas", 3).set("proxy.threads", 1));
    daemon.wait_until("three are ready", |status| {
        status.replicas.is_some_and(|all| (all.ready, all.wanted) == (3, 3))
    });
    let conns: Vec<_> = (0..6).map(|_| wait_for(&daemon, daemon.addr, "v1")).collect();
    let inflight = || {
        let rows = daemon.admin("GET", "/__replicas", None).expect(200).json();
        rows.as_array().unwrap().iter().map(|row| row["inflight"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    let explain = || format!("{:?}", inflight());
    wait_until("each has two", explain, || (inflight() == [2, 2, 2]).then_some(()));
    drop(conns);
    let pids = app(&world, "v1").pids();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pids[0].cast_signed()), nix::sys::signal::SIGKILL)
        .unwrap();
    for _ in 0..30 {
        let (_, said) = greeted_at(daemon.addr).expect("every connection finds a member");
        assert_eq!(said, "v1");
    }
}

#[test]
fn the_number_of_processes_follows_the_connections() {
    let world = World::new();
    let conf =
        conf(&world).set("app.replicas.min", 1).set("app.replicas.max", 2).set("app.replicas.busy_at", 2);
    let daemon = world.start(&conf);
    let _conns: Vec<_> = (0..3).map(|_| wait_for(&daemon, daemon.addr, "v1")).collect();
    daemon.wait_until("a second one is ready", |status| status.replicas.is_some_and(|all| all.ready == 2));
}

#[test]
fn connections_wait_while_the_app_is_paused_and_one_that_leaves_is_forgotten() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    drop(wait_for(&daemon, daemon.addr, "v1"));
    daemon.portok(&["pause", "--for", "10m"]).ended(0);
    let mut held = daemon.connect();
    let leaves = daemon.connect();
    wait_until_under_way(&daemon, 2);
    drop(leaves);
    wait_until_under_way(&daemon, 1);
    // What it says meanwhile waits with it.
    held.send(b"early").unwrap();
    daemon.portok(&["resume"]).ended(0);
    assert_eq!(held.line().unwrap(), "v1");
    assert_eq!(held.exactly(5).unwrap(), b"early");
    daemon.portok(&["maintenance", "on"]).ended(0);
    assert!(greeted_at(daemon.addr).is_none(), "closed without a word");
    daemon.portok(&["maintenance", "off"]).ended(0);
    drop(wait_for(&daemon, daemon.addr, "v1"));
}

#[test]
fn limits_hold_for_connections_and_the_log_has_a_line_for_each() {
    let world = World::new();
    let file = world.path("access.log");
    let conf = conf(&world)
        .set("limits.requests_per_address", 2)
        .set("proxy.trusted", toml::Value::Array(Vec::new()))
        .set("access.file", file.display().to_string());
    let daemon = world.start(&conf);
    let mut first = wait_for(&daemon, daemon.addr, "v1");
    let second = wait_for(&daemon, daemon.addr, "v1");
    assert!(greeted_at(daemon.addr).is_none(), "a third one at a time is closed");
    echo(&mut first, b"12345");
    drop((first, second));
    let of = |status: u16| {
        let json = |line: &String| serde_json::from_str::<Value>(line).unwrap();
        lines(&file).iter().map(json).filter(|line| line["status"] == status).collect::<Vec<_>>()
    };
    wait_for_lines("a line of each", &file, |_| of(200).len() >= 2 && !of(429).is_empty());
    let refused = &of(429)[0];
    assert_at(refused, "/error", "too_many_at_once");
    assert_at(refused, "/proto", "tcp");
    let served = of(200);
    let served = served.iter().find(|line| line["bytes_in"] == 5).unwrap();
    assert_at(served, "/tunnel", true);
    assert_at(served, "/bytes_out", 8);
    assert_at(served, "/method", Value::Null);
    drop(wait_for(&daemon, daemon.addr, "v1"));
}

#[test]
fn what_passes_no_byte_for_long_is_cut_and_an_upgrade_cuts_nothing() {
    let world = World::new();
    let mut daemon = world.start(&conf(&world).set("limits.tunnel_idle", "1h"));
    let mut conn = wait_for(&daemon, daemon.addr, "v1");
    daemon.upgrade();
    echo(&mut conn, b"over an upgrade");
    let conf = conf(&world).set("limits.tunnel_idle", "1ms");
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    // What the former daemon carries has the limits that it had.
    echo(&mut conn, b"as before");
    let (mut cut, _) = greeted_at(daemon.addr).unwrap();
    assert_eq!(cut.rest().unwrap_or_default(), b"");
    drop(conn);
}

#[test]
fn the_app_is_told_whose_connection_it_is_and_a_probe_is_nobodys() {
    let world = World::new();
    for (mode, banner) in [("tcp", true), ("http", false)] {
        let name = format!("told-{mode}");
        let app = world.app(&name).flag("told");
        let app = if banner { app.flag("banner") } else { app };
        let conf = world
            .conf()
            .app(&app)
            .set("app.mode", mode)
            .set("upstream.proxy_protocol", "v2")
            .set("rollback.interval", "1h");
        let daemon = world.start(&conf);
        app.wait_for(1, "told nobody");
        for number in 1..=2 {
            let stream = wait_until(
                "the app answers",
                || daemon.log(),
                || {
                    let stream = std::net::TcpStream::connect(daemon.addr).ok()?;
                    let own = stream.local_addr().unwrap();
                    let mut conn = Conn::from_tcp(stream).ok()?;
                    match banner {
                        true => conn.line().ok()?,
                        false => {
                            // A kept connection of the client is another one of the app's each time.
                            for _ in 0..number {
                                conn.request("GET", "/", &[], None).ok().filter(|it| it.status() == 200)?;
                            }
                            String::new()
                        }
                    };
                    Some(own)
                },
            );
            app.wait_for(1, &format!("told {stream} {}", daemon.addr));
        }
        assert_eq!(app.count("told something else"), 0, "{:#?}", app.journal());
        daemon.terminate();
    }
}

#[test]
fn what_a_balancer_tells_goes_on_to_the_app() {
    let world = World::new();
    let app = world.app("v1").flag("told");
    let conf = world.conf().app(&app).set("proxy.proxy_protocol", "any").set("upstream.proxy_protocol", "v2");
    let conf = conf.set("limits.requests_per_address", 1);
    let mut daemon = world.start(&conf);
    app.wait_for(1, "told nobody");
    let addr = daemon.addr;
    let as_told = |header: &[u8]| {
        let mut conn = Conn::tcp(addr).unwrap();
        conn.send(header).unwrap();
        conn.request("GET", "/", &[("x-echo", "1")], None).ok()
    };
    let explain = || daemon.log();
    wait_until("the app answers", explain, || {
        as_told(b"PROXY UNKNOWN\r\n").filter(|answer| answer.status() == 200)
    });
    let first = as_told(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n").unwrap();
    assert!(first.text().contains("x-forwarded-for: 192.0.2.7\r\n"), "{}", first.text());
    let second =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[198, 51, 100, 9, 10, 0, 0, 1, 0x12, 0x68, 0, 80]];
    as_told(&second.concat()).unwrap().expect(200);
    app.wait_for(1, &format!("told 192.0.2.7:4711 {addr}"));
    app.wait_for(1, &format!("told 198.51.100.9:4712 {addr}"));
    // A limit of clients is theirs, though the balancer itself is trusted.
    let asks = |client: &str, path: &str| {
        let mut conn = Conn::tcp(addr).unwrap();
        let header = format!("PROXY TCP4 {client} 10.0.0.1 1 80\r\n");
        conn.send(&[header.as_bytes(), &request_bytes("GET", path, &[], None)].concat()).unwrap();
        conn
    };
    let mut holds = asks("192.0.2.9", &format!("/hold?file={}", world.path("go").display()));
    app.wait_for(1, "hold begin");
    asks("192.0.2.9", "/").answer("GET").unwrap().expect(429);
    asks("192.0.2.10", "/").answer("GET").unwrap().expect(200);
    world.touch("go");
    holds.answer("GET").unwrap().expect(200);
    // Nothing is lost that has come, but says later who it is.
    let mut late = Conn::tcp(addr).unwrap();
    daemon.upgrade();
    late.send(b"PROXY TCP4 192.0.2.8 10.0.0.1 1 80\r\n").unwrap();
    late.request("GET", "/", &[], None).unwrap().expect(200);
    for wrong in [&b""[..], b"PROXY TCP4 1.2.3.4 x 1 2\r\n", b"PROXY TCP4 1.2.3.4"] {
        assert!(as_told(wrong).is_none(), "{wrong:?} is cut");
    }
}

/// Says who it is over TLS on every connection, and then everything again that it is told.
fn serve_tls(pair: &Pair, version: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    serve(listener, pair, move |conn| {
        let mut said = conn.send(format!("{version}\n").as_bytes());
        // An error means that the client is gone, or was a probe.
        while said.is_ok() {
            said = conn.exactly(1).and_then(|bytes| conn.send(&bytes));
        }
    });
    addr
}

#[test]
fn the_name_in_tls_chooses_who_decrypts_it() {
    let world = World::new();
    let authority = Authority::new();
    let [encrypted, own] = free();
    let certs = world.path("certs");
    std::fs::create_dir_all(&certs).unwrap();
    authority.issue(&["web.test", "exact.apps.test"]).put(&certs, "web");
    let theirs = serve_tls(&authority.issue(&["db.test", "*.apps.test"]), "theirs");
    let conf = Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("state_file", world.state_file().display().to_string())
        .set("admin.socket", world.socket().display().to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", certs.display().to_string())
        .set("apps.web.hosts", vec!["web.test", "exact.apps.test"])
        .set("apps.web.command", world.app("web").command())
        .set("apps.db.mode", "tcp")
        .set("apps.db.tls", "passthrough")
        .set("apps.db.hosts", vec!["db.test", "*.apps.test"])
        .set("apps.db.listen", own.to_string())
        .set("apps.db.targets", vec![theirs.to_string()]);
    let daemon = world.start(&conf);
    let terms = authority.terms();
    for host in ["web.test", "exact.apps.test"] {
        let explain = || daemon.log();
        wait_until(&format!("{host} is portok's own"), explain, || {
            let mut conn = terms.connect(encrypted, host).ok()?;
            let answer = conn.request("GET", "/", &[("host", host)], None).ok()?;
            (answer.status() == 200 && answer.version() == "web").then_some(())
        });
    }
    for host in ["db.test", "a.apps.test"] {
        let mut conn = terms.connect(encrypted, host).unwrap();
        assert_eq!(conn.line().unwrap(), "theirs", "{host}");
        echo(&mut conn, b"through");
    }
    // At an address of its own every connection is the app's.
    assert_eq!(terms.connect(own, "db.test").unwrap().line().unwrap(), "theirs");
    assert!(terms.refused(encrypted, "unknown.test").contains("UnrecognisedName"));
    // Whoever speaks no TLS is told so, and holds nobody up.
    let mut other = Conn::tcp(encrypted).unwrap();
    other.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(other.rest().unwrap()[..1], [21], "an alert");
    // A plain request for a host of the app finds nobody.
    daemon.send("GET", "/", &[("host", "db.test")], None).expect(404);
    let rows = daemon.admin("GET", "/__apps", None).expect(200).json();
    let row = rows.as_array().unwrap().iter().find(|row| row["app"] == "db").unwrap();
    assert_at(row, "/hosts/0", "db.test");
}

#[test]
fn a_hello_in_pieces_is_heard_whole_and_one_that_does_not_end_is_cut() {
    let world = World::new();
    let authority = Authority::new();
    let [encrypted] = free();
    let theirs = serve_tls(&authority.issue(&["db.test"]), "theirs");
    let conf = Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("state_file", world.state_file().display().to_string())
        .set("admin.socket", world.socket().display().to_string())
        .set("proxy.header_timeout", "2s")
        .set("proxy.idle_timeout", "1s")
        .set("tls.listen", encrypted.to_string())
        .set("apps.db.mode", "tcp")
        .set("apps.db.tls", "passthrough")
        .set("apps.db.hosts", vec!["db.test"])
        .set("apps.db.targets", vec![theirs.to_string()]);
    let daemon = world.start(&conf);
    let terms = authority.terms();
    let explain = || daemon.log();
    wait_until("the app answers", explain, || terms.connect(encrypted, "db.test").ok()?.line().ok());
    let hello = terms.hello("db.test");
    let mut slow = terms.connect_in_pieces(encrypted, "db.test").unwrap();
    assert_eq!(slow.line().unwrap(), "theirs");
    let mut silent = Conn::tcp(encrypted).unwrap();
    silent.send(&hello[..hello.len() / 2]).unwrap();
    assert_eq!(silent.rest().unwrap_or_default(), b"");
}
