//! An app as a row of `GET /__apps`. Pure.

use super::troubles;
use crate::apps::App;
use crate::proxy::Snapshot;
use crate::wire::{AppRow, AppSource};

/// The row of `app`.
pub(super) fn row(app: &App) -> AppRow {
    let routes = app.routes();
    let counters = (app.source() != AppSource::Redis).then(|| app.counters().snapshot());
    let status = app.status();
    AppRow {
        app: app.name().to_owned(),
        hosts: routes.hosts.iter().map(ToString::to_string).collect(),
        paths: routes.paths.clone(),
        listen: routes.listen.iter().map(ToString::to_string).collect(),
        phase: app.phase(),
        replicas: app.replicas(),
        label: app.label().map(str::to_owned),
        rps: counters.as_ref().map(|counters| rounded(counters.rolling_rps60, 100.0)),
        error_ratio: counters.as_ref().and_then(error_ratio),
        p99_ms: counters.as_ref().and_then(p99_ms),
        source: app.source(),
        error: match app.source() {
            AppSource::File => troubles::of_app(app.error(), &status, &app.app_in_force()),
            // Its targets come and go as others mark them.
            AppSource::Redis => app.error().map(str::to_owned),
        },
        live: status.live.map(|live| live.release),
    }
}

/// Which part of the answers had a status of 500 and above.
fn error_ratio(counters: &Snapshot) -> Option<f64> {
    let all: u64 = counters.by_class.iter().sum();
    #[expect(clippy::cast_precision_loss, reason = "a ratio is rounded anyway")]
    (all > 0).then(|| rounded(counters.by_class[4] as f64 / all as f64, 10_000.0))
}

/// The bound of the first bucket below which 99 of 100 requests lie. `None` beyond the last bound.
fn p99_ms(counters: &Snapshot) -> Option<f64> {
    let wanted = counters.latency_count - counters.latency_count / 100;
    let (bound, _) = counters.latency_buckets.iter().find(|(_, below)| wanted > 0 && *below >= wanted)?;
    Some(rounded(bound * 1_000.0, 1_000.0))
}

/// `value` rounded to parts of one `parts`-th.
pub(super) fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_errors_is_of_all_answers() {
        let of = |by_class| error_ratio(&Snapshot { by_class, ..Snapshot::default() });
        assert_eq!(of([0; 5]), None);
        assert_eq!(of([0, 3, 0, 0, 0]), Some(0.0));
        assert_eq!(of([1, 1, 0, 0, 1]), Some(0.3333));
    }

    #[test]
    fn the_99th_percentile_is_the_bound_of_its_bucket() {
        let of = |count, below: [u64; 2]| {
            let latency_buckets = vec![(0.001, below[0]), (0.0025, below[1])];
            p99_ms(&Snapshot { latency_count: count, latency_buckets, ..Snapshot::default() })
        };
        assert_eq!(of(0, [0, 0]), None);
        assert_eq!(of(1, [1, 1]), Some(1.0));
        assert_eq!(of(100, [99, 100]), Some(1.0));
        assert_eq!(of(100, [98, 100]), Some(2.5));
        assert_eq!(of(200, [0, 197]), None, "more than one of a hundred took longer");
        assert_eq!(p99_ms(&Snapshot::default()), None);
    }
}
