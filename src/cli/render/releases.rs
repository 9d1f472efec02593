//! `portok releases`: every deploy, and how it ended.

use std::fmt::Write as _;
use std::time::SystemTime;

use anstyle::Style;

use super::tables::columns;
use super::words::{BAD, BUSY, DIM, GOOD, STRONG, ago, cut, paint, plain, port};
use crate::wire::{Outcome, ReleaseRow, Status};

/// The width at which a command or reason is cut. `--json` has the whole text.
const WIDEST: usize = 60;

/// The present role of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The live release.
    Live,
    /// The previous release, to which a rollback goes.
    Previous,
    /// It was live once.
    Served,
    /// Its deploy is under way.
    UnderWay,
    /// Its deploy ended in another way.
    Ended(Outcome),
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Previous => "previous",
            Self::Served | Self::Ended(Outcome::Live) => "served",
            Self::UnderWay => "under way",
            Self::Ended(Outcome::RolledBack) => "rolled back",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Live => GOOD,
            Self::Previous | Self::Served | Self::Ended(Outcome::Live) => Style::new(),
            Self::Ended(Outcome::Aborted | Outcome::RolledBack) => BAD,
            Self::UnderWay | Self::Ended(Outcome::Cancelled | Outcome::Interrupted) => BUSY,
        }
    }
}

/// The table of the known releases, newest first. Without a status, no row is marked as live.
pub(crate) fn releases(rows: &[ReleaseRow], status: Option<&Status>, now: SystemTime) -> String {
    if rows.is_empty() {
        return "no releases yet".to_owned();
    }
    let head = ["RELEASE", "OUTCOME", "PORT", "STARTED", "SWITCHED", "EXIT", "COMMAND"];
    let plainly = |text: String| (Style::new(), text);
    let moment = |at: &Option<String>| at.as_deref().map_or_else(|| "-".to_owned(), |at| ago(at, now));
    let cells = rows.iter().zip(standings(rows, status)).map(|(row, standing)| {
        let command = row.command.as_ref().map(|command| cut(&plain(&command.to_string()), WIDEST));
        [
            (STRONG, plain(&row.release)),
            (standing.style(), outcome(row, standing)),
            plainly(port(row.port)),
            plainly(moment(&row.started_at)),
            plainly(moment(&row.switched_at)),
            plainly(row.exit.as_deref().map_or_else(|| "-".to_owned(), plain)),
            plainly(command.unwrap_or_else(|| "-".to_owned())),
        ]
    });
    let indent =
        rows.iter().map(|row| plain(&row.release).chars().count()).max().unwrap_or(0).max(head[0].len());
    let mut text = String::new();
    for (n, line) in columns(head, cells).into_iter().enumerate() {
        _ = writeln!(text, "{line}");
        if let Some(reason) = n.checked_sub(1).and_then(|n| reason(&rows[n])) {
            _ = writeln!(text, "{:indent$}  {}", "", paint(DIM, cut(&plain(reason), WIDEST + 40)));
        }
    }
    text
}

/// The word for a row's role, with a mark if the release is in quarantine.
fn outcome(row: &ReleaseRow, standing: Standing) -> String {
    let mark = if row.quarantined { " (quarantine)" } else { "" };
    format!("{}{mark}", standing.word())
}

/// The present role of each row. If a release has several rows, the newest one that was live
/// counts.
fn standings(rows: &[ReleaseRow], status: Option<&Status>) -> Vec<Standing> {
    let newest = |release: &str| {
        let is_it = |row: &&ReleaseRow| row.release == release && row.outcome == Some(Outcome::Live);
        rows.iter().find(is_it)
    };
    let role = |release: Option<&crate::wire::ReleaseStatus>| newest(&release?.release);
    let live = status.and_then(|status| role(status.live.as_ref()));
    let previous = status.and_then(|status| role(status.previous.as_ref()));
    let is =
        |row: &ReleaseRow, other: Option<&ReleaseRow>| other.is_some_and(|other| std::ptr::eq(row, other));
    let standing = |row: &ReleaseRow| match row.outcome {
        _ if is(row, live) => Standing::Live,
        _ if is(row, previous) => Standing::Previous,
        None => Standing::UnderWay,
        Some(Outcome::Live) => Standing::Served,
        Some(outcome) => Standing::Ended(outcome),
    };
    rows.iter().map(standing).collect()
}

/// Why a row ended as it did, without what other columns show.
fn reason(row: &ReleaseRow) -> Option<&str> {
    let reason = row.reason.as_deref()?;
    let told = format!("of `{}` aborted: ", row.release);
    Some(reason.split_once(&told).map_or(reason, |(_, why)| why))
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::{empty, release};
    use super::*;
    use crate::wire::CommandLine;

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-01-01T01:00:00Z").unwrap()
    }

    fn row(release: &str, outcome: Option<Outcome>, reason: Option<&str>) -> ReleaseRow {
        let at = |text: &str| Some(format!("2026-01-01T{text}Z"));
        ReleaseRow {
            release: release.into(),
            command: Some(CommandLine::Shell("node app.js".into())),
            outcome,
            started_at: at("00:59:00"),
            switched_at: at("00:59:01")
                .filter(|_| matches!(outcome, Some(Outcome::Live | Outcome::RolledBack))),
            stopped_at: None,
            exit: reason.map(|_| "exit status 1".into()),
            port: Some(41873),
            reason: reason.map(Into::into),
            quarantined: false,
        }
    }

    #[test]
    fn one_row_is_live_and_the_others_say_what_they_were() {
        let rows = [
            row("v5", None, None),
            row("v4", Some(Outcome::Aborted), Some("deploy of `v4` aborted: it exited")),
            row("v2", Some(Outcome::Live), None),
            ReleaseRow { quarantined: true, ..row("v3", Some(Outcome::RolledBack), Some("3 probes failed")) },
            row("v2", Some(Outcome::Live), None),
            row("v1", Some(Outcome::Live), None),
        ];
        let mut status = empty();
        status.live = Some(release("v2", 1, None));
        status.previous = Some(release("v1", 1, None));
        let expected = "\
RELEASE  OUTCOME                   PORT   STARTED    SWITCHED  EXIT           COMMAND
v5       under way                 41873  1m 0s ago  -         -              node app.js
v4       aborted                   41873  1m 0s ago  -         exit status 1  node app.js
         it exited
v2       live                      41873  1m 0s ago  59s ago   -              node app.js
v3       rolled back (quarantine)  41873  1m 0s ago  59s ago   exit status 1  node app.js
         3 probes failed
v2       served                    41873  1m 0s ago  59s ago   -              node app.js
v1       previous                  41873  1m 0s ago  59s ago   -              node app.js
";
        let text = releases(&rows, Some(&status), now());
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
        assert!(!releases(&rows, None, now()).contains("live"));
        assert_eq!(releases(&[], None, now()), "no releases yet");
    }
}
