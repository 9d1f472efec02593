//! The keys of `[redis]`. Without `redis.url` there is nothing that the others could be for.

use std::path::Path;
use std::time::Duration;

use super::super::read::Reader;
use super::super::show::{self, Secrets, list};
use super::super::values::{self, Input, Parsed};
use super::super::{Config, Redis, RedisServer, Secret, defaults};
use super::{Key, instance};

/// More often is more work for the server than any change is worth.
const SHORTEST_REFRESH: Duration = Duration::from_millis(100);

/// The longest beginning of all keys, in bytes.
const LONGEST_PREFIX: usize = 256;

pub(super) const REDIS: &[Key] = &[
    Key::instance("redis.url", read_url, |config, secrets| {
        config.redis.as_ref().map(|redis| show_server(&redis.server, secrets))
    })
    .for_several(),
    // Shown as the password in it, which counts.
    Key::instance("redis.password_file", read_password_file, |_, _| None).for_several(),
    Key::instance(
        "redis.prefix",
        |key, r, config| set(key, r, config, prefix, |redis| &mut redis.prefix),
        |config, _| config.redis.as_ref().map(|redis| show::string(&redis.prefix)),
    )
    .for_several(),
    Key::instance(
        "redis.refresh",
        |key, r, config| {
            set(key, r, config, values::duration(SHORTEST_REFRESH), |redis| &mut redis.refresh);
        },
        |config, _| config.redis.as_ref().map(|redis| show::time(&redis.refresh)),
    )
    .for_several(),
    Key::instance("redis.allow", read_allow, |config, _| {
        config.redis.as_ref().map(|redis| list(show::net)(&redis.allow))
    })
    .for_several(),
    Key::instance(
        "redis.probe",
        |key, r, config| set(key, r, config, values::boolean, |redis| &mut redis.probe),
        |config, _| config.redis.as_ref().map(|redis| show::number(&redis.probe)),
    )
    .for_several(),
];

fn read_url(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let server = |input: Input<'_>| -> Parsed<RedisServer> {
        let text = input.text().ok_or("a URL, such as \"redis://127.0.0.1:6379/0\"")?;
        Ok(text.parse()?)
    };
    config.redis = r.read(key, server).map(|server| defaults::redis(server, &config.app));
}

/// The password in a file, where the URL has none.
fn read_password_file(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let Some(file) = r.read(key, values::path) else { return };
    let Some(redis) = redis_of(key, r, config) else { return };
    if redis.server.password.is_some() {
        r.reject(key, "nothing, because redis.url has a password");
        return;
    }
    redis.server.password = password_in(key, &file, r);
}

fn password_in(key: &'static str, file: &Path, r: &mut Reader<'_>) -> Option<Secret> {
    let text = instance::secret_in(key, file, "password", r)?;
    if text.is_empty() {
        r.reject(key, "a file that holds a password, and nothing else");
        return None;
    }
    Some(Secret::new(text))
}

fn read_allow(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let mut allow = Vec::new();
    r.set_list(key, values::net, &mut allow);
    if r.is_set(key)
        && let Some(redis) = redis_of(key, r, config)
    {
        redis.allow = allow;
    }
}

/// Puts the value of `key` into a field.
fn set<T>(
    key: &'static str,
    r: &mut Reader<'_>,
    config: &mut Config,
    parse: impl Fn(Input<'_>) -> Parsed<T>,
    field: impl Fn(&mut Redis) -> &mut T,
) {
    if let Some(value) = r.read(key, parse)
        && let Some(redis) = redis_of(key, r, config)
    {
        *field(redis) = value;
    }
}

/// What `key` is for. Where there is no URL at all that is a problem; a bad one is one already.
fn redis_of<'a>(key: &'static str, r: &mut Reader<'_>, config: &'a mut Config) -> Option<&'a mut Redis> {
    if config.redis.is_none() && !r.is_set("redis.url") {
        r.reject(key, "nothing, because redis.url is not set");
    }
    config.redis.as_mut()
}

fn prefix(input: Input<'_>) -> Parsed<String> {
    let fits = |text: &&str| text.len() <= LONGEST_PREFIX && !text.chars().any(char::is_control);
    let text = input.text().filter(fits);
    text.map(str::to_owned)
        .ok_or_else(|| format!("a string of at most {LONGEST_PREFIX} bytes without control characters"))
}

/// The URL. Only for comparing, the password follows it.
fn show_server(server: &RedisServer, secrets: Secrets) -> String {
    match &server.password {
        Some(password) if secrets == Secrets::Shown => {
            show::string(&format!("{server} {}", password.expose()))
        }
        _ => show::string(&server.to_string()),
    }
}
