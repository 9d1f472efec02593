//! `nfork.json`: an array of inbounds, each a listener with one active target and others that get
//! copies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::apps::{Names, set_listen};
use super::fields::{Fields, one_or_many};
use super::findings::Findings;
use super::source::Source;
use super::toml::{Toml, Value as Field};
use crate::config::takes;

const ABOUT: &str = "Each app answers at addresses of its own.";

/// What nfork does without `timeout` and `timeoutCode`.
const TIMEOUT: (u64, u64) = (1000, 503);

/// The longest timeout that portok takes, in milliseconds.
const TIMEOUT_MAX: u64 = 7 * 24 * 3600 * 1000;

/// One inbound in portok's terms.
struct Inbound {
    place: String,
    name: String,
    listen: Vec<SocketAddr>,
    target: SocketAddr,
    /// In milliseconds.
    timeout: u64,
    status: u64,
    max_idle: Option<u64>,
}

/// Converts nfork's configuration.
pub(super) fn convert(source: &Source, findings: &mut Findings) -> Option<String> {
    let root = source.json(findings)?;
    let mut names = Names::default();
    let mut inbounds = Vec::new();
    for (index, inbound) in one_or_many(&root).iter().enumerate() {
        let place = format!("[{index}]");
        match inbound.as_object() {
            Some(object) => inbounds.extend(inbound_of(Fields::new(place, object), &mut names, findings)),
            None => findings.wrong(place, inbound, "an inbound: an object with listen, out and active"),
        }
    }
    if inbounds.is_empty() {
        findings.problem("the file", "expected an array with at least one inbound that portok can serve");
        return None;
    }
    check_addresses(&inbounds, findings);
    findings.note(
        "Host",
        "nfork sends its target's name as Host, and X-Nfork: true; portok sends the client's Host",
    );
    Some(toml(&inbounds))
}

fn inbound_of(mut fields: Fields<'_>, names: &mut Names, findings: &mut Findings) -> Option<Inbound> {
    let name = fields.text("name", findings).filter(|name| !name.is_empty());
    let at = fields.at("listen");
    let listen_text = fields.text("listen", findings);
    let listen = listen_addresses(&at, listen_text, findings);
    let target = target_of(&mut fields, findings);
    let timeout = timeout_of(&mut fields, findings);
    let status = fields.number("timeoutCode", 400..=599, findings);
    let max_idle = fields.number("idleConn", 0..=65_535, findings).filter(|idle| *idle > 0);
    let place = fields.place().to_owned();
    fields.unknown("nfork", findings);
    let (listen, target, timeout) = (listen?, target?, timeout?);
    // nfork names an inbound after its address where it has no name.
    let name = names.give(&place, name.or(listen_text).unwrap_or_default(), findings);
    Some(Inbound { place, name, listen, target, timeout, status: status.unwrap_or(TIMEOUT.1), max_idle })
}

/// Each address is listened on once, and none of them is a target: requests would go in a circle.
fn check_addresses(inbounds: &[Inbound], findings: &mut Findings) {
    let mut taken = Vec::new();
    for inbound in inbounds {
        if let Some(twice) = inbound.listen.iter().find(|address| taken.contains(address)) {
            let what = format!("expected an address of its own, and not {twice}, another inbound's");
            findings.problem(format_args!("{}.listen", inbound.place), what);
        }
        taken.extend(&inbound.listen);
    }
    for inbound in inbounds.iter().filter(|inbound| taken.iter().any(|own| takes(**own, inbound.target, &[])))
    {
        let what = format!("{} is where an inbound listens: requests would go in a circle", inbound.target);
        findings.problem(format_args!("{}.out", inbound.place), what);
    }
}

fn timeout_of(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    let Some(value) = fields.take("timeout") else { return Some(TIMEOUT.0) };
    let timeout = value.as_str().and_then(go_duration).filter(|time| *time <= TIMEOUT_MAX);
    if timeout.is_none() {
        findings.wrong(fields.at("timeout"), value, "a time as Go writes it, such as \"100ms\", up to 168h");
    }
    timeout
}

/// The address of the active one. The others get copies, which is said.
fn target_of(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<SocketAddr> {
    let active = fields.text("active", findings);
    let out = fields.take("out").and_then(Value::as_object);
    let Some(out) = out else {
        findings.problem(fields.at("out"), "expected an object of names and addresses");
        return None;
    };
    for (name, address) in out.iter().filter(|(name, _)| Some(name.as_str()) != active) {
        findings.note(
            fields.at(format_args!("out.{}", name.escape_debug())),
            format_args!("copies of requests to {address} have no counterpart yet"),
        );
    }
    let names: Vec<_> = out.keys().map(|name| format!("{name:?}")).collect();
    let expected = format!("one of the names in out: {}", names.join(", "));
    let Some(active) = active else {
        findings.problem(fields.at("active"), format_args!("expected {expected}"));
        return None;
    };
    let Some(address) = out.get(active) else {
        findings.wrong(fields.at("active"), &active.into(), expected);
        return None;
    };
    let is_one_host = |target: &SocketAddr| {
        let ip = target.ip();
        let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast && target.port() != 0
    };
    let target = address.as_str().and_then(target_address).filter(is_one_host);
    if target.is_none() {
        findings.wrong(
            fields.at(format_args!("out.{}", active.escape_debug())),
            address,
            "an IP address with a port, or localhost, over http: portok's targets are no names (and no https)",
        );
    }
    target
}

/// `[http://]HOST[:PORT]`, where the host is an address or `localhost`.
fn target_address(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix("http://").unwrap_or(text);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip().to_canonical(), address.port()).into());
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Some((ip.to_canonical(), 80).into());
    }
    let port = match text.strip_prefix("localhost")? {
        "" => 80,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    Some((Ipv4Addr::LOCALHOST, port).into())
}

/// Where Go listens: without a host, at every address of both families.
fn listen_addresses(place: &str, text: Option<&str>, findings: &mut Findings) -> Option<Vec<SocketAddr>> {
    const EXPECTED: &str = "an address with a port, such as \":9080\" or \"127.0.0.1:9080\"";
    let Some(text) = text else {
        findings.problem(place, format_args!("expected {EXPECTED}"));
        return None;
    };
    let ips: Vec<IpAddr> = match text.rsplit_once(':').map(|(host, _)| host) {
        Some("") => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Some("localhost") => vec![Ipv4Addr::LOCALHOST.into()],
        _ => text.parse().map(|address: SocketAddr| address.ip()).into_iter().collect(),
    };
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0);
    let listen: Vec<_> =
        port.map_or_else(Vec::new, |port| ips.into_iter().map(|ip| (ip, port).into()).collect());
    if listen.is_empty() {
        findings.wrong(place, &text.into(), EXPECTED);
    }
    Some(listen).filter(|listen| !listen.is_empty())
}

/// A time as Go writes it: numbers with a unit each, such as `1m30s` or `1.5s`. In whole
/// milliseconds, at least one.
fn go_duration(text: &str) -> Option<u64> {
    let mut rest = text.trim_start_matches('+');
    let mut millis = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        millis += number
            * match &rest[..unit_end] {
                "ns" => 1e-6,
                "us" | "µs" | "μs" => 1e-3,
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 60e3,
                "h" => 3600e3,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    let time = Duration::try_from_secs_f64(millis / 1e3).ok()?;
    // Rounded up to what a configuration can say; nothing is no timeout at all.
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).ok().filter(|millis| *millis > 0)
}

fn toml(inbounds: &[Inbound]) -> String {
    let mut toml = Toml::new(ABOUT);
    let own = inbounds.iter().flat_map(|inbound| inbound.listen.iter().map(SocketAddr::port)).collect();
    set_listen(&mut toml, &own, true);
    for inbound in inbounds {
        toml.table(&["apps", &inbound.name]);
        toml.set("listen", inbound.listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
        toml.set("targets", vec![inbound.target.to_string()]);
        toml.table(&["apps", &inbound.name, "upstream"]);
        toml.set("timeout", Field::millis(inbound.timeout));
        toml.set("timeout_status", inbound.status);
        if let Some(max_idle) = inbound.max_idle {
            toml.set("max_idle", max_idle);
        }
    }
    toml.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, expected) in
            [("100ms", 100), ("1.5s", 1500), ("1m30s", 90_000), ("+2h", 7_200_000), ("1us", 1), (".5s", 500)]
        {
            assert_eq!(go_duration(text), Some(expected), "{text}");
        }
        for text in ["", "100", "-1s", "s", "1 s", "1d", "0s", "1e3s", "999999999999999999999h", "..s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
