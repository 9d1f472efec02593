//! What a switch and a deploy cost the requests around them, and how long a deploy keeps a ready app waiting.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::histogram::Histogram;
use crate::load::{Load, MOMENT, wall_clock};
use crate::peers::{Peer, Running};
use crate::process::Process;
use crate::report::median;
use crate::session::{Options, run_load, small};

/// Asks the admin socket; the time it took, when it was done.
pub fn post(socket: &Path, path: &str, body: &str) -> io::Result<Duration> {
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    write!(
        stream,
        "POST /__{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
        Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        return Ok(began.elapsed());
    }
    Err(io::Error::other(format!("{path}: {answer}")))
}

/// Moves traffic to another app.
pub fn switch(running: &Running, port: u16) -> io::Result<Duration> {
    post(&running.socket(), &format!("switch?port={port}"), "")
}

/// A change: when it was asked for, in microseconds of the wall clock, and how long it took.
pub struct Change {
    at_us: u64,
    pub took: Duration,
}

/// Runs the load while `change` is called once a second; what the load told, and the changes.
pub fn under_load(
    port: u16,
    load: &Load,
    duration: Duration,
    mut change: impl FnMut(usize) -> io::Result<Duration> + Send,
) -> io::Result<(Value, Vec<Change>)> {
    std::thread::scope(|scope| {
        let load = scope.spawn(move || run_load(load, port, duration, None));
        let began = Instant::now();
        let mut changes = Vec::new();
        for number in 0.. {
            let next = Duration::from_secs(number as u64) + Duration::from_millis(500);
            if next + Duration::from_millis(200) >= duration {
                break;
            }
            std::thread::sleep(next.saturating_sub(began.elapsed()));
            let at_us = wall_clock();
            changes.push(Change { at_us, took: change(number)? });
            if began.elapsed() >= duration {
                break;
            }
        }
        let told = load.join().map_err(|_| io::Error::other("the load failed"))??;
        Ok((told, changes))
    })
}

/// p99 of what was answered while a change was on and 100 ms after it, beside p99 of everything else in the same run.
pub fn around(told: &mut Value, changes: &[Change]) {
    let moments: Vec<Vec<(usize, u64)>> = serde_json::from_value(told["moments"].take()).unwrap_or_default();
    let began = told["began_us"].as_u64().unwrap_or(0);
    let width = MOMENT.as_micros() as u64;
    let (mut near, mut far) = (Histogram::default(), Histogram::default());
    for (number, moment) in moments.iter().enumerate() {
        let from = began + number as u64 * width;
        let is_near = |change: &Change| {
            let until = change.at_us + change.took.as_micros() as u64 + 100_000;
            from + width > change.at_us && from < until
        };
        if changes.iter().any(is_near) { near.merge(moment) } else { far.merge(moment) }
    }
    for (name, histogram) in [("around", near), ("apart", far)] {
        let at = |share| histogram.quantile(share) as f64 / 1e6;
        told[name] = json!({ "requests": histogram.total(), "p50_ms": at(0.5), "p99_ms": at(0.99) });
    }
}

pub fn millis(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn took(changes: &[Change]) -> Vec<f64> {
    changes.iter().map(|change| millis(&change.took)).collect()
}

/// What apps told of the time between their healthy answer and their first request, in milliseconds.
fn told_of_first(file: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse::<f64>().ok()).map(|us| us / 1e3).collect()
}

/// Nothing, a switch a second, and a deploy a second, under full load and under one client.
pub fn changes(options: &Options, portok: &Peer) -> io::Result<Value> {
    let duration = Duration::from_secs(if options.quick { 5 } else { 30 });
    let (_one, first) = Process::backend(None)?;
    let (_two, second) = Process::backend(None)?;
    let running = portok.start(&options.folder, first, options.threads, None)?;
    let socket = running.socket();
    let full = Load { moments: true, ..small() };
    // One request after the other: what a change takes where it need not wait for a CPU.
    let light = Load { connections: 1, ..full.clone() };
    let mut report = json!({ "seconds": duration.as_secs() });
    report["quiet"] = run_load(&small(), running.port, duration, None)?;
    eprintln!("changes: switches, no load");
    let alone = (0..30).map(|number| {
        std::thread::sleep(Duration::from_millis(100));
        switch(&running, if number % 2 == 0 { second } else { first })
    });
    let alone = alone.collect::<io::Result<Vec<Duration>>>()?;
    report["switch_ms_alone"] = json!(alone.iter().map(millis).collect::<Vec<_>>());
    let program = std::env::current_exe()?;
    for (kind, load) in [("full", &full), ("light", &light)] {
        let of = |what: &str| format!("{what}_{kind}");
        eprintln!("changes: switches, {kind} load");
        // Each to an app that had no request before; they are there beforehand, because a start takes CPU too.
        let file = options.folder.join(format!("switch-{kind}"));
        let apps: Vec<_> =
            (0..duration.as_secs()).map(|_| Process::backend_telling(&file)).collect::<io::Result<_>>()?;
        let (mut told, switches) =
            under_load(running.port, load, duration, |number| switch(&running, apps[number].1))?;
        around(&mut told, &switches);
        report[of("switching")] = told;
        report[of("switch_ms")] = json!(took(&switches));
        report[of("switch_healthy_until_first_request_ms")] = json!(told_of_first(&file));
        eprintln!("changes: deploys, {kind} load");
        let file = options.folder.join(format!("deploy-{kind}"));
        let body = json!({ "command": [program, "backend"], "env": { "BENCH_FIRST": file } }).to_string();
        let (mut told, deploys) =
            under_load(running.port, load, duration, |_| post(&socket, "deploy", &body))?;
        around(&mut told, &deploys);
        report[of("deploying")] = told;
        report[of("deploy_ms")] = json!(took(&deploys));
        report[of("deploy_healthy_until_first_request_ms")] = json!(told_of_first(&file));
    }
    Ok(report)
}

/// Load with a switch a second for so many minutes, and the memory meanwhile.
pub fn soak(options: &Options, portok: &Peer, minutes: f64) -> io::Result<Value> {
    // A day at most: whatever is asked for, it ends by itself.
    let duration = Duration::from_secs_f64(minutes.clamp(0.1, 1440.0) * 60.0);
    let (_one, first) = Process::backend(None)?;
    let (_two, second) = Process::backend(None)?;
    let running = portok.start(&options.folder, first, options.threads, None)?;
    let began = Instant::now();
    // About 120 points, however long it takes.
    let every = (duration.as_secs() / 120).max(1) as usize;
    let mut memory = vec![(0.0, running.process.memory())];
    let (told, switches) = under_load(running.port, &small(), duration, |number| {
        if number % every == 0 {
            memory.push((began.elapsed().as_secs_f64(), running.process.memory()));
        }
        switch(&running, if number % 2 == 0 { second } else { first })
    })?;
    // A leak shows in the second half; in the first one pools and buffers find their size.
    let of = |from: f64, to: f64| {
        let all = memory.len() as f64;
        let part = &memory[(all * from) as usize..(all * to) as usize];
        median(part.iter().map(|(_, kib)| *kib as f64).collect())
    };
    let grown = of(0.75, 1.0) / of(0.4, 0.6).max(1.0);
    Ok(json!({ "minutes": duration.as_secs_f64() / 60.0, "told": told, "switches": switches.len(),
        "memory_kib": memory, "grown": grown }))
}
