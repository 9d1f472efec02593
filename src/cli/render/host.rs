//! The texts of the host commands: reports, the table of instances, the doctor's checks, lines of
//! the journal.

use std::fmt::Write as _;

use anstyle::Style;

use super::tables::columns;
use super::words::{ADVICE, BAD, BUSY, DIM, GOOD, STRONG, count, paint, phase_style, plain, port};
use crate::host::{Check, CheckVerdict, HostReport, InstanceRow, JournalLine, JournalSource};
use crate::wire::{AppRow, Replicas};

/// A report: what was done, what else to know, what to type next.
pub(crate) fn report(report: &HostReport) -> String {
    let mut text = String::new();
    if report.dry_run && !report.steps.is_empty() {
        _ = writeln!(text, "{}", paint(BUSY, "nothing is done yet; this would be:"));
    }
    let width = report.steps.iter().map(|step| step.action.len()).max().unwrap_or(0);
    for step in &report.steps {
        let style = match step.action {
            "unchanged" | "kept" => DIM,
            "removed" | "would remove" => BUSY,
            _ => GOOD,
        };
        let action = paint(style, format_args!("{:<width$}", step.action));
        _ = writeln!(text, "{action}  {}", plain(&step.subject));
    }
    for step in &report.steps {
        let Some(content) = &step.text else { continue };
        _ = writeln!(text, "\n{}", paint(STRONG, format_args!("{}:", plain(&step.subject))));
        content.lines().for_each(|line| _ = writeln!(text, "{}", format!("  {}", plain(line)).trim_end()));
    }
    for note in &report.notes {
        _ = writeln!(text, "{}", self::note(note));
    }
    if !report.next.is_empty() {
        _ = writeln!(text, "{}", paint(ADVICE, "next:"));
        let width = report.next.iter().map(|next| next.command.chars().count()).max().unwrap_or(0);
        for next in &report.next {
            let command = paint(STRONG, format_args!("{:<width$}", plain(&next.command)));
            _ = writeln!(text, "  {command}  {}", paint(DIM, plain(&next.purpose)));
        }
    }
    if text.is_empty() { "there is nothing to do".to_owned() } else { text }
}

/// Something else to know.
pub(crate) fn note(note: &str) -> String {
    format!("{} {}", paint(BUSY, "note:"), plain(note))
}

/// The table of instances.
pub(crate) fn instances(rows: &[InstanceRow]) -> String {
    if rows.is_empty() {
        return "no instances yet; make one: portok add NAME --cmd \"node server.js\"".to_owned();
    }
    let head = ["NAME", "LISTEN", "PHASE", "LIVE", "PORT", "PID", "UNIT", "CONFIG"];
    let cells = rows.iter().flat_map(|row| {
        let live = row.live.as_ref();
        let unit = row.unit.as_ref().map_or_else(
            || "-".to_owned(),
            |unit| {
                if unit.enabled { format!("{}, enabled", plain(&unit.active)) } else { plain(&unit.active) }
            },
        );
        let own = [
            (STRONG, plain(&row.name)),
            (Style::new(), row.listen.as_deref().map_or_else(|| "?".to_owned(), plain)),
            phase_of(row),
            (Style::new(), live_of(live.map(|live| live.release.as_str()), row.replicas)),
            (Style::new(), port(live.and_then(|live| live.port))),
            (Style::new(), pid_of(row)),
            (if unit.starts_with("failed") { BAD } else { Style::new() }, unit),
            (DIM, place_of(row)),
        ];
        std::iter::once(own).chain(row.apps.iter().flatten().map(|app| app_cells(&row.name, app)))
    });
    let mut text = String::new();
    columns(head, cells).iter().for_each(|line| _ = writeln!(text, "{line}"));
    for row in rows {
        for (app, error) in row.apps.iter().flatten().filter_map(|app| Some((app, app.error.as_ref()?))) {
            let named = format!("! {}/{}:", plain(&row.name), plain(&app.app));
            error.lines().for_each(|line| _ = writeln!(text, "{} {}", paint(BAD, &named), plain(line)));
        }
        for error in row.errors.iter().flat_map(|error| error.lines()) {
            _ = writeln!(text, "{} {}", paint(BAD, format_args!("! {}:", plain(&row.name))), plain(error));
        }
    }
    text
}

/// The phase of an instance's app, or how many apps it has.
fn phase_of(row: &InstanceRow) -> (Style, String) {
    match (&row.apps, row.phase) {
        (Some(apps), _) => (Style::new(), count(apps.len() as u64, "app")),
        (None, Some(phase)) => (phase_style(phase), phase.as_str().to_owned()),
        (None, None) => match row.unit.as_ref().map(|unit| unit.active.as_str()) {
            Some("active" | "activating" | "reloading") => (BUSY, "no answer".to_owned()),
            _ => (DIM, "down".to_owned()),
        },
    }
}

/// What is live, and how much of it where there are several.
fn live_of(release: Option<&str>, replicas: Option<Replicas>) -> String {
    let release = release.map_or_else(|| "-".to_owned(), plain);
    match replicas.filter(|replicas| replicas.wanted > 1 || replicas.ready > 1) {
        Some(Replicas { ready, wanted }) => format!("{release} {ready}/{wanted}"),
        None => release,
    }
}

/// The process of an instance's app; of one with several apps: its daemon's.
fn pid_of(row: &InstanceRow) -> String {
    let app = row.live.as_ref().and_then(|live| live.pid).map(|pid| pid.to_string());
    let daemon = row.apps.as_ref().and(row.daemon_pid).map(|pid| format!("{pid} (portokd)"));
    app.or(daemon).unwrap_or_else(|| "-".to_owned())
}

/// One app of several, below its instance.
fn app_cells(instance: &str, app: &AppRow) -> [(Style, String); 8] {
    let none = || (Style::new(), String::new());
    [
        (STRONG, format!("  {}/{}", plain(instance), plain(&app.app))),
        none(),
        (phase_style(app.phase), app.phase.as_str().to_owned()),
        (Style::new(), live_of(app.live.as_deref(), app.replicas)),
        none(),
        none(),
        none(),
        none(),
    ]
}

/// The files of an instance, or its socket if it has none.
fn place_of(row: &InstanceRow) -> String {
    match &row.socket {
        Some(socket) => format!("no file; {}", plain(socket)),
        None => plain(&row.files.join(" + ")),
    }
}

/// One line per check, with its advice below.
pub(crate) fn checks(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let (style, mark) = match check.verdict {
            CheckVerdict::Good => (GOOD, "✓"),
            CheckVerdict::Warning => (BUSY, "!"),
            CheckVerdict::Bad => (BAD, "✗"),
        };
        _ = writeln!(text, "{} {}", paint(style, mark), plain(&check.text));
        if let Some(hint) = &check.hint {
            _ = writeln!(text, "    {} {}", paint(ADVICE, "→"), plain(hint));
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (n_bad, n_warnings) = (count(CheckVerdict::Bad), count(CheckVerdict::Warning));
    _ = match (n_bad, n_warnings) {
        (0, 0) => writeln!(text, "{}", paint(GOOD, "all is well")),
        (0, n) => writeln!(text, "{}", paint(BUSY, format_args!("all works, {n} to look at"))),
        (n, _) => writeln!(text, "{}", paint(BAD, format_args!("{n} to mend"))),
    };
    text
}

/// Lines of the journal.
pub(crate) fn journal_lines(lines: &[JournalLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let release = line.release.as_deref().unwrap_or("app");
        let (style, who) = match (line.source, &line.app) {
            (JournalSource::App, Some(app)) => (DIM, format!("{}/{}", plain(app), plain(release))),
            (JournalSource::App, None) => (DIM, plain(release)),
            (JournalSource::Daemon, Some(app)) => (ADVICE, format!("portokd/{}", plain(app))),
            (JournalSource::Daemon, None) => (ADVICE, "portokd".to_owned()),
        };
        let mark = match line.priority {
            0..=3 => paint(BAD, "err"),
            4 => paint(BUSY, "err"),
            _ => paint(DIM, "out"),
        };
        let mut said = plain(&line.line);
        for (name, value) in &line.about {
            _ = write!(said, "{}", paint(DIM, format_args!(" {name}={}", plain(value))));
        }
        _ = writeln!(text, "{} {} {mark} {said}", paint(DIM, &line.at), paint(style, who));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{InstanceRow, LiveRow};
    use crate::wire::Phase;

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_report_ends_with_what_to_type_next() {
        let mut done = HostReport::about("api");
        done.step("created", "/etc/portok/api.token");
        done.step("unchanged", "/etc/portok");
        done.note("port 3000");
        done.next("portok start api", "start it");
        let expected = "\
created    /etc/portok/api.token
unchanged  /etc/portok
note: port 3000
next:
  portok start api  start it
";
        assert_eq!(stripped(&report(&done)), expected);
        assert_eq!(report(&HostReport::default()), "there is nothing to do");
    }

    #[test]
    fn instances_stand_in_columns_with_what_is_wrong_below() {
        let mut api =
            InstanceRow { name: "api".into(), listen: Some("0.0.0.0:80".into()), ..InstanceRow::default() };
        api.phase = Some(Phase::Settled);
        api.live = Some(LiveRow { release: "v2".into(), port: Some(28_001), pid: Some(7) });
        api.replicas = Some(Replicas { ready: 2, wanted: 3 });
        api.files = vec!["/etc/portok/api.toml".into()];
        let bad = InstanceRow {
            name: "bad".into(),
            errors: vec!["bad.toml:1:1 no".into()],
            ..InstanceRow::default()
        };
        let run = InstanceRow { name: "run".into(), socket: Some("/tmp/s".into()), ..InstanceRow::default() };
        let expected = "\
NAME  LISTEN      PHASE    LIVE    PORT   PID  UNIT  CONFIG
api   0.0.0.0:80  settled  v2 2/3  28001  7    -     /etc/portok/api.toml
bad   ?           down     -       -      -    -
run   ?           down     -       -      -    -     no file; /tmp/s
! bad: bad.toml:1:1 no
";
        assert_eq!(stripped(&instances(&[api, bad, run])), expected);
        let several = InstanceRow { apps: Some(Vec::new()), daemon_pid: Some(77), ..InstanceRow::default() };
        assert!(stripped(&instances(&[several])).contains("0 apps  -     -     77 (portokd)"));
        assert!(instances(&[]).contains("portok add NAME"));
    }
}
