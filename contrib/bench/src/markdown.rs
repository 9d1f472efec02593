//! The table for the README: what each peer costs, work by work.

use std::fmt::Write;

use serde_json::Value;

use crate::report::list;

/// Rows of work, columns of peers, CPU microseconds a request; then system calls and memory.
pub fn table(report: &Value) -> String {
    let mut peers: Vec<String> = Vec::new();
    for row in list(report, "rows") {
        let peer = row["peer"].as_str().unwrap_or("").to_owned();
        // Large buffers stand in haproxy's own column, where they are better.
        if !["direct", "control", "haproxy64"].contains(&peer.as_str()) && !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    let mut text = format!(
        "| CPU µs a request | {} | to the best | p99 to the best |\n| --- |{} --- | --- |\n",
        peers.join(" | "),
        " --- |".repeat(peers.len())
    );
    let mut works: Vec<(String, String)> = Vec::new();
    for row in list(report, "rows") {
        let of = |name: &str| row[name].as_str().unwrap_or("").to_owned();
        if !of("workload").starts_with('C') && !works.iter().any(|(name, _)| *name == of("workload")) {
            works.push((of("workload"), of("what")));
        }
    }
    let figure = |value: Option<f64>, digits: usize| {
        value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    for (work, what) in &works {
        let rows = list(report, "rows");
        let of = |peer: &str, name: &str| {
            let row = rows.iter().find(|row| row["workload"] == work.as_str() && row["peer"] == peer);
            row.and_then(|row| row[name].as_f64())
        };
        let _ = write!(text, "| {work}: {what} |");
        for peer in &peers {
            let large = (peer == "haproxy").then(|| of("haproxy64", "cpu_us")).flatten();
            let value = of(peer, "cpu_us").into_iter().chain(large).reduce(f64::min);
            let _ = write!(text, " {} |", figure(value, 1));
        }
        let (cpu, p99) = (of("portok", "cpu_ratio"), of("portok", "p99_ratio"));
        let _ = writeln!(text, " **{}** | {} |", figure(cpu, 2), figure(p99, 2));
    }
    let mut line = |what: &str, from: &str, work: Option<&str>, name: &str| {
        let rows = list(report, from);
        let of = |peer: &str| {
            let is = |row: &&Value| row["peer"] == peer && work.is_none_or(|work| row["workload"] == work);
            rows.iter().find(is).and_then(|row| row[name].as_f64())
        };
        if rows.is_empty() {
            return;
        }
        let _ = write!(text, "| {what} |");
        for peer in &peers {
            let _ = write!(text, " {} |", figure(of(peer), 1));
        }
        let rivals = peers.iter().filter(|peer| *peer != "portok").filter_map(|peer| of(peer));
        let best = rivals.reduce(f64::min).filter(|best| *best > 0.0);
        let ratio = of("portok").zip(best).map(|(own, best)| own / best);
        let _ = writeln!(text, " {} | |", figure(ratio, 2));
    };
    line("system calls a request, W1", "calls", Some("W1"), "calls");
    line("system calls a request, W4", "calls", Some("W4"), "calls");
    line("W6: KiB of an idle connection", "idle", None, "kib");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::table;

    #[test]
    fn a_peer_without_figures_has_a_dash_and_large_buffers_count_for_haproxy() {
        let row = |peer: &str, cpu: Option<f64>| json!({ "workload": "W3", "what": "large", "peer": peer, "cpu_us": cpu, "cpu_ratio": 0.5 });
        let rows = [
            row("portok", Some(1.0)),
            row("haproxy", Some(4.0)),
            row("haproxy64", Some(2.0)),
            row("node", None),
            row("direct", Some(0.1)),
        ];
        let text = table(&json!({ "rows": rows }));
        assert!(text.contains("| CPU µs a request | portok | haproxy | node |"), "{text}");
        assert!(text.contains("| W3: large | 1.0 | 2.0 | – | **0.50** | – |"), "{text}");
    }
}
