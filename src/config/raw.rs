//! The TOML file, key by key, each value with its place.
//!
//! [`parse`] is told which names are keys and knows nothing of what their values mean. It reports
//! every unknown name and every value that stands in the place of a table, and keeps the rest for
//! [`super::read`]. (serde's derived types would stop at the first error.) An app of several stands
//! in a table of the main file, or in a file of its own: its keys are kept under the names that the
//! one app of an instance has them by. So are those of `[redis.app]`. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Value};

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
    /// A key, by its name, or a table with keys in it.
    KeyOrTable(&'static str),
    /// The table of several apps.
    Apps,
    /// The table of what holds for all apps of Redis.
    AppOfRedis,
    /// A key or table of the instance, in the table of an app.
    Instances,
    /// None of these.
    No,
}

/// Which names are known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// In the main file.
    pub(super) file: Vocabulary,
    /// In the table of one app of several.
    pub(super) app: Vocabulary,
    /// What the name of an app looks like, and whether one does.
    pub(super) app_name: (&'static str, fn(&str) -> bool),
}

/// The names that may stand in one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vocabulary {
    /// What a name is.
    pub(super) known: fn(&str) -> Known,
    /// The known name that was most likely meant by an unknown one.
    pub(super) nearest: fn(&str) -> &'static str,
}

/// How a file names the keys of a [`Section`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names<'a> {
    /// By their own names.
    Own,
    /// In the table of this app.
    App(&'a str),
    /// In the file of an app, without the app's name.
    File,
    /// In the table of what holds for all apps of Redis.
    AppOfRedis,
    /// In the table of this name: a companion's.
    Table(&'a str),
}

impl Names<'_> {
    /// The name of `key` for a message.
    pub(super) fn of<'k>(self, key: &'k str) -> Cow<'k, str> {
        let in_app = || key.strip_prefix("app.").unwrap_or(key);
        match self {
            Self::Own => Cow::Borrowed(key),
            Self::App(app) => Cow::Owned(format!("apps.{app}.{}", in_app())),
            Self::File => Cow::Borrowed(in_app()),
            Self::AppOfRedis => Cow::Owned(format!("redis.app.{}", in_app())),
            Self::Table(table) => Cow::Owned(format!("{table}.{}", in_app())),
        }
    }
}

pub(super) type Values<'t> = BTreeMap<&'static str, Spanned<DeValue<'t>>>;

/// The most problems that one file may have: what reports them costs more than what reads it.
const MOST_PROBLEMS: usize = 100;

/// A file's text.
#[derive(Debug)]
struct Source<'t> {
    file: &'t Path,
    text: &'t str,
    /// Where its lines begin.
    lines: Vec<usize>,
}

/// A configuration file's known keys.
#[derive(Debug)]
pub(super) struct Raw<'t> {
    source: Source<'t>,
    values: Values<'t>,
    /// Where the table of the one app begins, if there is one.
    app_at: Option<usize>,
    apps_at: Option<usize>,
    apps: Vec<Table<'t>>,
    app_of_redis_at: Option<usize>,
    app_of_redis: Values<'t>,
}

/// The table of an app.
#[derive(Debug)]
struct Table<'t> {
    app: String,
    at: usize,
    values: Values<'t>,
}

/// Keys of a file that are read together: the instance's, or an app's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    values: &'a Values<'a>,
    names: Names<'a>,
    at: usize,
}

/// Parses `text`, the content of the main file `file`. The problems are those of single keys.
///
/// # Errors
/// The text is not TOML: the first place where it is not.
pub(super) fn parse<'t>(
    file: &'t Path,
    text: &'t str,
    words: Words,
) -> Result<(Raw<'t>, Vec<Problem>), Problem> {
    parse_as(Source::new(file, text), words, Names::Own)
}

/// Parses `text`, the content of `file`, which is an app's own.
///
/// # Errors
/// As [`parse`].
pub(super) fn parse_app<'t>(
    file: &'t Path,
    text: &'t str,
    words: Words,
) -> Result<(Raw<'t>, Vec<Problem>), Problem> {
    parse_as(Source::new(file, text), words, Names::File)
}

fn parse_as<'t>(
    source: Source<'t>,
    words: Words,
    names: Names<'_>,
) -> Result<(Raw<'t>, Vec<Problem>), Problem> {
    // Not the error's own display: it quotes the line, which may hold a secret.
    let table = DeTable::parse(source.text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let why = error.message().lines().collect::<Vec<_>>().join(", ");
        Problem { at, text: format!("{}: not valid TOML: {why}", source.position(at)) }
    })?;
    let raw = Raw {
        source,
        values: Values::new(),
        app_at: None,
        apps_at: None,
        apps: Vec::new(),
        app_of_redis_at: None,
        app_of_redis: Values::new(),
    };
    let mut walk = Walk { words, problems: Vec::new(), left_out: 0, raw };
    let mut values = Values::new();
    walk.table("", table.into_inner(), names, &mut values);
    let Walk { mut problems, left_out, raw, .. } = walk;
    if left_out > 0 {
        let text = format!("{}: and {left_out} more of these", raw.source.file.display());
        problems.push(Problem { at: raw.source.text.len(), text });
    }
    Ok((Raw { values, ..raw }, problems))
}

/// One way through a file.
struct Walk<'t> {
    words: Words,
    problems: Vec<Problem>,
    /// Problems beyond [`MOST_PROBLEMS`].
    left_out: usize,
    /// What it has found but for the keys of the table that it is in.
    raw: Raw<'t>,
}

impl<'t> Walk<'t> {
    /// Keeps the keys of `table`, which is called `prefix`, in `values`, and notes what is wrong
    /// with its names.
    fn table(&mut self, prefix: &str, table: DeTable<'t>, names: Names<'_>, values: &mut Values<'t>) {
        let vocabulary = if names == Names::Own { self.words.file } else { self.words.app };
        for (key, value) in table {
            let at = key.span().start;
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            if names == Names::Own && name == "app" {
                self.raw.app_at = Some(at);
            }
            match (vocabulary.known)(&name) {
                Known::KeyOrTable(_) if value.get_ref().is_table() => {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.table(&name, inner, names, values);
                }
                Known::Key(name) | Known::KeyOrTable(name) => {
                    values.insert(name, value);
                }
                Known::Table | Known::Apps | Known::AppOfRedis if !value.get_ref().is_table() => {
                    let name = names.of(&name);
                    self.problem(at, value.span().start, |source| {
                        let shown = source.shown(&name, &value);
                        format!("{name} = {shown}: expected a table, [{name}]")
                    });
                }
                Known::Table => {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.table(&name, inner, names, values);
                }
                Known::Apps => {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.raw.apps_at = Some(at);
                    self.apps(inner);
                }
                Known::AppOfRedis => {
                    let DeValue::Table(inner) = value.into_inner() else { continue };
                    self.raw.app_of_redis_at = Some(at);
                    let mut values = Values::new();
                    self.table("", inner, Names::AppOfRedis, &mut values);
                    self.raw.app_of_redis = values;
                }
                Known::Instances => self.problem(at, at, |_| {
                    let whose = match &*name {
                        "limits.headers" => "the instance's, for requests and answers alike",
                        _ => "the instance's",
                    };
                    format!("{}: expected nothing here: {name} is {whose}", names.of(&name))
                }),
                Known::No => self.problem(at, at, |_| {
                    let nearest = names.of((vocabulary.nearest)(&name));
                    let name = cut(&names.of(&name).escape_debug().to_string());
                    format!("unknown key `{name}`, did you mean `{nearest}`?")
                }),
            }
        }
    }

    /// Keeps the tables of the apps.
    fn apps(&mut self, table: DeTable<'t>) {
        for (key, value) in table {
            let (app, at) = (key.get_ref().to_string(), key.span().start);
            let (expected, is_name) = self.words.app_name;
            if !is_name(&app) {
                let app = cut(&format!("{app:?}"));
                self.problem(at, at, |_| format!("apps.{app}: expected {expected} as the app's name"));
                continue;
            }
            if !value.get_ref().is_table() {
                self.problem(at, value.span().start, |source| {
                    format!("apps.{app} = {}: expected a table, [apps.{app}]", source.shown("apps", &value))
                });
                continue;
            }
            let DeValue::Table(inner) = value.into_inner() else { continue };
            let mut values = Values::new();
            self.table("", inner, Names::App(&app), &mut values);
            self.raw.apps.push(Table { app, at, values });
        }
    }

    /// Notes what is wrong with the name at `at`, and says so of `place`. It is only counted where
    /// there are many already.
    fn problem(&mut self, at: usize, place: usize, what: impl FnOnce(&Source<'t>) -> String) {
        if self.problems.len() >= MOST_PROBLEMS {
            self.left_out += 1;
            return;
        }
        let source = &self.raw.source;
        self.problems.push(Problem { at, text: format!("{}: {}", source.position(place), what(source)) });
    }
}

/// `text` with at most as many characters as a message has room for.
fn cut(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

impl Raw<'_> {
    /// The keys of the instance; of a file that is an app's own, those of the app.
    pub(super) fn whole(&self, names: Names<'static>) -> Section<'_> {
        Section { source: &self.source, values: &self.values, names, at: 0 }
    }

    /// The apps in tables of this file, by name.
    pub(super) fn apps(&self) -> impl Iterator<Item = (&str, Section<'_>)> {
        self.apps.iter().map(|Table { app, at, values }| {
            (app.as_str(), Section { source: &self.source, values, names: Names::App(app), at: *at })
        })
    }

    /// The keys that hold for all apps of Redis.
    pub(super) fn app_of_redis(&self) -> Section<'_> {
        let at = self.app_of_redis_at.unwrap_or_default();
        Section { source: &self.source, values: &self.app_of_redis, names: Names::AppOfRedis, at }
    }

    /// Where their table stands, as an offset and as `file:line:column`.
    pub(super) fn app_of_redis_at(&self) -> Option<(usize, String)> {
        let at = self.app_of_redis_at?;
        Some((at, self.source.position(at)))
    }

    /// Where the table of the one app stands, as an offset and as `file:line:column`.
    pub(super) fn app_at(&self) -> Option<(usize, String)> {
        let at = self.app_at?;
        Some((at, self.source.position(at)))
    }

    /// Where the table of several apps stands, as an offset and as `file:line:column`.
    pub(super) fn apps_at(&self) -> Option<(usize, String)> {
        let at = self.apps_at?;
        Some((at, self.source.position(at)))
    }
}

impl<'a> Section<'a> {
    /// The value of the key `name`, if the file has it here.
    pub(super) fn get(self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.values.get(name)
    }

    /// The keys of a table that begins at `at` and stands in it.
    pub(super) fn table<'b>(self, names: Names<'b>, values: &'b Values<'b>, at: usize) -> Section<'b>
    where
        'a: 'b,
    {
        Section { source: self.source, values, names, at }
    }

    /// How the file names its keys.
    pub(super) fn names(self) -> Names<'a> {
        self.names
    }

    /// Where the section begins.
    pub(super) fn at(self) -> usize {
        self.at
    }

    /// The file and the line in which the section begins.
    pub(super) fn place(self) -> String {
        let (line, _) = self.source.line_and_column(self.at);
        format!("{}:{line}", self.source.file.display())
    }

    /// `file:line:column` of a byte offset; both count from 1, columns in characters.
    pub(super) fn position(self, at: usize) -> String {
        self.source.position(at)
    }

    /// What it says, as the content of an app's own file.
    pub(super) fn as_file(self) -> String {
        let mut text = String::new();
        for (key, value) in self.values {
            // What was parsed is a value.
            let Ok(value) = Value::deserialize(ValueDeserializer::from(value.clone())) else { continue };
            let _never_fails = writeln!(text, "{} = {value}", Names::File.of(key));
        }
        text
    }

    /// The value of `key` as the file has it: on one line, cut to the length for a message, and no
    /// secret.
    pub(super) fn shown(self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        self.source.shown(key, value)
    }
}

impl<'t> Source<'t> {
    fn new(file: &'t Path, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { file, text, lines }
    }

    fn position(&self, at: usize) -> String {
        let (line, column) = self.line_and_column(at);
        format!("{}:{line}:{column}", self.file.display())
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|begin| *begin <= at);
        let before = line.checked_sub(1).and_then(|line| self.text.get(*self.lines.get(line)?..at));
        (line, before.map_or(0, |text| text.chars().count()) + 1)
    }

    fn shown(&self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        if is_secret(key) {
            return MASK.to_owned();
        }
        let text = self.text.get(value.span()).unwrap_or("");
        if value.get_ref().is_table() && !text.starts_with('{') {
            return "a table".to_owned();
        }
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        cut(&line.chars().filter(|c| !c.is_control()).collect::<String>())
    }
}
