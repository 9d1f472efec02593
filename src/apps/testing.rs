//! What the tests of several files need.

use crate::config::{AppConfig, of_an_empty_file};

/// A managed app with the defaults.
pub(super) fn app(name: &str) -> AppConfig {
    AppConfig { name: name.to_owned(), ..(*of_an_empty_file().app).clone() }
}
