//! Configurations that are refused, each with what its message has to say.

use super::Case;

/// The one line that is wrong (a table header in front of it where there is one), the column of the
/// complaint, the key and value it names, and what it expected.
const FILE: &[(&str, usize, &str, &str)] = &[
    // Unknown keys and tables.
    ("listn = 1", 1, "unknown key `listn`", "did you mean `listen`?"),
    ("[health]\npth = \"/x\"", 1, "unknown key `health.pth`", "did you mean `health.path`?"),
    ("[app.restart]\n  bakoff = \"1s\"", 3, "unknown key `app.restart.bakoff`", "`app.restart.backoff`?"),
    (
        "[app]\nrestart = { give_in = true }",
        13,
        "unknown key `app.restart.give_in`",
        "`app.restart.give_up`?",
    ),
    ("[app]\nport = 8080", 1, "unknown key `app.port`", "did you mean `app.port_env`?"),
    ("[helth]", 2, "unknown key `helth`", "did you mean `health`?"),
    ("threads = 2", 1, "unknown key `threads`", "did you mean `proxy.threads`?"),
    ("[admin]\ntokn = \"hunter2-hunter2\"", 1, "unknown key `admin.tokn`", "did you mean `admin.token`?"),
    ("[hooks]\non_events = []", 1, "unknown key `hooks.on_events`", "did you mean `hooks.on_event`?"),
    ("[log]\nverbose = true", 1, "unknown key `log.verbose`", "did you mean `log.verbose_errors`?"),
    // A table where a value belongs, and the other way round.
    ("health = 5", 10, "health = 5", "a table, [health]"),
    ("app = \"node app.js\"", 7, "app = \"node app.js\"", "a table, [app]"),
    ("drain = [\"30s\"]", 9, "drain = [\"30s\"]", "a table, [drain]"),
    ("[app]\nrestart = true", 11, "app.restart = true", "a table, [app.restart]"),
    ("[app]\nenv = [\"A=b\"]", 7, "app.env = ***", "a table of strings"),
    ("[health]\npath = { is = \"/x\" }", 8, "health.path = { is = \"/x\" }", "a path that starts with `/`"),
    // The top.
    ("name = \"a b\"", 8, "name = \"a b\"", "1 to 64 letters, digits, `_` or `-`"),
    ("name = \"\"", 8, "name = \"\"", "1 to 64 letters"),
    ("name = \"../x\"", 8, "name = \"../x\"", "1 to 64 letters"),
    ("name = 5", 8, "name = 5", "1 to 64 letters"),
    ("listen = 65536", 10, "listen = 65536", "a port from 0 to 65535, or an address"),
    ("listen = -1", 10, "listen = -1", "a port from 0 to 65535"),
    ("listen = \"localhost:3000\"", 10, "listen = \"localhost:3000\"", "such as \"0.0.0.0:3000\""),
    ("listen = \"1.2.3.4\"", 10, "listen = \"1.2.3.4\"", "an address such as"),
    ("listen = true", 10, "listen = true", "a port from 0 to 65535"),
    ("listen = 30.5", 10, "listen = 30.5", "a port from 0 to 65535"),
    ("listen = []", 10, "listen = []", "an array of 1 to 64 items, not of 0"),
    ("listen = [80, \"[::]:x\"]", 15, "listen = \"[::]:x\"", "a port from 0 to 65535, or an address"),
    ("listen = [80, \"0.0.0.0:80\"]", 15, "listen = \"0.0.0.0:80\"", "each item once"),
    ("state_file = \"\"", 14, "state_file = \"\"", "a path"),
    ("state_file = 1979-05-27", 14, "state_file = 1979-05-27", "a path"),
    // The app.
    ("[app]\ntarget = 0", 10, "app.target = 0", "a port from 1 to 65535"),
    ("[app]\ntarget = \"8080\"", 10, "app.target = \"8080\"", "a port from 1 to 65535"),
    ("[app]\ntarget = 3000", 10, "app.target = 3000", "a port other than 3000, where portok itself listens"),
    ("[app]\ncommand = \"\"", 11, "app.command = \"\"", "a command for /bin/sh"),
    ("[app]\ncommand = \"  \"", 11, "app.command = \" \"", "a command for /bin/sh"),
    ("[app]\ncommand = []", 11, "app.command = []", "an array of strings, first the program"),
    ("[app]\ncommand = [\"\", \"x\"]", 11, "app.command = [\"\", \"x\"]", "first the program"),
    ("[app]\ncommand = [\"node\", 5]", 11, "app.command = [\"node\", 5]", "an array of strings"),
    ("[app]\ncommand = \"a\\u0000b\"", 11, "app.command = \"a\\u0000b\"", "a command for /bin/sh"),
    ("[app]\ncommand = \"x\"\nreplicas = 65", 12, "app.replicas = 65", "from 1 to 64, or a table such as"),
    ("[app]\ncommand = \"x\"\nreplicas = 0", 12, "app.replicas = 0", "a whole number from 1 to 64"),
    ("[app]\ncommand = \"x\"\nreplicas = {}", 12, "app.replicas = {}", "`max` in it"),
    ("[app]\ncommand = \"x\"\nreplicas = { min = 2 }", 12, "app.replicas = { min = 2 }", "`max` in it"),
    (
        "[app]\ncommand = \"x\"\nreplicas = { max = 65 }",
        20,
        "app.replicas.max = 65",
        "a whole number from 1 to 64",
    ),
    (
        "[app]\ncommand = \"x\"\nreplicas = { max = 0 }",
        20,
        "app.replicas.max = 0",
        "a whole number from 1 to 64",
    ),
    ("[app]\ncommand = \"x\"\nreplicas = { min = -1, max = 1 }", 20, "app.replicas.min = -1", "from 0 to 64"),
    (
        "[app]\ncommand = \"x\"\nreplicas = { min = 3, max = 2 }",
        20,
        "app.replicas.min = 3",
        "at most as many as max (2)",
    ),
    (
        "[app]\ncommand = \"x\"\nreplicas = { max = 2, busy = 1 }",
        23,
        "`app.replicas.busy`",
        "`app.replicas.busy_at`",
    ),
    (
        "[app]\ncommand = \"x\"\nreplicas = { max = 2, busy_at = 0 }",
        33,
        "app.replicas.busy_at = 0",
        "from 1 to 1000000",
    ),
    (
        "[app]\ncommand = \"x\"\nreplicas = { max = 2, idle = 60 }",
        30,
        "app.replicas.idle = 60",
        "from 1s to 7days",
    ),
    ("[app]\nreplicas = 2", 12, "app.replicas = 2", "nothing, because app.command is not set"),
    (
        "[hold]\non = [\"crash\"]\n[app]\ncommand = \"x\"\nreplicas = { min = 0, max = 1 }",
        20,
        "app.replicas.min = 0",
        "at least 1, because hold.on has no \"idle\"",
    ),
    ("[app]\nopen_files = 15", 14, "app.open_files = 15", "a whole number from 16 to"),
    (
        "[app]\nopen_files = 600000",
        14,
        "app.open_files = 600000",
        "at most 524288, this process's own hard limit",
    ),
    ("[app]\nmemory = 512", 10, "app.memory = 512", "a size from"),
    ("[app]\nmemory = \"1KiB\"", 10, "app.memory = \"1KiB\"", "a size from \"1.0 MiB\""),
    ("[app]\ncpu = 150", 7, "app.cpu = 150", "a string such as \"150%\""),
    ("[app]\ncpu = \"0%\"", 7, "app.cpu = \"0%\"", "from \"1%\""),
    ("[app]\ncpu = \"1.5\"", 7, "app.cpu = \"1.5\"", "from \"1%\""),
    ("[app]\ntasks = 0", 9, "app.tasks = 0", "a whole number from 1"),
    ("[app]\ndirectory = 5", 13, "app.directory = 5", "a path"),
    ("[app]\nenv.A.B = 1", 5, "app.env.A = a table", "a string"),
    ("[app]\nenv = { A = 1 }", 13, "app.env.A = 1", "a string"),
    ("[app]\nenv = { API_TOKEN = 12345 }", 21, "app.env.API_TOKEN = ***", "a string"),
    ("[app]\nenv = { \"\" = \"x\" }", 9, "app.env.", "a variable's name, not an empty one"),
    ("[app]\nenv = { \"A=B\" = \"x\" }", 9, "app.env.A=B", "without `=` and NUL"),
    ("[app]\nenv = { PORT = \"80\" }", 9, "app.env.PORT", "no value for PORT: portok sets it"),
    ("[app]\nenv = { A = \"x\\u0000\" }", 13, "app.env.A = ", "a string without NUL"),
    ("[app]\nenv_file = true", 12, "app.env_file = true", "a path"),
    ("[app]\nuser = \"no body\"", 8, "app.user = \"no body\"", "the name or number of a user or group"),
    ("[app]\ngroup = \"\"", 9, "app.group = \"\"", "the name or number of a user or group"),
    ("[app]\nport_env = \"1PORT\"", 12, "app.port_env = \"1PORT\"", "a variable's name"),
    ("[app]\nport_env = \"\"", 12, "app.port_env = \"\"", "a variable's name"),
    ("[app]\nstart_timeout = 60", 17, "app.start_timeout = 60", "a duration from 1ms to 7days"),
    ("[app]\nstart_timeout = \"0s\"", 17, "app.start_timeout = \"0s\"", "a duration from 1ms to 7days"),
    ("[app]\nstop_timeout = \"8days\"", 16, "app.stop_timeout = \"8days\"", "a duration from 0s to 7days"),
    ("[app]\nstop_signal = \"SIGFOO\"", 15, "app.stop_signal = \"SIGFOO\"", "one of SIGTERM, SIGINT"),
    ("[app]\nstop_signal = 15", 15, "app.stop_signal = 15", "one of SIGTERM"),
    ("[app]\nowner_check = \"Strict\"", 15, "app.owner_check = \"Strict\"", "\"warn\" or \"strict\""),
    ("[app]\ndeploy_on_change = 1", 20, "app.deploy_on_change = 1", "true or false"),
    ("[app.restart]\nbackoff = \"0\"", 11, "app.restart.backoff = \"0\"", "a duration from 1ms"),
    ("[app.restart]\nmax_backoff = \"5 sacks\"", 15, "app.restart.max_backoff = \"5 sacks\"", "a duration"),
    ("[app.restart]\nmax_backoff = \"50ms\"", 15, "app.restart.max_backoff = \"50ms\"", "backoff (100ms)"),
    (
        "[app.restart]\nbackoff = \"1m\"",
        11,
        "app.restart.backoff = \"1m\"",
        "not above the max_backoff (30s)",
    ),
    ("[app.restart]\nburst = 0", 9, "app.restart.burst = 0", "a whole number from 1 to 1000"),
    ("[app.restart]\nwithin = \"-1s\"", 10, "app.restart.within = \"-1s\"", "a duration"),
    ("[app.restart]\ngive_up = \"no\"", 11, "app.restart.give_up = \"no\"", "true or false"),
    // Health, drain, rollback.
    ("[health]\npath = \"health\"", 8, "health.path = \"health\"", "a path that starts with `/`"),
    ("[app]\nmode = \"udp\"", 8, "app.mode = \"udp\"", "\"http\" or \"tcp\""),
    ("[upstream]\nproxy_protocol = \"v1\"", 18, "upstream.proxy_protocol = \"v1\"", "\"off\" or \"v2\""),
    ("[health]\ntcp = 1", 7, "health.tcp = 1", "true or false"),
    ("[health]\ngrpc = \"a b\"", 8, "health.grpc = \"a b\"", "the name of a gRPC service"),
    ("[health]\ntcp = true\ngrpc = \"\"", 8, "health.grpc = \"\"", "because health.tcp is set too"),
    ("[health]\ntcp = true\npath = \"/x\"", 8, "health.path = \"/x\"", "because health.tcp is set too"),
    ("[health]\ntcp = true\nhost = \"x\"", 8, "health.host = \"x\"", "because health.tcp is set too"),
    ("[health]\ngrpc = \"\"\npath = \"/x\"", 8, "health.path = \"/x\"", "grpc.health.v1 is asked instead"),
    ("[health]\npath = \"/a b\"", 8, "health.path = \"/a b\"", "without spaces"),
    ("[health]\npath = \"/a\\r\\nX: y\"", 8, "health.path = \"/a\\r\\nX: y\"", "control characters"),
    ("[health]\nhost = \"a\\nb\"", 8, "health.host = \"a\\nb\"", "a host name or address"),
    ("[health]\nhost = \"\"", 8, "health.host = \"\"", "a host name or address"),
    ("[health]\ntimeout = 5000", 11, "health.timeout = 5000", "such as \"500ms\", \"30s\" or \"2m\""),
    ("[health]\ntimeout = \"5\"", 11, "health.timeout = \"5\"", "a duration"),
    ("[health]\nsuccesses = 0", 13, "health.successes = 0", "a whole number from 1 to 1000"),
    ("[health]\nsuccesses = 1.5", 13, "health.successes = 1.5", "a whole number"),
    ("[drain]\nperiod = \"forever\"", 10, "drain.period = \"forever\"", "a duration from 0s"),
    ("[drain]\nearly = \"true\"", 9, "drain.early = \"true\"", "true or false"),
    ("[drain]\naffinity = \"sticky\"", 12, "drain.affinity = \"sticky\"", "\"request\" or \"connection\""),
    ("[rollback]\nwindow = []", 10, "rollback.window = []", "a duration"),
    ("[rollback]\ninterval = \"0ms\"", 12, "rollback.interval = \"0ms\"", "a duration from 1ms"),
    ("[rollback]\nthreshold = 0x7fffffff", 13, "rollback.threshold = 0x7fffffff", "from 1 to 1000"),
    ("[deploy]\nstrategy = \"blue\"", 12, "deploy.strategy = \"blue\"", "\"switch\" or \"recreate\""),
    ("[deploy]\nstrategy = \"rolling\"", 12, "deploy.strategy = \"rolling\"", "\"rolling\" is not built yet"),
    ("[app]\nverify_timeout = 5", 18, "app.verify_timeout = 5", "a duration from 1ms to 7days"),
    ("[app]\ntarget = 1\nbefore = \"x\"", 10, "app.before = \"x\"", "because app.target is set"),
    ("[rollback]\nstandby = \"never\"", 11, "rollback.standby = \"never\"", "\"drain\" or \"window\""),
    // Admin.
    ("[admin]\ntoken = \"\"", 9, "admin.token = ***", "printable ASCII"),
    ("[admin]\ntoken = \"hunter2 hunter2\"", 9, "admin.token = ***", "without spaces"),
    ("[admin]\ntoken = 4242", 9, "admin.token = ***", "printable ASCII"),
    ("[admin]\ntoken_file = \"/nowhere/x\"", 14, "admin.token_file = \"/nowhere/x\"", "No such file"),
    ("[admin]\ntoken_file = \"/\"", 14, "admin.token_file = \"/\"", "a regular file"),
    ("[admin]\nsocket_group = 0", 16, "admin.socket_group = 0", "a user or group"),
    ("[admin]\nallow = \"127.0.0.1\"", 9, "admin.allow = \"127.0.0.1\"", "an array of strings"),
    (
        "[admin]\nallow = [\"::1\", \"10.0.0.0/33\"]",
        17,
        "admin.allow = \"10.0.0.0/33\"",
        "an address or a range",
    ),
    ("[admin]\nallow = [\"localhost\"]", 10, "admin.allow = \"localhost\"", "an address or a range"),
    ("[admin]\nhosts = [\"a:80\"]", 10, "admin.hosts = \"a:80\"", "without a port"),
    ("[admin]\nallow_forwarded = 0", 19, "admin.allow_forwarded = 0", "true or false"),
    ("[admin]\nrate_limit = 0", 14, "admin.rate_limit = 0", "a whole number from 1"),
    ("[admin]\npublic = \"yes\"", 10, "admin.public = \"yes\"", "true or false"),
    ("[admin]\nprefix = \"/\"", 10, "admin.prefix = \"/\"", "`/` and at least one more"),
    ("[admin]\nprefix = \"__\"", 10, "admin.prefix = \"__\"", "`/` and at least one more"),
    ("[admin]\nprefix = \"/a?b\"", 10, "admin.prefix = \"/a?b\"", "`/` and at least one more"),
    ("[admin]\nremote_deploy = 1", 17, "admin.remote_deploy = 1", "true or false"),
    // Proxy, upstream, hooks, log.
    ("[proxy]\nthreads = 0", 11, "proxy.threads = 0", "a whole number from 1 to 256"),
    ("[proxy]\nthreads = 257", 11, "proxy.threads = 257", "a whole number from 1 to 256"),
    ("[proxy]\nforwarded = \"on\"", 13, "proxy.forwarded = \"on\"", "\"trusted\" or \"append\" or \"off\""),
    ("[proxy]\ntrusted = [5]", 12, "proxy.trusted = 5", "an address or a range"),
    ("[proxy]\nupgrades = [\"H2C\"]", 13, "proxy.upgrades = \"H2C\"", "not HTTP's own"),
    ("[proxy]\nupgrades = [\"a b\"]", 13, "proxy.upgrades = \"a b\"", "the name of a protocol"),
    ("[proxy]\nupgrades = \"websocket\"", 12, "proxy.upgrades = \"websocket\"", "an array"),
    ("[limits]\nheaders = 8", 11, "limits.headers = 8", "a whole number from 32 to 4096"),
    (
        "[proxy]\nproxy_protocol = \"v3\"",
        18,
        "proxy.proxy_protocol = \"v3\"",
        "\"off\" or \"v1\" or \"v2\" or \"any\"",
    ),
    ("[proxy]\nhttp2 = 1", 9, "proxy.http2 = 1", "true or false"),
    ("[proxy]\nmax_streams = 0", 15, "proxy.max_streams = 0", "a whole number from 1 to 10000"),
    ("[proxy]\nidle_timeout = \"0\"", 16, "proxy.idle_timeout = \"0\"", "a duration from 1ms"),
    ("[proxy]\nheader_timeout = \"0\"", 18, "proxy.header_timeout = \"0\"", "a duration from 1ms"),
    ("[proxy]\nmax_header_size = \"1KiB\"", 19, "proxy.max_header_size = \"1KiB\"", "from \"8.0 KiB\""),
    ("[proxy]\nmax_header_size = 65536", 19, "proxy.max_header_size = 65536", "a string"),
    (
        "[proxy]\nmax_body = \"12 elephants\"",
        12,
        "proxy.max_body = \"12 elephants\"",
        "\"64KiB\" or \"512MB\"",
    ),
    ("[proxy]\nfast_path = \"0\"", 13, "proxy.fast_path = \"0\"", "true or false"),
    ("[upstream]\nkeepalive = 1", 13, "upstream.keepalive = 1", "true or false"),
    ("[upstream]\nmax_connections = 0", 19, "upstream.max_connections = 0", "from 1 to 65535"),
    ("[upstream]\nconnect_timeout = \"0\"", 19, "upstream.connect_timeout = \"0\"", "a duration from 1ms"),
    ("[upstream]\nresponse_timeout = false", 20, "upstream.response_timeout = false", "\"0\" for none"),
    ("[upstream]\nidle_timeout = \"\"", 16, "upstream.idle_timeout = \"\"", "a duration"),
    ("[upstream]\ntcp_keepalive = \"0s\"", 17, "upstream.tcp_keepalive = \"0s\"", "a duration from 1ms"),
    ("[hooks]\non_event = \"notify\"", 12, "hooks.on_event = \"notify\"", "an array of strings"),
    ("[hooks]\non_event = []", 12, "hooks.on_event = []", "first the program"),
    ("[log]\nlevel = \"loud\"", 9, "log.level = \"loud\"", "a level (off, error, warn, info, debug, trace)"),
    ("[log]\nlevel = \"info,web=debug\"", 9, "log.level = \"info,web=debug\"", "a part of portok before `=`"),
    ("[access]\nfile = \"access.log\"", 8, "access.file = \"access.log\"", "or the absolute path of a file"),
    ("[access]\nfile = true", 8, "access.file = true", "\"off\", \"stdout\""),
    ("[access]\nformat = \"xml\"", 10, "access.format = \"xml\"", "\"json\" or \"combined\" or \"hipache\""),
    ("[access]\nsample = 1.5", 10, "access.sample = 1.5", "a number from 0 to 1"),
    ("[access]\nsample = \"10%\"", 10, "access.sample = \"10%\"", "a number from 0 to 1"),
    ("[access]\nslow = 1", 8, "access.slow = 1", "a duration"),
    (
        "[errors]\ndir = \"/nowhere\"",
        7,
        "errors.dir = \"/nowhere\"",
        "a folder with pages, but: /nowhere: No such",
    ),
    ("[proxy]\nrequest_id = true", 14, "proxy.request_id = true", "\"off\" or \"keep\" or \"make\""),
    (
        "[proxy]\nforwarded_header = \"x\"",
        20,
        "proxy.forwarded_header = \"x\"",
        "\"x-forwarded\" or \"forwarded\"",
    ),
    ("[log]\nverbose_errors = 0", 18, "log.verbose_errors = 0", "true or false"),
    // Not TOML.
    ("listen = ", 10, "not valid TOML", ""),
    ("name = \"x", 10, "not valid TOML", ""),
    ("a = 1\na = 2", 1, "not valid TOML", "duplicate key"),
    ("[app]\n[app]", 2, "not valid TOML", "duplicate key"),
];

#[test]
fn every_bad_line_of_a_file_has_a_message_of_its_own() {
    assert!(FILE.len() >= 60);
    for (line, column, key_and_value, expected) in FILE {
        // Something in front, so that lines and columns are counted and not guessed; ü is one
        // character.
        let text = format!("# für Tests\n{line}\n");
        let case = Case::file(&text);
        let problems = case.problems();
        let [problem] = problems.as_slice() else { panic!("one problem, not {problems:#?}\nfor {line:?}") };
        let place = format!("{}:{}:{column}: ", case.config().display(), line.lines().count() + 1);
        assert!(problem.starts_with(&place), "{problem}\nwanted it at {place} for {line:?}");
        for part in [key_and_value, expected] {
            assert!(problem.contains(part), "{problem}\nlacks {part:?} for {line:?}");
        }
        assert!(!problem.contains("hunter2"), "{problem}");
        assert!(!problem.contains('\n') && !problem.ends_with('.'), "{problem}");
    }
}

/// A variable, its value as shown, and what was expected.
const ENVIRONMENT: &[(&str, &str, &str)] = &[
    ("INSTANCE_NAME", "my app", "1 to 64 letters, digits, `_` or `-`"),
    ("LISTEN_PORT", "http", "a port from 0 to 65535, or an address"),
    ("LISTEN_PORT", "70000", "a port from 0 to 65535"),
    ("LISTEN_PORT", "8080", "a port other than 8080"),
    ("INITIAL_TARGET_PORT", "0", "a port from 1 to 65535"),
    ("INITIAL_TARGET_PORT", "80a", "a port from 1 to 65535"),
    ("INITIAL_TARGET_PORT", "3000", "a port other than 3000, where portok itself listens"),
    ("HEALTH_PATH", "health", "a path that starts with `/`"),
    ("HEALTH_TIMEOUT_MS", "5s", "whole milliseconds from 1 to 604800000"),
    ("HEALTH_TIMEOUT_MS", "0", "whole milliseconds from 1"),
    ("DRAIN_MS", "-1", "whole milliseconds from 0"),
    ("DRAIN_MS", "1e3", "whole milliseconds from 0"),
    ("DRAIN_AFFINITY", "both", "\"request\" or \"connection\""),
    ("ROLLBACK_WINDOW_MS", "99999999999", "whole milliseconds from 0 to 604800000"),
    ("ROLLBACK_CHECK_EVERY_MS", "0", "whole milliseconds from 1"),
    ("ROLLBACK_FAIL_THRESHOLD", "none", "a whole number from 1 to 1000"),
    ("ADMIN_TOKEN", "with a space", "printable ASCII characters without spaces"),
    ("ADMIN_ALLOWLIST", "10.0.0.0/40", "an address or a range"),
    ("ADMIN_UNIX_SOCKET", LONG_PATH, "a path of at most 107 bytes (a unix socket's limit), not 122"),
    ("FAST_PATH", "yes", "0, 1, true or false"),
    ("PORTOK_THREADS", "0", "a whole number from 1 to 256"),
    ("UPSTREAM_KEEPALIVE", "2", "0, 1, true or false"),
    ("UPSTREAM_MAX_SOCKETS", "Infinity", "a whole number from 1 to 65535"),
    ("UPSTREAM_KEEPALIVE_MSECS", "0", "whole milliseconds from 1"),
    ("SERVER_KEEPALIVE_TIMEOUT", "5.5", "whole milliseconds from 1"),
    ("SERVER_HEADERS_TIMEOUT", "six", "whole milliseconds from 1"),
    ("ENABLE_XFWD", "on", "0, 1, true or false"),
    ("DEBUG_UPSTREAM", "TRUE", "0, 1, true or false"),
    ("VERBOSE_ERRORS", "no", "0, 1, true or false"),
];

const LONG_PATH: &str = "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901.sock";

#[test]
fn every_bad_variable_has_a_message_of_its_own() {
    for (variable, value, expected) in ENVIRONMENT {
        let mut case = Case::environment();
        case.set(variable, value);
        let problems = case.problems();
        // A listen port that is the target's is the target's problem.
        let named = if *expected == "a port other than 8080" { "INITIAL_TARGET_PORT" } else { variable };
        let [problem] = problems.as_slice() else { panic!("one problem, not {problems:#?}\nfor {variable}") };
        let shown =
            if *variable == "ADMIN_TOKEN" { "***".to_owned() } else { value.chars().take(80).collect() };
        for part in [named, shown.as_str(), expected] {
            assert!(problem.contains(part), "{problem}\nlacks {part:?}");
        }
    }
}

#[test]
fn all_bad_variables_are_reported_at_once_and_missing_ones_too() {
    let mut case = Case::environment();
    let mut variables: Vec<_> = ENVIRONMENT.iter().map(|(variable, _, _)| *variable).collect();
    variables.dedup();
    for variable in &variables {
        case.set(variable, "not, good");
    }
    let problems = case.problems();
    for variable in &variables {
        let free = ["ADMIN_UNIX_SOCKET"]; // Any text is a path.
        assert_eq!(
            problems.iter().any(|problem| problem.starts_with(variable)),
            !free.contains(variable),
            "{variable} in {problems:#?}"
        );
    }

    let mut case = Case::environment();
    case.set("ADMIN_TOKEN", " ");
    case.set("INITIAL_TARGET_PORT", "");
    case.set("DRAIN_MS", "soon");
    let problems = case.problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].starts_with("DRAIN_MS = \"soon\": expected"), "{problems:#?}");
    assert!(problems[1].starts_with("INITIAL_TARGET_PORT is missing: expected"), "{problems:#?}");
    assert!(problems[1].contains("APP_COMMAND"), "{problems:#?}");
    assert!(problems[2].starts_with("ADMIN_TOKEN is missing: expected"), "{problems:#?}");
}

#[test]
fn all_problems_of_a_file_come_at_once_and_in_its_order_then_those_of_the_environment() {
    let mut case = Case::file(
        "listen = 99999\n\
         lissen = 1\n\
         [rollback]\n\
         threshold = \"three\"\n\
         [app]\n\
         command = \"node app.js\"\n\
         target = 4000\n\
         env = { A = 1, PORT = \"1\", B = false }\n\
         [admin]\n\
         allow = [\"nobody\", \"::1\", \"10.0.0.0/99\"]\n\
         [drain]\n\
         perod = \"1s\"\n",
    );
    case.set("HEALTH_TIMEOUT_MS", "long");
    let problems = case.problems();
    let file = case.config();
    let file = file.display();
    let begins = [
        format!("{file}:1:10: listen = 99999: "),
        format!("{file}:2:1: unknown key `lissen`"),
        format!("{file}:4:13: rollback.threshold = \"three\": "),
        format!("{file}:7:10: app.target = 4000: expected nothing, because app.command is set too"),
        format!("{file}:8:13: app.env.A = 1: "),
        format!("{file}:8:16: app.env.PORT: "),
        format!("{file}:8:32: app.env.B = false: "),
        format!("{file}:10:10: admin.allow = \"nobody\": "),
        format!("{file}:10:27: admin.allow = \"10.0.0.0/99\": "),
        format!("{file}:12:1: unknown key `drain.perod`"),
        "HEALTH_TIMEOUT_MS = \"long\": ".to_owned(),
    ];
    assert_eq!(problems.len(), begins.len(), "{problems:#?}");
    for (problem, begin) in problems.iter().zip(&begins) {
        assert!(problem.starts_with(begin), "{problem}\nshould begin with {begin}");
    }
}

#[test]
fn target_and_command_exclude_each_other_across_all_sources() {
    let mut case = Case::environment();
    case.set("APP_COMMAND", "node app.js");
    let problems = case.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("INITIAL_TARGET_PORT = \"8080\": expected nothing, because APP_COMMAND"));

    let mut case = Case::file("[app]\ncommand = \"node app.js\"\n");
    case.set("INITIAL_TARGET_PORT", "4000");
    assert!(
        case.problems()[0]
            .starts_with("INITIAL_TARGET_PORT = \"4000\": expected nothing, because app.command")
    );

    let mut case = Case::file("[app]\ntarget = 4000\n");
    case.set("APP_COMMAND", "node app.js");
    assert!(case.problems()[0].contains(":2:10: app.target = 4000: expected nothing, because APP_COMMAND"));
}

#[test]
fn a_file_that_is_not_toml_gives_its_first_error_without_quoting_the_line() {
    let case = Case::file("[admin]\ntoken = \"hunter2\" oops\nlisten = = 5\n");
    let problems = case.problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].contains(":2:") && problems[0].contains("not valid TOML"), "{problems:#?}");
    assert!(!problems[0].contains("hunter2"), "{problems:#?}");
}

#[test]
fn odd_texts_are_refused_and_never_panic() {
    for text in
        ["\u{0}", "[", "=", "[[app]]", "\"\" = 1", "'' = {}", "app.env.x.y = 1", "a.b.c.d = 1", "\u{feff}x"]
    {
        assert!(!Case::file(text).problems().is_empty(), "{text:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z_.\\[\\]={}\"0-9 \\n#é,]{0,200}") {
        let _ = Case::file(&text).load();
    }

    #[test]
    fn any_value_of_any_key_is_read_or_refused(
        index in 0..crate::config::keys().count(),
        value in "(\"[^\"\\\\]{0,20}\"|[0-9]{1,20}|true|\\[\\]|\\{\\}|-?[0-9]\\.[0-9]|\\[\"[a-z]{0,3}\"\\])",
    ) {
        let _ = Case::file(&format!("{} = {value}\n", crate::config::keys().nth(index).unwrap().name)).load();
    }
}

#[test]
fn of_many_problems_the_first_are_told_and_the_others_counted() {
    let unknown: String = (0..250).map(|number| format!("k{number:03} = 1\n")).collect();
    let problems = Case::file(&unknown).problems();
    assert_eq!(problems.len(), 101, "{problems:?}");
    assert!(problems[99].contains("unknown key `k099`"), "{}", problems[99]);
    assert!(problems[100].ends_with("api.toml: and 150 more of these"), "{}", problems[100]);
    let problems = Case::file(&format!("{} = 1\n", "k".repeat(70_000))).problems();
    assert!(problems[0].len() < 300 && problems[0].contains("kkk…`, did you mean"), "{}", problems[0]);
}
