//! Releases: the pure machine, its one driver, and the durable record.
//!
//! - [`state`] decides: a pure function from state and event to state and effects;
//! - [`coordinator`] drives: one task per app, the only owner of the machine's state, the history and the route's
//!   writer; `boot` is how it begins, `leave` how it stands still and goes without an end, `effects` are its hands, `tell` its voice, `recorder` its pen, `timers` its clock,
//!   `history` its memory, `snapshot` its face;
//! - `requests` is what others ask of it, `refusal` the texts of its refusals, `in_force` whether
//!   `[app]` is what runs, `changed` whether a directory still is what a release ran from;
//! - `message` is what reaches it, `view` what others see of it;
//! - `run` is the task of one process from its start until nothing is left of it, `autopsy` says why it failed,
//!   `placeholder` knows how its port can be held;
//! - `failpoint` is where a daemon under test dies;
//! - [`store`] keeps the record on disk, [`spec`] is what a release is;
//! - [`events`] is what whoever asked for a deploy reads; [`Handle`] is how others ask.

mod autopsy;
mod boot;
mod changed;
pub mod coordinator;
mod effects;
pub mod events;
#[cfg(debug_assertions)]
mod failpoint;
mod handle;
mod history;
mod in_force;
mod leave;
mod message;
mod placeholder;
mod recorder;
mod refusal;
mod requests;
mod run;
mod snapshot;
pub mod spec;
pub mod state;
pub mod store;
mod tell;
mod timers;
mod view;

pub use coordinator::{Coordinator, Parts};
pub use events::Attempt;
pub use handle::{Handle, Rollback};
