//! Writes TOML: tables, keys and comments in the order in which they are given.

use std::fmt::{self, Display, Write as _};

use crate::plain::{is_hidden, plain};

/// A document under construction.
#[derive(Debug)]
pub(super) struct Toml {
    text: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Boolean(bool),
    List(Vec<Self>),
    Table(Vec<(&'static str, Self)>),
}

impl Toml {
    /// A document that begins with a comment.
    pub(super) fn new(about: &str) -> Self {
        let mut toml = Self { text: String::new() };
        toml.comment(about);
        toml
    }

    /// One line of a comment for each line of `text`.
    pub(super) fn comment(&mut self, text: &str) {
        for line in text.split('\n') {
            // A control character makes a document invalid, even in a comment.
            _ = writeln!(self.text, "{}", format!("# {}", plain(line)).trim_end());
        }
    }

    /// Begins the table with this path.
    pub(super) fn table(&mut self, path: &[&str]) {
        let keys: Vec<_> = path.iter().map(|key| Key(key).to_string()).collect();
        _ = writeln!(self.text, "\n[{}]", keys.join("."));
    }

    /// Sets a key of the table that was begun last.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        _ = writeln!(self.text, "{} = {}", Key(key), value.into());
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

struct Key<'a>(&'a str);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !self.0.is_empty() && self.0.bytes().all(is_bare) {
            return f.write_str(self.0);
        }
        string(self.0, f)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => string(text, f),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Table(entries) => {
                let entries: Vec<_> =
                    entries.iter().map(|(key, value)| format!("{} = {value}", Key(key))).collect();
                write!(f, "{{ {} }}", entries.join(", "))
            }
        }
    }
}

/// A basic string (TOML 1.0). What a terminal would obey, or show elsewhere, is escaped.
fn string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if is_hidden(c) => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

impl Value {
    /// A time.
    pub(super) fn millis(millis: u64) -> Self {
        Self::Text(match millis {
            0 => "0".to_owned(),
            _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
            _ => format!("{millis}ms"),
        })
    }

    /// A size, in the largest unit in which it is a whole number.
    pub(super) fn bytes(bytes: u64) -> Self {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let unit = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
        let (name, unit) = unit.unwrap_or(("B", 1));
        Self::Text(format!("{}{name}", bytes / unit))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in
            ["", "a", "\"'\\", "a\nb\r\t", "\u{0}\u{7f}\u{85}", "ünï #=[]", "\u{feff}\u{202e}\u{10ffff}"]
        {
            let mut toml = Toml::new(text);
            toml.set(text, text);
            toml.table(&["apps", text]);
            toml.set("list", vec![text, text]);
            let read: toml::Table = toml.finish().parse().unwrap();
            assert_eq!(read[text].as_str(), Some(text));
            assert_eq!(read["apps"][text]["list"][1].as_str(), Some(text));
        }
    }
}
