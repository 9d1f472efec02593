//! The keys of `[tls]`, and those of an app's own certificate. Without `tls.listen` there is
//! nothing that the others of `[tls]` could be for.

use std::net::Ipv4Addr;

use toml::de::DeValue;

use super::super::read::Reader;
use super::super::show::{self, list, one_or_more, optional, secret};
use super::super::values::{self, Input, Parsed, some};
use super::super::{Acme, Challenge, Config, ExternalAccount, Secret, Tls, TlsVersion};
use super::instance::{LISTEN_MAX, secret_in};
use super::{Key, OnChange};

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

/// The most hosts that are named: each is an order, of which there are ten an hour.
const HOSTS_MAX: usize = 1000;

const CHALLENGES: &[(&str, Challenge)] =
    &[("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01)];

/// Statuses that keep a request's method, or that every client knows.
const REDIRECTS: &[u16] = &[308, 301];

pub(super) const TLS: &[Key] = &[
    Key::instance("tls.listen", read_listen, |config, _| {
        config.tls.as_ref().map(|tls| one_or_more(show::text)(&tls.listen))
    })
    .on_change(OnChange::Rebind),
    Key::instance(
        "tls.cert_dir",
        |key, r, config| set(key, r, config, some(values::path), |tls| &mut tls.cert_dir),
        |config, _| config.tls.as_ref()?.cert_dir.as_ref().map(show::path),
    ),
    Key::instance(
        "tls.default",
        |key, r, config| set(key, r, config, some(pair_name), |tls| &mut tls.default),
        |config, _| config.tls.as_ref()?.default.as_ref().map(show::string),
    ),
    Key::instance(
        "tls.min_version",
        |key, r, config| set(key, r, config, values::choice(VERSIONS), |tls| &mut tls.min_version),
        |config, _| config.tls.as_ref().map(|tls| show::word(VERSIONS)(&tls.min_version)),
    ),
    Key::instance(
        "tls.redirect",
        |key, r, config| set(key, r, config, redirect, |tls| &mut tls.redirect),
        |config, _| {
            config.tls.as_ref().map(|tls| tls.redirect.as_ref().map_or("false".to_owned(), show::number))
        },
    ),
    Key::instance(
        "tls.hsts",
        |key, r, config| set(key, r, config, hsts, |tls| &mut tls.hsts),
        |config, _| {
            config.tls.as_ref().map(|tls| tls.hsts.as_ref().map_or("\"off\"".to_owned(), show::string))
        },
    ),
    Key::instance(
        "tls.acme.email",
        |key, r, config| {
            set(
                key,
                r,
                config,
                |input| some(email)(input).map(|email| email.map(Acme::of)),
                |tls| &mut tls.acme,
            );
        },
        |config, _| acme(config).map(|acme| show::string(&acme.email)),
    ),
    Key::instance(
        "tls.acme.directory",
        |key, r, config| set_acme(key, r, config, directory, |acme| &mut acme.directory),
        |config, _| acme(config).map(|acme| show::string(&acme.directory)),
    ),
    Key::instance("tls.acme.hosts", read_hosts, |config, _| {
        acme(config).map(|acme| list(show::string)(&acme.hosts))
    }),
    Key::instance(
        "tls.acme.challenge",
        |key, r, config| set_acme(key, r, config, values::choice(CHALLENGES), |acme| &mut acme.challenge),
        |config, _| acme(config).map(|acme| show::word(CHALLENGES)(&acme.challenge)),
    ),
    Key::instance(
        "tls.acme.ca_file",
        |key, r, config| set_acme(key, r, config, some(values::path), |acme| &mut acme.ca_file),
        |config, _| acme(config)?.ca_file.as_ref().map(show::path),
    ),
    Key::instance("tls.acme.eab.id", read_eab_id, |config, _| {
        acme(config)?.eab.as_ref().map(|eab| show::string(&eab.id))
    }),
    Key::instance("tls.acme.eab.key_file", read_eab_key, |config, secrets| {
        acme(config)?.eab.as_ref().map(|eab| secret(eab.key.expose(), secrets))
    }),
];

fn acme(config: &Config) -> Option<&Acme> {
    config.tls.as_ref()?.acme.as_ref()
}

pub(super) const APP: &[Key] = &[
    row!(app, "app.tls.cert", some(values::path), optional(show::path), tls.cert),
    row!(app, "app.tls.key", some(values::path), optional(show::path), tls.key),
];

fn read_listen(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let listen = r.read_one_or_more(key, LISTEN_MAX, values::listen(Ipv4Addr::UNSPECIFIED));
    config.tls = listen.map(Tls::at);
}

/// Puts the value of `key` into a field. Where `tls.listen` is not set at all that is a problem; a
/// bad one is one already.
fn set<T>(
    key: &'static str,
    r: &mut Reader<'_>,
    config: &mut Config,
    parse: impl Fn(Input<'_>) -> Parsed<T>,
    field: impl Fn(&mut Tls) -> &mut T,
) {
    let Some(value) = r.read(key, parse) else { return };
    match &mut config.tls {
        Some(tls) => *field(tls) = value,
        None if !r.is_set("tls.listen") => r.reject(key, "nothing, because tls.listen is not set"),
        None => {}
    }
}

/// Puts the value of `key` into a field of `[tls.acme]`. Where `tls.acme.email` is not set at all
/// that is a problem; a bad one is one already.
fn set_acme<T>(
    key: &'static str,
    r: &mut Reader<'_>,
    config: &mut Config,
    parse: impl Fn(Input<'_>) -> Parsed<T>,
    field: impl Fn(&mut Acme) -> &mut T,
) {
    let Some(value) = r.read(key, parse) else { return };
    if let Some(acme) = acme_of(key, r, config) {
        *field(acme) = value;
    }
}

fn acme_of<'c>(key: &'static str, r: &mut Reader<'_>, config: &'c mut Config) -> Option<&'c mut Acme> {
    let acme = config.tls.as_mut().and_then(|tls| tls.acme.as_mut());
    if acme.is_none() && !r.is_set("tls.acme.email") {
        r.reject(key, "nothing, because tls.acme.email is not set");
    }
    acme
}

fn read_hosts(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let Some(hosts) = r.read_different(key, 0..=HOSTS_MAX, certified) else { return };
    if let Some(acme) = acme_of(key, r, config) {
        acme.hosts = hosts;
    }
}

fn read_eab_id(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let id = r.read(key, values::text("the name of a key", |id| (1..=1024).contains(&id.len())));
    if r.is_set(key) != r.is_set("tls.acme.eab.key_file") {
        return r.reject(key, "both tls.acme.eab.id and tls.acme.eab.key_file, or neither");
    }
    let Some(id) = id else { return };
    if let Some(acme) = acme_of(key, r, config) {
        acme.eab = Some(ExternalAccount { id, key: Secret::new(String::new()) });
    }
}

fn read_eab_key(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let Some(file) = r.read(key, values::path) else { return };
    let Some(text) = secret_in(key, &file, "key", r) else { return };
    if super::super::tls::base64url(&text).is_none() {
        return r.reject(key, "a file that holds a key in base64url, and nothing else");
    }
    if let Some(eab) = config.tls.as_mut().and_then(|tls| tls.acme.as_mut()?.eab.as_mut()) {
        eab.key = Secret::new(text);
    }
}

/// A host that a certificate can be for.
fn certified(input: Input<'_>) -> Parsed<String> {
    let host = values::host_name(input)?;
    match host.parse::<std::net::IpAddr>() {
        Ok(_) => Err("the name of a host, not an address".to_owned()),
        Err(_) => Ok(host),
    }
}

fn email(input: Input<'_>) -> Parsed<String> {
    let fits = |text: &str| {
        let halves = text.split_once('@').filter(|(name, host)| !name.is_empty() && !host.is_empty());
        halves.is_some() && text.len() <= 254 && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    values::text("the address of a person, such as \"ops@example.com\"", fits)(input)
}

fn directory(input: Input<'_>) -> Parsed<String> {
    let fits = |text: &str| {
        let rest = text.strip_prefix("https://");
        rest.is_some_and(|rest| !rest.is_empty()) && text.parse::<http::Uri>().is_ok()
    };
    values::text("an address that begins with https://", fits)(input)
}

/// What a pair of files is called: their name without its ending.
fn pair_name(input: Input<'_>) -> Parsed<String> {
    let fits =
        |name: &str| (1..=255).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_control());
    values::text("the name of a certificate: that of its file without the ending, or of its app", fits)(input)
}

fn redirect(input: Input<'_>) -> Parsed<Option<u16>> {
    if let Input::Toml(DeValue::Boolean(false)) = input {
        return Ok(None);
    }
    values::choice_of(REDIRECTS)(input).map(Some).map_err(|expected| format!("{expected} or false"))
}

/// The value of the field (RFC 6797, 6.1), which begins with the time in seconds.
fn hsts(input: Input<'_>) -> Parsed<Option<String>> {
    let expected = "\"off\", or the value of the field `Strict-Transport-Security`, such as \
                    \"max-age=31536000; includeSubDomains\"";
    let is_known = |directive: &str| {
        ["includesubdomains", "preload"].contains(&directive.trim().to_ascii_lowercase().as_str())
    };
    let fits = |value: &str| {
        let mut directives = value.split(';');
        let seconds = directives.next().and_then(|first| first.trim().strip_prefix("max-age="));
        let is_time = |seconds: &str| {
            (1..=10).contains(&seconds.len()) && seconds.bytes().all(|byte| byte.is_ascii_digit())
        };
        value == "off" || seconds.is_some_and(is_time) && directives.all(is_known)
    };
    values::text(expected, fits)(input).map(|value| Some(value).filter(|value| value != "off"))
}
