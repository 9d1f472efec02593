//! Loading: where values come from, who wins, whom a file is believed, where things lie by default.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::files::{CONFIG_MAX, Who};
use super::limits::Host;
use super::load::load_as;
use super::*;

/// Sources in a folder of their own.
pub(super) struct Case {
    pub(super) dir: tempfile::TempDir,
    pub(super) sources: Sources,
    pub(super) who: Who,
    pub(super) host: Host,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = fs::metadata(dir.path()).unwrap();
        let mut case = Self {
            sources: Sources::default(),
            who: Who { uid: owner.uid(), gid: owner.gid(), groups: vec![owner.gid()] },
            host: able(),
            dir,
        };
        for folder in ["state", "etc", "run"] {
            fs::create_dir(case.path(folder)).unwrap();
        }
        let [state, etc] = [case.path("state"), case.path("etc")].map(|path| path.display().to_string());
        case.set("PORTOK_STATE_DIR", &state);
        case.set("PORTOK_CONFIG_DIR", &etc);
        case
    }

    /// A TOML file with this text.
    pub(super) fn file(text: &str) -> Self {
        let mut case = Self::new();
        case.write("api.toml", text);
        case.sources.file = Some(case.config());
        case
    }

    /// The least environment that configures alone.
    pub(super) fn environment() -> Self {
        let mut case = Self::new();
        case.set("INITIAL_TARGET_PORT", "8080");
        case.set("ADMIN_TOKEN", "0123456789abcdef");
        case
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("api.toml")
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        path
    }

    pub(super) fn set(&mut self, variable: &str, value: &str) {
        self.sources.env.insert(variable.to_owned(), value.to_owned());
    }

    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        load_as(&self.sources, &self.who, &self.host)
    }

    pub(super) fn good(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("refused: {errors}"))
    }

    pub(super) fn problems(&self) -> Vec<String> {
        match self.load() {
            Err(errors) => errors.problems,
            Ok(config) => panic!("accepted: {}", config.effective_toml()),
        }
    }
}

/// A host that can hold apps to every limit.
fn able() -> Host {
    let controllers = ["cpu", "memory", "pids"].map(str::to_owned).into();
    Host { uid: 0, open_files: 524_288, systemd: true, systemd_run: true, controllers }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn warned(config: &Config, part: &str) -> bool {
    config.warnings.iter().any(|warning| warning.contains(part))
}

#[test]
fn an_empty_file_gives_the_defaults_of_a_file_and_waits_for_a_deploy() {
    let case = Case::file("");
    let config = case.good();
    assert_eq!(config.name, "api");
    assert_eq!(config.file, Some(case.config()));
    assert_eq!(config.listen, "0.0.0.0:3000".parse().unwrap());
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
    assert_eq!(config.listen.port(), 3000);
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
        ("VERBOSE_ERRORS", "1"),
    ] {
        case.set(variable, value);
    }
    for variable in variables().filter(|variable| *variable != "INITIAL_TARGET_PORT") {
        assert!(case.sources.env.contains_key(variable), "{variable} is not tested here");
    }
    let config = case.good();
    assert_eq!((config.name.as_str(), config.listen.to_string().as_str()), ("web", "[::1]:8081"));
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
}

#[test]
fn environment_wins_over_the_file_and_flags_over_both() {
    let mut case = Case::file(
        "name = \"file\"\nlisten = 1111\n[app]\ntarget = 4000\n[drain]\nperiod = \"1s\"\naffinity = \"connection\"\n\
         [admin]\nallow = [\"::1\"]\n",
    );
    assert_eq!(case.good().listen.port(), 1111);
    case.set("LISTEN_PORT", "2222");
    case.set("INITIAL_TARGET_PORT", "5000");
    case.set("INSTANCE_NAME", "env");
    case.set("DRAIN_MS", "2000");
    case.set("ADMIN_ALLOWLIST", "10.1.1.1");
    case.set("DRAIN_AFFINITY", "");
    let config = case.good();
    assert_eq!(
        (config.name.as_str(), config.listen.port(), config.app.app.target),
        ("env", 2222, Some(5000))
    );
    assert_eq!((config.app.drain.period, config.app.drain.affinity), (secs(2), Affinity::Connection));
    assert_eq!(config.admin.allow, ["10.1.1.1/32".parse().unwrap()]);
    case.sources.overrides.listen = Some("127.0.0.1:0".to_owned());
    case.sources.overrides.command = Some(CommandLine::Shell("node app.js".to_owned()));
    let config = case.good();
    assert_eq!(config.listen.to_string(), "127.0.0.1:0");
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
    assert_eq!(config.listen.to_string(), "0.0.0.0:3001");
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
    assert_eq!(config.hooks.on_event.as_deref(), Some(&["/bin/true".to_owned(), String::new()][..]));
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
fn a_file_that_others_may_write_is_refused() {
    let case = Case::file("");
    for (bits, by) in [(0o602, "everybody"), (0o666, "everybody")] {
        mode(&case.config(), bits);
        let problems = case.problems();
        let todo = format!("chmod go-w {}", case.config().display());
        for part in [by, &todo, &format!("{bits:04o}")] {
            assert!(problems[0].contains(part), "{problems:?}");
        }
    }
    mode(&case.config(), 0o644);
    case.good();
}

#[test]
fn a_file_of_a_stranger_is_refused_except_for_who_only_looks_for_the_daemon() {
    let mut case = Case::file("[admin]\ntoken_file = \"/nowhere\"\n");
    let root = case.who.uid == 0;
    if root {
        chown(case.config(), Some(54_321), None).unwrap();
    } else {
        case.who.uid += 1;
    }
    let problems = case.problems();
    assert!(problems[0].contains("neither root nor uid") && problems[0].contains("chown"), "{problems:?}");
    case.sources.client = true;
    assert!(case.good().admin.token.is_none());
    case.sources.client = false;
    if root {
        // The daemon's own user may own it.
        case.who.uid = 54_321;
        assert!(case.problems()[0].contains("admin.token_file"), "only the missing token file is left");
    }
}

#[test]
fn limits_of_size_and_text() {
    let case = Case::file(&"#".repeat(usize::try_from(CONFIG_MAX).unwrap() + 1));
    assert!(case.problems()[0].contains("larger than 1.0 MiB"), "{:?}", case.problems());
    fs::write(case.config(), b"listen = 1\n# \xff\n").unwrap();
    assert!(case.problems()[0].contains("not UTF-8 text, see line 2"), "{:?}", case.problems());
}

#[test]
fn tokens_from_a_file() {
    let mut case = Case::new();
    let token = case.write("token", "0123456789abcdef\r\n");
    case.write("api.toml", &format!("[admin]\ntoken_file = \"{}\"\n[app]\ntarget = 1\n", token.display()));
    case.sources.file = Some(case.config());
    let config = case.good();
    assert_eq!(config.admin.token.as_ref().map(Secret::expose), Some("0123456789abcdef"));
    assert_eq!(config.warnings, Vec::<String>::new());

    // The group is the reader's own; everybody is not.
    mode(&token, 0o660);
    assert!(case.good().admin.token.is_some());
    mode(&token, 0o662);
    let problems = case.problems();
    assert!(
        problems[0].contains(":2:14: admin.token_file") && problems[0].contains("chmod go-w"),
        "{problems:?}"
    );
    mode(&token, 0o644);
    assert!(warned(&case.good(), "everybody may read"));

    case.write("token", "hunter2 hunter2\n");
    let problems = case.problems();
    assert!(problems[0].contains("without spaces") && !problems[0].contains("hunter2"), "{problems:?}");
    case.write("token", "\n");
    assert!(case.problems()[0].contains("printable"));
    case.write("token", &"x".repeat(10_000));
    assert!(case.problems()[0].contains("larger than"));

    // The environment's wins, the file is not even read.
    case.set("ADMIN_TOKEN", "fedcba9876543210");
    assert_eq!(case.good().admin.token.as_ref().map(Secret::expose), Some("fedcba9876543210"));

    case.write("api.toml", "[admin]\ntoken_file = \"/x\"\ntoken = \"0123456789abcdef\"\n");
    let problems = case.problems();
    assert!(problems[0].contains(":2:14: admin.token_file = \"/x\": expected nothing, because admin.token"));
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

#[test]
fn the_state_lies_where_systemd_says_or_where_it_can_be_written() {
    let mut case = Case::file("");
    case.set("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
    assert_eq!(case.good().state_file, Path::new("/var/lib/a/api.json"));
    case.sources.env.remove("STATE_DIRECTORY");

    // Another user: its folder cannot be written.
    let owned = case.path("state");
    mode(&owned, 0o755);
    let stranger = Who { uid: case.who.uid + 4242, gid: 4242, groups: Vec::new() };
    case.sources.client = true; // whose files are read does not matter here
    case.set("HOME", "/home/somebody");
    let config = load_as(&case.sources, &stranger, &case.host).unwrap();
    assert_eq!(config.state_file, Path::new("/home/somebody/.local/state/portok/api.json"));
    assert!(warned(&config, &format!("cannot write {}", owned.display())), "{:?}", config.warnings);
    case.set("XDG_STATE_HOME", "/home/somebody/state");
    let config = load_as(&case.sources, &stranger, &case.host).unwrap();
    assert_eq!(config.state_file, Path::new("/home/somebody/state/portok/api.json"));

    let group = Who { groups: vec![fs::metadata(&owned).unwrap().gid()], ..stranger };
    mode(&owned, 0o775);
    assert_eq!(load_as(&case.sources, &group, &case.host).unwrap().state_file, owned.join("api.json"));
    case.set("PORTOK_STATE_DIR", &owned.join("not/yet").display().to_string());
    assert_eq!(
        load_as(&case.sources, &group, &case.host).unwrap().state_file,
        owned.join("not/yet/api.json")
    );
}

#[test]
fn the_default_socket() {
    let socket =
        |uid, dir: Option<&str>| default_socket("api", uid, dir.map(Path::new)).display().to_string();
    assert_eq!(socket(0, Some("/run/user/0")), "/run/portok/api/admin.sock");
    assert_eq!(socket(1000, Some("/run/user/1000")), "/run/user/1000/portok/api/admin.sock");
    assert_eq!(socket(1000, None), "/tmp/portok-1000/api/admin.sock");
    assert_eq!(socket(1000, Some("relative")), "/tmp/portok-1000/api/admin.sock");
    let long = format!("/{}", "x".repeat(100));
    assert_eq!(socket(1000, Some(&long)), "/tmp/portok-1000/api/admin.sock");
    let longest = default_socket(&"n".repeat(64), u32::MAX, None);
    assert!(longest.as_os_str().len() <= 107);
}

#[test]
fn in_the_foreground_nothing_is_required_but_a_command() {
    let mut case = Case::new();
    case.sources.overrides.foreground = true;
    let run = case.path("run");
    case.set("XDG_RUNTIME_DIR", &run.display().to_string());
    case.who.uid = case.who.uid.max(1);
    mode(&run, 0o777);
    let problems = case.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("--cmd"), "{problems:?}");

    case.sources.overrides.command = Some(CommandLine::Shell("node app.js".to_owned()));
    case.set("INITIAL_TARGET_PORT", "9999");
    let config = case.good();
    assert_eq!((config.app.app.target, config.admin.token), (None, None));
    assert_eq!(config.run_dir, run.join("portok/default"));
    assert_eq!(config.state_file, run.join("portok/default/state.json"));
    assert_eq!(config.admin.socket, Some(run.join("portok/default/admin.sock")));
    assert!(config.admin.public);
    assert_eq!(config.listen, "127.0.0.1:3000".parse().unwrap());
    assert_eq!((config.app.drain.affinity, config.proxy.forwarded), (Affinity::Request, Forwarded::Trusted));
    assert_eq!(config.limits.requests_per_address, Some(512), "as with a file");
    case.set("LISTEN_PORT", "4000");
    case.set("DRAIN_AFFINITY", "connection");
    let config = case.good();
    assert_eq!(config.listen, "127.0.0.1:4000".parse().unwrap());
    assert_eq!(config.app.drain.affinity, Affinity::Connection);
    case.sources.overrides.listen = Some("0.0.0.0:5000".to_owned());
    assert_eq!(case.good().listen, "0.0.0.0:5000".parse().unwrap());

    // A runtime folder that cannot be written, as after `su`.
    mode(&run, 0o700);
    case.who = Who { uid: fs::metadata(&run).unwrap().uid() + 77, gid: 77, groups: Vec::new() };
    let config = case.good();
    assert_eq!(config.run_dir, PathBuf::from(format!("/tmp/portok-{}/default", case.who.uid)));
}

#[test]
fn the_folder_that_systemd_made_for_another_user_is_roots_default() {
    let mut case = Case::file("");
    case.who.uid = 4711;
    case.set("RUNTIME_DIRECTORY", "/run/other:/run/portok/api");
    assert_eq!(case.good().run_dir, PathBuf::from("/run/portok/api"));
    case.set("RUNTIME_DIRECTORY", "/run/other");
    assert_eq!(case.good().run_dir, PathBuf::from("/tmp/portok-4711/api"), "nobody would look there");
}

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
    for key in keys() {
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
    for key in keys() {
        assert!(found.iter().any(|name| name == key.name), "{} is not in full.toml", key.name);
    }
    assert_eq!(found.len(), keys().count(), "a key twice, or an unknown one: {found:?}");
    let case = Case::file("");
    let defaults = case.good();
    case.write("api.toml", &text);
    assert_eq!(case.good(), defaults);

    // What is commented out there is good as well.
    let mut all = String::new();
    for line in text.lines() {
        let (word, rest) = line.trim_start_matches("# ").split_once(" = ").unwrap_or(("", ""));
        let excluded = line.starts_with("# target") || line.starts_with("# token_file");
        let is_key = !excluded && !rest.is_empty() && found.iter().any(|name| name.ends_with(word));
        all.push_str(if is_key { line.trim_start_matches("# ") } else { line });
        all.push('\n');
    }
    let config = Case::file(&all).good();
    assert_eq!(config.name, "api");
    assert_eq!(config.app.app.command, Some(CommandLine::Shell("node server.js".to_owned())));
    assert!(config.admin.socket_configured && config.hooks.on_event.is_some());
}

const LIMITS: &str = "[app]\nopen_files = 4096\nmemory = \"512MiB\"\ncpu = \"150%\"\ntasks = 200\n";

#[test]
fn an_app_gets_the_limits_that_the_host_can_hold_it_to() {
    let config = Case::file(LIMITS).good();
    let limits = Limits { open_files: Some(4096), memory: Some(512 << 20), cpu: Some(150), tasks: Some(200) };
    assert_eq!(config.app.app.limits, limits);
    let shown = config.effective_toml();
    for line in ["open_files = 4096", "memory = \"512MiB\"", "cpu = \"150%\"", "tasks = 200"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(Case::file("").good().app.app.limits.is_none());
}

#[test]
fn a_limit_that_the_host_cannot_hold_an_app_to_is_refused_with_the_reason() {
    let refused = |change: fn(&mut Host), parts: &[(&str, &str)]| {
        let mut case = Case::file(LIMITS);
        change(&mut case.host);
        let problems = case.problems();
        assert_eq!(problems.len(), parts.len(), "{problems:#?}");
        for (problem, (key, why)) in problems.iter().zip(parts) {
            assert!(problem.contains(key) && problem.contains(why), "{problem}: {key}, {why}");
        }
        case.sources.client = true;
        case.good();
    };
    let all = |why| [("app.memory = \"512MiB\"", why), ("app.cpu", why), ("app.tasks", why)];
    refused(|host| host.uid = 33, &all("only root may ask systemd for a scope, and this is uid 33"));
    refused(|host| host.systemd = false, &all("systemd, whose scope it takes, is not running here"));
    refused(|host| host.systemd_run = false, &all("/usr/bin/systemd-run, which it takes, is not here"));
    refused(
        |host| host.controllers = vec!["memory".into(), "cpu".into()],
        &[("app.tasks", "controller `pids`")],
    );
    refused(|host| host.open_files = 4095, &[("app.open_files = 4096", "at most 4095")]);
}
