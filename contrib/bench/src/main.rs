//! Measures portok and its peers side by side; `contrib/bench/run` builds and calls it.
//!
//! `bench run` is the session, `bench backend` and `bench load` are the pieces that it starts. Everything stays on loopback,
//! is bounded in time and count, and ends with it.

mod acceptance;
mod apps;
mod arguments;
mod backend;
mod changes;
mod edge;
mod growth;
mod histogram;
mod load;
mod markdown;
mod peers;
mod picture;
mod process;
mod replicas;
mod report;
mod session;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::arguments::Arguments;

const HELP: &str = "contrib/bench/run [options]
  --quick            short rounds: a look, not a figure to quote
  --rounds N         rounds of each workload (default 5, quick 3)
  --seconds S        of each run (default 4, quick 1)
  --only W1,W2,...   these: W1 W1b W2 W3 W4 W5 W7, connections, W6 (idle memory), calls (system calls), growth, changes, apps, replicas,
                     edge (wrk, TLS, HTTP/2, gRPC; alone E1 to E5, T1 T3 T5, H1, G1), acceptance (npm portok's benches)
  --peers a,b,...    these peers: portok, nginx, haproxy, pingora, node
  --control          portok twice: how far two equals are apart in this session
  --unpinned         proxy, backend and load on all CPUs, portok and its peers with 2 threads
  --growth           also 1 and 2 threads, 10 to 10,000 connections, 1 to 8 targets
  --soak MINUTES     also load with a switch a second, and the memory meanwhile
  --markdown FILE    the README's table
  --from FILE        tells an earlier session's --json again, measures nothing
  --json [FILE]      the whole as JSON, on standard output or into a file
  --svg FILE         a picture of the CPU a request; FILE-soak.svg is one of the memory
  --pingora          build that peer first";

fn main() -> Result<(), Box<dyn Error>> {
    let args = Arguments::of_this_process();
    match args.verb() {
        Some("backend") => {
            let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
            backend::run(port, args.has("--until-eof"))?;
        }
        Some("load") => {
            let load = load::Load {
                port: args.number("--port", 0)?,
                host: args.value("--host").unwrap_or(load::BENCH).to_owned(),
                path: args.value("--path").unwrap_or("/").to_owned(),
                connections: args.number("--connections", 64)?,
                duration: Duration::from_millis(args.number("--millis", 60_000)?),
                requests: args.number("--requests", u64::MAX)?,
                body: args.number("--body", 0)?,
                fresh: args.has("--fresh"),
                browser: args.has("--browser"),
                message: args.number("--message", 0)?,
                moments: args.has("--moments"),
            };
            println!("{}", load.run()?.to_json());
        }
        Some("run") if !args.has("--help") => run(&args)?,
        _ => println!("{HELP}"),
    }
    Ok(())
}

fn run(args: &Arguments) -> Result<(), Box<dyn Error>> {
    if let Some(file) = args.value("--from") {
        return tell(args, &serde_json::from_str(&std::fs::read_to_string(file)?)?);
    }
    let quick = args.has("--quick");
    let cpus = std::thread::available_parallelism()?.get();
    let folder = PathBuf::from(args.value("--folder").ok_or("--folder is missing: call contrib/bench/run")?);
    let options = session::Options {
        folder,
        duration: Duration::from_secs_f64(args.number("--seconds", if quick { 1.0 } else { 4.0 })?),
        rounds: args.number("--rounds", if quick { 3 } else { 5 })?,
        cpu: (!args.has("--unpinned")).then_some(cpus - 1),
        threads: if args.has("--unpinned") { 2 } else { 1 },
        quick,
        only: args.list("--only"),
    };
    let bin = PathBuf::from(args.value("--bin").unwrap_or("target/release"));
    let bench = PathBuf::from(args.value("--bench").unwrap_or("contrib/bench"));
    let (mut peers, mut missing) = peers::find(&bin, &bench);
    missing.extend(edge::missing());
    for line in &missing {
        eprintln!("{line}");
    }
    let wanted = args.list("--peers");
    // "haproxy" means both of its settings.
    peers.retain(|peer| wanted.is_empty() || wanted.iter().any(|name| peer.name.starts_with(name.as_str())));
    let portok = peers.iter().find(|peer| peer.name == "portok").cloned();
    if args.has("--control") {
        peers.extend(portok.iter().map(peers::Peer::control));
    }

    let mut samples = session::side_by_side(&options, &peers)?;
    if options.wants("replicas") {
        samples.extend(replicas::side_by_side(&options, &peers)?);
    }
    samples.extend(edge::side_by_side(&options, &peers)?);
    let rows = report::rows(&samples);
    let idle = if options.wants("W6") { session::idle_memory(&options, &peers)? } else { Vec::new() };
    let calls = if options.wants("calls") { session::system_calls(&options, &peers)? } else { Vec::new() };
    let grow = args.has("--growth") || options.only.iter().any(|only| only == "growth");
    let growth = if grow { growth::connections(&options, &peers)? } else { Vec::new() };
    let targets = match &portok {
        Some(portok) if grow => growth::targets(&options, portok)?,
        _ => Vec::new(),
    };
    let changes = match &portok {
        Some(portok) if options.wants("changes") => changes::changes(&options, portok)?,
        _ => json!(null),
    };
    let apps = match &portok {
        Some(portok) if options.wants("apps") => apps::measure(&options, portok)?,
        _ => json!(null),
    };
    let replicas = match &portok {
        Some(portok) if options.wants("replicas") => replicas::measure(&options, portok)?,
        _ => json!(null),
    };
    let soak = match (&portok, args.value("--soak")) {
        (Some(portok), Some(minutes)) => changes::soak(&options, portok, minutes.parse()?)?,
        _ => json!(null),
    };
    let npm = match &portok {
        Some(portok) if options.wants("acceptance") => acceptance::measure(&options, portok, &bench)?,
        _ => json!(null),
    };
    let acceptance = acceptance::rows(&npm, &rows, &changes);
    let report = json!({
        "machine": machine(&options, cpus),
        "command": args.line(),
        "peers": peers.iter().map(|peer| json!({ "name": peer.name, "version": peer.version })).collect::<Vec<_>>(),
        "missing": missing, "rows": rows, "idle": idle, "calls": calls, "growth": growth, "targets": targets, "changes": changes,
        "apps": apps, "replicas": replicas,
        "soak": soak, "npm": npm, "acceptance": acceptance,
    });
    tell(args, &report)
}

/// Prints the report and writes the files that were asked for.
fn tell(args: &Arguments, report: &serde_json::Value) -> Result<(), Box<dyn Error>> {
    if let Some(file) = args.value("--markdown") {
        std::fs::write(file, markdown::table(report))?;
    }
    if let Some(file) = args.value("--svg") {
        std::fs::write(file, picture::bars(report))?;
        if report["soak"].is_object() {
            std::fs::write(file.replace(".svg", "") + "-soak.svg", picture::soak(&report["soak"]))?;
        }
    }
    match args.value("--json") {
        Some(file) => std::fs::write(file, serde_json::to_string_pretty(report)?)?,
        None if args.has("--json") => {
            println!("{}", serde_json::to_string_pretty(report)?);
            return Ok(());
        }
        None => (),
    }
    print!("{}", report::table(report));
    Ok(())
}

/// The machine in a line: what the figures depend on.
fn machine(options: &session::Options, cpus: usize) -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ' ', ':']);
    let pinned =
        options.cpu.map_or("all CPUs".to_owned(), |cpu| format!("proxy, backend and load on CPU {cpu}"));
    format!(
        "{cpus} x {model}, kernel {}, congestion control {}, load {}, {pinned}, {} rounds of {} s",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or(""),
        options.rounds,
        options.duration.as_secs_f64()
    )
}
