//! What a configuration means for the apps that there are: which begin, change and go. Pure.
//!
//! A configuration that cannot be read removes nothing: an app whose file is refused stays as it
//! is, and so do all while their folder cannot be read. An app goes once it has been missing for
//! `removal_delay`. Where more than half of the apps, and more than one, are missing, none goes
//! unless that is asked for: a folder that is empty by mistake ends no service. At a start all apps
//! that ran when the daemon ended are counted, of whatever kind.

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
    for (name, config) in wanted.apps.iter().filter(|(name, _)| is_configured(wanted, name)) {
        match running.get(name) {
            None => plan.add.push(name.clone()),
            Some(former) if !Arc::ptr_eq(former, config) && former != config => {
                plan.change.push(name.clone())
            }
            Some(_) => {}
        }
    }
    for name in running.keys().filter(|name| is_missing(wanted, name)) {
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

fn is_configured(wanted: &Several, name: &str) -> bool {
    wanted.apps.contains_key(name) && !wanted.gone.contains(name)
}

fn is_missing(wanted: &Several, name: &str) -> bool {
    !is_configured(wanted, name) && !wanted.refused.contains_key(name)
}

/// Which apps are missing at a start. `ran`: those that there were when the daemon ended; `spared`:
/// why which of them were spared then.
pub(super) fn missing_at_start(
    wanted: &Several,
    ran: &BTreeSet<String>,
    spared_before: &BTreeMap<String, String>,
    now: Instant,
) -> BTreeMap<String, Missing> {
    let missing: Vec<_> = ran.iter().filter(|name| is_missing(wanted, name)).collect();
    let many = spared(missing.len(), ran.len()).filter(|_| wanted.unreadable.is_none());
    let why = |name| many.clone().or_else(|| spared_before.get(name).cloned());
    missing.into_iter().map(|name| (name.clone(), Missing { since: now, spared: why(name) })).collect()
}

/// How an app begins with the daemon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// As it is configured, or was last.
    Configured,
    /// From its record, without a route: what runs of it goes on.
    FromRecord,
    /// To be stopped and removed: nothing configures it any more.
    Orphaned,
    /// Not at all: its file is refused, and nothing of it can run.
    LeftOut,
}

/// What the daemon begins with: the apps that are configured, and those that have a record.
/// `missing`: see [`missing_at_start`].
pub(super) fn start(
    wanted: &Several,
    records: &BTreeSet<String>,
    missing: &BTreeMap<String, Missing>,
) -> BTreeMap<String, Begin> {
    let mut all: BTreeMap<String, Begin> =
        wanted.apps.keys().map(|name| (name.clone(), Begin::Configured)).collect();
    for name in wanted.refused.keys() {
        let has_record = records.contains(name);
        all.insert(name.clone(), if has_record { Begin::FromRecord } else { Begin::LeftOut });
    }
    let is_spared = |name| missing.get(name).is_some_and(|missing| missing.spared.is_some());
    for name in records {
        let stays = wanted.unreadable.is_some() || is_spared(name);
        let begin = if stays { Begin::FromRecord } else { Begin::Orphaned };
        all.entry(name.clone()).or_insert(begin);
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

    fn begins(wanted: &Several, records: &[&str], ran: &[&str]) -> BTreeMap<String, Begin> {
        let missing = missing_at_start(wanted, &names(ran), &BTreeMap::new(), Instant::now());
        start(wanted, &names(records), &missing)
    }

    #[test]
    fn at_a_start_a_record_without_a_configuration_is_stopped_or_goes_on() {
        let mut wanted = several(&["a", "b"]);
        wanted.refused.insert("new".into(), "line 1".into());
        wanted.refused.insert("old".into(), "line 2".into());
        let all = ["a", "b", "c", "old"];
        let begun = begins(&wanted, &all, &all);
        assert_eq!(begun["a"], Begin::Configured);
        assert_eq!(begun["new"], Begin::LeftOut);
        assert_eq!(begun["old"], Begin::FromRecord);
        assert_eq!(begun["c"], Begin::Orphaned);
        let many = begins(&several(&["a"]), &["a", "b", "c"], &["a", "b", "c"]);
        assert_eq!(many["b"], Begin::FromRecord);
        let mut wanted = several(&[]);
        wanted.unreadable = Some("gone".into());
        assert_eq!(begins(&wanted, &["a"], &["a"])["a"], Begin::FromRecord);
    }

    #[test]
    fn at_a_start_all_that_ran_are_counted_and_what_is_gone_is_missing_as_it_is_live() {
        let all = ["a", "b", "c", "d"];
        // (configured, gone, others that ran, spared)
        for (configured, gone, others, is_spared) in [
            (&["a", "b"][..], &["c", "d"][..], &[][..], false),
            (&["a"], &["b", "c", "d"], &[], true),
            (&["a"], &["b", "c"], &["d"], true),
            (&["a", "b", "c"], &["d"], &[], false),
            // New ones do not make those that are missing the smaller part.
            (&["a", "v", "w", "x", "y", "z"], &["b", "c", "d"], &[], true),
        ] {
            let mut wanted = several(&[configured, gone].concat());
            wanted.gone = names(gone);
            let now = Instant::now();
            let missing = missing_at_start(&wanted, &names(&all), &BTreeMap::new(), now);
            let expected = [gone, others].concat();
            assert_eq!(missing.keys().map(String::as_str).collect::<Vec<_>>(), expected);
            assert!(missing.values().all(|app| app.spared.is_some() == is_spared), "{configured:?}");
            let running = several(&[configured, gone, others].concat()).apps;
            let first = plan(&running, &wanted, &missing, now, false);
            assert_eq!(first, Plan { missing: missing.clone(), ..Plan::default() });
            let due = plan(&running, &wanted, &missing, now + DELAY, false);
            assert_eq!(due.remove.is_empty(), is_spared, "{configured:?}");
        }
    }

    #[test]
    fn what_was_spared_before_a_start_still_is() {
        let wanted = several(&["a", "b", "c"]);
        let before = [("c", "why c"), ("d", "why d")];
        let before = before.map(|(name, why)| (name.to_owned(), why.to_owned())).into();
        let missing = missing_at_start(&wanted, &names(&["a", "b", "c", "d"]), &before, Instant::now());
        assert_eq!(missing.len(), 1);
        assert_eq!(missing["d"].spared.as_deref(), Some("why d"));
    }
}
