//! Environment files in systemd's syntax.
//!
//! The grammar is that of `EnvironmentFile=` in systemd.exec(5), state by state as systemd reads
//! it. `#` and `;` begin a comment line, a line without `=` is ignored, white space around a value
//! is dropped, a value may be quoted and then spans lines, a backslash at a line's end continues
//! it. Nothing is expanded. What systemd passes over (a quote that is never closed, a name that no
//! variable can have) is an error here: a release that starts without one of its variables is worse
//! than one that does not start.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{self, Owner, Who};

/// The largest file that is read, in bytes.
const SIZE_LIMIT: u64 = 1 << 20;

/// Reads an environment file in systemd's syntax (`EnvironmentFile=` in systemd.exec(5)).
///
/// The file decides what runs, because it may set `PATH`. So it belongs to root, to the reader, to
/// `user`, or, below the app's `directory`, to the owner of that; and nobody else may write it.
///
/// # Errors
/// Names the file and, for a bad line, its number.
pub fn read_env_file(
    path: &Path,
    user: Option<u32>,
    directory: Option<&Path>,
) -> Result<BTreeMap<String, String>, String> {
    let shown = path.display();
    let (bytes, _) = files::read_bytes(path, SIZE_LIMIT, &Who::current(), Owner::App { user, directory })
        .map_err(|error| format!("cannot read the environment file {shown}: {error}"))?;
    parse(&bytes).map_err(|(line, problem)| format!("{shown}, line {line}: {problem}"))
}

/// The problem and the number of its line, from 1.
type Problem = (usize, String);

pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, Problem> {
    let line_of = |at: usize| 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (line_of(error.valid_up_to()), "is not UTF-8 text".to_owned()))?;
    if let Some(at) = text.find('\0') {
        return Err((line_of(at), "contains a NUL byte".to_owned()));
    }
    let mut parser = Parser::default();
    for c in text.chars() {
        parser.take(c)?;
        parser.line += usize::from(c == '\n');
    }
    parser.finish()
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    BeforeKey,
    Key,
    BeforeValue,
    Value,
    ValueEscape,
    SingleQuoted,
    DoubleQuoted,
    DoubleQuotedEscape,
    Comment,
    CommentEscape,
}

/// Takes a file character by character. Lines are counted from 0.
#[derive(Default)]
struct Parser {
    variables: BTreeMap<String, String>,
    state: State,
    key: String,
    value: String,
    /// The length of the value without unquoted white space at its end.
    keep: usize,
    line: usize,
    /// Where the assignment began.
    started: usize,
    /// Where the last quote was opened.
    quoted: usize,
}

impl Parser {
    fn take(&mut self, c: char) -> Result<(), Problem> {
        match self.state {
            State::BeforeKey | State::Key | State::Comment | State::CommentEscape => self.take_key(c),
            State::BeforeValue | State::Value | State::ValueEscape => return self.take_value(c),
            State::SingleQuoted | State::DoubleQuoted | State::DoubleQuotedEscape => self.take_quoted(c),
        }
        Ok(())
    }

    /// Outside of a value: a name or a comment.
    fn take_key(&mut self, c: char) {
        let newline = is_newline(c);
        match self.state {
            State::BeforeKey if matches!(c, '#' | ';') => self.state = State::Comment,
            State::BeforeKey if is_blank(c) => {}
            State::BeforeKey => {
                self.started = self.line;
                if c == '=' {
                    self.state = State::BeforeValue;
                } else {
                    self.state = State::Key;
                    self.key.push(c);
                }
            }
            State::Key if newline => {
                self.state = State::BeforeKey;
                self.key.clear();
            }
            State::Key if c == '=' => self.state = State::BeforeValue,
            State::Key => self.key.push(c),
            State::Comment if newline => self.state = State::BeforeKey,
            State::Comment if c == '\\' => self.state = State::CommentEscape,
            // Since systemd 254 a comment ends with its line, whatever that ends with.
            State::CommentEscape => self.state = if newline { State::BeforeKey } else { State::Comment },
            _ => {}
        }
    }

    /// In a value, outside of quotes.
    fn take_value(&mut self, c: char) -> Result<(), Problem> {
        if self.state == State::ValueEscape {
            self.state = State::Value;
            if !is_newline(c) {
                self.value.push(c);
            }
            self.keep = self.value.len();
            return Ok(());
        }
        let begins = self.state == State::BeforeValue;
        match c {
            _ if is_newline(c) => {
                self.insert()?;
                self.state = State::BeforeKey;
            }
            '\'' if begins => (self.state, self.quoted) = (State::SingleQuoted, self.line),
            '"' if begins => (self.state, self.quoted) = (State::DoubleQuoted, self.line),
            '\\' => self.state = State::ValueEscape,
            _ if begins && is_blank(c) => {}
            _ => {
                self.state = State::Value;
                self.value.push(c);
                if !is_blank(c) {
                    self.keep = self.value.len();
                }
            }
        }
        Ok(())
    }

    fn take_quoted(&mut self, c: char) {
        match self.state {
            State::SingleQuoted if c == '\'' => self.end_quote(),
            State::DoubleQuoted if c == '"' => self.end_quote(),
            State::DoubleQuoted if c == '\\' => self.state = State::DoubleQuotedEscape,
            State::DoubleQuotedEscape => {
                self.state = State::DoubleQuoted;
                match c {
                    '"' | '\\' | '`' | '$' => self.value.push(c),
                    '\n' => {}
                    _ => self.value.extend(['\\', c]),
                }
            }
            _ => self.value.push(c),
        }
    }

    fn end_quote(&mut self) {
        (self.state, self.keep) = (State::BeforeValue, self.value.len());
    }

    /// The end of the file.
    fn finish(mut self) -> Result<BTreeMap<String, String>, Problem> {
        match self.state {
            State::SingleQuoted | State::DoubleQuoted | State::DoubleQuotedEscape => {
                Err((1 + self.quoted, "the quote that opens here is never closed".to_owned()))
            }
            State::BeforeValue | State::Value | State::ValueEscape => {
                self.insert()?;
                Ok(self.variables)
            }
            State::BeforeKey | State::Key | State::Comment | State::CommentEscape => Ok(self.variables),
        }
    }

    /// The end of an assignment. A later one wins. Errors do not quote the value: it may be a
    /// secret.
    fn insert(&mut self) -> Result<(), Problem> {
        if self.state == State::Value {
            self.value.truncate(self.keep);
        }
        self.keep = 0;
        let name = self.key.trim_end_matches([' ', '\t']).to_owned();
        let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !name.as_bytes().first().is_none_or(u8::is_ascii_digit);
        if !good {
            let hint = if name.starts_with("export ") { "; leave `export` out" } else { "" };
            let shown: String = name.chars().take(80).flat_map(char::escape_default).collect();
            let problem = format!("`{shown}` is not a variable's name (letters, digits and `_`){hint}");
            return Err((1 + self.started, problem));
        }
        self.key.clear();
        self.variables.insert(name, std::mem::take(&mut self.value));
        Ok(())
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

fn is_blank(c: char) -> bool {
    is_newline(c) || matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().collect()
    }

    fn one(text: &str) -> String {
        let mut variables = read(text);
        assert_eq!(variables.len(), 1, "{text:?} gave {variables:?}");
        let (name, value) = variables.remove(0);
        assert_eq!(name, "A", "{text:?}");
        value
    }

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("A=\n", ""),
            ("  A = b c \t\r\n", "b c"),
            ("A=b # no comment", "b # no comment"),
            ("A=b'c\"d", "b'c\"d"),
            ("A=$HOME ${X} `date`", "$HOME ${X} `date`"),
            ("A=one\\\ntwo", "onetwo"),
            ("A=one \\\n  two", "one   two"),
            ("A=a\\nb\\\\c\\ ", "anb\\c "),
            ("A=\\\"x\\\"", "\"x\""),
            ("A=b\\", "b"),
            ("A='b \"c\" \\d \n e'  ", "b \"c\" \\d \n e"),
            ("A=\"b 'c' \\\" \\\\ \\$X \\` \\n\"", "b 'c' \" \\ $X ` \\n"),
            ("A=\"one\\\ntwo\nthree\"", "onetwo\nthree"),
            ("A=\"b\"c", "bc"),
            ("A=\"b\" 'c'", "bc"),
            ("A=\"b \" c ", "b c"),
            ("A= \"\" ", ""),
            ("A=b=c", "b=c"),
            ("A=1\nA=2", "2"),
            ("A=ä€😀", "ä€😀"),
            ("# A=1\n; A=2\n\n   # A=3\nno assignment\nA=4", "4"),
            ("# ends with \\\nA=5", "5"),
            ("# a \\b c\nA=6", "6"),
        ] {
            assert_eq!(one(text), value, "{text:?}");
        }
        assert_eq!(read("\n#\n;\nA"), []);
        assert_eq!(read("A=1\r\nB=2\r\n"), [("A".into(), "1".into()), ("B".into(), "2".into())]);
    }

    #[test]
    fn a_problem_has_its_line() {
        for (text, line, word) in [
            ("A=1\n\nexport B=2", 3, "leave `export` out"),
            ("A=1\n1B=2", 2, "`1B`"),
            ("=2", 1, "``"),
            ("A=1\nB=x\nC='never\nclosed\n", 3, "never closed"),
            ("A=\"x\ny\"\nB=\"", 3, "never closed"),
            ("A=\"x\\", 1, "never closed"),
            ("A=1\nB=\0", 2, "NUL"),
        ] {
            let (at, problem) = parse(text.as_bytes()).unwrap_err();
            assert_eq!(at, line, "{text:?}: {problem}");
            assert!(problem.contains(word), "{text:?}: {problem}");
        }
        assert_eq!(parse(b"A=1\nB=\xff").unwrap_err(), (2, "is not UTF-8 text".to_owned()));
        let (_, problem) = parse(b"B-AD=secret").unwrap_err();
        assert!(!problem.contains("secret"), "{problem}");
    }

    #[test]
    fn a_file_is_named_in_its_errors_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.env");
        let missing = read_env_file(&path, None, None).unwrap_err();
        assert!(missing.contains("app.env") && missing.contains("No such file"), "{missing}");
        std::fs::write(&path, "A=1\nB B=2\n").unwrap();
        let bad = read_env_file(&path, None, None).unwrap_err();
        assert!(bad.contains("app.env, line 2: `B B`"), "{bad}");
        std::fs::write(&path, "A=".to_owned() + &"x".repeat(1 << 20)).unwrap();
        assert!(read_env_file(&path, None, None).unwrap_err().contains("larger than 1.0 MiB"));
        assert!(read_env_file(folder.path(), None, None).unwrap_err().contains("expected a regular file"));
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_env_file(&fifo, None, None).unwrap_err().contains("expected a regular file"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_text_of_its_own_signs_makes_it_panic(text in "[A-C=\"'\\\\#; \t\r\n$ä]{0,60}") {
            if let Ok(variables) = parse(text.as_bytes()) {
                prop_assert!(variables.keys().all(|name| !name.is_empty()));
            }
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[^'\0]{0,80}") {
            prop_assert_eq!(one(&format!("A='{value}'")), value);
        }

        #[test]
        fn an_escaped_value_comes_back(value in "[^\0]{0,80}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('`', "\\`");
            prop_assert_eq!(one(&format!("A=\"{escaped}\"")), value);
        }
    }
}
