//! The TOML file, key by key, each value with its place.
//!
//! [`parse`] is told which names are keys and knows nothing of what their values mean. It reports
//! every unknown name and every value that stands in the place of a table, and keeps the rest for
//! [`super::read`]. (serde's derived types would stop at the first error.) Pure.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::secret::{MASK, is_secret};

/// A problem and its place. Problems are reported in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// The byte offset in the file, or [`Problem::ELSEWHERE`] for environment and flags, which come
    /// last.
    pub(super) at: usize,
    /// The whole sentence.
    pub(super) text: String,
}

impl Problem {
    /// The place of a problem that is in no file.
    pub(super) const ELSEWHERE: usize = usize::MAX;
}

/// What a name in the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// A key, by its name.
    Key(&'static str),
    /// A table with keys in it.
    Table,
    /// Neither. `nearest` is what was most likely meant.
    No { nearest: &'static str },
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
pub(super) fn parse<'t>(
    file: &'t Path,
    text: &'t str,
    known: fn(&str) -> Known,
) -> Result<(Raw<'t>, Vec<Problem>), Problem> {
    let mut raw = Raw { file, text, values: BTreeMap::new() };
    // Not the error's own display: it quotes the line, which may hold a secret.
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let why = error.message().lines().collect::<Vec<_>>().join(", ");
        Problem { at, text: format!("{}: not valid TOML: {why}", raw.position(at)) }
    })?;
    let mut problems = Vec::new();
    raw.walk("", table.into_inner(), known, &mut problems);
    Ok((raw, problems))
}

impl<'t> Raw<'t> {
    /// Keeps the keys of `table`, which is called `prefix`, and notes what is wrong with its names.
    fn walk(
        &mut self,
        prefix: &str,
        table: DeTable<'t>,
        known: fn(&str) -> Known,
        problems: &mut Vec<Problem>,
    ) {
        for (key, value) in table {
            let at = key.span().start;
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            match known(&name) {
                Known::Key(name) => {
                    self.values.insert(name, value);
                }
                Known::Table if value.get_ref().is_table() => {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.walk(&name, inner, known, problems);
                }
                Known::Table => {
                    let position = self.position(value.span().start);
                    let shown = self.shown(&name, &value);
                    let text = format!("{position}: {name} = {shown}: expected a table, [{name}]");
                    problems.push(Problem { at, text });
                }
                Known::No { nearest } => {
                    let (position, name) = (self.position(at), name.escape_debug());
                    let text = format!("{position}: unknown key `{name}`, did you mean `{nearest}`?");
                    problems.push(Problem { at, text });
                }
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

    /// The value of `key` as the file has it: on one line, cut to the length for a message, and no
    /// secret.
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
