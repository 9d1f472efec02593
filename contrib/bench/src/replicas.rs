//! Several apps behind one proxy: what a request costs there, what a deploy of eight takes, and what a thousand requests cost
//! that are held.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::changes::{millis, post, under_load};
use crate::load::BENCH;
use crate::peers::{Behind, DRAIN, Peer, REPLICAS};
use crate::process::Process;
use crate::session::{Options, Sample, rounds, small, workloads};

/// How many processes a deploy starts.
const DEPLOYED: usize = 8;
/// How many requests are held.
const HELD: usize = 1_000;
/// How long they are held at least.
const HELD_FOR: Duration = Duration::from_secs(5);

/// The peers before three apps each, in turns.
pub fn side_by_side(options: &Options, peers: &[Peer]) -> io::Result<Vec<Sample>> {
    let apps: Vec<_> = (0..3).map(|_| Process::backend(options.cpu)).collect::<io::Result<_>>()?;
    let ports: Vec<u16> = apps.iter().map(|(_, port)| *port).collect();
    let mut running = Vec::new();
    for peer in peers.iter().filter(|peer| Peer::takes_part(peer.name, REPLICAS)) {
        let behind = Behind::all(&ports);
        match peer.start_before(&options.folder, &behind, options.threads, options.cpu, DRAIN) {
            Ok(peer) => running.push(peer),
            Err(error) => eprintln!("{} is left out: {error}", peer.name),
        }
    }
    let query: Vec<_> = ports.iter().map(|port| format!("port={port}")).collect();
    for portok in running.iter().filter(|running| running.is_portok()) {
        post(&portok.socket(), &format!("switch?{}", query.join("&")), "")?;
    }
    let work = workloads().into_iter().find(|workload| workload.name == REPLICAS);
    work.map_or(Ok(Vec::new()), |work| rounds(options, &work, &running, None))
}

/// What a deploy of eight takes, and what held requests cost.
pub fn measure(options: &Options, portok: &Peer) -> io::Result<Value> {
    Ok(json!({ "deploys": deploys(options, portok)?, "held": held(options, portok)? }))
}

/// Deploys of eight processes, without load and under full load.
fn deploys(options: &Options, portok: &Peer) -> io::Result<Value> {
    let program = std::env::current_exe()?;
    let app = format!("command = [\"{}\", \"backend\"]\nreplicas = {DEPLOYED}", program.display());
    let behind = Behind { app, ports: Vec::new() };
    let running = portok.start_before(&options.folder, &behind, options.threads, None, DRAIN)?;
    let deploy = |_| post(&running.socket(), "deploy", "{}");
    // The first one is under way already.
    wait_until_served(running.port)?;
    eprintln!("replicas: deploys, no load");
    let alone: Vec<f64> = (0..10).map(|number| Ok(millis(&deploy(number)?))).collect::<io::Result<_>>()?;
    eprintln!("replicas: deploys, full load");
    let duration = Duration::from_secs(if options.quick { 5 } else { 20 });
    let (told, changes) = under_load(running.port, &small(), duration, deploy)?;
    let loaded: Vec<f64> = changes.iter().map(|change| millis(&change.took)).collect();
    Ok(json!({ "replicas": DEPLOYED, "alone_ms": alone, "full_ms": loaded, "told": told }))
}

fn wait_until_served(port: u16) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if ask(port)?.1.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("nothing is served"))
}

/// Sends a request over a connection of its own, and reads what comes of its answer.
fn ask(port: u16) -> io::Result<(TcpStream, String)> {
    let mut stream = send(port)?;
    let answer = answer(&mut stream)?;
    Ok((stream, answer))
}

fn send(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {BENCH}\r\n\r\n")?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// A thousand requests that wait: the CPU meanwhile, and the time and CPU until the last one is answered.
fn held(options: &Options, portok: &Peer) -> io::Result<Value> {
    eprintln!("replicas: held requests");
    let (_backend, backend_port) = Process::backend(None)?;
    let running = portok.start(&options.folder, backend_port, options.threads, None)?;
    post(&running.socket(), "pause?for=60s", "")?;
    let empty = running.process.memory();
    let mut waiting: Vec<TcpStream> = (0..HELD).map(|_| send(running.port)).collect::<io::Result<_>>()?;
    // All of them have been read by then, however busy the machine is.
    std::thread::sleep(Duration::from_secs(1));
    let memory = running.process.memory().saturating_sub(empty);
    let (before, began) = (running.process.cpu(), Instant::now());
    std::thread::sleep(HELD_FOR);
    let while_held = (running.process.cpu().total - before.total) / began.elapsed().as_secs_f64();
    let (before, began) = (running.process.cpu(), Instant::now());
    post(&running.socket(), "resume", "")?;
    let mut lost = 0;
    for stream in &mut waiting {
        lost += usize::from(!answer(stream)?.starts_with("HTTP/1.1 200"));
    }
    let resumed = began.elapsed();
    let cpu = running.process.cpu().total - before.total;
    Ok(json!({ "requests": HELD, "kib_each": memory as f64 / HELD as f64, "cpu_share_while_held": while_held,
        "resume_ms": millis(&resumed), "resume_cpu_us_each": cpu * 1e6 / HELD as f64, "lost": lost }))
}
