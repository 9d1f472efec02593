//! Failures as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::asking::{self, Address};
use super::super::failure::Failure;
use super::words::{ADVICE, BAD, DIM, paint, plain};
use crate::host::HostCode;
use crate::wire::{Autopsy, ErrorBody, Outcome, ProbeReport, exit};

/// A failure for people: what failed, the causes, what to do.
/// `address` is how the daemon was named, for the commands in the hint.
pub(crate) fn failure(failure: &Failure, address: &Address) -> String {
    let (headline, details, hint) = parts(failure);
    let hint = hint.map(|hint| addressed(failure, hint, address));
    let mut text = format!("{} {}\n", paint(BAD, "error:"), plain(&headline));
    text.push_str(&details);
    if let Some(hint) = hint {
        _ = writeln!(text, "{} {}", paint(ADVICE, "hint:"), plain(&hint));
    }
    text
}

/// A failure for scripts: the daemon's error body, or a value of the same shape.
pub(crate) fn failure_value(failure: &Failure, address: &Address) -> Value {
    if let Failure::Refused { body, .. } = failure
        && let Ok(mut value) = serde_json::to_value(body)
    {
        if let Some(hint) = &body.hint {
            value["hint"] = addressed(failure, hint.clone(), address).into();
        }
        return value;
    }
    let (headline, _, hint) = parts(failure);
    let hint = hint.map(|hint| addressed(failure, hint, address));
    let mut value = json!({ "error": title(failure), "message": headline, "code": failure.code() });
    if let Some(hint) = hint {
        value["hint"] = hint.into();
    }
    match failure {
        Failure::Unreachable { tried, .. } => {
            value["tried"] =
                tried.iter().map(|attempt| format!("{}: {}", attempt.way, attempt.cause)).collect();
        }
        Failure::RolledBack { release, .. } => {
            value["release"] = release.as_str().into();
            value["outcome"] = Outcome::RolledBack.as_str().into();
        }
        Failure::Unstable { release, .. } => value["release"] = release.as_str().into(),
        Failure::Host(failure) if !failure.causes.is_empty() => {
            value["causes"] = failure.causes.as_slice().into();
        }
        _ => {}
    }
    value
}

/// `hint` with its commands addressed to the daemon that was asked. Where the daemon was not
/// reached, the hint is about the way to it and stays as it is.
fn addressed(failure: &Failure, hint: String, address: &Address) -> String {
    match failure {
        Failure::Usage { .. } | Failure::Unreachable { .. } => hint,
        _ => asking::addressed(&hint, address),
    }
}

fn title(failure: &Failure) -> &'static str {
    match failure {
        Failure::Usage { .. } => "Wrong usage",
        Failure::Unreachable { .. } => "Daemon not reachable",
        Failure::Lost { .. } => "Connection lost",
        Failure::Foreign { .. } => "Not an answer of portokd",
        Failure::Refused { .. } => "Refused",
        Failure::RolledBack { .. } => "Rolled back",
        Failure::Unstable { .. } => "Release does not stay up",
        Failure::Interrupted { .. } => "Interrupted",
        Failure::Host(failure) => match failure.code {
            HostCode::Usage => "Wrong usage",
            HostCode::Failed => "Failed",
            _ => "Refused",
        },
        Failure::Output { .. } => "Output failed",
    }
}

/// The headline, the detail lines and the hint.
fn parts(failure: &Failure) -> (String, String, Option<String>) {
    let mut details = String::new();
    match failure {
        Failure::Usage { message, hint } => (message.clone(), details, hint.clone()),
        Failure::Unreachable { operation, instance, tried, hint } => {
            let whose = match (instance, &tried[..]) {
                (Some(name), _) => format!("the daemon of `{name}`"),
                (None, [one]) => format!("the daemon at {}", one.way),
                (None, _) => "the daemon".to_owned(),
            };
            for attempt in tried {
                cause(&mut details, &format!("{}: {}", attempt.way, attempt.cause));
            }
            (format!("{operation} failed: {whose} cannot be reached"), details, hint.clone())
        }
        Failure::Lost { operation, way, cause: why, hint } => {
            cause(&mut details, &format!("{way}: {why}"));
            (
                format!("{operation} broke off: the connection to the daemon was lost"),
                details,
                Some(hint.clone()),
            )
        }
        Failure::Foreign { operation, way, cause: why } => {
            cause(&mut details, &format!("{way}: {why}"));
            let hint = "is this the daemon's address, and is it of this version?".to_owned();
            (format!("{operation} failed: what answered is not portokd"), details, Some(hint))
        }
        Failure::Refused { operation, body, .. } => refused(operation, body),
        Failure::RolledBack { release, reason } => {
            let reason = reason.as_deref().unwrap_or("it turned bad within its watch window");
            let hint = format!("what it printed: portok logs --release {release}");
            (format!("`{release}` was rolled back: {reason}"), details, Some(hint))
        }
        Failure::Unstable { release, reason } => {
            let hint = format!("portok status; portok logs --release {release}");
            (format!("`{release}` does not stay up: {reason}"), details, Some(hint))
        }
        Failure::Interrupted { message, hint } => {
            (format!("interrupted: {message}"), details, Some(hint.clone()))
        }
        Failure::Host(failure) => {
            for why in &failure.causes {
                cause(&mut details, why);
            }
            (failure.message.clone(), details, failure.hint.clone())
        }
        Failure::Output { cause } => (cause.clone(), details, None),
    }
}

fn refused(operation: &str, body: &ErrorBody) -> (String, String, Option<String>) {
    let failure = Failure::Refused {
        operation: String::new(),
        body: Box::new(body.clone()),
        retry_after: None,
        no_socket: false,
    };
    let verb = match (body.outcome, failure.exit_code()) {
        (Some(Outcome::Cancelled), _) => "cancelled",
        (Some(Outcome::Interrupted), _) => "interrupted",
        (_, exit::ABORTED) => "aborted",
        (_, exit::ROLLED_BACK) => "rolled back",
        (_, exit::REFUSED) => "refused",
        _ => "failed",
    };
    let mut details = String::new();
    // A single error is the message itself.
    for error in body.errors.iter().filter(|_| body.errors.len() > 1) {
        cause(&mut details, error);
    }
    if body.before.is_some() {
        _ = writeln!(details, "  app.before has run, and is not undone");
    }
    let Some(autopsy) = &body.autopsy else {
        return (format!("{operation} {verb}: {}", body.message), details, body.hint.clone());
    };
    let summary = if autopsy.summary.is_empty() { &body.message } else { &autopsy.summary };
    write_autopsy(&mut details, summary, autopsy);
    let hint = autopsy.hint.clone().or_else(|| body.hint.clone());
    (format!("{operation} {verb}: {summary}"), details, hint)
}

/// The findings of an autopsy that `summary` does not contain.
fn write_autopsy(details: &mut String, summary: &str, autopsy: &Autopsy) {
    if let Some(exit) = autopsy.exit.as_ref().filter(|exit| !summary.contains(exit.as_str())) {
        cause(details, exit);
    }
    if let Some(probe) = &autopsy.probe {
        let said = probe_text(probe);
        if !summary.ends_with(&said) {
            let attempts =
                if probe.attempts > 1 { format!(" (of {})", probe.attempts) } else { String::new() };
            cause(details, &format!("last probe{attempts}: {said}"));
        } else if probe.body.is_some() {
            _ = writeln!(details, "  its last answer to the probe:");
        }
        for line in probe.body.iter().flat_map(|body| body.lines()) {
            _ = writeln!(details, "    {}", paint(DIM, plain(line)));
        }
    }
    if !autopsy.listens_on.is_empty() {
        let instead = autopsy.port.map(|port| format!(" instead of port {port}")).unwrap_or_default();
        let verb = if autopsy.exit.is_some() { "listened" } else { "listens" };
        cause(details, &format!("it {verb} on {}{instead}", autopsy.listens_on.join(", ")));
    }
    if !autopsy.output.is_empty() {
        _ = writeln!(details, "  its last output:");
        for line in &autopsy.output {
            _ = writeln!(details, "    {}", paint(DIM, plain(line)));
        }
    }
}

fn cause(details: &mut String, text: &str) {
    _ = writeln!(details, "  caused by: {}", plain(text));
}

/// The result of a probe in a few words.
pub(super) fn probe_text(probe: &ProbeReport) -> String {
    probe.said().map_or_else(|| "no answer".to_owned(), |said| plain(&said))
}

#[cfg(test)]
mod tests {
    use super::super::super::failure::Attempt;
    use super::*;
    use crate::wire::Code;

    fn text(failure: &Failure) -> String {
        text_at(failure, "")
    }

    fn text_at(failure: &Failure, way: &str) -> String {
        anstream::adapter::strip_str(&super::failure(failure, &at(way))).to_string()
    }

    fn at(way: &str) -> Address {
        Address { way: way.to_owned(), app: String::new() }
    }

    #[test]
    fn an_abort_shows_its_autopsy() {
        let mut body =
            ErrorBody::new(Code::DeployAborted, "Deploy aborted", "release `v2` did not become live");
        body.autopsy = Some(Autopsy {
            summary: "it exited before it became healthy".into(),
            exit: Some("exit status 1".into()),
            output: vec!["Error: Cannot find module \x1b[31m'express'\x1b[0m".into()],
            probe: Some(ProbeReport {
                status: Some(302),
                location: Some("/login".into()),
                body: Some("moved".into()),
                attempts: 12,
                ..ProbeReport::default()
            }),
            port: Some(41873),
            listens_on: vec!["127.0.0.1:3000".into()],
            hint: Some("let the app listen on $PORT".into()),
        });
        let refused = Failure::Refused {
            operation: "deploy of `v2`".into(),
            body: Box::new(body),
            retry_after: None,
            no_socket: false,
        };
        let expected = "\
error: deploy of `v2` aborted: it exited before it became healthy
  caused by: exit status 1
  caused by: last probe (of 12): status 302 to /login
    moved
  caused by: it listened on 127.0.0.1:3000 instead of port 41873
  its last output:
    Error: Cannot find module 'express'
hint: let the app listen on $PORT
";
        assert_eq!(text(&refused), expected);
        assert_eq!(failure_value(&refused, &at(""))["autopsy"]["exit"], "exit status 1");
    }

    #[test]
    fn a_hint_leads_to_the_daemon_that_was_asked() {
        let hint = "wait for it (portok status), or end it with: portok cancel; portok itself goes on";
        let body = ErrorBody::new(Code::Busy, "Busy", "another attempt is under way").with_hint(hint);
        let refused = Failure::Refused {
            operation: "deploy".into(),
            body: Box::new(body),
            retry_after: None,
            no_socket: false,
        };
        let expected = "wait for it (portok --instance b status), or end it with: portok --instance b cancel; \
                        portok itself goes on";
        let told = text_at(&refused, "--instance b");
        assert!(told.contains(expected), "{told}");
        assert_eq!(failure_value(&refused, &at("--instance b"))["hint"], expected);
        assert!(text(&refused).contains(hint));
    }

    #[test]
    fn what_the_last_probe_saw_is_told_once() {
        let mut body = ErrorBody::new(Code::DeployAborted, "Deploy aborted", "m");
        let told = |body: &ErrorBody| {
            let body = Box::new(body.clone());
            text(&Failure::Refused {
                operation: "deploy of `v2`".into(),
                body,
                retry_after: None,
                no_socket: false,
            })
        };
        let error = Some("connection refused".into());
        body.autopsy = Some(Autopsy {
            summary: "it was not healthy within 1m: connection refused".into(),
            probe: Some(ProbeReport { error, attempts: 622, ..ProbeReport::default() }),
            ..Autopsy::default()
        });
        assert_eq!(
            told(&body),
            "error: deploy of `v2` aborted: it was not healthy within 1m: connection refused\n"
        );
        let probe = ProbeReport {
            status: Some(302),
            location: Some("/login".into()),
            body: Some("moved".into()),
            attempts: 12,
            ..ProbeReport::default()
        };
        body.autopsy = Some(Autopsy {
            summary: "it was not healthy within 1m: status 302 to /login".into(),
            probe: Some(probe),
            ..Autopsy::default()
        });
        let expected = "\
error: deploy of `v2` aborted: it was not healthy within 1m: status 302 to /login
  its last answer to the probe:
    moved
";
        assert_eq!(told(&body), expected);
    }

    #[test]
    fn an_unreachable_daemon_names_each_way() {
        let tried = vec![
            Attempt {
                way: "/run/portok/api/admin.sock".into(),
                cause: "permission denied".into(),
                denied: true,
            },
            Attempt {
                way: "http://127.0.0.1:3000".into(),
                cause: "connection refused".into(),
                denied: false,
            },
        ];
        let failure = Failure::Unreachable {
            operation: "status".into(),
            instance: Some("api".into()),
            tried,
            hint: Some("use sudo".into()),
        };
        let expected = "\
error: status failed: the daemon of `api` cannot be reached
  caused by: /run/portok/api/admin.sock: permission denied
  caused by: http://127.0.0.1:3000: connection refused
hint: use sudo
";
        assert_eq!(text(&failure), expected);
        let value = failure_value(&failure, &at(""));
        assert_eq!(value["code"], "unreachable");
        assert_eq!(value["tried"][1], "http://127.0.0.1:3000: connection refused");
        assert_eq!(value["hint"], "use sudo");
    }

    #[test]
    fn all_errors_of_a_configuration_are_listed() {
        let mut body = ErrorBody::new(Code::ConfigInvalid, "Invalid", "the file does not validate");
        body.errors = vec!["api.toml:3:1 listen: not a port".into(), "api.toml:5:1 lsten: unknown".into()];
        let refused = Failure::Refused {
            operation: "reload".into(),
            body: Box::new(body),
            retry_after: None,
            no_socket: false,
        };
        let expected = "\
error: reload failed: the file does not validate
  caused by: api.toml:3:1 listen: not a port
  caused by: api.toml:5:1 lsten: unknown
";
        assert_eq!(text(&refused), expected);
    }
}
