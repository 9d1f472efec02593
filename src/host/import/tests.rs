//! Each format with a whole real configuration and with strange ones. What is printed is loaded as
//! `portokd --check` loads it.

use std::fs;

use super::*;
use crate::config::{self, Config, Sources};
use crate::wire::CommandLine;

mod hipache;
mod nfork;
mod pm2;
mod procfile;

/// What becomes of `text`, lying in `/srv/shop`.
fn imported(format: Format, text: &str) -> Imported {
    import(format, &Source::text_in(Some("/srv/shop"), text)).unwrap_or_else(|error| panic!("{error:#?}"))
}

/// All that is wrong with `text`.
fn refused(format: Format, text: &str) -> Vec<String> {
    match import(format, &Source::text_in(Some("/srv/shop"), text)) {
        Err(error) => {
            assert_eq!(error.code, HostCode::Invalid);
            assert!(!error.causes.is_empty(), "{error:?}");
            error.causes
        }
        Ok(imported) => panic!("{imported:#?}"),
    }
}

/// The configuration that a daemon would have of `toml`.
fn loaded(toml: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.toml");
    fs::write(&file, toml).unwrap();
    let env = [("PORTOK_STATE_DIR", "state"), ("PORTOK_CONFIG_DIR", "")]
        .map(|(name, path)| (name.to_owned(), folder.path().join(path).display().to_string()));
    let sources = Sources { file: Some(file), env: env.into(), ..Sources::default() };
    config::load(&sources).unwrap_or_else(|errors| panic!("{errors}\n{toml}"))
}

/// Whether one of the notes has all of these parts.
fn notes(imported: &Imported, parts: &[&str]) -> bool {
    imported.notes.iter().any(|note| parts.iter().all(|part| note.contains(part)))
}

#[test]
fn what_is_no_json_at_all_is_told_with_its_place() {
    for format in [Format::Hipache, Format::Nfork, Format::Pm2] {
        for text in ["", "module.exports = {}", "{\"a\": 1,}", "[1", "{'a': 1}", "\u{feff}"] {
            let problems = refused(format, text);
            assert!(problems[0].contains(": expected JSON, but "), "{problems:?}");
        }
        assert!(refused(format, "{\n  apps: []\n}")[0].starts_with("2:3: "), "{format:?}");
        // A tower of brackets that would use up a stack.
        refused(format, &"[".repeat(100_000));
        for text in ["null", "true", "\"text\"", "12", "[]", "[[]]", "[null]", "[{}]"] {
            refused(format, text);
        }
    }
}

#[test]
fn only_a_bounded_text_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Procfile");
    let line = "web: node app.js\n";
    let fits = format!("{line}{}", "#".repeat(1024 * 1024 - line.len()));
    fs::write(&path, &fits).unwrap();
    assert!(Source::read(&path).is_ok());
    fs::write(&path, format!("{fits}#")).unwrap();
    assert!(Source::read(&path).unwrap_err().message.contains("at most 1 MiB"));
    fs::write(&path, b"web: \xff").unwrap();
    assert!(Source::read(&path).unwrap_err().message.contains("expected UTF-8, byte 5 is not"));
    let missing = Source::read(&folder.path().join("none")).unwrap_err();
    assert_eq!(missing.code.exit_code(), 2);
    assert!(missing.message.contains("none"), "{missing:?}");
    assert!(Source::read(folder.path()).is_err());
}

#[test]
fn an_app_runs_where_its_description_lies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Procfile");
    fs::write(&path, "web: node app.js").unwrap();
    let imported = import(Format::Procfile, &Source::read(&path).unwrap()).unwrap();
    assert_eq!(loaded(&imported.toml).app.app.directory.as_deref(), Some(folder.path()));
}

#[test]
fn of_many_problems_the_first_are_told() {
    let problems = refused(Format::Procfile, &"nonsense\n".repeat(1000));
    assert_eq!(problems.len(), PROBLEMS_MAX + 1);
    assert_eq!(problems.last().unwrap(), "and 981 more");
}
