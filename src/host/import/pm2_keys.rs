//! The keys of an app of pm2's: all their names, and those that are not carried over.

use super::fields::Fields;
use super::findings::Findings;

/// Other names of keys. Beside these, each key may be written in camel case.
const ALIASES: [(&str, &str); 18] = [
    ("exec", "script"),
    ("cmd", "script"),
    ("command", "script"),
    ("interpreter", "exec_interpreter"),
    ("interpreter_args", "node_args"),
    ("out", "out_file"),
    ("output", "out_file"),
    ("out_log", "out_file"),
    ("error", "error_file"),
    ("err", "error_file"),
    ("err_file", "error_file"),
    ("err_log", "error_file"),
    ("log", "log_file"),
    ("pid", "pid_file"),
    ("cron", "cron_restart"),
    ("combine_logs", "merge_logs"),
    ("user", "uid"),
    ("executor", "exec_interpreter"),
];

/// The keys that are carried over, or looked at.
const KEPT: [&str; 20] = [
    "script",
    "name",
    "cwd",
    "args",
    "exec_interpreter",
    "node_args",
    "env",
    "port",
    "uid",
    "gid",
    "kill_timeout",
    "restart_delay",
    "exp_backoff_restart_delay",
    "max_restarts",
    "instances",
    "exec_mode",
    "max_memory_restart",
    "autorestart",
    "autostart",
    "treekill",
];

/// The keys that have no counterpart, and what there is instead.
const LOST: [(&[&str], &str); 11] = [
    (
        &["watch", "ignore_watch", "watch_options", "watch_delay"],
        "portok starts a new version when it is told to: portok deploy",
    ),
    (&["cron_restart"], "restarts by the clock have no counterpart; a timer can run `portok deploy`"),
    (
        &[
            "out_file",
            "error_file",
            "log_file",
            "log_type",
            "log_date_format",
            "merge_logs",
            "disable_logs",
            "time",
        ],
        "portok keeps what an app prints: portok logs, and the journal",
    ),
    (&["wait_ready"], "an app is ready once it answers its health path"),
    (&["listen_timeout"], "an app has app.start_timeout to become healthy, else the deploy is given up"),
    (&["shutdown_with_message"], "an app is stopped with app.stop_signal"),
    (&["stop_exit_codes"], "an app that exits is started again, whatever its exit code"),
    (&["min_uptime"], "crashes are counted within restart.within"),
    (&["increment_var", "instance_var"], "each replica has its number in PORTOK_REPLICA, from 0 on"),
    (&["filter_env"], "an app gets portokd's environment without portok's own variables"),
    (
        &[
            "namespace",
            "name_prefix",
            "append_env_to_name",
            "install_url",
            "post_update",
            "pid_file",
            "force",
            "trace",
            "v8",
            "event_loop_inspector",
            "deep_monitoring",
            "io",
            "execute_command",
            "write",
        ],
        "concerns pm2 itself",
    ),
];

/// The keys that mean nothing to portok whatever they say.
const SILENT: [&str; 10] = [
    "source_map_support",
    "disable_source_map_support",
    "vizion",
    "disable_trace",
    "pmx",
    "automation",
    "username",
    "windowsHide",
    "windows_hide",
    "kill_retry_time",
];

/// The one name of a key, if it has another one.
pub(super) fn canonical(key: &str) -> Option<&'static str> {
    let snake = key.chars().fold(String::new(), |mut snake, c| {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
        snake
    });
    let alias = ALIASES.iter().find(|(alias, _)| *alias == snake).map(|(_, name)| *name);
    let known = KEPT.into_iter().chain(LOST.iter().flat_map(|(keys, _)| keys.iter().copied()));
    alias.or_else(|| known.into_iter().find(|known| *known == snake)).filter(|name| *name != key)
}

/// Says of the keys that nobody has taken what becomes of them.
pub(super) fn rest(mut fields: Fields<'_>, findings: &mut Findings) {
    for (keys, why) in &LOST {
        fields.lost(keys, why, findings);
    }
    for key in SILENT {
        fields.skip(key);
    }
    for key in fields.keys(|key| key.starts_with("env_")) {
        fields.skip(key);
        let what = "`pm2 start --env` chooses it; put what is wanted of it into env";
        findings.note(fields.at(key.escape_debug()), what);
    }
    fields.unknown("pm2", findings);
}
