//! Where hipache finds Redis: `driver` since 0.3, `redisHost` and its siblings before, a table
//! `redis` in Concussion's.

use serde_json::Value;

use super::fields::{Fields, one_or_many};
use super::findings::Findings;
use super::toml::Toml;
use crate::config::RedisServer;

/// The server that the lists are read from.
#[derive(Debug, Default)]
pub(super) struct Redis {
    host: Option<String>,
    port: Option<u16>,
    database: Option<u64>,
    prefix: String,
    has_password: bool,
}

impl Redis {
    /// The URL without the password.
    fn url(&self) -> String {
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        // In a URL, an IPv6 address stands in brackets.
        let (open, close) = if host.contains(':') && !host.starts_with('[') { ("[", "]") } else { ("", "") };
        let (port, database) = (self.port.unwrap_or(6379), self.database.unwrap_or(0));
        format!("redis://{open}{host}{close}:{port}/{database}")
    }
}

/// Takes what is said of Redis. `None`: the hosts are kept elsewhere.
pub(super) fn read(root: &mut Fields<'_>, findings: &mut Findings) -> Option<Redis> {
    let driver = root.take("driver");
    let old = read_old(root, findings);
    let (place, redis) = match driver {
        Some(driver) => ("driver", from_drivers(driver, findings)?),
        None => ("redis", old),
    };
    if let Err(expected) = redis.url().parse::<RedisServer>() {
        // Not quoted: what was taken for a host may be a password.
        findings.problem(place, format_args!("expected {expected}"));
    }
    Some(redis)
}

/// Writes the table.
pub(super) fn write(redis: &Redis, toml: &mut Toml, findings: &mut Findings) {
    toml.table(&["redis"]);
    toml.set("url", redis.url());
    if !redis.prefix.is_empty() {
        toml.set("prefix", redis.prefix.as_str());
    }
    if redis.has_password {
        toml.comment("A file that holds the password, and that only portokd may read.");
        toml.comment("password_file = \"/etc/portok/redis.password\"");
        findings.note(
            "redis",
            "the password is left out: put it into a file and name that in redis.password_file",
        );
    }
    findings.note(
        "redis",
        "targets have to be private addresses (redis.allow); loopback and public ones only when named there",
    );
}

/// The keys of hipache 0.2, and Concussion's table.
fn read_old(root: &mut Fields<'_>, findings: &mut Findings) -> Redis {
    let mut redis = Redis::default();
    if let Some(mut table) = root.object("redis", findings) {
        redis.host = table.text("host", findings).filter(|host| !host.is_empty()).map(str::to_owned);
        redis.port = port(table.number("port", 1..=65_535, findings));
        redis.database = table.number("database", 0..=65_535, findings);
        redis.has_password = table.take("password").is_some_and(is_secret);
        table.unknown("hipache", findings);
    }
    if let Some(host) = root.text("redisHost", findings).filter(|host| !host.is_empty()) {
        redis.host = Some(host.to_owned());
    }
    redis.port = port(root.number("redisPort", 1..=65_535, findings)).or(redis.port);
    redis.database = root.number("redisDatabase", 0..=65_535, findings).or(redis.database);
    redis.has_password |= root.take("redisPassword").is_some_and(is_secret);
    let masters = ["redisMasterHost", "redisMasterPort", "redisMasterDatabase", "redisMasterPassword"];
    root.lost(&masters, MASTER, findings);
    redis
}

/// Whether a password is set. Whatever its value is, no message quotes it.
fn is_secret(value: &Value) -> bool {
    value.as_str() != Some("")
}

const MASTER: &str = "marks of dead targets are written to the server that the lists are read from";

fn port(number: Option<u64>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok())
}

fn from_drivers(driver: &Value, findings: &mut Findings) -> Option<Redis> {
    let mut drivers = one_or_many(driver).iter();
    let first = drivers.next()?;
    let Some(text) = first.as_str() else {
        findings.wrong("driver", first, DRIVER);
        return None;
    };
    let Some(rest) = text.strip_prefix("redis:") else {
        let others = ["etcd:", "etcds:", "memcached:", "zookeeper:"];
        match others.iter().find(|scheme| text.starts_with(**scheme)) {
            Some(scheme) => {
                findings
                    .note("driver", format_args!("hosts in {scheme} have no counterpart; none is routed"));
            }
            // Not quoted: it may hold a password.
            None => findings.problem("driver", format_args!("expected {DRIVER}")),
        }
        return None;
    };
    if drivers.next().is_some() {
        findings.note("driver", MASTER);
    }
    let redis = from_url(rest);
    if redis.is_none() {
        findings.problem("driver", format_args!("expected {DRIVER}"));
    }
    redis
}

const DRIVER: &str = "a URL such as \"redis://:password@host:port/database#prefix\"";

/// What follows `redis:`.
fn from_url(rest: &str) -> Option<Redis> {
    let mut redis = Redis::default();
    let (rest, prefix) = rest.split_once('#').unwrap_or((rest, ""));
    redis.prefix = prefix.to_owned();
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (rest, database) = rest.split_once('/').unwrap_or((rest, ""));
    redis.database = if database.is_empty() { None } else { Some(database.parse().ok()?) };
    let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
    redis.has_password = user.is_some_and(|user| !user.rsplit(':').next().unwrap_or_default().is_empty());
    // The colon of an IPv6 address stands within brackets.
    let (host, port) = match address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port),
        None => (address, ""),
    };
    redis.port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    redis.host = Some(host.to_owned()).filter(|host| !host.is_empty());
    Some(redis)
}
