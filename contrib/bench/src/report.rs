//! The session as a table, as JSON, and as a picture.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::edge;
use crate::peers::Peer;
use crate::session::{Sample, lost, number, workloads};

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Largest minus smallest, as a share of the median.
fn spread(values: &[f64]) -> f64 {
    let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), &v| (l.min(v), m.max(v)));
    let middle = median(values.to_vec());
    if values.is_empty() || middle == 0.0 { 0.0 } else { (most - least) / middle }
}

/// One row per workload and peer, medians over the rounds; a ratio is to the best peer of the same work. Where anything was
/// lost there are no figures.
pub fn rows(samples: &[Sample]) -> Vec<Value> {
    let mut rows = Vec::new();
    let own = workloads().into_iter().map(|workload| (workload.name, workload.what));
    for (name, what) in own.chain(edge::names()) {
        let mut peers: Vec<&str> = Vec::new();
        for sample in samples.iter().filter(|sample| sample.workload == name) {
            if !peers.contains(&sample.peer) {
                peers.push(sample.peer);
            }
        }
        let of = |peer: &str, what: &dyn Fn(&Sample) -> f64| -> Vec<f64> {
            samples.iter().filter(|s| s.workload == name && s.peer == peer).map(what).collect()
        };
        let best = |what: &dyn Fn(&Sample) -> f64| {
            let whole = |peer: &&&str| of(peer, &|s| lost(&s.told)).iter().sum::<f64>() == 0.0;
            let rivals = peers.iter().filter(|peer| Peer::is_rival(peer)).filter(whole);
            rivals.map(|peer| median(of(peer, what))).fold(f64::INFINITY, f64::min)
        };
        for peer in &peers {
            let errors = of(peer, &|s| lost(&s.told)).iter().sum::<f64>();
            let mut row = json!({ "workload": name, "what": what, "peer": peer, "errors": errors });
            rows.push(if errors > 0.0 {
                row
            } else {
                let told = |name: &'static str| median(of(peer, &|s| number(&s.told, name)));
                let cpu = of(peer, &|s| s.cpu[0]);
                let ratio = |value: f64, best: f64| {
                    if best.is_finite() && best > 0.0 && *peer != "direct" {
                        json!(value / best)
                    } else {
                        Value::Null
                    }
                };
                row["cpu_us"] = json!(median(cpu.clone()));
                row["cpu_spread"] = json!(spread(&cpu));
                row["user_us"] = json!(median(of(peer, &|s| s.cpu[1])));
                row["system_us"] = json!(median(of(peer, &|s| s.cpu[2])));
                row["cpu_ratio"] = ratio(median(cpu), best(&|s| s.cpu[0]));
                row["p99_ratio"] = ratio(told("p99_ms"), best(&|s| number(&s.told, "p99_ms")));
                for name in ["rps", "p50_ms", "p99_ms", "p999_ms"] {
                    row[name] = json!(told(name));
                }
                row
            });
        }
    }
    rows
}

/// The session for a terminal.
pub fn table(report: &Value) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", said(report, "machine"));
    for peer in list(report, "peers") {
        let _ = writeln!(text, "  {}: {}", said(peer, "name"), said(peer, "version"));
    }
    work(&mut text, report);
    idle(&mut text, report);
    calls(&mut text, report);
    growth(&mut text, report);
    targets(&mut text, report);
    changes(&mut text, report);
    apps(&mut text, report);
    replicas(&mut text, report);
    soak(&mut text, report);
    acceptance(&mut text, report);
    text
}

/// The rows of one kind; none where they were not measured.
pub fn list<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().map_or(&[], Vec::as_slice)
}

fn said<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

fn work(text: &mut String, report: &Value) {
    let mut last = "";
    for row in list(report, "rows") {
        if said(row, "workload") != last {
            last = said(row, "workload");
            let _ = writeln!(
                text,
                "\n{last}: {}\n  {:9} {:>8} {:>7} {:>7} {:>7} {:>6} {:>8} {:>8} {:>8} {:>8} {:>7}",
                said(row, "what"),
                "",
                "CPU us",
                "user",
                "system",
                "spread",
                "ratio",
                "req/s",
                "p50 ms",
                "p99 ms",
                "p99.9 ms",
                "of p99"
            );
        }
        if number(row, "errors") > 0.0 {
            let _ = writeln!(
                text,
                "  {:9} no figures: {} requests went wrong",
                said(row, "peer"),
                number(row, "errors")
            );
            continue;
        }
        let ratio = |name: &str| row[name].as_f64().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            text,
            "  {:9} {:>8.2} {:>7.2} {:>7.2} {:>6.0}% {:>6} {:>8.0} {:>8.2} {:>8.2} {:>8.2} {:>7}",
            said(row, "peer"),
            number(row, "cpu_us"),
            number(row, "user_us"),
            number(row, "system_us"),
            number(row, "cpu_spread") * 100.0,
            ratio("cpu_ratio"),
            number(row, "rps"),
            number(row, "p50_ms"),
            number(row, "p99_ms"),
            number(row, "p999_ms"),
            ratio("p99_ratio")
        );
    }
}

fn idle(text: &mut String, report: &Value) {
    if !list(report, "idle").is_empty() {
        let _ = writeln!(text, "\nW6: KiB of an idle kept connection (and the process before)");
    }
    for row in list(report, "idle") {
        let _ = writeln!(
            text,
            "  {:8} {:>7.2} ({:.0})",
            said(row, "peer"),
            number(row, "kib"),
            number(row, "base_kib")
        );
    }
}

fn calls(text: &mut String, report: &Value) {
    if !list(report, "calls").is_empty() {
        let _ = writeln!(text, "\nSystem calls a request");
    }
    for row in list(report, "calls") {
        let _ = writeln!(
            text,
            "  {:4} {:8} {:>7}",
            said(row, "workload"),
            said(row, "peer"),
            row["calls"].as_f64().map_or("-".to_owned(), |calls| format!("{calls:.2}"))
        );
    }
}

fn growth(text: &mut String, report: &Value) {
    if !list(report, "growth").is_empty() {
        let _ = writeln!(
            text,
            "\nGrowth (not pinned): threads, connections, CPU us a request, req/s, p50, p99 ms, memory in KiB"
        );
    }
    for row in list(report, "growth") {
        let told = &row["told"];
        let _ = write!(text, "  {:9} {} {:>6} ", said(row, "peer"), row["threads"], row["connections"]);
        let _ = if lost(told) > 0.0 {
            writeln!(text, "no figures: {} requests went wrong", lost(told))
        } else {
            writeln!(
                text,
                "{:>7.2} {:>8.0} {:>8.2} {:>8.2} {:>8}",
                number(row, "cpu_us"),
                number(told, "rps"),
                number(told, "p50_ms"),
                number(told, "p99_ms"),
                row["memory_kib"]
            )
        };
    }
}

fn targets(text: &mut String, report: &Value) {
    if !list(report, "targets").is_empty() {
        let _ = writeln!(
            text,
            "\nportok, 64 connections over some targets: threads, targets, CPU us a request, req/s, p99 ms, memory in KiB"
        );
    }
    for row in list(report, "targets") {
        let _ = write!(text, "  {} {} ", row["threads"], row["targets"]);
        let _ = if number(row, "errors") > 0.0 {
            writeln!(text, "no figures: {} requests went wrong", row["errors"])
        } else {
            writeln!(
                text,
                "{:>7.2} {:>8.0} {:>8.2} {:>8}",
                number(row, "cpu_us"),
                number(row, "rps"),
                number(row, "p99_ms"),
                row["memory_kib"]
            )
        };
    }
}

fn changes(text: &mut String, report: &Value) {
    let changes = &report["changes"];
    if changes.is_object() {
        let _ = writeln!(
            text,
            "\nChanges under full load (not pinned), one a second for {} s",
            changes["seconds"]
        );
        for kind in ["quiet", "switching_full", "deploying_full"] {
            let told = &changes[kind];
            let _ = writeln!(
                text,
                "  {kind:14} {:>8.0} req/s, p50 {:.2}, p99 {:.2}, p99.9 {:.2}, longest {:.1} ms, lost {}",
                number(told, "rps"),
                number(told, "p50_ms"),
                number(told, "p99_ms"),
                number(told, "p999_ms"),
                number(told, "max_ms"),
                lost(told)
            );
            if told["around"].is_object() {
                let _ = writeln!(
                    text,
                    "  {:14} p50 {:.2}, p99 {:.2} ms during a change and 100 ms after it; apart from them p50 {:.2}, p99 {:.2} ms",
                    "",
                    number(&told["around"], "p50_ms"),
                    number(&told["around"], "p99_ms"),
                    number(&told["apart"], "p50_ms"),
                    number(&told["apart"], "p99_ms")
                );
            }
        }
        for (name, what) in [
            ("switch_ms", "a switch, asked to answered: its probe, and two records on disk"),
            (
                "switch_healthy_until_first_request_ms",
                "of it, from the app's healthy answer to its first request",
            ),
            ("deploy_ms", "a deploy, asked to answered"),
            (
                "deploy_healthy_until_first_request_ms",
                "of it, from the app's healthy answer to its first request",
            ),
        ] {
            for (kind, load) in [("alone", "no load"), ("light", "one client"), ("full", "full load")] {
                let values: Vec<f64> = changes[format!("{name}_{kind}")]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_f64)
                    .collect();
                if values.is_empty() {
                    continue;
                }
                let most = values.iter().copied().fold(0.0, f64::max);
                let _ = writeln!(
                    text,
                    "  {what}, {load}: median {:.2} ms, longest {most:.2} ms, of {}",
                    median(values.clone()),
                    values.len()
                );
            }
        }
    }
}

fn apps(text: &mut String, report: &Value) {
    let apps = &report["apps"];
    if !apps.is_object() {
        return;
    }
    let (files, hosts) = (&apps["files"], &apps["hosts"]);
    let median_of = |name: &str| {
        let values: Vec<f64> =
            apps[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        format!("median {:.1} ms, longest {most:.1} ms, of {}", median(values.clone()), values.len())
    };
    let of = |name: String| (median_of(&format!("{name}_1")), median_of(&format!("{name}_{files}")));
    let (one, all) = of("ready_ms".to_owned());
    let _ = writeln!(text, "\nMany apps (not pinned)");
    let _ = writeln!(text, "  from exec to READY=1, one app: {one}");
    let _ = writeln!(text, "  from exec to READY=1, {files} apps: {all}");
    let _ = writeln!(text, "  memory of an app of a file: {:.2} KiB", number(apps, "kib_each"));
    let _ = writeln!(
        text,
        "  CPU us a request of 12 bytes, 64 connections: one app {:.2}, {files} apps {:.2}",
        number(apps, "cpu_us_1"),
        number(apps, &format!("cpu_us_{files}"))
    );
    let _ = writeln!(text, "  a reload that adds one app to {files}: {}", median_of("reload_ms"));
    let _ =
        writeln!(text, "  from its file to its first answer: {}", median_of("file_until_first_answer_ms"));
    let told = &apps["reloading"];
    let _ = writeln!(
        text,
        "  another app's client meanwhile: p99 {:.2} ms in a reload and 100 ms after it, {:.2} ms apart from them, lost {}",
        number(&told["around"], "p99_ms"),
        number(&told["apart"], "p99_ms"),
        lost(told)
    );
    if apps["redis_change_ms"].is_array() {
        let _ = writeln!(
            text,
            "  Redis, {hosts} hosts: {:.0} bytes each, from exec to the first answer {:.0} ms, a new host until it is answered {}",
            number(apps, "redis_bytes_each"),
            number(apps, "redis_start_until_answer_ms"),
            median_of("redis_change_ms")
        );
    }
}

fn replicas(text: &mut String, report: &Value) {
    let (deploys, held) = (&report["replicas"]["deploys"], &report["replicas"]["held"]);
    if !deploys.is_object() {
        return;
    }
    let _ = writeln!(text, "\nReplicas (not pinned)");
    for (name, load) in [("alone_ms", "no load"), ("full_ms", "full load")] {
        let values: Vec<f64> = list(deploys, name).iter().filter_map(Value::as_f64).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let (middle, count) = (median(values), list(deploys, name).len());
        let _ = writeln!(
            text,
            "  a deploy of {} processes, asked to answered, {load}: median {middle:.1} ms, longest {most:.1} ms, of {count}",
            deploys["replicas"]
        );
    }
    let _ = writeln!(text, "  requests lost meanwhile: {}", lost(&deploys["told"]));
    let _ = writeln!(
        text,
        "  {} held requests: {:.1} KiB each, {:.2} % of a CPU while they wait; all answered {:.0} ms after the resume, {:.1} us of CPU each, lost {}",
        held["requests"],
        number(held, "kib_each"),
        number(held, "cpu_share_while_held") * 100.0,
        number(held, "resume_ms"),
        number(held, "resume_cpu_us_each"),
        held["lost"]
    );
}

fn soak(text: &mut String, report: &Value) {
    let soak = &report["soak"];
    if soak.is_object() {
        let points: Vec<(f64, u64)> = serde_json::from_value(soak["memory_kib"].clone()).unwrap_or_default();
        let at = |share: usize| points.get((points.len().max(1) - 1) * share / 4).map_or(0, |point| point.1);
        let _ = writeln!(
            text,
            "\nSoak: {:.1} minutes, {} switches, {:.0} req/s, lost {}; memory in KiB at the start {}, then {}, {}, {}, at the end {}; the last quarter to the middle: {:.2}",
            number(soak, "minutes"),
            soak["switches"],
            number(&soak["told"], "rps"),
            lost(&soak["told"]),
            at(0),
            at(1),
            at(2),
            at(3),
            at(4),
            number(soak, "grown")
        );
    }
}

fn acceptance(text: &mut String, report: &Value) {
    if !list(report, "acceptance").is_empty() {
        let app = report["npm"]["app"].as_str().unwrap_or("not measured");
        let _ = writeln!(text, "\nnpm portok's benches and its acceptance (not pinned; the app: {app})");
    }
    for row in list(report, "acceptance") {
        let limit = row["limit"].as_f64().map_or(String::new(), |limit| {
            format!(" (limit {limit}): {}", if row["met"] == true { "met" } else { "NOT MET" })
        });
        let value = number(row, "value");
        let _ = writeln!(text, "  {:11} {}: {value:.2}{limit}", said(row, "bench"), said(row, "what"));
    }
}
