//! The whole configuration as `--check` shows it.

use std::fmt::Write as _;

use super::keys::{Key, Kind, keys, split};
use super::show::Secrets;
use super::{AppConfig, Config};

impl Config {
    /// The whole configuration as TOML that loads again: every key with its value, secrets as
    /// `***`. Keys without a value are comments. Of each of several apps it has what it is, its
    /// routes, and what differs from what stands for every app.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for key in keys().filter(|key| key.is_in(self)) {
            let (table, word) = split(key.name);
            if table != last {
                let _ = write!(text, "\n[{table}]\n");
                last = table;
            }
            let _ = match key.show(self, Secrets::Masked) {
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
        if let Some(several) = &self.apps {
            text.push_str("\n[apps]\n");
            for app in several.apps.values() {
                self.write_app(app, &mut text);
            }
        }
        text
    }

    fn has_redis_password(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| redis.server.password.is_some())
    }

    /// Writes the tables of one app of several.
    fn write_app(&self, app: &AppConfig, text: &mut String) {
        let mut last = None;
        for key in keys().filter(|key| self.is_of_its_own(key, app)) {
            let Some(value) = key.show_app(app, Secrets::Masked) else { continue };
            let (table, word) = split(key.name.strip_prefix("app.").unwrap_or(key.name));
            if last != Some(table) {
                let dot = if table.is_empty() { "" } else { "." };
                let _ = write!(text, "\n[apps.{}{dot}{table}]\n", app.name);
                last = Some(table);
            }
            let _ = writeln!(text, "{word} = {value}");
        }
    }

    /// Whether a key says something of one app of several that is not said elsewhere.
    fn is_of_its_own(&self, key: &Key, app: &AppConfig) -> bool {
        if !key.is_of_an_app() || !Kind::of(app).is_some_and(|kind| kind.can_use(key.name)) {
            return false;
        }
        match key.name {
            "app.hosts" => true,
            // Without hosts there is nothing that paths could be for.
            "app.paths" => !app.routes.hosts.is_empty(),
            "health.path" if app.health.path_is_set => true,
            _ => key.show_app(app, Secrets::Shown) != key.show_app(&self.app, Secrets::Shown),
        }
    }
}
