//! `releases` and `metrics`.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::words::{BAD, BUSY, DIM, GOOD, STRONG, ago, cut, paint, plain, port};
use crate::wire::{Metrics, Outcome, ReleaseRow};

/// The widest command and reason in a table; `--json` has them whole.
const WIDEST: usize = 60;

/// The known releases, newest first.
pub(crate) fn releases(rows: &[ReleaseRow], now: SystemTime) -> String {
    if rows.is_empty() {
        return "no releases yet".to_owned();
    }
    let mut table =
        vec![["RELEASE", "OUTCOME", "PORT", "STARTED", "SWITCHED", "EXIT", "COMMAND"].map(str::to_owned)];
    let moment = |at: &Option<String>| at.as_deref().map_or_else(|| "-".to_owned(), |at| ago(at, now));
    for row in rows {
        table.push([
            plain(&row.release),
            row.outcome.map_or("under way", Outcome::as_str).to_owned(),
            port(row.port),
            moment(&row.started_at),
            moment(&row.switched_at),
            row.exit.as_deref().map_or_else(|| "-".to_owned(), plain),
            row.command
                .as_ref()
                .map_or_else(|| "-".to_owned(), |command| cut(&plain(&command.to_string()), WIDEST)),
        ]);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for (n, cells) in table.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let padding = widths[column] - cell.chars().count();
            let style = match (n.checked_sub(1).map(|n| &rows[n]), column) {
                (None, _) => DIM,
                (Some(_), 0) => STRONG,
                (Some(row), 1) => outcome_style(row.outcome),
                _ => anstyle::Style::new(),
            };
            let gap = if column + 1 == cells.len() { 0 } else { padding + 2 };
            _ = write!(line, "{}{:gap$}", paint(style, cell), "");
        }
        _ = writeln!(text, "{}", line.trim_end());
        if let Some(reason) = n.checked_sub(1).and_then(|n| rows[n].reason.as_deref()) {
            _ = writeln!(
                text,
                "{:width$}  {}",
                "",
                paint(DIM, cut(&plain(reason), WIDEST + 40)),
                width = widths[0]
            );
        }
    }
    text
}

fn outcome_style(outcome: Option<Outcome>) -> anstyle::Style {
    match outcome {
        Some(Outcome::Live) => GOOD,
        Some(Outcome::Aborted | Outcome::RolledBack) => BAD,
        None | Some(Outcome::Cancelled | Outcome::Interrupted) => BUSY,
    }
}

/// The numbers.
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
    use crate::wire::{CommandLine, HealthMetrics, ProxyErrorView};

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T01:00:00Z").unwrap()
    }

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn releases_stand_in_columns_with_their_reason_below() {
        let at = |text: &str| Some(format!("2026-01-01T{text}Z"));
        let row = |release: &str, outcome, reason: Option<&str>| ReleaseRow {
            release: release.into(),
            command: Some(CommandLine::Shell("node app.js".into())),
            outcome,
            started_at: at("00:59:00"),
            switched_at: None,
            stopped_at: None,
            exit: reason.map(|_| "exit status 1".into()),
            port: Some(41873),
            reason: reason.map(Into::into),
        };
        let rows = [row("v3", None, None), row("release-2", Some(Outcome::Aborted), Some("it exited"))];
        let expected = "\
RELEASE    OUTCOME    PORT   STARTED    SWITCHED  EXIT           COMMAND
v3         under way  41873  1m 0s ago  -         -              node app.js
release-2  aborted    41873  1m 0s ago  -         exit status 1  node app.js
           it exited
";
        assert_eq!(stripped(&releases(&rows, now())), expected);
        assert_eq!(releases(&[], now()), "no releases yet");
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
