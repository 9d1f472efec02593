//! An app that becomes another kind, such as one that portok runs where it had targets: it answers
//! as it was until it is healthy as what it is to be, and then that one is let go.
//!
//! A successor that never becomes healthy costs nothing but itself. What was serves on, and an edit
//! back to it takes it up as it runs. What drives it is started again after a fault like any other
//! (`restarts`).

use std::sync::Arc;

use super::super::running::{Nature, Running};
use super::{Addition, Change, Registry};
use crate::config::AppConfig;
use crate::release::records::Removed;

impl Registry {
    /// Puts the configuration of an app in force that is of another kind than what runs of it.
    pub(super) fn change_kind(&mut self, name: &str, new: &Arc<AppConfig>, removed: &Removed) -> Change {
        let Some(running) = self.running.remove(name) else { return Change::Elsewhere };
        let serving = match self.former.remove(name) {
            Some(former) => {
                self.let_go(name, running);
                former
            }
            None => running,
        };
        if serving.nature() == Nature::of(new) {
            self.running.insert(name.to_owned(), serving);
            return self.change(name, new, removed);
        }
        let (change, keeper) = match self.add(name, new, removed) {
            Addition::Began => {
                tracing::info!(
                    app = name,
                    "it is another kind of app from now on: as such it has to be healthy first"
                );
                (Change::Changed, &mut self.former)
            }
            Addition::Waits => (Change::Elsewhere, &mut self.running),
            Addition::Refused(why) => (Change::Refused(why), &mut self.running),
        };
        keeper.insert(name.to_owned(), serving);
        change
    }

    /// What answers the requests of an app.
    pub(super) fn answering(&self, name: &str) -> Option<&Running> {
        self.former.get(name).or_else(|| self.running.get(name))
    }

    /// Takes out what answered for apps that are healthy as what they are now. It is to be let go
    /// once no route leads there.
    pub(super) fn succeeded(&mut self) -> Vec<(String, Running)> {
        let is_healthy = |name: &String| self.running.get(name).is_none_or(Running::is_healthy);
        let names: Vec<_> = self.former.keys().filter(|name| is_healthy(name)).cloned().collect();
        names.into_iter().filter_map(|name| self.former.remove_entry(&name)).collect()
    }
}
