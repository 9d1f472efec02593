//! Apps whose lists are in Redis, with a real `redis-server`.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use portok::wire::TargetState;
use redis::{Connection, RedisResult};
use serde_json::Value;

use self::server::Server;
use super::{apps, edge, get, names, put, reload, status, take_away, wait_for};
use crate::harness::app::Unmanaged;
use crate::harness::conf::Conf;
use crate::harness::wait::pause;
use crate::harness::{Conn, Daemon, Load, World, assert_mentions, wait_until};

#[path = "../../../src/redis/tests/server.rs"]
mod server;

impl Server {
    /// Has the server obey.
    fn run<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        ask(&mut self.client(), words).unwrap()
    }

    /// Replaces the list of a host.
    fn list(&self, host: &str, targets: &[&Unmanaged]) {
        let key = format!("frontend:{host}");
        let urls: Vec<_> = targets.iter().map(|target| format!("http://127.0.0.1:{}", target.port)).collect();
        let mut pipe = redis::pipe();
        pipe.atomic().del(&key).ignore().rpush(&key, "a label").ignore().rpush(&key, urls).ignore();
        let _: () = pipe.query(&mut self.client()).unwrap();
    }

    /// The configuration with the lists of this server.
    fn beside(&self, conf: Conf) -> Conf {
        conf.set("redis.url", format!("redis://127.0.0.1:{}", self.port))
            .set("redis.refresh", "100ms")
            .set("redis.allow", vec![toml::Value::from("127.0.0.0/8")])
    }
}

fn ask<T: redis::FromRedisValue>(client: &mut Connection, words: &[&str]) -> RedisResult<T> {
    let mut cmd = redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    cmd.query(client)
}

/// Waits until no app answers for that host.
#[track_caller]
fn wait_until_gone(daemon: &Daemon<'_>, host: &str) {
    let explain = || format!("{:?}\n{}", get(daemon, host, "/"), daemon.log());
    wait_until(&format!("{host} is gone"), explain, || {
        (get(daemon, host, "/").status() == 404).then_some(())
    });
}

/// Waits until the row of that app is as it should be.
#[track_caller]
fn wait_for_row(daemon: &Daemon<'_>, app: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    let rows = || apps(daemon.world);
    wait_until(
        &format!("{app}: {what}"),
        || format!("{:#?}\n{}", rows(), daemon.log()),
        || rows().iter().any(|row| row["app"] == app && is_so(row)).then_some(()),
    );
}

/// Waits until the log has that, and returns it.
#[track_caller]
fn wait_for_line(daemon: &Daemon<'_>, line: &str) -> String {
    wait_until(
        &format!("the log has {line:?}"),
        || daemon.log(),
        || Some(daemon.log()).filter(|log| log.contains(line)),
    )
}

fn redis_of(daemon: &Daemon<'_>, app: &str) -> Value {
    daemon.admin("GET", &format!("/__status?app={app}"), None).expect(200).json()["redis"].clone()
}

#[test]
fn lists_are_served_change_and_go_and_a_file_wins() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let (v1, v2) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    server.list("shop.test", &[&v1]);
    let daemon = world.start(&server.beside(edge(&world)));
    server.list("*.wild.test", &[&v2]);
    wait_for(&daemon, "shop.test", "v1");
    wait_for(&daemon, "a.b.wild.test", "v2");
    assert_eq!(names(&world), ["redis:*.wild.test", "redis:shop.test"]);
    let row = apps(&world)[1].clone();
    assert_eq!(
        (&row["source"], &row["label"], &row["phase"]),
        (&"redis".into(), &"a label".into(), &"settled".into())
    );
    assert_eq!((&row["replicas"]["ready"], &row["replicas"]["wanted"]), (&1.into(), &1.into()));
    let health = daemon.admin("GET", "/__health?app=redis:shop.test", None).expect(200).json();
    assert_eq!(health["healthy"], true);
    let refused = daemon.admin("POST", "/__rollback?app=redis:shop.test", None).expect(400).json();
    assert!(refused["message"].as_str().unwrap().contains("list in Redis"), "{refused}");
    // A change of the list, and of the hosts.
    server.list("shop.test", &[&v2]);
    wait_for(&daemon, "shop.test", "v2");
    let _: () = server.run(&["DEL", "frontend:*.wild.test"]);
    wait_until_gone(&daemon, "a.wild.test");
    // A file's app has the host as long as it is there.
    put(&world, "shop", &["shop.test"], &world.app("of-a-file"));
    reload(&daemon);
    wait_for(&daemon, "shop.test", "of-a-file");
    wait_for_row(&daemon, "redis:shop.test", "its host is another's", |row| {
        row["error"].as_str().is_some_and(|error| error.contains("belongs to app `shop`"))
            && row["hosts"] == Value::Array(Vec::new())
    });
    take_away(&world, "shop");
    reload(&daemon);
    wait_for(&daemon, "shop.test", "v2");
    // Together in the metrics.
    let text = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
    assert!(text.contains("app=\"redis\"") && !text.contains("redis:"), "{text}");
    assert!(
        text.contains("\nportok_redis_connected 1\n") && text.contains("\nportok_redis_hosts 1\n"),
        "{text}"
    );
    daemon.terminate();
}

#[test]
fn clients_of_a_list_stay_with_one_target_by_one_cookie_for_all_hosts() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let (v1, v2) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    server.list("shop.test", &[&v1, &v2]);
    let daemon = world.start(&server.beside(edge(&world)).set("redis.app.sticky", "cookie"));
    let first = wait_until(
        "the list is served",
        || daemon.log(),
        || Some(get(&daemon, "shop.test", "/")).filter(|answer| answer.status() == 200),
    );
    let cookie = first.header("set-cookie").unwrap().split("; ").next().unwrap();
    assert!(cookie.starts_with("portok_sticky_redis="), "{cookie}");
    let polls = || {
        for _ in 0..8 {
            let mut conn = Conn::tcp(daemon.addr).unwrap();
            let fields = [("host", "shop.test"), ("cookie", cookie)];
            let answer = conn.request("GET", "/", &fields, None).unwrap().expect(200);
            assert_eq!((answer.version(), answer.header("set-cookie")), (first.version(), None));
        }
    };
    polls();
    server.list("shop.test", &[&v2, &v1]);
    server.list("later.test", &[&v1]);
    wait_for(&daemon, "later.test", "v1");
    polls();
    daemon.terminate();
}

#[test]
fn without_redis_the_last_table_serves_also_after_a_restart() {
    let world = World::new();
    let Some(mut server) = Server::start(&[]) else { return };
    let (v1, v2) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    server.list("shop.test", &[&v1]);
    let files = edge(&world);
    let conf = server.beside(files.clone());
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "v1");
    server.kill();
    wait_until(
        "it is seen",
        || daemon.log(),
        || (redis_of(&daemon, "redis:shop.test")["connected"] == false).then_some(()),
    );
    assert_eq!(get(&daemon, "shop.test", "/").version(), "v1");
    daemon.terminate();
    let mut daemon = world.start_saved(&conf);
    assert_eq!(get(&daemon, "shop.test", "/").version(), "v1", "the first answer");
    daemon.upgrade();
    assert_eq!(get(&daemon, "shop.test", "/").version(), "v1");
    server.begin();
    server.list("shop.test", &[&v2]);
    wait_for(&daemon, "shop.test", "v2");
    // And so it is when the configuration has Redis no more, and again.
    files.save();
    reload(&daemon);
    wait_until_gone(&daemon, "shop.test");
    conf.save();
    reload(&daemon);
    wait_for(&daemon, "shop.test", "v2");
    daemon.terminate();
}

#[test]
fn what_redis_says_wrongly_changes_nothing_and_is_shown() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let v1 = world.app("v1").start_unmanaged();
    for number in 0..20 {
        server.list(&format!("h{number}.test"), &[&v1]);
    }
    let daemon = world.start(&server.beside(edge(&world)));
    wait_for(&daemon, "h19.test", "v1");
    // A list that was well-formed, and one that never was.
    let _: () = server.run(&["RPUSH", "frontend:h0.test", "http://name.test"]);
    let _: () = server.run(&["RPUSH", "frontend:new.test", "label", "https://127.0.0.1:1"]);
    let says = |part: &'static str| {
        move |row: &Value| row["error"].as_str().is_some_and(|error| error.contains(part))
    };
    wait_for_row(&daemon, "redis:h0.test", "it is malformed", says("stays as it was"));
    wait_for_row(&daemon, "redis:new.test", "it is malformed", says("malformed"));
    assert_eq!(get(&daemon, "h0.test", "/").version(), "v1");
    assert_eq!(get(&daemon, "new.test", "/").status(), 404);
    assert_eq!(redis_of(&daemon, "redis:h1.test")["malformed"], 2);
    // It is looked at again and again, and told once.
    let _: () = server.run(&["SADD", "dead:h0.test", "0"]);
    for host in ["more.test", "another.test"] {
        server.list(host, &[&v1]);
        wait_for(&daemon, host, "v1");
    }
    let _: () = server.run(&["FLUSHALL"]);
    wait_until(
        "the removal is held",
        || daemon.log(),
        || (redis_of(&daemon, "redis:h1.test")["held"]["hosts"] == 22).then_some(()),
    );
    // The log is written by a thread of its own, one line after the other: this one is the last.
    let log = wait_for_line(&daemon, "22 of 22 hosts are gone");
    for told in ["frontend:h0.test is malformed", "frontend:new.test is malformed", "dead:h0.test is ignored"]
    {
        assert_eq!(log.matches(told).count(), 1, "{told}: {log}");
    }
    for number in 0..20 {
        assert_eq!(get(&daemon, &format!("h{number}.test"), "/").version(), "v1");
    }
    daemon.terminate();
}

#[test]
fn a_dead_target_is_passed_over_and_marked_for_all() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let (mut v1, v2) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    server.list("shop.test", &[&v2, &v1]);
    let conf = server.beside(edge(&world)).set("redis.app.upstream.eject_for", "500s");
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "v1");
    wait_for(&daemon, "shop.test", "v2");
    v1.kill();
    // The request that finds it dead is answered by the other one.
    wait_until(
        "it is marked",
        || daemon.log(),
        || {
            let answer = get(&daemon, "shop.test", "/");
            assert_eq!((answer.status(), answer.version()), (200, "v2"), "{answer:?}");
            let marked: Vec<String> = server.run(&["SMEMBERS", "dead:shop.test"]);
            (marked == ["1"]).then_some(())
        },
    );
    let ttl: i64 = server.run(&["TTL", "dead:shop.test"]);
    assert!((1..=500).contains(&ttl), "{ttl}");
    // What another one marks gets no request.
    let v3 = world.app("v3").start_unmanaged();
    let _: () = server.run(&["SADD", "dead:other.test", "0"]);
    let _: () = server.run(&["EXPIRE", "dead:other.test", "1000"]);
    server.list("other.test", &[&v3, &v2]);
    wait_for_row(&daemon, "redis:other.test", "one of two is out", |row| row["replicas"]["ready"] == 1);
    for _ in 0..20 {
        assert_eq!(get(&daemon, "other.test", "/").version(), "v2");
    }
    let _: () = server.run(&["DEL", "dead:other.test"]);
    wait_for(&daemon, "other.test", "v3");
    // Each is told once: what the data plane has put out is not told of a second time when it is
    // marked.
    let log = wait_for_line(&daemon, "a target is back: it is marked dead in Redis no more");
    assert_eq!(log.matches("a target is out, it is marked dead in Redis").count(), 1, "{log}");
    assert_eq!(log.matches("a target is out for").count(), 1, "{log}");
    daemon.terminate();
}

#[test]
fn with_probes_a_target_that_fails_them_gets_no_request() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let sick = world.path("sick");
    let v1 = world.app("v1").with("health_file", sick.display());
    let (v1_runs, v2) = (v1.start_unmanaged(), world.app("v2").start_unmanaged());
    server.list("shop.test", &[&v1_runs, &v2]);
    server.list("alone.test", &[&v1_runs]);
    let files = server.beside(edge(&world)).set("redis.app.health.interval", "50ms");
    let conf = files.clone().set("redis.probe", true).set("redis.app.health.failures", 2);
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "v1");
    let health = |says: &str| {
        fs::write(world.path("new"), says).unwrap();
        fs::rename(world.path("new"), &sick).unwrap();
    };
    health("500");
    let ready_of_two = |ready: u32| move |row: &Value| row["replicas"]["ready"] == ready;
    wait_for_row(&daemon, "redis:shop.test", "one of two is out", ready_of_two(1));
    for _ in 0..20 {
        assert_eq!(get(&daemon, "shop.test", "/").version(), "v2");
    }
    let target = &status(&daemon, "redis:shop.test").targets[0];
    assert_eq!((target.state, target.last_error.as_deref()), (TargetState::Ejected, Some("status 500")));
    // One alone is more than half: it serves.
    wait_for_row(&daemon, "redis:alone.test", "it is unhealthy", |row| row["phase"] == "unhealthy");
    assert_eq!(get(&daemon, "alone.test", "/").version(), "v1");
    daemon.admin("GET", "/__health?app=redis:alone.test", None).expect(503);
    daemon.admin("GET", "/__health?app=redis:shop.test", None).expect(200);
    health("200");
    wait_for_row(&daemon, "redis:shop.test", "both are in", ready_of_two(2));
    wait_for(&daemon, "shop.test", "v1");
    let log = wait_for_line(&daemon, "a target is back: its probe is good again");
    assert_eq!(log.matches("a target is out, its probes fail: status 500").count(), 1, "{log}");
    health("500");
    wait_for_row(&daemon, "redis:shop.test", "one of two is out", ready_of_two(1));
    // A new list is in force at once, whatever its targets say.
    server.list("new.test", &[&v1_runs]);
    wait_for(&daemon, "new.test", "v1");
    // Without probes everything serves.
    files.save();
    reload(&daemon);
    wait_for_row(&daemon, "redis:shop.test", "both are in", ready_of_two(2));
    wait_for(&daemon, "shop.test", "v1");
    daemon.terminate();
}

#[test]
fn whatever_becomes_of_redis_its_hosts_and_the_apps_beside_serve_on() {
    let world = World::new();
    let Some(mut server) = Server::start(&[]) else { return };
    let targets = [world.app("t0").start_unmanaged(), world.app("t1").start_unmanaged()];
    for number in 0..20 {
        server.list(&format!("h{number}.test"), &[&targets[0]]);
    }
    let conf = server.beside(edge(&world)).set("apps.always.command", world.app("v1").command());
    let daemon = world.start(&conf);
    wait_for(&daemon, "app.test", "v1");
    wait_for(&daemon, "h0.test", "t0");
    let (load, asked) = (Load::start(daemon.addr), "redis:h1.test");
    let serves_on = |what: &str| {
        load.wait_for_more(20);
        for number in 1..20 {
            let answer = get(&daemon, &format!("h{number}.test"), "/");
            assert_eq!((answer.status(), answer.version()), (200, "t0"), "{what}: h{number}.test");
        }
    };
    let wait_for_status = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        wait_until(what, || daemon.log(), || is_so(&redis_of(&daemon, asked)).then_some(()));
    };
    // Slow: every answer comes late, and in time.
    server.list("h0.test", &[&targets[1]]);
    let _: () = server.run(&["CLIENT", "PAUSE", "1500", "ALL"]);
    serves_on("slow");
    wait_for(&daemon, "h0.test", "t1");
    assert_eq!(redis_of(&daemon, asked)["connected"], true);
    // It stands still.
    server.signal(Signal::SIGSTOP);
    wait_for_status("it is late", &|redis| redis["connected"] == false);
    serves_on("stopped");
    server.signal(Signal::SIGCONT);
    server.list("h0.test", &[&targets[0]]);
    wait_for(&daemon, "h0.test", "t0");
    // Garbage in the place of lists.
    for number in 1..20 {
        let key = format!("frontend:h{number}.test");
        let _: () = server.run(&["SET", &key, &"x".repeat(100_000)]);
    }
    wait_for_status("all are malformed", &|redis| redis["malformed"] == 19);
    serves_on("full of garbage");
    let _: () = server.run(&["FLUSHALL"]);
    wait_for_status("the removal is held", &|redis| redis["held"]["hosts"] == 20);
    serves_on("flushed");
    // Gone, and back with nothing in it.
    server.kill();
    wait_for_status("it is gone", &|redis| redis["connected"] == false);
    for command in ["apps", "status"] {
        assert_mentions(&daemon.portok(&[command]).ended(0).out, &["! ", "Redis: ", "the last table serves"]);
    }
    serves_on("killed");
    server.begin();
    wait_for_status("it is back", &|redis| redis["connected"] == true);
    serves_on("empty");
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn a_narrower_bound_takes_hosts_out_and_says_so() {
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let target = world.app("t1").start_unmanaged();
    server.list("a.test", &[&target]);
    let mut conf = server.beside(edge(&world));
    let daemon = world.start(&conf);
    wait_for(&daemon, "a.test", "t1");
    conf.put("redis.allow", vec![toml::Value::from("10.0.0.0/8")]);
    conf.save();
    reload(&daemon);
    wait_until_gone(&daemon, "a.test");
    let what = "frontend:a.test is malformed and its host is not served: ";
    wait_until("it is logged", || daemon.log(), || daemon.log().contains(what).then_some(()));
    wait_for_row(&daemon, "redis:a.test", "its list is malformed", |row| {
        row["error"].as_str().is_some_and(|error| error.starts_with("its list is malformed: "))
    });
    daemon.terminate();
}

#[test]
fn a_thousand_changes_a_second_cost_another_app_no_request() {
    /// How long.
    const SECONDS: u32 = 3;
    let world = World::new();
    let Some(server) = Server::start(&[]) else { return };
    let targets = [world.app("t0").start_unmanaged(), world.app("t1").start_unmanaged()];
    let conf = server.beside(edge(&world)).set("apps.always.command", world.app("v1").command());
    let daemon = world.start(&conf);
    wait_for(&daemon, "app.test", "v1");
    let load = Load::start(daemon.addr);
    let mut client = server.client();
    let mut pipe = redis::pipe();
    for round in 0..SECONDS * 100 {
        pipe.clear();
        pipe.atomic();
        for change in 0..10 {
            let number = round * 10 + change;
            let key = format!("frontend:h{}.test", number % 250);
            let url = format!("http://127.0.0.1:{}", targets[(number / 250) as usize % 2].port);
            pipe.del(&key).ignore();
            if number % 3 > 0 || round + 25 >= SECONDS * 100 {
                pipe.rpush(&key, &["label", &url]).ignore();
            }
        }
        let _: () = pipe.query(&mut client).unwrap();
        // The pace is the load, and not a wait for anything.
        pause(Duration::from_millis(10));
    }
    load.wait_for_more(50);
    load.finish_without_failure();
    let last = SECONDS * 1000 - 1;
    for number in last - 249..=last {
        let version = format!("t{}", number / 250 % 2);
        wait_for(&daemon, &format!("h{}.test", number % 250), &version);
    }
    daemon.terminate();
}
