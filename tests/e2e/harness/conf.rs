//! A TOML configuration that a test builds key by key.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::app::App;

/// The content of an instance's file, and its path.
#[derive(Debug, Clone)]
pub(crate) struct Conf {
    file: PathBuf,
    table: Table,
}

impl Conf {
    /// An empty configuration.
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, table: Table::new() }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Sets the value of a dotted key.
    #[must_use]
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.put(key, value);
        self
    }

    /// Sets the value of a dotted key.
    pub(crate) fn put(&mut self, key: &str, value: impl Into<Value>) {
        let (folders, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.table;
        for folder in folders.split('.').filter(|folder| !folder.is_empty()) {
            let inner = table.entry(folder).or_insert_with(|| Value::Table(Table::new()));
            table = inner.as_table_mut().unwrap_or_else(|| panic!("{folder} in {key} is no table"));
        }
        table.insert(leaf.to_owned(), value.into());
    }

    /// Takes the table of an app of several out.
    #[must_use]
    pub(crate) fn without_app(mut self, app: &str) -> Self {
        let apps = self.table.get_mut("apps").and_then(Value::as_table_mut).expect("it has several apps");
        apps.remove(app).unwrap_or_else(|| panic!("it has no app {app}"));
        self
    }

    /// Makes the instance run `app`.
    #[must_use]
    pub(crate) fn app(self, app: &App) -> Self {
        self.set("app.command", app.command())
    }

    pub(crate) fn text(&self) -> String {
        toml::to_string(&self.table).expect("a table of plain values can be written")
    }

    /// Saves it as editors do: a new file replaces the old one.
    pub(crate) fn save(&self) {
        self.save_text(&self.text());
    }

    /// Saves `text` instead of it.
    pub(crate) fn save_text(&self, text: &str) {
        let new = self.file.with_extension("new");
        write_private(&new, text);
        fs::rename(&new, &self.file).expect("renaming the new configuration file");
    }

    /// Writes it into the existing file, without replacing the file.
    pub(crate) fn save_in_place(&self) {
        write_private(&self.file, &self.text());
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(file: &Path, text: &str) {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .unwrap_or_else(|error| panic!("writing {}: {error}", file.display()));
}
