//! The pictures: SVG, made of nothing but text.

use std::fmt::Write;

use serde_json::Value;

use crate::session::number;

/// Bars: CPU microseconds a request, workload by workload, each scaled to its longest bar.
pub fn bars(report: &Value) -> String {
    // The table of connections is one of figures.
    let shown = |row: &&Value| {
        let work = row["workload"].as_str().unwrap_or("");
        row["peer"] != "direct" && row["cpu_us"].is_number() && !work.starts_with('C')
    };
    let rows: Vec<&Value> = report["rows"].as_array().into_iter().flatten().filter(shown).collect();
    let mut body = String::new();
    let (mut y, mut last) = (34, "");
    for row in &rows {
        let workload = row["workload"].as_str().unwrap_or("");
        if workload != last {
            last = workload;
            y += 12;
            let what = row["what"].as_str().unwrap_or("");
            let _ = writeln!(
                body,
                r##"<text x="8" y="{}" font-weight="bold">{workload}: {what}</text>"##,
                y + 12
            );
            y += 18;
        }
        let of = |row: &&&Value| row["workload"] == workload;
        let most = rows.iter().filter(of).map(|row| number(row, "cpu_us")).fold(0.0, f64::max);
        let value = number(row, "cpu_us");
        let width = (value / most.max(0.001) * 480.0).max(1.0);
        let peer = row["peer"].as_str().unwrap_or("");
        let color = if peer == "portok" { "#d9480f" } else { "#868e96" };
        let _ = writeln!(
            body,
            r##"<text x="72" y="{0}" text-anchor="end">{peer}</text><rect x="80" y="{1}" width="{width:.0}" height="12" fill="{color}"/><text x="{2:.0}" y="{0}">{value:.1}</text>"##,
            y + 11,
            y + 1,
            86.0 + width
        );
        y += 16;
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{}" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/><text x="8" y="20" font-size="14">CPU microseconds of the proxy a request (less is better)</text>
{body}</svg>
"##,
        y + 12
    )
}

/// A line: memory over the time of a soak.
pub fn soak(soak: &Value) -> String {
    let points: Vec<(f64, u64)> = serde_json::from_value(soak["memory_kib"].clone()).unwrap_or_default();
    let long = points.iter().map(|point| point.0).fold(1.0, f64::max);
    let most = points.iter().map(|point| point.1).max().unwrap_or(1).max(1);
    let line: Vec<String> = points
        .iter()
        .map(|(at, kib)| {
            format!("{:.1},{:.1}", 60.0 + at / long * 560.0, 230.0 - *kib as f64 / most as f64 * 180.0)
        })
        .collect();
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="640" height="260" font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/><text x="8" y="20" font-size="14">Memory of portokd under load with a switch a second</text>
<path d="M60 50V230H620" fill="none" stroke="#868e96"/><text x="54" y="54" text-anchor="end">{:.1} MB</text><text x="54" y="234" text-anchor="end">0</text><text x="620" y="248" text-anchor="end">{:.1} min</text>
<polyline points="{}" fill="none" stroke="#d9480f" stroke-width="2"/></svg>
"##,
        most as f64 / 1024.0,
        long / 60.0,
        line.join(" ")
    )
}
