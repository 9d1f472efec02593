//! What a path means, and which call a request becomes.
//!
//! Pure: [`find`] judges path and method, [`call`] parameters ([`parameters`](super::parameters)) and
//! body. Both judge the form alone.

use std::path::PathBuf;

use http::{HeaderMap, Method};

use super::answer::Refusal;
use super::auth::{self, Admitted};
pub(super) use super::parameters::MetricsFormat;
use super::parameters::{
    bounds, flag, logs, metrics_format, moved_drain, ports, release, said, strategy, time,
};
use super::request::{self, Query, bad};
use crate::release::orders::Order;
use crate::release::scale::Bounds;
use crate::wire::{self, Code, DeployRequest, DeployStrategy, ErrorBody, LogsRequest, RollbackRequest, Said};

/// One thing the admin API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Apps,
    Status,
    Metrics,
    Health,
    Switch,
    Deploy,
    Cancel,
    Rollback,
    Pause,
    Resume,
    Maintenance,
    Freeze,
    Thaw,
    Scale,
    Drain,
    MoveDrain,
    Releases,
    Replicas,
    Certificates,
    Logs,
    Reload,
    Upgrade,
    Shutdown,
}

/// Every route by what follows the prefix.
const ROUTES: [(&str, Route); 23] = [
    ("apps", Route::Apps),
    ("status", Route::Status),
    ("metrics", Route::Metrics),
    ("health", Route::Health),
    ("switch", Route::Switch),
    ("deploy", Route::Deploy),
    ("cancel", Route::Cancel),
    ("rollback", Route::Rollback),
    ("pause", Route::Pause),
    ("resume", Route::Resume),
    ("maintenance", Route::Maintenance),
    ("freeze", Route::Freeze),
    ("thaw", Route::Thaw),
    ("scale", Route::Scale),
    ("drain", Route::Drain),
    ("drain", Route::MoveDrain),
    ("releases", Route::Releases),
    ("replicas", Route::Replicas),
    ("certs", Route::Certificates),
    ("logs", Route::Logs),
    ("reload", Route::Reload),
    ("upgrade", Route::Upgrade),
    ("shutdown", Route::Shutdown),
];

impl Route {
    /// Whether it changes something; then its method is POST.
    pub(super) fn acts(self) -> bool {
        !matches!(
            self,
            Self::Apps
                | Self::Status
                | Self::Metrics
                | Self::Health
                | Self::Drain
                | Self::Releases
                | Self::Replicas
                | Self::Certificates
                | Self::Logs
        )
    }

    /// The longest body of a request, in bytes.
    pub(super) fn most_body(self) -> usize {
        if self == Self::Maintenance { request::MAX_MAINTENANCE } else { request::MAX_BODY }
    }
}

/// Finds the route of an admitted request. The path is compared byte for byte.
///
/// # Errors
/// First `forbidden`, for a changing method of a peer that may not change anything (but for a
/// switch), then `not_found`, then `method_not_allowed` with `Allow`.
pub(super) fn find(prefix: &str, path: &str, method: &Method, admitted: Admitted) -> Result<Route, Refusal> {
    let name = path.strip_prefix(prefix);
    let looks = method == Method::GET || method == Method::HEAD;
    let fits = |route: Route| if route.acts() { method == Method::POST } else { looks };
    // Of a path with two routes, each method has one.
    let named = |name: &str| {
        let all = || ROUTES.into_iter().filter(move |(route, _)| *route == name);
        all().find(|(_, route)| fits(*route)).or_else(|| all().next())
    };
    let known = name.and_then(named);
    let switches = method == Method::POST && matches!(known, Some((_, Route::Switch)));
    if !looks && !switches && !admitted.may_change {
        return Err(auth::change_from_afar());
    }
    let Some((_, route)) = known else {
        return Err(ErrorBody::new(
            Code::NotFound,
            "Not found",
            format!("there is no such path under {prefix}"),
        )
        .into());
    };
    let allowed = match route {
        Route::Drain => "GET, HEAD, POST",
        route if route.acts() => "POST",
        _ => "GET, HEAD",
    };
    if fits(route) { Ok(route) } else { Err(Refusal::method_not_allowed(path, allowed)) }
}

/// One call, and the app that the request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) app: Option<String>,
    pub(super) call: Call,
}

/// One call, with everything it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    Apps,
    Replicas,
    Certificates,
    Metrics(MetricsFormat),
    Reload {
        prune: bool,
    },
    Upgrade(Option<PathBuf>),
    Shutdown,
    /// One of a single app.
    Of(AppCall),
}

/// A call of a single app, which is named where the instance has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AppCall {
    Status,
    Health,
    Switch(Vec<u16>),
    Deploy { request: DeployRequest, strategy: Option<DeployStrategy>, force: bool, follow: Follow },
    Cancel,
    Rollback(RollbackRequest, Follow),
    Order(Order, Said),
    Scale(Bounds, Said),
    Drains(wire::DrainRequest),
    Releases,
    Logs(LogsRequest),
}

/// How much of a deploy or rollback the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    /// Its end.
    End,
    /// Every event.
    Events,
    /// Only that it was accepted.
    Nothing,
}

/// What a request asks for. `listen` are the ports that portok itself listens on.
///
/// # Errors
/// `bad_request`.
pub(super) fn call(
    route: Route,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
    listen: &[u16],
) -> Result<Asked, Box<ErrorBody>> {
    let query = Query::parse(query.unwrap_or_default())?;
    let app = query.get("app")?.filter(|name| !name.is_empty()).map(str::to_owned);
    let call = match route {
        Route::Reload | Route::Upgrade | Route::Shutdown if app.is_some() => {
            return Err(bad("`app` has no place here: this concerns all apps of the instance"));
        }
        Route::Apps => Call::Apps,
        Route::Replicas => Call::Replicas,
        Route::Certificates => Call::Certificates,
        Route::Metrics => Call::Metrics(metrics_format(&query, headers)?),
        Route::Reload => Call::Reload { prune: flag(&query, "prune")? },
        Route::Upgrade => Call::Upgrade(request::upgrade(body)?),
        Route::Shutdown => Call::Shutdown,
        Route::Status => Call::Of(AppCall::Status),
        Route::Health => Call::Of(AppCall::Health),
        Route::Switch => Call::Of(AppCall::Switch(ports(&query, listen)?)),
        Route::Deploy => {
            let follow = if flag(&query, "detach")? { Follow::Nothing } else { followed(headers) };
            let (request, force) = (request::deploy(body)?, flag(&query, "force")?);
            Call::Of(AppCall::Deploy { request, strategy: strategy(&query)?, force, follow })
        }
        Route::Cancel => Call::Of(AppCall::Cancel),
        Route::Rollback => {
            let asked = RollbackRequest {
                release: release(&query)?,
                force: flag(&query, "force")?,
                dry_run: flag(&query, "dry_run")?,
            };
            Call::Of(AppCall::Rollback(asked, followed(headers)))
        }
        Route::Pause => ordered(&query, &["for"], Order::Pause(time(&query, wire::PAUSE_MOST)?))?,
        Route::Resume => ordered(&query, &[], Order::Resume)?,
        Route::Maintenance => ordered(&query, &[], request::maintenance(body)?)?,
        Route::Freeze => ordered(&query, &["for"], Order::Freeze(time(&query, wire::FREEZE_MOST)?))?,
        Route::Thaw => ordered(&query, &[], Order::Thaw)?,
        Route::Scale => {
            let said = said(&query, &["min", "max"])?;
            Call::Of(AppCall::Scale(bounds(&query)?, said))
        }
        Route::Drain => Call::Of(AppCall::Drains(wire::DrainRequest::Look)),
        Route::MoveDrain => Call::Of(AppCall::Drains(moved_drain(&query)?)),
        Route::Releases => Call::Of(AppCall::Releases),
        Route::Logs => Call::Of(AppCall::Logs(logs(&query)?)),
    };
    Ok(Asked { app, call })
}

/// An order, with who gives it and why, as far as that is said. It has the parameters `own` beside
/// those.
fn ordered(query: &Query<'_>, own: &[&str], order: Order) -> Result<Call, Box<ErrorBody>> {
    Ok(Call::Of(AppCall::Order(order, said(query, own)?)))
}

fn followed(headers: &HeaderMap) -> Follow {
    if request::prefers(headers, wire::NDJSON) { Follow::Events } else { Follow::End }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEAR: Admitted = Admitted { may_change: true };
    const FAR: Admitted = Admitted { may_change: false };

    fn ask(path: &str, method: Method, admitted: Admitted) -> Result<Route, u16> {
        find("/__", path, &method, admitted).map_err(|refusal| refusal.body.code.status())
    }

    fn made(route: Route, query: &str) -> Result<Call, String> {
        call(route, Some(query), &HeaderMap::new(), b"", &[3000]).map(|asked| asked.call).map_err(|error| {
            assert_eq!(error.code, Code::BadRequest);
            error.message
        })
    }

    #[test]
    fn every_route_answers_its_method_only() {
        for (name, route) in ROUTES {
            let path = format!("/__{name}");
            let (good, bad): (&[Method], &[Method]) = if route.acts() {
                (&[Method::POST], &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE])
            } else {
                (&[Method::GET, Method::HEAD], &[Method::POST, Method::OPTIONS, Method::PATCH])
            };
            // The one path that both a look and a change have.
            let is_of_both = name == "drain";
            for method in good {
                assert_eq!(ask(&path, method.clone(), NEAR), Ok(route), "{method} {path}");
            }
            let others = [Method::GET, Method::HEAD, Method::POST];
            for method in bad.iter().filter(|method| !(is_of_both && others.contains(method))) {
                let refusal = find("/__", &path, method, NEAR).unwrap_err();
                assert_eq!(refusal.body.code, Code::MethodNotAllowed, "{method} {path}");
                let (header, value) = refusal.header.unwrap();
                assert_eq!(header, http::header::ALLOW);
                let allowed = match route.acts() {
                    _ if is_of_both => "GET, HEAD, POST",
                    true => "POST",
                    false => "GET, HEAD",
                };
                assert_eq!(value, allowed);
            }
        }
    }

    #[test]
    fn what_is_not_a_route_is_not_found() {
        for path in
            ["/", "/__", "/__nothing", "/__status/", "/__Status", "/__%73tatus", "/_status", "/x/__status"]
        {
            assert_eq!(ask(path, Method::GET, NEAR), Err(404), "{path}");
            assert_eq!(ask(path, Method::POST, NEAR), Err(404), "{path}");
            assert_eq!(ask(path, Method::POST, FAR), Err(403), "{path}");
        }
        assert_eq!(find("/-/portok/", "/-/portok/status", &Method::GET, NEAR).unwrap(), Route::Status);
    }

    #[test]
    fn a_change_from_afar_is_refused_before_its_path_is_judged() {
        for path in ["/__deploy", "/__rollback", "/__reload", "/__cancel", "/__upgrade", "/__status", "/__no"]
        {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
                assert_eq!(ask(path, method, FAR), Err(403), "{path}");
            }
        }
        assert_eq!(ask("/__deploy", Method::GET, FAR), Err(405));
        assert_eq!(ask("/__switch", Method::PUT, FAR), Err(403));
        assert_eq!(ask("/__switch", Method::POST, FAR), Ok(Route::Switch));
        assert_eq!(ask("/__logs", Method::GET, FAR), Ok(Route::Logs));
    }

    #[test]
    fn a_port_is_a_port_of_somebody_else() {
        let switch = |ports: &[u16]| Ok(Call::Of(AppCall::Switch(ports.to_vec())));
        assert_eq!(made(Route::Switch, "port=8081"), switch(&[8081]));
        assert_eq!(made(Route::Switch, "port=65535&unknown=1&unknown=2"), switch(&[65535]));
        assert_eq!(made(Route::Switch, "port=8082&port=8081"), switch(&[8082, 8081]));
        for query in [
            "",
            "port",
            "port=",
            "port=0",
            "port=65536",
            "port=-1",
            "port=+1",
            "port=80a",
            "port=%",
            "port=8.0",
        ] {
            made(Route::Switch, query).unwrap_err();
        }
        assert!(made(Route::Switch, "port=8081&port=8081").unwrap_err().contains("more than once"));
        assert!(made(Route::Switch, "port=3000").unwrap_err().contains("listens"));
        assert!(made(Route::Switch, "port=8081&port=3000").unwrap_err().contains("listens"));
        let many: Vec<_> = (1..=65).map(|port| format!("port={port}")).collect();
        assert!(made(Route::Switch, &many.join("&")).unwrap_err().contains("more than 64"));
    }

    #[test]
    fn an_app_is_named_once_on_every_route_that_is_of_one() {
        for (_, route) in ROUTES {
            if matches!(route, Route::Reload | Route::Upgrade | Route::Shutdown) {
                assert!(made(route, "app=api").unwrap_err().contains("all apps"), "{route:?}");
                assert!(made(route, "app=").is_ok(), "{route:?}");
                continue;
            }
            let port = match route {
                Route::Switch => "&port=1",
                Route::Scale => "&min=1&max=2",
                Route::MoveDrain => "&now=1",
                _ => "",
            };
            let body: &[u8] = if route == Route::Maintenance { b"{\"on\":true}" } else { b"" };
            let ask =
                |query: &str| call(route, Some(&format!("{query}{port}")), &HeaderMap::new(), body, &[3000]);
            assert_eq!(ask("app=redis%3Ax.org").unwrap().app.as_deref(), Some("redis:x.org"), "{route:?}");
            assert_eq!(ask("app=").unwrap().app, None, "{route:?}");
            assert!(ask("app=a&app=a").unwrap_err().message.contains("more than once"), "{route:?}");
        }
    }

    #[test]
    fn a_drain_is_extended_or_ended() {
        let asked = |request| Ok(Call::Of(AppCall::Drains(request)));
        let ten_minutes = Duration::from_secs(600);
        assert_eq!(made(Route::Drain, ""), asked(wire::DrainRequest::Look));
        assert_eq!(made(Route::MoveDrain, "extend=10m"), asked(wire::DrainRequest::Extend(ten_minutes)));
        assert_eq!(made(Route::MoveDrain, "now=1"), asked(wire::DrainRequest::Now));
        for query in ["", "now=0", "extend=", "extend=0s", "extend=25h", "extend=x", "extend=10m&now=1"] {
            made(Route::MoveDrain, query).unwrap_err();
        }
    }

    #[test]
    fn a_scale_has_both_bounds() {
        let said = Said { by: "ann".to_owned(), note: None };
        let scale = Call::Of(AppCall::Scale(Bounds { min: 0, max: 4 }, said));
        assert_eq!(made(Route::Scale, "min=0&max=4&by=ann"), Ok(scale));
        for query in ["", "min=1", "max=1", "min=&max=1", "min=-1&max=1", "min=1&max=65536", "min=a&max=1"] {
            made(Route::Scale, query).unwrap_err();
        }
    }

    #[test]
    fn a_strategy_is_one_that_there_is() {
        for (query, expected) in [
            ("", None),
            ("strategy=", None),
            ("strategy=switch", Some(DeployStrategy::Switch)),
            ("strategy=recreate", Some(DeployStrategy::Recreate)),
        ] {
            match made(Route::Deploy, query) {
                Ok(Call::Of(AppCall::Deploy { strategy, .. })) => assert_eq!(strategy, expected, "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
        assert!(made(Route::Deploy, "strategy=canary").unwrap_err().contains("\"canary\" is not built yet"));
        assert!(made(Route::Deploy, "strategy=blue").unwrap_err().ends_with("\"switch\" or \"recreate\""));
    }

    #[test]
    fn logs_have_bounds() {
        let logs = |release: Option<&str>, lines| {
            let asked = LogsRequest { release: release.map(str::to_owned), lines, ..LogsRequest::default() };
            Ok(Call::Of(AppCall::Logs(asked)))
        };
        assert_eq!(made(Route::Logs, ""), logs(None, 100));
        assert_eq!(made(Route::Logs, "release=&lines="), logs(None, 100));
        assert_eq!(made(Route::Logs, "release=v1&lines=10000"), logs(Some("v1"), 10_000));
        let worker =
            LogsRequest { replica: Some(2), process: Some("worker".into()), ..LogsRequest::default() };
        let worker = LogsRequest { lines: 100, ..worker };
        assert_eq!(made(Route::Logs, "replica=2&process=worker"), Ok(Call::Of(AppCall::Logs(worker))));
        assert_eq!(made(Route::Logs, "replica=&process="), logs(None, 100));
        for query in [
            "lines=0",
            "lines=10001",
            "lines=x",
            "lines=99999999999999999999",
            "release=a%2Fb",
            "lines=1&lines=2",
            "replica=-1",
            "replica=65536",
            "replica=a",
            "process=a/b",
            "process=a&process=b",
        ] {
            made(Route::Logs, query).unwrap_err();
        }
    }

    #[test]
    fn the_client_chooses_what_it_sees() {
        let accept = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT, value.parse().unwrap());
            headers
        };
        let ask = |route, query: &str, value: &str| {
            call(route, Some(query), &accept(value), b"", &[3000]).map(|asked| asked.call)
        };
        let deploy = |follow| {
            let (request, strategy) = (DeployRequest::default(), None);
            Ok(Call::Of(AppCall::Deploy { request, strategy, force: false, follow }))
        };
        assert_eq!(ask(Route::Deploy, "", "*/*"), deploy(Follow::End));
        assert_eq!(ask(Route::Deploy, "", wire::NDJSON), deploy(Follow::Events));
        assert_eq!(ask(Route::Deploy, "detach=1", wire::NDJSON), deploy(Follow::Nothing));
        assert_eq!(ask(Route::Deploy, "detach=0", wire::NDJSON), deploy(Follow::Events));
        ask(Route::Deploy, "detach=yes", "*/*").unwrap_err();
        let rollback = |asked| Ok(Call::Of(AppCall::Rollback(asked, Follow::Events)));
        assert_eq!(ask(Route::Rollback, "", wire::NDJSON), rollback(RollbackRequest::default()));
        let asked = RollbackRequest { release: Some("v1".into()), force: true, dry_run: true };
        assert_eq!(ask(Route::Rollback, "release=v1&force=1&dry_run=1", wire::NDJSON), rollback(asked));
        ask(Route::Rollback, "dry_run=yes", wire::NDJSON).unwrap_err();
        ask(Route::Rollback, "release=a/b", wire::NDJSON).unwrap_err();
        let metrics = |format| Ok(Call::Metrics(format));
        assert_eq!(ask(Route::Metrics, "", "*/*"), metrics(MetricsFormat::Json));
        assert_eq!(ask(Route::Metrics, "", "text/plain"), metrics(MetricsFormat::Prometheus));
        assert_eq!(ask(Route::Metrics, "format=prometheus", "*/*"), metrics(MetricsFormat::Prometheus));
        assert_eq!(ask(Route::Metrics, "format=json", "text/plain"), metrics(MetricsFormat::Json));
        ask(Route::Metrics, "format=xml", "*/*").unwrap_err();
    }
}
