//! The words of all texts: styles, durations, times, counts.

use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};

pub(super) use crate::plain::plain;
use crate::wire::{Phase, Switch};

/// What is good.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What is in progress, or needs attention.
pub(super) const BUSY: Style = AnsiColor::Yellow.on_default().bold();
/// What is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What the eye should find first.
pub(super) const STRONG: Style = Style::new().bold();
/// What the eye should find last.
pub(super) const DIM: Style = Style::new().dimmed();
/// Advice.
pub(super) const ADVICE: Style = AnsiColor::Cyan.on_default();

/// The style of a phase.
pub(super) fn phase_style(phase: Phase) -> Style {
    match phase {
        Phase::Settled | Phase::Idle => GOOD,
        Phase::Starting | Phase::Watching | Phase::Restarting => BUSY,
        Phase::Degraded | Phase::Unstable | Phase::Stopping => BUSY,
        Phase::Empty | Phase::Failed | Phase::Unhealthy => BAD,
    }
}

/// `text` in `style`.
pub(super) fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// The two largest units of `time`: `3h 12m`, `48s`, `1.3s` below ten seconds, `340ms` below one.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.as_millis()),
        1..10 => format!("{:.1}s", time.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The time since `at` (RFC 3339); zero if `at` is in the future. `None` if `at` cannot be read.
pub(super) fn since(at: &str, now: SystemTime) -> Option<String> {
    let at = humantime::parse_rfc3339_weak(at).ok()?;
    Some(coarse(now.duration_since(at).unwrap_or_default()))
}

/// The time until `at` (RFC 3339); `None` if it has passed.
pub(super) fn left(at: &str, now: SystemTime) -> Option<String> {
    let at = humantime::parse_rfc3339_weak(at).ok()?;
    at.duration_since(now).ok().filter(|left| !left.is_zero()).map(coarse)
}

/// Tenths of a second mean nothing to a reader.
fn coarse(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 1..10 => format!("{seconds}s"),
        _ => duration(time),
    }
}

/// `12m 3s ago`, or `at` itself if it cannot be read.
pub(super) fn ago(at: &str, now: SystemTime) -> String {
    match since(at, now).as_deref() {
        None => plain(at),
        Some("0ms") => "just now".to_owned(),
        Some(time) => format!("{time} ago"),
    }
}

/// `1 restart`, `2 restarts`.
pub(super) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `text`, cut to `width` characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// A release with its port: `v2 (port 24884)`. `None` if neither is known.
pub(super) fn place(release: Option<&str>, port: Option<u16>) -> Option<String> {
    match (release, port) {
        // An unmanaged app is already named by its port.
        (Some(release), Some(port)) if release == format!("port-{port}") => Some(format!("port {port}")),
        (Some(release), Some(port)) => Some(format!("{} (port {port})", plain(release))),
        (Some(release), None) => Some(plain(release)),
        (None, Some(port)) => Some(format!("port {port}")),
        (None, None) => None,
    }
}

/// `port 1`, `ports 1, 2`.
pub(super) fn ports(ports: &[u16]) -> String {
    let all: Vec<_> = ports.iter().map(u16::to_string).collect();
    format!("{} {}", if all.len() == 1 { "port" } else { "ports" }, all.join(", "))
}

/// A switch: `v1 (port 24884) → v2 (port 21075)`, `port 1 → ports 2, 3`.
pub(super) fn movement(switch: &Switch) -> String {
    let to = match &switch.to_ports[..] {
        [_, _, ..] => ports(&switch.to_ports),
        _ => place(switch.to_release.as_deref(), Some(switch.to)).unwrap_or_default(),
    };
    let from = match &switch.from_ports[..] {
        [_, _, ..] => Some(ports(&switch.from_ports)),
        _ => place(switch.from_release.as_deref(), switch.from),
    };
    match from {
        Some(from) => format!("{from} → {to}"),
        None => format!("to {to}"),
    }
}

/// A port, or a dash if there is none.
pub(super) fn port(port: Option<u16>) -> String {
    port.map_or_else(|| "-".to_owned(), |port| port.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let table = [
            (0, "0ms"),
            (4, "4ms"),
            (999, "999ms"),
            (9_000, "9.0s"),
            (48_000, "48s"),
            (64_000, "1m 4s"),
            (11_520_000, "3h 12m"),
            (180_000_000, "2d 2h"),
        ];
        for (millis, text) in table {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(plain("\x1b[31mred\x1b[0m"), "red");
        assert!(!plain("a\rb\x08c\x1b]0;title\x07d\u{9b}31m").contains(|c: char| c.is_control()));
    }

    #[test]
    fn moments_are_told_from_now() {
        let now = humantime::parse_rfc3339("2026-01-01T00:01:00Z").unwrap();
        assert_eq!(ago("2026-01-01T00:00:57.500Z", now), "2s ago");
        assert_eq!(ago("2026-01-01T00:00:59.660Z", now), "340ms ago");
        assert_eq!(ago("2026-01-01T00:02:00Z", now), "just now");
        assert_eq!(ago("once", now), "once");
        assert_eq!(left("2026-01-01T00:01:41Z", now).as_deref(), Some("41s"));
        assert_eq!(left("2026-01-01T00:01:00Z", now), None);
    }
}
