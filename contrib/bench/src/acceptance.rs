//! npm portok's own benches with its figures: baseline, connections, keepalive, latency, switching, throughput, validate.
//!
//! Like there, the app is an ordinary server of node's and everything has all CPUs: the question is how much of an app's
//! own speed is left behind the proxy. Without node the bench's own backend stands in, which answers ten times as
//! fast and leaves no proxy a fair share; the report says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Load;
use crate::peers::{Peer, free_port};
use crate::process::{Process, pinned_command, says, wait_for};
use crate::report::median;
use crate::session::{Options, lost, number, run_load, small};

/// What is measured, and with how many kept connections.
const BENCHES: [(&str, usize); 3] = [("throughput", 100), ("latency", 10), ("keepalive", 50)];

/// An app, and what it is.
fn app(options: &Options, bench: &Path) -> io::Result<(Process, u16, String)> {
    let Some(version) = says("node", &["--version"]) else {
        let (backend, port) = Process::backend(None)?;
        return Ok((backend, port, "the bench's own backend, as node is not there".to_owned()));
    };
    let port = free_port()?;
    let mut command = pinned_command(None, "node");
    command.arg(bench.join("app.js")).arg(port.to_string());
    let process = Process::start(&mut command, &options.folder.join("app.log"))?;
    let answers = || TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok();
    if !wait_for(Duration::from_secs(20), answers) {
        return Err(io::Error::other("node's app does not answer"));
    }
    Ok((process, port, format!("a server of node {version}")))
}

/// Direct and through portok, in turns.
pub fn measure(options: &Options, portok: &Peer, bench: &Path) -> io::Result<Value> {
    let (_app, direct, what) = app(options, bench)?;
    let running = portok.start(&options.folder, direct, 2, None)?;
    let mut report = json!({ "app": what });
    for (name, connections) in BENCHES {
        let load = Load { connections, ..small() };
        let mut told = [Vec::new(), Vec::new()];
        for round in 0..options.rounds {
            let there = [(0, direct), (1, running.port)];
            for at in 0..2 {
                let (who, port) = there[(at + round) % 2];
                told[who].push(run_load(&load, port, options.duration, None)?);
            }
        }
        for (who, told) in ["direct", "portok"].into_iter().zip(&told) {
            let of = |name: &str| median(told.iter().map(|told| number(told, name)).collect());
            report[name][who] = json!({ "rps": of("rps"), "p50_ms": of("p50_ms"), "p99_ms": of("p99_ms"),
                "errors": told.iter().map(lost).sum::<f64>() });
        }
        eprintln!("acceptance: {name}");
    }
    Ok(report)
}

/// The rows: what was measured, and whether it is as good as it has to be.
pub fn rows(measured: &Value, rows: &[Value], changes: &Value) -> Vec<Value> {
    let mut checks = Vec::new();
    let mut check = |bench: &str, what: &str, value: f64, limit: Option<(f64, bool)>| {
        let met = limit.map(|(limit, least)| if least { value >= limit } else { value <= limit });
        let limit = limit.map(|(limit, _)| limit);
        checks.push(json!({ "bench": bench, "what": what, "value": value, "limit": limit, "met": met }));
    };
    let (least, most) = (|limit: f64| Some((limit, true)), |limit: f64| Some((limit, false)));
    let mut wrong = 0.0;
    if measured.is_object() {
        let of = |bench: &str, who: &str, name: &str| number(&measured[bench][who], name);
        let share = |bench: &str| of(bench, "portok", "rps") / of(bench, "direct", "rps").max(1.0);
        let added = |name: &str| of("latency", "portok", name) - of("latency", "direct", name);
        check("baseline", "direct requests a second", of("throughput", "direct", "rps"), None);
        check("baseline", "direct p50, ms", of("latency", "direct", "p50_ms"), None);
        check("throughput", "share of direct, at least", share("throughput"), least(0.3));
        check("latency", "added to p50, ms, at most", added("p50_ms"), most(10.0));
        check("latency", "added to p99, ms, at most", added("p99_ms"), most(50.0));
        check("keepalive", "share of direct, at least", share("keepalive"), least(0.7));
        wrong += BENCHES.iter().map(|(bench, _)| of(bench, "portok", "errors")).sum::<f64>();
    }
    let portok = |row: &&Value| row["peer"] == "portok";
    let scaling = |row: &&Value| row["workload"].as_str().is_some_and(|name| name.starts_with('C'));
    let table: Vec<&Value> = rows.iter().filter(portok).filter(scaling).collect();
    if !table.is_empty() {
        let lost: f64 = table.iter().map(|row| number(row, "errors")).sum();
        check("connections", "requests lost with 10 to 500 of them (C10 to C500 above)", lost, most(0.0));
    }
    if changes.is_object() {
        for kind in ["switching", "deploying"] {
            let told = &changes[format!("{kind}_full")];
            check("switching", &format!("requests lost while {kind}"), lost(told), most(0.0));
        }
    }
    wrong += rows.iter().filter(portok).map(|row| number(row, "errors")).sum::<f64>();
    check("validate", "answers through portok that were not whole and 200", wrong, most(0.0));
    checks
}
