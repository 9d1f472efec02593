//! Checks of single typed values. Each returns the value, or a description of what was expected.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::Hosts;
use crate::wire::DeployStrategy;

/// The longest release id and the longest instance name, in characters.
const MAX_NAME: usize = 64;

/// The longest host, in characters.
const MAX_HOST: usize = 255;

/// An instance's name. It becomes part of a path.
pub(crate) fn instance_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    name(text, fits, "letters, digits, `_` and `-`")
}

/// The name of an instance whose service is meant, with all of its apps.
pub(crate) fn service(text: &str) -> Result<String, String> {
    if let (true, Ok(_)) = (text.contains('/'), instance_or_app(text)) {
        return Err(format!(
            "expected an instance: this is for its service, with all of its apps; of one app `portok deploy --force \
             --instance {text}` starts a fresh process, and `portok remove {text}` ends it"
        ));
    }
    instance_name(text)
}

/// An instance's name, with one of its apps behind a `/` where it has several.
pub(crate) fn instance_or_app(text: &str) -> Result<String, String> {
    let (instance, app) = text.split_once('/').map_or((text, None), |(instance, app)| (instance, Some(app)));
    let named = instance_name(instance).and_then(|_| app.map(app_name).transpose());
    named.map(|_| text.to_owned()).map_err(|expected| format!("{expected}; an app is named INSTANCE/APP"))
}

/// An app's name: as an instance's, or `redis:` and the host of a list in Redis.
pub(crate) fn app_name(text: &str) -> Result<String, String> {
    match text.strip_prefix("redis:") {
        Some(host) if is_host(host) => Ok(text.to_owned()),
        Some(_) => Err("expected a host behind `redis:`".into()),
        None => instance_name(text),
    }
}

/// The name of a companion: as an instance's.
pub(crate) fn process_name(text: &str) -> Result<String, String> {
    instance_name(text)
}

/// Whether `text` may be the host of a list in Redis. The daemon judges it in full.
fn is_host(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.*:[]".contains(c);
    (1..=MAX_HOST).contains(&text.len()) && text.chars().all(fits)
}

/// A release's id.
pub(crate) fn release_id(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name(text, fits, "letters, digits, `.`, `_` and `-`")
}

fn name(text: &str, fits: impl Fn(char) -> bool, expected: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(fits) {
        return Err(format!("expected 1 to {MAX_NAME} of {expected}"));
    }
    Ok(text.to_owned())
}

/// How a candidate takes over.
pub(crate) fn strategy(text: &str) -> Result<DeployStrategy, String> {
    DeployStrategy::named(text).map_err(|expected| format!("expected {expected}"))
}

/// A command for the shell.
pub(crate) fn shell_text(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("the command is empty".into()) } else { Ok(text.to_owned()) }
}

/// From how many to how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) min: u16,
    pub(crate) max: u16,
}

/// A number, or two with `..` between them. Which ones an app can have is the daemon's to say.
pub(crate) fn span(text: &str) -> Result<Span, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let numbers = number(min).zip(number(max)).map(|(min, max)| Span { min, max });
    numbers.ok_or_else(|| "expected a number such as 4, or two such as 2..8".to_owned())
}

/// A health path.
pub(crate) fn health_path(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a path that starts with `/`, such as `/health`".into())
    }
}

/// The hosts of a route.
pub(crate) fn host(text: &str) -> Result<String, String> {
    text.parse::<Hosts>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// The beginning of an app's paths.
pub(crate) fn prefix(text: &str) -> Result<String, String> {
    let fits = text.starts_with('/') && text.chars().all(|c| c.is_ascii_graphic() && !"?#".contains(c));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected a path that starts with `/`, such as `/docs`".into())
    }
}

/// Where an app runs: a port of 127.0.0.1, or an address with a port.
pub(crate) fn target(text: &str) -> Result<SocketAddr, String> {
    let local = || text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    text.parse::<SocketAddr>()
        .or_else(|_| local())
        .ok()
        .filter(|target| target.port() != 0)
        .ok_or_else(|| "expected a port, or an address with a port such as 192.168.0.42:80".to_owned())
}

/// A duration.
pub(crate) fn wait_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 30s or 10m".to_owned())
}

/// `NAME=VALUE`, split at the first `=`.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("expected NAME=VALUE".into());
    };
    if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("expected NAME=VALUE, NAME not empty and without a digit in front".into());
    }
    if let Some(bad) = key.chars().find(|c| !c.is_ascii_graphic() || "\"'`$\\".contains(*c)) {
        return Err(format!("{bad:?} cannot stand in a variable's name"));
    }
    if value.contains('\0') {
        return Err("a value cannot hold a NUL".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A user's name. It becomes part of a unit file.
pub(crate) fn user_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !begins || text.len() > 32 || !text.chars().all(fits) {
        return Err("expected a user's name".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_named_behind_its_instance() {
        for good in ["edge", "edge/api", "edge/redis:shop.example.com", "edge/redis:*.example.com"] {
            assert_eq!(instance_or_app(good).as_deref(), Ok(good));
        }
        for bad in ["", "/api", "edge/", "edge/a/b", "../x", "edge/redis:", "edge/redis:a b", "edge/a.b"] {
            instance_or_app(bad).unwrap_err();
        }
    }

    #[test]
    fn variables_keep_what_follows_the_first_equals_sign() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(variable("A="), Ok(("A".into(), String::new())));
    }
}
