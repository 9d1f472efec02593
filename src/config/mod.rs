//! The configuration: what it may say, where it comes from, and what a change of it needs.
//!
//! [`Config`] is the configuration as it is meant: every value present, parsed and in its range.
//! One app's part of it is [`AppConfig`]; `app` and `instance` have what these are made of. It is
//! immutable; a reload makes a new one. How it comes about:
//!
//! - `keys` declares every key once: its name, its variable, whose setting it is, how it is read
//!   and shown;
//! - `defaults` has the value of every field that no source sets;
//! - `raw` parses the TOML file and keeps the place of every value; `env` reads the environment
//!   variables (compatible with npm portok);
//! - `values` parses and `show` writes one value of a kind;
//! - `read` lays file and environment over one another and collects **all** problems;
//! - `secret` knows which values are never shown; `effective` shows all others;
//! - `validate` goes through the keys and checks what has to fit together;
//! - `several` knows whether an instance has several apps, `folder` reads those with a file of
//!   their own, `one_of_several` reads one, `clashes` knows whose addresses do not go together;
//! - [`load()`] is the one way through all of them;
//! - [`diff()`] says what a change of the configuration needs, `fingerprint` whether an edit of
//!   `[app]` makes another release;
//! - `files`, `paths` and `limits` know which files to trust, where files lie by default, and which
//!   limits this host can hold an app to;
//! - `companions` reads what runs beside an app;
//! - `hosts` reads the hosts that a route is for; `address` knows which addresses a listener takes;
//! - `access` has what `[access]` says, `log_levels` reads `log.level`, `pages` the pages of
//!   `errors.dir`;
//! - `hold` has what `[hold]` says, `replicas` what `app.replicas` says; `redis` has what `[redis]`
//!   says, and reads its URL;
//! - `tiers` has what `app.tiers` says, and reads the file of its keys; `further` knows which such
//!   files there are;
//! - `tls` has what `[tls]` says; `stop_signal` which signals stop an app;
//! - `health` knows which ways of asking for health go together;
//! - `tcp` knows what an app of connections needs, and what it has no use for;
//! - `recreate` knows what does not go together with `deploy.strategy = "recreate"`;
//! - [`read_env_file`] reads a file of variables in systemd's syntax;
//! - [`watch`] tells when the file may have changed.
//!
//! Only `load`, `folder`, `read_env_file`, `pages`, the readers of the files of tokens and keys and
//! `watch` do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::access::{Access, AccessFile, AccessFormat};
pub use self::address::{overlaps, takes};
pub use self::app::{
    Affinity, App, AppConfig, AppLimits, AppRoutes, Balance, Deploy, Drain, Health, Hooks, Mode, OwnerCheck,
    Protocol, Restart, Rollback, Standby, Sticky, Upstream,
};
pub(crate) use self::companions::{COMPANIONS_MOST, is_companion_name};
pub use self::companions::{Companion, CompanionStart, Companions};
pub use self::defaults::APPS_OF_REDIS;
#[cfg(test)]
pub(crate) use self::defaults::of_an_empty_file;
pub use self::diff::{AppsDiff, Diff, diff};
pub use self::env_file::read_env_file;
pub(crate) use self::files::{read_certificate, read_key};
pub use self::fingerprint::{AppChange, app_change, app_fingerprint};
pub use self::fnv::Fnv;
pub use self::folder::Remembered;
pub use self::further::FurtherFiles;
pub use self::hold::{Hold, HoldOn};
pub use self::hosts::{Host, Hosts, NoHosts};
pub use self::instance::{
    Admin, ClientLimits, Forwarded, ForwardedHeader, Log, Proxy, ProxyProtocol, RequestId,
};
pub(crate) use self::keys::LEAST_MEMORY;
pub use self::keys::{Key, keys, variable_of, variables};
pub use self::limits::{Limits, SYSTEMD_RUN};
pub use self::load::{file_of, instance_file, load};
pub use self::log_levels::{LogLevel, LogLevels};
pub use self::pages::{Errors, Pages};
pub use self::paths::{beside_state_file, default_socket, instance_of_app_file};
pub use self::recreate::cannot_recreate;
pub use self::redis::{Redis, RedisServer};
pub use self::replicas::Replicas;
pub use self::secret::looks_secret;
pub use self::several::{AppText, KeptApp, Started};
pub use self::spots::{Spot, SpotGroup};
pub use self::stop_signal::StopSignal;
pub use self::tiers::{Tier, TierBy, TierKeys, Tiers, network};
pub use self::tls::{Acme, AppTls, Challenge, ExternalAccount, Tls, TlsVersion};
pub use self::values::is_instance_name;
pub use self::withheld::is_withheld;
pub use crate::wire::{CommandLine, DeployStrategy};

mod access;
mod address;
mod app;
mod clashes;
mod companions;
mod defaults;
mod diff;
mod effective;
mod env;
mod env_file;
mod files;
mod fingerprint;
mod fnv;
mod folder;
mod further;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod hold;
mod hosts;
mod instance;
mod keys;
mod limits;
mod load;
mod log_levels;
mod one_of_several;
mod pages;
mod paths;
mod raw;
mod read;
mod recreate;
mod redis;
mod replicas;
mod secret;
mod seen_file;
mod several;
mod show;
mod spots;
mod stop_signal;
mod tcp;
mod tiers;
mod tls;
mod validate;
mod values;
pub mod watch;
mod withheld;

#[cfg(test)]
mod tests;

/// The configuration of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The instance's name: `[A-Za-z0-9_-]`, 1 to 64 characters.
    pub name: String,
    /// The file it was read from; `None` when the environment alone configures.
    pub file: Option<PathBuf>,
    /// Where requests are accepted: at least one address. Port 0: the kernel chooses.
    pub listen: Vec<SocketAddr>,
    /// The durable record.
    pub state_file: PathBuf,
    /// The folder of the default socket. The pipes of the apps lie there, wherever the socket is.
    /// To be made with mode 0700.
    pub run_dir: PathBuf,
    /// For the log: what is odd but no error (a fallback taken, an unusual value).
    pub warnings: Vec<String>,
    /// Its app. With several apps: what stands for every one of them, and serves requests that have
    /// none.
    pub app: Arc<AppConfig>,
    /// Its several apps. `None`: there is one.
    pub apps: Option<Several>,
    /// Where further apps are read from. `None`: nowhere.
    pub redis: Option<Redis>,
    /// Where and how connections are encrypted. `None`: nowhere.
    pub tls: Option<Tls>,
    /// Who may use the admin API.
    pub admin: Admin,
    /// The side towards clients.
    pub proxy: Proxy,
    /// What clients may use at most, over all apps.
    pub limits: ClientLimits,
    /// How many bytes the requests that are held may have together: their heads, and what was read
    /// of their bodies.
    pub hold_memory: u64,
    /// What is written of each request.
    pub access: Access,
    /// What is logged.
    pub log: Log,
}

/// The apps of an instance that has several: each in a table of the main file or in a file of its
/// own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Several {
    /// The apps by name.
    pub apps: BTreeMap<String, Arc<AppConfig>>,
    /// Apps whose file is not valid, by name, each with all that is wrong with it. Such an app
    /// stays as it is; one that is in `apps` too is what it is there.
    pub refused: BTreeMap<String, String>,
    /// What is said of each of `apps`.
    pub texts: BTreeMap<String, AppText>,
    /// Those of `apps` that nothing configures any more: they are as they were last, until it is
    /// decided what becomes of them.
    pub gone: BTreeSet<String>,
    /// The folder in which every file is an app. `None`: there is none, and there was none.
    pub folder: Option<PathBuf>,
    /// Why the folder cannot be read. Then nothing is known of the apps in it, and all stay.
    pub unreadable: Option<String>,
    /// How long an app's file has to be gone before the app is removed.
    pub removal_delay: Duration,
}

impl Config {
    /// The instance's own addresses: the plain ones, then those where connections are encrypted.
    pub fn own_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().chain(self.tls.iter().flat_map(|tls| &tls.listen)).copied()
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `value` from being printed.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one comparison it exists for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a configuration comes from, beside the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// `--instance NAME`.
    pub instance: Option<String>,
    /// The environment's variables, as they were when the process started.
    pub env: BTreeMap<String, String>,
    /// What the command line sets over everything else.
    pub overrides: Overrides,
    /// Whether it is read only to find the daemon, maybe by another user. Then what only the daemon
    /// needs may be missing, the files may belong to anybody (but not be writable for others), and
    /// a token file that cannot be read is left out.
    pub client: bool,
    /// What the daemon that reads it again started as; `None`: none runs with it. See
    /// [`Sources::hold_to`].
    pub started: Option<Started>,
    /// What was said of apps when that was last good, by the app's name. At the start of a daemon
    /// an app whose file is refused, or which nothing configures any more, is as it was, unless it
    /// was removed.
    pub kept: BTreeMap<String, KeptApp>,
    /// What was read of the files of apps before, so that a change of one among many is cheap.
    pub remembered: Remembered,
    /// Which further files were read for the configuration: what watches it follows them.
    pub further: FurtherFiles,
}

/// Values from the command line: they win over file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`: an address or a port.
    pub listen: Option<String>,
    /// `run --cmd`. Takes the place of `app.target` too.
    pub command: Option<CommandLine>,
    /// `run`: needs no token, no file and no root. Socket and state lie under the user's runtime
    /// folder or the temporary one, and the record of an earlier run is not continued.
    pub foreground: bool,
}

/// Every problem of a configuration. Each names place, key, value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// One sentence each, in the order of the file.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
