//! Which source wins, and what the values are then.

use super::*;

#[test]
fn an_empty_file_gives_the_defaults_of_a_file_and_waits_for_a_deploy() {
    let case = Case::file("");
    let config = case.good();
    assert_eq!(config.name, "api");
    assert_eq!(config.file, Some(case.config()));
    assert_eq!(config.listen, ["0.0.0.0:3000".parse().unwrap()]);
    assert_eq!(config.state_file, case.path("state/api.json"));
    assert_eq!((&config.app.app.target, &config.app.app.command), (&None, &None));
    assert!(warned(&config, "waiting for a first deploy or switch"), "{:?}", config.warnings);
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert_eq!(config.app.drain.affinity, Affinity::Request);
    assert_eq!(config.proxy.forwarded, Forwarded::Trusted);
    assert!(config.admin.token.is_none() && config.admin.public && !config.admin.socket_configured);
}

#[test]
fn the_environment_alone_gives_the_defaults_of_npm_portok() {
    let case = Case::environment();
    let config = case.good();
    assert_eq!(config.name, "default");
    assert_eq!(config.file, None);
    assert_eq!(config.listen[0].port(), 3000);
    assert_eq!(config.app.app.target, Some(8080));
    assert_eq!(config.state_file, case.path("state/default.json"));
    assert_eq!((config.app.health.path.as_str(), config.app.health.timeout), ("/health", secs(5)));
    assert_eq!((config.app.drain.period, config.app.drain.affinity), (secs(30), Affinity::Connection));
    let Rollback { window, interval, threshold, .. } = config.app.rollback;
    assert_eq!((window, interval, threshold), (secs(60), secs(5), 3));
    assert_eq!(config.proxy.forwarded, Forwarded::Append);
    assert_eq!((config.proxy.idle_timeout, config.proxy.header_timeout), (secs(5), secs(6)));
    assert!(!config.proxy.fast_path && config.app.upstream.keepalive && !config.app.upstream.debug);
    assert_eq!((config.app.upstream.max_connections, config.app.upstream.tcp_keepalive), (1024, secs(1)));
    assert_eq!(config.admin.allow, ["127.0.0.1/32".parse().unwrap(), "::1/128".parse::<IpNet>().unwrap()]);
    assert!(!config.log.verbose_errors && config.proxy.threads >= 1);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn every_variable_reaches_its_key() {
    let mut case = Case::environment();
    let socket = case.path("a.sock").display().to_string();
    let state = case.path("s.json").display().to_string();
    case.sources.env.remove("INITIAL_TARGET_PORT");
    for (variable, value) in [
        ("INSTANCE_NAME", "web"),
        ("LISTEN_PORT", "[::1]:8081"),
        ("APP_COMMAND", "node app.js --x"),
        ("STATE_FILE", &state),
        ("HEALTH_PATH", "/up?x=1"),
        ("HEALTH_TIMEOUT_MS", "1500"),
        ("DRAIN_MS", "0"),
        ("DRAIN_AFFINITY", "request"),
        ("ROLLBACK_WINDOW_MS", "0"),
        ("ROLLBACK_CHECK_EVERY_MS", "250"),
        ("ROLLBACK_FAIL_THRESHOLD", "7"),
        ("ADMIN_ALLOWLIST", "10.0.0.0/8, ::ffff:127.0.0.1 ,::ffff:192.168.0.0/112,"),
        ("ADMIN_UNIX_SOCKET", &socket),
        ("FAST_PATH", "true"),
        ("PORTOK_THREADS", "3"),
        ("UPSTREAM_KEEPALIVE", "false"),
        ("UPSTREAM_MAX_SOCKETS", "9"),
        ("UPSTREAM_KEEPALIVE_MSECS", "1500"),
        ("SERVER_KEEPALIVE_TIMEOUT", "7000"),
        ("SERVER_HEADERS_TIMEOUT", "8000"),
        ("ENABLE_XFWD", "0"),
        ("DEBUG_UPSTREAM", "1"),
        ("PORTOK_LOG", "warn,proxy=debug"),
        ("VERBOSE_ERRORS", "1"),
    ] {
        case.set(variable, value);
    }
    for variable in variables().filter(|variable| *variable != "INITIAL_TARGET_PORT") {
        assert!(case.sources.env.contains_key(variable), "{variable} is not tested here");
    }
    let config = case.good();
    assert_eq!((config.name.as_str(), config.listen[0].to_string().as_str()), ("web", "[::1]:8081"));
    assert_eq!(config.app.app.command, Some(CommandLine::Shell("node app.js --x".to_owned())));
    assert_eq!(config.state_file, case.path("s.json"));
    assert_eq!((config.app.health.path.as_str(), config.app.health.timeout.as_millis()), ("/up?x=1", 1500));
    assert_eq!((config.app.drain.period, config.app.drain.affinity), (Duration::ZERO, Affinity::Request));
    assert_eq!((config.app.rollback.window, config.app.rollback.interval.as_millis()), (Duration::ZERO, 250));
    assert_eq!(config.app.rollback.threshold, 7);
    let allow: Vec<_> = config.admin.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["10.0.0.0/8", "127.0.0.1/32", "192.168.0.0/16"]);
    assert_eq!(config.admin.socket, Some(case.path("a.sock")));
    assert!(config.admin.socket_configured && config.proxy.fast_path && !config.app.upstream.keepalive);
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("0123456789abcdef"));
    assert_eq!((config.proxy.threads, config.app.upstream.max_connections), (3, 9));
    assert_eq!(config.app.upstream.tcp_keepalive, secs(2), "the kernel counts whole seconds");
    assert_eq!((config.proxy.idle_timeout, config.proxy.header_timeout), (secs(7), secs(8)));
    assert_eq!(config.proxy.forwarded, Forwarded::Off);
    assert!(config.app.upstream.debug && config.log.verbose_errors);
    assert_eq!(config.log.level.to_string(), "warn,proxy=debug");
}

#[test]
fn environment_wins_over_the_file_and_flags_over_both() {
    let mut case = Case::file(
        "name = \"file\"\nlisten = 1111\n[app]\ntarget = 4000\n[drain]\nperiod = \"1s\"\naffinity = \"connection\"\n\
         [admin]\nallow = [\"::1\"]\n",
    );
    assert_eq!(case.good().listen[0].port(), 1111);
    case.set("LISTEN_PORT", "2222");
    case.set("INITIAL_TARGET_PORT", "5000");
    case.set("INSTANCE_NAME", "env");
    case.set("DRAIN_MS", "2000");
    case.set("ADMIN_ALLOWLIST", "10.1.1.1");
    case.set("DRAIN_AFFINITY", "");
    let config = case.good();
    assert_eq!(
        (config.name.as_str(), config.listen[0].port(), config.app.app.target),
        ("env", 2222, Some(5000))
    );
    assert_eq!((config.app.drain.period, config.app.drain.affinity), (secs(2), Affinity::Connection));
    assert_eq!(config.admin.allow, ["10.1.1.1/32".parse().unwrap()]);
    case.sources.overrides.listen = Some("127.0.0.1:0".to_owned());
    case.sources.overrides.command = Some(CommandLine::Shell("node app.js".to_owned()));
    let config = case.good();
    assert_eq!(config.listen[0].to_string(), "127.0.0.1:0");
    assert_eq!((config.app.app.target, config.app.app.command.is_some()), (None, true));
    case.sources.overrides.listen = Some("nowhere".to_owned());
    case.sources.overrides.command = Some(CommandLine::Exec(Vec::new()));
    let problems = case.problems();
    assert!(problems[0].starts_with("--listen = \"nowhere\": expected a port"), "{problems:?}");
    assert!(problems[1].starts_with("--cmd"), "{problems:?}");
}

#[test]
fn a_bad_value_is_bad_even_where_another_source_wins() {
    let mut case = Case::file("[drain]\nperiod = 5\n");
    case.set("DRAIN_MS", "5000");
    assert!(case.problems()[0].contains("drain.period = 5"));
}

#[test]
fn enable_xfwd_switches_the_file_s_value_off_and_on() {
    let mut case = Case::file("[proxy]\nforwarded = \"append\"\n");
    assert_eq!(case.good().proxy.forwarded, Forwarded::Append);
    case.set("ENABLE_XFWD", "1");
    assert_eq!(case.good().proxy.forwarded, Forwarded::Append);
    case.set("ENABLE_XFWD", "0");
    assert_eq!(case.good().proxy.forwarded, Forwarded::Off);
    let mut case = Case::file("[proxy]\nforwarded = \"off\"\n");
    case.set("ENABLE_XFWD", "true");
    assert_eq!(case.good().proxy.forwarded, Forwarded::Trusted);
}

#[test]
fn all_kinds_of_values_in_a_file() {
    let config = Case::file(
        "listen = \"3001\"\n[app]\ncommand = [\"node\", \"app.js\", \"{port}\"]\nstop_signal = \"int\"\n\
         env = { NODE_ENV = \"production\", EMPTY = \"\" }\nowner_check = \"strict\"\n\
         restart = { backoff = \"1s 500ms\", give_up = true }\n\
         [rollback]\nstandby = \"window\"\n[proxy]\nmax_body = \"1.5MB\"\nmax_header_size = \"8KiB\"\n\
         trusted = [\"10.0.0.0/8\"]\nupgrades = [\"WebSocket\", \"tcp\"]\n[limits]\nheaders = 99\n[upstream]\nresponse_timeout = \"2m\"\nmax_connections = 1_000\n[hooks]\non_event = [\"/bin/true\", \"\"]\n",
    )
    .good();
    assert_eq!(config.listen[0].to_string(), "0.0.0.0:3001");
    let words = ["node", "app.js", "{port}"].map(str::to_owned).to_vec();
    assert_eq!(config.app.app.command, Some(CommandLine::Exec(words)));
    assert_eq!(config.app.app.stop_signal, StopSignal { name: "SIGINT", number: 2 });
    assert_eq!(config.app.app.env.get("NODE_ENV").map(String::as_str), Some("production"));
    assert_eq!(config.app.app.env.get("EMPTY").map(String::as_str), Some(""));
    assert_eq!(config.app.app.owner_check, OwnerCheck::Strict);
    assert_eq!((config.app.app.restart.backoff.as_millis(), config.app.app.restart.give_up), (1500, true));
    assert_eq!(config.app.rollback.standby, Standby::Window);
    assert_eq!((config.proxy.max_body, config.proxy.max_header_size), (Some(1_500_000), 8192));
    assert_eq!((config.proxy.upgrades, config.limits.headers), (vec!["websocket".into(), "tcp".into()], 99));
    assert_eq!(
        (config.app.upstream.response_timeout, config.app.upstream.max_connections),
        (Some(secs(120)), 1000)
    );
    assert_eq!(config.app.hooks.on_event.as_deref(), Some(&["/bin/true".to_owned(), String::new()][..]));
}

#[test]
fn several_addresses_are_listened_on() {
    let config = Case::file("listen = [80, \"[::]:80\"]\n[app]\ntarget = 8080\n").good();
    assert_eq!(config.listen, ["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()]);
    assert!(config.effective_toml().starts_with("name = \"api\"\nlisten = [\"0.0.0.0:80\", \"[::]:80\"]\n"));
    let one = Case::file("listen = [\"[::1]:80\"]\n[app]\ntarget = 8080\n").good();
    assert!(one.effective_toml().contains("listen = \"[::1]:80\"\n"));
    let all: Vec<_> = (0..=64).map(|port| port.to_string()).collect();
    let problems = Case::file(&format!("listen = [{}]\n", all.join(", "))).problems();
    assert!(problems[0].contains("an array of 1 to 64 items, not of 65"), "{problems:?}");
    let problems = Case::file("listen = [80, 81]\n[app]\ntarget = 81\n").problems();
    assert!(problems[0].contains("a port other than 81, where portok itself listens"), "{problems:?}");
}

#[test]
fn names_come_from_the_flag_the_environment_the_file_or_its_stem() {
    let mut case = Case::new();
    case.write("etc/web.toml", "[app]\ntarget = 4000\n");
    case.sources.instance = Some("web".to_owned());
    let config = case.good();
    assert_eq!((config.name.as_str(), config.file), ("web", Some(case.path("etc/web.toml"))));

    case.write("etc/web.toml", "name = \"other\"\n");
    let problems = case.problems();
    assert!(problems[0].contains("web.toml:1:8: name = \"other\": expected \"web\", as --instance says"));
    case.write("etc/web.toml", "");
    case.set("INSTANCE_NAME", "third");
    assert!(case.problems()[0].starts_with("INSTANCE_NAME = \"third\": expected \"web\", as --instance"));

    let mut case = Case::environment();
    case.sources.instance = Some("none".to_owned());
    let config = case.good();
    assert_eq!((config.name.as_str(), config.file), ("none", None));
    case.sources.instance = Some("../etc".to_owned());
    assert!(case.problems()[0].starts_with("--instance = \"../etc\": expected 1 to 64"));

    let mut case = Case::new();
    case.write("my app.toml", "");
    case.sources.file = Some(case.path("my app.toml"));
    let problems = case.problems();
    assert!(problems[0].contains("name is missing") && problems[0].contains("\"my app\""), "{problems:?}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_an_instance_s_is_not() {
    let mut case = Case::environment();
    case.sources.file = Some(case.config());
    let problems = case.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with(&case.config().display().to_string()), "{problems:?}");
    assert!(problems[0].contains("No such file"), "{problems:?}");
    case.sources.file = Some(case.dir.path().to_owned());
    assert!(case.problems()[0].contains("expected a regular file"));
}

#[test]
fn what_is_odd_is_warned_about() {
    let case = Case::file("[app]\ntarget = 1\n[admin]\ntoken = \"short\"\n");
    mode(&case.config(), 0o644);
    let config = case.good();
    assert!(warned(&config, "admin.token: the token is shorter than 16"), "{:?}", config.warnings);
    assert!(warned(&config, "everybody may read"), "{:?}", config.warnings);
    assert!(!config.warnings.concat().contains("\"short\""));

    let mut case = Case::environment();
    case.set("SERVER_KEEPALIVE_TIMEOUT", "6000");
    let config = case.good();
    assert!(warned(&config, "proxy.header_timeout: 6s is not above SERVER_KEEPALIVE_TIMEOUT (6s)"));
    case.set("ROLLBACK_WINDOW_MS", "1000");
    assert!(warned(&case.good(), "rollback.interval: 5s is longer than the watch window (1s)"));
}

/// The problems of an instance of several apps with this `[redis]`.
fn redis_problems(table: &str) -> Vec<String> {
    let case = Case::file(&format!("[apps]\n[redis]\n{table}\n"));
    case.load().err().map(|errors| errors.problems).unwrap_or_default()
}

#[test]
fn routes_from_redis_are_for_an_instance_of_several_apps() {
    for app in ["", "[app]\ntarget = 8080\n"] {
        let problems = Case::file(&format!("{app}[redis]\nurl = \"redis://:hunter2@h\"\n")).problems();
        assert!(problems.len() == 1 && problems[0].contains("several apps"), "{problems:?}");
        assert!(problems[0].contains("redis.url = ***"), "{problems:?}");
    }
}

#[test]
fn keys_of_redis_are_read_and_shown() {
    let case = Case::file(
        "[apps]\n[redis]\nurl = \"redis://u:hunter2@h/3\"\nprefix = \"x:\"\nrefresh = \"5s\"\nprobe = true\nallow = []\n",
    );
    let config = case.good();
    let redis = config.redis.clone().unwrap();
    assert_eq!(redis.server.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert_eq!((redis.server.database, &*redis.prefix, redis.refresh, redis.probe), (3, "x:", secs(5), true));
    assert!(redis.allow.is_empty());
    let text = config.effective_toml();
    assert!(text.contains("url = \"redis://u:***@h:6379/3\"") && !text.contains("hunter2"), "{text}");
    case.write("api.toml", &text);
    let mut again = case.good();
    again.redis.as_mut().unwrap().server.password = redis.server.password.clone();
    assert_eq!(again.redis, Some(redis));
    // Another password is a change, and is not told.
    case.write("api.toml", "[apps]\n[redis]\nurl = \"redis://u:hunter3@h/3\"\n");
    let changed = diff(&config, &case.good());
    assert!(changed.changed.contains(&"redis.url".to_owned()) && !format!("{changed:?}").contains("hunter"));
    let defaults = Case::file("[apps]\n[redis]\nurl = \"redis://h\"\n").good().redis.unwrap();
    assert_eq!((defaults.refresh, defaults.allow.len(), defaults.probe), (secs(1), 4, false));
    assert_eq!(Case::file("[apps]\n").good().redis, None);
}

#[test]
fn keys_of_redis_need_its_url_and_have_their_bounds() {
    for (table, expected) in [
        ("url = \"rediss://:hunter2@h\"", "no TLS"),
        ("url = 6379", "such as"),
        ("prefix = \"x\"", "redis.url is not set"),
        ("allow = [\"10.0.0.0/8\"]", "redis.url is not set"),
        ("password_file = \"/x\"", "redis.url is not set"),
        ("url = \"redis://h\"\nrefresh = \"1ms\"", "from 100ms"),
        ("url = \"redis://h\"\nallow = [\"shop\"]", "a range"),
        ("url = \"redis://h\"\nprefix = \"\\n\"", "without control characters"),
        ("url = \"redis://h\"\nprobe = 1", "true or false"),
        ("url = \"redis://h\"\npassword_file = \"/nowhere/x\"", "a file with the password"),
        ("url = \"redis://:hunter2@h\"\npassword_file = \"/nowhere/x\"", "redis.url has a password"),
        ("url = \"redis://h\"\nurls = 1", "did you mean `redis.url`"),
        ("app.balance = \"least\"", "[redis.app]: expected nothing, because redis.url is not set"),
        ("url = \"redis://h\"\napp = 1", "expected a table, [redis.app]"),
        ("url = \"redis://h\"\napp.balance = \"most\"", "redis.app.balance = \"most\": expected"),
        ("url = \"redis://h\"\napp.hosts = [\"a\"]", "redis.app.hosts = [\"a\"]: expected nothing"),
        ("url = \"redis://h\"\napp.limits.tunnels = 1", "cannot hold for all apps of Redis"),
        ("url = \"redis://h\"\napp.admin.token = \"hunter2\"", "admin is the instance's"),
        ("url = \"redis://h\"\napp.health.pth = \"/\"", "did you mean `redis.app.health.path`"),
    ] {
        let problems = redis_problems(table);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{table}: {problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}

#[test]
fn what_holds_for_all_apps_of_redis_stands_over_the_sections() {
    let sections = "[upstream]\nretries = 7\ndebug = true\n[health]\npath = \"/all\"\n";
    let plain = format!("[apps]\n[redis]\nurl = \"redis://h\"\n{sections}");
    let case = Case::file(&plain);
    let config = case.good();
    let app = &config.redis.as_ref().unwrap().app;
    assert_eq!((app.balance, app.upstream.retries, app.upstream.debug), (Balance::Random, 7, true));
    assert_eq!(app.sticky, Sticky::Off);
    assert_eq!((&*app.health.path, app.health.is_set), ("/all", false));
    assert_eq!((&*app.name, &app.limits), ("redis", &config.app.limits));
    assert!(config.effective_toml().contains("\n[redis.app]\nbalance = \"random\"\n"));
    let own = "[redis.app]\nbalance = \"least\"\nsticky = \"cookie\"\nhealth.path = \"/all\"\nupstream.retries = 2\n";
    case.write("api.toml", &format!("{plain}{own}"));
    let changed = case.good();
    let app = &changed.redis.as_ref().unwrap().app;
    assert_eq!((app.balance, app.upstream.retries, app.upstream.debug), (Balance::Least, 2, true));
    assert_eq!((app.sticky, changed.app.sticky), (Sticky::Cookie, Sticky::Off));
    assert!(app.health.is_set);
    // It stands for no app of a file.
    assert_eq!((changed.app.balance, changed.app.upstream.retries), (Balance::Least, 7));
    let difference = diff(&config, &changed).changed;
    assert_eq!(
        difference,
        ["redis.app.balance", "redis.app.sticky", "redis.app.upstream.retries", "redis.app.health.path"]
    );
    case.write("api.toml", &changed.effective_toml());
    assert_eq!(case.good().redis, changed.redis, "{}", changed.effective_toml());
    let problems = Case::file("[app]\ntarget = 8080\n[redis.app]\nbalance = \"least\"\n").problems();
    assert!(problems.len() == 1 && problems[0].contains("[redis.app]"), "{problems:?}");
}

#[test]
fn the_password_of_redis_may_lie_in_a_file() {
    let case = Case::new();
    let file = case.write("password", "hunter2\n");
    let table = format!("url = \"redis://h\"\npassword_file = {file:?}");
    let config = Case::file(&format!("[apps]\n[redis]\n{table}\n")).good();
    let password = config.redis.as_ref().unwrap().server.password.as_ref();
    assert_eq!(password.map(Secret::expose), Some("hunter2"));
    let text = config.effective_toml();
    assert!(text.contains("# password_file: what is in it shows in url"), "{text}");
    case.write("password", "\n");
    let problems = redis_problems(&table);
    assert!(problems.len() == 1 && problems[0].contains("holds a password"), "{problems:?}");
}
