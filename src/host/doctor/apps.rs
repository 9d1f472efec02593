//! The checks of the apps of instances that have several: their files, their routes, their targets.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::instances::Instance;
use super::super::{files, routes};
use super::{Check, bad, good, unknown, warning};
use crate::config::Several;
use crate::plain::describe_io;

/// How long a target may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The most targets that are tried.
const MOST_TARGETS: usize = 256;

/// The folder can be trusted, every file in it is taken, and no route is claimed twice.
pub(super) fn configuration(instance: &Instance) -> Vec<Check> {
    let Some(several) = several(instance) else { return Vec::new() };
    let name = &instance.name;
    let mut checks: Vec<_> = folder(name, several).into_iter().collect();
    checks.extend(several.refused.iter().flat_map(|(app, problems)| {
        let hint = "correct it; a daemon that runs goes on with what it has, and loads it by itself";
        problems.lines().map(move |problem| bad("configuration", format!("`{name}/{app}`: {problem}"), hint))
    }));
    checks.extend(routes::clashes(several.apps.values().map(AsRef::as_ref)).into_iter().map(|clash| {
        let routes::Clash { first, second } = clash;
        let both = format!(
            "`{name}/{}` ({}) and `{name}/{}` ({})",
            first.app, first.place, second.app, second.place
        );
        let text = match first.route == second.route {
            true => format!("{both} both claim {}", first.route),
            false => format!("{both} claim {} and {}, which overlap", first.route, second.route),
        };
        bad(
            "routes",
            text,
            "change hosts, paths or listen of one of them; until then one has it, as `portok apps` says",
        )
    }));
    checks
}

/// The folder of an instance's apps.
fn folder(name: &str, several: &Several) -> Option<Check> {
    let folder = several.folder.as_deref()?;
    let shown = folder.display();
    let hint = "until it can be read, no app of it is added, changed or removed";
    match (files::distrust(folder), &several.unreadable) {
        (Ok(Some((why, hint))), _) => Some(bad("folder", format!("{shown}: {why}"), hint)),
        (_, Some(why)) => Some(bad("folder", format!("{shown}: {why}"), hint)),
        (Ok(None), None) => Some(good("folder", format!("{shown} for apps of `{name}`"))),
        // It need not be there while every app is in the main file.
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => None,
        (Err(error), None) => Some(unknown("folder", files::failed("look at", folder, &error))),
    }
}

/// Every target of every app accepts a connection. They are tried together, each for a limited
/// time.
pub(super) async fn targets(instances: &[Instance]) -> Vec<Check> {
    let mut wanted = BTreeSet::new();
    for instance in instances {
        let apps = several(instance).into_iter().flat_map(|several| several.apps.values());
        for app in apps {
            let of = |target: &SocketAddr| (format!("{}/{}", instance.name, app.name), *target);
            wanted.extend(app.targets.iter().flatten().map(of));
        }
    }
    let mut trying = JoinSet::new();
    for (app, target) in wanted.into_iter().take(MOST_TARGETS) {
        trying.spawn(async move {
            let why = match timeout(CONNECT_WITHIN, TcpStream::connect(target)).await {
                Ok(Ok(_)) => return None,
                Ok(Err(error)) => describe_io(&error),
                Err(_late) => format!("no connection within {}", humantime::format_duration(CONNECT_WITHIN)),
            };
            Some((app, target, why))
        });
    }
    let mut unreachable: Vec<_> = trying.join_all().await.into_iter().flatten().collect();
    unreachable.sort();
    let check = |(app, target, why): (String, SocketAddr, String)| {
        let hint =
            format!("start what should listen there, or take it out of `targets`; portok status {app}");
        warning("targets", format!("`{app}`: {target} is not reachable from here: {why}"), hint)
    };
    unreachable.into_iter().map(check).collect()
}

fn several(instance: &Instance) -> Option<&Several> {
    instance.config.as_ref().ok()?.apps.as_ref()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::super::CheckVerdict;
    use super::*;
    use crate::config;

    fn instance(several: Several) -> Instance {
        let config = config::Config { apps: Some(several), ..config::of_an_empty_file() };
        Instance { name: "edge".into(), files: Vec::new(), config: Ok(config) }
    }

    fn several(apps: &[(&str, &[SocketAddr])]) -> Several {
        let app = |(name, targets): &(&str, &[SocketAddr])| {
            let mut app = (*config::of_an_empty_file().app).clone();
            app.name = (*name).to_owned();
            app.targets = Some(targets.to_vec());
            ((*name).to_owned(), Arc::new(app))
        };
        Several { apps: apps.iter().map(app).collect(), ..Several::default() }
    }

    #[test]
    fn refused_files_and_routes_claimed_twice_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut both = several(&[("api", &[]), ("web", &[])]);
        both.refused.insert("bad".into(), "bad.toml:1:1 no\nbad.toml:2:1 no".into());
        both.folder = Some(folder.path().to_owned());
        let checks = configuration(&instance(both.clone()));
        let texts: Vec<_> = checks.iter().map(|check| (check.verdict, check.text.as_str())).collect();
        assert_eq!(texts[0].0, CheckVerdict::Good);
        assert_eq!(texts[1], (CheckVerdict::Bad, "`edge/bad`: bad.toml:1:1 no"));
        assert_eq!(texts[2], (CheckVerdict::Bad, "`edge/bad`: bad.toml:2:1 no"));
        assert_eq!(texts[3], (CheckVerdict::Bad, "`edge/api` () and `edge/web` () both claim */"));
        both.folder = Some(PathBuf::from("/nowhere/edge.d"));
        both.unreadable = Some("it is gone".into());
        assert_eq!(configuration(&instance(both))[0].text, "/nowhere/edge.d: it is gone");
    }

    #[tokio::test]
    async fn a_target_that_nobody_listens_on_is_a_warning() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = bound.local_addr().unwrap();
        drop(bound);
        let checks = targets(&[instance(several(&[("api", &[there, gone])]))]).await;
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert_eq!(checks[0].verdict, CheckVerdict::Warning);
        assert!(checks[0].text.starts_with(&format!("`edge/api`: {gone} is not reachable")), "{checks:?}");
    }
}
