//! Where the daemon is: turns arguments, an instance's file and the environment into an ordered
//! list of ways.
//!
//! Nothing is connected here, and no token file is read. A token is read only when a way over TCP
//! is taken, so that a user of the socket needs no right to read the token.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::args::Global;
use super::failure::Failure;
use super::instance_file::{InstanceFile, Unreadable};
use super::surroundings::Surroundings;
use super::way::{DEFAULT_PORT, Daemon, Token, Way};
use crate::config::Secret;

/// The instance that is asked when none is named.
const DEFAULT_INSTANCE: &str = "default";

/// The admin prefix unless the instance's file says otherwise.
const DEFAULT_PREFIX: &str = crate::wire::PREFIX;

/// Finds the daemon that `global` names. The order of precedence is part of the contract.
///
/// # Errors
/// A URL is not usable. Or an instance's file cannot be read or is not TOML, and no socket lies at
/// the instance's default places.
pub(crate) fn locate(global: &Global, around: &Surroundings) -> Result<Daemon, Failure> {
    let given = global.token.clone().map(Secret::new);
    let plain = |ways, prefix, advice: &str| Daemon {
        ways,
        prefix,
        instance: None,
        advice: advice.to_owned(),
        broken_file: None,
    };
    let outer_token = || given.clone().or_else(|| around.token.clone()).map_or(Token::None, Token::Value);
    if let Some(url) = &global.url {
        let (way, prefix) = parse_url("--url", url, outer_token())?;
        return Ok(plain(vec![way], prefix, "is this the address of a portokd, and does it run?"));
    }
    if let Some(socket) = &global.socket {
        let advice =
            "is this the socket of a portokd, and does it run? `portok list` shows those of this host";
        return Ok(plain(vec![Way::Socket(socket.clone())], DEFAULT_PREFIX.to_owned(), advice));
    }
    if let Some(name) = &global.instance {
        return instance(name, given, around, InstanceFile::read(&around.places, name));
    }
    if let Some(url) = &around.url {
        let (way, prefix) = parse_url("PORTOK_URL", url, outer_token())?;
        return Ok(plain(
            vec![way],
            prefix,
            "PORTOK_URL says so; --instance NAME, --url or --socket name another daemon",
        ));
    }
    let mut ways = default_ways(DEFAULT_INSTANCE, around);
    ways.push(Way::Tcp { host: Ipv4Addr::LOCALHOST.to_string(), port: DEFAULT_PORT, token: outer_token() });
    Ok(Daemon {
        ways,
        prefix: DEFAULT_PREFIX.to_owned(),
        instance: Some(DEFAULT_INSTANCE.to_owned()),
        advice: "no daemon was named: `portok list` shows those of this host; name one with --instance NAME, or its place \
                 with --url or --socket"
            .to_owned(),
        broken_file: None,
    })
}

/// The ways to the instance `name`, given the result of reading its files.
fn instance(
    name: &str,
    given: Option<Secret>,
    around: &Surroundings,
    file: Result<Option<InstanceFile>, Unreadable>,
) -> Result<Daemon, Failure> {
    let mut daemon = Daemon {
        ways: Vec::new(),
        prefix: DEFAULT_PREFIX.to_owned(),
        instance: Some(name.to_owned()),
        advice: start_advice(name, around.systemd),
        broken_file: None,
    };
    let file = match file {
        Ok(Some(file)) => file,
        Ok(None) => {
            daemon.ways = default_ways(name, around);
            let toml = around.places.file(name, "toml");
            let toml = toml.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // `portok run` has no file, and systemd does not know it.
            daemon.advice = format!(
                "there is no {toml} or {name}.env in {}: if it was a `portok run`, it has ended; `portok list` shows \
                 what runs",
                around.places.config.display()
            );
            return Ok(daemon);
        }
        Err(unreadable) => {
            // A member of the socket's group may use the socket without a right to the file. And a
            // running daemon can be reached although its file was broken meanwhile.
            daemon.ways = existing(name, around);
            if daemon.ways.is_empty() {
                return Err(Failure::Usage { message: unreadable.message, hint: unreadable.hint });
            }
            daemon.advice = format!("{} ({})", daemon.advice, unreadable.message);
            daemon.broken_file = Some(unreadable.message).filter(|_| !unreadable.denied);
            return Ok(daemon);
        }
    };
    daemon.ways = match file.socket {
        Some(socket) => vec![Way::Socket(socket)],
        None => {
            let name = around.places.instance_of(name).unwrap_or(name);
            default_ways(file.name.as_deref().unwrap_or(name), around)
        }
    };
    if let Some((host, port)) = file.address.filter(|_| file.public) {
        let token = match given {
            Some(token) => Token::Value(token),
            None if file.token == Token::None => around.token.clone().map_or(Token::None, Token::Value),
            None => file.token,
        };
        daemon.ways.push(Way::Tcp { host, port, token });
    }
    if let Some(prefix) = file.prefix {
        daemon.prefix = prefix;
    }
    Ok(daemon)
}

/// How to start a configured instance on this machine.
fn start_advice(name: &str, systemd: bool) -> String {
    if systemd {
        format!("start it: portok start {name}; why it ended: portok logs {name}")
    } else {
        format!("start it: portokd --instance {name}")
    }
}

/// The default sockets of `name` that may exist. If none does, the likeliest one, so that an error
/// names it.
fn default_ways(name: &str, around: &Surroundings) -> Vec<Way> {
    let mut ways = existing(name, around);
    if ways.is_empty() {
        ways.extend((around.socket_places)(name).into_iter().next().map(Way::Socket));
    }
    ways
}

fn existing(name: &str, around: &Surroundings) -> Vec<Way> {
    let there = |path: &PathBuf| match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        // Its folder is closed to this user; connecting will report that.
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    (around.socket_places)(name).into_iter().filter(there).map(Way::Socket).collect()
}

/// Splits a URL into the way, and the admin prefix, which is the URL's path.
fn parse_url(source: &str, url: &str, token: Token) -> Result<(Way, String), Failure> {
    let refuse = |why: &str, hint: &str| {
        let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        Err(Failure::usage(format!("{source} `{shown}`: {why}"), hint))
    };
    let example = "expected http://host:port, such as http://127.0.0.1:3000";
    let Ok(uri) = url.parse::<http::Uri>() else { return refuse("not a URL", example) };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            let hint = "use http:// on the daemon's host, or forward its port over ssh: ssh -L 3000:127.0.0.1:3000 HOST";
            return refuse("TLS is not spoken here", hint);
        }
        _ => return refuse("not an http URL", example),
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return refuse("the host is missing", example);
    };
    if authority.as_str().contains('@') {
        return refuse("a user in a URL is not supported", "give the token with --token or PORTOK_TOKEN");
    }
    if uri.query().is_some() {
        return refuse("a query has no meaning here", example);
    }
    let port = match authority.port_u16() {
        Some(0) => return refuse("port 0 cannot be connected to", example),
        Some(port) => port,
        None if authority.as_str() == authority.host() => 80,
        None => return refuse("the port is not a number from 1 to 65535", example),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let prefix = match uri.path() {
        "" | "/" => DEFAULT_PREFIX.to_owned(),
        path => path.to_owned(),
    };
    Ok((Way::Tcp { host, port, token }, prefix))
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
