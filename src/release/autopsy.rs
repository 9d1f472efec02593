//! What most likely is wrong with a release that did not become healthy: pure, from what was seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::health::REFUSED;
use crate::supervisor::{Exit, tells_taken_port};
use crate::wire::{Autopsy, ProbeReport};

/// The lines of output that an autopsy shows.
pub(super) const OUTPUT_LINES: usize = 20;

/// What was seen of a candidate at its end.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// How its leader ended, where it did.
    pub exit: Option<Exit>,
    /// Its last lines.
    pub output: Vec<String>,
    /// The last probe.
    pub probe: Option<ProbeReport>,
    /// The port it was told.
    pub port: u16,
    /// The variable that told it.
    pub port_env: String,
    /// Where its processes listen.
    pub listeners: Vec<SocketAddr>,
    /// The health path.
    pub health_path: String,
}

/// Why it was given up.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It ended before it was healthy.
    Exited,
    /// Its time was over.
    TooSlow(Duration),
    /// Somebody else's process answered on its port.
    Stranger(String),
    /// Whose the listener is cannot be proven, and the configuration asks for proof.
    Unproven,
}

/// Puts the evidence together.
pub(super) fn examine(verdict: &Verdict, evidence: Evidence) -> Autopsy {
    let hint = hint(verdict, &evidence);
    let summary = match verdict {
        Verdict::Exited => {
            let exit = evidence.exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
            format!("it ended before it was healthy ({exit})")
        }
        Verdict::TooSlow(limit) => {
            let said = evidence.probe.as_ref().and_then(describe);
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            format!("it was not healthy within {}{said}", humantime::format_duration(*limit))
        }
        Verdict::Stranger(who) => {
            format!("port {} is answered by another process ({who}), not by the candidate", evidence.port)
        }
        Verdict::Unproven => {
            format!("the listener on port {} cannot be proven to be the candidate's", evidence.port)
        }
    };
    let elsewhere = |addr: &&SocketAddr| !is_asked(**addr, evidence.port);
    Autopsy {
        summary,
        exit: evidence.exit.map(|exit| exit.to_string()),
        output: evidence.output,
        probe: evidence.probe,
        port: Some(evidence.port),
        listens_on: evidence.listeners.iter().filter(elsewhere).map(ToString::to_string).collect(),
        hint,
    }
}

/// Whether a connection to `127.0.0.1:port`, which is what portok makes, reaches a listener at `addr`.
fn is_asked(addr: SocketAddr, port: u16) -> bool {
    let ip = addr.ip().to_canonical();
    addr.port() == port && (ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip.is_unspecified())
}

/// What a failed probe saw, in a few words.
pub(super) fn describe(probe: &ProbeReport) -> Option<String> {
    match (&probe.error, probe.status, &probe.location) {
        (_, Some(status), Some(location)) => Some(format!("status {status} to {location}")),
        (_, Some(status), None) => Some(format!("status {status}")),
        (Some(error), None, _) => Some(error.clone()),
        (None, None, _) => None,
    }
}

fn hint(verdict: &Verdict, evidence: &Evidence) -> Option<String> {
    let Evidence { port, port_env, health_path, .. } = evidence;
    match verdict {
        Verdict::Stranger(_) => {
            return Some(format!("find out what listens on port {port}; the next deploy gets another port"));
        }
        Verdict::Unproven => {
            return Some(
                "set app.owner_check = \"warn\" if the app runs in a container or as another user".into(),
            );
        }
        Verdict::Exited | Verdict::TooSlow(_) => {}
    }
    let text = evidence.output.join("\n").to_lowercase();
    let status = evidence.probe.as_ref().and_then(|probe| probe.status);
    if tells_taken_port(&text) {
        return Some(format!(
            "the app found an address in use: it must listen on {port_env} ({port}) and on nothing that is fixed"
        ));
    }
    if matches!(verdict, Verdict::Exited) {
        return match evidence.exit {
            Some(Exit::Status(127)) => Some("the shell did not find the command: check its name and PATH".into()),
            Some(Exit::Status(126)) => Some("the command is not executable: check its mode (chmod +x)".into()),
            Some(Exit::Status(0)) => Some(
                "the command returned at once: it must stay in the foreground (no daemon mode, no trailing &)".into(),
            ),
            Some(Exit::Signal(9)) => Some("it was killed: look for the kernel's out-of-memory killer".into()),
            _ if evidence.output.is_empty() => {
                Some("it printed nothing: run the command by hand in the same directory".into())
            }
            _ => None,
        };
    }
    match status {
        Some(300..=399) => Some(format!(
            "{health_path} redirects: only 2xx is healthy; name a path that answers by itself (health.path, --health)"
        )),
        Some(404) => {
            Some(format!("the app has no {health_path}: name its health path (health.path, --health)"))
        }
        Some(401 | 403) => Some(format!("{health_path} asks for credentials: the probe has none")),
        Some(400 | 421) => {
            Some("the app may not know the probe's Host header: set health.host to a name it serves".into())
        }
        Some(_) => Some(format!("{health_path} answers, but not with 2xx: see the app's own output")),
        None => Some(hint_by_listeners(evidence)),
    }
}

/// The hint for a candidate that gave no answer, by where it listens.
fn hint_by_listeners(evidence: &Evidence) -> String {
    let Evidence { port, port_env, health_path, listeners, .. } = evidence;
    let refused = evidence.probe.as_ref().is_some_and(|probe| probe.error.as_deref() == Some(REFUSED));
    // A wildcard of IPv6 may be of IPv6 alone, which only the probe can tell.
    let reached = |addr: &SocketAddr| is_asked(*addr, *port) && !(refused && addr.is_ipv6());
    if listeners.iter().any(reached) {
        return format!("it accepts connections and does not answer {health_path} in time (health.timeout)");
    }
    if let Some(addr) = listeners.iter().find(|addr| addr.port() == *port) {
        return format!(
            "the app listens on {addr}, and portok asks at 127.0.0.1:{port}: let it listen on 127.0.0.1 \
             (HOST says so, unless its environment sets HOST) or 0.0.0.0"
        );
    }
    match listeners.first() {
        Some(addr) => {
            format!("the app listens on {}, {port_env} was {port}: it ignores {port_env}", addr.port())
        }
        None => format!(
            "nothing listens on {port_env} ({port}): the app ignores it, or needs longer (app.start_timeout)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            port: 41237,
            port_env: "PORT".into(),
            health_path: "/health".into(),
            ..Evidence::default()
        }
    }

    fn late() -> Verdict {
        Verdict::TooSlow(Duration::from_secs(60))
    }

    #[test]
    fn an_app_that_ignores_its_port_is_told_so() {
        let seen = Evidence { listeners: vec!["127.0.0.1:3000".parse().unwrap()], ..evidence() };
        let autopsy = examine(&late(), seen);
        assert_eq!(autopsy.hint.as_deref(), Some("the app listens on 3000, PORT was 41237: it ignores PORT"));
        assert_eq!(autopsy.listens_on, ["127.0.0.1:3000"]);
    }

    #[test]
    fn each_kind_of_failure_has_its_own_hint() {
        let probe = |status| ProbeReport { status: Some(status), ..ProbeReport::default() };
        let with_status = |status| Evidence { probe: Some(probe(status)), ..evidence() };
        let exited = |code| Evidence { exit: Some(Exit::Status(code)), ..evidence() };
        let in_use = Evidence { output: vec!["Error: listen EADDRINUSE: 3000".into()], ..evidence() };
        let hangs = Evidence { listeners: vec!["0.0.0.0:41237".parse().unwrap()], ..evidence() };
        for (verdict, seen, part) in [
            (late(), with_status(302), "redirects"),
            (late(), with_status(404), "has no /health"),
            (late(), with_status(401), "credentials"),
            (late(), with_status(500), "not with 2xx"),
            (late(), hangs, "does not answer"),
            (late(), evidence(), "nothing listens"),
            (Verdict::Exited, exited(127), "did not find"),
            (Verdict::Exited, exited(126), "not executable"),
            (Verdict::Exited, exited(0), "foreground"),
            (Verdict::Exited, exited(1), "printed nothing"),
            (Verdict::Exited, in_use, "in use"),
            (Verdict::Unproven, evidence(), "owner_check"),
            (Verdict::Stranger("nc, pid 7".into()), evidence(), "what listens"),
        ] {
            let autopsy = examine(&verdict, seen);
            let hint = autopsy.hint.unwrap_or_default();
            assert!(hint.contains(part), "{part}: {hint}");
        }
    }

    #[test]
    fn an_app_at_another_loopback_address_is_told_where_it_listens() {
        for addr in ["[::1]:41237", "127.0.0.2:41237"] {
            // A debugger's port beside it is no reason to speak of that one.
            let listeners = vec!["127.0.0.1:9229".parse().unwrap(), addr.parse().unwrap()];
            let autopsy = examine(&late(), Evidence { listeners, ..evidence() });
            let hint = autopsy.hint.unwrap_or_default();
            assert!(hint.contains(addr) && hint.contains("127.0.0.1:41237"), "{hint}");
            assert_eq!(autopsy.listens_on, ["127.0.0.1:9229", addr]);
        }
        for addr in ["0.0.0.0:41237", "[::]:41237", "[::ffff:127.0.0.1]:41237"] {
            let autopsy = examine(&late(), Evidence { listeners: vec![addr.parse().unwrap()], ..evidence() });
            assert!(autopsy.hint.unwrap_or_default().contains("does not answer"), "{addr}");
            assert!(autopsy.listens_on.is_empty(), "{addr}");
        }
        // With IPV6_V6ONLY.
        let probe = Some(ProbeReport { error: Some(REFUSED.into()), ..ProbeReport::default() });
        let listeners = vec!["[::]:41237".parse().unwrap()];
        let hint = examine(&late(), Evidence { probe, listeners, ..evidence() }).hint.unwrap_or_default();
        assert!(hint.contains("[::]:41237") && hint.contains("0.0.0.0"), "{hint}");
    }

    #[test]
    fn the_summary_of_a_slow_start_says_what_the_last_probe_saw() {
        let probe =
            ProbeReport { status: Some(301), location: Some("/login".into()), ..ProbeReport::default() };
        let autopsy = examine(&late(), Evidence { probe: Some(probe), ..evidence() });
        assert_eq!(autopsy.summary, "it was not healthy within 1m: status 301 to /login");
    }
}
