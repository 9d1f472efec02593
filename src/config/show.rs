//! From values to TOML: for `--check`, and to compare two configurations key by key.
//!
//! A function for each kind of value; [`mod@super::keys`] says which key is of which kind. Pure.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::CommandLine;
use super::secret::{MASK, looks_secret};

/// Whether secrets stand in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// As `***`.
    Masked,
    /// As they are: only for comparing.
    Shown,
}

/// A value that need not be there.
pub(super) fn optional<T>(show: impl Fn(&T) -> String) -> impl Fn(&Option<T>) -> Option<String> {
    move |value| value.as_ref().map(&show)
}

/// A value whose absence is written as zero.
pub(super) fn or_zero<T: Default>(show: impl Fn(&T) -> String) -> impl Fn(&Option<T>) -> String {
    move |value| value.as_ref().map_or_else(|| show(&T::default()), &show)
}

/// An array of strings.
pub(super) fn list<T>(show: impl Fn(&T) -> String) -> impl Fn(&Vec<T>) -> String {
    move |items| format!("[{}]", items.iter().map(&show).collect::<Vec<_>>().join(", "))
}

/// A single item as itself, several as an array.
pub(super) fn one_or_more<T>(show: impl Fn(&T) -> String) -> impl Fn(&Vec<T>) -> String {
    move |items| match &items[..] {
        [item] => show(item),
        _ => list(&show)(items),
    }
}

/// One of some words.
pub(super) fn word<T: Copy + PartialEq>(words: &'static [(&str, T)]) -> impl Fn(&T) -> String {
    move |value| string(words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word))
}

/// What has a text of its own.
pub(super) fn text(value: &impl Display) -> String {
    string(&value.to_string())
}

/// A number or a truth value.
pub(super) fn number(value: &impl Display) -> String {
    value.to_string()
}

pub(super) fn string(text: &(impl AsRef<str> + ?Sized)) -> String {
    toml::Value::from(text.as_ref()).to_string()
}

pub(super) fn secret(text: &str, secrets: Secrets) -> String {
    string(if secrets == Secrets::Masked { MASK } else { text })
}

pub(super) fn path(path: &(impl AsRef<Path> + ?Sized)) -> String {
    string(path.as_ref().to_string_lossy().as_ref())
}

pub(super) fn percent(percent: &u32) -> String {
    string(&format!("{percent}%"))
}

pub(super) fn time(time: &Duration) -> String {
    if time.is_zero() { string("0") } else { string(&humantime::format_duration(*time).to_string()) }
}

pub(super) fn size(bytes: &u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| *bytes != 0 && bytes.is_multiple_of(*unit));
    string(&unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit)))
}

pub(super) fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => string(text),
        CommandLine::Exec(words) => list(string)(words),
    }
}

/// A range of addresses; a single address is shown without its prefix length.
pub(super) fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        string(&net.addr().to_string())
    } else {
        string(&net.to_string())
    }
}

/// A table of strings. A value is a secret when its name looks like one, or when it is a URL with a
/// user or a password.
pub(super) fn table(entries: &BTreeMap<String, String>, secrets: Secrets) -> String {
    if entries.is_empty() {
        return "{}".to_owned();
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, value)| {
            let with_login = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
            let mask = if looks_secret(name) || with_login { secrets } else { Secrets::Shown };
            let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let name = if bare { name.clone() } else { string(name) };
            format!("{name} = {}", secret(value, mask))
        })
        .collect();
    format!("{{ {} }}", entries.join(", "))
}
