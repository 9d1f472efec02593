//! The README's table of keys is what the code has.

use super::*;

const README: &str = include_str!("../../../README.md");

/// The keys of a row, with the defaults that it tells; `None` where it tells them in words.
fn row(line: &str) -> Vec<(String, Option<String>)> {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let [_, names, _, defaults, ..] = &cells[..] else { return Vec::new() };
    let names: Vec<_> = names.split(", ").map(|name| name.trim_matches('`')).collect();
    let table = names[0].rsplit_once('.').map_or("", |(table, _)| table);
    let defaults: Vec<_> = defaults.split(", ").collect();
    let default = |at: usize| match defaults.get(at)? {
        _ if defaults.len() != names.len() => None,
        &"none" => Some("0".to_owned()),
        text => Some(text.strip_prefix('`')?.strip_suffix('`')?.to_owned()),
    };
    let full = |name: &str| match name.strip_prefix('.') {
        Some(word) => format!("{table}.{word}"),
        None => name.to_owned(),
    };
    names.iter().enumerate().map(|(at, name)| (full(name), default(at))).collect()
}

#[test]
fn every_limit_is_in_the_readme_with_its_default() {
    let rows: Vec<_> = README.lines().filter(|line| line.starts_with("| `limits.")).flat_map(row).collect();
    for key in keys().filter(|key| key.name.starts_with("limits.")) {
        assert!(rows.iter().any(|(name, _)| name == key.name), "{} is not in the README", key.name);
    }
    let case = Case::file("");
    let without = case.good().effective_toml();
    let mut compared = 0;
    for (name, default) in rows {
        assert!(keys().any(|key| key.name == name), "the README has {name}");
        let Some(default) = default else { continue };
        let is_number =
            default.parse::<u64>().is_ok() && !name.ends_with("_timeout") && !name.ends_with("_idle");
        let value = if is_number { default } else { format!("\"{default}\"") };
        case.write("api.toml", &format!("{name} = {value}\n"));
        assert_eq!(case.good().effective_toml(), without, "{name} = {value} is not the default");
        compared += 1;
    }
    assert!(compared >= 7, "only {compared} defaults were compared");
}
