use super::*;

fn parsed(line: &[&str]) -> Result<Invocation, Unparsed> {
    parse(std::iter::once("portok").chain(line.iter().copied()).map(OsString::from).collect())
}

fn clap_error(line: &[&str]) -> clap::Error {
    match parsed(line) {
        Err(Unparsed::Clap(error)) => error,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_tree_is_consistent_and_each_command_has_examples() {
    let tree = Typed::command();
    tree.clone().debug_assert();
    for command in tree.get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let example = format!("\n  portok {}", command.get_name());
        assert!(help.contains(&example), "{}: {help:?}", command.get_name());
    }
}

#[test]
fn run_is_handed_over() {
    let Ok(Invocation::Run(plan)) = parsed(&["run", "--listen", "8080", "--cmd", "node app.js"]) else {
        panic!()
    };
    let command = CommandLine::Shell("node app.js".into());
    assert_eq!(plan, RunPlan { listen: Some("8080".into()), health: None, command, name: None });
    let Ok(Invocation::Run(plan)) = parsed(&["--instance", "api", "run", "--", "./server", "-v"]) else {
        panic!()
    };
    let command = CommandLine::Exec(vec!["./server".into(), "-v".into()]);
    assert_eq!(plan, RunPlan { listen: None, health: None, command, name: Some("api".into()) });
    for line in [&["run"][..], &["run", "--cmd", "a", "--json"], &["run", "--cmd", "a", "--url", "http://h"]]
    {
        assert!(matches!(parsed(line), Err(Unparsed::Contradiction(_))), "{line:?}");
    }
}

#[test]
fn the_instance_is_accepted_as_positional() {
    for command in ["status", "metrics", "health"] {
        let Ok(Invocation::Ask(global, _)) = parsed(&[command, "api"]) else { panic!("{command}") };
        assert_eq!(global.instance.as_deref(), Some("api"));
        assert!(parsed(&[command, "api", "--instance", "api"]).is_ok());
        assert!(matches!(parsed(&[command, "api", "--instance", "web"]), Err(Unparsed::Contradiction(_))));
    }
}

#[test]
fn an_app_is_named_by_its_option_or_behind_its_instance() {
    for line in [
        &["status", "edge/api"][..],
        &["apps", "edge/api"],
        &["logs", "edge/api"],
        &["--instance", "edge/api", "deploy"],
        &["deploy", "--instance", "edge", "--app", "api"],
        &["health", "edge/api", "--instance", "edge", "--app", "api"],
    ] {
        let Ok(Invocation::Ask(global, _)) = parsed(line) else { panic!("{line:?}") };
        assert_eq!((global.instance.as_deref(), global.app.as_deref()), (Some("edge"), Some("api")));
    }
    for line in [
        &["status", "edge/api", "--app", "shop"][..],
        &["status", "edge/api", "--instance", "web"],
        &["run", "--cmd", "x", "--app", "api"],
        &["--instance", "edge/api", "run", "--cmd", "x"],
        &["list", "--app", "api"],
        &["reload", "--app", "api"],
        &["upgrade", "--instance", "edge/api"],
    ] {
        assert!(matches!(parsed(line), Err(Unparsed::Contradiction(_))), "{line:?}");
    }
}

#[test]
fn an_app_is_added_to_an_instance_by_options_that_go_together() {
    let to: &[&str] = &["add", "shop", "--to", "edge"];
    let with = |more: &[&'static str]| parsed(&[to, more].concat());
    for more in [
        &["--host", "shop.example.com", "--host", "*.shop.example.com", "--path", "/v1", "--cmd", "x"][..],
        &["--target", "8081", "--target", "192.168.0.42:80", "--target", "[::1]:80"],
        &["--redirect", "https://example.com", "--listen", "127.0.0.1:9080"],
    ] {
        let Ok(Invocation::Host(_, HostCommand::Add(options))) = with(more) else { panic!("{more:?}") };
        assert_eq!(options.app.to.as_deref(), Some("edge"));
    }
    for more in [
        &["--host", "a b", "--cmd", "x"][..],
        &["--path", "v1", "--cmd", "x"],
        &["--target", "example.com:80"],
        &["--target", "0"],
        &["--cmd", "x", "--target", "1"],
        &["--cmd", "x", "--redirect", "https://example.com"],
        &["--cmd", "x", "--port", "80"],
        &["--cmd", "x", "--force"],
    ] {
        assert!(matches!(with(more), Err(Unparsed::Clap(_))), "{more:?}");
    }
    assert!(matches!(parsed(&["add", "shop", "--host", "a.org", "--cmd", "x"]), Err(Unparsed::Clap(_))));
}

#[test]
fn bad_values_are_refused() {
    let table: &[&[&str]] = &[
        &["switch", "0"],
        &["switch", "65536"],
        &["switch"],
        &["switch", "8081", "0"],
        &["status", "edge/"],
        &["status", "--app", "a/b"],
        &["status", "--wait", "soon"],
        &["status", "../etc/passwd"],
        &["status", ""],
        &["--instance", "a/b/c", "status"],
        &["deploy", "--env", "NOVALUE"],
        &["deploy", "--env", "=x"],
        &["deploy", "--env", "1A=x"],
        &["deploy", "--env", "A B=x"],
        &["deploy", "--release", "a/b"],
        &["deploy", "--release", &"x".repeat(65)],
        &["deploy", "--health", "health"],
        &["deploy", "--cmd", " "],
        &["deploy", "--cmd", "a", "--", "b"],
        &["deploy", "--detach", "--wait-window"],
        &["logs", "-n", "0"],
        &["logs", "-n", "10001"],
        &["upgrade", "--wait", "soon"],
        &["frobnicate"],
    ];
    for line in table {
        assert_eq!(clap_error(line).exit_code(), 2, "{line:?}");
    }
}

#[test]
fn contradictions_are_refused() {
    for line in [
        &["--url", "http://h", "--socket", "/s", "status"][..],
        &["metrics", "--json", "--prometheus"],
        &["logs", "-f", "--json"],
    ] {
        assert!(matches!(parsed(line), Err(Unparsed::Contradiction(_))), "{line:?}");
    }
    assert!(matches!(parsed(&[]), Err(Unparsed::Nothing)));
}

#[test]
fn a_mistyped_command_gets_a_suggestion() {
    assert!(clap_error(&["stauts"]).to_string().contains("'status'"));
}

#[test]
fn an_instance_as_a_word_is_led_to_its_option() {
    for command in ["deploy", "cancel", "reload", "releases", "upgrade"] {
        let error = clap_error(&[command, "api"]);
        assert!(error.to_string().contains("'--instance api'"), "{error}");
        assert!(typo::hint(&error).unwrap().contains("--instance api"), "{command}");
    }
    for (line, app) in [
        (&["deploy", "edge/api"][..], "edge/api"),
        (&["releases", "edge/api"], "edge/api"),
        (&["rollback", "edge/api"], "edge/api"),
        (&["cancel", "edge/redis:x.org"], "edge/redis:x.org"),
    ] {
        let error = clap_error(line);
        assert!(error.to_string().contains(&format!("'--instance {app}'")), "{error}");
        assert!(typo::hint(&error).unwrap().contains(&format!("--instance {app}")), "{line:?}");
    }
    let error = clap_error(&["rollback", "v 1"]);
    assert!(!error.to_string().contains("--instance"), "{error}");
    assert!(clap_error(&["status", "edge/"]).to_string().contains("INSTANCE/APP"));
    let error = clap_error(&["list", "api"]);
    assert!(!error.to_string().contains("--instance"), "{error}");
}

#[test]
fn a_mistyped_option_is_never_recommended_as_a_word_of_the_command() {
    for (line, meant) in [
        (&["deploy", "--comand", "x"][..], Some("--cmd")),
        (&["deploy", "--realease", "v1"], Some("--release")),
        (&["run", "--lsten=8080", "--cmd", "x"], Some("--listen")),
        (&["deploy", "--frobnicate"], None),
        (&["deploy", "-x"], None),
    ] {
        let told = clap_error(line).to_string();
        assert!(!told.contains("-- -"), "{told}");
        assert_eq!(told.contains("similar"), meant.is_some(), "{told}");
        assert!(meant.is_none_or(|meant| told.contains(&format!("'{meant}'"))), "{told}");
    }
}
