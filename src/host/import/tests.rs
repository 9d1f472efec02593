//! Each format with a whole real configuration and with strange ones. What is printed is loaded as
//! `portokd --check` loads it.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::{self, Config, Replicas, Sources};
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
            assert!(problems[0].contains(": this is not JSON: "), "{problems:?}");
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

/// A value such as people write, or a stranger.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,6}",
        Just("a\0b\n\u{202e}".to_owned()),
        Just("x".repeat(5000)),
        prop::sample::select(vec![
            "app.js",
            "./a b",
            "localhost:80",
            ":9080",
            "redis://:p@h:1/2#p",
            "redis:",
            "0.0.0.0",
            "::1",
            "100ms",
            "none",
            "node@1",
            "80",
            "260M",
            "prod",
            "/",
        ])
        .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![any::<i64>(), 0..70_000_i64].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let keys = prop_oneof![
            prop::sample::select(vec![
                "apps",
                "script",
                "name",
                "cwd",
                "args",
                "interpreter",
                "node_args",
                "env",
                "PORT",
                "port",
                "user",
                "gid",
                "kill_timeout",
                "restart_delay",
                "exp_backoff_restart_delay",
                "max_restarts",
                "max_memory_restart",
                "autorestart",
                "instances",
                "watch",
                "server",
                "http",
                "bind",
                "address",
                "address6",
                "workers",
                "maxSockets",
                "deadBackendTTL",
                "tcpTimeout",
                "retryOnError",
                "driver",
                "redis",
                "redisHost",
                "listen",
                "out",
                "active",
                "prod",
                "timeout",
                "timeoutCode",
                "idleConn",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,4}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..9)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// What a stranger's values make is a configuration, or nothing.
fn judge(format: Format, text: &str) {
    let Ok(imported) = import(format, &Source::text_in(Some("/srv/shop"), text)) else { return };
    loaded(&imported.toml);
}

proptest! {
    #[test]
    fn no_value_makes_what_cannot_be_read(value in value()) {
        let text = value.to_string();
        for format in [Format::Hipache, Format::Nfork, Format::Pm2] {
            judge(format, &text);
        }
        // Nearly right: an app, an inbound and a server with these fields.
        if let Value::Object(fields) = &value {
            let with = |more: Value| {
                let mut whole = more.as_object().cloned().unwrap_or_default();
                whole.extend(fields.clone());
                Value::Object(whole)
            };
            judge(Format::Pm2, &with(json!({"script": "app.js"})).to_string());
            judge(Format::Nfork, &json!([with(json!({"listen": ":90", "out": {"prod": "localhost"}, "active": "prod"}))]).to_string());
            judge(Format::Hipache, &json!({"server": with(json!({"port": 80}))}).to_string());
        }
    }

    #[test]
    fn no_text_makes_what_cannot_be_read(text in "(web|[a-z]{0,3}): ?\\PC{0,20}(\n\\PC{0,9}: \\PC{1,9}){0,3}") {
        judge(Format::Procfile, &text);
    }
}
