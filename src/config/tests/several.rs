//! Several apps: what their tables may say, how they differ and how they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// The apps of a configuration that has several.
pub(super) fn several(config: &Config) -> &Several {
    config.apps.as_ref().expect("it has several apps")
}

pub(super) fn app(config: &Config, name: &str) -> Arc<AppConfig> {
    Arc::clone(several(config).apps.get(name).unwrap_or_else(|| panic!("no app {name}: {config:?}")))
}

fn hosts(app: &AppConfig) -> Vec<String> {
    app.routes.hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn apps_of_every_kind() {
    let case = Case::file(
        "listen = [\"0.0.0.0:80\", \"[::]:80\"]\n\
         [apps.api]\nhosts = [\"api.example.com\", \"*.API.example.com\"]\npaths = [\"/v1\", \"/v2/\"]\n\
         strip_prefix = true\ncommand = \"node app.js\"\n\
         [apps.shop]\nhosts = [\"shop.example.com\"]\nbalance = \"random\"\n\
         targets = [\"127.0.0.1:8081\", \"192.168.0.42:80\", \"[::ffff:10.0.0.1]:80\"]\n\
         [apps.www]\nhosts = [\"www.example.com\"]\nredirect = \"https://example.com/\"\n\
         [apps.hook]\nlisten = [\"127.0.0.1:9080\"]\ntargets = [\"127.0.0.1:8085\"]\n",
    );
    let config = case.good();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.listen.len(), 2);
    assert!(!config.admin.public, "a prefix on every host is not asked for");
    assert_eq!(several(&config).apps.keys().collect::<Vec<_>>(), ["api", "hook", "shop", "www"]);
    assert_eq!((several(&config).removal_delay, &several(&config).folder), (secs(5), &None));

    let api = app(&config, "api");
    assert_eq!(
        (api.name.as_str(), hosts(&api)),
        ("api", vec!["api.example.com".into(), "*.api.example.com".into()])
    );
    assert_eq!(
        (&api.routes.paths[..], api.routes.strip_prefix),
        (&["/v1".to_owned(), "/v2/".to_owned()][..], true)
    );
    assert_eq!(api.app.command, Some(CommandLine::Shell("node app.js".to_owned())));
    assert_eq!(api.place, format!("{}:2", case.config().display()));
    assert_eq!(api.limits.requests_per_address, Some(512));

    let shop = app(&config, "shop");
    let targets: Vec<_> = shop.targets.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(targets, ["127.0.0.1:8081", "192.168.0.42:80", "10.0.0.1:80"]);
    assert_eq!((shop.balance, shop.app.command.is_some()), (Balance::Random, false));
    assert_eq!(shop.limits.requests_per_address, None, "what others can take is not known");
    assert_eq!(shop.routes.paths, ["/"]);

    assert_eq!(app(&config, "www").redirect.as_deref(), Some("https://example.com"));
    let hook = app(&config, "hook");
    assert_eq!((hook.routes.listen.len(), hosts(&hook)), (1, Vec::new()), "it is at its own address alone");
    let both = "[apps.hook]\nlisten = 9080\nhosts = [\"*\"]\ntargets = [\"127.0.0.1:8085\"]\n";
    assert_eq!(hosts(&app(&Case::file(both).good(), "hook")), ["*"]);
}

#[test]
fn the_sections_stand_for_every_app_and_each_key_may_be_set_for_one() {
    let mut case = Case::file(
        "removal_delay = \"1m\"\n[health]\npath = \"/all\"\ntimeout = \"2s\"\n[upstream]\nmax_connections = 10\n\
         [proxy]\nno_route_status = 400\n[hooks]\non_event = [\"/bin/all\"]\n\
         [apps.one]\ncommand = \"x\"\n[apps.one.health]\npath = \"/one\"\n[apps.one.upstream]\n\
         max_connections = 100\n[apps.one.hooks]\non_event = [\"/bin/one\"]\n[apps.one.restart]\nburst = 9\n\
         [apps.two]\ntargets = [\"10.0.0.1:80\"]\nlimits.requests_per_address = 7\nhealth.failures = 2\n\
         health.interval = \"1s\"\nupstream.retries = 0\nupstream.eject_for = \"1m\"\nupstream.eject_on = [503]\n\
         [apps.three]\ncommand = \"x\"\n",
    );
    let config = case.good();
    assert_eq!((several(&config).removal_delay, config.proxy.no_route_status), (secs(60), 400));
    let (one, two, three) = (app(&config, "one"), app(&config, "two"), app(&config, "three"));
    assert_eq!((one.health.path.as_str(), one.health.timeout, one.health.is_set), ("/one", secs(2), true));
    assert_eq!((one.upstream.max_connections, one.limits.requests_per_address), (100, Some(50)));
    assert_eq!(one.hooks.on_event.as_deref(), Some(&["/bin/one".to_owned()][..]));
    assert_eq!((one.app.restart.burst, three.app.restart.burst), (9, 5));
    assert_eq!((two.health.path.as_str(), two.health.is_set), ("/all", false));
    assert_eq!(two.hooks.on_event.as_deref(), Some(&["/bin/all".to_owned()][..]));
    assert_eq!((two.health.failures, two.health.interval), (Some(2), Some(secs(1))));
    assert_eq!(
        (two.upstream.retries, two.upstream.eject_for, &two.upstream.eject_on[..]),
        (0, secs(60), &[503][..])
    );
    assert_eq!(two.limits.requests_per_address, Some(7));
    assert_eq!((three.health.path.as_str(), three.limits.requests_per_address), ("/all", Some(5)));
    assert_eq!(three.hooks.on_event.as_deref(), Some(&["/bin/all".to_owned()][..]));

    // The environment sets what stands for every app.
    case.set("HEALTH_PATH", "/env");
    let config = case.good();
    assert_eq!(app(&config, "one").health.path, "/one");
    assert_eq!(app(&config, "three").health.path, "/env");
    // Set for all, also for targets.
    let all = Case::file("limits.requests_per_address = 3\n[apps.a]\ntargets = [\"10.0.0.1:80\"]\n").good();
    assert_eq!(app(&all, "a").limits.requests_per_address, Some(3));
}

#[test]
fn what_an_app_is_asked_goes_before_what_every_app_is_asked() {
    let asked = |section: &str, own: &str| {
        let text = format!("[health]\n{section}\n[apps.a]\ntargets = [\"10.0.0.1:80\"]\n{own}\n");
        let health = app(&Case::file(&text).good(), "a").health.clone();
        (health.tcp, health.grpc, health.is_set)
    };
    let grpc = |service: &str| Some(service.to_owned());
    for (section, own, expected) in [
        ("tcp = true", "", (true, None, false)),
        ("tcp = true", "health.path = \"/x\"", (false, None, true)),
        ("tcp = true", "health.grpc = \"a.B\"", (false, grpc("a.B"), true)),
        ("tcp = true", "health.tcp = false", (false, None, false)),
        ("grpc = \"a.B\"", "", (false, grpc("a.B"), false)),
        ("grpc = \"a.B\"", "health.grpc = \"\"", (false, grpc(""), true)),
        ("grpc = \"a.B\"", "health.path = \"/x\"", (false, None, true)),
        ("path = \"/all\"\nhost = \"x\"", "health.tcp = true", (true, None, true)),
    ] {
        assert_eq!(asked(section, own), expected, "{section}; {own}");
    }
}

#[test]
fn what_a_kind_of_app_cannot_use_is_passed_over_where_it_stands_for_every_app() {
    let config = Case::file(
        "[health]\npath = \"/up\"\nfailures = 2\n[drain]\nperiod = \"1s\"\n[rollback]\nstandby = \"window\"\n\
         [upstream]\nretries = 1\neject_on = [500]\n[limits]\ntunnels = 5\n[hooks]\non_event = [\"x\"]\n\
         [apps.a]\ncommand = \"x\"\n[apps.b]\ntargets = [\"10.0.0.1:80\"]\n[apps.c]\nredirect = \"http://x\"\n",
    )
    .good();
    assert_eq!(several(&config).apps.len(), 3);
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// The lines of `[apps.api]` with one thing wrong, its key and value, and what was expected.
const REFUSED: &[(&str, &str, &str)] = &[
    ("hosts = [\"a\"]", "apps.api", "expected one of `command`, `targets` and `redirect`"),
    (
        "command = \"x\"\ntargets = [\"10.0.0.1:80\"]",
        "apps.api.targets = [",
        "because apps.api.command is set too",
    ),
    (
        "command = \"x\"\nredirect = \"http://b\"",
        "apps.api.redirect = ",
        "an app has one of `command`, `targets`",
    ),
    ("target = 8080", "apps.api.target = 8080", "nothing: one app of several has `targets`"),
    // Names.
    ("comand = \"x\"\ntargets = [\"10.0.0.1:80\"]", "unknown key `apps.api.comand`", "`apps.api.command`?"),
    ("command = \"x\"\nhealth.pth = \"/\"", "unknown key `apps.api.health.pth`", "`apps.api.health.path`?"),
    (
        "command = \"x\"\nrestart.bakoff = \"1s\"",
        "unknown key `apps.api.restart.bakoff`",
        "`apps.api.restart.backoff`?",
    ),
    (
        "command = \"x\"\nlimits.connections = 5",
        "apps.api.limits.connections",
        "limits.connections is the instance's",
    ),
    (
        "command = \"x\"\nlimits.headers = 99",
        "apps.api.limits.headers",
        "limits.headers is the instance's, for requests and answers alike",
    ),
    ("command = \"x\"\nadmin.token = \"hunter2\"", "apps.api.admin", "admin is the instance's"),
    ("command = \"x\"\nname = \"y\"", "apps.api.name", "name is the instance's"),
    ("command = \"x\"\nhealth = 5", "apps.api.health = 5", "a table, [apps.api.health]"),
    ("command = \"\"", "apps.api.command = \"\"", "a command for /bin/sh"),
    ("command = \"x\"\nenv = { API_TOKEN = 12345 }", "apps.api.env.API_TOKEN = ***", "a string without NUL"),
    ("command = \"x\"\nenv = { PORT = \"1\" }", "apps.api.env.PORT", "no value for PORT"),
    ("command = \"x\"\nenv = [\"hunter2\"]", "apps.api.env = ***", "a table of strings"),
    (
        "command = \"x\"\nrestart.backoff = \"1m\"",
        "apps.api.restart.backoff = \"1m\"",
        "not above the max_backoff",
    ),
    ("command = \"x\"\nopen_files = 600000", "apps.api.open_files = 600000", "at most 524288"),
    // Routes.
    ("command = \"x\"\nhosts = \"a\"", "apps.api.hosts = \"a\"", "an array"),
    ("command = \"x\"\nhosts = []", "apps.api.hosts = []", "an array of 1 to 256 items, not of 0"),
    ("command = \"x\"\nhosts = [\"a:80\"]", "apps.api.hosts = \"a:80\"", "a name, an address"),
    ("command = \"x\"\nhosts = [\"a\", \"A.\"]", "apps.api.hosts = \"A.\"", "each item once"),
    ("command = \"x\"\npaths = [\"v1\"]", "apps.api.paths = \"v1\"", "`/` first"),
    ("command = \"x\"\npaths = [\"/a?b\"]", "apps.api.paths = \"/a?b\"", "`?` and `#`"),
    ("command = \"x\"\npaths = [\"/a#b\"]", "apps.api.paths = \"/a#b\"", "`?` and `#`"),
    ("command = \"x\"\npaths = [\"/a b\"]", "apps.api.paths = \"/a b\"", "without spaces"),
    ("command = \"x\"\npaths = [\"/a\\u0001\"]", "apps.api.paths = ", "control characters"),
    ("command = \"x\"\npaths = [\"/\", \"/\"]", "apps.api.paths = \"/\"", "each item once"),
    ("command = \"x\"\nlisten = 81\npaths = [\"/a\"]", "apps.api.paths", "nothing without `hosts`"),
    ("command = \"x\"\nlisten = 81\nstrip_prefix = true", "apps.api.strip_prefix", "nothing without `hosts`"),
    (
        "command = \"x\"\nlisten = [\"0.0.0.0:3000\"]",
        "apps.api.listen = ",
        "0.0.0.0:3000 is the instance's too",
    ),
    (
        "command = \"x\"\nlisten = [\"127.0.0.1:81\", \"[::]:81\", \"0.0.0.0:81\"]",
        "apps.api.listen = ",
        "do not overlap; 127.0.0.1:81 and 0.0.0.0:81 do",
    ),
    ("command = \"x\"\nlisten = [\"a:1\"]", "apps.api.listen = \"a:1\"", "a port from 0 to 65535"),
    // Targets.
    ("targets = []", "apps.api.targets = []", "an array of 1 to 64 items"),
    ("targets = [\"example.com:80\"]", "apps.api.targets = \"example.com:80\"", "no name"),
    ("targets = [\"10.0.0.1\"]", "apps.api.targets = \"10.0.0.1\"", "address and port of one host"),
    ("targets = [\"10.0.0.1:0\"]", "apps.api.targets = \"10.0.0.1:0\"", "address and port of one host"),
    ("targets = [\"0.0.0.0:80\"]", "apps.api.targets = ", "one host"),
    ("targets = [\"224.0.0.1:80\"]", "apps.api.targets = ", "one host"),
    ("targets = [\"255.255.255.255:80\"]", "apps.api.targets = ", "one host"),
    ("targets = [\"[ff02::1]:80\"]", "apps.api.targets = ", "one host"),
    ("targets = [\"10.0.0.1:80\", \"[::ffff:10.0.0.1]:80\"]", "apps.api.targets = ", "each item once"),
    (
        "targets = [\"127.0.0.1:3000\"]",
        "apps.api.targets = ",
        "other than 127.0.0.1:3000, where portok itself",
    ),
    (
        "listen = [\"10.0.0.1:81\"]\ntargets = [\"10.0.0.1:81\"]",
        "apps.api.targets = ",
        "other than 10.0.0.1:81",
    ),
    // Redirects.
    ("redirect = \"ftp://a\"", "apps.api.redirect = ", "`http://` or `https://`"),
    ("redirect = \"https://a/b\"", "apps.api.redirect = ", "path and query are those of the request"),
    ("redirect = \"https://a/?b\"", "apps.api.redirect = ", "`http://` or `https://`"),
    ("redirect = \"https://u@a\"", "apps.api.redirect = ", "`http://` or `https://`"),
    ("redirect = \"a\"", "apps.api.redirect = ", "`http://` or `https://`"),
    ("redirect = \"https://\"", "apps.api.redirect = ", "`http://` or `https://`"),
    // What a kind cannot use.
    ("redirect = \"https://a\"\nbalance = \"random\"", "apps.api.balance", "a redirect has no use for it"),
    (
        "command = \"x\"\nupstream.eject_on = []",
        "apps.api.upstream.eject_on",
        "an app with a command has no use",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nstop_signal = \"INT\"",
        "apps.api.stop_signal",
        "an app with targets has no use",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nrestart.burst = 2",
        "apps.api.restart.burst = 2",
        "an app with targets has no use",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nenv = { A = \"hunter2\" }",
        "apps.api.env = ***",
        "an app with targets has no use",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nrollback.standby = \"drain\"",
        "apps.api.rollback.standby",
        "an app with targets",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nrollback.window = \"1m\"",
        "apps.api.rollback.window",
        "an app with targets has no use",
    ),
    ("redirect = \"http://b\"\nhealth.path = \"/x\"", "apps.api.health.path", "a redirect has no use for it"),
    ("redirect = \"http://b\"\ndrain.early = true", "apps.api.drain.early", "a redirect has no use for it"),
    (
        "redirect = \"http://b\"\nupstream.debug = true",
        "apps.api.upstream.debug",
        "a redirect has no use for it",
    ),
    (
        "redirect = \"http://b\"\nstart_timeout = \"1s\"",
        "apps.api.start_timeout",
        "a redirect has no use for it",
    ),
    // Values.
    (
        "targets = [\"10.0.0.1:80\"]\nbalance = \"most\"",
        "apps.api.balance = \"most\"",
        "\"least\" or \"round_robin\"",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nsticky = true",
        "apps.api.sticky = true",
        "\"off\" or \"cookie\" or \"address\"",
    ),
    (
        "targets = [\"10.0.0.1:80\"]\nupstream.eject_on = [200]",
        "apps.api.upstream.eject_on = 200",
        "from 400 to 599",
    ),
    ("targets = [\"10.0.0.1:80\"]\nupstream.eject_for = 5", "apps.api.upstream.eject_for = 5", "a duration"),
];

#[test]
fn every_bad_line_of_an_app_has_a_message_of_its_own() {
    for (lines, key_and_value, expected) in REFUSED {
        let case = Case::file(&format!("[apps.api]\n{lines}\n"));
        let problems = case.problems();
        let [problem] = problems.as_slice() else { panic!("one problem, not {problems:#?}\nfor {lines:?}") };
        let place = format!("{}:", case.config().display());
        assert!(problem.starts_with(&place), "{problem}");
        for part in [key_and_value, expected] {
            assert!(problem.contains(part), "{problem}\nlacks {part:?} for {lines:?}");
        }
        assert!(!problem.contains("hunter2"), "{problem}");

        // In a file of its own it is the same, without the app's name; and the others stay.
        let case = Case::file("[apps.web]\ncommand = \"x\"\n");
        let file = case.app("api", &format!("{lines}\n"));
        let config = case.good();
        assert_eq!(several(&config).apps.keys().collect::<Vec<_>>(), ["web"], "{lines}");
        let problem = &several(&config).refused["api"];
        assert!(problem.starts_with(&format!("{}:", file.display())), "{problem}");
        let alone = |text: &str| text.replace("apps.api.", "").replace("apps.api", "");
        for part in [alone(key_and_value), alone(expected)] {
            assert!(problem.contains(&part), "{problem}\nlacks {part:?} for {lines:?}");
        }
        assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
    }
}

#[test]
fn bounds_of_what_an_app_may_have() {
    let refused = |line: String, expected: &str| {
        let problems = Case::file(&format!("[apps.api]\ncommand = \"x\"\n{line}\n")).problems();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:#?}");
    };
    let many = |count: usize, item: fn(usize) -> String| {
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(", "))
    };
    refused(format!("hosts = {}", many(257, |n| format!("\"{n}.a\""))), "1 to 256 items, not of 257");
    refused(format!("paths = {}", many(65, |n| format!("\"/{n}\""))), "1 to 64 items, not of 65");
    refused(format!("paths = [\"/{}\"]", "x".repeat(1024)), "at most 1024 bytes");
    refused(format!("listen = {}", many(65, |n| n.to_string())), "1 to 64 items, not of 65");
    let targets = many(65, |n| format!("\"10.0.0.1:{}\"", n + 1));
    let problems = Case::file(&format!("[apps.api]\ntargets = {targets}\n")).problems();
    assert!(problems[0].contains("1 to 64 items, not of 65"), "{problems:#?}");
    Case::file(&format!("[apps.api]\ncommand = \"x\"\npaths = [\"/{}\"]\n", "x".repeat(1023))).good();
}

#[test]
fn tables_of_apps_that_are_none() {
    for (text, parts) in [
        ("apps = 5", ["apps = 5", "a table, [apps]"]),
        ("[apps]\napi = 5", ["apps.api = 5", "a table, [apps.api]"]),
        (
            "[apps.\"a b\"]\ncommand = \"x\"",
            ["apps.\"a b\"", "1 to 64 letters, digits, `_` or `-` as the app's name"],
        ),
        ("[aps.a]\ncommand = \"x\"", ["unknown key `aps`", "did you mean"]),
        ("[apps]\n[proxy]\nno_route_status = 500", ["proxy.no_route_status = 500", "404 or 400"]),
        ("removal_delay = 5\n[apps]", ["removal_delay = 5", "a duration"]),
    ] {
        let problems = Case::file(&format!("{text}\n")).problems();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(parts.iter().all(|part| problems[0].contains(part)), "{problems:#?} lacks one of {parts:?}");
    }
}

#[test]
fn all_problems_of_all_apps_come_at_once_and_in_the_order_of_the_file() {
    let case = Case::file(
        "[apps.z]\ncommand = 5\npaths = [\"x\"]\n[health]\ntimeout = 5\n[apps.a]\ntargets = [\"x\"]\nhosts = [\"\"]\n",
    );
    let problems = case.problems();
    let lines: Vec<_> = problems
        .iter()
        .map(|problem| {
            problem.strip_prefix(&format!("{}:", case.config().display())).unwrap().as_bytes()[0] - b'0'
        })
        .collect();
    assert_eq!(lines, [2, 3, 5, 7, 8], "{problems:#?}");
}

#[test]
fn what_only_several_apps_have_one_app_cannot_have() {
    for (text, key) in [
        ("removal_delay = \"5s\"", "removal_delay = "),
        ("[proxy]\nno_route_status = 400", "proxy.no_route_status = 400"),
        ("[app]\nhosts = [\"a\"]", "app.hosts = "),
        ("[app]\nredirect = \"http://a\"", "app.redirect = "),
    ] {
        let problems = Case::file(&format!("{text}\n")).problems();
        let expected = "expected nothing, because only an instance of several apps has it";
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].contains(key) && problems[0].contains(expected), "{problems:#?}");
    }
    assert!(!Case::file("").good().effective_toml().contains("strip_prefix"));
}

#[test]
fn an_instance_has_one_app_or_several() {
    // One.
    assert!(Case::file("").good().apps.is_none());
    let one = Case::file("[app]\ncommand = \"x\"\n");
    fs::create_dir(one.path("api.d")).unwrap();
    mode(&one.path("api.d"), 0o755);
    assert!(one.good().apps.is_none(), "nothing is in the folder");
    let file = one.app("shop", "command = \"x\"\n");
    let problems = one.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let place =
        format!("{}:1:2: [app]: expected nothing, because {} is", one.config().display(), file.display());
    assert!(problems[0].starts_with(&place), "{problems:#?}");

    // Several, maybe none of them.
    assert!(several(&Case::file("[apps]\n").good()).apps.is_empty());
    let folder = Case::file("");
    folder.app("shop", "command = \"x\"\n");
    assert_eq!(app(&folder.good(), "shop").place, format!("{}:1", folder.path("api.d/shop.toml").display()));

    // Both.
    let both = Case::file("[apps.a]\ncommand = \"x\"\n[app]\ncommand = \"y\"\n");
    let problems = both.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    let file = both.config();
    let text = format!("{0}:3:2: [app]: expected nothing, because {0}:1:2 has [apps]", file.display());
    assert!(problems[0].starts_with(&text), "{problems:#?}");

    // The environment has no place for several.
    let mut case = Case::file("[apps.a]\ncommand = \"x\"\n");
    case.set("APP_COMMAND", "node app.js");
    let problems = case.problems();
    assert!(
        problems[0].starts_with("APP_COMMAND = \"node app.js\": expected nothing, because"),
        "{problems:#?}"
    );
    let mut case = Case::file("[apps.a]\ncommand = \"x\"\n");
    case.sources.overrides.foreground = true;
    case.sources.overrides.command = Some(CommandLine::Shell("y".to_owned()));
    assert!(case.problems()[0].contains("[apps]: expected nothing, because portok run runs one app"));
}

#[test]
fn what_a_daemon_started_as_it_stays() {
    let mut case = Case::file("");
    let one = case.good();
    case.sources.hold_to(&one);
    case.app("shop", "command = \"x\"\n");
    let config = case.good();
    assert!(config.apps.is_none(), "a folder that appears is for the next start");
    assert!(warned(&config, "api.d: the folder is passed over"), "{:?}", config.warnings);
    case.write("api.toml", "[apps.a]\ncommand = \"x\"\n");
    let refused = diff(&one, &case.good()).refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("apps: an instance cannot change from one app to several"), "{refused:?}");

    let mut case = Case::file("");
    case.app("shop", "command = \"x\"\n");
    let several_apps = case.good();
    case.sources.hold_to(&several_apps);
    fs::rename(case.path("api.d"), case.path("gone")).unwrap();
    let config = case.good();
    let why = several(&config).unreadable.as_deref().unwrap();
    assert!(why.contains("api.d: cannot read the folder of apps: No such file"), "{why}");
    assert!(diff(&several_apps, &config).is_empty(), "of which nothing is known, nothing is gone");
    case.write("api.toml", "[app]\ncommand = \"x\"\n");
    let refused = diff(&several_apps, &case.good()).refused;
    assert!(
        refused[0].starts_with("apps: an instance cannot change from several apps to one"),
        "{refused:?}"
    );
}

#[test]
fn the_difference_names_apps_and_their_keys() {
    let old = Case::comparable(
        "[apps.api]\ncommand = \"x\"\n[apps.gone]\ncommand = \"x\"\n[apps.same]\ntargets = [\"10.0.0.1:80\"]\n\
         [apps.probed]\ntargets = [\"10.0.0.2:80\"]\n",
    );
    let new = Case::comparable(
        "listen = 81\n\n[apps.api]\ncommand = \"y\"\nenv = { A_KEY = \"hunter2\" }\nhosts = [\"a\"]\n\
         health.path = \"/up\"\n[apps.new]\ncommand = \"x\"\n[apps.same]\ntargets = [\"10.0.0.1:80\"]\n\
         [apps.probed]\ntargets = [\"10.0.0.2:80\"]\nhealth.path = \"/health\"\n",
    );
    let diff = diff(&old, &new);
    assert_eq!((&diff.changed[..], diff.listen, diff.is_empty()), (&["listen".to_owned()][..], true, false));
    assert_eq!(
        (&diff.apps.added[..], &diff.apps.removed[..]),
        (&["new".to_owned()][..], &["gone".to_owned()][..])
    );
    let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        diff.apps.changed,
        BTreeMap::from([
            (
                "api".to_owned(),
                keys(&["apps.api.hosts", "apps.api.command", "apps.api.env", "apps.api.health.path"])
            ),
            ("probed".to_owned(), keys(&["apps.probed.health.path"])),
        ])
    );
    assert!(!format!("{diff:?}").contains("hunter2") && diff.refused.is_empty());
}

#[test]
fn an_app_whose_file_is_refused_is_not_gone() {
    let case = Case::file("[apps]\n");
    case.app("shop", "command = \"x\"\n");
    let old = case.good();
    case.app("shop", "command = 5\n");
    assert!(diff(&old, &case.good()).is_empty());
    fs::remove_file(case.path("api.d/shop.toml")).unwrap();
    assert_eq!(diff(&old, &case.good()).apps.removed, ["shop"]);
}

#[test]
fn every_app_is_shown_with_what_is_its_own() {
    let config = Case::file(
        "[health]\ntimeout = \"9s\"\n[apps.api]\ncommand = \"x\"\nenv = { A_TOKEN = \"hunter2\" }\n\
         restart.burst = 2\nhealth.path = \"/health\"\n[apps.hook]\nlisten = 9080\ntargets = [\"10.0.0.1:80\"]\n",
    )
    .good();
    let shown = config.effective_toml();
    let apps = &shown[shown.find("\n[apps]").unwrap()..];
    assert_eq!(
        apps,
        "\n[apps]\n\n[apps.api]\nhosts = [\"*\"]\npaths = [\"/\"]\ncommand = \"x\"\nenv = { A_TOKEN = \"***\" }\n\
         \n[apps.api.restart]\nburst = 2\n\n[apps.api.health]\npath = \"/health\"\n\
         \n[apps.hook]\nlisten = \"0.0.0.0:9080\"\ntargets = [\"10.0.0.1:80\"]\n\
         \n[apps.hook.limits]\nrequests_per_address = 0\n"
    );
    assert!(shown.contains("timeout = \"9s\"\n") && !shown.contains("[app]"), "{shown}");
}

/// Lines of an app, and the kinds that can have them: of a command, targets, a redirect.
const LINES: &[(&str, [bool; 3])] = &[
    ("hosts = [\"a.example\", \"*.b.example\"]", [true, true, true]),
    ("hosts = [\"*\"]\npaths = [\"/v1\", \"/é\"]", [true, true, true]),
    ("listen = [\"127.0.0.1:9080\", \"[::1]:0\"]", [true, true, true]),
    ("hosts = [\"x\"]\nstrip_prefix = true", [true, true, false]),
    ("env = { A = \"b\", \"odd name\" = \"x\\ny\" }", [true, false, false]),
    ("stop_timeout = \"0\"\nrestart = { burst = 3, give_up = true }", [true, false, false]),
    ("memory = \"512MiB\"\ncpu = \"50%\"", [true, false, false]),
    ("balance = \"round_robin\"", [true, true, false]),
    ("sticky = \"cookie\"", [true, true, false]),
    ("health.path = \"/health\"", [true, true, false]),
    ("health.tcp = true", [true, true, false]),
    ("health.grpc = \"\"", [true, true, false]),
    ("health.failures = 3\nhealth.interval = \"5s\"", [true, true, false]),
    ("upstream.eject_on = [500, 503]\nupstream.retries = 0", [false, true, false]),
    ("upstream.max_connections = 7", [true, true, false]),
    ("upstream.proxy_protocol = \"v2\"", [true, true, false]),
    ("limits.requests_per_address = 0", [true, true, false]),
    ("limits.tunnels = 1\nlimits.body_timeout = \"0\"", [true, true, false]),
    ("rollback.threshold = 9", [true, true, false]),
    ("hooks.on_event = [\"x\", \"\"]", [true, true, false]),
    ("rollback.window = \"1m\"", [true, false, false]),
    ("drain.affinity = \"connection\"", [true, true, false]),
];

const KINDS: [&str; 3] = [
    "command = [\"a b\", \"\"]",
    "targets = [\"10.0.0.1:80\", \"[::1]:8080\"]",
    "redirect = \"https://x.y\"",
];

const SECTIONS: &[&str] = &[
    "health.path = \"/all\"\nhealth.failures = 4",
    "health.tcp = true",
    "limits.requests_per_address = 11",
    "upstream.max_connections = 50",
    "upstream.proxy_protocol = \"v2\"",
    "upstream.eject_on = [502]\nrollback.standby = \"window\"",
    "removal_delay = \"1m\"\nproxy.no_route_status = 400",
    "hooks.on_event = [\"all\"]",
];

/// A file with apps of these kinds, each with some lines.
fn file_of(sections: &[bool], apps: &[(usize, Vec<bool>)]) -> String {
    let mut text = String::new();
    let mut is_asked = false;
    let chosen = SECTIONS.iter().zip(sections).filter(|(line, is_there)| {
        let asks = line.starts_with("health.path") || line.starts_with("health.tcp");
        let is_first = !asks || !is_asked;
        is_asked |= asks && **is_there;
        **is_there && is_first
    });
    text.extend(chosen.map(|(line, _)| format!("{line}\n")));
    text.push_str("[apps]\n");
    for (number, (kind, lines)) in apps.iter().enumerate() {
        text.push_str(&format!("[apps.a{number}]\n{}\n", KINDS[*kind]));
        // The first four are about routes: only one of them at a time. An app is asked in one way.
        let (mut has_routes, mut is_asked) = (false, false);
        for ((line, kinds), is_there) in LINES.iter().zip(lines) {
            let is_route = line.starts_with("hosts") || line.starts_with("listen");
            let asks = ["health.path", "health.tcp", "health.grpc"].iter().any(|key| line.starts_with(key));
            if *is_there && kinds[*kind] && !(is_route && has_routes || asks && is_asked) {
                (has_routes, is_asked) = (has_routes || is_route, is_asked || asks);
                text.push_str(&format!("{line}\n"));
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_shown_of_several_apps_loads_as_the_same(
        sections in prop::collection::vec(any::<bool>(), SECTIONS.len()),
        apps in prop::collection::vec((0..3_usize, prop::collection::vec(any::<bool>(), LINES.len())), 0..5),
    ) {
        let case = Case::file(&file_of(&sections, &apps));
        let config = case.good();
        let shown = config.effective_toml();
        case.write("api.toml", &shown);
        let again = case.good();
        prop_assert_eq!(again.effective_toml(), shown);
        prop_assert_eq!(&again.app, &config.app);
        let apps = |config: &Config| {
            let mut several = several(config).clone();
            for app in several.apps.values_mut() {
                Arc::make_mut(app).place.clear();
            }
            // What is shown sets more keys.
            several.texts.clear();
            several
        };
        prop_assert_eq!(apps(&again), apps(&config));
    }
}

#[test]
fn a_probe_of_targets_has_a_longest_time() {
    let shop = |rest: &str| format!("[apps.shop]\ntargets = [\"127.0.0.1:1\"]\n{rest}");
    assert_eq!(app(&Case::file(&shop("health.timeout = \"60s\"\n")).good(), "shop").health.timeout, secs(60));
    let errors = Case::file(&shop("health.timeout = \"1day\"\n")).problems();
    assert!(
        errors.iter().any(|error| error.contains("health.timeout") && error.contains("at most 1m")),
        "{errors:?}"
    );
    // What stands for every app is cut for those with targets, and holds for the others.
    let all = format!("[health]\ntimeout = \"1day\"\n{}[apps.api]\ncommand = \"x\"\n", shop(""));
    let config = Case::file(&all).good();
    let times = ["shop", "api"].map(|name| app(&config, name).health.timeout);
    assert_eq!(times, [secs(60), secs(86_400)]);
}
