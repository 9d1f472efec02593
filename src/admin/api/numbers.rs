//! The counters of one app, or of all together, as JSON and as Prometheus text.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::super::answer;
use super::super::prometheus::{self, Exposition, Life, Part};
use super::super::routes::MetricsFormat;
use super::super::rows::rounded;
use super::Admin;
use crate::apps::App;
use crate::config::{APPS_OF_REDIS, Config};
use crate::proxy::{self, ReservedBody};
use crate::wire::{self, AppSource};

impl Admin {
    /// Answers with the counters of `named`, or of all apps.
    pub(super) async fn numbers(
        &self,
        named: Option<App>,
        format: MetricsFormat,
        config: &Config,
    ) -> Response<ReservedBody> {
        match format {
            MetricsFormat::Json => answer::json(StatusCode::OK, &self.metrics(named.as_ref(), config)),
            MetricsFormat::Prometheus => {
                let text = self.exposition(named, config).await;
                answer::whole(StatusCode::OK, prometheus::CONTENT_TYPE, text)
            }
        }
    }

    fn metrics(&self, named: Option<&App>, config: &Config) -> wire::Metrics {
        let (counters, health, debug) = match named {
            Some(app) => (app.counters().snapshot(), app.health(), app.config().upstream.debug),
            None if self.parts.apps.has_several() => {
                let (mut sum, mut health) = (self.parts.counters.snapshot(), Vec::new());
                for app in self.parts.apps.of_files() {
                    sum.add(app.counters().snapshot());
                    health.push(app.health());
                }
                if let Some(redis) = self.parts.apps.counters_of_redis() {
                    sum.add(redis.snapshot());
                }
                (sum, health_of_all(&health), config.app.upstream.debug)
            }
            None => {
                let health = self.parts.apps.find(None).map(|app| app.health()).unwrap_or_default();
                (self.parts.counters.snapshot(), health, config.app.upstream.debug)
            }
        };
        let instance = (named.is_none() && self.parts.apps.has_several()).then(|| self.instance(config));
        let is_of_all = named.is_none() || !self.parts.apps.has_several();
        let access_dropped = (is_of_all && config.access.is_on()).then_some(counters.access_dropped);
        wire::Metrics {
            instance,
            access_dropped,
            ..metrics(counters, health, wire::rfc3339(self.parts.started_at), debug)
        }
    }

    async fn exposition(&self, named: Option<App>, config: &Config) -> String {
        let plane = self.parts.counters.snapshot();
        let several = self.parts.apps.has_several();
        let asked_for_all = named.is_none();
        let (redis, apps) = match named {
            None => (self.parts.apps.counters_of_redis(), self.parts.apps.of_files()),
            Some(app) if app.source() == AppSource::Redis => (Some(Arc::clone(app.counters())), Vec::new()),
            Some(app) => (None, vec![app]),
        };
        let mut parts = Vec::with_capacity(apps.len() + 2);
        for app in &apps {
            let status = self.status(app, config).await;
            let life = Life { status, replicas: app.replicas(), health: app.health() };
            // Of one app, the plane's counters are its own, seen at one moment.
            let counters = if several { app.counters().snapshot() } else { plane.clone() };
            let name = several.then(|| app.name().to_owned());
            parts.push(Part { app: name, life: Some(life), counters });
        }
        // A file's app may be left of that name, from before there was Redis. No series is there
        // twice.
        let is_free = apps.iter().all(|app| app.name() != APPS_OF_REDIS);
        if let Some(redis) = redis.filter(|_| is_free) {
            parts.push(Part { app: Some(APPS_OF_REDIS.to_owned()), life: None, counters: redis.snapshot() });
        }
        // Requests that no app gets.
        if several && asked_for_all {
            parts.push(Part { app: None, life: None, counters: plane.clone() });
        }
        prometheus::write(&Exposition {
            instance: &config.name,
            version: env!("CARGO_PKG_VERSION"),
            started_at: self.parts.started_at,
            plane: &plane,
            parts: &parts,
            redis: self.parts.apps.redis().filter(|_| asked_for_all).as_ref(),
        })
    }
}

/// One health for all apps: of what was probed, all have to be well.
pub(super) fn health_of_all(all: &[wire::HealthMetrics]) -> wire::HealthMetrics {
    let probed: Vec<_> = all.iter().filter(|health| health.last_checked_at.is_some()).collect();
    wire::HealthMetrics {
        active_port_ok: !probed.is_empty() && probed.iter().all(|health| health.active_port_ok),
        last_checked_at: probed.iter().filter_map(|health| health.last_checked_at.clone()).max(),
        consecutive_fails: probed.iter().map(|health| health.consecutive_fails).max().unwrap_or_default(),
    }
}

/// The counters in the form of npm portok.
pub(super) fn metrics(
    counters: proxy::Snapshot,
    health: wire::HealthMetrics,
    started_at: String,
    debug: bool,
) -> wire::Metrics {
    // npm portok has four classes; upgrades (101) are in none of them.
    let classes = ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(&counters.by_class[1..]);
    wire::Metrics {
        started_at,
        inflight: counters.inflight,
        inflight_max: counters.inflight_max,
        total_requests: counters.total_requests,
        total_proxy_errors: counters.total_proxy_errors,
        status_counters: classes.map(|(class, count)| (class.to_owned(), *count)).collect(),
        rolling_rps60: rounded(counters.rolling_rps60, 100.0),
        health,
        last_proxy_error: counters.last_error,
        instance: None,
        access_dropped: None,
        upstream_sockets_created: debug.then_some(counters.upstream_sockets_created),
    }
}
