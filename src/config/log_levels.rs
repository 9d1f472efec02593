//! What `log.level` says: how much portok logs, and which of its parts more or less. Pure.

use std::fmt;

use super::values::{Input, Parsed};

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What is odd, too.
    Warn,
    /// What happens, too.
    Info,
    /// What is of use in the search for a fault.
    Debug,
    /// Everything.
    Trace,
}

const LEVELS: [(&str, LogLevel); 6] = [
    ("off", LogLevel::Off),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

/// The parts of portok that log.
const PARTS: [&str; 13] = [
    "access",
    "admin",
    "apps",
    "config",
    "daemon",
    "health",
    "hooks",
    "proxy",
    "redis",
    "release",
    "supervisor",
    "systemd",
    "tls",
];

/// A level for all parts, and others for some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevels {
    /// Of every part without its own.
    pub level: LogLevel,
    /// Of these parts, in the order in which they were given.
    pub parts: Vec<(&'static str, LogLevel)>,
}

impl Default for LogLevels {
    fn default() -> Self {
        Self { level: LogLevel::Info, parts: Vec::new() }
    }
}

impl LogLevels {
    /// From a text such as `info,proxy=debug`.
    pub(super) fn parse(input: Input<'_>) -> Parsed<Self> {
        let names = LEVELS.map(|(name, _)| name).join(", ");
        let expected =
            || format!("a level ({names}), or a level and levels of parts, such as \"info,proxy=debug\"");
        let text = input.text().ok_or_else(expected)?;
        let (mut all, mut levels) = (None, Self::default());
        for item in text.split(',').map(str::trim) {
            let (part, word) = match item.split_once('=') {
                Some((part, word)) => (Some(part.trim()), word.trim()),
                None => (None, item),
            };
            let level = level(word).ok_or_else(expected)?;
            let Some(part) = part else {
                if all.replace(level).is_some() {
                    return Err(format!("one level for all parts, not several: {}", expected()));
                }
                continue;
            };
            let known = PARTS.iter().find(|known| **known == part);
            let known = *known.ok_or_else(|| format!("a part of portok before `=`: {}", PARTS.join(", ")))?;
            if levels.parts.iter().any(|(other, _)| *other == known) {
                return Err(format!("one level for the part `{known}`, not several"));
            }
            levels.parts.push((known, level));
        }
        levels.level = all.unwrap_or(levels.level);
        Ok(levels)
    }
}

fn level(word: &str) -> Option<LogLevel> {
    LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level)
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = LEVELS.iter().find(|(_, level)| level == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl fmt::Display for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.level)?;
        self.parts.iter().try_for_each(|(part, level)| write!(f, ",{part}={level}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn a_level_may_differ_by_part() {
        for (text, shown) in [
            ("info", "info"),
            ("off", "off"),
            ("info,proxy=debug", "info,proxy=debug"),
            (" proxy = trace , warn, redis=off", "warn,proxy=trace,redis=off"),
            ("proxy=debug", "info,proxy=debug"),
        ] {
            let levels = LogLevels::parse(Input::Text(text)).unwrap();
            assert_eq!(levels.to_string(), shown, "{text}");
            assert_eq!(LogLevels::parse(Input::Text(shown)).unwrap(), levels);
        }
    }

    #[test]
    fn what_is_no_level_and_no_part_is_refused() {
        for (text, why) in [
            ("", "a level (off, error, warn, info, debug, trace)"),
            ("loud", "a level (off, error"),
            ("info,", "a level (off, error"),
            ("info,proxy", "a level (off, error"),
            ("info,debug", "one level for all parts"),
            ("info,web=debug", "a part of portok before `=`: access, admin"),
            ("info,proxy=debug,proxy=info", "one level for the part `proxy`"),
        ] {
            let refused = LogLevels::parse(Input::Text(text)).unwrap_err();
            assert!(refused.contains(why), "{text:?}: {refused}");
        }
    }

    #[test]
    fn every_part_that_logs_is_known() {
        fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { files(&path, found) } else { found.push(path) }
            }
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        files(&source, &mut found);
        let logs = |path: &&std::path::PathBuf| {
            let text = fs::read_to_string(path).unwrap();
            ["error!(", "warn!(", "info!(", "debug!("]
                .iter()
                .any(|call| text.contains(&format!("tracing::{call}")))
        };
        let parts: BTreeSet<_> = found
            .iter()
            .filter(logs)
            .map(|path| {
                let part = path.strip_prefix(&source).unwrap().iter().next().unwrap().to_str().unwrap();
                part.strip_suffix(".rs").unwrap_or(part).to_owned()
            })
            .collect();
        let unknown: Vec<_> = parts.iter().filter(|part| !PARTS.contains(&part.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
