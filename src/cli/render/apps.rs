//! `portok apps`: one line for each app of an instance, and below what is wrong.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::Style;

use super::status::redis_trouble;
use super::tables::columns;
use super::words::{ADVICE, BAD, BUSY, DIM, STRONG, cut, paint, phase_style, plain};
use crate::wire::{AppRow, InstanceStatus};

/// The widest list of hosts, in characters. `--json` has them in full.
const WHERE: usize = 44;

/// The table of apps; `instance` is what the daemon says of itself.
pub(crate) fn apps(rows: &[AppRow], instance: Option<&InstanceStatus>) -> String {
    let troubles = instance.and_then(troubles).unwrap_or_default();
    if rows.is_empty() {
        let add = "portok add NAME --to INSTANCE --host HOST --cmd \"node server.js\"";
        let redis = "where it has [redis], each list frontend:HOST is one too";
        return format!("no apps yet; add one: {add}; {redis}\n{troubles}");
    }
    let head = ["APP", "FOR", "PHASE", "LIVE", "READY", "REQ/S", "5XX", "P99", "FROM"];
    let cells = rows.iter().map(|row| {
        let (share, failing) = errors(row);
        [
            (STRONG, plain(&row.app)),
            (Style::new(), cut(&plain(&place(row)), WHERE)),
            (phase_style(row.phase), row.phase.as_str().to_owned()),
            (Style::new(), row.live.as_deref().map_or_else(dash, plain)),
            ready(row),
            (Style::new(), row.rps.map_or_else(dash, |rps| format!("{rps:.1}"))),
            (if failing { BAD } else { Style::new() }, share),
            (Style::new(), row.p99_ms.map_or_else(dash, |time| format!("≤{time:.0} ms"))),
            (DIM, row.source.as_str().to_owned()),
        ]
    });
    let mut text = String::new();
    columns(head, cells).iter().for_each(|line| _ = writeln!(text, "{line}"));
    text.push_str(&troubles);
    for row in rows {
        for error in row.error.iter().flat_map(|error| error.lines()) {
            _ = writeln!(text, "{} {}", paint(BAD, format_args!("! {}:", plain(&row.app))), plain(error));
        }
    }
    text
}

/// What is wrong with an instance, whatever its apps are: its newest configuration is not in force,
/// or Redis does not say what it should.
pub(crate) fn troubles(instance: &InstanceStatus) -> Option<String> {
    let name = paint(BAD, format_args!("! {}:", plain(&instance.name)));
    let not_loaded = instance.config.error.iter().flat_map(|error| error.lines());
    let not_loaded = not_loaded.map(|error| format!("its configuration is not in force: {}", plain(error)));
    let redis = instance.redis.as_ref().and_then(redis_trouble);
    let redis = redis.map(|trouble| format!("Redis: {}", plain(&trouble)));
    let lines: String = not_loaded.chain(redis).map(|trouble| format!("{name} {trouble}\n")).collect();
    (!lines.is_empty()).then_some(lines)
}

/// The apps of an instance that was asked for the status of none in particular.
pub(crate) fn overview(rows: &[AppRow], instance: Option<&InstanceStatus>) -> String {
    let mut text = apps(rows, instance);
    if let Some(first) = rows.first() {
        let named = plain(&first.app);
        _ = writeln!(
            text,
            "{} one of them in full: --app {named}, or INSTANCE/{named} where the instance is named",
            paint(ADVICE, "hint:")
        );
    }
    text
}

/// The time of `status --wait` is over, and these apps are not healthy.
pub(crate) fn unwell(rows: &[AppRow], within: Duration) -> String {
    let named: Vec<_> = rows
        .iter()
        .map(|row| format!("{} ({})", plain(&row.app), paint(phase_style(row.phase), row.phase.as_str())))
        .collect();
    let within = humantime::format_duration(within);
    format!("{} not healthy after {within}: {}", paint(BAD, "error:"), named.join(", "))
}

/// For which requests: hosts with paths, and addresses of its own; of a list in Redis its label.
fn place(row: &AppRow) -> String {
    let paths: &[String] = if row.paths == ["/"] { &[] } else { &row.paths };
    let routes = row.hosts.iter().flat_map(|host| {
        let plain = paths.is_empty().then(|| host.clone());
        plain.into_iter().chain(paths.iter().map(move |path| format!("{host}{path}")))
    });
    let all: Vec<_> = routes.chain(row.listen.iter().cloned()).collect();
    let label = row.label.iter().filter(|label| !label.is_empty()).map(|label| format!(" ({label})"));
    all.join(", ") + &label.collect::<String>()
}

/// How many of its replicas or targets get requests.
fn ready(row: &AppRow) -> (Style, String) {
    let Some(replicas) = row.replicas else { return (Style::new(), dash()) };
    let style = if replicas.ready < replicas.wanted { BUSY } else { Style::new() };
    (style, format!("{}/{}", replicas.ready, replicas.wanted))
}

/// The share of answers of 500 and above, and whether there are any.
fn errors(row: &AppRow) -> (String, bool) {
    row.error_ratio.map_or_else(|| (dash(), false), |ratio| (format!("{:.1}%", ratio * 100.0), ratio > 0.0))
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AppSource, Phase, Replicas};

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn row(app: &str) -> AppRow {
        AppRow {
            app: app.into(),
            hosts: vec!["*".into()],
            paths: vec!["/".into()],
            listen: Vec::new(),
            phase: Phase::Settled,
            live: None,
            replicas: None,
            label: None,
            rps: Some(0.0),
            error_ratio: None,
            p99_ms: None,
            source: AppSource::File,
            error: None,
        }
    }

    #[test]
    fn apps_stand_in_columns_with_what_is_wrong_below() {
        let api = AppRow {
            hosts: vec!["api.example.com".into(), "*.api.example.com".into()],
            live: Some("v2".into()),
            replicas: Some(Replicas { ready: 1, wanted: 1 }),
            rps: Some(12.34),
            error_ratio: Some(0.001),
            p99_ms: Some(25.0),
            ..row("api")
        };
        let hook = AppRow {
            hosts: Vec::new(),
            listen: vec!["127.0.0.1:9080".into()],
            phase: Phase::Unhealthy,
            replicas: Some(Replicas { ready: 0, wanted: 2 }),
            error: Some("hook.toml:1:1 no\nhook.toml:2:1 no".into()),
            ..row("hook")
        };
        let docs = AppRow { paths: vec!["/docs".into(), "/v1".into()], ..row("www") };
        let expected = "\
APP   FOR                                 PHASE      LIVE  READY  REQ/S  5XX   P99     FROM
api   api.example.com, *.api.example.com  settled    v2    1/1    12.3   0.1%  ≤25 ms  file
hook  127.0.0.1:9080                      unhealthy  -     0/2    0.0    -     -       file
www   */docs, */v1                        settled    -     -      0.0    -     -       file
! hook: hook.toml:1:1 no
! hook: hook.toml:2:1 no
";
        assert_eq!(stripped(&apps(&[api, hook, docs], None)), expected);
        assert!(apps(&[], None).contains("portok add NAME --to"));
    }

    #[test]
    fn what_is_wrong_with_the_instance_is_said_also_without_an_app() {
        let mut status = super::super::status::tests::empty();
        status.config.error = Some("edge.toml:3:1 redirct: unknown\nedge.toml:4:1 no".into());
        let instance = InstanceStatus::of(&status);
        let expected = "\
! api: its configuration is not in force: edge.toml:3:1 redirct: unknown
! api: its configuration is not in force: edge.toml:4:1 no
";
        assert!(stripped(&apps(&[], Some(&instance))).ends_with(expected));
        let told = stripped(&overview(&[row("web")], Some(&instance)));
        assert!(told.contains(&format!("file\n{expected}hint:")), "{told}");
        status.config.error = None;
        assert_eq!(troubles(&InstanceStatus::of(&status)), None);
    }

    #[test]
    fn an_overview_says_how_to_name_one() {
        let told = stripped(&overview(&[row("api"), row("web")], None));
        assert!(told.ends_with(
            "hint: one of them in full: --app api, or INSTANCE/api where the instance is named\n"
        ));
    }
}
