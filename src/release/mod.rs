//! Releases: the pure machine, its one driver, and the durable record.
//!
//! A deploy's way through the files:
//! 1. `handle` makes a release of the request (`spec`) and sends a `message` to the `coordinator`,
//!    which has the machine (`state`) accept it; `recorder` writes the intent into the `store`.
//! 2. When that is on disk, `runs` starts a process for each replica in a task (`run`), which
//!    probes it and reports.
//! 3. When all are healthy, `traffic` points new requests at them, `recorder` writes that down, and
//!    `voice` tells it.
//! 4. The former runs drain, are stopped when their drain (`timers`) is over, and report their end.
//!
//! The driver:
//! - [`coordinator`]: one task per app. It turns the world into the machine's events, and its
//!   effects into calls.
//! - `life`: where the coordinator is between its boot and its end.
//! - `runs`: the runs, with what is known of each and what was ordered for it. `exits`: the last
//!   crash in each place.
//! - [`traffic`]: where requests go. All use of the proxy is here.
//! - `recorder`: the saves of the record, one after the other.
//! - `voice`: what is told of releases to readers, hooks and the log.
//! - `live_probe`: the probes of the live release. `looks`: when its load and its memory are looked
//!   at. `memory`: what the kernel says of the latter.
//! - `edits`: which `[app]` was attempted last, and whether a newer one waits.
//! - [`orders`]: what an operator has ordered: a pause, maintenance, a freeze. [`scale`]: how many
//!   replicas an operator has asked for.
//! - `history`: the attempts, and what became of them.
//! - `timers`, `clock`, `tasks`: what the coordinator waits for. `turns`: what it waits for at a
//!   start with many apps.
//!
//! The tasks that it starts:
//! - `run`: one process from its start until nothing is left of it.
//! - `step`: a step of a deploy, likewise.
//! - `probing`: a run that no process is started for, until it is healthy or not.
//!
//! Pure:
//! - [`state`]: the machine, a function from state and event to state and effects. A second one in
//!   it keeps the replicas of each set.
//! - `autopsy`: what most likely is wrong with a release that did not become healthy.
//! - `explain`, `refusal`: the texts of attempts that were given up, and of refusals.
//! - `placeholder`: whether the app can listen on a port that is held for it.
//!
//! On disk:
//! - [`spec`]: what a release is, with its companions. `changed`: whether its directory changed since it ran.
//! - [`record`]: what must be known after the daemon has died. `moment`: a time in it. [`store`]:
//!   its file. [`records`]: their place. `parts`: the record of an app that may be two kinds.
//!   `whole`: its bytes. `lock`: its lock. `failpoint`: where a test kills the daemon.
//!
//! For others:
//! - [`Handle`]: requests to the coordinator. `message`: what reaches it. `view`: the snapshot it
//!   publishes.
//! - [`events`]: the events of one attempt.

mod autopsy;
mod changed;
mod clock;
pub mod coordinator;
mod edits;
pub mod events;
mod exits;
mod explain;
#[cfg(debug_assertions)]
pub mod failpoint;
mod handle;
mod history;
mod holder;
mod life;
mod live_probe;
mod lock;
mod looks;
mod memory;
mod message;
mod moment;
pub mod orders;
mod parts;
mod placeholder;
mod probing;
pub mod record;
mod recorder;
pub mod records;
mod refusal;
mod run;
mod runs;
pub mod scale;
pub mod spec;
pub mod state;
mod step;
pub mod store;
mod tasks;
mod timers;
pub mod traffic;
mod turns;
mod view;
mod voice;
mod whole;

pub use coordinator::{Coordinator, End, Parts};
pub use events::Attempt;
pub use handle::{Handle, Rollback};
pub use traffic::Traffic;
pub use turns::Turns;
pub use view::{Member, empty_status};
