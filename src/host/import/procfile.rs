//! A Procfile: a line `NAME: COMMAND` a kind of process. `web` is the app, `release` its step
//! before a deploy; what needs no port is a companion of it.

use std::collections::BTreeSet;

use super::apps;
use super::findings::Findings;
use super::source::Source;
use super::toml::Toml;
use crate::config::{COMPANIONS_MOST, is_companion_name};

const ABOUT: &str = "Clients are answered at `listen`; the app gets another port in $PORT.";

/// A kind of process.
struct Line<'a> {
    number: usize,
    name: &'a str,
    command: &'a str,
}

/// Converts a Procfile.
pub(super) fn convert(source: &Source, findings: &mut Findings) -> Option<String> {
    let lines = lines(source.text(), findings);
    let (mut web, mut release, mut companions) = (None, None, Vec::<&Line<'_>>::new());
    for line in &lines {
        let place = format!("line {}", line.number);
        match line.name {
            "web" if web.is_some() => findings.problem(place, "expected one `web:`, this is another"),
            "web" => web = Some(line),
            "release" if release.is_some() => {
                findings.problem(place, "expected one `release:`, this is another");
            }
            "release" => release = Some(line),
            name if names_port(line.command) => findings.note(
                place,
                format_args!(
                    "{name}: it uses $PORT, so it may be an app of its own: another instance, or [apps.{name}] with \
                     hosts or a `listen` of its own"
                ),
            ),
            name if !is_companion_name(name) => findings.note(
                place,
                format_args!("{name}: no name of a process beside the app, which has at most 64 characters; left out"),
            ),
            name if companions.iter().any(|other| other.name == name) => {
                findings.problem(place, format_args!("expected one `{name}:`, this is another"));
            }
            name if companions.len() == COMPANIONS_MOST => findings.note(
                place,
                format_args!("{name}: an app has at most {COMPANIONS_MOST} processes beside it; left out"),
            ),
            _ => companions.push(line),
        }
    }
    let Some(web) = web else {
        findings.problem("web", "expected a line `web: COMMAND`, the process that answers requests");
        return None;
    };
    for line in
        companions.iter().copied().chain([web]).chain(release).filter(|line| line.command.contains('\0'))
    {
        findings.problem(format_args!("line {}", line.number), "expected a command without NUL");
    }
    let mut toml = Toml::new(ABOUT);
    apps::set_listen(&mut toml, &BTreeSet::new(), false);
    toml.table(&["app"]);
    toml.set("command", web.command);
    apps::set_directory(&mut toml, "web", source.folder(), findings);
    if let Some(Line { command, .. }) = release {
        toml.set("before", *command);
    }
    for Line { name, command, .. } in companions {
        toml.table(&["app", "processes", name]);
        toml.set("command", *command);
    }
    findings.note("web", "listen: a Procfile names no port; 3000 is portok's default");
    apps::note_health("web", findings);
    Some(toml.finish())
}

/// The lines that say something. Foreman passes over all others; here each is told.
fn lines<'a>(text: &'a str, findings: &mut Findings) -> Vec<Line<'a>> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.split_once(':').map(|(name, command)| (name.trim_end(), command.trim()));
        match parsed {
            Some((name, command)) if is_name(name) && !command.is_empty() => {
                found.push(Line { number, name, command });
            }
            _ => findings.problem(format_args!("line {number}"), "expected `NAME: COMMAND`"),
        }
    }
    found
}

/// Whether a command asks for the port that it gets.
fn names_port(command: &str) -> bool {
    command.split("PORT").skip(1).zip(command.split("PORT")).any(|(after, before)| {
        let begins = before.ends_with('$') || before.ends_with("${");
        begins && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
