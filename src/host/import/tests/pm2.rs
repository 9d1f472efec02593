use super::*;

/// Two apps with most of what ecosystems say.
const SHOP: &str = r#"{
  "apps": [
    {
      "name": "HTTP API",
      "script": "./dist/server.js",
      "args": "--color 'two words' --n=\"3\"",
      "nodeArgs": ["--max-old-space-size=512"],
      "instances": "max",
      "exec_mode": "cluster",
      "max_memory_restart": "260M",
      "kill_timeout": 1600,
      "exp_backoff_restart_delay": 100,
      "max_restarts": 10,
      "watch": false,
      "out_file": "/var/log/api.log",
      "env": { "NODE_ENV": "production", "PORT": 3001, "RATIO": 0.5, "ON": true },
      "env_staging": { "NODE_ENV": "staging" }
    },
    {
      "name": "worker",
      "script": "worker.py",
      "cwd": "jobs",
      "user": "www-data",
      "cron": "0 3 * * *",
      "watch": ["jobs"]
    }
  ],
  "deploy": { "production": { "host": ["192.0.2.1"] } }
}"#;

#[test]
fn several_apps_answer_where_they_did() {
    let imported = imported(Format::Pm2, SHOP);
    assert_eq!(
        imported.toml,
        r#"# Written by `portok import pm2` from the file.
# Clients are answered at `listen`; an app gets another port in $PORT.
listen = "0.0.0.0:3000"

[apps.HTTP-API]
listen = ["0.0.0.0:3001"]
command = ["node", "--max-old-space-size=512", "./dist/server.js", "--color", "two words", "--n=\"3\""]
max_memory = "260MiB"
directory = "/srv/shop"
stop_signal = "SIGINT"
stop_timeout = "1600ms"
restart = { backoff = "100ms", max_backoff = "15s", burst = 10, give_up = true }

[apps.HTTP-API.env]
NODE_ENV = "production"
ON = "true"
RATIO = "0.5"

[apps.worker]
# The name that clients ask for. This one exists nowhere.
hosts = ["worker.invalid"]
command = ["python3", "worker.py"]
directory = "/srv/shop/jobs"
user = "www-data"
stop_signal = "SIGINT"

[apps.worker.env]
PYTHONUNBUFFERED = "1"
"#
    );
    assert_eq!(
        imported.notes,
        [
            "deploy: pm2 copies files to hosts by it; portok starts what lies on this host",
            "apps[0].env.PORT: clients are answered at 3001; the app gets another port in $PORT and has to listen there",
            "apps[0].instances: one process is started; set replicas to the number of them, at most 64",
            "apps[0].out_file: portok keeps what an app prints: portok logs, and the journal",
            "apps[0].env_staging: `pm2 start --env` chooses it; put what is wanted of it into env",
            "apps[1].watch: portok starts a new version when it is told to: portok deploy",
            "apps[1].cron_restart: restarts by the clock have no counterpart; a timer can run `portok deploy`",
            "stop_signal: pm2 stops apps with SIGINT, and so does this; portok's own default is SIGTERM",
            "apps[0]: health: an app gets requests once /health answers 2xx; where it has another path, set health.path",
            "apps[0]: the app \"HTTP API\" is called HTTP-API: a name is 1 to 64 letters, digits, `_` or `-`, and no two apps have the same",
            "apps[1]: no PORT is named: hosts = [\"NAME.invalid\"] stands in the file; put the app's real hosts there",
        ]
    );
    let several = loaded(&imported.toml).apps.unwrap();
    assert_eq!(several.apps["HTTP-API"].routes.listen, ["0.0.0.0:3001".parse().unwrap()]);
    assert_eq!(several.apps["worker"].app.user.as_deref(), Some("www-data"));
}

#[test]
fn one_app_is_an_instance() {
    let text =
        r#"[{"script": "npm", "args": ["run", "start"], "port": "8080", "env": {"PORT": 1, "A B": "x"}}]"#;
    let imported = imported(Format::Pm2, text);
    assert_eq!(
        imported.toml,
        r#"# Written by `portok import pm2` from the file.
# Clients are answered at `listen`; an app gets another port in $PORT.
# The name of this file is the app's, which pm2 calls "npm".
listen = "0.0.0.0:8080"

[app]
command = ["npm", "run", "start"]
directory = "/srv/shop"
stop_signal = "SIGINT"

[app.env]
"A B" = "x"
"#
    );
    let config = loaded(&imported.toml);
    assert_eq!(config.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(config.app.app.env["A B"], "x");
}

#[test]
fn the_command_is_what_pm2_would_execute() {
    for (app, command) in [
        (r#""script": "app.mjs""#, r#"["node", "app.mjs"]"#),
        (r#""script": "a/run.sh", "cwd": "/x""#, r#"["bash", "a/run.sh"]"#),
        (r#""exec": "./bin/server", "cwd": "/x/./y""#, r#"["/x/y/bin/server"]"#),
        (r#""script": "server", "interpreter": "none""#, r#"["server"]"#),
        (
            r#""script": "app.js", "exec_interpreter": "/opt/node/bin/node""#,
            r#"["/opt/node/bin/node", "app.js"]"#,
        ),
        (r#""script": "app.js", "interpreter": "node@18.2.0""#, r#"["node", "app.js"]"#),
        (
            r#""script": "app.js", "interpreterArgs": "-r esm", "args": [1, "x y"]"#,
            r#"["node", "-r", "esm", "app.js", "1", "x y"]"#,
        ),
        (r#""script": "node app.js | tee x", "args": "ignored""#, r#""node app.js | tee x""#),
    ] {
        let imported = imported(Format::Pm2, &format!("{{{app}}}"));
        let line = format!("command = {command}\n");
        assert!(imported.toml.contains(&line), "{line}{}", imported.toml);
        loaded(&imported.toml);
    }
}

#[test]
fn several_processes_are_replicas() {
    for (instances, replicas) in [
        ("1", Some(1)),
        ("2", Some(2)),
        ("\"4\"", Some(4)),
        ("64", Some(64)),
        ("65", None),
        ("0", None),
        ("-1", None),
        ("\"max\"", None),
        ("1.5", None),
    ] {
        let imported = imported(Format::Pm2, &format!(r#"{{"script": "a.js", "instances": {instances}}}"#));
        let told = notes(&imported, &["app.instances: one process is started; set replicas"]);
        assert_eq!(told, replicas.is_none(), "{instances}: {:?}", imported.notes);
        assert_eq!(loaded(&imported.toml).app.app.replicas, Replicas::fixed(replicas.unwrap_or(1)));
    }
}

#[test]
fn the_size_at_which_a_process_is_replaced_is_carried_over() {
    for (size, bytes) in [
        ("\"260M\"", Some(260 << 20)),
        ("\"2G\"", Some(2 << 30)),
        ("\"1500K\"", Some(1500 << 10)),
        ("314572801", Some(314_572_801)),
        ("\"314572800\"", Some(300 << 20)),
        ("\"1K\"", None),
        ("\"lots\"", None),
        ("\"99999999999999999G\"", None),
        ("\"é\"", None),
        ("-5", None),
        ("true", None),
    ] {
        let imported =
            imported(Format::Pm2, &format!(r#"{{"script": "a.js", "max_memory_restart": {size}}}"#));
        let told = notes(&imported, &["app.max_memory_restart: ", "; left out"]);
        assert_eq!(told, bytes.is_none(), "{size}: {:?}", imported.notes);
        assert_eq!(loaded(&imported.toml).app.app.max_memory, bytes, "{size}");
    }
    let imported = imported(Format::Pm2, r#"{"script": "a.js", "max_memory_restart": ""}"#);
    assert!(!notes(&imported, &["max_memory_restart"]), "{:?}", imported.notes);
}

#[test]
fn names_are_made_valid_and_each_is_given_once() {
    let long = "x".repeat(70);
    let text = format!(
        r#"[{{"script": "a.js", "name": "a"}}, {{"script": "a.js"}}, {{"script": "b.js", "name": "a"}},
            {{"script": "c.js", "name": "é/☃"}}, {{"script": "d.js", "name": "{long}"}}, {{"script": "d.js", "name": "{long}"}}]"#
    );
    let imported = imported(Format::Pm2, &text);
    let names: Vec<_> =
        imported.toml.lines().filter_map(|line| line.strip_prefix("[apps.")?.strip_suffix(']')).collect();
    let x = &long[..64];
    let second = format!("{}-2", &long[..62]);
    assert_eq!(names, ["a", "a-2", "a-3", "app", x, &second]);
    assert!(notes(&imported, &["[1]: the app \"a\" is called a-2"]), "{:#?}", imported.notes);
    assert_eq!(loaded(&imported.toml).apps.unwrap().apps.len(), 6);
}

#[test]
fn two_apps_at_one_port_are_not_both_answered_there() {
    let app = |name| format!(r#"{{"name": "{name}", "script": "x.js", "env": {{"PORT": "3000"}}}}"#);
    let imported = imported(Format::Pm2, &format!("[{}, {}]", app("a"), app("b")));
    let listens: Vec<_> = imported.toml.lines().filter(|line| line.starts_with("listen")).collect();
    assert_eq!(listens, ["listen = \"0.0.0.0:3001\"", "listen = [\"0.0.0.0:3000\"]"]);
    assert!(notes(&imported, &["[1]: another app has port 3000 already"]), "{:#?}", imported.notes);
    loaded(&imported.toml);
}

#[test]
fn strange_ecosystems_are_refused_with_all_that_is_wrong() {
    let text = r#"{"apps": [
        {"name": 7, "script": "a.js", "args": {}, "kill_timeout": "soon", "uid": "a:b", "env": {"A=B": "", "B": "\u0000"}},
        {"name": "no script"},
        "text"
    ]}"#;
    assert_eq!(
        refused(Format::Pm2, text),
        [
            "apps[0].name = 7: expected a string",
            "apps[0].env.A=B: expected a variable without `=` in its name, and without NUL",
            "apps[0].env.B: expected a variable without `=` in its name, and without NUL",
            "apps[0].args = {}: expected a string, or an array of strings, without NUL",
            "apps[0].uid = \"a:b\": expected the name or number of a user or group",
            "apps[0].kill_timeout = \"soon\": expected a whole number from 0 to 604800000",
            "apps[1].script: expected what to start, such as \"app.js\"",
            "apps[2] = \"text\": expected an app: an object with a script",
        ]
    );
    for text in ["{\"apps\": []}", "{\"apps\": null}", "{\"apps\": {}}", "{\"deploy\": {}}"] {
        refused(Format::Pm2, text);
    }
}

#[test]
fn keys_that_pm2_does_not_know_are_told_and_those_that_ask_for_nothing_are_not() {
    let imported = imported(
        Format::Pm2,
        r#"{"script": "a.js", "frob": 1, "watch": false, "cron_restart": "", "merge_logs": true, "instances": 1,
            "autorestart": true, "treekill": false, "wait_ready": null, "vizion": false, "port": "/run/x.sock"}"#,
    );
    let told: Vec<_> = imported.notes.iter().filter(|note| note.starts_with("app.")).collect();
    assert_eq!(
        told,
        [
            "app.port: \"/run/x.sock\" is no port; left out",
            "app.treekill: an app is stopped with all that it has started",
            "app.merge_logs: portok keeps what an app prints: portok logs, and the journal",
            "app.frob: pm2 has no such key; left out",
        ]
    );
}
