//! Passes over the keys that meet with something: with a real `redis-server`, behind a gate that
//! lets every request through and does something before a certain one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;

use super::*;

/// So many that a pass has several steps.
const HOSTS: usize = 2000;

/// What is done before the step of that number.
type Before = Option<(usize, Box<dyn FnOnce() + Send>)>;

/// Stands between the source and a server.
struct Gate {
    port: u16,
    before: Arc<Mutex<Before>>,
}

impl Gate {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, before) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Before>>::default());
        let waits = Arc::clone(&before);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is not there just now is one that closes.
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pass_on(from_server, to_client, |_| {}));
                let waits = Arc::clone(&waits);
                std::thread::spawn(move || pass_on(client, server, |request| look_at(request, &waits)));
            }
        });
        Self { port, before }
    }

    /// Does that before the step of that number from now on.
    fn before_step(&self, number: usize, what: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some((number, Box::new(what)));
    }

    async fn source(&self, server: &Server) -> Redis {
        Redis::start(settings(self.port), &server.file()).await
    }
}

fn look_at(request: &[u8], waits: &Mutex<Before>) {
    // The source sends one request at a time, so one begins where a read does.
    if !request.get(..20).is_some_and(|head| head.windows(4).any(|word| word == b"EVAL")) {
        return;
    }
    let mut before = waits.lock().unwrap();
    match before.take() {
        Some((0, what)) => what(),
        Some((number, what)) => *before = Some((number - 1, what)),
        None => {}
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, look: impl Fn(&[u8])) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        look(&bytes[..length]);
        if to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // One side has ended, so the other does.
    for side in [from, to] {
        let _may_have_ended = side.shutdown(Shutdown::Both);
    }
}

/// Sets the lists of all hosts.
fn fill(client: &mut ::redis::Connection, url: &str) {
    let mut lists = ::redis::pipe();
    for host in 0..HOSTS {
        lists.del(format!("frontend:h{host}")).rpush(format!("frontend:h{host}"), &["label", url]);
    }
    lists.exec(client).unwrap();
}

/// The source with all hosts, behind a gate.
async fn filled(server: &Server) -> (Gate, Redis) {
    fill(&mut server.client(), A);
    let gate = Gate::to(server.port);
    let redis = gate.source(server).await;
    status(&redis, "all", |status| status.hosts == HOSTS && status.connected).await;
    (gate, redis)
}

/// Waits until all hosts are found missing together, and none is removed.
async fn all_are_held(redis: &Redis) {
    status(redis, "all are held", |status| {
        assert_eq!(status.hosts, HOSTS, "some are removed");
        status.held.as_ref().is_some_and(|held| (held.hosts, held.of) == (HOSTS, HOSTS))
    })
    .await;
}

/// Waits until the table has the lists that are there now.
async fn all_are_right(redis: &Redis) {
    until(redis.routes(), "all lists", |routes| {
        let targets = routes.table.iter().map(|frontend| frontend.targets()[0].to_string());
        assert_eq!(routes.table.len(), HOSTS, "some are removed");
        targets.filter(|target| B.ends_with(&**target)).count() == HOSTS
    })
    .await;
    status(redis, "nothing is held", |status| status.held.is_none() && status.connected).await;
}

#[tokio::test]
async fn a_flush_in_the_middle_of_a_pass_removes_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let (gate, redis) = filled(&server).await;
    let mut flusher = server.client();
    gate.before_step(4, move || run(&mut flusher, &["FLUSHALL"]));
    // What a pass is made for.
    run(&mut server.client(), &["SET", "other", "1"]);
    all_are_held(&redis).await;
    assert!(gate.before.lock().unwrap().is_none());
    fill(&mut server.client(), B);
    all_are_right(&redis).await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_pass_removes_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    let (gate, redis) = filled(&server).await;
    let (mut client, server) = (server.client(), Arc::new(Mutex::new(server)));
    let restarted = Arc::clone(&server);
    gate.before_step(4, move || {
        let mut server = restarted.lock().unwrap();
        server.kill();
        server.begin();
    });
    run(&mut client, &["SET", "other", "1"]);
    all_are_held(&redis).await;
    assert!(gate.before.lock().unwrap().is_none());
    fill(&mut server.lock().unwrap().client(), B);
    all_are_right(&redis).await;
}

/// However much is written to other keys, a look is made once in `refresh`.
#[tokio::test]
async fn writes_to_other_keys_make_no_pass_follow_another_at_once() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A]);
    let mut slow = settings(server.port);
    slow.redis.refresh = Duration::from_millis(200);
    let redis = Redis::start(slow.clone(), &server.file()).await;
    routes(&redis, &["a 10.0.0.1:80"]).await;
    let calls = |client: &mut ::redis::Connection| -> u128 {
        let info: String = ::redis::cmd("INFO").arg("commandstats").query(client).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_eval:calls=")).unwrap();
        line.split(',').next().unwrap().parse().unwrap()
    };
    let (begin, before) = (Instant::now(), calls(client));
    let mut writes = 0_u32;
    while calls(client) < before + 3 {
        run(client, &["INCR", "other"]);
        writes += 1;
        tokio::task::yield_now().await;
    }
    let (passes, most) = (calls(client) - before, begin.elapsed().as_millis() / 200 + 1);
    assert!(passes <= most, "{passes} passes, at most {most}, {writes} writes");
}
