//! The source with a real `redis-server`, and with servers that are none.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::time::timeout;

use self::server::Server;
use super::*;

mod marks;
mod passes;
mod server;
mod steps;
mod strangers;

/// For what happens within the wait of a few seconds for a server that does not answer, on a busy
/// machine.
const LONG: Duration = Duration::from_secs(120);

const A: &str = "http://10.0.0.1:80";
const B: &str = "http://10.0.0.2:80";

impl Server {
    fn file(&self) -> PathBuf {
        self.folder.path().join("edge.redis.json")
    }

    async fn source(&self) -> Redis {
        Redis::start(settings(self.port), &self.file()).await
    }
}

fn settings(port: u16) -> Settings {
    let redis = config::Redis {
        server: format!("redis://127.0.0.1:{port}").parse().unwrap(),
        prefix: String::new(),
        refresh: Duration::from_millis(50),
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        probe: false,
        app: config::of_an_empty_file().app,
    };
    Settings { redis, listen: Vec::new(), file: None, mark_for: Duration::from_secs(1000) }
}

fn run(client: &mut ::redis::Connection, words: &[&str]) {
    let mut cmd = ::redis::cmd(words[0]);
    cmd.arg(&words[1..]);
    let _: ::redis::Value = cmd.query(client).unwrap();
}

/// Sets a list in one step.
fn set(client: &mut ::redis::Connection, host: &str, urls: &[&str]) {
    let key = format!("frontend:{host}");
    let list: Vec<_> = ["label"].iter().chain(urls).collect();
    ::redis::pipe().atomic().del(&key).rpush(&key, list).exec(client).unwrap();
}

async fn until<T>(mut watched: watch::Receiver<T>, what: &str, is_it: impl FnMut(&T) -> bool) {
    let waited = timeout(LONG, watched.wait_for(is_it)).await;
    assert!(waited.is_ok_and(|seen| seen.is_ok()), "did not come: {what}");
}

/// Waits for these routes: `host target,target`, with `!` before what is marked.
async fn routes(redis: &Redis, expected: &[&str]) {
    until(redis.routes(), &format!("{expected:?}"), |routes| shown(routes) == expected).await;
}

fn shown(routes: &Routes) -> Vec<String> {
    let show = |frontend: &Arc<Frontend>| {
        let out = routes.out.get(frontend.hosts());
        let mark = |index| if out.is_some_and(|out| out.contains(&index)) { "!" } else { "" };
        let targets = frontend.targets().iter().enumerate();
        let targets: Vec<_> = targets.map(|(index, target)| format!("{}{target}", mark(index))).collect();
        format!("{} {}", frontend.hosts(), targets.join(","))
    };
    routes.table.iter().map(show).collect()
}

async fn status(redis: &Redis, what: &str, is_it: impl Fn(&RedisStatus) -> bool) {
    until(redis.status.clone(), what, |status| is_it(status)).await;
}

#[tokio::test]
async fn lists_are_read_changed_and_removed() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "Shop.example.com", &[A, B]);
    set(client, "*.example.com", &[B]);
    run(client, &["SET", "friend:x", "1"]);
    let redis = server.source().await;
    routes(&redis, &["shop.example.com 10.0.0.1:80,10.0.0.2:80", "*.example.com 10.0.0.2:80"]).await;
    status(&redis, "connected", |status| status.connected && status.hosts == 2).await;
    set(client, "Shop.example.com", &[B]);
    set(client, "*", &[A]);
    routes(&redis, &["shop.example.com 10.0.0.2:80", "*.example.com 10.0.0.2:80", "* 10.0.0.1:80"]).await;
    run(client, &["DEL", "frontend:*.example.com"]);
    routes(&redis, &["shop.example.com 10.0.0.2:80", "* 10.0.0.1:80"]).await;
    // A list with a time to live ends without anybody's writing.
    run(client, &["PEXPIRE", "frontend:*", "30"]);
    routes(&redis, &["shop.example.com 10.0.0.2:80"]).await;
    redis.end().await;
}

#[tokio::test]
async fn what_changes_nothing_publishes_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A]);
    let redis = server.source().await;
    routes(&redis, &["a 10.0.0.1:80"]).await;
    let mut seen = redis.routes();
    seen.mark_unchanged();
    for count in 0..20 {
        set(client, "a", &[A]);
        run(client, &["SET", "other", &count.to_string()]);
    }
    // A change that is seen comes after all of that.
    set(client, "b", &[A]);
    timeout(LONG, seen.changed()).await.unwrap().unwrap();
    assert_eq!(shown(&seen.borrow()), ["a 10.0.0.1:80", "b 10.0.0.1:80"]);
}

#[tokio::test]
async fn keys_have_the_prefix_as_it_is() {
    let Some(server) = Server::start(&["--databases", "4"]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A]);
    run(client, &["SELECT", "3"]);
    run(client, &["RPUSH", "x*:frontend:b", "label", B]);
    run(client, &["RPUSH", "xy:frontend:c", "label", B]);
    run(client, &["SADD", "x*:dead:b", "0"]);
    let mut settings = settings(server.port);
    settings.redis.server.database = 3;
    settings.redis.prefix = "x*:".to_owned();
    let redis = Redis::start(settings, &server.file()).await;
    routes(&redis, &["b 10.0.0.2:80"]).await;
}

#[tokio::test]
async fn garbage_leaves_every_host_as_it_was() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    for host in ["a", "b", "c", "d", "good"] {
        set(client, host, &[A]);
    }
    let redis = server.source().await;
    status(&redis, "all", |status| status.hosts == 5).await;
    run(client, &["SET", "frontend:a", "text"]);
    set(client, "b", &[&"x".repeat(5_000_000)]);
    set(client, "c", &["http://127.0.0.1:80"]);
    set(client, "d", &vec![A; 65]);
    run(client, &["HSET", "frontend:hash", "a", "b"]);
    run(client, &["RPUSH", &format!("frontend:{}", "k".repeat(1_000_000)), "label", A]);
    set(client, "no host", &[A]);
    set(client, "127.0.0.1:80", &[A]);
    let binary = ::redis::cmd("RPUSH").arg(b"frontend:\xff\n").arg(b"\xfe").query::<i64>(client);
    assert_eq!(binary, Ok(1));
    set(client, "good", &[B]);
    let all = ["a 10.0.0.1:80", "b 10.0.0.1:80", "c 10.0.0.1:80", "d 10.0.0.1:80", "good 10.0.0.2:80"];
    routes(&redis, &all).await;
    status(&redis, "malformed lists", |status| status.malformed == 9).await;
    let status = redis.status();
    let reason = |host: &str| {
        let list = status.malformed_lists.iter().find(|list| list.host == host).unwrap();
        list.reason.clone()
    };
    assert_eq!(reason("a"), "the key holds no list");
    assert_eq!(reason("b"), "element 2 is longer than 1024 bytes");
    assert!(reason("c").contains("redis.allow") && reason("d").contains("more than 64"));
    assert!(status.connected && status.malformed_lists.iter().all(|list| list.host.len() <= 300));
}

#[tokio::test]
async fn the_last_table_stays_while_the_server_is_away() {
    let Some(mut server) = Server::start(&[]) else { return };
    set(&mut server.client(), "a", &[A]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.redis.json");
    let redis = Redis::start(settings(server.port), &file).await;
    routes(&redis, &["a 10.0.0.1:80"]).await;
    let port = server.port;
    server.kill();
    status(&redis, "away", |status| !status.connected && status.error.is_some()).await;
    assert_eq!(shown(&redis.routes().borrow()), ["a 10.0.0.1:80"]);
    redis.end().await;
    // Nor does a start without it lose the table.
    let redis = Redis::start(settings(port), &file).await;
    assert_eq!(shown(&redis.routes().borrow()), ["a 10.0.0.1:80"]);
    status(&redis, "no connection", |status| status.error.is_some()).await;
    server.begin();
    set(&mut server.client(), "b", &[B]);
    routes(&redis, &["b 10.0.0.2:80"]).await;
    status(&redis, "connected", |status| status.connected && status.error.is_none()).await;
}

#[tokio::test]
async fn a_server_that_stands_still_is_left_and_found_again() {
    let Some(server) = Server::start(&[]) else { return };
    set(&mut server.client(), "a", &[A]);
    let redis = server.source().await;
    status(&redis, "connected", |status| status.connected).await;
    server.signal(Signal::SIGSTOP);
    status(&redis, "late", |status| status.error.as_ref().is_some_and(|error| error.contains("within")))
        .await;
    assert_eq!(shown(&redis.routes().borrow()), ["a 10.0.0.1:80"]);
    server.signal(Signal::SIGCONT);
    set(&mut server.client(), "a", &[B]);
    routes(&redis, &["a 10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_flush_is_held_back() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    for host in 0..20 {
        set(client, &format!("h{host}"), &[A]);
    }
    let redis = server.source().await;
    status(&redis, "all", |status| status.hosts == 20).await;
    run(client, &["FLUSHALL"]);
    set(client, "new", &[A]);
    status(&redis, "held", |status| {
        status.held.as_ref().is_some_and(|held| (held.hosts, held.of, held.looks) == (20, 20, 1))
    })
    .await;
    // Only the removal is held: what is new or says something else is in force.
    status(&redis, "the new one", |status| status.hosts == 21).await;
    set(client, "h0", &[B]);
    until(redis.routes(), "a change", |routes| shown(routes)[0] == "h0 10.0.0.2:80").await;
    assert_eq!((redis.status().held.clone().unwrap().hosts, redis.routes().borrow().table.len()), (19, 21));
    for host in 0..10 {
        set(client, &format!("h{host}"), &[B]);
    }
    status(&redis, "let pass", |status| status.held.is_none() && status.hosts == 11).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_a_right_one_is_taken() {
    let Some(server) = Server::start(&["--requirepass", "hunter2"]) else { return };
    let redis = server.source().await;
    let refused = |status: &RedisStatus| status.error.as_ref().is_some_and(|error| error.contains("NOAUTH"));
    status(&redis, "no password", refused).await;
    let with = |password: &str| {
        let mut settings = settings(server.port);
        settings.redis.server.password = Some(config::Secret::new(password.to_owned()));
        settings
    };
    redis.reconfigure(with("hunter3"));
    status(&redis, "a wrong one", |status| {
        status.error.as_ref().is_some_and(|error| !error.contains("NOAUTH") && !error.contains("hunter"))
    })
    .await;
    redis.reconfigure(with("hunter2"));
    status(&redis, "connected", |status| status.connected && !status.url.contains("hunter")).await;
}

#[tokio::test]
async fn other_bounds_take_hosts_out_at_once() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A]);
    set(client, "b", &[B]);
    let redis = server.source().await;
    status(&redis, "both", |status| status.hosts == 2).await;
    let mut changed = settings(server.port);
    changed.listen.push("10.0.0.1:80".parse().unwrap());
    redis.reconfigure(changed);
    routes(&redis, &["b 10.0.0.2:80"]).await;
    status(&redis, "malformed", |status| status.malformed == 1 && status.connected).await;
}

/// Whatever somebody fills the server with, the hosts in force follow their lists.
#[tokio::test]
async fn junk_beyond_all_bounds_keeps_no_change_back() {
    const JUNK: usize = 3000;
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A]);
    set(client, "b", &[A]);
    let redis = server.source().await;
    routes(&redis, &["a 10.0.0.1:80", "b 10.0.0.1:80"]).await;
    let mut junk = ::redis::pipe();
    for number in 0..JUNK {
        junk.set(format!("frontend:h{number}"), "no list").ignore();
    }
    junk.exec(client).unwrap();
    run(client, &["SET", "frontend:a", "no list"]);
    set(client, "b", &[B]);
    routes(&redis, &["a 10.0.0.1:80", "b 10.0.0.2:80"]).await;
    status(&redis, "all are counted", |status| status.malformed == JUNK + 1).await;
    assert_eq!(redis.status().malformed_lists.len(), 100);
    assert!(redis.status().malformed_lists.iter().any(|list| list.host == "a"), "first those in force");
    set(client, "a", &[B]);
    routes(&redis, &["a 10.0.0.2:80", "b 10.0.0.2:80"]).await;
}

#[tokio::test]
async fn a_thousand_changes_a_second_end_in_the_last_one() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "steady", &[A]);
    let redis = server.source().await;
    status(&redis, "connected", |status| status.connected).await;
    for round in 0..20 {
        let mut changes = ::redis::pipe();
        for host in 0..50 {
            let key = format!("frontend:h{host}");
            let target = format!("http://10.0.{round}.{host}:80");
            changes.del(&key).rpush(&key, &["label", &target]).publish("dead", format!("h{host};x;0;1"));
        }
        changes.exec(client).unwrap();
        tokio::task::yield_now().await;
    }
    status(&redis, "all", |status| status.hosts == 51).await;
    until(redis.routes(), "the last changes", |routes| {
        let shown = shown(routes);
        (0..50).all(|host| shown.contains(&format!("h{host} 10.0.19.{host}:80")))
    })
    .await;
    assert!(shown(&redis.routes().borrow()).contains(&"steady 10.0.0.1:80".to_owned()));
}

#[tokio::test]
async fn a_hundred_thousand_hosts_are_read() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    for thousand in 0..100 {
        let mut lists = ::redis::pipe();
        for host in 0..1000 {
            let key = format!("frontend:h{host}.t{thousand}.example.com");
            lists.rpush(key, &["label", A, B]);
        }
        lists.exec(client).unwrap();
    }
    let redis = server.source().await;
    let begin = Instant::now();
    status(&redis, "all", |status| status.hosts == 100_000).await;
    eprintln!("100,000 hosts read after {:?}", begin.elapsed());
    let begin = Instant::now();
    set(client, "h0.t0.example.com", &[B]);
    until(redis.routes(), "one change of all", |routes| {
        let changed = routes.table.get(&"h0.t0.example.com".parse().unwrap()).unwrap();
        changed.targets().len() == 1
    })
    .await;
    eprintln!("one change of 100,000 hosts in force after {:?}", begin.elapsed());
    redis.end().await;
    let begin = Instant::now();
    let redis = server.source().await;
    assert_eq!(redis.routes().borrow().table.len(), 100_000);
    eprintln!("100,000 hosts read from disk in {:?}", begin.elapsed());
}
