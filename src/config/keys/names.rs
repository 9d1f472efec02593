//! Names as they stand in a file: which are keys, which are tables, and what an unknown one most
//! likely should have been.
//!
//! In the table of an app of several, the keys of `[app]` have no table of their own: `command` is
//! `app.command`, `restart.burst` is `app.restart.burst`. Every other key of an app has its own
//! name there: `health.path`. So it is in `[redis.app]`.

use super::super::raw::{Known, Vocabulary, Words};
use super::super::values::{NAME_EXPECTED, is_instance_name};
use super::{Key, keys};

/// The table with what holds for all apps of Redis.
const APP_OF_REDIS: &str = "redis.app";

/// The names that configuration files may have.
pub(in crate::config) const WORDS: Words = Words {
    file: Vocabulary { known, nearest: |name| nearest(name, in_file) },
    app: Vocabulary { known: known_in_app, nearest: |name| nearest(name, in_app) },
    app_name: (NAME_EXPECTED, is_instance_name),
};

/// What `name` is in the main file.
fn known(name: &str) -> Known {
    match find(name) {
        Some(key) => of_key(key),
        None if name == "apps" => Known::Apps,
        None if name == APP_OF_REDIS => Known::AppOfRedis,
        None if is_table(name) => Known::Table,
        None => Known::No,
    }
}

/// What `name` is in the table of an app of several.
fn known_in_app(name: &str) -> Known {
    let of_app = format!("app.{name}");
    let key = find(&of_app).or_else(|| find(name)).filter(|key| key.is_of_an_app());
    let has_keys = |table: &str| keys().any(|key| key.is_of_an_app() && is_in(key.name, table));
    match key {
        Some(key) => of_key(key),
        None if has_keys(&of_app) || name != "app" && has_keys(name) => Known::Table,
        None if find(name).is_some() || name != "app" && is_table(name) => Known::Instances,
        None => Known::No,
    }
}

/// What the name of `key` is.
fn of_key(key: &'static Key) -> Known {
    if keys().any(|other| is_in(other.name, key.name)) {
        Known::KeyOrTable(key.name)
    } else {
        Known::Key(key.name)
    }
}

/// The variable that sets the key called `name` over the file, where it has one.
pub fn variable_of(name: &str) -> Option<&'static str> {
    find(name)?.variable
}

/// The key called `name`.
fn find(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

/// Whether `name` is a table with known keys in it.
pub(super) fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// Whether the key called `name` stands in `table`, or in a table of it.
pub(in crate::config) fn is_in(name: &str, table: &str) -> bool {
    name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
}

/// The table that a key or table stands in, `""` for the top, and its own last word.
pub(in crate::config) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    keys().filter_map(move |key| {
        let table = split(key.name).0;
        let new = !table.is_empty() && table != last;
        last = table;
        new.then_some(table)
    })
}

/// What may stand in the main file, but for what only several apps have in their tables.
fn in_file() -> Vec<&'static str> {
    let is_there = |key: &&Key| !(key.is_for_several() && is_in(key.name, "app"));
    keys().filter(is_there).map(|key| key.name).chain(tables()).chain(["apps", APP_OF_REDIS]).collect()
}

/// What may stand in the table of an app of several.
fn in_app() -> Vec<&'static str> {
    let is_there = |key: &&Key| key.is_of_an_app() && key.name != "app.target";
    let mut names: Vec<_> = keys().filter(is_there).map(|key| key.name).collect();
    let tables: Vec<_> = tables().filter(|table| names.iter().any(|name| is_in(name, table))).collect();
    names.extend(tables);
    names
        .iter()
        .filter(|name| **name != "app")
        .map(|name| name.strip_prefix("app.").unwrap_or(name))
        .collect()
}

/// The key or table that was most likely meant by the unknown `name`: one with a similar word in
/// the same table, else one with the same word in another table, else the nearest of the table, or
/// the nearest of all where there is no such table.
fn nearest(name: &str, among: fn() -> Vec<&'static str>) -> &'static str {
    let (table, word) = split(name);
    let among = among();
    let known = || among.iter().copied();
    let distance = |candidate: &str| {
        let known_word = split(candidate).1;
        let begins = word.len() >= 3 && (known_word.starts_with(word) || word.starts_with(known_word));
        let distance = strsim::damerau_levenshtein(word, known_word);
        if begins { distance.min(2) } else { distance }
    };
    let beside = known().filter(|candidate| split(candidate).0 == table).min_by_key(|key| distance(key));
    let like = |candidate: &&str| distance(candidate) <= 2;
    beside
        .filter(like)
        .or_else(|| known().find(|candidate| split(candidate).1 == word))
        .or(beside)
        .or_else(|| known().min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate)))
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_the_nearest_one() {
        for (wrote, meant) in [
            ("helth", "health"),
            ("Listen", "listen"),
            ("health.pth", "health.path"),
            ("health.timout", "health.timeout"),
            ("app.name", "name"),
            ("threads", "proxy.threads"),
            ("app.restart.bakoff", "app.restart.backoff"),
            ("drain.perod", "drain.period"),
            ("app.port", "app.port_env"),
            ("app.token_file", "admin.token_file"),
            ("log.verbose", "log.verbose_errors"),
            ("app.xyzzy", "app.sticky"),
            ("helth.path", "health.path"),
            ("admin.tokn", "admin.token"),
            ("upsteam", "upstream"),
            ("proxy.max_connections", "upstream.max_connections"),
        ] {
            assert_eq!(nearest(wrote, in_file), meant, "for {wrote}");
        }
    }

    #[test]
    fn an_unknown_key_of_an_app_is_told_one_that_an_app_can_have() {
        for (wrote, meant) in [
            ("comand", "command"),
            ("host", "hosts"),
            ("targt", "targets"),
            ("restart.bakoff", "restart.backoff"),
            ("health.pth", "health.path"),
            ("helth", "health"),
            ("limits.tunels", "limits.tunnels"),
        ] {
            assert_eq!(nearest(wrote, in_app), meant, "for {wrote}");
        }
    }

    #[test]
    fn names_in_the_table_of_an_app() {
        for (name, is) in [
            ("command", Known::Key("app.command")),
            ("listen", Known::Key("app.listen")),
            ("restart", Known::Table),
            ("restart.burst", Known::Key("app.restart.burst")),
            ("health", Known::Table),
            ("health.path", Known::Key("health.path")),
            ("limits", Known::Table),
            ("limits.tunnels", Known::Key("limits.tunnels")),
            ("limits.connections", Known::Instances),
            ("admin", Known::Instances),
            ("admin.token", Known::Instances),
            ("name", Known::Instances),
        ] {
            assert_eq!(known_in_app(name), is, "{name}");
        }
        for name in ["app", "apps", "port", "health.pth"] {
            assert_eq!(known_in_app(name), Known::No, "{name}");
        }
    }
}
