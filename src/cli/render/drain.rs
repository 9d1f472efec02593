//! Who is still with the old version.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anstyle::Style;

use super::tables::columns;
use super::words::{STRONG, cut, duration, left, plain, port};
use crate::wire::Drain;

/// The widest path that is shown, in characters.
const WIDEST: usize = 60;

/// The drains of an app.
pub(crate) fn drain(drain: &Drain, now: SystemTime) -> String {
    let Some(end) = &drain.until else { return "nothing drains".to_owned() };
    let others = drain.inflight.saturating_sub(drain.tunnels.len() as u64);
    let left = left(end, now).unwrap_or_else(|| "no time".to_owned());
    let mut text = format!("{left} left; requests in flight: {others}");
    let head = ["PEER", "KIND", "PATH", "AGE", "BYTES", "RELEASE", "PORT"];
    let plainly = |text: String| (Style::new(), text);
    let cells = drain.tunnels.iter().map(|row| {
        [
            (STRONG, plain(&row.peer)),
            plainly(plain(&row.kind)),
            plainly(cut(&plain(&row.path), WIDEST)),
            plainly(duration(Duration::from_secs(row.age))),
            plainly(row.bytes.to_string()),
            plainly(plain(&row.release)),
            plainly(port(row.port)),
        ]
    });
    if !drain.tunnels.is_empty() {
        for line in columns(head, cells) {
            _ = write!(text, "\n{line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DrainRow, rfc3339};

    #[test]
    fn who_is_there_is_listed_with_the_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let none = Drain { until: None, inflight: 0, tunnels: Vec::new() };
        assert_eq!(drain(&none, now), "nothing drains");
        let row = DrainRow {
            peer: "10.0.0.1".to_owned(),
            path: "/chat\u{1b}[31m".to_owned(),
            age: 61,
            bytes: 12,
            kind: "websocket".to_owned(),
            release: "v1".to_owned(),
            port: Some(8081),
        };
        let until = Some(rfc3339(now + Duration::from_secs(20)));
        let text = drain(&Drain { until, inflight: 3, tunnels: vec![row] }, now);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.starts_with("20s left") && text.contains("requests in flight: 2"), "{text}");
        assert!(text.contains("10.0.0.1  websocket") && !text.contains("\u{1b}"), "{text}");
    }
}
