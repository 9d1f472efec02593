//! Reads from the journal what an instance's daemon and its apps printed.
//!
//! The daemon's lines are under its unit, the apps' under the instance's name, each with its app in
//! a field. Another program may have that name too; only a line with a release is an app's. If
//! there is no journal, or nothing in it, the caller asks the daemon instead.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::failure::{HostCode, HostFailure};
use super::instances::{self, Reading};
use super::places::Places;
use super::unit::service_of;
use crate::wire::rfc3339;

/// The longest line that is read from journalctl, in bytes. journalctl escapes what is not text, so
/// lines can be long.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct JournalLine {
    /// When, RFC 3339.
    pub(crate) at: String,
    /// Who printed it.
    pub(crate) source: JournalSource,
    /// The app, where the instance has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
    /// The app's release.
    pub(crate) release: Option<String>,
    /// The priority of syslog(3): 3 and less are errors, 4 is a warning.
    pub(crate) priority: u8,
    /// The line itself.
    pub(crate) line: String,
    /// The fields of the daemon's event, such as `pid` and `phase`.
    pub(crate) about: BTreeMap<String, String>,
}

/// Who printed a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JournalSource {
    /// portokd, or systemd about it.
    Daemon,
    /// The app.
    App,
}

/// The lines of one instance in the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    unit: String,
    called: String,
    /// Only what is about this app.
    app: Option<String>,
    lines: u32,
    first: Vec<JournalLine>,
}

impl Journal {
    /// The last lines of the instance `name`, or of one of its apps; `None` if there is no journal,
    /// it may not be read, or it has no such line.
    pub(crate) async fn of(places: &Places, name: &str, app: Option<&str>, lines: u32) -> Option<Self> {
        let called = instances::find(places, name, Reading::Lenient)
            .map_or_else(|| name.to_owned(), |instance| instance.called().to_owned());
        let app = app.map(str::to_owned);
        let mut journal = Self { unit: service_of(name), called, app, lines, first: Vec::new() };
        let mut child = journal.journalctl(false).ok()?;
        let mut reader = Reader::of(&mut child)?;
        let mut first = Vec::new();
        while let Some(line) = reader.next(&journal).await {
            first.push(line);
        }
        let is_good = child.wait().await.is_ok_and(|status| status.success());
        journal.first = first;
        (is_good && !journal.first.is_empty()).then_some(journal)
    }

    /// The last lines, as many as were asked for.
    pub(crate) fn lines(&self) -> &[JournalLine] {
        &self.first
    }

    /// The same lines once more, and then each new line. journalctl starts anew with the old lines,
    /// because lines would be lost between two runs.
    ///
    /// # Errors
    /// journalctl cannot be started again.
    pub(crate) fn follow(self) -> Result<Following, HostFailure> {
        let broken = |error: std::io::Error| {
            HostFailure::new(
                HostCode::Failed,
                format!("cannot follow the journal: {error}"),
                "see journalctl -f",
            )
        };
        let mut child = self.journalctl(true).map_err(broken)?;
        let reader = Reader::of(&mut child);
        Ok(Following { journal: self, reader, _child: child })
    }

    /// Starts journalctl. It ends when the child is dropped.
    fn journalctl(&self, follow: bool) -> std::io::Result<Child> {
        let mut command = Command::new("journalctl");
        command.args(["--output=json", "--all", "--no-pager", "--quiet"]);
        command.arg(format!("--lines={}", self.lines));
        if follow {
            command.arg("--follow");
        }
        command.args(self.matches());
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.kill_on_drop(true).spawn()
    }

    /// What journalctl is to look for: what the daemon says, what systemd says about it, what the
    /// apps print. Of one app: what has its name in a field.
    fn matches(&self) -> Vec<String> {
        let unit = format!("_SYSTEMD_UNIT={}", self.unit);
        let called = format!("SYSLOG_IDENTIFIER={}", self.called);
        let or = || "+".to_owned();
        if let Some(app) = &self.app {
            let app = format!("PORTOK_APP={app}");
            return vec![unit, app.clone(), or(), called, app];
        }
        // `-u` cannot be combined with other matches, so these are the matches that it stands for.
        vec![unit, or(), format!("UNIT={}", self.unit), "_PID=1".to_owned(), or(), called]
    }

    /// Reads one entry as journalctl prints it; `None` if it is of another program, or about
    /// another app.
    fn line(&self, entry: &str) -> Option<JournalLine> {
        let entry: Value = serde_json::from_str(entry).ok()?;
        let get = |field: &str| field_text(entry.get(field)?);
        let release = get("PORTOK_RELEASE");
        let is_of_unit = [get("_SYSTEMD_UNIT"), get("UNIT")].contains(&Some(self.unit.clone()));
        let is_of_app = get("SYSLOG_IDENTIFIER").as_deref() == Some(&self.called) && release.is_some();
        // An event of the daemon about an app has the field twice: the instance's name stands in
        // every event.
        let app = field_texts(&entry["PORTOK_APP"]).into_iter().find(|app| *app != self.called);
        let is_asked_for = self.app.is_none() || self.app == app;
        if !is_asked_for || !is_of_unit && !is_of_app {
            return None;
        }
        // The time at which it was printed, not at which the journal received it.
        let at = get("_SOURCE_REALTIME_TIMESTAMP").or_else(|| get("__REALTIME_TIMESTAMP"));
        let at = at.and_then(|micros| micros.parse().ok()).unwrap_or(0);
        Some(JournalLine {
            at: rfc3339(UNIX_EPOCH + Duration::from_micros(at)),
            source: if is_of_app { JournalSource::App } else { JournalSource::Daemon },
            app,
            release,
            priority: get("PRIORITY").and_then(|priority| priority.parse().ok()).unwrap_or(6),
            line: get("MESSAGE")?,
            about: if is_of_app { BTreeMap::new() } else { about(&entry) },
        })
    }
}

/// A journal that is followed. Dropping it ends journalctl.
pub(crate) struct Following {
    journal: Journal,
    reader: Option<Reader>,
    _child: Child,
}

impl Following {
    /// The next line; `None` when journalctl has ended. After a cancelled call, part of a line is
    /// lost.
    pub(crate) async fn next(&mut self) -> Option<JournalLine> {
        self.reader.as_mut()?.next(&self.journal).await
    }
}

/// portokd's own fields of an entry, without the app's name, which stands by itself.
fn about(entry: &Value) -> BTreeMap<String, String> {
    let fields = entry.as_object().into_iter().flatten();
    let own = fields.filter_map(|(name, value)| Some((name.strip_prefix("PORTOK_")?, field_text(value)?)));
    own.filter(|(name, _)| *name != "APP").map(|(name, text)| (name.to_lowercase(), text)).collect()
}

/// The text of a field. A field that is not text is an array of bytes; one that occurs several
/// times is an array of values.
fn field_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let byte = |item: &Value| u8::try_from(item.as_u64()?).ok();
            match items.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => field_text(items.first()?),
            }
        }
        _ => None,
    }
}

/// The texts of a field that may occur several times.
fn field_texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(field_text).collect()
        }
        value => field_text(value).into_iter().collect(),
    }
}

struct Reader {
    from: BufReader<tokio::process::ChildStdout>,
}

impl Reader {
    fn of(child: &mut Child) -> Option<Self> {
        Some(Self { from: BufReader::new(child.stdout.take()?) })
    }

    /// The next line of the instance; `None` when journalctl has ended.
    async fn next(&mut self, journal: &Journal) -> Option<JournalLine> {
        let mut entry = Vec::new();
        loop {
            entry.clear();
            if !self.read_entry(&mut entry).await {
                return None;
            }
            if let Some(line) = std::str::from_utf8(&entry).ok().and_then(|entry| journal.line(entry)) {
                return Some(line);
            }
        }
    }

    /// Reads one entry. An entry that is too long is truncated, and then no valid entry any more.
    async fn read_entry(&mut self, entry: &mut Vec<u8>) -> bool {
        loop {
            let Ok(part) = self.from.fill_buf().await else { return false };
            if part.is_empty() {
                return false;
            }
            let end = part.iter().position(|byte| *byte == b'\n');
            let n_bytes = end.map_or(part.len(), |end| end + 1);
            if entry.len() < MAX_LINE {
                entry.extend_from_slice(&part[..n_bytes]);
            }
            self.from.consume(n_bytes);
            if end.is_some() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(entry: &str) -> Option<JournalLine> {
        journal(None).line(entry)
    }

    fn journal(app: Option<&str>) -> Journal {
        Journal {
            unit: "portok@api.service".into(),
            called: "api".into(),
            app: app.map(str::to_owned),
            lines: 1,
            first: Vec::new(),
        }
    }

    #[test]
    fn the_daemons_lines_and_the_apps_are_told_apart() {
        let daemon = line(
            r#"{"_SYSTEMD_UNIT":"portok@api.service","SYSLOG_IDENTIFIER":"portokd","PRIORITY":"4","MESSAGE":"hm","__REALTIME_TIMESTAMP":"1767225600000000","PORTOK_RELEASE":"v1"}"#,
        );
        let daemon = daemon.unwrap();
        assert_eq!((daemon.source, daemon.priority, daemon.line.as_str()), (JournalSource::Daemon, 4, "hm"));
        assert_eq!(daemon.at, "2026-01-01T00:00:00.000Z");
        assert_eq!(daemon.about, BTreeMap::from([("release".to_owned(), "v1".to_owned())]));
        let app = line(r#"{"SYSLOG_IDENTIFIER":"api","PORTOK_RELEASE":"v1","MESSAGE":[104,105]}"#).unwrap();
        assert_eq!(
            (app.source, app.release.as_deref(), app.line.as_str()),
            (JournalSource::App, Some("v1"), "hi")
        );
        let systemd = line(r#"{"UNIT":"portok@api.service","_PID":"1","MESSAGE":"Started"}"#).unwrap();
        assert_eq!(systemd.source, JournalSource::Daemon);
    }

    #[test]
    fn of_one_app_of_several_only_what_is_about_it_is_read() {
        let printed =
            r#"{"SYSLOG_IDENTIFIER":"api","PORTOK_APP":"shop","PORTOK_RELEASE":"v1","MESSAGE":"x"}"#;
        let told = r#"{"_SYSTEMD_UNIT":"portok@api.service","PORTOK_APP":["api","shop"],"MESSAGE":"x"}"#;
        let daemons = r#"{"_SYSTEMD_UNIT":"portok@api.service","PORTOK_APP":"api","MESSAGE":"x"}"#;
        for (app, read) in
            [(None, [true, true, true]), (Some("shop"), [true, true, false]), (Some("web"), [false; 3])]
        {
            let lines = [printed, told, daemons].map(|entry| journal(app).line(entry));
            assert_eq!(lines.each_ref().map(Option::is_some), read, "{app:?}");
        }
        assert_eq!(journal(None).line(printed).unwrap().app.as_deref(), Some("shop"));
        let matches = journal(Some("shop")).matches().join(" ");
        let expected =
            "_SYSTEMD_UNIT=portok@api.service PORTOK_APP=shop + SYSLOG_IDENTIFIER=api PORTOK_APP=shop";
        assert_eq!(matches, expected);
    }

    #[test]
    fn another_program_of_that_name_is_not_the_app() {
        assert_eq!(line(r#"{"SYSLOG_IDENTIFIER":"api","MESSAGE":"x"}"#), None);
        assert_eq!(line(r#"{"_SYSTEMD_UNIT":"portok@web.service","MESSAGE":"x"}"#), None);
        assert_eq!(line("not json"), None);
    }
}
