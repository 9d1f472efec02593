//! The releases that were live, and which of them are in quarantine: what there is to go back to.

use serde::{Deserialize, Serialize};

use super::ReleaseRef;

/// A release that was live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The release.
    pub release: ReleaseRef,
    /// A rollback took traffic away from it, and it has not settled since.
    #[serde(default)]
    pub quarantined: bool,
}

/// The releases that were live, each once, in the order in which they became so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Past(Vec<Served>);

impl Past {
    /// The past of these releases, given in the order in which they became live.
    pub fn new(served: impl IntoIterator<Item = Served>) -> Self {
        let mut past = Self::default();
        for served in served {
            past.0.retain(|known| known.release.id != served.release.id);
            past.0.push(served);
        }
        past
    }

    /// The release of this id, where it was live.
    pub fn get(&self, id: &str) -> Option<&Served> {
        self.0.iter().find(|served| served.release.id == id)
    }

    /// Whether the release is in quarantine.
    pub fn is_quarantined(&self, id: &str) -> bool {
        self.get(id).is_some_and(|served| served.quarantined)
    }

    /// The releases in quarantine, the one that was live last first.
    pub fn quarantined(&self) -> impl Iterator<Item = &str> {
        self.0.iter().rev().filter(|served| served.quarantined).map(|served| served.release.id.as_str())
    }

    /// The newest release but `live` that is not in quarantine: the one that portok goes back to by
    /// itself.
    pub fn previous(&self, live: Option<&str>) -> Option<&ReleaseRef> {
        let fit = |served: &&Served| !served.quarantined && Some(served.release.id.as_str()) != live;
        self.0.iter().rev().find(fit).map(|served| &served.release)
    }

    /// A release becomes live. A quarantine lasts until it has settled.
    pub(super) fn went_live(&mut self, release: &ReleaseRef) {
        let quarantined = self.is_quarantined(&release.id);
        self.0.retain(|served| served.release.id != release.id);
        self.0.push(Served { release: release.clone(), quarantined });
    }

    /// A rollback takes traffic away from the release.
    pub(super) fn quarantine(&mut self, id: &str) {
        self.mark(id, true);
    }

    /// The release has settled.
    pub(super) fn absolve(&mut self, id: &str) {
        self.mark(id, false);
    }

    fn mark(&mut self, id: &str, quarantined: bool) {
        for served in self.0.iter_mut().filter(|served| served.release.id == id) {
            served.quarantined = quarantined;
        }
    }

    /// Keeps the releases that `known` holds for.
    pub fn retain(&mut self, known: impl Fn(&ReleaseRef) -> bool) {
        self.0.retain(|served| known(&served.release));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    fn release(id: &str) -> ReleaseRef {
        ReleaseRef { id: id.into(), origin: Origin::Managed }
    }

    fn previous(past: &Past, live: &str) -> Option<String> {
        past.previous(Some(live)).map(|release| release.id.clone())
    }

    #[test]
    fn the_newest_other_one_without_quarantine_is_the_previous() {
        let mut past = Past::default();
        ["v1", "v2", "v3"].iter().for_each(|id| past.went_live(&release(id)));
        assert_eq!(previous(&past, "v3").as_deref(), Some("v2"));
        past.quarantine("v3");
        past.went_live(&release("v2"));
        assert_eq!(previous(&past, "v2").as_deref(), Some("v1"), "not what was just left");
        past.went_live(&release("v2"));
        assert_eq!(previous(&past, "v2").as_deref(), Some("v1"), "never itself");
        past.quarantine("v1");
        assert_eq!(previous(&past, "v2"), None);
        assert_eq!(past.quarantined().collect::<Vec<_>>(), ["v3", "v1"]);
        past.went_live(&release("v3"));
        assert!(past.is_quarantined("v3"), "until it has settled");
        past.absolve("v3");
        assert!(!past.is_quarantined("v3"));
    }
}
