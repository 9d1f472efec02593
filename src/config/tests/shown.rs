//! What `--check` shows, and that the examples load.

use super::*;

#[test]
fn the_effective_configuration_loads_again_and_hides_secrets() {
    let case = Case::file(
        "[app]\ncommand = [\"a b\", \"\\\"q\\\"\", \"\\n\"]\nuser = \"api\"\n\
         env = { API_KEY = \"hunter2\", \"odd name\" = \"x\\ny\" }\n\
         [admin]\ntoken = \"hunter2-hunter2-hunter2\"\nallow = [\"10.0.0.0/8\", \"::1\"]\n\
         hosts = [\"example.com\"]\n[proxy]\nmax_body = \"10MiB\"\n[upstream]\nresponse_timeout = \"90s\"\n",
    );
    let config = case.good();
    let text = config.effective_toml();
    assert!(!text.contains("hunter2"), "{text}");
    for key in keys().filter(|key| key.is_in(&config)) {
        let word = key.name.rsplit('.').next().unwrap();
        assert!(text.lines().any(|line| line.starts_with(&format!("{word} = "))
            || line .starts_with(&format!("# {word}"))), "{} is not in\n{text}", key.name);
    }
    case.write("api.toml", &text);
    let mut again = case.good();
    assert_eq!(again.admin.token.as_ref().map(Secret::expose), Some("***"));
    assert_eq!(
        Arc::make_mut(&mut again.app).app.env.insert("API_KEY".to_owned(), "hunter2".to_owned()).as_deref(),
        Some("***")
    );
    again.admin.token = config.admin.token.clone();
    again.admin.socket_configured = false;
    again.warnings = config.warnings.clone();
    assert_eq!(again, config);
    assert_eq!(format!("{:?}", config.admin.token), "Some(***)");

    // Also from the environment alone.
    let config = Case::environment().good();
    case.write("api.toml", &config.effective_toml());
    assert_eq!(case.good().effective_toml(), config.effective_toml());
}

#[test]
fn the_number_of_replicas_is_shown_as_it_is_written() {
    for (written, shown) in [
        ("replicas = 1", "# replicas is not set"),
        ("replicas = 4", "replicas = 4"),
        ("replicas = { max = 3, min = 3 }", "replicas = 3"),
        ("replicas.max = 8", "replicas = { min = 1, max = 8, busy_at = 8, idle = \"1m\" }"),
        (
            "[app.replicas]\nmin = 0\nmax = 1\nbusy_at = 2\nidle = \"90s\"",
            "replicas = { min = 0, max = 1, busy_at = 2, idle = \"1m 30s\" }",
        ),
    ] {
        let case = Case::file(&format!("[app]\ncommand = \"a\"\n{written}\n"));
        let config = case.good();
        let text = config.effective_toml();
        assert!(text.lines().any(|line| line == shown), "{written}: {shown} is not in\n{text}");
        case.write("api.toml", &text);
        assert_eq!(case.good().app.app.replicas, config.app.app.replicas, "{written}");
    }
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)).unwrap()
}

#[test]
fn every_example_loads_without_warnings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let config = if name.ends_with(".toml") {
            Case::file(&example(&name)).good()
        } else if name.ends_with(".env") {
            let mut case = Case::new();
            for line in example(&name).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (variable, value) = line.split_once('=').unwrap();
                assert!(variables().any(|known| known == variable), "{name}: {variable}");
                case.set(variable, value);
            }
            case.good()
        } else {
            continue;
        };
        seen += 1;
        let expected: &[&str] =
            if name == "full.toml" { &["neither app.command nor app.target"] } else { &[] };
        assert_eq!(config.warnings.len(), expected.len(), "{name}: {:?}", config.warnings);
        assert!(expected.iter().all(|part| warned(&config, part)), "{name}: {:?}", config.warnings);
    }
    assert!(seen >= 5, "only {seen} examples were found");
}

#[test]
fn the_example_of_several_apps_loads_where_it_lies() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/several/edge.toml");
    let mut case = Case::new();
    case.sources.file = Some(file);
    let config = case.good();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let several = config.apps.unwrap();
    assert!(several.refused.is_empty(), "{:?}", several.refused);
    let names: Vec<_> = several.apps.keys().map(String::as_str).collect();
    assert_eq!(names, ["api", "blog", "site", "stock", "www"]);
}

#[test]
fn the_keys_of_several_apps_have_an_example_with_their_defaults() {
    let text = example("several/every-key.toml");
    let written = |word: &str| {
        let value = |line: &str| {
            let (key, value) = line.trim_start_matches("# ").split_once(" = ")?;
            (key == word).then(|| value.split("  ").next().unwrap_or(value).to_owned())
        };
        text.lines().filter_map(value).collect::<Vec<_>>()
    };
    let case = Case::file(&text);
    let shown = case.good().effective_toml();
    for key in keys().filter(|key| key.is_for_several()) {
        let word = key.name.rsplit('.').next().unwrap_or(key.name);
        assert!(!written(word).is_empty(), "{} is not in every-key.toml", key.name);
    }
    // What is left out has the value that is written.
    let keys =
        ["removal_delay", "no_route_status", "refresh", "allow", "probe", "retries", "eject_for", "eject_on"];
    for word in keys {
        let value = &written(word)[0];
        assert!(shown.contains(&format!("{word} = {value}\n")), "{word} = {value}: {shown}");
        let without = text.lines().filter(|line| !line.starts_with(&format!("{word} = ")));
        case.write("api.toml", &without.map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(case.good().effective_toml(), shown, "{word} = {value} is not the default");
    }
}

#[test]
fn the_full_example_has_every_key_with_its_default() {
    let text = example("full.toml");
    let mut table = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            table = format!("{header}.");
        } else if let Some((word, _)) = line.trim_start_matches("# ").split_once(" = ") {
            found.push(format!("{table}{word}"));
        }
    }
    let defaults = Case::file("").good();
    for key in keys().filter(|key| key.is_in(&defaults)) {
        assert!(found.iter().any(|name| name == key.name), "{} is not in full.toml", key.name);
    }
    let count = keys().filter(|key| key.is_in(&defaults)).count();
    assert_eq!(found.len(), count, "a key twice, or an unknown one: {found:?}");
    let case = Case::file("");
    let defaults = case.good();
    case.write("api.toml", &text);
    assert_eq!(case.good(), defaults);

    // What is commented out there is good as well.
    let mut all = String::new();
    for line in text.lines() {
        let (word, rest) = line.trim_start_matches("# ").split_once(" = ").unwrap_or(("", ""));
        let excluded = ["# target", "# token_file", "# dir", "# grpc", "# acme.eab"]
            .iter()
            .any(|key| line.starts_with(key));
        let is_key = !excluded && !rest.is_empty() && found.iter().any(|name| name.ends_with(word));
        all.push_str(if is_key { line.trim_start_matches("# ") } else { line });
        all.push('\n');
    }
    let config = Case::file(&all).good();
    assert_eq!(config.name, "api");
    assert_eq!(config.app.app.command, Some(CommandLine::Shell("node server.js".to_owned())));
    assert!(config.admin.socket_configured && config.app.hooks.on_event.is_some());
}
