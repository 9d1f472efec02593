//! What the parameters of a request say, each with its bounds. Pure.

use std::time::Duration;

use http::HeaderMap;

use super::request::{self, Query, bad};
use crate::config::is_instance_name;
use crate::release::scale::Bounds;
use crate::wire::{self, Code, DeployStrategy, ErrorBody, LogsRequest, Said};

/// The most ports of a switch: as many targets as a host of Redis may have.
const MAX_PORTS: usize = 64;
/// The longest name of who gives an order, in characters, and the longest reason.
const BY_MOST: usize = 64;
const NOTE_MOST: usize = 256;
/// How many lines of `logs` are given if the query does not say.
const DEFAULT_LINES: usize = 100;
/// The most lines of `logs` that a query may ask for.
const MAX_LINES: usize = 10_000;

/// How the counters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricsFormat {
    Json,
    Prometheus,
}

/// Who asks and why, as far as that is said. What changes so much has no parameters but those and
/// its `own`: a mistyped one would be passed over.
pub(super) fn said(query: &Query<'_>, own: &[&str]) -> Result<Said, Box<ErrorBody>> {
    query.only(&[own, &["by", "note", "app"]].concat())?;
    let by = words(query, "by", BY_MOST)?.unwrap_or_default();
    Ok(Said { by, note: words(query, "note", NOTE_MOST)? })
}

/// The bounds of a scale: both of them.
pub(super) fn bounds(query: &Query<'_>) -> Result<Bounds, Box<ErrorBody>> {
    let number = |name: &str| {
        let text = query.get(name)?.filter(|text| !text.is_empty());
        let wrong = || bad(format!("`{name}` has to be a number of replicas: POST it with ?min=2&max=8"));
        text.and_then(digits).and_then(|text| text.parse().ok()).ok_or_else(wrong)
    };
    Ok(Bounds { min: number("min")?, max: number("max")? })
}

/// How the end of a drain is to be changed: one way or the other.
pub(super) fn moved_drain(query: &Query<'_>) -> Result<wire::DrainRequest, Box<ErrorBody>> {
    match (span(query, "extend", wire::EXTEND_MOST)?, flag(query, "now")?) {
        (Some(by), false) => Ok(wire::DrainRequest::Extend(by)),
        (None, true) => Ok(wire::DrainRequest::Now),
        _ => Err(bad("POST it with ?extend=10m or with ?now=1, one of both; GET it to see who is there")),
    }
}

/// A text of at most so many characters.
fn words(query: &Query<'_>, name: &str, most: usize) -> Result<Option<String>, Box<ErrorBody>> {
    let text = query.get(name)?.filter(|text| !text.is_empty());
    if text.is_some_and(|text| text.chars().count() > most || text.chars().any(char::is_control)) {
        return Err(bad(format!("`{name}` has to be at most {most} characters on one line")));
    }
    Ok(text.map(str::to_owned))
}

/// The time of an order that ends by itself.
pub(super) fn time(query: &Query<'_>, most: Duration) -> Result<Option<Duration>, Box<ErrorBody>> {
    span(query, "for", most)
}

/// A time of at most `most`.
fn span(query: &Query<'_>, name: &str, most: Duration) -> Result<Option<Duration>, Box<ErrorBody>> {
    let Some(text) = query.get(name)? else { return Ok(None) };
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero() && *time <= most);
    let most = humantime::format_duration(most);
    time.map(Some).ok_or_else(|| bad(format!("`{name}` has to be a time such as 30s or 5m, at most {most}")))
}

pub(super) fn metrics_format(
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<MetricsFormat, Box<ErrorBody>> {
    match query.get("format")? {
        Some("prometheus") => Ok(MetricsFormat::Prometheus),
        Some("json") => Ok(MetricsFormat::Json),
        Some(_) => Err(bad("`format` has to be `prometheus` or `json`")),
        None if request::prefers(headers, "text/plain") => Ok(MetricsFormat::Prometheus),
        None => Ok(MetricsFormat::Json),
    }
}

/// The ports of a switch: each once, in the order of the query.
pub(super) fn ports(query: &Query<'_>, listen: &[u16]) -> Result<Vec<u16>, Box<ErrorBody>> {
    let mut ports = Vec::new();
    for text in query.all("port") {
        let port = port(text, listen)?;
        if ports.contains(&port) {
            return Err(invalid_port(&format!("port {port} is given more than once")).into());
        }
        if ports.len() == MAX_PORTS {
            return Err(invalid_port(&format!("more than {MAX_PORTS} ports are given")).into());
        }
        ports.push(port);
    }
    if ports.is_empty() {
        return Err(invalid_port("the port is missing").with_hint("POST the switch with `?port=N`").into());
    }
    Ok(ports)
}

/// npm portok's words.
fn invalid_port(message: &str) -> ErrorBody {
    ErrorBody::new(Code::BadRequest, "Invalid port", message)
}

fn port(text: &str, listen: &[u16]) -> Result<u16, Box<ErrorBody>> {
    let invalid = invalid_port;
    match digits(text).and_then(|text| text.parse().ok()) {
        None | Some(0) => Err(invalid("Port must be a number between 1 and 65535").into()),
        Some(port) if listen.contains(&port) => Err(invalid("portok itself listens on this port")
            .with_hint("name the app's port: portok would send the requests to itself")
            .into()),
        Some(port) => Ok(port),
    }
}

/// Whose lines are asked for, and how many.
pub(super) fn logs(query: &Query<'_>) -> Result<LogsRequest, Box<ErrorBody>> {
    let number = |text: &str| digits(text)?.parse().ok();
    let replica = query.get("replica")?.filter(|text| !text.is_empty());
    let replica = replica
        .map(|text| number(text).ok_or_else(|| bad("`replica` has to be a number from 0 to 65535")))
        .transpose()?;
    let process = query.get("process")?.filter(|name| !name.is_empty());
    if process.is_some_and(|name| !is_instance_name(name)) {
        return Err(bad("`process` has to be 1 to 64 characters of A-Z, a-z, 0-9, `_` and `-`"));
    }
    let process = process.map(str::to_owned);
    Ok(LogsRequest { release: release(query)?, replica, process, lines: lines(query)? })
}

fn lines(query: &Query<'_>) -> Result<usize, Box<ErrorBody>> {
    let Some(text) = query.get("lines")?.filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT_LINES);
    };
    digits(text)
        .and_then(|text| text.parse().ok())
        .filter(|lines| (1..=MAX_LINES).contains(lines))
        .ok_or_else(|| bad(format!("`lines` has to be a number between 1 and {MAX_LINES}")))
}

/// `text`, if it is digits alone: `parse` would accept a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

pub(super) fn release(query: &Query<'_>) -> Result<Option<String>, Box<ErrorBody>> {
    let release = query.get("release")?.filter(|id| !id.is_empty());
    if release.is_some_and(|id| !request::is_release(id)) {
        return Err(bad("`release` has to be 1 to 64 characters of A-Z, a-z, 0-9, `.`, `_` and `-`"));
    }
    Ok(release.map(str::to_owned))
}

/// How a candidate is to take over, where the request says it.
pub(super) fn strategy(query: &Query<'_>) -> Result<Option<DeployStrategy>, Box<ErrorBody>> {
    let name = query.get("strategy")?.filter(|name| !name.is_empty());
    let named = name.map(DeployStrategy::named).transpose();
    named.map_err(|expected| bad(format!("`strategy` has to be {expected}")))
}

pub(super) fn flag(query: &Query<'_>, name: &str) -> Result<bool, Box<ErrorBody>> {
    match query.get(name)? {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(bad(format!("`{name}` has to be 1 or 0"))),
    }
}
