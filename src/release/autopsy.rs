//! What most likely is wrong with a release that did not become healthy: pure, without state, from
//! what was seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::config::variable_of;
use crate::health::{Ask, REFUSED};
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
    /// Its port.
    pub port: u16,
    /// The variable that carried the port.
    pub port_env: String,
    /// Where its processes listen.
    pub listeners: Vec<SocketAddr>,
    /// What its probe asked.
    pub asked: Option<Ask>,
    /// Whether a file configures the daemon. Without one, only keys that have a variable can be
    /// set.
    pub has_file: bool,
    /// What was found out while it ran, where it has ended since.
    pub diagnosis: Option<Diagnosis>,
}

impl Evidence {
    /// Whether it listens somewhere, or has answered.
    pub(super) fn shows_a_listener(&self) -> bool {
        !self.listeners.is_empty() || self.probe.as_ref().is_some_and(|probe| probe.status.is_some())
    }

    /// How the key can be set: by its name in the file, or by its variable where there is no file.
    fn setting(&self, key: &'static str) -> Option<&'static str> {
        if self.has_file {
            return Some(key);
        }
        variable_of(key)
    }
}

/// What is found out about a candidate while it runs. It is kept for the case that the candidate
/// ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// Where its processes listen.
    listeners: Vec<SocketAddr>,
    /// What most likely is wrong.
    pub hint: Option<String>,
}

impl Diagnosis {
    /// The diagnosis from what was seen, if the candidate were given up now for this cause.
    pub(super) fn of(cause: &Cause, evidence: &Evidence) -> Self {
        Self { listeners: evidence.listeners.clone(), hint: hint(cause, evidence) }
    }
}

/// Why a candidate was given up.
#[derive(Debug)]
pub(super) enum Cause {
    /// It ended before it was healthy.
    Exited,
    /// Its time was over.
    TooSlow(Duration),
    /// Another process answered on its port.
    Stranger(String),
    /// The owner of the listener cannot be proven, and the configuration asks for proof.
    Unproven,
}

/// Makes the autopsy of the evidence.
pub(super) fn examine(cause: &Cause, evidence: Evidence) -> Autopsy {
    let hint = hint(cause, &evidence);
    let summary = match cause {
        Cause::Exited => {
            let exit = evidence.exit.map_or_else(|| "unknown".to_owned(), |exit| exit.to_string());
            format!("it ended before it was healthy ({exit})")
        }
        Cause::TooSlow(limit) => {
            let said = evidence.probe.as_ref().and_then(ProbeReport::said);
            let said = said.map_or_else(String::new, |said| format!(": {said}"));
            format!("it was not healthy within {}{said}", humantime::format_duration(*limit))
        }
        Cause::Stranger(who) => {
            format!("port {} is answered by another process ({who}), not by the candidate", evidence.port)
        }
        Cause::Unproven => {
            format!("the listener on port {} cannot be proven to be the candidate's", evidence.port)
        }
    };
    let elsewhere = |addr: &&SocketAddr| !is_asked(**addr, evidence.port);
    let before = evidence.diagnosis.iter().flat_map(|diagnosis| &diagnosis.listeners);
    let listeners = evidence.listeners.iter().chain(before);
    Autopsy {
        summary,
        exit: evidence.exit.map(|exit| exit.to_string()),
        output: evidence.output,
        probe: evidence.probe,
        port: Some(evidence.port),
        listens_on: listeners.filter(elsewhere).map(ToString::to_string).collect(),
        hint,
    }
}

/// Whether a connection to `127.0.0.1:port`, which is what portok makes, reaches a listener at
/// `addr`.
fn is_asked(addr: SocketAddr, port: u16) -> bool {
    let ip = addr.ip().to_canonical();
    addr.port() == port && (ip == IpAddr::V4(Ipv4Addr::LOCALHOST) || ip.is_unspecified())
}

fn hint(cause: &Cause, evidence: &Evidence) -> Option<String> {
    let Evidence { port, port_env, .. } = evidence;
    match cause {
        Cause::Stranger(_) => {
            return Some(format!("find out what listens on port {port}; the next deploy gets another port"));
        }
        Cause::Unproven => {
            return Some(
                "set app.owner_check = \"warn\" if the app runs in a container or as another user".into(),
            );
        }
        Cause::Exited | Cause::TooSlow(_) => {}
    }
    let text = evidence.output.join("\n").to_lowercase();
    if tells_taken_port(&text) {
        return Some(format!(
            "the app found an address in use: it must listen on {port_env} ({port}) and on nothing that is fixed"
        ));
    }
    let by_status = hint_by_status(evidence);
    if matches!(cause, Cause::Exited) {
        let before = by_status.or_else(|| evidence.diagnosis.as_ref()?.hint.clone());
        let by_exit = evidence.exit.and_then(hint_by_exit);
        return match evidence.exit {
            _ if by_exit.is_some() => by_exit.map(str::to_owned),
            _ if before.is_some() => before,
            Some(Exit::Status(0)) => Some(
                "the command returned at once: it must stay in the foreground (no daemon mode, no trailing &)".into(),
            ),
            _ if evidence.output.is_empty() => {
                Some("it printed nothing: run the command by hand in the same directory".into())
            }
            _ => None,
        };
    }
    by_status.or_else(|| Some(hint_by_listeners(evidence)))
}

/// What an end alone tells, whatever the process was.
pub(super) fn hint_by_exit(exit: Exit) -> Option<&'static str> {
    match exit {
        Exit::Status(127) => Some("the shell did not find the command: check its name and PATH"),
        Exit::Status(126) => Some("the command is not executable: check its mode (chmod +x)"),
        Exit::Signal(9) => Some("it was killed: look for the kernel's out-of-memory killer"),
        _ => None,
    }
}

/// The hint for a candidate that answered its last probe, by the status.
fn hint_by_status(evidence: &Evidence) -> Option<String> {
    let Some(Ask::Get(path) | Ask::GetOverHttp2(path)) = &evidence.asked else { return None };
    let setting = evidence.setting("health.path").map(|name| format!("{name}, ")).unwrap_or_default();
    Some(match evidence.probe.as_ref()?.status? {
        300..=399 => format!(
            "{path} redirects: only 2xx is healthy; name a path that answers by itself ({setting}--health)"
        ),
        404 => format!("the app has no {path}: name its health path ({setting}--health)"),
        401 | 403 => format!("{path} asks for credentials: the probe has none"),
        400 | 421 => match evidence.setting("health.host") {
            Some(name) => {
                format!("the app may not know the probe's Host header: set {name} to a name it serves")
            }
            None => "the app may not know the probe's Host header: let it serve 127.0.0.1".to_owned(),
        },
        _ => format!("{path} answers, but not with 2xx: see the app's own output"),
    })
}

/// The hint for a candidate that gave no answer, by where it listens.
fn hint_by_listeners(evidence: &Evidence) -> String {
    let Evidence { port, port_env, listeners, .. } = evidence;
    let refused = evidence.probe.as_ref().is_some_and(|probe| probe.error.as_deref() == Some(REFUSED));
    // A wildcard of IPv6 may or may not take IPv4; only the probe can tell.
    let reached = |addr: &SocketAddr| is_asked(*addr, *port) && !(refused && addr.is_ipv6());
    if listeners.iter().any(reached) {
        let setting = in_brackets(evidence.setting("health.timeout"));
        let what = match &evidence.asked {
            Some(Ask::Get(path) | Ask::GetOverHttp2(path)) => path,
            _ => "its probe",
        };
        return format!("it accepts connections and does not answer {what} in time{setting}");
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
        None => {
            let setting = in_brackets(evidence.setting("app.start_timeout"));
            format!("nothing listens on {port_env} ({port}): the app ignores it, or needs longer{setting}")
        }
    }
}

fn in_brackets(setting: Option<&str>) -> String {
    setting.map(|name| format!(" ({name})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            port: 41237,
            port_env: "PORT".into(),
            asked: Some(Ask::Get("/health".into())),
            has_file: true,
            ..Evidence::default()
        }
    }

    fn late() -> Cause {
        Cause::TooSlow(Duration::from_secs(60))
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
        for (cause, seen, part) in [
            (late(), with_status(302), "redirects"),
            (late(), with_status(404), "has no /health"),
            (late(), with_status(401), "credentials"),
            (late(), with_status(500), "not with 2xx"),
            (late(), hangs, "does not answer"),
            (late(), evidence(), "nothing listens"),
            (Cause::Exited, exited(127), "did not find"),
            (Cause::Exited, exited(126), "not executable"),
            (Cause::Exited, exited(0), "foreground"),
            (Cause::Exited, exited(1), "printed nothing"),
            (Cause::Exited, in_use, "in use"),
            (Cause::Unproven, evidence(), "owner_check"),
            (Cause::Stranger("nc, pid 7".into()), evidence(), "what listens"),
        ] {
            let autopsy = examine(&cause, seen);
            let hint = autopsy.hint.unwrap_or_default();
            assert!(hint.contains(part), "{part}: {hint}");
        }
    }

    #[test]
    fn a_key_is_named_only_where_it_can_be_set() {
        let status = |status| Some(ProbeReport { status: Some(status), ..ProbeReport::default() });
        let hangs = || vec!["0.0.0.0:41237".parse().unwrap()];
        for (probe, listeners, in_file, without) in [
            (None, vec![], "app.start_timeout", None),
            (None, hangs(), "health.timeout", Some("HEALTH_TIMEOUT_MS")),
            (status(404), vec![], "health.path, --health", Some("HEALTH_PATH, --health")),
            (status(421), vec![], "health.host", None),
        ] {
            let told = |has_file| {
                let (probe, listeners) = (probe.clone(), listeners.clone());
                examine(&late(), Evidence { probe, listeners, has_file, ..evidence() }).hint.unwrap()
            };
            assert!(told(true).contains(in_file), "{}", told(true));
            let bare = told(false);
            assert!(!bare.contains(in_file) && without.is_none_or(|name| bare.contains(name)), "{bare}");
        }
    }

    #[test]
    fn an_app_that_ends_by_itself_keeps_what_was_found_out_while_it_ran() {
        let refused = Some(ProbeReport { error: Some(REFUSED.into()), ..ProbeReport::default() });
        let exit = |code| Some(Exit::Status(code));
        let listeners = vec!["127.0.0.1:3000".parse().unwrap()];
        let running = Evidence { listeners, probe: refused.clone(), ..evidence() };
        assert!(running.shows_a_listener() && !evidence().shows_a_listener());
        let diagnosis = Some(Diagnosis::of(&late(), &running));
        let ended = |code| {
            let (diagnosis, probe) = (diagnosis.clone(), refused.clone());
            examine(&Cause::Exited, Evidence { exit: exit(code), diagnosis, probe, ..evidence() })
        };
        for code in [0, 1, 124] {
            let hint = ended(code).hint.unwrap_or_default();
            assert_eq!(hint, "the app listens on 3000, PORT was 41237: it ignores PORT");
            assert_eq!(ended(code).listens_on, ["127.0.0.1:3000"]);
        }
        assert!(ended(127).hint.unwrap_or_default().contains("did not find"));
        let probe = Some(ProbeReport { status: Some(404), ..ProbeReport::default() });
        let output = vec!["bye".into()];
        let seen = Evidence { exit: exit(1), probe, output, ..evidence() };
        assert!(examine(&Cause::Exited, seen).hint.unwrap_or_default().contains("has no /health"));
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
