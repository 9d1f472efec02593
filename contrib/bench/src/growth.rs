//! What portok and its peers cost as they grow: more connections, more threads, and for portok more targets at a time.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::changes::switch;
use crate::load::Load;
use crate::peers::Peer;
use crate::process::{Process, descriptors};
use crate::session::{Options, lost, number, run_load, since, small, started};

/// From few connections to many, on one and on two threads.
pub fn connections(options: &Options, peers: &[Peer]) -> io::Result<Vec<Value>> {
    let (_backend, backend_port) = Process::backend(None)?;
    let counts: &[usize] = if options.quick {
        &[10, 100, 1_000, 10_000]
    } else {
        &[10, 50, 100, 250, 500, 1_000, 5_000, 10_000]
    };
    // Each connection takes two descriptors of a proxy, and a proxy has some of its own.
    let most = descriptors().saturating_sub(200) / 2;
    let mut counts: Vec<usize> = counts.iter().map(|&count| count.min(most)).collect();
    counts.dedup();
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for peer in peers.iter().filter(|peer| Peer::takes_part(peer.name, "W1")) {
            let Some(running) = started(peer, options, backend_port, threads, None) else { continue };
            for &connections in &counts {
                let before = running.process.cpu();
                let load = Load { connections, ..small() };
                let told = run_load(&load, running.port, options.duration, None)?;
                let cpu = since(before, running.process.cpu(), number(&told, "requests").max(1.0));
                rows.push(json!({ "peer": peer.name, "threads": threads, "connections": connections,
                    "cpu_us": cpu[0], "memory_kib": running.process.memory(), "told": told }));
            }
            eprintln!("growth: {} on {threads} thread(s)", peer.name);
        }
    }
    Ok(rows)
}

/// portok with 64 connections over 1 to 8 targets at a time: the live one and those that drain, whose connections stay
/// with them.
pub fn targets(options: &Options, portok: &Peer) -> io::Result<Vec<Value>> {
    let mut rows = Vec::new();
    for threads in [1, 2] {
        for count in [1, 2, 4, 8] {
            let backends: Vec<_> = (0..count).map(|_| Process::backend(None)).collect::<io::Result<_>>()?;
            let drain = "period = \"120s\"\naffinity = \"connection\"";
            let running = portok.start_with(&options.folder, backends[0].1, threads, None, drain)?;
            let load = Load { connections: 64 / count, ..small() };
            let (before, began) = (running.process.cpu(), Instant::now());
            let pause = Duration::from_millis(300);
            let told: Vec<Value> = std::thread::scope(|scope| {
                let mut loads = Vec::new();
                for (at, (_, port)) in backends.iter().enumerate() {
                    if at > 0 {
                        // By then the load before it has sent on every connection, and they stay where they are.
                        std::thread::sleep(pause);
                        switch(&running, *port)?;
                    }
                    let left = options.duration + pause * (count - 1 - at) as u32;
                    let (load, port) = (&load, running.port);
                    loads.push(scope.spawn(move || run_load(load, port, left, None)));
                }
                let ended = |load: std::thread::ScopedJoinHandle<'_, io::Result<Value>>| {
                    load.join().map_err(|_| io::Error::other("a load failed"))?
                };
                loads.into_iter().map(ended).collect::<io::Result<_>>()
            })?;
            // Over the whole time: while the first loads are alone they have the machine for themselves.
            let rps = |requests: f64| requests / began.elapsed().as_secs_f64();
            let sum = |name: &str| told.iter().map(|told| number(told, name)).sum::<f64>();
            let most = |name: &str| told.iter().map(|told| number(told, name)).fold(0.0, f64::max);
            let cpu = since(before, running.process.cpu(), sum("requests").max(1.0));
            rows.push(json!({ "threads": threads, "targets": count, "cpu_us": cpu[0],
                "memory_kib": running.process.memory(), "rps": rps(sum("requests")), "p99_ms": most("p99_ms"),
                "errors": told.iter().map(lost).sum::<f64>() }));
        }
    }
    eprintln!("growth: targets");
    Ok(rows)
}
