//! Names as they stand in the file: which are keys, which are tables, and what an unknown one most
//! likely should have been.

use super::super::raw::Known;
use super::{Key, keys};

/// What `name` is.
pub(in crate::config) fn known(name: &str) -> Known {
    match find(name) {
        Some(key) => Known::Key(key.name),
        None if is_table(name) => Known::Table,
        None => Known::No { nearest: nearest(name) },
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

/// The key or table that was most likely meant by the unknown `name`: one with a similar word in
/// the same table, else one with the same word in another table, else the nearest of the table, or
/// the nearest of all where there is no such table.
fn nearest(name: &str) -> &'static str {
    let (table, word) = split(name);
    let known = || keys().map(|key| key.name).chain(tables());
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
    use super::nearest;

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
            ("app.xyzzy", "app.env"),
            ("helth.path", "health.path"),
            ("admin.tokn", "admin.token"),
            ("upsteam", "upstream"),
            ("proxy.max_connections", "upstream.max_connections"),
        ] {
            assert_eq!(nearest(wrote), meant, "for {wrote}");
        }
    }
}
