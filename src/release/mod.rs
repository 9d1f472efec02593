//! Releases: the pure machine, its one driver, and the durable record.
//!
//! - [`state`] decides: a pure function from state and event to state and effects;
//! - [`coordinator`] drives: one task per app, which turns the world into the machine's events and its effects into calls;
//! - `message` is what reaches the coordinator, [`Handle`] how others ask it, `view` what they see of it;
//! - `run` is the task of one process, from its start until nothing is left of it; `autopsy` finds out why it failed;
//! - [`record`] is the shape of what is kept on disk, [`store`] the file; `history` holds the attempts, [`events`] is the
//!   stream of one of them; `explain` and `refusal` are the texts of attempts that failed and of refusals;
//! - [`spec`] is what a release is, `changed` tells whether its directory is still what it ran from, `placeholder` whether its
//!   port can be held;
//! - `timers` and `clock` keep time; `failpoint` is where a daemon under test dies.

mod autopsy;
mod changed;
mod clock;
pub mod coordinator;
mod edits;
pub mod events;
mod explain;
#[cfg(debug_assertions)]
mod failpoint;
mod handle;
mod history;
mod life;
mod live_probe;
mod message;
mod placeholder;
mod probing;
pub mod record;
mod recorder;
mod refusal;
mod run;
mod runs;
pub mod spec;
pub mod state;
pub mod store;
mod tasks;
mod timers;
mod traffic;
mod view;
mod voice;

pub use coordinator::{Coordinator, Parts};
pub use events::Attempt;
pub use handle::{Handle, Rollback};
pub use traffic::Traffic;
