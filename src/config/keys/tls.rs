//! The keys of `[tls]`, and those of an app's own certificate. Without `tls.listen` there is
//! nothing that the others of `[tls]` could be for.

use std::net::Ipv4Addr;

use toml::de::DeValue;

use super::super::read::Reader;
use super::super::show::{self, one_or_more, optional};
use super::super::values::{self, Input, Parsed, some};
use super::super::{Config, Tls, TlsVersion};
use super::instance::LISTEN_MAX;
use super::{Key, OnChange};

const VERSIONS: &[(&str, TlsVersion)] = &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

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
];

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
