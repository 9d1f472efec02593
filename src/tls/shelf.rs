//! What becomes of certificates from one look at their files to the next. Pure.
//!
//! A pair that is good serves. One that becomes bad while it serves goes on as it was until it
//! expires: its files may just be being written. One that was never good, or has expired, is left
//! out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::files::{Files, Found, FoundPair, Id, Places};
use super::names::cover;
use super::pair::{Facts, Pair};
use crate::wire::{self, CertificateRow, CertificateSource, CertificateState};

/// All certificates as they stand.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    slots: BTreeMap<Id, Slot>,
    /// Why the folder cannot be read.
    unreadable: Option<(PathBuf, String)>,
}

/// One pair of files.
#[derive(Debug, Clone)]
struct Slot {
    files: Files,
    /// What is shown to clients.
    serving: Option<Arc<Pair>>,
    /// What the files hold, or what is wrong with them.
    offered: Result<Arc<Pair>, String>,
    warning: Option<String>,
}

impl Shelf {
    /// The certificates after a look at the files, which `places` name.
    pub(super) fn next(&self, found: &Found, places: &Places, now: SystemTime) -> Self {
        let mut slots = BTreeMap::new();
        for (id, FoundPair { files, pair, warning, .. }) in &found.pairs {
            let before = self.slots.get(id).and_then(|slot| slot.serving.clone());
            let before = before.filter(|pair| pair.is_in_time(now));
            let serving = pair.as_ref().ok().filter(|pair| pair.is_in_time(now)).cloned().or(before);
            let slot =
                Slot { files: files.clone(), serving, offered: pair.clone(), warning: warning.clone() };
            slots.insert(id.clone(), slot);
        }
        for (id, slot) in &self.slots {
            let is_served = slot.serving.as_ref().is_some_and(|pair| pair.is_in_time(now));
            if is_served && !slots.contains_key(id) && places.name(id, &slot.files) {
                let gone = match &found.unreadable {
                    Some((_, why)) => why.clone(),
                    None => "its files are gone".to_owned(),
                };
                slots.insert(id.clone(), Slot { offered: Err(gone), warning: None, ..slot.clone() });
            }
        }
        Self { slots, unreadable: found.unreadable.clone() }
    }

    /// What is shown to clients: of two certificates for one name, the one that comes first.
    pub(super) fn serving(&self, now: SystemTime) -> Vec<(&Id, &Arc<Pair>)> {
        let all = self.slots.iter().filter_map(|(id, slot)| Some((id, slot.serving.as_ref()?)));
        let mut all: Vec<_> = all.collect();
        // An app's own first, what has come by itself last; then what holds now; then what holds
        // longest.
        all.sort_by_key(|(id, pair)| {
            let rank = match id {
                Id::App(_) => 0,
                Id::Folder(_) => 1,
                Id::Acme(_) => 2,
            };
            (rank, pair.facts.not_before > now, std::cmp::Reverse(pair.facts.not_after))
        });
        all
    }

    /// Which of them is called `name`: one of the folder before one of an app.
    pub(super) fn named(&self, name: &str) -> Option<&Id> {
        let is_it = |id: &&Id| id.name() == name;
        let by_hand = |id: &&Id| is_it(id) && !matches!(id, Id::Acme(_));
        self.slots.keys().rev().find(by_hand).or_else(|| self.slots.keys().find(is_it))
    }

    /// Whether an operator's certificate is shown for this host.
    pub(super) fn has_file_for(&self, host: &str, now: SystemTime) -> bool {
        let by_hand = self.slots.iter().filter(|(id, _)| !matches!(id, Id::Acme(_)));
        by_hand
            .filter_map(|(_, slot)| slot.serving.as_ref())
            .any(|pair| pair.is_in_time(now) && cover(&pair.facts.names, host.as_bytes()))
    }

    /// When the next of those that serve expires, or begins to hold.
    pub(super) fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let pairs = self.slots.values().filter_map(|slot| slot.serving.as_ref());
        let times = pairs.flat_map(|pair| [pair.facts.not_before, pair.facts.not_after]);
        times.filter(|time| *time > now).min()
    }

    /// All of them for people, by name; `default`: the name of the default one.
    pub(super) fn rows(&self, default: Option<&str>, now: SystemTime) -> Vec<CertificateRow> {
        let chosen = default.and_then(|name| self.named(name));
        let mut rows: Vec<_> =
            self.slots.iter().map(|(id, slot)| slot.row(id, chosen == Some(id), now)).collect();
        if let Some((folder, why)) = &self.unreadable {
            let name = folder.display().to_string();
            let row = CertificateRow { file: name.clone(), error: Some(why.clone()), ..empty_row(name) };
            rows.push(row);
        }
        if let (Some(name), None) = (default, chosen) {
            let error = "tls.default names it, and there is no certificate of this name".to_owned();
            rows.push(CertificateRow { default: true, error: Some(error), ..empty_row(name.to_owned()) });
        }
        rows.sort_by(|one, other| (&one.name, &one.app).cmp(&(&other.name, &other.app)));
        rows
    }
}

impl Slot {
    fn row(&self, id: &Id, default: bool, now: SystemTime) -> CertificateRow {
        let facts = self.serving.as_ref().or(self.offered.as_ref().ok()).map(|pair| &pair.facts);
        let is_as_offered = match (&self.serving, &self.offered) {
            (Some(serving), Ok(offered)) => Arc::ptr_eq(serving, offered),
            _ => false,
        };
        let expired = || {
            let at = |facts: &Facts| wire::rfc3339(facts.not_after);
            self.offered.as_ref().ok().map(|pair| format!("it has expired at {}", at(&pair.facts)))
        };
        let nameless = || {
            let has_none = facts.is_some_and(|facts| facts.names.is_empty());
            (has_none && !default)
                .then(|| "it has no subjectAltName, so it can only be tls.default".to_owned())
        };
        let (state, error) = match &self.serving {
            Some(_) if !is_as_offered => {
                (CertificateState::Kept, self.offered.as_ref().err().cloned().or_else(expired))
            }
            Some(pair) if pair.facts.not_before > now => (CertificateState::NotYetValid, nameless()),
            Some(_) => (CertificateState::Serving, nameless()),
            None if self.offered.is_ok() => (CertificateState::Expired, expired()),
            None => (CertificateState::Bad, self.offered.as_ref().err().cloned()),
        };
        CertificateRow {
            app: match id {
                Id::App(app) => Some(app.clone()),
                Id::Folder(_) | Id::Acme(_) => None,
            },
            source: match id {
                Id::App(_) | Id::Folder(_) => CertificateSource::File,
                Id::Acme(_) => CertificateSource::Acme,
            },
            file: self.files.certificate.display().to_string(),
            key: Some(self.files.key.display().to_string()),
            names: facts
                .map(|facts| facts.names.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            issuer: facts.map(|facts| facts.issuer.clone()),
            not_before: facts.map(|facts| wire::rfc3339(facts.not_before)),
            not_after: facts.map(|facts| wire::rfc3339(facts.not_after)),
            days: facts.map(|facts| days_left(facts.not_after, now)),
            state,
            default,
            error,
            warning: self.warning.clone(),
            ..empty_row(id.name().to_owned())
        }
    }
}

/// A row that says nothing but a name.
pub(super) fn empty_row(name: String) -> CertificateRow {
    CertificateRow {
        name,
        app: None,
        source: CertificateSource::File,
        file: String::new(),
        key: None,
        names: Vec::new(),
        issuer: None,
        not_before: None,
        not_after: None,
        days: None,
        state: CertificateState::Bad,
        default: false,
        error: None,
        warning: None,
        renew_at: None,
    }
}

/// Whole days until then; fewer than none once it has passed.
fn days_left(end: SystemTime, now: SystemTime) -> i64 {
    const DAY: u64 = 24 * 3600;
    let days = |distance: std::time::Duration| i64::try_from(distance.as_secs() / DAY).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => days(left),
        Err(passed) => -1 - days(passed.duration()),
    }
}

impl Pair {
    /// Whether it has not expired.
    fn is_in_time(&self, now: SystemTime) -> bool {
        self.facts.not_after > now
    }
}
