//! The TOML file, key by key, each value with its place.
//!
//! [`parse`] knows which keys exist and nothing of what their values mean. It reports every key that does not
//! exist and every value that stands where a table belongs, and keeps the rest for [`super::read`]; serde's
//! derived types would stop at the first error. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;

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
                let span = value.span();
                match value.into_inner() {
                    DeValue::Table(inner) => self.walk(&name, inner, problems),
                    _ => problems.push(Problem {
                        at,
                        text: format!(
                            "{}: {name} = {}: expected a table, [{name}]",
                            self.position(span.start),
                            self.source(&span)
                        ),
                    }),
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

    /// A value as the file has it, on one line and cut to what a message can carry.
    pub(super) fn source(&self, span: &Range<usize>) -> String {
        const LONGEST: usize = 80;
        let text = self.text.get(span.clone()).unwrap_or("");
        let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > LONGEST {
            line = line.chars().take(LONGEST).chain(['…']).collect();
        }
        line.chars().filter(|c| !c.is_control()).collect()
    }
}
