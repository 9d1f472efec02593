//! Marks of dead targets: read, heard and written, with a real `redis-server`.

use std::sync::mpsc;

use super::*;

#[tokio::test]
async fn marks_are_read_heard_and_written() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "Shop", &[A, B]);
    let redis = server.source().await;
    routes(&redis, &["shop 10.0.0.1:80,10.0.0.2:80"]).await;
    let read = redis.routes().borrow().table.get(&"shop".parse().unwrap()).unwrap().clone();
    // A set that ends by itself, and one that does not.
    run(client, &["SADD", "dead:Shop", "1", "9", "x"]);
    run(client, &["EXPIRE", "dead:Shop", "1000"]);
    routes(&redis, &["shop 10.0.0.1:80,!10.0.0.2:80"]).await;
    run(client, &["PERSIST", "dead:Shop"]);
    routes(&redis, &["shop 10.0.0.1:80,10.0.0.2:80"]).await;
    run(client, &["DEL", "dead:Shop"]);
    // A message alone.
    run(client, &["PUBLISH", "dead", "Shop;http://10.0.0.9:80;0;2"]);
    run(client, &["PUBLISH", "dead", "Shop;http://10.0.0.1:80;0;2"]);
    routes(&redis, &["shop !10.0.0.1:80,10.0.0.2:80"]).await;
    // Another list: what was said of the former is void.
    set(client, "Shop", &[B, A]);
    routes(&redis, &["shop 10.0.0.2:80,10.0.0.1:80"]).await;
    // Ours are written for the list that they are of, and for no other.
    let mut heard = client_of_messages(&server);
    redis.marker().mark_dead(&read, 0, Duration::from_secs(1000));
    let now = redis.routes().borrow().table.get(&"shop".parse().unwrap()).unwrap().clone();
    redis.marker().mark_dead(&now, 1, Duration::from_secs(1000));
    redis.marker().mark_dead(&now, 7, Duration::from_secs(1000));
    routes(&redis, &["shop 10.0.0.2:80,!10.0.0.1:80"]).await;
    assert_eq!(heard.next(), "Shop;http://10.0.0.1:80;1;2");
    let members: Vec<u32> = ::redis::cmd("SMEMBERS").arg("dead:Shop").query(client).unwrap();
    let ttl: u32 = ::redis::cmd("TTL").arg("dead:Shop").query(client).unwrap();
    assert!(members == [1] && (900..=1000).contains(&ttl), "{members:?} {ttl}");
}

/// Marks of hosts that do not exist cost a change no more than any other key.
#[tokio::test]
async fn junk_among_the_marks_keeps_no_change_back() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    let mut junk = ::redis::pipe();
    for number in 0..20_000 {
        junk.sadd(format!("dead:h{number}"), &["0", "1"]).ignore();
    }
    junk.exec(client).unwrap();
    set(client, "a", &[A, B]);
    run(client, &["SADD", "dead:a", "1"]);
    run(client, &["EXPIRE", "dead:a", "1000"]);
    let redis = server.source().await;
    routes(&redis, &["a 10.0.0.1:80,!10.0.0.2:80"]).await;
    set(client, "a", &[B, A]);
    routes(&redis, &["a 10.0.0.2:80,!10.0.0.1:80"]).await;
}

/// A list that has changed and is not read yet is not marked either.
#[tokio::test]
async fn a_mark_is_written_only_while_the_list_is_the_same() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    set(client, "a", &[A, B]);
    let known = settings(server.port).redis.server;
    let mut link = link::Link::open(&known).await.unwrap();
    let bounds = Bounds { allow: settings(server.port).redis.allow, ..Bounds::default() };
    let frontend = Frontend::read("a", &["label", A, B], &bounds).unwrap();
    let ttl = Duration::from_secs(30);
    assert_eq!(link.mark("", &frontend, 1, ttl).await, Ok(Ok(true)));
    for other in [&[A, B, B] as &[&str], &[A], &[B, A], &[]] {
        set(client, "a", other);
        assert_eq!(link.mark("", &frontend, 0, ttl).await, Ok(Ok(false)), "{other:?}");
    }
    run(client, &["DEL", "frontend:a"]);
    assert_eq!(link.mark("", &frontend, 0, ttl).await, Ok(Ok(false)));
    // What the server refuses ends no connection.
    run(client, &["SET", "frontend:a", "text"]);
    assert!(link.mark("", &frontend, 0, ttl).await.unwrap().is_err());
    let members: Vec<u32> = ::redis::cmd("SMEMBERS").arg("dead:a").query(client).unwrap();
    assert_eq!(members, [1]);
}

struct Messages(mpsc::Receiver<String>);

impl Messages {
    fn next(&mut self) -> String {
        self.0.recv_timeout(LONG).unwrap()
    }
}

fn client_of_messages(server: &Server) -> Messages {
    let mut client = server.client();
    let (sender, receiver) = mpsc::channel();
    let (subscribed, is_subscribed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut subscription = client.as_pubsub();
        subscription.subscribe("dead").unwrap();
        subscribed.send(()).unwrap();
        while let Ok(message) = subscription.get_message() {
            if sender.send(message.get_payload().unwrap()).is_err() {
                return;
            }
        }
    });
    is_subscribed.recv_timeout(LONG).unwrap();
    Messages(receiver)
}

#[tokio::test]
async fn messages_that_nobody_takes_end_the_connection() {
    const LONG_PAYLOAD: usize = 1000;
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    let known = settings(server.port).redis.server;
    let mut link = link::Link::open(&known).await.unwrap();
    let mut flood = ::redis::pipe();
    for _ in 0..100 {
        flood.publish("dead", "x".repeat(LONG_PAYLOAD));
    }
    let (whole, mut taken) = (link.room_for_messages(), 0);
    for _ in 0..40 {
        let before = link.room_for_messages();
        let _: ::redis::Value = flood.query(client).unwrap();
        let is_read = |left: usize| left == 0 || left + 100 * LONG_PAYLOAD <= before;
        timeout(LONG, async {
            while !is_read(link.room_for_messages()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the messages were not read");
        if link.room_for_messages() == 0 {
            break;
        }
        // One of a hundred: what it took may be read, and no more.
        link.message().await.unwrap();
        taken += 1;
    }
    assert_eq!(link.room_for_messages(), 0, "{taken} messages taken");
    while timeout(LONG, link.message()).await.unwrap().is_ok() {
        taken += 1;
    }
    assert!(taken * LONG_PAYLOAD <= whole + 40 * 2 * LONG_PAYLOAD, "{taken} messages had room");
}

#[tokio::test]
async fn messages_that_are_taken_leave_the_connection_as_it_was() {
    let Some(server) = Server::start(&[]) else { return };
    let client = &mut server.client();
    let mut link = link::Link::open(&settings(server.port).redis.server).await.unwrap();
    let whole = link.room_for_messages();
    for length in [0, 9, 10, 99, 100, 1000, 12345] {
        run(client, &["PUBLISH", "dead", &"x".repeat(length)]);
        let message = timeout(LONG, link.message()).await.unwrap().unwrap();
        assert_eq!((message.len(), link.room_for_messages()), (length, whole));
    }
}
