//! The whole configuration as `--check` shows it.

use std::fmt::Write as _;

use super::keys::{Key, Kind, holds_for_redis, keys, split};
use super::show::Secrets;
use super::tcp::has_no_use_for;
use super::{AppConfig, Config};

impl Config {
    /// The whole configuration as TOML that loads again: every key with its value, secrets as
    /// `***`. Keys without a value are comments. Of each of several apps it has what it is, its
    /// routes, and what differs from what stands for every app; of those of Redis what differs.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for key in keys().filter(|key| key.is_in(self)) {
            let (table, word) = split(key.name);
            if table != last {
                let _ = write!(text, "\n[{table}]\n");
                last = table;
            }
            let shown = key.show(self, Secrets::Masked);
            let _ = match shown.filter(|_| self.apps.is_some() || !has_no_use_for(&self.app, key.name)) {
                Some(value) => writeln!(text, "{word} = {value}"),
                None if key.name == "admin.token_file" && self.admin.token.is_some() => {
                    writeln!(text, "# {word}: what is in it shows as token")
                }
                None if key.name == "redis.password_file" && self.has_redis_password() => {
                    writeln!(text, "# {word}: what is in it shows in url")
                }
                None => writeln!(text, "# {word} is not set"),
            };
        }
        if let Some(redis) = &self.redis {
            write_app("redis.app", &redis.app, |key| self.is_of_redis(key, &redis.app), &mut text);
        }
        if let Some(several) = &self.apps {
            text.push_str("\n[apps]\n");
            for app in several.apps.values() {
                let table = format!("apps.{}", app.name);
                write_app(&table, app, |key| self.is_of_its_own(key, app), &mut text);
            }
        }
        text
    }

    fn has_redis_password(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.server.password.is_some())
    }

    /// Whether a key says something of one app of several that is not said elsewhere.
    fn is_of_its_own(&self, key: &Key, app: &AppConfig) -> bool {
        if has_no_use_for(app, key.name) {
            return false;
        }
        if !key.is_of_an_app() || !Kind::of(app).is_some_and(|kind| kind.can_use(key.name)) {
            return false;
        }
        match key.name {
            "app.hosts" => true,
            // Without hosts there is nothing that paths could be for.
            "app.paths" => !app.routes.hosts.is_empty(),
            _ => self.differs(key, app),
        }
    }

    /// Whether a key says something of all apps of Redis that is not said elsewhere.
    fn is_of_redis(&self, key: &Key, app: &AppConfig) -> bool {
        match key.name {
            "app.balance" => true,
            _ => key.is_of_an_app() && holds_for_redis(key.name) && self.differs(key, app),
        }
    }

    /// Whether an app has another value of this key than what stands for every app.
    fn differs(&self, key: &Key, app: &AppConfig) -> bool {
        app.health.is_set && key.name == app.health.key()
            || key.show_app(app, Secrets::Shown) != key.show_app(&self.app, Secrets::Shown)
    }
}

/// Writes the keys of one app that are its own, in tables below `table`.
fn write_app(table: &str, app: &AppConfig, is_its_own: impl Fn(&Key) -> bool, text: &mut String) {
    let mut last = None;
    for key in keys().filter(|key| is_its_own(key)) {
        let Some(value) = key.show_app(app, Secrets::Masked) else { continue };
        let (below, word) = split(key.name.strip_prefix("app.").unwrap_or(key.name));
        if last != Some(below) {
            let dot = if below.is_empty() { "" } else { "." };
            let _ = write!(text, "\n[{table}{dot}{below}]\n");
            last = Some(below);
        }
        let _ = writeln!(text, "{word} = {value}");
    }
}
