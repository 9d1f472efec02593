//! What an app cannot have whose releases replace one another before they start
//! (`deploy.strategy = "recreate"`). Pure.

use std::borrow::Cow;

use super::keys::{is_in, keys};
use super::read::Reader;
use super::show::Secrets;
use super::{AppConfig, CompanionStart, DeployStrategy, Standby};

/// The key of the strategy.
pub(super) const STRATEGY: &str = "deploy.strategy";

const REPLICAS: &str = "app.replicas";

const STANDBY: &str = "rollback.standby";

/// Keys, and tables of keys, that have no use with it, whatever they say.
const USELESS: [&str; 6] =
    ["app.verify", "app.max_memory", "deploy.warmup", "deploy.shadow", "deploy.steps", "deploy.assets"];

/// What stands in the way: a key, and what was expected of it instead.
type Obstacle = (&'static str, Cow<'static, str>);

/// Everything that `app` is configured to be or do and that does not go together with it.
fn obstacles(app: &AppConfig) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if app.app.replicas.max > 1 {
        obstacles.push((REPLICAS, "1, because with \"recreate\" nothing may run twice".into()));
    }
    if app.rollback.standby == Standby::Window {
        let expected = "\"drain\", because with \"recreate\" the former release is stopped first";
        obstacles.push((STANDBY, expected.into()));
    }
    if app.app.processes.values().any(|companion| companion.start == CompanionStart::Before) {
        let expected = "no companion with start = \"before\", because \"recreate\" runs nothing beside the former release";
        obstacles.push(("app.processes", expected.into()));
    }
    let useless = |name: &str| USELESS.iter().any(|useless| name == *useless || is_in(name, useless));
    for key in keys().filter(|key| useless(key.name)) {
        if key.show_app(app, Secrets::Masked).is_some() {
            obstacles.push((key.name, "nothing, because \"recreate\" has no use for it".into()));
        }
    }
    obstacles
}

/// Why `app` cannot be deployed so: the first obstacle.
pub fn cannot_recreate(app: &AppConfig) -> Option<String> {
    let (key, expected) = obstacles(app).into_iter().next()?;
    Some(format!("{key}: expected {expected}"))
}

/// Rejects what does not go together with it, where that is set for the app. What stands for every
/// app is passed over.
pub(super) fn fits(r: &mut Reader<'_>, config: &mut AppConfig) {
    if config.deploy.strategy != DeployStrategy::Recreate {
        return;
    }
    for (key, expected) in obstacles(config) {
        if r.in_file(key) {
            let because = format!("{expected} ({} = \"recreate\")", r.called(STRATEGY));
            r.reject(key, &because);
        } else if key == STANDBY {
            config.rollback.standby = Standby::Drain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::*;

    const APP: &str = "[app]\ncommand = \"a\"\n";

    const RECREATE: &str = "[deploy]\nstrategy = \"recreate\"\n";

    #[test]
    fn what_does_not_go_together_with_it_is_refused_where_it_is_set() {
        for (line, expected) in [
            ("replicas = 2", "app.replicas = 2: expected 1,"),
            ("replicas = { min = 0, max = 3 }", "expected 1,"),
            ("max_memory = \"512MB\"", "app.max_memory = \"512MB\": expected nothing,"),
            ("verify = \"x\"", "app.verify = \"x\": expected nothing,"),
            ("[rollback]\nstandby = \"window\"", "rollback.standby = \"window\": expected \"drain\","),
        ] {
            let errors = Case::file(&format!("{APP}{line}\n{RECREATE}")).problems();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].contains(expected) && errors[0].contains(STRATEGY), "{errors:?}");
            // Without the strategy it may be, and the strategy cannot be asked for.
            let config = Case::file(&format!("{APP}{line}\n")).good();
            assert!(cannot_recreate(&config.app).is_some(), "{line}");
        }
        let config =
            Case::file(&format!("{APP}before = \"x\"\nreplicas = {{ min = 0, max = 1 }}\n{RECREATE}"));
        let config = config.good();
        assert_eq!(
            (config.app.deploy.strategy, cannot_recreate(&config.app)),
            (DeployStrategy::Recreate, None)
        );
    }

    #[test]
    fn what_stands_for_every_app_is_passed_over() {
        let several = "[rollback]\nstandby = \"window\"\n[deploy]\nstrategy = \"recreate\"\n\
                       [apps.one]\nhosts = [\"one.test\"]\ncommand = \"a\"\n\
                       [apps.two]\nhosts = [\"two.test\"]\ncommand = \"b\"\ndeploy.strategy = \"switch\"\n";
        let config = Case::file(several).good();
        let apps = config.apps.expect("several apps").apps;
        let of = |app: &str| (apps[app].deploy.strategy, apps[app].rollback.standby);
        assert_eq!(of("one"), (DeployStrategy::Recreate, Standby::Drain));
        assert_eq!(of("two"), (DeployStrategy::Switch, Standby::Window));
    }
}
