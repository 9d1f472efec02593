//! The counters in the Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Pure. Each family is written once, with `HELP` and `TYPE` before its samples.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::proxy::Snapshot;
use crate::wire::{HealthMetrics, Phase, RedisStatus, Replicas, Status};

/// The media type of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const PHASES: [Phase; 11] = [
    Phase::Empty,
    Phase::Idle,
    Phase::Starting,
    Phase::Unhealthy,
    Phase::Degraded,
    Phase::Unstable,
    Phase::Watching,
    Phase::Settled,
    Phase::Restarting,
    Phase::Failed,
    Phase::Stopping,
];

/// What the text tells of.
pub(super) struct Exposition<'a> {
    pub(super) instance: &'a str,
    pub(super) version: &'a str,
    pub(super) started_at: SystemTime,
    /// The counters of client connections; those of requests in it are not read.
    pub(super) plane: &'a Snapshot,
    pub(super) parts: &'a [Part],
    /// How it stands with Redis, where apps are read from it.
    pub(super) redis: Option<&'a RedisStatus>,
}

/// What is counted apart: an app, or what belongs to no app.
pub(super) struct Part {
    /// The value of the label `app`; without one the samples have no such label.
    pub(super) app: Option<String>,
    /// How the app is. `None`: only its requests are counted.
    pub(super) life: Option<Life>,
    pub(super) counters: Snapshot,
}

/// How an app is.
pub(super) struct Life {
    pub(super) status: Status,
    /// How many of its replicas or targets get requests, and how many there should be; `None` where
    /// it has neither.
    pub(super) replicas: Option<Replicas>,
    pub(super) health: HealthMetrics,
}

/// The whole text.
pub(super) fn write(from: &Exposition<'_>) -> String {
    let mut page = Page { text: String::with_capacity(4096), parts: from.parts };
    page.daemon(from);
    page.app();
    page.troubles();
    if let Some(redis) = from.redis {
        page.redis(redis);
    }
    page.traffic(from.plane);
    page.refusals(from.plane);
    page.responses();
    page.durations();
    page.text
}

/// The text so far, and whose samples each family has.
struct Page<'a> {
    text: String,
    parts: &'a [Part],
}

/// The families.
impl<'a> Page<'a> {
    fn daemon(&mut self, from: &Exposition<'_>) {
        self.family("portok_info", "gauge", "The daemon's version and instance.");
        self.sample("portok_info", &[("version", from.version), ("instance", from.instance)], 1);
        let started = from.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.family(
            "portok_start_time_seconds",
            "gauge",
            "When the daemon started, in seconds since the epoch.",
        );
        self.sample("portok_start_time_seconds", &[], Float(started));
    }

    fn app(&mut self) {
        self.family(
            "portok_phase",
            "gauge",
            "Where the app's life stands: 1 for its phase, 0 for the others.",
        );
        for (part, life) in self.lives() {
            // An app of one replica that is alone in its file has no set that could be degraded, or
            // that nobody asks for.
            let has_set = part.app.is_some() || life.status.replicas.is_some();
            let may_be = |phase: &Phase| !matches!(phase, Phase::Degraded | Phase::Idle) || has_set;
            for phase in PHASES.into_iter().filter(may_be) {
                let is = u8::from(phase == life.status.phase);
                self.sample("portok_phase", &part.labels(&[("phase", phase.as_str())]), is);
            }
        }
        self.family("portok_live_release", "gauge", "The release that serves.");
        for (part, life) in self.lives() {
            if let Some(live) = &life.status.live {
                self.sample("portok_live_release", &part.labels(&[("release", &live.release)]), 1);
            }
        }
        self.of_lives("portok_active_port", "Where new requests go, 0 when nothing serves.", |life| {
            u64::from(life.status.active_port.unwrap_or(0))
        });
        self.replicas();
        self.of_lives(
            "portok_live_restarts",
            "How often the live release was started again after a crash.",
            |life| life.status.live.as_ref().map_or(0, |live| u64::from(live.restarts)),
        );
        self.of_lives(
            "portok_target_healthy",
            "Whether the live target answered its last probe with 2xx.",
            |life| u64::from(life.health.active_port_ok),
        );
        self.of_lives("portok_target_failed_probes", "Failed probes of the live target in a row.", |life| {
            u64::from(life.health.consecutive_fails)
        });
    }

    fn replicas(&mut self) {
        const READY: &str = "portok_replicas_ready";
        const WANTED: &str = "portok_replicas_wanted";
        let of_set = |(part, life): (&'a Part, &'a Life)| Some((part, life.replicas?));
        self.family(READY, "gauge", "The replicas or targets that get requests.");
        for (part, replicas) in self.lives().filter_map(of_set) {
            self.sample(READY, &part.labels(&[]), replicas.ready);
        }
        self.family(WANTED, "gauge", "The replicas or targets that there should be.");
        for (part, replicas) in self.lives().filter_map(of_set) {
            self.sample(WANTED, &part.labels(&[]), replicas.wanted);
        }
    }

    fn troubles(&mut self) {
        self.of_lives("portok_config_error", "Whether the newest configuration file was refused.", |life| {
            u64::from(life.status.config.error.is_some())
        });
        self.of_lives("portok_state_error", "Whether the state file cannot be written.", |life| {
            u64::from(life.status.state_error.is_some())
        });
    }

    fn redis(&mut self, redis: &RedisStatus) {
        const CONNECTED: &str = "portok_redis_connected";
        self.family(CONNECTED, "gauge", "Whether the hosts in force are those of Redis.");
        self.sample(CONNECTED, &[], u8::from(redis.connected));
        const HOSTS: &str = "portok_redis_hosts";
        self.family(HOSTS, "gauge", "Hosts of Redis that are in force.");
        self.sample(HOSTS, &[], redis.hosts);
    }

    fn traffic(&mut self, plane: &Snapshot) {
        const OPEN: &str = "portok_client_connections";
        self.family(OPEN, "gauge", "Client connections that are open.");
        self.sample(OPEN, &[], plane.client_connections);
        self.of_parts("portok_requests_inflight", "gauge", "Requests and tunnels under way.", |counters| {
            counters.inflight
        });
        self.of_parts(
            "portok_requests_inflight_max",
            "gauge",
            "The most requests and tunnels at once.",
            |counters| counters.inflight_max,
        );
        self.of_parts(
            "portok_requests_total",
            "counter",
            "Requests to the app, without admin requests.",
            |counters| counters.total_requests,
        );
        self.of_parts(
            "portok_proxy_errors_total",
            "counter",
            "Requests that portok answered with an error of its own, or broke off.",
            |counters| counters.total_proxy_errors,
        );
        self.of_parts(
            "portok_upstream_connections_total",
            "counter",
            "Connections opened to apps.",
            |counters| counters.upstream_sockets_created,
        );
    }

    fn refusals(&mut self, plane: &Snapshot) {
        const CONNECTIONS: &str = "portok_connections_refused_total";
        self.family(
            CONNECTIONS,
            "counter",
            "Client connections that were closed at once, by the limit that was full.",
        );
        for (reason, count) in &plane.connections_refused {
            self.sample(CONNECTIONS, &[("reason", reason)], count);
        }
        const LINES: &str = "portok_access_dropped_total";
        self.family(LINES, "counter", "Lines of the access log that were lost: it was full, or not read.");
        self.sample(LINES, &[], plane.access_dropped);
        const REQUESTS: &str = "portok_requests_refused_total";
        self.family(REQUESTS, "counter", "Requests that a limit refused, by code.");
        for part in self.parts {
            for (reason, count) in &part.counters.requests_refused {
                self.sample(REQUESTS, &part.labels(&[("reason", reason)]), count);
            }
        }
    }

    fn responses(&mut self) {
        const ALL: &str = "portok_responses_total";
        self.family(ALL, "counter", "Answers by class of their status.");
        for part in self.parts {
            for (class, count) in CLASSES.iter().zip(part.counters.by_class) {
                self.sample(ALL, &part.labels(&[("class", class)]), count);
            }
        }
        const BY_RELEASE: &str = "portok_release_responses_total";
        self.family(BY_RELEASE, "counter", "Answers by release and class of their status.");
        // Only where there are releases: what belongs to several apps has names of several.
        for part in self.parts.iter().filter(|part| part.life.is_some()) {
            for (release, by_class) in merged(&part.counters.by_release) {
                for (class, count) in CLASSES.iter().zip(by_class) {
                    self.sample(BY_RELEASE, &part.labels(&[("release", release), ("class", class)]), count);
                }
            }
        }
    }

    fn durations(&mut self) {
        const NAME: &str = "portok_request_duration_seconds";
        const BUCKET: &str = "portok_request_duration_seconds_bucket";
        self.family(
            NAME,
            "histogram",
            "How long requests took, from their head to the last byte of the answer.",
        );
        for part in self.parts {
            let counters = &part.counters;
            // The threads go on counting while this is read, and no bucket may be larger than a
            // later one.
            let mut reached = 0;
            for (bound, count) in &counters.latency_buckets {
                reached = reached.max(*count);
                self.sample(BUCKET, &part.labels(&[("le", &Float(*bound).to_string())]), reached);
            }
            reached = reached.max(counters.latency_count);
            self.sample(BUCKET, &part.labels(&[("le", "+Inf")]), reached);
            self.sample(&format!("{NAME}_sum"), &part.labels(&[]), Float(counters.latency_sum));
            self.sample(&format!("{NAME}_count"), &part.labels(&[]), reached);
        }
    }

    /// The apps of which more than requests is told.
    fn lives(&self) -> impl Iterator<Item = (&'a Part, &'a Life)> + use<'a> {
        self.parts.iter().filter_map(|part| Some((part, part.life.as_ref()?)))
    }

    /// A gauge of each app.
    fn of_lives(&mut self, name: &str, help: &str, value: impl Fn(&Life) -> u64) {
        self.family(name, "gauge", help);
        for (part, life) in self.lives() {
            self.sample(name, &part.labels(&[]), value(life));
        }
    }

    /// A number of the requests of each part.
    fn of_parts(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&Snapshot) -> u64) {
        self.family(name, kind, help);
        for part in self.parts {
            self.sample(name, &part.labels(&[]), value(&part.counters));
        }
    }
}

impl Part {
    /// `more`, behind the app's own label.
    fn labels<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let app = self.app.as_deref().map(|app| ("app", app));
        app.into_iter().chain(more.iter().copied()).collect()
    }
}

/// The format.
impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut text = String::new();
        for (index, (label, content)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            text.push(separator);
            text.push_str(label);
            text.push_str("=\"");
            for character in content.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    other => text.push(other),
                }
            }
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        self.line(format_args!("{name}{text} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// The counters of each release. Older releases are summed up under one name, which another release
/// may have too: a sample is written once.
fn merged(by_release: &[(String, [u64; 5])]) -> Vec<(&str, [u64; 5])> {
    let mut rows: Vec<(&str, [u64; 5])> = Vec::with_capacity(by_release.len());
    for (release, by_class) in by_release {
        if let Some((_, sums)) = rows.iter_mut().find(|(known, _)| known == release) {
            for (sum, count) in sums.iter_mut().zip(by_class) {
                *sum = sum.saturating_add(*count);
            }
        } else {
            rows.push((release, *by_class));
        }
    }
    rows
}

/// A number as the format spells it: `+Inf` where Rust says `inf`.
struct Float(f64);

impl Display for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_infinite() {
            f.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            // Rust's shortest form; `NaN` is spelt alike.
            write!(f, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::wire::{ConfigStatus, ReleaseStatus, Traffic};

    fn status() -> Status {
        Status {
            active_port: Some(8081),
            drain_until: None,
            last_switch: None,
            instance: "i".to_owned(),
            app: None,
            phase: Phase::Watching,
            live: Some(ReleaseStatus {
                release: "v2".to_owned(),
                port: Some(8081),
                pid: None,
                started_at: None,
                restarts: 3,
                inflight: 0,
                step: None,
            }),
            candidate: None,
            previous: None,
            watch_until: None,
            config: ConfigStatus {
                file: None,
                loaded_at: String::new(),
                error: Some("bad".to_owned()),
                app_in_force: None,
                pending: false,
            },
            version: "1.2.3".to_owned(),
            listen: "0.0.0.0:3000".to_owned(),
            pid: 1,
            quarantined: Vec::new(),
            replicas: None,
            scale: None,
            targets: Vec::new(),
            traffic: Traffic::Open,
            paused: None,
            frozen: None,
            plan: None,
            redis: None,
            state_error: None,
            health: Default::default(),
            last_failure: None,
            last_failure_at: None,
            last_exit: None,
        }
    }

    fn part(app: Option<&str>, counters: &Snapshot, status: &Status) -> Part {
        let health = HealthMetrics { active_port_ok: true, last_checked_at: None, consecutive_fails: 2 };
        let replicas = Some(Replicas { ready: 1, wanted: 2 });
        let life = Some(Life { status: status.clone(), replicas, health });
        Part { app: app.map(str::to_owned), life, counters: counters.clone() }
    }

    fn page_of(parts: &[Part], plane: &Snapshot) -> String {
        write(&Exposition {
            instance: "we\"ird\\one\nname",
            version: "1.2.3",
            started_at: UNIX_EPOCH + std::time::Duration::from_millis(1_500),
            plane,
            parts,
            redis: None,
        })
    }

    fn page(counters: &Snapshot, status: &Status) -> String {
        page_of(&[part(None, counters, status)], counters)
    }

    fn full() -> Snapshot {
        Snapshot {
            inflight: 4,
            inflight_max: 9,
            total_requests: 100,
            total_proxy_errors: 7,
            by_class: [1, 80, 5, 6, 8],
            rolling_rps60: 1.5,
            upstream_sockets_created: 3,
            client_connections: 2,
            connections_refused: vec![("connections", 1), ("connections_per_address", 2)],
            access_dropped: 11,
            requests_refused: vec![("too_many_at_once", 3)],
            latency_buckets: vec![(0.001, 10), (0.5, 8), (1.0, 90)],
            latency_sum: 12.25,
            latency_count: 89,
            by_release: vec![
                ("other".to_owned(), [0, 1, 0, 0, 0]),
                ("v1".to_owned(), [0, 2, 0, 0, 0]),
                ("other".to_owned(), [0, 4, 0, 0, 1]),
            ],
            last_error: None,
        }
    }

    /// A strict reader of the format: samples by name and raw labels. Panics where the grammar is
    /// broken.
    fn read(page: &str) -> BTreeMap<String, f64> {
        let is_name = |name: &str| {
            name.starts_with("portok_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let mut families: BTreeMap<&str, &str> = BTreeMap::new();
        let mut helped = BTreeSet::new();
        let mut samples = BTreeMap::new();
        assert!(page.ends_with('\n'));
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(is_name(name) && !text.is_empty() && helped.insert(name), "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(helped.contains(name), "HELP before TYPE: {line}");
                assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name, kind).is_none(), "a family is written once: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = match value {
                "+Inf" => f64::INFINITY,
                other => other.parse().unwrap_or_else(|_| panic!("{line}")),
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert!(is_name(name), "{line}");
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = base.filter(|base| families.get(base) == Some(&"histogram")).unwrap_or(name);
            assert_eq!(families.keys().last().map(|_| families.contains_key(family)), Some(true), "{line}");
            let mut rest = labels;
            while rest != "}" {
                rest = rest.trim_start_matches(',');
                let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(label.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
                let mut escaped = false;
                let end = after
                    .find(|c| {
                        let ends = c == '"' && !escaped;
                        escaped = c == '\\' && !escaped;
                        ends
                    })
                    .unwrap_or_else(|| panic!("{line}"));
                rest = &after[end + 1..];
            }
            assert!(samples.insert(series.to_owned(), value).is_none(), "a sample is written once: {line}");
        }
        samples
    }

    #[test]
    fn the_page_keeps_the_grammar_and_the_numbers() {
        let samples = read(&page(&full(), &status()));
        for (series, value) in [
            (r#"portok_info{version="1.2.3",instance="we\"ird\\one\nname"}"#, 1.0),
            ("portok_start_time_seconds", 1.5),
            (r#"portok_phase{phase="watching"}"#, 1.0),
            (r#"portok_phase{phase="settled"}"#, 0.0),
            (r#"portok_live_release{release="v2"}"#, 1.0),
            ("portok_active_port", 8081.0),
            ("portok_live_restarts", 3.0),
            ("portok_target_healthy", 1.0),
            ("portok_target_failed_probes", 2.0),
            ("portok_config_error", 1.0),
            ("portok_state_error", 0.0),
            ("portok_requests_total", 100.0),
            ("portok_proxy_errors_total", 7.0),
            (r#"portok_responses_total{class="1xx"}"#, 1.0),
            (r#"portok_responses_total{class="5xx"}"#, 8.0),
            (r#"portok_release_responses_total{release="other",class="2xx"}"#, 5.0),
            (r#"portok_release_responses_total{release="v1",class="2xx"}"#, 2.0),
            (r#"portok_request_duration_seconds_bucket{le="0.001"}"#, 10.0),
            (r#"portok_request_duration_seconds_bucket{le="0.5"}"#, 10.0),
            (r#"portok_request_duration_seconds_bucket{le="1"}"#, 90.0),
            (r#"portok_request_duration_seconds_bucket{le="+Inf"}"#, 90.0),
            ("portok_request_duration_seconds_sum", 12.25),
            ("portok_request_duration_seconds_count", 90.0),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series} in {samples:#?}");
        }
        let phases = samples.iter().filter(|(series, _)| series.starts_with("portok_phase"));
        assert!((phases.map(|(_, value)| value).sum::<f64>() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_daemon_that_served_nothing_has_a_page_too() {
        let nothing = Status { active_port: None, live: None, phase: Phase::Empty, ..status() };
        let samples = read(&page(&Snapshot::default(), &nothing));
        assert_eq!(samples["portok_active_port"], 0.0);
        assert!(!samples.keys().any(|series| series.starts_with("portok_live_release")));
        assert_eq!(samples[r#"portok_request_duration_seconds_bucket{le="+Inf"}"#], 0.0);
    }

    #[test]
    fn of_several_apps_each_sample_says_whose_it_is() {
        let other = Status { phase: Phase::Failed, live: None, ..status() };
        let few = Snapshot { total_requests: 3, ..Snapshot::default() };
        let parts = [
            part(Some("api"), &full(), &status()),
            part(Some("web"), &few, &other),
            Part { app: Some("redis".into()), life: None, counters: few.clone() },
            Part { app: None, life: None, counters: few.clone() },
        ];
        let samples = read(&page_of(&parts, &full()));
        for (series, value) in [
            (r#"portok_phase{app="api",phase="watching"}"#, 1.0),
            (r#"portok_phase{app="web",phase="failed"}"#, 1.0),
            (r#"portok_live_release{app="api",release="v2"}"#, 1.0),
            (r#"portok_config_error{app="web"}"#, 1.0),
            (r#"portok_requests_total{app="api"}"#, 100.0),
            (r#"portok_requests_total{app="web"}"#, 3.0),
            (r#"portok_requests_total{app="redis"}"#, 3.0),
            ("portok_requests_total", 3.0),
            (r#"portok_release_responses_total{app="api",release="v1",class="2xx"}"#, 2.0),
            (r#"portok_request_duration_seconds_bucket{app="api",le="+Inf"}"#, 90.0),
            (r#"portok_request_duration_seconds_count{app="web"}"#, 0.0),
            ("portok_client_connections", 2.0),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series} in {samples:#?}");
        }
        assert!(!samples.keys().any(|series| series.starts_with("portok_phase{app=\"redis")));
        assert!(!samples.contains_key("portok_active_port"), "no app is without a name");
    }
}
