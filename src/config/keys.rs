//! Every key of the configuration, once: its name in the file and its environment variable.
//!
//! The file's parser, the environment's, `--check` and the comparison of two configurations all work from
//! [`KEYS`]; a key that is not here does not exist.

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its dotted name in the TOML file.
    pub name: &'static str,
    /// The variable that sets it over the file, where it has one.
    pub variable: Option<&'static str>,
}

const fn both(name: &'static str, variable: &'static str) -> Key {
    Key { name, variable: Some(variable) }
}

const fn file_only(name: &'static str) -> Key {
    Key { name, variable: None }
}

/// All keys, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    both("name", "INSTANCE_NAME"),
    both("listen", "LISTEN_PORT"),
    both("state_file", "STATE_FILE"),
    both("app.target", "INITIAL_TARGET_PORT"),
    both("app.command", "APP_COMMAND"),
    file_only("app.directory"),
    file_only("app.env"),
    file_only("app.env_file"),
    file_only("app.user"),
    file_only("app.group"),
    file_only("app.open_files"),
    file_only("app.memory"),
    file_only("app.cpu"),
    file_only("app.tasks"),
    file_only("app.port_env"),
    file_only("app.start_timeout"),
    file_only("app.stop_signal"),
    file_only("app.stop_timeout"),
    file_only("app.owner_check"),
    file_only("app.deploy_on_change"),
    file_only("app.restart.backoff"),
    file_only("app.restart.max_backoff"),
    file_only("app.restart.burst"),
    file_only("app.restart.within"),
    file_only("app.restart.give_up"),
    both("health.path", "HEALTH_PATH"),
    file_only("health.host"),
    both("health.timeout", "HEALTH_TIMEOUT_MS"),
    file_only("health.successes"),
    both("drain.period", "DRAIN_MS"),
    file_only("drain.early"),
    both("drain.affinity", "DRAIN_AFFINITY"),
    both("rollback.window", "ROLLBACK_WINDOW_MS"),
    both("rollback.interval", "ROLLBACK_CHECK_EVERY_MS"),
    both("rollback.threshold", "ROLLBACK_FAIL_THRESHOLD"),
    file_only("rollback.standby"),
    both("admin.token", "ADMIN_TOKEN"),
    file_only("admin.token_file"),
    both("admin.socket", "ADMIN_UNIX_SOCKET"),
    file_only("admin.socket_group"),
    both("admin.allow", "ADMIN_ALLOWLIST"),
    file_only("admin.hosts"),
    file_only("admin.allow_forwarded"),
    file_only("admin.rate_limit"),
    file_only("admin.public"),
    file_only("admin.prefix"),
    file_only("admin.remote_deploy"),
    both("proxy.threads", "PORTOK_THREADS"),
    both("proxy.forwarded", "ENABLE_XFWD"),
    file_only("proxy.trusted"),
    file_only("proxy.upgrades"),
    both("proxy.idle_timeout", "SERVER_KEEPALIVE_TIMEOUT"),
    both("proxy.header_timeout", "SERVER_HEADERS_TIMEOUT"),
    file_only("proxy.max_header_size"),
    file_only("proxy.max_body"),
    both("proxy.fast_path", "FAST_PATH"),
    both("upstream.keepalive", "UPSTREAM_KEEPALIVE"),
    both("upstream.max_connections", "UPSTREAM_MAX_SOCKETS"),
    file_only("upstream.connect_timeout"),
    file_only("upstream.response_timeout"),
    file_only("upstream.read_timeout"),
    file_only("upstream.timeout"),
    file_only("upstream.timeout_status"),
    file_only("upstream.idle_timeout"),
    file_only("upstream.max_idle"),
    both("upstream.tcp_keepalive", "UPSTREAM_KEEPALIVE_MSECS"),
    both("upstream.debug", "DEBUG_UPSTREAM"),
    file_only("limits.connections"),
    file_only("limits.connections_per_address"),
    file_only("limits.requests_per_address"),
    file_only("limits.tunnels"),
    file_only("limits.headers"),
    file_only("limits.body_timeout"),
    file_only("limits.send_timeout"),
    file_only("limits.tunnel_idle"),
    file_only("limits.requests_per_connection"),
    file_only("hooks.on_event"),
    both("log.verbose_errors", "VERBOSE_ERRORS"),
];

/// Whether a variable of this name may hold something that no log, error or status shows.
pub fn looks_secret(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "TOKEN",
        "SECRET",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "KEY",
        "CREDENTIAL",
        "AUTH",
        "COOKIE",
        "DSN",
        "DATABASE_URL",
        "REDIS_URL",
        "CONNECTION_STRING",
        "WEBHOOK",
        "PRIVATE",
        "CERT",
    ];
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word))
        || ["PASS", "PW", "PWD"].iter().any(|word| name == *word || name.ends_with(&format!("_{word}")))
}

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

/// Whether the value of the key, table or entry of `app.env` called `name` is never shown, not even a bad one.
pub(super) fn is_secret(name: &str) -> bool {
    match name.strip_prefix("app.env.") {
        Some(variable) => looks_secret(variable),
        None => ["admin", "admin.token", "app.env"].contains(&name),
    }
}

/// The key called `name`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether `name` is a table with known keys in it.
pub(super) fn is_table(name: &str) -> bool {
    tables().any(|table| table == name)
}

/// The table that a key or table stands in, `""` for the top, and its own last word.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

fn tables() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    KEYS.iter().filter_map(move |key| {
        let table = split(key.name).0;
        let new = !table.is_empty() && table != last;
        last = table;
        new.then_some(table)
    })
}

/// What somebody who wrote the unknown key `name` most likely meant: a like word in the same table, else the same
/// word in another one, else the nearest of the table, or of all when there is no such table.
pub(super) fn nearest(name: &str) -> &'static str {
    let (table, word) = split(name);
    let known = || KEYS.iter().map(|key| key.name).chain(tables());
    let distance = |candidate: &str| {
        let known_word = split(candidate).1;
        let begins = word.len() >= 3 && (known_word.starts_with(word) || word.starts_with(known_word));
        let distance = strsim::damerau_levenshtein(word, known_word);
        if begins { distance.min(2) } else { distance }
    };
    let beside = known().filter(|candidate| split(candidate).0 == table).min_by_key(|key| distance(key));
    let like = |candidate: &&str| distance(candidate) <= 2;
    beside
        .filter(like)
        .or_else(|| known().find(|candidate| split(candidate).1 == word))
        .or(beside)
        .or_else(|| known().min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate)))
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_the_nearest_one() {
        for (wrote, meant) in [
            ("helth", "health"),
            ("Listen", "listen"),
            ("health.pth", "health.path"),
            ("health.timout", "health.timeout"),
            ("app.name", "name"),
            ("threads", "proxy.threads"),
            ("app.restart.bakoff", "app.restart.backoff"),
            ("drain.perod", "drain.period"),
            ("app.port", "app.port_env"),
            ("app.token_file", "admin.token_file"),
            ("log.verbose", "log.verbose_errors"),
            ("app.xyzzy", "app.env"),
            ("helth.path", "health.path"),
            ("admin.tokn", "admin.token"),
            ("upsteam", "upstream"),
            ("proxy.max_connections", "upstream.max_connections"),
        ] {
            assert_eq!(nearest(wrote), meant, "for {wrote}");
        }
    }

    #[test]
    fn keys_and_variables_are_unique_and_tables_stand_together() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
        let mut variables: Vec<_> = KEYS.iter().filter_map(|key| key.variable).collect();
        let count = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), count);
        let mut seen: Vec<_> = tables().collect();
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "a table's keys must follow one another in KEYS");
        assert!(is_table("app.restart") && is_table("app") && !is_table("app.env") && !is_table(""));
    }

    #[test]
    fn names_of_secrets_are_recognised() {
        for name in ["API_TOKEN", "DATABASE_URL", "SMTP_PASSWORD", "aws_secret_access_key", "DB_PASS"] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["NODE_ENV", "PORT", "LOG_LEVEL", "COMPASS"] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
