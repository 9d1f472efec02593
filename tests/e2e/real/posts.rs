//! A thousand clients at a time post 100 kB each to an app of which each process does one at a time.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use toml::toml;

use super::asking::body;
use super::{file, has};
use crate::harness::World;
use crate::harness::wait::DEADLINE;

const CLIENTS: usize = 1000;
const LENGTH: usize = 100_000;

/// So many take requests at first; more join while the clients wait.
const REPLICAS: usize = 10;

/// Posts a body. An error says what came back instead of the very same bytes.
async fn post(addr: SocketAddr, seed: usize) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let sent = body(seed, LENGTH);
    let mut stream = TcpStream::connect(addr).await.map_err(text)?;
    let head =
        format!("POST / HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncontent-length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(text)?;
    stream.write_all(&sent).await.map_err(text)?;
    let mut answer = Vec::with_capacity(LENGTH + 512);
    stream.read_to_end(&mut answer).await.map_err(text)?;
    let has_come_back = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&sent);
    let first = || String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
    has_come_back.then_some(()).ok_or_else(|| format!("{} bytes: {}", answer.len(), first()))
}

/// All at a time. Returns what failed.
fn post_all(addr: SocketAddr) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for seed in 0..CLIENTS {
            clients.spawn(timeout(3 * DEADLINE, post(addr, seed)));
        }
        let mut failures = Vec::new();
        while let Some(ended) = clients.join_next().await {
            match ended.expect("no client panics") {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => failures.push(failure),
                Err(late) => failures.push(late.to_string()),
            }
        }
        failures
    })
}

#[test]
fn a_thousand_at_a_time_come_back_byte_for_byte() {
    if !has("node") {
        return;
    }
    let world = World::new();
    let command = format!("exec node {}", file("echo.js"));
    let conf = world
        .conf()
        .set("app.command", command)
        .set("app.env.BLOCKS_MS", "100")
        .set("app.replicas", toml! { min = 10 max = 64 busy_at = 8 });
    let daemon = world.start(&conf);
    daemon.wait_until("ten are ready", |status| status.replicas.is_some_and(|all| all.ready == REPLICAS));
    let failures = post_all(daemon.addr);
    assert!(failures.is_empty(), "{} failed: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
    assert_eq!(metrics["totalProxyErrors"], json!(0), "{metrics:#}");
    let wanted = daemon.status().replicas.map(|all| all.wanted);
    assert!(wanted > Some(REPLICAS), "more were started: {wanted:?}");
    daemon.terminate();
}
