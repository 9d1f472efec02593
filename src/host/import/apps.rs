//! The names of several apps, and where each of them is reached.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
use super::toml::Toml;
use crate::config::is_instance_name;

/// The longest name of an app.
const NAME_MAX: usize = 64;

/// Gives every app a valid name of its own.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: BTreeSet<String>,
    /// The last number behind a name that several wanted.
    numbers: BTreeMap<String, u32>,
}

impl Names {
    /// A name like `wanted`. Says so where it is another one.
    pub(super) fn give(&mut self, place: &str, wanted: &str, findings: &mut Findings) -> String {
        let fits = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' };
        let stem: String = wanted.chars().map(fits).skip_while(|c| *c == '-').take(NAME_MAX).collect();
        let stem = if stem.contains(|c: char| c.is_ascii_alphanumeric()) { stem } else { "app".to_owned() };
        let mut name = stem.clone();
        let number = self.numbers.entry(stem.clone()).or_insert(1);
        while !self.given.insert(name.clone()) {
            *number += 1;
            let suffix = format!("-{number}");
            name = stem.chars().take(NAME_MAX - suffix.len()).chain(suffix.chars()).collect();
        }
        debug_assert!(is_instance_name(&name), "{name}");
        if name != wanted {
            findings.note(place, format_args!("the app {wanted:?} is called {name}: {NAME_RULE}"));
        }
        name
    }
}

const NAME_RULE: &str = "a name is 1 to 64 letters, digits, `_` or `-`, and no two apps have the same";

/// Writes where apps without an address of their own are answered. `own` are the ports of the
/// others; `all` tells whether there are only others.
pub(super) fn set_listen(toml: &mut Toml, own: &BTreeSet<u16>, all: bool) {
    if all {
        toml.comment("For apps without an address of their own. There is none.");
        toml.set("listen", "127.0.0.1:0");
        return;
    }
    let free = (DEFAULT_PORT..=u16::MAX).find(|port| !own.contains(port)).unwrap_or(DEFAULT_PORT);
    toml.set("listen", format!("0.0.0.0:{free}"));
}

/// Where portok listens if nothing else is said.
pub(super) const DEFAULT_PORT: u16 = 3000;

/// Writes hosts for an app of which the source names none. They are no real ones, so that no
/// request goes to the wrong app before the operator has decided.
pub(super) fn set_no_hosts(toml: &mut Toml, name: &str) {
    let label: String =
        name.chars().map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).take(63).collect();
    let label = label.trim_matches('-');
    toml.comment("The name that clients ask for. This one exists nowhere.");
    toml.set("hosts", vec![format!("{label}.invalid")]);
}

/// Writes the folder that an app runs in.
pub(super) fn set_directory(toml: &mut Toml, place: &str, directory: Option<&str>, findings: &mut Findings) {
    match directory {
        Some(directory) => toml.set("directory", directory),
        None => findings.note(place, "directory: standard input lies in no folder; name the app's"),
    }
}

/// Says how portok finds out that an app is ready: the other tools do not ask.
pub(super) fn note_health(place: &str, findings: &mut Findings) {
    findings.note(
        place,
        "health: an app gets requests once /health answers 2xx; where it has another path, set health.path",
    );
}
