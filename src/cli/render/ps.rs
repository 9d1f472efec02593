//! `portok ps`: the processes and targets of each app, those of a release together.

use std::fmt::Write as _;
use std::time::SystemTime;

use anstyle::Style;

use super::tables::columns;
use super::words::{BAD, BUSY, DIM, GOOD, STRONG, cut, paint, plain, port, since};
use crate::wire::{ReplicaRole, ReplicaRow, ReplicaState, WEB, called};

/// The widest name of a process, in characters. `--json` has it in full.
const NAME: usize = 14;

/// The tables, at most 80 columns wide with usual numbers: first of processes, then of targets.
pub(crate) fn ps(rows: &[ReplicaRow], now: SystemTime) -> String {
    if rows.is_empty() {
        return "no processes and no targets\n".to_owned();
    }
    let several = rows.iter().any(|row| row.app != rows[0].app);
    let (targets, processes): (Vec<_>, Vec<_>) =
        grouped(rows).into_iter().partition(|row| row.address.is_some());
    let mut text = String::new();
    if !processes.is_empty() {
        let head = ["  NAME", "STATE", "PORT", "PID", "BUSY", "TUN", "REQS", "RESTARTS", "MEMORY", "UP"];
        let lines = columns(head, processes.iter().map(|row| process(row, now)));
        write_groups(&mut text, &processes, lines, several);
    }
    if !targets.is_empty() {
        let head = ["  TARGET", "STATE", "BUSY", "TUN", "REQS"];
        let lines = columns(head, targets.iter().map(|row| target(row)));
        write_groups(&mut text, &targets, lines, several);
    }
    text
}

/// The rows of a release in one role together, in the order of the first of each.
fn grouped(rows: &[ReplicaRow]) -> Vec<&ReplicaRow> {
    let of = |row: &ReplicaRow| rows.iter().position(|first| group_of(first) == group_of(row));
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_cached_key(|row| of(row));
    sorted
}

/// Whose rows stand below one line.
fn group_of(row: &ReplicaRow) -> (&str, Option<&str>, ReplicaRole) {
    (&row.app, row.release.as_deref(), row.role)
}

fn process(row: &ReplicaRow, now: SystemTime) -> [(Style, String); 10] {
    let name = plain(&called(row.process.as_deref(), row.replica, WEB));
    [
        (Style::new(), format!("  {}", cut(&name, NAME))),
        (state_style(row.state), row.state.as_str().to_owned()),
        (Style::new(), port(row.port)),
        (Style::new(), dash(row.pid.map(|pid| pid.to_string()))),
        (Style::new(), short(row.inflight)),
        (Style::new(), short(row.tunnels)),
        (Style::new(), short(row.requests)),
        (if row.restarts > 0 { BUSY } else { Style::new() }, short(row.restarts.into())),
        (Style::new(), dash(row.memory.map(memory))),
        (DIM, dash(row.started_at.as_deref().and_then(|at| up(at, now)))),
    ]
}

fn target(row: &ReplicaRow) -> [(Style, String); 5] {
    [
        (Style::new(), format!("  {}", plain(row.address.as_deref().unwrap_or_default()))),
        (state_style(row.state), row.state.as_str().to_owned()),
        (Style::new(), short(row.inflight)),
        (Style::new(), short(row.tunnels)),
        (Style::new(), short(row.requests)),
    ]
}

/// Writes a table, with a line before the rows of each release that says which it is.
fn write_groups(text: &mut String, rows: &[&ReplicaRow], lines: Vec<String>, several: bool) {
    let mut lines = lines.into_iter();
    lines.by_ref().take(1).for_each(|head| _ = writeln!(text, "{head}"));
    let mut group = None;
    for (row, line) in rows.iter().zip(lines) {
        let of = group_of(row);
        if group.replace(of) != Some(of) {
            _ = writeln!(text, "{}", title(row, several));
        }
        _ = writeln!(text, "{line}");
    }
}

/// Whose processes the following rows are.
fn title(row: &ReplicaRow, several: bool) -> String {
    let app = several.then(|| paint(STRONG, plain(&row.app)));
    let release = match &row.release {
        Some(release) => plain(release),
        None => "targets".to_owned(),
    };
    let style = if row.role == ReplicaRole::Live { GOOD } else { BUSY };
    let words = app.into_iter().chain([paint(STRONG, release), paint(style, row.role.as_str())]);
    words.collect::<Vec<_>>().join(" ")
}

fn state_style(state: ReplicaState) -> Style {
    match state {
        ReplicaState::Ready => GOOD,
        ReplicaState::Starting | ReplicaState::Draining | ReplicaState::Stopping => BUSY,
        ReplicaState::Ejected | ReplicaState::Waiting => BAD,
    }
}

fn dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// A count in few characters: `99999`, `1.2M`.
fn short(count: u64) -> String {
    match count {
        0..100_000 => count.to_string(),
        100_000..1_000_000 => format!("{}k", count / 1_000),
        _ => scaled(count, [(1_000_000_000, "G"), (1_000_000, "M")], ""),
    }
}

/// `84 MB`, `1.5 GB`: in the units of the configuration.
fn memory(bytes: u64) -> String {
    scaled(bytes / 1_000_000, [(1_000_000, " TB"), (1_000, " GB")], " MB")
}

/// `count` in the first unit that it has, with one place behind the point.
fn scaled(count: u64, units: [(u64, &str); 2], below: &str) -> String {
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{}.{}{name}", count / unit, count % unit * 10 / unit),
        None => format!("{count}{below}"),
    }
}

/// How long it has run, in one unit.
fn up(at: &str, now: SystemTime) -> Option<String> {
    Some(since(at, now)?.split(' ').next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(release: &str, role: ReplicaRole, replica: u16, state: ReplicaState) -> ReplicaRow {
        ReplicaRow {
            app: "api".into(),
            release: Some(release.into()),
            role,
            process: None,
            replica,
            state,
            address: None,
            port: Some(28_001 + replica),
            pid: Some(4_194_001),
            inflight: 3,
            tunnels: 1,
            requests: 1_234_567,
            restarts: 0,
            memory: Some(84_900_000),
            started_at: Some("2026-01-01T00:58:55Z".into()),
            last_exit: None,
        }
    }

    fn shown(rows: &[ReplicaRow]) -> String {
        let now = humantime::parse_rfc3339("2026-01-01T01:00:00Z").unwrap();
        let text = anstream::adapter::strip_str(&ps(rows, now)).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    #[test]
    fn processes_stand_below_their_release() {
        let waiting = ReplicaRow {
            port: None,
            pid: None,
            inflight: 0,
            tunnels: 0,
            requests: 0,
            restarts: 12,
            memory: None,
            started_at: None,
            ..row("v2", ReplicaRole::Live, 1, ReplicaState::Waiting)
        };
        let worker = ReplicaRow {
            process: Some("worker".into()),
            port: None,
            memory: Some(1_500_000_000),
            ..row("v2", ReplicaRole::Live, 0, ReplicaState::Ready)
        };
        let old = row("v1", ReplicaRole::Previous, 0, ReplicaState::Draining);
        // Companions come last, whosever they are.
        let rows = [row("v2", ReplicaRole::Live, 0, ReplicaState::Ready), waiting, old, worker];
        let expected = "\
\x20 NAME      STATE     PORT   PID      BUSY  TUN  REQS  RESTARTS  MEMORY  UP
v2 live
  web.0     ready     28001  4194001  3     1    1.2M  0         84 MB   1m
  web.1     waiting   -      -        0     0    0     12        -       -
  worker.0  ready     -      4194001  3     1    1.2M  0         1.5 GB  1m
v1 previous
  web.0     draining  28001  4194001  3     1    1.2M  0         84 MB   1m
";
        assert_eq!(shown(&rows), expected);
    }

    #[test]
    fn several_apps_are_named_and_targets_have_addresses() {
        let target = ReplicaRow {
            app: "shop".into(),
            release: None,
            address: Some("192.168.100.142:8080".into()),
            port: Some(8080),
            pid: None,
            memory: None,
            started_at: None,
            ..row("", ReplicaRole::Live, 0, ReplicaState::Ejected)
        };
        let told = shown(&[row("v2", ReplicaRole::Live, 0, ReplicaState::Ready), target]);
        assert!(told.contains("\napi v2 live\n"), "{told}");
        let expected = "  \
  TARGET                STATE    BUSY  TUN  REQS
shop targets live
  192.168.100.142:8080  ejected  3     1    1.2M
";
        assert!(told.ends_with(expected.trim_start()), "{told}");
        assert_eq!(shown(&[]), "no processes and no targets\n");
    }
}
