//! What is logged of a target.

use super::set::{Id, Rules, Set, State};

/// Says of a member that it fails from now on, or no more.
pub(super) fn log_turn(app: &str, set: &Set, rules: Rules, id: Id) {
    let Some((member, state)) = set.members(rules).find(|(member, _)| member.id == id) else { return };
    let target = member.addr;
    match (&member.last_error, state) {
        (Some(why), State::Out) => {
            tracing::warn!(app, %target, "a target is out, its probes fail: {why}");
        }
        (Some(why), _) => tracing::warn!(
            app, %target,
            "a target fails its probes and gets requests all the same, because more than half fail: {why}"
        ),
        (None, _) => tracing::info!(app, %target, "a target is back: its probe is good again"),
    }
}
