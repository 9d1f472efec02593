//! The TOML file, key by key, each value with its place.
//!
//! [`parse`] knows which keys exist and nothing of what their values mean. It reports every key that does not
//! exist and every value that stands where a table belongs, and keeps the rest for [`super::read`]; serde's
//! derived types would stop at the first error. Pure.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::keys::secret::{MASK, is_secret};

/// A problem and its place: what is told in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Byte offset in the file; [`Problem::ELSEWHERE`] for environment and flags, which come last.
    pub(super) at: usize,
    /// The whole sentence.
    pub(super) text: String,
}

impl Problem {
    /// The place of what is in no file.
    pub(super) const ELSEWHERE: usize = usize::MAX;
}

/// A configuration file's known keys.
#[derive(Debug)]
pub(super) struct Raw<'t> {
    file: &'t Path,
    text: &'t str,
    values: BTreeMap<&'static str, Spanned<DeValue<'t>>>,
}

/// Parses `text`, the content of `file`. The problems are those of single keys.
///
/// # Errors
/// The text is not TOML: the first place where it is not.
pub(super) fn parse<'t>(file: &'t Path, text: &'t str) -> Result<(Raw<'t>, Vec<Problem>), Problem> {
    let mut raw = Raw { file, text, values: BTreeMap::new() };
    // Not the error's own display: it quotes the line, which may hold a secret.
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let why = error.message().lines().collect::<Vec<_>>().join(", ");
        Problem { at, text: format!("{}: not valid TOML: {why}", raw.position(at)) }
    })?;
    let mut problems = Vec::new();
    raw.walk("", table.into_inner(), &mut problems);
    Ok((raw, problems))
}

impl<'t> Raw<'t> {
    fn walk(&mut self, prefix: &str, table: DeTable<'t>, problems: &mut Vec<Problem>) {
        for (key, value) in table {
            let at = key.span().start;
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            if let Some(known) = keys::find(&name) {
                self.values.insert(known.name, value);
            } else if keys::is_table(&name) {
                if value.get_ref().is_table() {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.walk(&name, inner, problems);
                } else {
                    let position = self.position(value.span().start);
                    let shown = self.shown(&name, &value);
                    let text = format!("{position}: {name} = {shown}: expected a table, [{name}]");
                    problems.push(Problem { at, text });
                }
            } else {
                problems.push(Problem {
                    at,
                    text: format!(
                        "{}: unknown key `{}`, did you mean `{}`?",
                        self.position(at),
                        name.escape_debug(),
                        keys::nearest(&name)
                    ),
                });
            }
        }
    }

    /// The value of the key `name`, if the file has it.
    pub(super) fn get(&self, name: &str) -> Option<&Spanned<DeValue<'t>>> {
        self.values.get(name)
    }

    /// `file:line:column` of a byte offset; both count from 1, columns in characters.
    pub(super) fn position(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        format!("{}:{line}:{column}", self.file.display())
    }

    /// The value of `key` as the file has it: on one line, cut to what a message can carry, without secrets.
    pub(super) fn shown(&self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        const LONGEST: usize = 80;
        if is_secret(key) {
            return MASK.to_owned();
        }
        let text = self.text.get(value.span()).unwrap_or("");
        if value.get_ref().is_table() && !text.starts_with('{') {
            return "a table".to_owned();
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cut = line.chars().filter(|c| !c.is_control()).take(LONGEST);
        let rest = if line.chars().count() > LONGEST { "…" } else { "" };
        cut.chain(rest.chars()).collect()
    }
}
