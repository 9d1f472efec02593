//! Which kinds of app can use which keys.
//!
//! An app of Redis has no kind: what it is stands in its list. Some keys hold for all of them.

use super::super::AppConfig;

/// Whether the key called `name`, which is a key of an app, can hold for all apps of Redis.
pub(in crate::config) fn holds_for_redis(name: &str) -> bool {
    matches!(name, "app.balance" | "app.sticky")
        || name.starts_with("health.")
        || name.starts_with("errors.")
        || name.starts_with("upstream.")
}

/// What an app of several is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    /// portok starts it.
    Command,
    /// It runs at these addresses, whoever starts it.
    Targets,
    /// Its clients are sent elsewhere.
    Redirect,
}

impl Kind {
    /// Every kind.
    pub(in crate::config) const ALL: [Self; 3] = [Self::Command, Self::Targets, Self::Redirect];

    /// What `app` is; exactly one, if it is one of several.
    pub(in crate::config) fn of(app: &AppConfig) -> Option<Self> {
        match app {
            AppConfig { redirect: Some(_), .. } => Some(Self::Redirect),
            AppConfig { targets: Some(_), .. } => Some(Self::Targets),
            _ => app.app.command.is_some().then_some(Self::Command),
        }
    }

    /// The key that makes an app one of this kind.
    pub(in crate::config) fn key(self) -> &'static str {
        match self {
            Self::Command => "app.command",
            Self::Targets => "app.targets",
            Self::Redirect => "app.redirect",
        }
    }

    /// Such an app, for a message.
    pub(in crate::config) fn called(self) -> &'static str {
        match self {
            Self::Command => "an app with a command",
            Self::Targets => "an app with targets",
            Self::Redirect => "a redirect",
        }
    }

    /// Whether such an app can use the key called `name`, which is a key of an app.
    pub(in crate::config) fn can_use(self, name: &str) -> bool {
        match name {
            "app.hosts" | "app.paths" | "app.listen" | "app.tls.cert" | "app.tls.key" => true,
            "app.mode" | "app.tls" => self != Self::Redirect,
            "app.command" | "app.targets" | "app.redirect" => self.key() == name,
            "app.strip_prefix" => self != Self::Redirect,
            "app.balance" | "app.sticky" | "app.tiers" => self != Self::Redirect,
            "upstream.eject_for" | "upstream.eject_on" => self == Self::Targets,
            "rollback.window" | "rollback.standby" => self == Self::Command,
            _ if name.starts_with("app.") || name.starts_with("deploy.") => self == Self::Command,
            _ => self != Self::Redirect,
        }
    }
}
