//! What a configuration means for the apps that there are: which begin, change and go. Pure.
//!
//! A configuration that cannot be read removes nothing: an app whose file is refused stays as it
//! is, and so do all while their folder cannot be read. An app goes once it has been missing for
//! `removal_delay`. Where more than half of the apps, and more than one, are missing, none goes
//! unless that is asked for: a folder that is empty by mistake ends no service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::{AppConfig, Several};

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) add: Vec<String>,
    pub(super) remove: Vec<String>,
    /// Apps whose configuration is another one.
    pub(super) change: Vec<String>,
    /// Apps that are missing and stay for now.
    pub(super) missing: BTreeMap<String, Missing>,
}

/// An app that runs and that nothing configures any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// Since when.
    pub(super) since: Instant,
    /// Why it stays, where it is not for the delay alone. So it stays until its removal is asked
    /// for, or it is configured again.
    pub(super) spared: Option<String>,
}

impl Plan {
    /// When to look again without a new configuration.
    pub(super) fn look_again(&self, wanted: &Several) -> Option<Instant> {
        let waiting = self.missing.values().filter(|missing| missing.spared.is_none());
        let first = waiting.map(|missing| missing.since).min().filter(|_| wanted.unreadable.is_none())?;
        Some(first + wanted.removal_delay)
    }
}

/// Compares the apps that run with a configuration. `missing`: the former plan's. `prune`: what is
/// missing goes now, however many they are.
pub(super) fn plan(
    running: &BTreeMap<String, Arc<AppConfig>>,
    wanted: &Several,
    missing: &BTreeMap<String, Missing>,
    now: Instant,
    prune: bool,
) -> Plan {
    let mut plan = Plan::default();
    for (name, config) in &wanted.apps {
        match running.get(name) {
            None => plan.add.push(name.clone()),
            Some(former) if !Arc::ptr_eq(former, config) && former != config => {
                plan.change.push(name.clone())
            }
            Some(_) => {}
        }
    }
    let is_missing = |name: &&String| !wanted.apps.contains_key(*name) && !wanted.refused.contains_key(*name);
    for name in running.keys().filter(is_missing) {
        let new = Missing { since: now, spared: None };
        plan.missing.insert(name.clone(), missing.get(name).cloned().unwrap_or(new));
    }
    // Nothing is known of it then.
    if wanted.unreadable.is_some() {
        return plan;
    }
    if let Some(why) = spared(plan.missing.len(), running.len()).filter(|_| !prune) {
        plan.missing.values_mut().for_each(|missing| missing.spared = Some(why.clone()));
    }
    let is_due =
        |missing: &Missing| prune || missing.spared.is_none() && now >= missing.since + wanted.removal_delay;
    plan.remove =
        plan.missing.iter().filter(|(_, missing)| is_due(missing)).map(|(name, _)| name.clone()).collect();
    plan.missing.retain(|_, missing| !is_due(missing));
    plan
}

/// How an app begins with the daemon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// As it is configured.
    Configured,
    /// From its record, without a route: what runs of it goes on.
    FromRecord {
        /// Why it has no configuration.
        why: String,
        /// Whether it is gone and only spared, as [`Missing::spared`].
        spared: bool,
    },
    /// To be stopped and removed: nothing configures it any more.
    Orphaned,
    /// Not at all: its file is refused, and nothing of it can run.
    LeftOut {
        /// Why.
        why: String,
    },
}

/// What the daemon begins with: the apps that are configured, and those that have a record.
pub(super) fn start(wanted: &Several, records: &BTreeSet<String>) -> BTreeMap<String, Begin> {
    let mut all: BTreeMap<String, Begin> =
        wanted.apps.keys().map(|name| (name.clone(), Begin::Configured)).collect();
    for (name, why) in &wanted.refused {
        let why = why.clone();
        let begin = match records.contains(name) {
            true => Begin::FromRecord { why, spared: false },
            false => Begin::LeftOut { why },
        };
        all.insert(name.clone(), begin);
    }
    let missing: Vec<_> = records.iter().filter(|name| !all.contains_key(*name)).collect();
    let spared = spared(missing.len(), records.len());
    for name in missing {
        let begin = match (&wanted.unreadable, &spared) {
            (Some(error), _) => Begin::FromRecord { why: unknown(error), spared: false },
            (None, Some(why)) => Begin::FromRecord { why: why.clone(), spared: true },
            (None, None) => Begin::Orphaned,
        };
        all.insert(name.clone(), begin);
    }
    all
}

/// Why an app stays that may or may not be configured.
pub(super) fn unknown(unreadable: &str) -> String {
    format!("it is unknown whether it is configured: {unreadable}")
}

/// Why none of so many `missing` apps of `all` is removed.
fn spared(missing: usize, all: usize) -> Option<String> {
    let many = missing > 1 && missing * 2 > all;
    many.then(|| {
        format!(
            "its configuration is gone, with that of {missing} of {all} apps: none of them is removed until that \
             is asked for"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::app;
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    fn several(names: &[&str]) -> Several {
        let apps = names.iter().map(|name| ((*name).to_owned(), Arc::new(app(name)))).collect();
        Several { apps, removal_delay: DELAY, ..Several::default() }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_new_begins_what_differs_changes_and_the_rest_stays() {
        let running = several(&["a", "b", "c"]).apps;
        let mut wanted = several(&["a", "b", "c", "d"]);
        Arc::make_mut(wanted.apps.get_mut("b").unwrap()).drain.early = true;
        let plan = plan(&running, &wanted, &BTreeMap::new(), Instant::now(), false);
        assert_eq!(plan, Plan { add: vec!["d".into()], change: vec!["b".into()], ..Plan::default() });
        assert_eq!(plan.look_again(&wanted), None);
    }

    #[test]
    fn what_is_missing_goes_after_the_delay_unless_it_comes_back() {
        let running = several(&["a", "b", "c"]).apps;
        let (wanted, now) = (several(&["a", "b"]), Instant::now());
        let first = plan(&running, &wanted, &BTreeMap::new(), now, false);
        assert!(first.remove.is_empty() && first.missing["c"].since == now);
        assert_eq!(first.look_again(&wanted), Some(now + DELAY));
        let early = plan(&running, &wanted, &first.missing, now + DELAY / 2, false);
        assert!(early.remove.is_empty() && early.missing["c"].since == now, "it counts from the first look");
        let due = plan(&running, &wanted, &first.missing, now + DELAY, false);
        assert!(due.remove == ["c"] && due.missing.is_empty());
        let back = plan(&running, &several(&["a", "b", "c"]), &first.missing, now + DELAY, false);
        assert_eq!(back, Plan::default());
        assert_eq!(plan(&running, &wanted, &BTreeMap::new(), now, true).remove, ["c"], "asked for");
    }

    #[test]
    fn a_refused_file_and_a_folder_that_cannot_be_read_remove_nothing() {
        let running = several(&["a", "b", "c"]).apps;
        let mut wanted = several(&["a", "b"]);
        wanted.refused.insert("c".into(), "line 1".into());
        let long_ago = BTreeMap::new();
        let later = Instant::now() + DELAY * 2;
        assert_eq!(plan(&running, &wanted, &long_ago, later, true), Plan::default());
        let mut wanted = several(&[]);
        wanted.unreadable = Some("no such folder".into());
        for prune in [false, true] {
            let plan = plan(&running, &wanted, &long_ago, later, prune);
            assert!(plan.remove.is_empty() && plan.missing.len() == 3);
            assert_eq!(plan.look_again(&wanted), None);
        }
    }

    #[test]
    fn more_than_half_and_more_than_one_go_only_when_that_is_asked_for() {
        let later =
            |missing: &BTreeMap<String, Missing>| missing.values().map(|missing| missing.since + DELAY).max();
        for (running, wanted, removed) in [
            (&["a", "b", "c"][..], &["a"][..], 0),
            (&["a", "b", "c"], &["a", "b"], 1),
            (&["a", "b", "c", "d"], &["a", "b"], 2),
            (&["a"], &[], 1),
            (&["a", "b"], &[], 0),
        ] {
            let (running, wanted) = (several(running).apps, several(wanted));
            let first = plan(&running, &wanted, &BTreeMap::new(), Instant::now(), false);
            let now = later(&first.missing).unwrap();
            let second = plan(&running, &wanted, &first.missing, now, false);
            assert_eq!(second.remove.len(), removed, "{running:?} {wanted:?}");
            assert_eq!(first.look_again(&wanted).is_none(), removed == 0);
            // Where they are the smaller part later on, those that were spared still are.
            let mut more = running.clone();
            more.extend(several(&["v", "w", "x", "y", "z"]).apps);
            let mut all = wanted.clone();
            all.apps.extend(several(&["v", "w", "x", "y", "z"]).apps);
            assert_eq!(plan(&more, &all, &first.missing, now, false).remove.len(), removed);
            let asked = plan(&running, &wanted, &first.missing, now, true);
            assert_eq!(asked.remove.len(), running.len() - wanted.apps.len());
        }
    }

    #[test]
    fn at_a_start_a_record_without_a_configuration_is_stopped_or_goes_on() {
        let mut wanted = several(&["a", "b"]);
        wanted.refused.insert("new".into(), "line 1".into());
        wanted.refused.insert("old".into(), "line 2".into());
        let begun = start(&wanted, &names(&["a", "b", "c", "old"]));
        assert_eq!(begun["a"], Begin::Configured);
        assert_eq!(begun["new"], Begin::LeftOut { why: "line 1".into() });
        assert_eq!(begun["old"], Begin::FromRecord { why: "line 2".into(), spared: false });
        assert_eq!(begun["c"], Begin::Orphaned);
        let many = start(&several(&["a"]), &names(&["a", "b", "c"]));
        assert!(
            matches!(&many["b"], Begin::FromRecord { why, spared: true } if why.contains("2 of 3 apps")),
            "{many:?}"
        );
        let mut wanted = several(&[]);
        wanted.unreadable = Some("gone".into());
        assert!(matches!(start(&wanted, &names(&["a"]))["a"], Begin::FromRecord { spared: false, .. }));
    }
}
