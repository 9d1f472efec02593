//! What is imported: a text of bounded length, and where it is from.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::super::failure::{HostCode, HostFailure};
use super::findings::Findings;
use crate::plain::describe_io;

/// The longest file that is imported, in bytes.
pub(super) const SOURCE_MAX: u64 = 1024 * 1024;

/// The text of a file, or of standard input.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    name: String,
    folder: Option<String>,
    text: String,
}

impl Source {
    /// Reads `file`; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, is longer than 1 MiB, or is not UTF-8.
    pub(crate) fn read(file: &Path) -> Result<Self, HostFailure> {
        if file.as_os_str() == "-" {
            return Self::of(io::stdin().lock(), "standard input".to_owned(), None);
        }
        let name = file.display().to_string();
        let opened = File::open(file).map_err(|error| unreadable(&name, &error))?;
        // Apps run where their description lies, unless it says otherwise.
        let folder = std::path::absolute(file).ok();
        let folder = folder.as_deref().and_then(Path::parent).and_then(Path::to_str).map(str::to_owned);
        Self::of(opened, name, folder)
    }

    fn of(input: impl Read, name: String, folder: Option<String>) -> Result<Self, HostFailure> {
        let mut bytes = Vec::new();
        input.take(SOURCE_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&name, &error))?;
        let refused = |why: &str| HostFailure {
            code: HostCode::Invalid,
            message: format!("cannot import {name}: {why}"),
            causes: Vec::new(),
            hint: None,
        };
        if bytes.len() as u64 > SOURCE_MAX {
            return Err(refused("expected at most 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            refused(&format!("expected UTF-8, byte {} is not", error.utf8_error().valid_up_to()))
        })?;
        // Editors of other systems put it there; no format knows it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        Ok(Self { name, folder, text })
    }

    /// A text, as if it lay in `folder`.
    #[cfg(test)]
    pub(super) fn text_in(folder: Option<&str>, text: &str) -> Self {
        Self::of(text.as_bytes(), "the file".to_owned(), folder.map(str::to_owned)).unwrap()
    }

    /// What messages call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The folder that it lies in; `None` for standard input.
    pub(super) fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The JSON value that it holds.
    pub(super) fn json(&self, findings: &mut Findings) -> Option<Value> {
        match serde_json::from_str(&self.text) {
            Ok(value) => Some(value),
            Err(error) => {
                let place = format!("{}:{}", error.line(), error.column());
                let error = error.to_string();
                let what = error.split(" at line ").next().unwrap_or(&error);
                findings.problem(place, format_args!("this is not JSON: {what}"));
                None
            }
        }
    }
}

fn unreadable(name: &str, error: &io::Error) -> HostFailure {
    HostFailure {
        code: HostCode::Usage,
        message: format!("cannot read {name}: {}", describe_io(error)),
        causes: Vec::new(),
        hint: None,
    }
}
