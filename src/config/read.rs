//! Lays the sources over one another: reads a key from file and environment and collects every
//! problem.
//!
//! Every source that sets a key is checked, even if another source overrides it. Pure; the problems
//! are the [`Reader`]'s until [`Reader::finish`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Sources;
use super::env::Env;
use super::files::Who;
use super::further;
use super::limits::Host;
use super::raw::{Names, Problem, Section, Values};
use super::secret::{MASK, is_secret};
use super::seen_file::SeenFile;
use super::values::{Input, Parsed};

/// What a configuration depends on beside its keys.
#[derive(Debug)]
pub(super) struct Given<'a> {
    /// Flags and environment.
    pub(super) sources: &'a Sources,
    /// The file that is read, if there is one.
    pub(super) file: Option<&'a Path>,
    /// The user that reads it.
    pub(super) who: &'a Who,
    /// The host it is read on.
    pub(super) host: &'a Host,
    /// The further files that were read, as often as they were.
    pub(super) further: RefCell<Vec<(PathBuf, SeenFile)>>,
}

impl<'a> Given<'a> {
    /// The environment's variables.
    pub(super) fn env(&self) -> Env<'a> {
        Env(&self.sources.env)
    }

    /// Notes a further file that is about to be read.
    pub(super) fn note_further(&self, file: &Path) {
        self.further.borrow_mut().push((file.to_owned(), further::look(file)));
    }

    /// Whether the environment alone configures a daemon: then its defaults are those of npm
    /// portok.
    pub(super) fn as_npm(&self) -> bool {
        self.file.is_none() && !self.sources.overrides.foreground
    }
}

/// Reads keys, notes problems and warnings.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// What the configuration depends on beside its keys.
    pub(super) given: &'a Given<'a>,
    section: Option<Section<'a>>,
    /// The variable of a key.
    variable_of: fn(&str) -> Option<&'static str>,
    problems: Vec<Problem>,
    /// What is odd but no error.
    pub(super) warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader of the environment and of the keys that the file has, whose `problems` are known
    /// already.
    pub(super) fn new(
        given: &'a Given<'a>,
        section: Option<Section<'a>>,
        variable_of: fn(&str) -> Option<&'static str>,
        problems: Vec<Problem>,
    ) -> Self {
        Self { given, section, variable_of, problems, warnings: Vec::new() }
    }

    /// A reader of the keys of one app of several, which no variable sets.
    pub(super) fn of_app(given: &'a Given<'a>, section: Section<'a>, problems: Vec<Problem>) -> Self {
        Self { given, section: Some(section), variable_of: |_| None, problems, warnings: Vec::new() }
    }

    /// Takes over what another reader of the same file found.
    pub(super) fn take_over(&mut self, other: Reader<'_>) {
        self.problems.extend(other.problems);
        self.warnings.extend(other.warnings);
    }

    /// All problems, those of the file in its order and then the others; and the warnings.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<String>) {
        self.problems.sort_by_key(|problem| problem.at);
        (self.problems.into_iter().map(|problem| problem.text).collect(), self.warnings)
    }

    /// Puts the value of `key` into `field`, which keeps its default if the key is not set, or
    /// badly.
    pub(super) fn set<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
        field: &mut T,
    ) {
        if let Some(value) = self.read(key, parse) {
            *field = value;
        }
    }

    /// As [`Reader::set`], for a list.
    pub(super) fn set_list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
        field: &mut Vec<T>,
    ) {
        if let Some(list) = self.read_list(key, parse) {
            *field = list;
        }
    }

    /// The value of `key`: the environment's, else the file's. `None` if it is not set, or badly.
    pub(super) fn read<T>(&mut self, key: &'static str, parse: impl Fn(Input<'_>) -> Parsed<T>) -> Option<T> {
        let file = self.read_file(key, &parse);
        self.read_variable(key, &parse).or(file)
    }

    /// The value of `key` in the file alone.
    pub(super) fn read_file<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.section?.get(key)?;
        match parse(Input::Toml(value.get_ref())) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                self.reject_at(key, value, &expected);
                None
            }
        }
    }

    /// The value of `key`'s variable alone.
    pub(super) fn read_variable<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let (variable, text) = self.variable(key)?;
        match parse(Input::Text(text)) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                self.problem(format!("{variable} = {}: expected {expected}", shown(key, text)));
                None
            }
        }
    }

    /// A list: an array in the file, separated by commas in the environment. Each bad item is a
    /// problem.
    fn read_list<T>(&mut self, key: &'static str, parse: impl Fn(Input<'_>) -> Parsed<T>) -> Option<Vec<T>> {
        let mut from_file = None;
        if let Some(value) = self.section.and_then(|section| section.get(key)) {
            if let DeValue::Array(items) = value.get_ref() {
                let mut list = Vec::new();
                for item in items.iter() {
                    match parse(Input::Toml(item.get_ref())) {
                        Ok(parsed) => list.push(parsed),
                        Err(expected) => self.reject_at(key, item, &expected),
                    }
                }
                from_file = Some(list);
            } else {
                self.reject_at(key, value, "an array of strings");
            }
        }
        let Some((variable, text)) = self.variable(key) else { return from_file };
        let mut list = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match parse(Input::Text(item)) {
                Ok(parsed) => list.push(parsed),
                Err(expected) => self.problem(format!("{variable} = {item:?}: expected {expected}")),
            }
        }
        Some(list)
    }

    /// The value of `key` where it is one item or an array of at least one and at most `most`
    /// different ones; in the environment it is one. Each bad item is a problem.
    pub(super) fn read_one_or_more<T: PartialEq>(
        &mut self,
        key: &'static str,
        most: usize,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let is_list = |value: &Spanned<DeValue<'_>>| value.get_ref().is_array();
        let from_file = if self.section.and_then(|section| section.get(key)).is_some_and(is_list) {
            self.read_different(key, 1..=most, &parse)
        } else {
            self.read_file(key, &parse).map(|item| vec![item])
        };
        self.read_variable(key, &parse).map(|item| vec![item]).or(from_file)
    }

    /// The array of `key` in the file: so many different items. Each bad item is a problem.
    pub(super) fn read_different<T: PartialEq>(
        &mut self,
        key: &'static str,
        many: RangeInclusive<usize>,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let value = self.section?.get(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            self.reject_at(key, value, "an array");
            return None;
        };
        if !many.contains(&items.len()) {
            let (least, most) = many.into_inner();
            let expected = format!("an array of {least} to {most} items, not of {}", items.len());
            self.reject_at(key, value, &expected);
            return None;
        }
        let mut list = Vec::new();
        for item in items.iter() {
            match parse(Input::Toml(item.get_ref())) {
                Ok(parsed) if list.contains(&parsed) => {
                    self.reject_at(key, item, "each item once");
                }
                Ok(parsed) => list.push(parsed),
                Err(expected) => self.reject_at(key, item, &expected),
            }
        }
        Some(list)
    }

    /// The entries of a table of strings in the file. `check` judges the name of an entry.
    pub(super) fn read_map(
        &mut self,
        key: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Vec<(String, String)> {
        let Some(section) = self.section else { return Vec::new() };
        let Some(value) = section.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.reject_at(key, value, "a table of strings, such as { NODE_ENV = \"production\" }");
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (name, value) in table {
            let (name, at) = (name.get_ref().as_ref(), name.span().start);
            let dotted = format!("{key}.{}", name.escape_debug());
            if let Err(expected) = check(name) {
                let (position, called) = (section.position(at), section.names().of(&dotted));
                let text = format!("{position}: {called}: expected {expected}");
                self.problems.push(Problem { at, text });
            }
            match value.get_ref().as_str() {
                Some(text) if !text.contains('\0') => entries.push((name.to_owned(), text.to_owned())),
                _ => self.reject_at(&dotted, value, "a string without NUL, such as \"1\""),
            }
        }
        entries
    }

    /// Whether the file has a table for `key`.
    pub(super) fn is_table(&self, key: &'static str) -> bool {
        self.table_of(key).is_some()
    }

    /// Whether the table of `key` has this part.
    pub(super) fn has_part(&self, key: &'static str, part: &str) -> bool {
        self.part_of(key, part).is_some()
    }

    /// The value of a part of `key`, which is a table in the file.
    pub(super) fn read_part<T>(
        &mut self,
        key: &'static str,
        part: &str,
        parse: impl Fn(Input<'_>) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.part_of(key, part)?;
        parse(Input::Toml(value.get_ref()))
            .map_err(|expected| self.reject_at(&format!("{key}.{part}"), value, &expected))
            .ok()
    }

    /// Notes that a part of `key` is not what was `expected`; where there is no such part, that the
    /// whole is not.
    pub(super) fn reject_part(&mut self, key: &'static str, part: &str, expected: &str) {
        match self.part_of(key, part) {
            Some(value) => self.reject_at(&format!("{key}.{part}"), value, expected),
            None => self.reject(key, &format!("{part}: {expected}")),
        }
    }

    /// Notes each part of `key` that is not `known`.
    pub(super) fn only_parts(&mut self, key: &'static str, known: &[&str]) {
        let Some((section, table)) = self.section.zip(self.table_of(key)) else { return };
        for name in table.keys().filter(|name| !known.contains(&&**name.get_ref())) {
            let (at, unknown) = (name.span().start, name.get_ref());
            let distance = |part: &&&str| strsim::damerau_levenshtein(part, unknown);
            let nearest = known.iter().min_by_key(distance).unwrap_or(&"");
            let [unknown, nearest] =
                [unknown, *nearest].map(|name| section.names().of(&format!("{key}.{name}")).into_owned());
            let (position, unknown) = (section.position(at), unknown.escape_debug());
            let text = format!("{position}: unknown key `{unknown}`, did you mean `{nearest}`?");
            self.problems.push(Problem { at, text });
        }
    }

    fn table_of(&self, key: &'static str) -> Option<&'a DeTable<'a>> {
        self.section?.get(key)?.get_ref().as_table()
    }

    fn part_of(&self, key: &'static str, part: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table_of(key)?.iter().find(|(name, _)| name.get_ref() == part).map(|(_, value)| value)
    }

    /// The entries of the table of `key` in the file, each with its place.
    pub(super) fn read_entries(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Option<Vec<(&'a str, usize, &'a Spanned<DeValue<'a>>)>> {
        let value = self.section?.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.reject_at(key, value, expected);
            return None;
        };
        let entries = table.iter();
        Some(entries.map(|(name, value)| (&**name.get_ref(), name.span().start, value)).collect())
    }

    /// A reader of the keys of a table that stands in this one.
    pub(super) fn within<'b>(&self, names: Names<'b>, values: &'b Values<'b>, at: usize) -> Reader<'b>
    where
        'a: 'b,
    {
        let section = self.section.map(|section| section.table(names, values, at));
        Reader { section, ..Reader::new(self.given, None, |_| None, Vec::new()) }
    }

    /// The name of what is called `name` in the table of `key`, for a message.
    pub(super) fn called_in(&self, key: &'static str, name: &str) -> String {
        format!("{}.{}", self.called(key), name.escape_debug())
    }

    /// Notes an unknown key at this offset of the file.
    pub(super) fn unknown(&mut self, at: usize, called: &str, nearest: &str) {
        let Some(section) = self.section else { return };
        let called = called.escape_debug();
        let text = format!("{}: unknown key `{called}`, did you mean `{nearest}`?", section.position(at));
        self.problem_at(at, text);
    }

    /// Notes that what stands at this offset of the file, and is called so, is not what was
    /// `expected`.
    pub(super) fn reject_called(&mut self, at: usize, called: &str, expected: &str) {
        let Some(section) = self.section else { return };
        let text = format!("{}: {called}: expected {expected}", section.position(at));
        self.problem_at(at, text);
    }

    /// Whether any source sets `key`, well or badly.
    pub(super) fn is_set(&self, key: &'static str) -> bool {
        self.in_file(key) || self.variable(key).is_some()
    }

    /// Whether the file sets `key`.
    pub(super) fn in_file(&self, key: &'static str) -> bool {
        self.section.is_some_and(|section| section.get(key).is_some())
    }

    /// The name of `key` for a message: its variable if that sets it, else its name in the file.
    pub(super) fn called(&self, key: &'static str) -> Cow<'static, str> {
        let in_file = || self.section.map_or(Cow::Borrowed(key), |section| section.names().of(key));
        self.variable(key).map_or_else(in_file, |(variable, _)| Cow::Borrowed(variable))
    }

    /// Whether it reads one app of several.
    pub(super) fn is_of_several(&self) -> bool {
        self.section.is_some_and(|section| section.names() != Names::Own)
    }

    /// Notes that the section lacks what was `expected`.
    pub(super) fn missing(&mut self, expected: &str) {
        let Some(section) = self.section else { return };
        let (at, position) = (section.at(), section.position(section.at()));
        let text = match section.names() {
            Names::App(app) => format!("{position}: apps.{app}: expected {expected}"),
            Names::Table(table) => format!("{position}: {table}: expected {expected}"),
            Names::Own | Names::File | Names::AppOfRedis => format!("{position}: expected {expected}"),
        };
        self.problems.push(Problem { at, text });
    }

    /// The place of the value of `key`, if it is the file's.
    pub(super) fn position_of(&self, key: &'static str) -> Option<String> {
        let (section, value) = (self.section?, self.section?.get(key)?);
        self.variable(key).is_none().then(|| section.position(value.span().start))
    }

    /// Where the value of `key` is, if the file has it: as an offset, and as place, name and value.
    pub(super) fn quoted(&self, key: &'static str) -> Option<(usize, String)> {
        let (section, value) = (self.section?, self.section?.get(key)?);
        Some((value.span().start, quoted(section, key, value)))
    }

    /// Notes that the value of `key`, from the source that won, is not what was `expected`.
    pub(super) fn reject(&mut self, key: &'static str, expected: &str) {
        if let Some((variable, text)) = self.variable(key) {
            self.problem(format!("{variable} = {}: expected {expected}", shown(key, text)));
        } else if let Some(value) = self.section.and_then(|section| section.get(key)) {
            self.reject_at(key, value, expected);
        } else {
            let name = self.called(key);
            self.problem(format!("{name}: expected {expected}"));
        }
    }

    /// Notes a problem that is in no file.
    pub(super) fn problem(&mut self, text: impl Display) {
        self.problems.push(Problem { at: Problem::ELSEWHERE, text: text.to_string() });
    }

    /// Notes a problem at this offset of the file.
    pub(super) fn problem_at(&mut self, at: usize, text: String) {
        self.problems.push(Problem { at, text });
    }

    fn reject_at(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let Some(section) = self.section else { return };
        let text = format!("{}: expected {expected}", quoted(section, key, value));
        self.problems.push(Problem { at: value.span().start, text });
    }

    fn variable(&self, key: &'static str) -> Option<(&'static str, &'a str)> {
        let variable = (self.variable_of)(key)?;
        Some((variable, self.given.env().get(variable)?))
    }
}

/// Place, name and value of `key`.
fn quoted(section: Section<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> String {
    let (position, name) = (section.position(value.span().start), section.names().of(key));
    format!("{position}: {name} = {}", section.shown(key, value))
}

fn shown(key: &str, text: &str) -> String {
    if is_secret(key) { MASK.to_owned() } else { format!("{:?}", text.chars().take(80).collect::<String>()) }
}
