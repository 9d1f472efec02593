//! The keys of the configuration, each declared once.
//!
//! A [`Key`] is a row: the key's name in the file, its environment variable, how its value is read
//! and shown, what a change of it needs, and whether it is part of what makes a release. The rows
//! stand in [`app`], [`routes`] and [`instance`], by whose setting they are, and in [`deploy`],
//! [`limits`], [`hold`], [`access`] and [`tls`], with a list for each table of the file. A new key
//! is a row there, a field in its struct, and a default in [`super::defaults`]. [`kinds`] knows
//! which kinds of app can use which keys.

use std::sync::{Arc, LazyLock};

use super::read::Reader;
use super::show::Secrets;
use super::{App, AppConfig, Config};

/// Declares a key whose value is one field: a parser reads it, a function shows it. A parser in
/// brackets reads each item of a list.
macro_rules! row {
    ($scope:ident, $name:literal, [$parse:expr], $show:expr, $($field:ident).+) => {
        Key::$scope(
            $name,
            |key, reader, config| reader.set_list(key, $parse, &mut config.$($field).+),
            |config, _| Into::into($show(&config.$($field).+)),
        )
    };
    ($scope:ident, $name:literal, $parse:expr, $show:expr, $($field:ident).+) => {
        Key::$scope(
            $name,
            |key, reader, config| reader.set(key, $parse, &mut config.$($field).+),
            |config, _| Into::into($show(&config.$($field).+)),
        )
    };
}

mod access;
mod app;
mod deploy;
mod hold;
mod instance;
mod kinds;
mod limits;
mod names;
mod redis;
mod replicas;
mod routes;
mod tls;

pub(crate) use self::app::LEAST_MEMORY;
pub(super) use self::kinds::{Kind, holds_for_redis};
pub use self::names::variable_of;
pub(super) use self::names::{WORDS, is_in, split};
pub(super) use self::replicas::fit as replicas_fit;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// Its dotted name in the TOML file.
    pub name: &'static str,
    /// The variable that sets it over the file, where it has one.
    pub variable: Option<&'static str>,
    /// What a changed value needs in a running daemon.
    pub(super) on_change: OnChange,
    /// Whose it is, and how it is read and shown.
    scope: Scope,
    /// Whether only an instance of several apps has it.
    is_for_several: bool,
    /// Its part in what makes a release.
    release: Option<fn(&App) -> Records>,
}

/// Whose setting a key is.
#[derive(Debug)]
enum Scope {
    /// The whole instance's.
    Instance(Access<Config>),
    /// One app's.
    App(Access<AppConfig>),
}

/// How a key is read into a configuration, and shown from it.
#[derive(Debug)]
struct Access<T> {
    /// Reads the key. Where no source sets it, the default stays.
    read: fn(&'static str, &mut Reader<'_>, &mut T),
    /// The value as TOML; `None` where there is none.
    show: fn(&T, Secrets) -> Option<String>,
}

/// What a changed value needs in a running daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnChange {
    /// Nothing but the new value.
    Apply,
    /// Another listener.
    Rebind,
    /// Another admin socket, or other rights for it.
    ReopenSocket,
    /// A restart, for this reason.
    Refuse(&'static str),
}

/// What a key adds to the fingerprint of a release: each record's name and value. Empty where the
/// value is the default.
pub(super) type Records = Vec<(&'static str, String)>;

impl Key {
    /// A key of the instance.
    const fn instance(
        name: &'static str,
        read: fn(&'static str, &mut Reader<'_>, &mut Config),
        show: fn(&Config, Secrets) -> Option<String>,
    ) -> Self {
        Self::new(name, Scope::Instance(Access { read, show }))
    }

    /// A key of one app.
    const fn app(
        name: &'static str,
        read: fn(&'static str, &mut Reader<'_>, &mut AppConfig),
        show: fn(&AppConfig, Secrets) -> Option<String>,
    ) -> Self {
        Self::new(name, Scope::App(Access { read, show }))
    }

    const fn new(name: &'static str, scope: Scope) -> Self {
        Self { name, variable: None, on_change: OnChange::Apply, scope, is_for_several: false, release: None }
    }

    /// Also set by `variable`.
    const fn variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    /// A change needs more than the new value.
    const fn on_change(self, on_change: OnChange) -> Self {
        Self { on_change, ..self }
    }

    /// Only an instance of several apps has it.
    const fn for_several(self) -> Self {
        Self { is_for_several: true, ..self }
    }

    /// Part of what makes a release.
    const fn makes_release(self, records: fn(&App) -> Records) -> Self {
        Self { release: Some(records), ..self }
    }

    /// Whether it is a setting of an app, and not of the instance.
    pub(super) fn is_of_an_app(&self) -> bool {
        matches!(self.scope, Scope::App(_))
    }

    /// Whether only an instance of several apps has it.
    pub(super) fn is_for_several(&self) -> bool {
        self.is_for_several
    }

    /// Whether it has a value in `config`, beside what its several apps have.
    pub(super) fn is_in(&self, config: &Config) -> bool {
        if config.apps.is_some() { !self.name.starts_with("app.") } else { !self.is_for_several }
    }

    /// Reads a key of an app into `config`, which is one of several.
    pub(super) fn read_app(&self, reader: &mut Reader<'_>, config: &mut AppConfig) {
        if let Scope::App(access) = &self.scope {
            (access.read)(self.name, reader, config);
        }
    }

    /// The value that a key of an app has in `config` as TOML; `None` where it has none.
    pub(super) fn show_app(&self, config: &AppConfig, secrets: Secrets) -> Option<String> {
        match &self.scope {
            Scope::App(access) => (access.show)(config, secrets),
            Scope::Instance(_) => None,
        }
    }

    /// Reads the key into `config`.
    pub(super) fn read(&self, reader: &mut Reader<'_>, config: &mut Config) {
        match &self.scope {
            Scope::Instance(access) => (access.read)(self.name, reader, config),
            Scope::App(access) => (access.read)(self.name, reader, Arc::make_mut(&mut config.app)),
        }
    }

    /// Its value in `config` as TOML; `None` where it has none.
    pub(super) fn show(&self, config: &Config, secrets: Secrets) -> Option<String> {
        match &self.scope {
            Scope::Instance(access) => (access.show)(config, secrets),
            Scope::App(access) => (access.show)(&config.app, secrets),
        }
    }

    /// What it adds to the fingerprint of a release of `app`; `None` where a change of it makes no
    /// other release.
    pub(super) fn release_records(&self, app: &App) -> Option<Records> {
        self.release.map(|records| records(app))
    }
}

/// The tables of the file with their keys, in the order in which they are shown.
const TABLES: &[&[Key]] = &[
    instance::TOP,
    routes::APP,
    app::APP,
    tls::APP,
    app::HEALTH,
    app::DRAIN,
    app::ROLLBACK,
    deploy::DEPLOY,
    instance::ADMIN,
    instance::PROXY,
    tls::TLS,
    app::UPSTREAM,
    limits::LIMITS,
    hold::HOLD,
    app::HOOKS,
    access::ERRORS,
    redis::REDIS,
    access::ACCESS,
    access::LOG,
];

/// All keys, in the order in which they are shown.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    TABLES.iter().copied().flatten()
}

/// All keys, in the order in which they are read and bad variables are reported. A key may depend
/// on those before it.
pub(super) fn in_reading_order() -> Vec<&'static Key> {
    // Keys and tables out of turn, then the others in the order in which they are shown.
    const ORDER: [&str; 16] = [
        "name",
        "state_file",
        "upstream.tcp_keepalive",
        "upstream",
        "listen",
        "app.port_env",
        "app.listen",
        "app.",
        "health",
        "drain",
        "rollback",
        "admin.socket",
        "admin",
        "proxy.forwarded",
        "proxy",
        "limits",
    ];
    let turn = |key: &&Key| ORDER.iter().position(|begin| key.name.starts_with(begin)).unwrap_or(ORDER.len());
    let mut all: Vec<_> = keys().collect();
    all.sort_by_key(turn);
    all
}

/// The keys of apps, in the order in which they are read.
pub(super) fn of_apps() -> impl Iterator<Item = &'static Key> {
    static KEYS: LazyLock<Vec<&Key>> =
        LazyLock::new(|| in_reading_order().into_iter().filter(|key| key.is_of_an_app()).collect());
    KEYS.iter().copied()
}

/// The variables that configure portok: what an app does not inherit from the daemon.
pub fn variables() -> impl Iterator<Item = &'static str> {
    keys().filter_map(|key| key.variable)
}

#[cfg(test)]
mod tests {
    use super::names::{is_table, tables};
    use super::*;

    #[test]
    fn keys_and_variables_are_unique_and_tables_stand_together() {
        let mut names: Vec<_> = keys().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), keys().count());
        let mut variables: Vec<_> = keys().filter_map(|key| key.variable).collect();
        let count = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), count);
        let mut seen: Vec<_> = tables().collect();
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count, "a table's keys must follow one another");
        assert!(is_table("app.restart") && is_table("app") && !is_table("app.env") && !is_table(""));
    }
}
