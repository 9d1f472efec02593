//! `portok metrics`, and the columns of every table.

use std::fmt::Write as _;
use std::time::SystemTime;

use anstyle::Style;

use super::words::{BAD, DIM, GOOD, ago, paint, plain};
use crate::wire::Metrics;

/// The lines of a table: cells under their headings, two blanks between columns.
pub(super) fn columns<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [(Style, String); N]>,
) -> Vec<String> {
    let mut table = vec![head.map(|name| (DIM, name.to_owned()))];
    table.extend(rows);
    let widths: [usize; N] =
        std::array::from_fn(|n| table.iter().map(|row| row[n].1.chars().count()).max().unwrap_or(0));
    let line = |cells: &[(Style, String); N]| {
        let mut line = String::new();
        for ((style, cell), width) in cells.iter().zip(widths) {
            // An empty cell is not painted, because codes for colour would keep the line's end from
            // being trimmed.
            let painted = if cell.is_empty() { String::new() } else { paint(*style, cell) };
            _ = write!(line, "{painted}{:gap$}", "", gap = width - cell.chars().count() + 2);
        }
        line.trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

/// The metrics as text.
pub(crate) fn metrics(metrics: &Metrics, now: SystemTime) -> String {
    let mut text = String::new();
    let mut row =
        |name: &str, value: String| _ = writeln!(text, "{} {value}", paint(DIM, format_args!("{name:<14}")));
    row("started", ago(&metrics.started_at, now));
    row("requests", format!("{} ({:.1} a second)", metrics.total_requests, metrics.rolling_rps60));
    row("in flight", format!("{} (at most {})", metrics.inflight, metrics.inflight_max));
    let classes: Vec<_> =
        metrics.status_counters.iter().map(|(class, n)| format!("{} {n}", plain(class))).collect();
    row("answers", if classes.is_empty() { "-".to_owned() } else { classes.join("  ") });
    row("proxy errors", metrics.total_proxy_errors.to_string());
    if let Some(error) = &metrics.last_proxy_error {
        let told = format!("{}: {}, {}", plain(&error.code), plain(&error.message), ago(&error.at, now));
        row("last error", told);
    }
    let health = &metrics.health;
    row(
        "health",
        match &health.last_checked_at {
            None => "not checked yet".to_owned(),
            Some(at) if health.active_port_ok => format!("{}, checked {}", paint(GOOD, "ok"), ago(at, now)),
            Some(at) => {
                let fails = format_args!("{} failed in a row", health.consecutive_fails);
                format!("{}, checked {}", paint(BAD, fails), ago(at, now))
            }
        },
    );
    if let Some(n) = metrics.upstream_sockets_created {
        row("app sockets", format!("{n} opened"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HealthMetrics, ProxyErrorView};

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T01:00:00Z").unwrap()
    }

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn metrics_are_a_list_of_names_and_numbers() {
        let answer = Metrics {
            started_at: "2026-01-01T00:00:00Z".into(),
            inflight: 2,
            inflight_max: 17,
            total_requests: 1200,
            total_proxy_errors: 1,
            status_counters: [("2xx".to_owned(), 1190), ("5xx".to_owned(), 10)].into(),
            rolling_rps60: 12.34,
            health: HealthMetrics {
                active_port_ok: true,
                last_checked_at: Some("2026-01-01T00:59:55Z".into()),
                consecutive_fails: 0,
            },
            last_proxy_error: Some(ProxyErrorView {
                code: "upstream_refused".into(),
                message: "connection refused".into(),
                at: "2026-01-01T00:30:00Z".into(),
            }),
            instance: None,
            access_dropped: None,
            upstream_sockets_created: None,
        };
        let expected = "\
started        1h 0m ago
requests       1200 (12.3 a second)
in flight      2 (at most 17)
answers        2xx 1190  5xx 10
proxy errors   1
last error     upstream_refused: connection refused, 30m 0s ago
health         ok, checked 5s ago
";
        assert_eq!(stripped(&metrics(&answer, now())), expected);
    }
}
