//! Servers that are no Redis.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;

/// A server that says `answer`, over and over if it is to, to whoever connects.
fn impostor(answer: &'static [u8], again: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let talk = move |mut client: TcpStream| {
            while client.write_all(answer).is_ok() && again {}
            // Until the client closes.
            let _ended = std::io::copy(&mut client, &mut std::io::sink());
        };
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || talk(client));
        }
    });
    port
}

#[tokio::test]
async fn what_is_no_redis_is_left_again() {
    for (answer, again) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" as &[u8], false),
        (b"+OK\r\n+OK\r\n+OK\r\n", false),
        (b"$2000000000\r\n", false),
        (b"*2000000000\r\n", false),
        (b"$2000000000\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", true),
        (b"+OK\r\n", true),
        (b"*1\r\n", true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let redis =
            Redis::start(settings(impostor(answer, again)), &folder.path().join("x.redis.json")).await;
        let what = String::from_utf8_lossy(answer);
        status(&redis, &what, |status| status.error.is_some() && !status.connected).await;
        assert!(redis.status().error.as_ref().is_some_and(|error| error.len() < 500));
        redis.end().await;
    }
}
