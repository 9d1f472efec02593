//! `[redis]`: where routes are read from beside the files. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{AppConfig, Secret};

/// The port of a Redis whose URL names none.
const PORT: u16 = 6379;

/// The most databases that a server can have, and far more than any has.
const DATABASES: u32 = 1_000_000;

/// `[redis]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// `redis.url`, and the password of `redis.password_file` where that is set.
    pub server: RedisServer,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// How long a change may go unnoticed.
    pub refresh: Duration,
    /// The ranges that the address of a target has to lie in.
    pub allow: Vec<IpNet>,
    /// Whether the targets are probed.
    pub probe: bool,
    /// What holds for all apps that come from it: `[redis.app]`, over what stands for every app.
    pub app: Arc<AppConfig>,
}

/// A server and what it is asked as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServer {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The number of the database.
    pub database: u32,
    /// The user; `None`: the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

impl FromStr for RedisServer {
    type Err = &'static str;

    /// Reads `redis://[[user]:password@]host[:port][/database]`.
    ///
    /// # Errors
    /// What was expected. Nothing of the text, which may hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a URL, such as \"redis://127.0.0.1:6379/0\"";
        let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
        match scheme {
            "redis" => {}
            "rediss" => return Err("a URL that begins with redis://, because portok speaks no TLS to Redis"),
            _ => return Err("a URL that begins with redis://"),
        }
        if rest.contains(['?', '#']) {
            return Err("a URL without a query and a fragment (the beginning of all keys is redis.prefix)");
        }
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = address_of(address).ok_or(EXPECTED)?;
        let port = if port.is_empty() { Some(PORT) } else { number(port) };
        let port = port.filter(|port| *port != 0).ok_or("a URL with a port from 1 to 65535")?;
        let database = if database.is_empty() { Some(0) } else { number(database) };
        let database = database
            .filter(|database| *database < DATABASES)
            .ok_or("a URL whose path is the number of a database, such as /0")?;
        let (user, password) = login.map_or(Ok((None, None)), login_of)?;
        Ok(Self { host: host.to_owned(), port, database, user, password })
    }
}

impl fmt::Display for RedisServer {
    /// The URL, with `***` in the password's place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redis://")?;
        if self.user.is_some() || self.password.is_some() {
            f.write_str(self.user.as_deref().unwrap_or_default())?;
            f.write_str(if self.password.is_some() { ":***@" } else { "@" })?;
        }
        let Self { host, port, database, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}/{database}")
        } else {
            write!(f, "{host}:{port}/{database}")
        }
    }
}

/// Host and port of an address; the port may be missing.
fn address_of(address: &str) -> Option<(&str, &str)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => address.split_at(address.find(':').unwrap_or(address.len())),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_', ':'].contains(&c);
    let port = if port.is_empty() { port } else { port.strip_prefix(':').filter(|port| !port.is_empty())? };
    (!host.is_empty() && host.chars().all(is_host)).then_some((host, port))
}

/// A number without a sign.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// User and password of a login, in which `%` introduces a byte.
fn login_of(login: &str) -> Result<(Option<String>, Option<Secret>), &'static str> {
    let (user, password) = login.split_once(':').map_or((login, None), |(user, rest)| (user, Some(rest)));
    let decoded = |text| decoded(text).ok_or("a URL in whose login % introduces two hexadecimal digits");
    let user = if user.is_empty() { None } else { Some(decoded(user)?) };
    let password = password.filter(|password| !password.is_empty()).map(decoded).transpose()?;
    Ok((user, password.map(Secret::new)))
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_server_database_and_login() {
        for (url, shown, user, password) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379/0", None, None),
            ("redis://db.internal:6380/", "redis://db.internal:6380/0", None, None),
            ("redis://[::1]:6379/15", "redis://[::1]:6379/15", None, None),
            ("redis://:hunter2@h/1", "redis://:***@h:6379/1", None, Some("hunter2")),
            ("redis://u:p%40%3a@h", "redis://u:***@h:6379/0", Some("u"), Some("p@:")),
            ("redis://u:a@b@h", "redis://u:***@h:6379/0", Some("u"), Some("a@b")),
            ("redis://u@h", "redis://u@h:6379/0", Some("u"), None),
        ] {
            let server: RedisServer = url.parse().unwrap();
            assert_eq!((server.to_string().as_str(), server.user.as_deref()), (shown, user), "{url}");
            assert_eq!(server.password.as_ref().map(Secret::expose), password, "{url}");
            assert!(!format!("{server:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_its_text() {
        for (url, expected) in [
            ("127.0.0.1:6379", "such as"),
            ("rediss://h", "no TLS"),
            ("http://h", "begins with redis://"),
            ("unix:///run/redis.sock", "begins with redis://"),
            ("redis://", "such as"),
            ("redis://h:", "such as"),
            ("redis://::1", "such as"),
            ("redis://[::1", "such as"),
            ("redis://[h]", "such as"),
            ("redis://a b", "such as"),
            ("redis://h:0", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:+1", "port"),
            ("redis://h/x", "database"),
            ("redis://h/0/x", "database"),
            ("redis://h/99999999999", "database"),
            ("redis://h#prefix", "redis.prefix"),
            ("redis://h?db=1", "query"),
            ("redis://u:%zz@h", "hexadecimal"),
            ("redis://u:%4@h", "hexadecimal"),
            ("redis://u:%ff@h", "hexadecimal"),
        ] {
            assert!(url.parse::<RedisServer>().unwrap_err().contains(expected), "{url}");
        }
    }
}
