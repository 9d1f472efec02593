//! What most likely is wrong with a release that did not become healthy: pure, from what was seen.

use std::time::Duration;

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
    pub listeners: Vec<std::net::SocketAddr>,
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
    let own = |addr: &&std::net::SocketAddr| addr.port() != evidence.port;
    Autopsy {
        summary,
        exit: evidence.exit.map(|exit| exit.to_string()),
        output: evidence.output,
        probe: evidence.probe,
        port: Some(evidence.port),
        listens_on: evidence.listeners.iter().filter(own).map(ToString::to_string).collect(),
        hint,
    }
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
    let elsewhere = evidence.listeners.iter().find(|addr| addr.port() != *port);
    let on_port = evidence.listeners.iter().any(|addr| addr.port() == *port);
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
    match (status, elsewhere) {
        (Some(300..=399), _) => Some(format!(
            "{health_path} redirects: only 2xx is healthy; name a path that answers by itself (health.path, --health)"
        )),
        (Some(404), _) => {
            Some(format!("the app has no {health_path}: name its health path (health.path, --health)"))
        }
        (Some(401 | 403), _) => Some(format!("{health_path} asks for credentials: the probe has none")),
        (Some(400 | 421), _) => {
            Some("the app may not know the probe's Host header: set health.host to a name it serves".into())
        }
        (Some(_), _) => Some(format!("{health_path} answers, but not with 2xx: see the app's own output")),
        (None, Some(addr)) if !on_port => {
            Some(format!("the app listens on {}, {port_env} was {port}: it ignores {port_env}", addr.port()))
        }
        (None, _) if on_port => {
            Some(format!("it accepts connections and does not answer {health_path} in time (health.timeout)"))
        }
        (None, _) => Some(format!(
            "nothing listens on {port_env} ({port}): the app ignores it, or needs longer (app.start_timeout)"
        )),
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
    fn the_summary_of_a_slow_start_says_what_the_last_probe_saw() {
        let probe =
            ProbeReport { status: Some(301), location: Some("/login".into()), ..ProbeReport::default() };
        let autopsy = examine(&late(), Evidence { probe: Some(probe), ..evidence() });
        assert_eq!(autopsy.summary, "it was not healthy within 1m: status 301 to /login");
    }
}
