//! What a switch and a deploy cost the requests around them, and how long a deploy keeps a ready app waiting.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::load::Load;
use crate::peers::{Peer, Running};
use crate::process::Process;
use crate::session::{Options, run_load, small};

/// Asks the admin socket; the time it took, when it was done.
fn post(socket: &Path, path: &str, body: &str) -> io::Result<Duration> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    write!(
        stream,
        "POST /__{path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\n\
        Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(began.elapsed());
    }
    Err(io::Error::other(format!("{path}: {answer}")))
}

/// Runs the load while `change` is called once a second; what the load told, and how long each change took.
fn under_load(
    running: &Running,
    load: &Load,
    duration: Duration,
    mut change: impl FnMut(usize) -> io::Result<Duration> + Send,
) -> io::Result<(Value, Vec<f64>)> {
    let port = running.port;
    std::thread::scope(|scope| {
        let load = scope.spawn(move || run_load(load, port, duration, None));
        let began = Instant::now();
        let mut took = Vec::new();
        for number in 0.. {
            let next = Duration::from_secs(number as u64) + Duration::from_millis(500);
            if next + Duration::from_millis(200) >= duration {
                break;
            }
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            took.push(change(number)?.as_secs_f64() * 1e3);
        }
        let told = load.join().map_err(|_| io::Error::other("the load failed"))??;
        Ok((told, took))
    })
}

/// Nothing, a switch a second, and a deploy a second, under full load.
pub fn changes(options: &Options, portok: &Peer) -> io::Result<Value> {
    let duration = if options.quick { Duration::from_secs(5) } else { Duration::from_secs(30) };
    let (_one, first) = Process::backend(None)?;
    let (_two, second) = Process::backend(None)?;
    let running = portok.start(&options.folder, first, options.threads, None)?;
    let socket = running.socket();
    let quiet = run_load(&small(), running.port, duration, None)?;
    eprintln!("changes: switches");
    let (switching, switches) = under_load(&running, &small(), duration, |number| {
        let port = if number % 2 == 0 { second } else { first };
        post(&socket, &format!("switch?port={port}"), "")
    })?;
    let program = std::env::current_exe()?;
    let deploys = |what: &str, load: &Load| -> io::Result<(Value, Vec<f64>, Vec<f64>)> {
        eprintln!("changes: deploys {what}");
        let told = options.folder.join(what);
        let body = json!({ "command": [program, "backend"], "env": { "BENCH_FIRST": told } }).to_string();
        let (outcome, took) = under_load(&running, load, duration, |_| post(&socket, "deploy", &body))?;
        let text = std::fs::read_to_string(&told).unwrap_or_default();
        let first = text.lines().filter_map(|line| line.parse::<f64>().ok()).map(|us| us / 1e3).collect();
        Ok((outcome, took, first))
    };
    let (deploying, full, first_full) = deploys("full", &small())?;
    // One request after the other: enough to see when the new app gets its first.
    let (_, light, first_light) = deploys("light", &Load { connections: 1, ..small() })?;
    drop(running);
    Ok(json!({
        "seconds": duration.as_secs(),
        "quiet": quiet, "switching": switching, "deploying": deploying, "switch_ms": switches,
        "deploy_full_ms": full, "healthy_until_first_request_full_ms": first_full,
        "deploy_light_ms": light, "healthy_until_first_request_light_ms": first_light,
    }))
}

/// Load with switches for so many minutes; memory every ten seconds.
pub fn soak(options: &Options, portok: &Peer, minutes: u64) -> io::Result<Value> {
    let duration = Duration::from_secs(minutes * 60);
    let (_one, first) = Process::backend(None)?;
    let (_two, second) = Process::backend(None)?;
    let running = portok.start(&options.folder, first, options.threads, None)?;
    let socket = running.socket();
    let mut memory = vec![running.process.memory()];
    let (told, switches) = under_load(&running, &small(), duration, |number| {
        if number % 10 == 0 {
            memory.push(running.process.memory());
        }
        let port = if number % 2 == 0 { second } else { first };
        post(&socket, &format!("switch?port={port}"), "")
    })?;
    memory.push(running.process.memory());
    Ok(json!({ "minutes": minutes, "told": told, "switches": switches.len(), "memory_kib": memory }))
}
