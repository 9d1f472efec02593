//! The keys of `[access]`, of `[errors]` and of `[log]`: what is written of requests, what clients
//! get where something fails, and what portok's own log says.

use std::time::Duration;

use super::super::log_levels::LogLevels;
use super::super::pages::Pages;
use super::super::read::Reader;
use super::super::show::{self, optional};
use super::super::values::{self, Input, Parsed};
use super::super::{AccessFile, AccessFormat, AppConfig};
use super::Key;

const FORMATS: &[(&str, AccessFormat)] =
    &[("json", AccessFormat::Json), ("combined", AccessFormat::Combined), ("hipache", AccessFormat::Hipache)];

pub(super) const ACCESS: &[Key] = &[
    row!(instance, "access.file", file, show_file, access.file),
    row!(instance, "access.format", values::choice(FORMATS), show::word(FORMATS), access.format),
    row!(instance, "access.query", values::boolean, show::number, access.query),
    row!(instance, "access.sample", values::share, show::number, access.sample),
    row!(instance, "access.slow", values::duration(Duration::ZERO), show::time, access.slow),
];

pub(super) const ERRORS: &[Key] =
    &[Key::app("errors.dir", read_pages, |config, _| optional(show::path)(&config.errors.dir))];

pub(super) const LOG: &[Key] = &[
    row!(instance, "log.level", LogLevels::parse, show::text, log.level).variable("PORTOK_LOG"),
    row!(instance, "log.verbose_errors", values::boolean, show::number, log.verbose_errors)
        .variable("VERBOSE_ERRORS"),
];

fn file(input: Input<'_>) -> Parsed<AccessFile> {
    let expected = || "\"off\", \"stdout\", or the absolute path of a file".to_owned();
    match input.text() {
        Some("off") => Ok(AccessFile::Off),
        Some("stdout") => Ok(AccessFile::Stdout),
        Some(path) if path.starts_with('/') => {
            values::path(input).map(AccessFile::Path).map_err(|_| expected())
        }
        _ => Err(expected()),
    }
}

fn show_file(file: &AccessFile) -> String {
    match file {
        AccessFile::Off => show::string("off"),
        AccessFile::Stdout => show::string("stdout"),
        AccessFile::Path(path) => show::path(path),
    }
}

/// The folder, and the pages that lie in it now.
fn read_pages(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let Some(dir) = r.read(key, values::path) else { return };
    // The command line only looks for the daemon.
    if !r.given.sources.client {
        match Pages::read(&dir) {
            Ok((pages, warnings)) => {
                config.errors.pages = pages.into();
                r.warnings.extend(warnings.into_iter().map(|warning| format!("{key}: {warning}")));
            }
            Err(why) => r.reject(key, &format!("a folder with pages, but: {why}")),
        }
    }
    config.errors.dir = Some(dir);
}
