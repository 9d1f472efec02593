//! One interleaved session: every peer on the same work, in turns, there and back again.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{self, BENCH, Load};
use crate::peers::{Peer, REPLICAS, Running};
use crate::process::{Cpu, Process, pinned_command, wait_for};

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub folder: PathBuf,
    pub duration: Duration,
    pub rounds: usize,
    /// Proxy, backend and load share one CPU.
    pub cpu: Option<usize>,
    pub threads: usize,
    pub quick: bool,
    /// Workloads by name; empty: all.
    pub only: Vec<String>,
}

impl Options {
    pub fn wants(&self, name: &str) -> bool {
        // "connections" is what npm portok calls its table.
        let is = |only: &String| {
            only.eq_ignore_ascii_case(name) || (only == "connections" && name.starts_with('C'))
        };
        self.only.is_empty() || self.only.iter().any(is)
    }
}

/// A kind of work.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub load: Load,
}

/// The load that the others differ from: `GET` 12 bytes on 64 kept connections.
pub fn small() -> Load {
    Load {
        port: 0,
        host: BENCH.to_owned(),
        path: "/".to_owned(),
        connections: 64,
        duration: Duration::from_secs(1),
        requests: u64::MAX,
        body: 0,
        fresh: false,
        browser: false,
        message: 0,
        moments: false,
    }
}

pub fn workloads() -> Vec<Workload> {
    let of = |name, what, load| Workload { name, what, load };
    let path = |path: &str| path.to_owned();
    vec![
        of("W1", "GET 12 bytes, 64 kept connections", small()),
        of("W1b", "the same with a browser's headers", Load { browser: true, ..small() }),
        of("W2", "GET 10 KiB", Load { path: path("/10k"), ..small() }),
        of("W3", "GET 1 MiB, 16 connections", Load { path: path("/1m"), connections: 16, ..small() }),
        of("W4", "POST 64 KiB, 32 connections", Load { body: 64 << 10, connections: 32, ..small() }),
        of("W5", "a connection per request, 32 clients", Load { fresh: true, connections: 32, ..small() }),
        of(
            "W7",
            "32 KiB messages through tunnels, 16 of them",
            Load { message: 32 << 10, connections: 16, ..small() },
        ),
        of(REPLICAS, "GET 12 bytes, 64 kept connections, three apps behind each proxy", small()),
        of("C10", "GET 12 bytes, 10 kept connections", Load { connections: 10, ..small() }),
        of("C50", "50 kept connections", Load { connections: 50, ..small() }),
        of("C100", "100 kept connections", Load { connections: 100, ..small() }),
        of("C250", "250 kept connections", Load { connections: 250, ..small() }),
        of("C500", "500 kept connections", Load { connections: 500, ..small() }),
    ]
}

/// What one peer cost in one round.
#[derive(Debug, Clone)]
pub struct Sample {
    pub workload: &'static str,
    pub peer: &'static str,
    /// Microseconds of CPU a request: all, in user space, in the kernel.
    pub cpu: [f64; 3],
    pub told: Value,
}

/// Runs the load in a process of its own.
pub fn run_load(load: &Load, port: u16, duration: Duration, cpu: Option<usize>) -> io::Result<Value> {
    let mut command = pinned_command(cpu, &std::env::current_exe()?.display().to_string());
    command.args(["load", "--port", &port.to_string(), "--host", &load.host, "--path", &load.path]);
    command.args([
        "--connections",
        &load.connections.to_string(),
        "--millis",
        &duration.as_millis().to_string(),
    ]);
    command.args(["--body", &load.body.to_string(), "--message", &load.message.to_string()]);
    if load.requests < u64::MAX {
        command.args(["--requests", &load.requests.to_string()]);
    }
    command.args(load.fresh.then_some("--fresh")).args(load.browser.then_some("--browser"));
    command.args(load.moments.then_some("--moments"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    // A load that broke has no figures; the session goes on without them.
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({ "errors": 1 })))
}

pub fn number(told: &Value, name: &str) -> f64 {
    told[name].as_f64().unwrap_or(0.0)
}

/// Requests that were not answered whole and with 200: figures of such a run are none.
pub fn lost(told: &Value) -> f64 {
    number(told, "errors") + number(told, "refused")
}

pub fn since(before: Cpu, after: Cpu, requests: f64) -> [f64; 3] {
    let total = (after.total - before.total) * 1e6 / requests;
    let (user, system) = ((after.user - before.user) as f64, (after.system - before.system) as f64);
    let user_share = if user + system > 0.0 { user / (user + system) } else { 0.0 };
    [total, total * user_share, total * (1.0 - user_share)]
}

/// A peer that cannot be started is left out, and said.
pub fn started(
    peer: &Peer,
    options: &Options,
    backend: u16,
    threads: usize,
    cpu: Option<usize>,
) -> Option<Running> {
    let running = peer.start(&options.folder, backend, threads, cpu);
    running.inspect_err(|error| eprintln!("{} is left out: {error}", peer.name)).ok()
}

/// The peers on all workloads.
pub fn side_by_side(options: &Options, peers: &[Peer]) -> io::Result<Vec<Sample>> {
    let (backend, backend_port) = Process::backend(options.cpu)?;
    let start = |peer: &Peer| started(peer, options, backend_port, options.threads, options.cpu);
    let running: Vec<Running> = peers.iter().filter_map(start).collect();
    let mut samples = Vec::new();
    let is_of_one = |workload: &&Workload| workload.name != REPLICAS && options.wants(workload.name);
    for workload in workloads().iter().filter(is_of_one) {
        samples.extend(rounds(options, workload, &running, Some((&backend, backend_port)))?);
    }
    Ok(samples)
}

/// The rounds of one kind of work, in turns, and of the backend `direct`ly.
pub fn rounds(
    options: &Options,
    workload: &Workload,
    running: &[Running],
    direct: Option<(&Process, u16)>,
) -> io::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    // How it grows with connections is seen in three rounds.
    let rounds = options.rounds.min(if workload.name.starts_with('C') { 3 } else { usize::MAX });
    for round in 0..rounds {
        let direct = direct.map(|(process, port)| ("direct", process, port));
        let each = running.iter().map(|running| (running.name, &running.process, running.port));
        let mut order: Vec<_> = each.chain(direct).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (name, process, port) in order {
            if !Peer::takes_part(name, workload.name) {
                continue;
            }
            let before = process.cpu();
            let told = run_load(&workload.load, port, options.duration, options.cpu)?;
            let cpu = since(before, process.cpu(), number(&told, "requests").max(1.0));
            samples.push(Sample { workload: workload.name, peer: name, cpu, told });
        }
        eprintln!("{} round {} of {rounds}", workload.name, round + 1);
    }
    Ok(samples)
}

/// System calls a request, by strace, peer by peer.
pub fn system_calls(options: &Options, peers: &[Peer]) -> io::Result<Vec<Value>> {
    let mut rows = Vec::new();
    if crate::process::says("strace", &["-V"]).is_none() {
        eprintln!("strace is not there (Debian: apt-get install strace): system calls are not counted");
        return Ok(rows);
    }
    let (_backend, backend_port) = Process::backend(None)?;
    for peer in peers {
        let Some(running) = started(peer, options, backend_port, 1, None) else { continue };
        for workload in workloads().iter().filter(|w| ["W1", "W2", "W3", "W4", "W5"].contains(&w.name)) {
            if !Peer::takes_part(peer.name, workload.name) {
                continue;
            }
            let w3 = workload.name == "W3";
            let requests = if options.quick { 2_000 } else { 10_000 } / if w3 { 10 } else { 1 };
            let load = Load { requests, ..workload.load.clone() };
            // Connections and buffers are there before it is counted.
            run_load(
                &Load { requests: requests / 4, ..load.clone() },
                running.port,
                Duration::from_secs(10),
                None,
            )?;
            let counts = options.folder.join("strace");
            let _former = std::fs::remove_file(&counts);
            let mut command = pinned_command(None, "strace");
            command.args(["-c", "-f", "-o"]).arg(&counts);
            for pid in running.process.family() {
                command.args(["-p", &pid.to_string()]);
            }
            let log = options.folder.join("strace.log");
            let strace = Process::start(&mut command, &log)?;
            wait_for(Duration::from_secs(5), || {
                std::fs::read_to_string(&log).is_ok_and(|text| text.contains("attached"))
            });
            let told = run_load(&load, running.port, Duration::from_secs(60), None)?;
            strace.interrupt();
            wait_for(Duration::from_secs(5), || total_calls(&counts).is_some());
            drop(strace);
            let calls = total_calls(&counts).filter(|_| lost(&told) == 0.0);
            let calls = calls.map(|calls| calls / number(&told, "requests").max(1.0));
            rows.push(json!({ "workload": workload.name, "peer": peer.name, "calls": calls }));
        }
    }
    Ok(rows)
}

/// The total of `strace -c`.
fn total_calls(file: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// KiB of an idle kept connection, peer by peer.
pub fn idle_memory(options: &Options, peers: &[Peer]) -> io::Result<Vec<Value>> {
    let (_backend, backend_port) = Process::backend(None)?;
    let count = if options.quick { 1_000 } else { 5_000 };
    let mut rows = Vec::new();
    for peer in peers.iter().filter(|peer| Peer::takes_part(peer.name, "W1")) {
        let Some(running) = started(peer, options, backend_port, 1, None) else { continue };
        // What is made once is made by then.
        load::idle(running.port, 50, || ())?;
        let before = running.process.memory();
        let during = load::idle(running.port, count, || running.process.memory())?;
        let each = during.saturating_sub(before) as f64 / count as f64;
        rows.push(json!({ "peer": peer.name, "connections": count, "kib": each, "base_kib": before }));
    }
    Ok(rows)
}
